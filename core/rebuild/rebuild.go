package rebuild

import (
	"context"
	"fmt"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// The names of the operations.
const (
	Examine = "examine-rebuild" // changes nothing: everything that would stop the other, and can be known before
	Rebuild = "rebuild"         // makes, fills and compares the new database, and exchanges the names
	Undo    = "undo-rebuild"    // drops a new database that was not finished, or exchanges the names again
)

// Operations are the operations of the plan that [Plan] makes.
var Operations = Work{}.Operations()

// Work is how the operations go about it.
type Work struct {
	// LeaveOut finds the rows that the new database is not to have, since a unique index could not be built with them: their
	// places (ctid) in the old one, by the table's name as it stands in a statement. With keep it first has the host keep them.
	// It finds the same rows each time, and ends with an error where it can't be told which of two stays. Nil: duplicates stop
	// the examination.
	LeaveOut func(ctx context.Context, t *doctor.Target, label string, h doctor.OperationHost, keep bool) (map[string][]string, error)

	trace func(point string) // for tests: where the work stands
	grace time.Duration      // for tests: how long what an earlier call left may take to end by itself
}

// Operations are the operations, for [doctor.Check].
func (w Work) Operations() map[string]doctor.OperationFunc {
	return map[string]doctor.OperationFunc{Examine: w.examine, Rebuild: w.rebuild, Undo: w.undo}
}

func (w Work) point(name string) {
	if w.trace != nil {
		w.trace(name)
	}
}

// rebuild goes on from where the server says that the work stands.
func (w Work) rebuild(ctx context.Context, t *doctor.Target, step doctor.OperationStep, resume string, h doctor.OperationHost) error {
	k, err := w.open(ctx, t, step, h)
	if err != nil {
		return err
	}
	defer k.close()
	s, err := k.look(ctx)
	if err != nil {
		return err
	}
	switch {
	case s.source == k.p.before:
		return k.swapped(ctx, s)
	case s.source != k.p.database:
		return doctor.Unchanged("the database %s is not the one that the plan was made for: run the fix again", k.p.database)
	}
	// Where there is a new database already, the rows were kept before it was made.
	if err := k.leaveOut(ctx, s.fresh == nil); err != nil {
		return err
	}
	if s.fresh != nil && k.stage(s.fresh) == stageComplete {
		same, err := k.stillSame(ctx)
		if err != nil {
			return err
		}
		if same {
			return k.swap(ctx)
		}
	}
	if s.fresh != nil {
		if err := k.mayDrop(ctx, s.fresh, resume); err != nil {
			return err
		}
		if err := k.drop(ctx); err != nil {
			return err
		}
		w.point("dropped")
	}
	if err := k.make(ctx); err != nil {
		return err
	}
	if err := k.fill(ctx); err != nil {
		return k.giveUp(ctx, err)
	}
	return k.swap(ctx)
}

// leaveOut finds the rows that are not carried, and has them kept before anything is made.
func (k *task) leaveOut(ctx context.Context, keep bool) (err error) {
	if k.w.LeaveOut == nil {
		return nil
	}
	k.left, err = k.w.LeaveOut(ctx, k.target, k.p.label, k.h, keep)
	return err
}

// giveUp drops a new database that can't be completed, whatever is tried again: then nothing has changed. Where the work
// was only interrupted it stays for the next attempt to find.
func (k *task) giveUp(ctx context.Context, cause error) error {
	if ctx.Err() != nil || !final(cause) {
		return cause
	}
	if err := k.drop(ctx); err != nil {
		return fmt.Errorf("%w (and the new database %s could not be dropped: %v)", cause, k.p.fresh, err)
	}
	k.w.point("given-up")
	return doctor.Unchanged("the new database could not be completed, and was dropped; nothing else has changed: %v", cause)
}
