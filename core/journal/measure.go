package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Earlier returns what was measured of a server before: of each check, what the newest run until then has recorded.
func (j *Journal) Earlier(ctx context.Context, server string, until time.Time) (doctor.Earlier, error) {
	measures, err := j.measures(ctx, `WHERE runs.server = ? AND runs.id = (
		SELECT r.id FROM measures m JOIN runs r ON r.id = m.run
		WHERE m.check_id = measures.check_id AND r.server = runs.server AND r.started <= ? ORDER BY r.started DESC, r.id DESC LIMIT 1)`,
		server, millis(until))
	if err != nil {
		return doctor.Earlier{}, err
	}
	return doctor.NewEarlier(measures), nil
}

// Series is one measure through the runs.
type Series struct {
	Key    doctor.MeasureKey
	Unit   string
	Points []Point // the oldest first
}

// Point is one value of a series.
type Point struct {
	At    time.Time
	Value float64
}

// Series returns what has been measured of a server in its last runs that measured anything, in the order of the newest.
func (j *Journal) Series(ctx context.Context, server string, runs int) ([]Series, error) {
	measures, err := j.measures(ctx, `WHERE runs.id IN (
		SELECT id FROM runs WHERE server = ? AND EXISTS (SELECT 1 FROM measures WHERE measures.run = runs.id) ORDER BY started DESC, id DESC LIMIT ?)`,
		server, runs)
	if err != nil {
		return nil, err
	}
	var all []Series
	at := map[doctor.MeasureKey]int{}
	for _, m := range slices.Backward(measures) { // the newest run's order is a person's
		i, ok := at[m.Key()]
		if !ok {
			i = len(all)
			at[m.Key()] = i
			all = append(all, Series{Key: m.Key(), Unit: m.Unit})
		}
		all[i].Points = append(all[i].Points, Point{m.At, m.Value})
	}
	slices.Reverse(all)
	for i := range all {
		slices.Reverse(all[i].Points)
	}
	return all, nil
}

// measures reads some of them, the oldest run's first.
func (j *Journal) measures(ctx context.Context, where string, args ...any) ([]doctor.Measure, error) {
	if j.version < 3 {
		return nil, nil
	}
	rows, err := j.db.QueryContext(ctx, `SELECT measures.check_id, measures.database, measures.kind, measures.name, measures.measure,
		measures.value, measures.unit, runs.started FROM measures JOIN runs ON runs.id = measures.run `+where+` ORDER BY runs.started, runs.id, measures.rowid`, args...)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	defer rows.Close()
	var all []doctor.Measure
	for rows.Next() {
		var m doctor.Measure
		var at int64
		if err := rows.Scan(&m.Check, &m.Database, &m.Object.Kind, &m.Object.Name, &m.Name, &m.Value, &m.Unit, &at); err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		m.At = fromMillis(at).Truncate(time.Second)
		all = append(all, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	return all, nil
}

// LastExamined is the newest recorded run of a server, until then, that examined anything; [ErrNoRun] when there is none.
func (j *Journal) LastExamined(ctx context.Context, server string, until time.Time) (Run, error) {
	r, err := scanRun(j.db.QueryRowContext(ctx, `SELECT id, command, version, server, started, ended, status FROM runs
		WHERE server = ? AND started <= ? AND EXISTS (SELECT 1 FROM examined WHERE examined.run = runs.id)
		ORDER BY started DESC, id DESC LIMIT 1`, server, millis(until)))
	if errors.Is(err, sql.ErrNoRows) {
		return Run{}, ErrNoRun
	}
	return r, err
}

// Compare tells new, persisting and resolved findings of checks that have just been run, against a recorded run.
func (j *Journal) Compare(ctx context.Context, checks []doctor.CheckResult, before Run) (doctor.Since, error) {
	then, err := j.findings(ctx, before.ID)
	if err != nil {
		return doctor.Since{}, err
	}
	examinedThen, err := j.examined(ctx, before.ID)
	if err != nil {
		return doctor.Since{}, err
	}
	was := map[doctor.FindingKey]bool{}
	for _, f := range then {
		was[f.Key] = true
	}
	out := doctor.Since{Run: before.ID, At: before.Started}
	is, examined := map[doctor.FindingKey]bool{}, map[string]bool{}
	for _, c := range checks {
		examined[c.ID] = c.Status != doctor.StatusSkipped && c.Status != doctor.StatusUnknown
		for _, f := range c.Findings {
			is[f.Key()] = true
			switch {
			case was[f.Key()]:
				out.Persisting++
			case examinedThen[c.ID]:
				out.New = append(out.New, f.Key())
			default:
				out.NotComparable++
			}
		}
	}
	for _, f := range then {
		if !is[f.Key] && examined[doctor.CheckID(f.Key.Code)] {
			out.Resolved = append(out.Resolved, f.Key)
		}
	}
	return out, nil
}

// LastMeasured is the newest run of any server that measured anything; [ErrNoRun] when there is none.
func (j *Journal) LastMeasured(ctx context.Context) (Run, error) {
	r, err := scanRun(j.db.QueryRowContext(ctx, `SELECT id, command, version, server, started, ended, status FROM runs
		WHERE EXISTS (SELECT 1 FROM measures WHERE measures.run = runs.id) ORDER BY started DESC, id DESC LIMIT 1`))
	if errors.Is(err, sql.ErrNoRows) {
		return Run{}, ErrNoRun
	}
	return r, err
}
