package engine

import (
	"context"
	"errors"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
)

// Record keeps the result of a check in the journal: check --record.
func (e *Engine) Record(ctx context.Context, r *doctor.Report) error {
	j, err := journal.Open(e.StateDir)
	if err != nil {
		return err
	}
	defer j.Close()
	id := e.Target.RunID
	if err := j.Begin(ctx, journal.Run{ID: id, Command: "check", Version: e.Version, Server: e.Target.ServerName, Started: r.StartedAt}); err != nil {
		return err
	}
	if err := j.RecordFindings(ctx, id, r.Checks); err != nil {
		return err
	}
	return j.End(ctx, id, time.Now(), journal.RunDone)
}

// LookBack hands the checks what was measured before: of each check by the newest run until then. Nothing is written, and
// without a journal there is nothing.
func (e *Engine) LookBack(ctx context.Context, until time.Time) error {
	j, err := journal.OpenReading(e.StateDir)
	if errors.Is(err, journal.ErrNoJournal) {
		return nil
	}
	if err != nil {
		return err
	}
	defer j.Close()
	e.Target.Earlier, err = j.Earlier(ctx, e.Target.ServerName, until)
	return err
}

// Compare tells in the report how it stands against the newest recorded run until then. Without one it returns [journal.ErrNoRun].
func (e *Engine) Compare(ctx context.Context, r *doctor.Report, until time.Time) error {
	j, err := journal.OpenReading(e.StateDir)
	if err != nil {
		return err
	}
	defer j.Close()
	run, err := j.LastExamined(ctx, e.Target.ServerName, until)
	if err != nil {
		return err
	}
	since, err := j.Compare(ctx, r.Checks, run)
	r.Since = &since
	return err
}
