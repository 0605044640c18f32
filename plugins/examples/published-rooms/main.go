// Command synapse-doctor-plugin-published-rooms finds rooms that this server lists in its public directory although
// none of its users is in them any more. It is an example of a plugin as an outsider writes it: a module of its own, which
// knows nothing of synapse-doctor but the packages core/doctor and plugins/sdk.
//
//	go build -o synapse-doctor-plugin-published-rooms .
//	synapse-doctor check published-rooms --dev-plugin ./synapse-doctor-plugin-published-rooms
package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/sdk"
)

func main() {
	sdk.Serve(sdk.Plugin{Name: "published-rooms", Version: "1.0", Checks: []doctor.Check{check}})
}

const emptyRoom = "published-rooms/empty-room"

var check = doctor.Check{
	ID:    "published-rooms",
	Title: "Published rooms can be joined through this server",
	Why:   "People who pick such a room from the directory get an error: no user of this server is in it to let them in.",
	Needs: doctor.NeedsSynapse,
	Codes: []doctor.Code{{ID: emptyRoom, Title: "a published room has no local user", Severity: doctor.Warning}},
	Run:   run,
	Plan:  plan,
	// A plan that goes beyond this is refused.
	Changes: doctor.Effects{Tables: []string{"rooms"}},
}

// Rooms without statistics yet are left alone: nothing is known of them.
const query = `SELECT r.room_id, s.joined_members
FROM rooms r JOIN room_stats_current s USING (room_id)
WHERE r.is_public AND s.local_users_in_room = 0
ORDER BY r.room_id LIMIT 100`

func run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	for _, db := range t.Meeting(doctor.NeedsSynapse) {
		if !db.Holds("main") {
			continue
		}
		err := db.Read(ctx, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, query)
			if err != nil {
				return err
			}
			var room string
			var members int
			_, err = pgx.ForEachRow(rows, []any{&room, &members}, func() error {
				r.Find(emptyRoomFinding(db.Label, room, members))
				return nil
			})
			return err
		})
		if err != nil {
			return fmt.Errorf("look for published rooms in %s: %w", db.Where(), err)
		}
	}
	return nil
}

func emptyRoomFinding(database, room string, members int) doctor.Finding {
	return doctor.Finding{
		Code: emptyRoom, Severity: doctor.Warning, Database: database,
		Object:   doctor.Object{Kind: "room", Name: room},
		Summary:  fmt.Sprintf("The room %s is in the public directory, and no user of this server is in it.", room),
		Observed: fmt.Sprintf("0 local users, %d members elsewhere", members),
		Expected: "at least one local user, or not published",
		Remedy:   "Take the room out of the directory, or let a local user join it by an invitation.",
		Fixable:  true,
		Evidence: map[string]string{"query": query},
	}
}

const (
	unpublish = `UPDATE rooms SET is_public = false WHERE room_id = $1 AND is_public`
	publish   = `UPDATE rooms SET is_public = true WHERE room_id = $1 AND NOT is_public`
	stillSo   = `SELECT local_users_in_room = 0 FROM room_stats_current WHERE room_id = $1`
)

// plan takes all the rooms of one database out of its directory, in one transaction.
func plan(_ context.Context, _ *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
	var plans []doctor.Plan
	at := map[string]int{}
	for _, f := range findings {
		i, ok := at[f.Database]
		if !ok {
			i, at[f.Database] = len(plans), len(plans)
			plans = append(plans, doctor.Plan{
				ID: "published-rooms/unpublish", Title: "Take rooms without a local user out of the public directory",
				Risk: doctor.Careful, Expects: doctor.ExpectSynapse, Database: f.Database,
				Requires:   []doctor.Requirement{doctor.RequireStopped}, // a running Synapse caches the directory
				Reversible: true, UndoOnFailure: true,
			})
		}
		room := []doctor.Value{{V: f.Object.Name}}
		plans[i].Covers = append(plans[i].Covers, f.Key())
		plans[i].Steps = append(plans[i].Steps, doctor.Step{
			Title: "Take " + f.Object.Name + " out of the directory",
			SQL: &doctor.SQLStep{
				Database: f.Database, Statement: unpublish, Args: room, MaxRows: 1,
				Mode: doctor.ModeGroup, Group: "unpublish",
				Guard: &doctor.Guard{Query: stillSo, Args: room, Else: "A local user has joined " + f.Object.Name + " meanwhile."},
				Undo:  []doctor.UndoSQL{{Statement: publish, Args: room}},
			},
		})
	}
	return plans, nil
}
