package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// RunStatus is how a run ended.
type RunStatus string

const (
	RunRunning     RunStatus = "running" // or killed before it could say otherwise
	RunDone        RunStatus = "done"
	RunFailed      RunStatus = "failed"
	RunRefused     RunStatus = "refused"     // an undo that a gate, a precondition or a person turned down; nothing has changed
	RunInterrupted RunStatus = "interrupted" // killed; a later run settled it
)

// Run is one recorded run of the doctor.
type Run struct {
	ID      string
	Command string // check, fix or undo
	Version string
	Server  string // server_name
	Started time.Time
	Ended   time.Time // zero while running
	Status  RunStatus
}

// Begin records that a run has started.
func (j *Journal) Begin(ctx context.Context, r Run) error {
	return j.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO runs (id, command, version, server, started, status) VALUES (?, ?, ?, ?, ?, ?)`,
			r.ID, r.Command, r.Version, r.Server, millis(r.Started), RunRunning)
		return err
	})
}

// End records how a run ended.
func (j *Journal) End(ctx context.Context, id string, at time.Time, status RunStatus) error {
	return j.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE runs SET ended = ?, status = ? WHERE id = ?`, millis(at), status, id)
		return err
	})
}

// RecordFindings keeps what the run's checks found and measured.
func (j *Journal) RecordFindings(ctx context.Context, run string, checks []doctor.CheckResult) error {
	return j.inTx(ctx, func(tx *sql.Tx) error {
		for _, c := range checks {
			if _, err := tx.ExecContext(ctx, `INSERT INTO examined (run, check_id, status) VALUES (?, ?, ?)`, run, c.ID, c.Status.String()); err != nil {
				return err
			}
			for _, f := range c.Findings {
				if _, err := tx.ExecContext(ctx, `INSERT INTO findings (run, code, severity, database, kind, name, summary) VALUES (?, ?, ?, ?, ?, ?, ?)`,
					run, f.Code, f.Severity.String(), f.Database, f.Object.Kind, f.Object.Name, f.Summary); err != nil {
					return err
				}
			}
			for _, m := range c.Measures {
				if _, err := tx.ExecContext(ctx, `INSERT INTO measures (run, check_id, database, kind, name, measure, value, unit) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
					run, c.ID, m.Database, m.Object.Kind, m.Object.Name, m.Name, m.Value, m.Unit); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Runs lists the newest runs first, at most limit of them.
func (j *Journal) Runs(ctx context.Context, limit int) ([]Run, error) {
	rows, err := j.db.QueryContext(ctx, `SELECT id, command, version, server, started, ended, status FROM runs ORDER BY started DESC, id DESC LIMIT ?`, limit)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	defer rows.Close()
	var runs []Run
	for rows.Next() {
		r, err := scanRun(rows)
		if err != nil {
			return nil, err
		}
		runs = append(runs, r)
	}
	return runs, rows.Err()
}

// ErrNoRun is returned for the id of a run that was not recorded.
var ErrNoRun = errors.New("no such run")

// Run returns one run by its id.
func (j *Journal) Run(ctx context.Context, id string) (Run, error) {
	r, err := scanRun(j.db.QueryRowContext(ctx, `SELECT id, command, version, server, started, ended, status FROM runs WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return Run{}, fmt.Errorf("%s: %w", id, ErrNoRun)
	}
	return r, err
}

func scanRun(row interface{ Scan(...any) error }) (Run, error) {
	var r Run
	var started int64
	var ended sql.NullInt64
	if err := row.Scan(&r.ID, &r.Command, &r.Version, &r.Server, &started, &ended, &r.Status); err != nil {
		return Run{}, fmt.Errorf("read the journal: %w", err)
	}
	r.Started = fromMillis(started)
	if ended.Valid {
		r.Ended = fromMillis(ended.Int64)
	}
	return r, nil
}

// Trend says how a finding stands against the run before.
type Trend string

const (
	TrendNew        Trend = "new"
	TrendPersisting Trend = "persisting"
	TrendResolved   Trend = "resolved"
)

// RecordedFinding is a finding as the journal keeps it.
type RecordedFinding struct {
	Key      doctor.FindingKey
	Severity string
	Summary  string
	Trend    Trend
}

// Findings returns what a run found and, as resolved, what the previous recorded run of the same server found, this one
// examined, and did not find again.
func (j *Journal) Findings(ctx context.Context, run Run) ([]RecordedFinding, error) {
	now, err := j.findings(ctx, run.ID)
	if err != nil {
		return nil, err
	}
	var previous string
	err = j.db.QueryRowContext(ctx, `SELECT id FROM runs WHERE server = ? AND (started, id) < (?, ?)
		AND EXISTS (SELECT 1 FROM examined WHERE examined.run = runs.id) ORDER BY started DESC, id DESC LIMIT 1`,
		run.Server, millis(run.Started), run.ID).Scan(&previous)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	before, err := j.findings(ctx, previous)
	if err != nil {
		return nil, err
	}
	examined, err := j.examined(ctx, run.ID)
	if err != nil {
		return nil, err
	}
	was := map[doctor.FindingKey]bool{}
	for _, f := range before {
		was[f.Key] = true
	}
	is := map[doctor.FindingKey]bool{}
	for i, f := range now {
		is[f.Key] = true
		now[i].Trend = TrendNew
		if was[f.Key] {
			now[i].Trend = TrendPersisting
		}
	}
	for _, f := range before {
		if !is[f.Key] && examined[doctor.CheckID(f.Key.Code)] {
			f.Trend = TrendResolved
			now = append(now, f)
		}
	}
	return now, nil
}

func (j *Journal) findings(ctx context.Context, run string) ([]RecordedFinding, error) {
	rows, err := j.db.QueryContext(ctx, `SELECT code, severity, database, kind, name, summary FROM findings WHERE run = ? ORDER BY rowid`, run)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	defer rows.Close()
	var all []RecordedFinding
	for rows.Next() {
		var f RecordedFinding
		if err := rows.Scan(&f.Key.Code, &f.Severity, &f.Key.Database, &f.Key.Object.Kind, &f.Key.Object.Name, &f.Summary); err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		all = append(all, f)
	}
	return all, rows.Err()
}

// examined tells which checks a run could look at wholly.
func (j *Journal) examined(ctx context.Context, run string) (map[string]bool, error) {
	rows, err := j.db.QueryContext(ctx, `SELECT check_id FROM examined WHERE run = ? AND status NOT IN ('skipped', 'unknown')`, run)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	defer rows.Close()
	ids := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		ids[id] = true
	}
	return ids, rows.Err()
}

// Prune removes runs that ended before the given time, with their saved rows and files. Runs that were not settled stay.
func (j *Journal) Prune(ctx context.Context, before time.Time) (int, error) {
	var ids []string
	rows, err := j.db.QueryContext(ctx, `SELECT id FROM runs WHERE ended < ? AND status <> 'running'
		AND NOT EXISTS (SELECT 1 FROM plans WHERE plans.run = runs.id AND plans.status IN ('applying', 'undoing'))`, millis(before))
	if err != nil {
		return 0, fmt.Errorf("read the journal: %w", err)
	}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			rows.Close()
			return 0, fmt.Errorf("read the journal: %w", err)
		}
		ids = append(ids, id)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return 0, fmt.Errorf("read the journal: %w", err)
	}
	for _, id := range ids {
		if err := j.removeBackups(id); err != nil {
			return 0, err
		}
		if err := j.inTx(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `DELETE FROM runs WHERE id = ?`, id)
			return err
		}); err != nil {
			return 0, err
		}
	}
	return len(ids), nil
}
