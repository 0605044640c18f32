package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
)

// UndoOptions say what to put back.
type UndoOptions struct {
	Run     string // empty: the last run that applied something
	Consent func(ctx context.Context, p doctor.PlanResult) error
}

// UndoReport is what became of the plans of the run that was to be undone, in the order in which they were tried.
type UndoReport struct {
	Run   string
	Plans []doctor.PlanResult // PlanApplied: put back
}

// ErrNothingToUndo is returned when no run has anything left to put back.
var ErrNothingToUndo = errors.New("nothing to undo")

// Undo puts back what a run applied, newest first, through the same gates as applying it.
func (e *Engine) Undo(ctx context.Context, o UndoOptions) (*UndoReport, error) {
	defer e.Target.Close()
	if err := e.openJournal(); err != nil {
		return nil, err
	}
	defer e.closeJournal()
	e.prepare(ctx)
	if err := e.settle(ctx, o.Run); err != nil {
		return nil, err
	}
	run, plans, err := e.undoable(ctx, o.Run)
	if err != nil {
		return nil, err
	}
	report := &UndoReport{Run: run}
	for _, p := range slices.Backward(plans) {
		result := e.shown(p)
		started, err := e.undoPlan(ctx, p, &result, o.Consent)
		switch {
		case err == nil:
			result.Status = doctor.PlanApplied
		case !started && ctx.Err() == nil:
			result.Status, result.Reason = doctor.PlanRefused, e.reason(err)
			e.ended = journal.RunRefused
		default:
			result.Status, result.Reason = doctor.PlanFailed, e.reason(err)
			e.ended = journal.RunFailed
		}
		report.Plans = append(report.Plans, result)
		if err != nil {
			break // an older plan may be what the newer one stands on
		}
	}
	return report, nil
}

// undoable finds the plans of a run that have something to put back.
func (e *Engine) undoable(ctx context.Context, run string) (string, []journal.Plan, error) {
	runs := []journal.Run{{ID: run}}
	if run != "" {
		if _, err := e.journal.Run(ctx, run); err != nil {
			return "", nil, err
		}
	} else {
		var err error
		if runs, err = e.journal.Runs(ctx, 1000); err != nil {
			return "", nil, err
		}
	}
	for _, r := range runs {
		plans, err := e.journal.Plans(ctx, r.ID)
		if err != nil {
			return "", nil, err
		}
		plans = slices.DeleteFunc(plans, func(p journal.Plan) bool {
			for i, s := range p.Steps {
				begun := p.Status == journal.PlanApplying && s.Status == journal.StepStarted
				if (s.Status == journal.StepApplied || begun) && changesSomething(p.Plan.Steps[i]) {
					return false
				}
			}
			return true
		})
		if len(plans) > 0 {
			return r.ID, plans, nil
		}
	}
	if run != "" {
		return "", nil, fmt.Errorf("run %s: %w", run, ErrNothingToUndo)
	}
	return "", nil, ErrNothingToUndo
}

func changesSomething(s doctor.Step) bool {
	return s.Probe == nil && s.Manual == nil && (s.Operation == nil || hasEffects(s.Operation))
}

// shown is a recorded plan as the administrator is asked about it.
func (e *Engine) shown(p journal.Plan) doctor.PlanResult {
	r := doctor.PlanResult{Plan: p.Plan, Chosen: true, Status: doctor.PlanPlanned, Steps: make([]doctor.StepResult, len(p.Plan.Steps))}
	for i := range r.Steps {
		r.Steps[i].Status = doctor.StepPlanned
		if i < len(p.Steps) && p.Steps[i].Status == journal.StepApplied {
			r.Steps[i].Status = doctor.StepApplied
		}
	}
	return r
}

func (e *Engine) undoPlan(ctx context.Context, p journal.Plan, result *doctor.PlanResult, consent func(context.Context, doctor.PlanResult) error) (started bool, err error) {
	if !p.Plan.Reversible {
		if p.Plan.Irreversible == "" {
			return false, refuse("it can't be put back")
		}
		return false, refuse("it can't be put back: %s", p.Plan.Irreversible)
	}
	if key := e.lockKey(p.Plan); key != p.Target {
		return false, refuse("it was applied to another target (%s) than the configured one (%s)", p.Target, key)
	}
	if err := e.unsettled[p.Target]; err != nil {
		return false, refuse("%v", err)
	}
	a, err := e.open(ctx, p.Plan, "undo")
	if err != nil {
		return false, err
	}
	defer a.close(ctx)
	a.record, a.results = p, result.Steps
	if a.source, err = e.sourceOf(p.Plan); err != nil {
		return false, err
	}
	if err := a.preconditions(ctx, true); err != nil {
		return false, err
	}
	if err := consent(ctx, *result); err != nil {
		return false, err
	}
	if err := a.preconditions(ctx, true); err != nil {
		return false, err
	}
	if err := a.recogniseBegun(ctx); err != nil {
		return false, err
	}
	if err := e.beginRun(ctx, "undo", nil); err != nil {
		return false, err
	}
	if err := a.lock.record(); err != nil {
		return false, err
	}
	if err := e.journal.SetPlan(ctx, p.ID, journal.PlanUndoing, ""); err != nil {
		return false, err
	}
	a.settled = false
	a.point("undo-recorded", 0)
	started, err = a.putBack(ctx)
	if err == nil && p.Status == journal.PlanApplying { // the run that was interrupted has ended with this
		err = e.journal.End(ctx, p.Run, time.Now(), journal.RunInterrupted)
	}
	return started, err
}

// putBack undoes the applied steps and records the end.
func (a *application) putBack(ctx context.Context) (started bool, err error) {
	before := a.undone()
	err = a.undo(ctx)
	switch {
	case err == nil:
		return true, a.finish(ctx, journal.PlanUndone, "")
	case errors.Is(err, errUnsettled):
		return true, err
	}
	// Refused by a guard, or failed: what was applied and not put back stays applied.
	if finishErr := a.finish(ctx, journal.PlanApplied, err.Error()); finishErr != nil {
		return true, errors.Join(err, finishErr)
	}
	return a.undone() > before, err
}

func (a *application) undone() int {
	n := 0
	for _, r := range a.results {
		if r.Status == doctor.StepUndone {
			n++
		}
	}
	return n
}

// sourceOf finds who carries out the plan's operations; nobody has to when it has none.
func (e *Engine) sourceOf(p doctor.Plan) (doctor.Source, error) {
	if !slices.ContainsFunc(p.Steps, func(s doctor.Step) bool { return s.Operation != nil }) {
		return nil, nil
	}
	check := p.Check()
	var source doctor.Source
	for _, d := range e.described {
		if d.err == nil && slices.ContainsFunc(d.Checks, func(c doctor.CheckInfo) bool { return c.ID == check }) {
			source = d.source
			break
		}
	}
	if source == nil {
		source = e.SourceOf(check)
	}
	if source == nil {
		return nil, refuse("the plugin with the check %q is not loaded", check)
	}
	// The plugin that made the plan may be gone, another have its check, and the administrator have thought better of it.
	terms := doctor.TermsOf(source)
	switch {
	case (terms == nil) != (p.Bounds() == nil):
		return nil, refuse("the plan was made by another plugin than %s, which has the check %q now", source.Name(), check)
	case terms != nil && !terms.AllowFix:
		return nil, refuse("a plugin of a third party would carry it out: %s", terms.HowToAllow())
	}
	return source, nil
}

// undoPatience is how long putting back may take after the administrator has given up waiting.
const undoPatience = 30 * time.Second

// undo puts the applied steps back, the last first. It goes on for a while after the end of ctx: half an undo helps nobody.
func (a *application) undo(ctx context.Context) error {
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
		defer cancel()
	}
	err := a.undoSteps(ctx)
	if err != nil && ctx.Err() != nil && !errors.Is(err, errUnsettled) {
		err = fmt.Errorf("%w (%v)", errUnsettled, err)
	}
	return err
}

func (a *application) undoSteps(ctx context.Context) error {
	var reloads []int
	for i := len(a.steps) - 1; i >= 0; i-- {
		if a.results[i].Status != doctor.StepApplied {
			continue
		}
		var err error
		switch a.steps[i].Kind() {
		case doctor.KindSQL:
			if a.steps[i].SQL.Reload {
				reloads = append(reloads, i) // when the files are back
				continue
			}
			first := i
			for first > 0 && a.steps[first-1].SQL != nil && sqlGroup(a.steps, first-1) == i+1 {
				first--
			}
			err = a.undoSQL(ctx, first, i+1)
			i = first
		case doctor.KindEditFile:
			err = a.undoFile(ctx, i)
		case doctor.KindOperation:
			err = a.undoOperation(ctx, i)
		}
		if err != nil {
			return err
		}
	}
	if len(reloads) > 0 {
		return a.reloadBack(ctx, reloads)
	}
	return nil
}

// undoSQL puts a transaction back in one transaction.
func (a *application) undoSQL(ctx context.Context, first, end int) error {
	indexes := span(first, end)
	if a.steps[first].SQL.Mode == doctor.ModeNone {
		a.leaveDatabases(ctx)
	}
	c, err := a.session(ctx, a.steps[first].SQL)
	if err != nil {
		return err
	}
	if a.steps[first].SQL.Mode == doctor.ModeNone {
		if err := a.engine.journal.SetSteps(ctx, a.record.ID, indexes, journal.Step{Status: journal.StepUndoing}); err != nil {
			return err
		}
		a.point("undo-statement", first)
		if err := a.undoStatement(ctx, c, first); err != nil {
			if sqlState(err) == "" && !isRefusal(err) {
				return fmt.Errorf("whether it was put back is not known: %w: %w", err, errUnsettled)
			}
			return errors.Join(err, a.mark(ctx, indexes, journal.Step{Status: journal.StepApplied}))
		}
		a.point("undo-after-statement", first)
		return a.mark(ctx, indexes, journal.Step{Status: journal.StepUndone})
	}
	tx, err := c.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	var xid string
	if err := tx.QueryRow(ctx, `SELECT txid_current()::text`).Scan(&xid); err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	if err := a.unlogged(ctx, tx, indexes); err != nil {
		return err
	}
	watch, err := a.begun(ctx, tx, indexes)
	if err != nil {
		return err
	}
	for _, i := range slices.Backward(indexes) {
		a.point("undo-statement", i)
		if err := a.undoStatement(ctx, tx, i); err != nil {
			return err
		}
	}
	if err := a.stillStopped(ctx); err != nil {
		return err
	}
	if err := a.within(ctx, tx, watch, xid); err != nil {
		return err
	}
	if err := a.engine.journal.SetSteps(ctx, a.record.ID, indexes, journal.Step{Status: journal.StepUndoing, XID: xid}); err != nil {
		return err
	}
	a.point("undo-before-commit", first)
	if err := tx.Commit(ctx); err != nil {
		if sqlState(err) != "" || errors.Is(err, pgx.ErrTxCommitRollback) {
			if markErr := a.mark(ctx, indexes, journal.Step{Status: journal.StepApplied}); markErr != nil {
				return markErr
			}
			return fmt.Errorf("commit: %w", err)
		}
		return fmt.Errorf("whether it was put back is not known: %w: %w", err, errUnsettled)
	}
	a.point("undo-after-commit", first)
	return a.mark(ctx, indexes, journal.Step{Status: journal.StepUndone})
}

// undoStatement runs what puts one statement back: once, or once for each row that was saved before it.
func (a *application) undoStatement(ctx context.Context, c conn, i int) error {
	for _, u := range a.steps[i].SQL.Undo {
		if err := holds(ctx, c, u.Guard); err != nil {
			return refuse("%s: %v", a.steps[i].Title, err)
		}
		if !u.ForEachSaved {
			if _, err := a.exec(ctx, c, u.Statement, values(u.Args)...); err != nil {
				return fmt.Errorf("put back %q: %w", a.steps[i].Title, err)
			}
			continue
		}
		after := int64(0)
		for {
			rows, last, err := a.engine.journal.SavedRows(ctx, a.record.ID, i, after, 1000)
			if err != nil {
				return err
			}
			for _, r := range rows {
				if _, err := a.exec(ctx, c, u.Statement, append([]any{r.JSON}, values(u.Args)...)...); err != nil {
					return fmt.Errorf("put back a row of %s: %w", r.Table, err)
				}
			}
			if len(rows) == 0 {
				break
			}
			after = last
		}
	}
	return nil
}

func (a *application) undoFile(ctx context.Context, i int) error {
	f, ok, err := a.engine.journal.SavedFile(ctx, a.record.ID, i)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("the journal holds no backup of %s", a.steps[i].EditFile.Path)
	}
	note := ""
	if i < len(a.record.Steps) {
		note = a.record.Steps[i].Note
	}
	state, is, err := stateOf(f, a.steps[i].EditFile, note)
	if err != nil {
		return err
	}
	if err := a.belongs(ctx, a.steps[i].EditFile); err != nil {
		return err
	}
	if bounds := a.plan.Bounds(); bounds != nil {
		real, err := filepath.EvalSymlinks(f.Path)
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Path, cause(err))
		}
		if err := a.engine.mayEdit(bounds, a.steps[i].EditFile.Path, real); err != nil {
			return refuse("it %v", err)
		}
	}
	switch state {
	case fileOther:
		return refuse("%s has been changed since; what was added there would be lost. The copy from before is %s", f.Path, f.Backup)
	case fileAfter, fileTorn:
		a.point("undo-file", i)
		if err := a.engine.restoreFile(f, is, a.record.Run, func() error {
			return a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepUndoing, Note: inPlace})
		}); err != nil {
			return err
		}
		if a.steps[i].EditFile.Server != nil {
			if err := restoreTime(f); err != nil {
				return err
			}
		}
		a.usePassword(a.steps[i].EditFile.Password, false)
	}
	return a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepUndone})
}

// recogniseBegun finds out what is to be put back of a plan that was interrupted: an operation that was begun counts as done.
func (a *application) recogniseBegun(ctx context.Context) error {
	if a.record.Status != journal.PlanApplying {
		return nil
	}
	if _, err := a.recognise(ctx); err != nil {
		return err
	}
	for i, s := range a.record.Steps {
		if s.Status != journal.StepStarted || a.steps[i].Operation == nil || !hasEffects(a.steps[i].Operation) {
			continue
		}
		if err := a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepApplied}); err != nil {
			return err
		}
	}
	return nil
}

// reopen does again what was put back after an operation that then stays as it is: its database is not left shut.
func (a *application) reopen(ctx context.Context, operation int) error {
	if !shuts(a.plan) {
		return nil
	}
	if err := a.run(ctx, operation+1); err != nil {
		return fmt.Errorf("open the database again: %w: %w", err, errUnsettled)
	}
	return nil
}

func (a *application) undoOperation(ctx context.Context, i int) error {
	op := *a.steps[i].Operation
	if !hasEffects(&op) {
		return a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepUndone})
	}
	if op.Undo == "" {
		return refuse("%s can't be put back", a.steps[i].Title)
	}
	op.Name = op.Undo
	if err := a.stillShut(ctx, i); err != nil {
		return err
	}
	a.point("undo-operation", i)
	err := a.execute(ctx, i, op, "")
	if u, ok := errors.AsType[*doctor.UnchangedError](err); ok {
		if err := a.reopen(ctx, i); err != nil {
			return err
		}
		return refuse("%s", u.Reason)
	}
	if err != nil {
		return fmt.Errorf("putting back %q stopped on its way: %w: %w", a.steps[i].Title, err, errUnsettled)
	}
	return a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepUndone})
}

func (e *Engine) openJournal() error {
	j, err := journal.Open(e.StateDir)
	if err != nil {
		return err
	}
	e.journal, e.begun, e.ended = j, false, ""
	return nil
}

// closeJournal ends the run. One that left something to settle stays running, for the next to find.
func (e *Engine) closeJournal() {
	if e.begun {
		status := journal.RunDone
		plans, err := e.journal.Plans(context.Background(), e.Target.RunID)
		for _, p := range plans {
			switch p.Status {
			case journal.PlanFailed, journal.PlanUndone:
				status = journal.RunFailed
			case journal.PlanApplying, journal.PlanUndoing:
				err = errUnsettled
			}
		}
		if e.ended != "" {
			status = e.ended
		}
		if err == nil {
			if err := e.journal.End(context.Background(), e.Target.RunID, time.Now(), status); err != nil {
				e.Log.Warn("the end of the run could not be recorded", "error", err)
			}
		}
	}
	e.journal.Close()
	e.journal = nil
}

// beginRun records the run when the first plan is begun: a run that applied nothing is not worth remembering.
func (e *Engine) beginRun(ctx context.Context, command string, found []doctor.CheckResult) error {
	if e.begun {
		return nil
	}
	err := e.journal.Begin(ctx, journal.Run{ID: e.Target.RunID, Command: command, Version: e.Version, Server: e.Target.ServerName, Started: time.Now()})
	if err == nil {
		err = e.journal.RecordFindings(ctx, e.Target.RunID, found)
	}
	e.begun = err == nil
	return err
}
