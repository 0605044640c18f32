package upkeep

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// lookAhead is how many of the oldest rows are looked at.
const lookAhead = 1000

// pruner is a task by which Synapse keeps a table short. It runs in the main process, or in the one that
// run_background_tasks_on names.
type pruner struct {
	table   string
	by      string   // the column by whose index the oldest rows come first
	columns []string // that the time is taken from
	time    string   // milliseconds since 1970; NULL where the row may stay
	days    int      // for which Synapse keeps a row
}

// Synapse keeps one row of device_lists_outbound_pokes for each server that can't be reached, however long: only what has been
// sent should be gone.
var pruners = []pruner{
	{"cache_invalidation_stream_by_instance", "stream_id", []string{"stream_id", "invalidation_ts"}, "invalidation_ts", 7},
	{"device_lists_changes_in_room", "stream_id", []string{"stream_id", "inserted_ts"}, "inserted_ts", 30},
	{"device_lists_outbound_pokes", "stream_id", []string{"stream_id", "sent", "ts"}, "CASE WHEN sent THEN ts END", 1},
	{"sliding_sync_connections", "connection_key", []string{"connection_key", "created_ts", "last_used_ts"}, "coalesce(last_used_ts, created_ts)", 30},
	{"state_groups_pending_deletion", "sequence_number", []string{"sequence_number", "insertion_ts"}, "insertion_ts", 1},
}

// query counts, among the oldest rows, those from before a time.
func (p pruner) query() string {
	return fmt.Sprintf(`SELECT count(*) FILTER (WHERE ts < $1), coalesce(min(ts), 0) FROM (SELECT %s AS ts FROM %s ORDER BY %s LIMIT %d) o`,
		p.time, p.table, p.by, lookAhead)
}

const (
	overdueMeasure    = "overdue-rows"
	overdueForMeasure = "overdue-for"
)

func (e *examination) lookAtPruners(ctx context.Context, tx pgx.Tx) error {
	for _, p := range pruners {
		if !e.has(p.table, p.columns...) || !e.leads(p.table, p.by) {
			continue
		}
		if err := e.ask(ctx, tx, p.table, func(ctx context.Context, tx pgx.Tx) error { return e.lookAtPruner(ctx, tx, p) }); err != nil {
			return err
		}
	}
	return e.ask(ctx, tx, prunedTable, e.lookAtPruned)
}

func (e *examination) lookAtPruner(ctx context.Context, tx pgx.Tx, p pruner) error {
	kept := time.Duration(float64(p.days)+e.threshold(prunerDays)) * 24 * time.Hour
	var overdue, oldest int64
	if err := tx.QueryRow(ctx, p.query(), e.now.Add(-kept).UnixMilli()).Scan(&overdue, &oldest); err != nil {
		return err
	}
	object := doctor.Object{Kind: "table", Name: p.table}
	before, measured := e.earlier(object, overdueMeasure)
	if float64(overdue) < e.threshold(prunerRows) {
		return nil
	}
	e.measure(doctor.Measure{Object: object, Name: overdueMeasure, Value: float64(overdue), Unit: "rows"})
	old := e.now.Sub(time.UnixMilli(oldest))
	f := doctor.Finding{
		Code: PrunerLate, Severity: doctor.Info, Object: object,
		Summary:  fmt.Sprintf("Synapse deletes rows of %s after %s, and there are some from %s ago: the task that does it does not seem to run.", p.table, count(p.days, "day"), age(old)),
		Observed: fmt.Sprintf("%d of the oldest %d rows are overdue, the oldest by %s", overdue, lookAhead, age(old-time.Duration(p.days)*24*time.Hour)),
		Expected: fmt.Sprintf("fewer than %.0f that are more than %.0f days overdue", e.threshold(prunerRows), e.threshold(prunerDays)),
		Remedy:   prunerRemedy,
		Evidence: map[string]string{"size": size(float64(e.known[p.table].Bytes))},
	}
	var late time.Duration
	if measured && before.Value >= e.threshold(prunerRows) {
		late = e.stalledFor(object, overdueForMeasure, before)
	}
	e.measure(doctor.Measure{Object: object, Name: overdueForMeasure, Value: float64(int64(late.Seconds())), Unit: "fingerprint"})
	// Just started, or just restored, a homeserver has not had the time yet.
	if late >= apart {
		f.Severity = doctor.Warning
		f.Summary += " So it was " + age(late) + " ago."
	}
	e.find(f)
	return nil
}

const prunerRemedy = "Synapse does this in its main process, or in the worker that homeserver.yaml names:\n\n    run_background_tasks_on: WORKER\n\n" +
	"See that a process of exactly this name runs, and look for errors in its log. After a restore, or after Synapse has been off for long, look again some hours " +
	"after its start. Don't delete the rows by hand."

const prunedTable = "device_lists_changes_in_room"

// prunedQuery counts rows below what Synapse has recorded as deleted.
const prunedQuery = `SELECT count(*) FROM (SELECT FROM device_lists_changes_in_room
  WHERE stream_id < (SELECT max(stream_id) FROM device_lists_changes_in_room_max_pruned_stream_id) AND converted_to_destinations
  ORDER BY stream_id LIMIT 1000) o`

// lookAtPruned finds rows that Synapse takes to be gone: they are never deleted any more.
func (e *examination) lookAtPruned(ctx context.Context, tx pgx.Tx) error {
	if !e.has(prunedTable, "stream_id", "converted_to_destinations") || !e.leads(prunedTable, "stream_id") ||
		!e.readable("device_lists_changes_in_room_max_pruned_stream_id", "stream_id") {
		return nil
	}
	var left int
	if err := tx.QueryRow(ctx, prunedQuery).Scan(&left); err != nil || float64(left) < e.threshold(prunerRows) {
		return err
	}
	e.find(doctor.Finding{
		Code: PrunerLate, Severity: doctor.Info, Object: doctor.Object{Kind: "table", Name: "device_lists_changes_in_room_max_pruned_stream_id"},
		Summary:  "Rows of device_lists_changes_in_room are still there that Synapse has recorded as deleted.",
		Observed: fmt.Sprintf("%d or more rows below max_pruned_stream_id", left),
		Expected: fmt.Sprintf("fewer than %.0f", e.threshold(prunerRows)),
		Remedy:   prunerRemedy + " Rows of this table least of all: users could no longer decrypt each other's messages.",
	})
	return nil
}
