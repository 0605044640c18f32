package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// FixOptions say what to mend and how far to go.
type FixOptions struct {
	Selection
	Preferred []string // ids of plans to choose among alternatives
	Apply     bool
	// Consent is asked once for each plan, when everything else has been settled. Nil approves; a [Refusal] does not.
	Consent func(ctx context.Context, p doctor.PlanResult) error
}

// Fix plans what would mend the findings of the selected checks and, when told to, applies it and verifies the result.
// Its error is a usage error or the end of ctx; what became of each plan is in the report, which is not nil then either
// when something had been applied.
func (e *Engine) Fix(ctx context.Context, o FixOptions) (*doctor.FixReport, error) {
	defer e.Target.Close()
	if o.Apply {
		if err := e.openJournal(); err != nil {
			return nil, err
		}
		defer e.closeJournal()
		e.prepare(ctx)
		if err := e.settle(ctx, ""); err != nil {
			return nil, err
		}
	}
	before, err := e.check(ctx, o.Selection)
	if err != nil {
		return nil, err
	}
	checks, err := e.selectChecks(o.Selection)
	if err != nil {
		return nil, err
	}
	plans, err := e.plan(ctx, checks, before, o.Preferred)
	if err != nil {
		return nil, err
	}
	report := &doctor.FixReport{Before: before}
	if o.Apply {
		report.Applied = e.applyAll(ctx, plans, before, o.Consent)
	}
	if cause := context.Cause(ctx); cause != nil && !report.Applied {
		return nil, cause
	}
	if report.Applied {
		// What was changed is verified even when the administrator has given up waiting, unless told so twice.
		report.After, err = e.check(context.WithoutCancel(ctx), o.Selection)
		if err == nil {
			verify(plans, report.After)
		}
	}
	for _, p := range plans {
		report.Plans = append(report.Plans, p.PlanResult)
	}
	return report, err
}

// applyAll applies the chosen plans in order, and reports whether any was begun. After a failure no other is begun.
func (e *Engine) applyAll(ctx context.Context, plans []planned, before *doctor.Report, consent func(context.Context, doctor.PlanResult) error) bool {
	begun := false
	failed := ""
	for i := range plans {
		p := &plans[i]
		if !p.Chosen || p.Status == doctor.PlanManual {
			continue
		}
		if failed != "" {
			p.Status, p.Reason = doctor.PlanRefused, fmt.Sprintf("not begun, since %s failed", failed)
			continue
		}
		if err := p.mayApply(); err != nil {
			p.Status, p.Reason = doctor.PlanRefused, e.reason(err)
			continue
		}
		started, err := e.apply(ctx, p, before, consent)
		begun = begun || started
		switch {
		case err == nil:
			p.Status = doctor.PlanApplied
		case !started && ctx.Err() == nil:
			p.Status, p.Reason = doctor.PlanRefused, e.reason(err)
		default:
			p.Status, p.Reason = doctor.PlanFailed, e.reason(err)
			failed = p.Plan.ID
		}
	}
	return begun
}

// verify turns an applied plan whose findings are still there into a failure.
func verify(plans []planned, after *doctor.Report) {
	for i := range plans {
		p := &plans[i]
		if p.Status != doctor.PlanApplied {
			continue
		}
		for _, c := range after.Checks {
			if c.ID != p.Plan.Check() {
				continue
			}
			if c.Status == doctor.StatusUnknown || c.Status == doctor.StatusSkipped {
				p.Status, p.Reason = doctor.PlanFailed, "applied, but whether it helped could not be examined: "+c.Reason
			}
			for _, f := range c.Findings {
				if slices.Contains(p.Plan.Covers, f.Key()) {
					p.Status, p.Reason = doctor.PlanFailed, fmt.Sprintf("applied, but %s of %s is still found", f.Code, f.Object.Name)
				}
			}
		}
	}
}

// application is a plan being applied, undone or settled.
type application struct {
	engine  *Engine
	source  doctor.Source
	plan    doctor.Plan
	conn    *pgx.Conn            // in the plan's database; nil when the plan changes none, or one that is absent
	admins  map[string]*pgx.Conn // the administrator's other sessions, by label
	record  journal.Plan
	steps   []doctor.Step
	results []doctor.StepResult
	culprit int // the step that failed
	lock    *lock
	settled bool

	passwords map[string]string // that were made for this plan, by label
	former    string            // the password that one of them has replaced
}

// apply takes one plan through the gates and carries out its steps. started tells whether anything may have changed.
func (e *Engine) apply(ctx context.Context, p *planned, before *doctor.Report, consent func(context.Context, doctor.PlanResult) error) (started bool, err error) {
	if err := e.unsettled[e.lockKey(p.Plan)]; err != nil {
		return false, refuse("%v", err)
	}
	a, err := e.open(ctx, p.Plan, "fix")
	if err != nil {
		return false, err
	}
	defer a.close(ctx)
	a.source, a.results = p.source.source, p.Steps
	if err := a.preconditions(ctx, false); err != nil {
		return false, err
	}
	if err := consent(ctx, p.PlanResult); err != nil {
		return false, err
	}
	e.Trace("consent 0")
	// The question may have stood for an hour.
	if err := a.preconditions(ctx, false); err != nil {
		return false, err
	}
	if err := e.beginRun(ctx, "fix", before.Checks); err != nil {
		return false, err
	}
	if err := a.lock.record(); err != nil {
		return false, err
	}
	a.record, err = e.record(ctx, p.Plan)
	if err != nil {
		return false, err
	}
	a.point("recorded", 0)
	err = a.carryOut(ctx, 0)
	if isRefusal(err) && shuts(p.Plan) && !a.stands() {
		return false, err // it was shut, and is open again
	}
	return !isRefusal(err) || a.changed(), err
}

// stands reports whether the effect of a step is still there.
func (a *application) stands() bool {
	return slices.ContainsFunc(a.results, func(r doctor.StepResult) bool { return r.Status == doctor.StepApplied })
}

// changed reports whether a step has had an effect, even one that was put back.
func (a *application) changed() bool {
	for i, r := range a.results {
		if (r.Status == doctor.StepApplied || r.Status == doctor.StepUndone) && changesSomething(a.steps[i]) {
			return true
		}
	}
	return false
}

// isRefusal reports whether a plan ended because something did not hold, and not because something went wrong. A lock
// that is not to be had (55P03) is such a thing.
func isRefusal(err error) bool {
	_, refused := errors.AsType[*Refusal](err)
	return (refused || sqlState(err) == "55P03") && !errors.Is(err, errUnsettled)
}

// open takes the gates that need no consent: the session, the locks, the identity of the target.
func (e *Engine) open(ctx context.Context, p doctor.Plan, command string) (_ *application, err error) {
	a := &application{engine: e, plan: p, steps: p.Steps, results: make([]doctor.StepResult, len(p.Steps)), settled: true}
	defer func() {
		if err != nil {
			a.close(ctx)
		}
	}()
	target := "the configuration files"
	if d := e.Target.Database(p.Database); d != nil {
		target = d.Where()
	}
	a.lock, err = acquire(e.StateDir, e.lockKey(p), holder{Run: e.Target.RunID, PID: os.Getpid(), Command: command, Started: time.Now(), Target: target})
	if err != nil {
		return nil, err
	}
	a.settled = a.lock.killed() == "" // else the mark of the killed run stays
	if needsAdmin(p) {
		if err := e.adminGate(p); err != nil {
			return nil, err
		}
	}
	if a.conn, err = e.openWriter(ctx, p); err != nil {
		return nil, err
	}
	if killed := a.lock.killed(); killed != "" && (a.conn != nil || needsAdmin(p)) {
		d := e.Target.Database(p.Database)
		if needsAdmin(p) {
			d = e.Target.Admin
		}
		if err := endLeftovers(ctx, d, killed); err != nil {
			return nil, err
		}
	}
	if a.conn != nil {
		if err := lockDatabase(ctx, a.conn); err != nil {
			return nil, err
		}
	}
	if p.Expects == doctor.ExpectAbsent && command != "fix" {
		return a, nil // the plan may have made it
	}
	if !shuts(p) {
		return a, e.identityGate(ctx, p, a.conn)
	}
	if _, err := a.anySession(ctx); err != nil { // it takes the lock
		return nil, err
	}
	c, err := e.connectAdmin(ctx, p.Database)
	if err != nil {
		return nil, err
	}
	defer pgdb.Close(c)
	return a, e.identityGate(ctx, p, c)
}

func (a *application) close(ctx context.Context) {
	for _, c := range a.admins {
		unlockDatabase(ctx, c)
		pgdb.Close(c)
	}
	if a.conn != nil {
		unlockDatabase(ctx, a.conn)
		pgdb.Close(a.conn)
	}
	if a.lock != nil {
		a.lock.release(a.settled)
	}
}

// record writes an approved plan to the journal.
func (e *Engine) record(ctx context.Context, p doctor.Plan) (journal.Plan, error) {
	id, err := e.journal.AddPlan(ctx, e.Target.RunID, e.lockKey(p), p)
	if err != nil {
		return journal.Plan{}, err
	}
	return journal.Plan{ID: id, Run: e.Target.RunID, Plan: p, Steps: make([]journal.Step, len(p.Steps))}, nil
}

// carryOut runs the steps from the given one on and records how the plan ended.
func (a *application) carryOut(ctx context.Context, from int) error {
	a.settled = false
	err := a.run(ctx, from)
	switch {
	case err == nil:
		err = a.finish(ctx, journal.PlanApplied, "")
	case errors.Is(err, errUnsettled), a.record.Plan.Resumes && a.operated():
		if !errors.Is(err, errUnsettled) {
			err = fmt.Errorf("%w: %w", err, errUnsettled)
		}
		if a.record.Plan.Resumes && a.record.Plan.Reversible {
			err = fmt.Errorf("%w, or synapse-doctor undo %s to put it back", err, a.record.Run)
		}
		// The journal keeps saying "applying", and the lock file keeps the run's name: the next run settles it.
	case !a.changed():
		a.finish(ctx, journal.PlanUndone, err.Error())
	case a.record.Plan.UndoOnFailure, shuts(a.record.Plan): // a database is not left shut for nothing
		if ctx.Err() != nil {
			a.engine.Notice("interrupted: what had been done is being put back; press Ctrl-C again to leave that to the next run")
		}
		if undoErr := a.undo(ctx); undoErr != nil {
			err = fmt.Errorf("%w; and what had been done could not all be put back: %w", err, undoErr)
			if !errors.Is(err, errUnsettled) {
				a.finish(ctx, journal.PlanFailed, err.Error())
			}
		} else {
			a.finish(ctx, journal.PlanUndone, err.Error())
			err = fmt.Errorf("%w; what had been done was put back", err)
		}
	default:
		if slices.ContainsFunc(a.results, func(r doctor.StepResult) bool { return r.Status == doctor.StepApplied }) {
			err = fmt.Errorf("%w; the steps before it were applied, and synapse-doctor undo %s puts them back", err, a.record.Run)
		}
		a.finish(ctx, journal.PlanFailed, err.Error())
	}
	return err
}

func (a *application) run(ctx context.Context, from int) error {
	for i := range a.results[:from] {
		if a.steps[i].Manual == nil {
			a.results[i].Status = doctor.StepApplied
		}
	}
	for i := from; i < len(a.steps); {
		end := i + 1
		var err error
		a.culprit = i
		switch a.steps[i].Kind() {
		case doctor.KindSQL:
			if a.steps[i].SQL.Reload {
				err = a.runReload(ctx, i)
				break
			}
			end = sqlGroup(a.steps, i)
			err = a.runSQL(ctx, i, end)
		case doctor.KindEditFile:
			err = a.runFile(ctx, i)
		case doctor.KindProbe:
			err = a.runProbe(ctx, i)
		case doctor.KindOperation:
			err = a.runOperation(ctx, i)
		case doctor.KindManual:
			a.results[i].Status = doctor.StepManual
		}
		if err != nil {
			for j := max(end, a.culprit+1); j < len(a.steps); j++ {
				a.results[j].Status = doctor.StepSkipped
			}
			return err
		}
		i = end
	}
	return nil
}

// finish records a plan's end, on disk, whatever became of ctx. From here on nothing is left to settle.
func (a *application) finish(ctx context.Context, status journal.PlanStatus, reason string) error {
	if err := a.engine.journal.SetPlan(context.WithoutCancel(ctx), a.record.ID, status, a.engine.Redactor.String(reason)); err != nil {
		return err
	}
	a.settled = true
	return nil
}

// mark records the state of steps, and shows it.
func (a *application) mark(ctx context.Context, indexes []int, s journal.Step) error {
	for _, i := range indexes {
		switch s.Status {
		case journal.StepApplied:
			a.results[i].Status = doctor.StepApplied
		case journal.StepFailed:
			a.results[i].Status = doctor.StepSkipped
			if i == a.culprit {
				a.results[i].Status = doctor.StepFailed
			}
		case journal.StepUndone:
			a.results[i].Status = doctor.StepUndone
		}
	}
	return a.engine.journal.SetSteps(context.WithoutCancel(ctx), a.record.ID, indexes, s)
}

// failed records that steps ended without effect, and returns why.
func (a *application) failed(ctx context.Context, indexes []int, err error) error {
	if markErr := a.mark(ctx, indexes, journal.Step{Status: journal.StepFailed, Note: a.engine.reason(err)}); markErr != nil {
		return errors.Join(err, markErr)
	}
	if forgetErr := a.engine.journal.ForgetRows(context.WithoutCancel(ctx), a.record.ID, indexes); forgetErr != nil {
		return errors.Join(err, forgetErr)
	}
	return err
}

// point tells a test that a kill here would leave something behind.
func (a *application) point(name string, step int) {
	a.engine.Trace(fmt.Sprintf("%s %d", name, step))
}
