package engine

import (
	"context"
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
