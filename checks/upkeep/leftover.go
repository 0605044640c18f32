package upkeep

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// writersQuery lists who has recorded a position, and in which streams.
const writersQuery = `SELECT instance_name, string_agg(stream_name, ', ' ORDER BY stream_name), max(abs(stream_id)) FROM stream_positions
WHERE instance_name <> 'master' GROUP BY 1 ORDER BY 1`

type writer struct {
	Name, Streams string
	Position      int64
}

// lookAtWriters finds positions of writers that the configuration no longer names as one. Synapse deletes their rows when it
// starts, but compares them with the sequences before.
func (e *examination) lookAtWriters(ctx context.Context, tx pgx.Tx) error {
	if len(e.target.ConfigFiles) == 0 || !e.readable("stream_positions", "stream_name", "instance_name", "stream_id") {
		return nil
	}
	config, err := synapse.Load(e.target.ConfigFiles...)
	if err != nil {
		e.leave("stream_positions", "the configuration could not be read: "+err.Error())
		return nil
	}
	writers, err := collect[writer](ctx, tx, writersQuery)
	if err != nil {
		return err
	}
	configured := map[string]bool{}
	for _, names := range config.StreamWriters {
		for _, name := range names {
			configured[name] = true
		}
	}
	f := doctor.Finding{
		Code: StaleWriters, Severity: doctor.Info, Object: doctor.Object{Kind: "table", Name: "stream_positions"},
		Expected: "only the writers that stream_writers names", Evidence: map[string]string{},
		Remedy: "Nothing needs to be done: Synapse deletes them when it starts with a configuration in which they write nothing. If a worker of this name " +
			"still runs, stop it, or name it in stream_writers; see also that the configuration given to the doctor is all of Synapse's.",
	}
	var stale []string
	for _, w := range writers {
		if configured[w.Name] {
			continue
		}
		stale = append(stale, w.Name)
		if len(f.Evidence) < doctor.MaxEvidence {
			f.Evidence[w.Name] = w.Streams
		}
	}
	if len(stale) == 0 {
		return nil
	}
	f.Summary = "Positions are recorded of workers that the configuration does not name as writers: " + shortened(stale, 5) + "."
	f.Observed = count(len(stale), "writer") + " that stream_writers does not name"
	e.find(f)
	return nil
}

const locksQuery = `SELECT count(*), coalesce(min(last_renewed_ts), 0), coalesce(string_agg(DISTINCT instance_name, ', '), '') FROM %s WHERE last_renewed_ts < $1`

// lookAtLocks finds locks of processes that are gone. A process renews each of its locks every half minute; whoever wants one
// that has not been renewed for minutes takes it.
func (e *examination) lookAtLocks(ctx context.Context, tx pgx.Tx) error {
	for _, table := range []string{"worker_locks", "worker_read_write_locks"} {
		if !e.readable(table, "last_renewed_ts", "instance_name") {
			continue
		}
		var n int
		var oldest int64
		var holders string
		before := e.now.Add(-hours(e.threshold(lockHours))).UnixMilli()
		if err := tx.QueryRow(ctx, fmt.Sprintf(locksQuery, table), before).Scan(&n, &oldest, &holders); err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		e.find(doctor.Finding{
			Code: StaleLocks, Severity: doctor.Info, Object: doctor.Object{Kind: "table", Name: table},
			Summary:  fmt.Sprintf("%s in %s not been renewed for up to %s: the process that held it is gone.", count(n, "lock"), table+map[bool]string{true: " has", false: " have"}[n == 1], age(e.now.Sub(time.UnixMilli(oldest)))),
			Observed: "held by " + holders, Expected: fmt.Sprintf("renewed within %.0f hours", e.threshold(lockHours)),
			Remedy: fmt.Sprintf("Nothing needs to be done: Synapse takes over a lock that is not renewed. With Synapse and every worker stopped they may be cleared:\n\n    DELETE FROM %s;", table),
		})
	}
	return nil
}

// directoryQuery: without a position the user directory waits for the update that fills it.
const directoryQuery = `SELECT stream_id IS NULL FROM user_directory_stream_pos LIMIT 1`

const fillingQuery = `SELECT update_name FROM background_updates WHERE starts_with(update_name, 'populate_user_directory')`

func (e *examination) lookAtDirectory(ctx context.Context, tx pgx.Tx) error {
	if !e.readable("user_directory_stream_pos", "stream_id") || !e.readable("background_updates", "update_name") {
		return nil
	}
	frozen, err := collect[struct{ Frozen bool }](ctx, tx, directoryQuery)
	if err != nil || len(frozen) == 0 || !frozen[0].Frozen {
		return err
	}
	queued, err := collect[struct{ Name string }](ctx, tx, fillingQuery)
	if err != nil || len(queued) > 0 {
		return err
	}
	e.find(doctor.Finding{
		Code: DirectoryFrozen, Severity: doctor.Info, Object: doctor.Object{Kind: "table", Name: "user_directory_stream_pos"},
		Summary:  "The user directory is frozen: it has no position in the events, and nothing is queued that would fill it. Searching for users finds nobody, or nobody new.",
		Observed: "stream_id is NULL, and no populate_user_directory update is queued", Expected: "a position, or a queued update",
		Remedy: "Have Synapse fill it anew, as a server administrator; it takes a while on a large server, and goes on in the background:\n\n" +
			"    curl -X POST -H \"Authorization: Bearer TOKEN\" -d '{\"job_name\": \"regenerate_directory\"}' https://SERVER/_synapse/admin/v1/background_updates/start_job",
	})
	return nil
}

// room is one with many forward extremities.
type room struct {
	ID string
	N  int64
}

// extremitiesQuery counts the events of each room that nothing has followed yet.
const extremitiesQuery = `SELECT room_id, count(*), count(*) OVER () FROM event_forward_extremities GROUP BY room_id HAVING count(*) > $1 ORDER BY 2 DESC, 1 LIMIT 20`

// manyTimes is how many times the threshold makes it a warning.
const manyTimes = 10

func (e *examination) lookAtExtremities(ctx context.Context, tx pgx.Tx) error {
	if !e.has("event_forward_extremities", "room_id") {
		return nil
	}
	if e.known["event_forward_extremities"].Bytes > small && !e.target.Deep {
		e.notDeep = append(e.notDeep, "event_forward_extremities")
		return nil
	}
	if e.target.Deep {
		return nil // read among the rest
	}
	return e.readExtremities(ctx, tx)
}

func (e *examination) readExtremities(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, extremitiesQuery, int64(e.threshold(extremities)))
	if err != nil {
		return err
	}
	var rooms []room
	var r room
	var all int64
	if _, err := pgx.ForEachRow(rows, []any{&r.ID, &r.N, &all}, func() error { rooms = append(rooms, r); return nil }); err != nil || len(rooms) == 0 {
		return err
	}
	f := doctor.Finding{
		Code: ForwardExtremities, Severity: doctor.Info, Object: doctor.Object{Kind: "table", Name: "event_forward_extremities"},
		Summary: fmt.Sprintf("%s more than %.0f forward extremities, up to %d: every message there needs costly state resolution.",
			plural(int(all), "room has", "rooms have"), e.threshold(extremities), rooms[0].N),
		Observed: fmt.Sprintf("%s has %d", rooms[0].ID, rooms[0].N), Expected: fmt.Sprintf("at most %.0f in each room", e.threshold(extremities)),
		Remedy: "Synapse sends dummy events into such rooms by itself, as long as one of its users there may. See one room, and let Synapse keep only the last, with the admin API:\n\n" +
			"    curl -H \"Authorization: Bearer TOKEN\" https://SERVER/_synapse/admin/v1/rooms/ROOM_ID/forward_extremities\n\n" +
			"    curl -X DELETE -H \"Authorization: Bearer TOKEN\" https://SERVER/_synapse/admin/v1/rooms/ROOM_ID/forward_extremities\n\n" +
			"The deletion can't be undone, and takes the server's view of the room back to one event: use it for rooms that cause load, not for all. Never delete rows by hand.",
		Evidence: map[string]string{},
	}
	if float64(rooms[0].N) > manyTimes*e.threshold(extremities) {
		f.Severity = doctor.Warning
	}
	for _, r := range rooms {
		f.Evidence[r.ID] = fmt.Sprint(r.N)
	}
	e.find(f)
	return nil
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
