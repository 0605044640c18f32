package upkeep

import (
	"context"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// update is a row of background_updates.
type update struct{ Name, Progress, DependsOn string }

const updatesQuery = `SELECT update_name, progress_json, coalesce(depends_on, '') FROM background_updates ORDER BY ordering, update_name LIMIT 1000`

// maxOrdering is Synapse's clock: as long as it stands still, Synapse may just not have run.
const maxOrdering = `SELECT coalesce(max(stream_ordering), 0) FROM events`

// fingerprint makes a number of the whole queue and what each update has recorded. It is exact as a measure, and serves only
// to be the same or not.
func fingerprint(updates []update) float64 {
	h := fnv.New64a()
	for _, u := range updates {
		fmt.Fprintf(h, "%q %q\n", u.Name, u.Progress)
	}
	return float64(h.Sum64() >> 12)
}

// What the next run compares is measured of things of their own, apart from what a person reads of the database.
var (
	queue  = doctor.Object{Kind: "progress", Name: "background updates"}
	stream = doctor.Object{Kind: "progress", Name: "events"}
)

const (
	queuedMeasure      = "queued"
	fingerprintMeasure = "fingerprint"
	positionMeasure    = "position"
	stalledMeasure     = "stalled-for"
)

func (e *examination) lookAtUpdates(ctx context.Context, tx pgx.Tx) error {
	if err := e.lookAtPosition(ctx, tx); err != nil || !e.readable("background_updates", "update_name", "progress_json", "depends_on", "ordering") {
		return err
	}
	updates, err := collect[update](ctx, tx, updatesQuery)
	if err != nil || len(updates) == 0 {
		return err
	}
	now := fingerprint(updates)
	before, ok := e.earlier(queue, fingerprintMeasure)
	e.measure(doctor.Measure{Object: queue, Name: queuedMeasure, Value: float64(len(updates))})
	e.measure(doctor.Measure{Object: queue, Name: fingerprintMeasure, Value: now, Unit: "fingerprint"})
	if !ok || before.Value != now {
		return nil
	}
	building, err := buildsIndex(ctx, tx)
	if err != nil {
		return err
	}
	stalled := e.stalledFor(queue, stalledMeasure, before)
	if building {
		was, _ := e.earlier(queue, stalledMeasure)
		stalled = seconds(was.Value)
	}
	e.measure(doctor.Measure{Object: queue, Name: stalledMeasure, Value: float64(int64(stalled.Seconds())), Unit: "seconds"})
	if building || stalled == 0 || stalled < hours(e.threshold(updateHours)) {
		return nil
	}
	e.find(e.stuck(updates, stalled))
	return nil
}

// lookAtPosition finds out whether Synapse has stored an event since the earlier run. Events are in the main database.
func (e *examination) lookAtPosition(ctx context.Context, tx pgx.Tx) error {
	var last int64
	switch main := e.target.Main(); {
	case e.db.Holds("main") && e.leads("events", "stream_ordering"):
		if err := tx.QueryRow(ctx, maxOrdering).Scan(&last); err != nil {
			return err
		}
	case !e.db.Holds("main") && main != nil && main.Meets.Has(doctor.NeedsSynapse):
		if err := main.Read(ctx, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, lookupSettings); err != nil {
				return err
			}
			return tx.QueryRow(ctx, maxOrdering).Scan(&last)
		}); err != nil {
			return err
		}
	default:
		return nil
	}
	before, ok := e.earlier(stream, positionMeasure)
	e.measure(doctor.Measure{Object: stream, Name: positionMeasure, Value: float64(last)})
	e.worked = ok && float64(last) > before.Value
	return nil
}

// buildsIndex: while an index is built, for hours perhaps, an update that waits for it records nothing.
func buildsIndex(ctx context.Context, tx pgx.Tx) (building bool, err error) {
	err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE datname = current_database())`).Scan(&building)
	return building, err
}

func hours(n float64) time.Duration { return time.Duration(n * float64(time.Hour)) }

// stuck names the update at which the queue stands: the first that waits for none that is queued.
func (e *examination) stuck(updates []update, stalled time.Duration) doctor.Finding {
	queued := map[string]bool{}
	for _, u := range updates {
		queued[u.Name] = true
	}
	head := updates[0]
	for _, u := range updates {
		if !queued[u.DependsOn] {
			head = u
			break
		}
	}
	progress := head.Progress
	if len(progress) > 200 {
		progress = strings.ToValidUTF8(progress[:200], "") + "…"
	}
	f := doctor.Finding{
		Code: UpdateStuck, Severity: doctor.Warning, Object: doctor.Object{Kind: "background update", Name: head.Name},
		Summary:  fmt.Sprintf("Background updates get nowhere: none of %d has got on in %s, though Synapse has worked. %s is the next.", len(updates), age(stalled), head.Name),
		Observed: "progress_json is what it was " + age(stalled) + " ago",
		Expected: fmt.Sprintf("progress within %.0f hours", e.threshold(updateHours)),
		Remedy: "See whether they have been turned off, and what Synapse says of them:\n\n" +
			"    curl -H \"Authorization: Bearer TOKEN\" https://SERVER/_synapse/admin/v1/background_updates/status\n\n" +
			"    curl -X POST -H \"Authorization: Bearer TOKEN\" -d '{\"enabled\": true}' https://SERVER/_synapse/admin/v1/background_updates/enabled\n\n" +
			"Otherwise look for \"background update\" in the log of the process that runs background tasks. One that fails five times in a row is not tried again until " +
			"Synapse is started anew. A name that this Synapse does not know, left by a newer release or a module, stops the queue for good. " +
			"Never delete a row to get on: what it would have done is then missing for ever.",
		Evidence: map[string]string{"progress_json": progress, "queued": fmt.Sprint(len(updates))},
	}
	return f
}
