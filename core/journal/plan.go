package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// PlanStatus is how far the journal knows a plan to have come.
type PlanStatus string

const (
	PlanApplying PlanStatus = "applying"
	PlanApplied  PlanStatus = "applied"
	PlanFailed   PlanStatus = "failed" // what had been done before the failure is undone, or still there: see the steps
	PlanUndoing  PlanStatus = "undoing"
	PlanUndone   PlanStatus = "undone"
)

// StepStatus is how far a step has come.
type StepStatus string

const (
	StepPlanned StepStatus = "planned"
	StepStarted StepStatus = "started" // about to happen, or happening, or happened before a kill
	StepApplied StepStatus = "applied"
	StepFailed  StepStatus = "failed"  // and had no effect
	StepUndoing StepStatus = "undoing" // as started, but back
	StepUndone  StepStatus = "undone"
)

// Plan is a plan that was approved, with how far it came.
type Plan struct {
	ID     int64 // the journal's
	Run    string
	Target string
	Plan   doctor.Plan
	Status PlanStatus
	Reason string
	Steps  []Step
}

// Step is the record of one step.
type Step struct {
	Status StepStatus
	Note   string
	XID    string // of the transaction that carries it, as txid_current gives it; empty before it is known
	Resume string // the last token that an operation saved
}

// AddPlan records an approved plan before its first step, and returns the journal's id for it.
func (j *Journal) AddPlan(ctx context.Context, run, target string, p doctor.Plan) (int64, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return 0, fmt.Errorf("write plan %s to the journal: %w", p.ID, err)
	}
	var id int64
	err = j.inTx(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, `INSERT INTO plans (run, plan_id, target, plan, status) VALUES (?, ?, ?, ?, ?) RETURNING id`,
			run, p.ID, target, string(text), PlanApplying).Scan(&id); err != nil {
			return err
		}
		for i := range p.Steps {
			if _, err := tx.ExecContext(ctx, `INSERT INTO steps (plan, step, status) VALUES (?, ?, ?)`, id, i, StepPlanned); err != nil {
				return err
			}
		}
		return nil
	})
	return id, err
}

// SetPlan records how far a plan has come.
func (j *Journal) SetPlan(ctx context.Context, plan int64, status PlanStatus, reason string) error {
	return j.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE plans SET status = ?, reason = ? WHERE id = ?`, status, reason, plan)
		return err
	})
}

// SetSteps records the same state for several steps at once, the transaction that carries them included.
func (j *Journal) SetSteps(ctx context.Context, plan int64, steps []int, s Step) error {
	return j.inTx(ctx, func(tx *sql.Tx) error {
		for _, i := range steps {
			if _, err := tx.ExecContext(ctx, `UPDATE steps SET status = ?, note = ?, xid = ? WHERE plan = ? AND step = ?`,
				s.Status, s.Note, s.XID, plan, i); err != nil {
				return err
			}
		}
		return nil
	})
}

// SaveRows keeps rows that a step is about to change or delete, and the token from which an operation would go on. Rows
// that were saved with the same token before are replaced: the operation was interrupted, and saves them again.
func (j *Journal) SaveRows(ctx context.Context, plan int64, step int, resume string, rows []doctor.SavedRow) error {
	return j.inTx(ctx, func(tx *sql.Tx) error {
		if resume != "" {
			if _, err := tx.ExecContext(ctx, `DELETE FROM saved_rows WHERE plan = ? AND step = ? AND token = ?`, plan, step, resume); err != nil {
				return err
			}
		}
		for _, r := range rows {
			if _, err := tx.ExecContext(ctx, `INSERT INTO saved_rows (plan, step, tbl, json, token) VALUES (?, ?, ?, ?, ?)`, plan, step, r.Table, r.JSON, resume); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `UPDATE steps SET resume = ? WHERE plan = ? AND step = ?`, resume, plan, step)
		return err
	})
}

// ForgetRows drops the rows saved for steps whose transaction did not happen.
func (j *Journal) ForgetRows(ctx context.Context, plan int64, steps []int) error {
	return j.inTx(ctx, func(tx *sql.Tx) error {
		for _, i := range steps {
			if _, err := tx.ExecContext(ctx, `DELETE FROM saved_rows WHERE plan = ? AND step = ?`, plan, i); err != nil {
				return err
			}
		}
		return nil
	})
}

// SavedRows returns up to limit rows saved for a step after the given position, and the position of the last.
func (j *Journal) SavedRows(ctx context.Context, plan int64, step int, after int64, limit int) ([]doctor.SavedRow, int64, error) {
	rows, err := j.db.QueryContext(ctx, `SELECT id, tbl, json FROM saved_rows WHERE plan = ? AND step = ? AND id > ? ORDER BY id LIMIT ?`, plan, step, after, limit)
	if err != nil {
		return nil, 0, fmt.Errorf("read the journal: %w", err)
	}
	defer rows.Close()
	var saved []doctor.SavedRow
	for rows.Next() {
		var r doctor.SavedRow
		if err := rows.Scan(&after, &r.Table, &r.JSON); err != nil {
			return nil, 0, fmt.Errorf("read the journal: %w", err)
		}
		saved = append(saved, r)
	}
	return saved, after, rows.Err()
}

// File is the record of a file that a step edits.
type File struct {
	Path          string // links resolved
	Backup        string // path of the copy
	Before, After string // SHA-256, in hexadecimal
}

// SaveFile keeps a copy of a file's content before it is edited.
func (j *Journal) SaveFile(ctx context.Context, p Plan, step int, f File, content []byte) error {
	relative := filepath.Join("backups", p.Run, strconv.FormatInt(p.ID, 10)+"-"+strconv.Itoa(step)+"-"+filepath.Base(f.Path))
	path := filepath.Join(j.dir, relative)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("back up %s: %w", f.Path, err)
	}
	if err := writeSynced(path, content); err != nil {
		return fmt.Errorf("back up %s: %w", f.Path, err)
	}
	return j.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO saved_files (plan, step, path, backup, before, after) VALUES (?, ?, ?, ?, ?, ?)`,
			p.ID, step, f.Path, relative, f.Before, f.After)
		return err
	})
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// SavedFile returns the record of the file that a step edited; ok is false when there is none.
func (j *Journal) SavedFile(ctx context.Context, plan int64, step int) (f File, ok bool, err error) {
	err = j.db.QueryRowContext(ctx, `SELECT path, backup, before, after FROM saved_files WHERE plan = ? AND step = ?`, plan, step).
		Scan(&f.Path, &f.Backup, &f.Before, &f.After)
	if err == sql.ErrNoRows {
		return File{}, false, nil
	}
	if err != nil {
		return File{}, false, fmt.Errorf("read the journal: %w", err)
	}
	f.Backup = filepath.Join(j.dir, f.Backup)
	return f, true, nil
}

func (j *Journal) removeBackups(run string) error {
	if err := os.RemoveAll(filepath.Join(j.dir, "backups", run)); err != nil {
		return fmt.Errorf("remove the backups of run %s: %w", run, err)
	}
	return nil
}

// Plans returns the plans of a run, in the order in which they were started.
func (j *Journal) Plans(ctx context.Context, run string) ([]Plan, error) {
	return j.plans(ctx, `run = ?`, run)
}

// Unsettled returns the plans whose run ended before it could say what became of them.
func (j *Journal) Unsettled(ctx context.Context) ([]Plan, error) {
	return j.plans(ctx, `status IN ('applying', 'undoing')`)
}

func (j *Journal) plans(ctx context.Context, where string, args ...any) ([]Plan, error) {
	rows, err := j.db.QueryContext(ctx, `SELECT id, run, target, plan, status, reason FROM plans WHERE `+where+` ORDER BY id`, args...)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	defer rows.Close()
	var plans []Plan
	for rows.Next() {
		var p Plan
		var text string
		if err := rows.Scan(&p.ID, &p.Run, &p.Target, &text, &p.Status, &p.Reason); err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		if err := json.Unmarshal([]byte(text), &p.Plan); err != nil {
			return nil, fmt.Errorf("read plan %d of the journal: %w", p.ID, err)
		}
		plans = append(plans, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	rows.Close()
	for i := range plans {
		if plans[i].Steps, err = j.steps(ctx, plans[i].ID); err != nil {
			return nil, err
		}
	}
	return plans, nil
}

func (j *Journal) steps(ctx context.Context, plan int64) ([]Step, error) {
	rows, err := j.db.QueryContext(ctx, `SELECT status, note, xid, resume FROM steps WHERE plan = ? ORDER BY step`, plan)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	defer rows.Close()
	var steps []Step
	for rows.Next() {
		var s Step
		if err := rows.Scan(&s.Status, &s.Note, &s.XID, &s.Resume); err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		steps = append(steps, s)
	}
	return steps, rows.Err()
}
