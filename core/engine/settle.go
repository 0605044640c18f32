package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
)

// settle finishes or undoes what a killed run left on this target, before anything new is begun. What can't be settled
// keeps other plans from the same target. A plan of the run that is about to be undone, and that would be gone on with, is
// left to the undo.
func (e *Engine) settle(ctx context.Context, undo string) error {
	plans, err := e.journal.Unsettled(ctx)
	if err != nil {
		return err
	}
	e.unsettled, e.settled = map[string]error{}, nil
	for _, p := range plans {
		if p.Target != e.lockKey(p.Plan) || p.Run == undo && p.Status == journal.PlanApplying && p.Plan.Resumes {
			continue
		}
		outcome, err := e.settlePlan(ctx, p)
		if working, ok := errors.AsType[*busy](err); ok {
			e.unsettled[p.Target] = working // not killed, but at work
			continue
		}
		if err != nil {
			err = fmt.Errorf("run %s was interrupted while it applied %s, and could not be settled: %w", p.Run, p.Plan.ID, err)
			e.unsettled[p.Target] = err
			e.Notice(e.reason(err))
			continue
		}
		e.Notice(e.clean(fmt.Sprintf("run %s was interrupted while it applied %s; %s", p.Run, p.Plan.ID, outcome)))
		e.settled = append(e.settled, p.Plan.ID)
	}
	return e.forgetHolders()
}

func (e *Engine) settlePlan(ctx context.Context, p journal.Plan) (outcome string, err error) {
	a, err := e.open(ctx, p.Plan, "settle")
	if err != nil {
		return "", err
	}
	a.settled = false
	defer a.close(ctx)
	// The run that was killed: for an undo it is another than the one that had applied the plan.
	killed := a.lock.killed()
	if p.Status == journal.PlanApplying {
		killed = p.Run
	}
	defer func() {
		if err == nil && killed != "" {
			err = e.journal.End(ctx, killed, time.Now(), journal.RunInterrupted)
		}
	}()
	a.record = p
	if a.source, err = e.sourceOf(p.Plan); err != nil {
		return "", err
	}
	next, err := a.recognise(ctx)
	if d, ok := errors.AsType[*doubt](err); ok {
		return d.reason + "; what is left to do is for the checks to say", a.finish(ctx, journal.PlanFailed, d.reason)
	}
	if err != nil {
		return "", err
	}
	if p.Status == journal.PlanUndoing {
		return a.settleUndo(ctx, journal.PlanApplied, "putting it back was finished")
	}
	done := false
	for i, r := range a.results {
		done = done || r.Status == doctor.StepApplied && changesSomething(p.Plan.Steps[i])
	}
	switch {
	case next == len(a.steps):
		return "all of it had been done", a.finish(ctx, journal.PlanApplied, "")
	case next < len(a.steps) && a.steps[next].Operation != nil && a.results[next].Status != doctor.StepPlanned, done && (p.Plan.Resumes || !p.Plan.Reversible):
		if err := a.preconditions(ctx, true); err != nil {
			return "", err
		}
		if err := a.carryOut(ctx, next); err != nil {
			return "", err
		}
		return "the rest was done now", nil
	case done:
		return a.settleUndo(ctx, journal.PlanFailed, "the part that had been done was put back")
	}
	return "nothing had been changed", a.finish(ctx, journal.PlanUndone, "interrupted")
}

// settleUndo puts back what is applied. Where that would lose something newer, what is applied stays, for good.
func (a *application) settleUndo(ctx context.Context, otherwise journal.PlanStatus, done string) (outcome string, err error) {
	if err := a.preconditions(ctx, true); err != nil {
		return "", err
	}
	err = a.undo(ctx)
	if refusal, ok := errors.AsType[*Refusal](err); ok && !errors.Is(err, errUnsettled) {
		return "what had been done stays, since " + refusal.Reason, a.finish(ctx, otherwise, refusal.Reason)
	}
	if err != nil {
		return "", err
	}
	return done, a.finish(ctx, journal.PlanUndone, "interrupted")
}

// recognise finds out what became of each step that was under way, and returns the first that is not done.
func (a *application) recognise(ctx context.Context) (next int, err error) {
	for i := range a.results {
		a.results[i].Status = doctor.StepPlanned
	}
	next = -1
	for i, s := range a.record.Steps {
		status := s.Status
		if status == journal.StepStarted || status == journal.StepUndoing {
			if status, err = a.became(ctx, i, s); err != nil {
				return 0, err
			}
		}
		switch status {
		case journal.StepApplied:
			a.results[i].Status = doctor.StepApplied
		case journal.StepUndone:
			a.results[i].Status = doctor.StepUndone
		case journal.StepStarted:
			a.results[i].Status = doctor.StepFailed
		}
		if status != s.Status {
			if err := a.engine.journal.SetSteps(ctx, a.record.ID, []int{i}, journal.Step{Status: status, Note: s.Note, XID: s.XID}); err != nil {
				return 0, err
			}
		}
		passive := a.steps[i].Probe != nil || a.steps[i].Manual != nil
		// A reload that was begun may or may not have been: it counts as done for an undo, and as not done for going on.
		begun := a.steps[i].SQL != nil && a.steps[i].SQL.Reload && s.Status == journal.StepStarted
		if next < 0 && (status != journal.StepApplied || begun) && !(passive && a.nothingLeft(i)) {
			next = i
		}
	}
	if next < 0 {
		next = len(a.steps)
	}
	return next, nil
}

// nothingLeft reports whether from step i on there are only steps that change nothing: the check itself, which runs again
// in a moment, is the better probe.
func (a *application) nothingLeft(i int) bool {
	for ; i < len(a.steps); i++ {
		if changesSomething(a.steps[i]) && a.record.Steps[i].Status != journal.StepApplied {
			return false
		}
	}
	return true
}

// became finds out what became of a step that was started, or being undone, when the run was killed.
func (a *application) became(ctx context.Context, i int, s journal.Step) (_ journal.StepStatus, err error) {
	done, not := journal.StepApplied, journal.StepPlanned
	if s.Status == journal.StepUndoing {
		done, not = journal.StepUndone, journal.StepApplied
	}
	switch step := a.steps[i]; step.Kind() {
	case doctor.KindSQL:
		if step.SQL.Reload { // told to, the server may do it at any time: it is told once more when the files are back
			return journal.StepApplied, nil
		}
		if step.SQL.Mode == doctor.ModeNone && len(step.SQL.Undo) > 0 && step.SQL.Undo[0].Guard != nil {
			is, err := a.isInForce(ctx, step.SQL)
			if err != nil {
				return "", err
			}
			if is == (s.Status == journal.StepStarted) {
				return done, nil
			}
			return not, nil
		}
		if step.SQL.Mode == doctor.ModeNone {
			return "", &doubt{fmt.Sprintf("whether %q had its effect can't be told, since it ran outside a transaction", step.Title)}
		}
		committed := false
		if s.XID != "" { // the number is on disk before COMMIT is sent
			if committed, err = a.committed(ctx, step.SQL, s.XID); err != nil {
				return "", err
			}
		}
		if committed || s.Status == journal.StepStarted && a.lasted(ctx, step.SQL) {
			return done, nil
		}
		return not, nil
	case doctor.KindEditFile:
		return a.fileBecame(ctx, i, s, done, not)
	}
	return s.Status, nil
}

// doubt is why it can't be told what became of a step. The plan is given up, not begun again for ever.
type doubt struct{ reason string }

func (d *doubt) Error() string { return d.reason }

// lasted reports whether a statement that survives ROLLBACK had its effect: whether what would undo it applies.
func (a *application) lasted(ctx context.Context, q *doctor.SQLStep) bool {
	c, err := a.session(ctx, q)
	return err == nil && q.Lasting && len(q.Undo) > 0 && holds(ctx, c, q.Undo[0].Guard) == nil
}

// isInForce reports whether a statement that no transaction carries (CREATE DATABASE) has its effect: whether what would
// undo it applies.
func (a *application) isInForce(ctx context.Context, q *doctor.SQLStep) (bool, error) {
	c, err := a.session(ctx, q)
	if err != nil {
		return false, err
	}
	err = holds(ctx, c, q.Undo[0].Guard)
	if _, refused := errors.AsType[*Refusal](err); refused {
		return false, nil
	}
	return err == nil, err
}

// committed asks the server what became of a transaction.
func (a *application) committed(ctx context.Context, q *doctor.SQLStep, xid string) (bool, error) {
	c, err := a.session(ctx, q)
	if err != nil {
		return false, err
	}
	id, err := strconv.ParseInt(xid, 10, 64)
	if err != nil {
		return false, fmt.Errorf("the journal holds the transaction number %q: %w", xid, err)
	}
	for range waits {
		var status *string
		err := c.QueryRow(ctx, `SELECT txid_status($1)`, id).Scan(&status)
		if sqlState(err) == "22023" { // in the future: the server was restored from an older backup
			return false, &doubt{fmt.Sprintf("the server does not know transaction %s", xid)}
		}
		if err != nil {
			return false, fmt.Errorf("ask what became of transaction %s: %w", xid, err)
		}
		switch {
		case status == nil:
			return false, &doubt{fmt.Sprintf("the server no longer knows what became of transaction %s", xid)}
		case *status == "committed":
			return true, nil
		case *status == "aborted":
			return false, nil
		}
		if err := sleep(ctx, wait); err != nil {
			return false, err
		}
	}
	return false, fmt.Errorf("transaction %s is still under way on the server", xid)
}

func (a *application) fileBecame(ctx context.Context, i int, s journal.Step, done, not journal.StepStatus) (journal.StepStatus, error) {
	f, ok, err := a.engine.journal.SavedFile(ctx, a.record.ID, i)
	if err != nil || !ok {
		return not, err // the backup is recorded before the step is started
	}
	state, is, err := stateOf(f, a.steps[i].EditFile, s.Note)
	if err != nil {
		return "", err
	}
	left := scratch(f.Path, a.record.Run)
	if content, err := os.ReadFile(left); err == nil && state == fileAfter && sum(content) != f.Before && sum(content) != f.After {
		return "", &doubt{fmt.Sprintf("somebody saved %s in the very moment in which it was replaced; what they saved is %s", f.Path, left)}
	}
	os.Remove(left)
	switch state {
	case fileTorn:
		if err := a.engine.restoreFile(f, is, a.record.Run, func() error { return nil }); err != nil {
			return "", err
		}
	case fileOther:
		return "", &doubt{fmt.Sprintf("%s is neither as it was before nor as it was to become; the copy from before is %s", f.Path, f.Backup)}
	case fileAfter:
		if s.Status == journal.StepUndoing {
			return not, nil
		}
		return done, nil
	}
	if s.Status == journal.StepUndoing {
		return done, nil
	}
	return not, nil
}

// forgetHolders empties the lock files of runs that are settled, or that were killed before they had recorded a plan.
func (e *Engine) forgetHolders() error {
	left, err := e.journal.Unsettled(context.Background())
	if err != nil {
		return err
	}
	unsettled := map[string]bool{}
	for _, p := range left {
		unsettled[lockPath(e.StateDir, p.Target)] = true
	}
	return forgetHolders(e.StateDir, unsettled)
}
