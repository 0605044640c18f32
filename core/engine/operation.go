package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
)

// runOperation has the plugin carry out an operation step, from the last token it saved. One that stops on its way may
// have had part of its effect, so that it is settled by going on, not forgotten.
func (a *application) runOperation(ctx context.Context, i int) error {
	if err := a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepStarted}); err != nil {
		return err
	}
	if err := a.stillShut(ctx, i); err != nil {
		if a.operated() || a.begunBefore(i) {
			return fmt.Errorf("%w: %w", err, errUnsettled)
		}
		return a.failed(ctx, span(i, i+1), err)
	}
	resume := ""
	if i < len(a.record.Steps) {
		resume = a.record.Steps[i].Resume
	}
	a.point("operation", i)
	if err := a.execute(ctx, i, *a.steps[i].Operation, resume); err != nil {
		// One that goes on where another run was interrupted can't tell that nothing has changed.
		if u, ok := errors.AsType[*doctor.UnchangedError](err); ok && !a.begunBefore(i) {
			return a.failed(ctx, span(i, i+1), refuse("%s", u.Reason))
		}
		a.results[i].Status = doctor.StepFailed
		if s, ok := errors.AsType[*doctor.StoppedError](err); ok {
			return fmt.Errorf("%w (%w)", s, errUnsettled)
		}
		return fmt.Errorf("%s stopped on its way: %w: %w", a.steps[i].Title, err, errUnsettled)
	}
	return a.done(ctx, span(i, i+1), journal.Step{Status: journal.StepApplied, Note: a.results[i].Note})
}

// begunBefore reports whether another run has begun the operation, and may have changed something.
func (a *application) begunBefore(i int) bool {
	if i >= len(a.record.Steps) || !hasEffects(a.steps[i].Operation) {
		return false
	}
	s := a.record.Steps[i].Status
	return s != "" && s != journal.StepPlanned
}

// operated reports whether an operation that changes something has been done.
func (a *application) operated() bool {
	for i, r := range a.results {
		if op := a.steps[i].Operation; op != nil && hasEffects(op) && r.Status == doctor.StepApplied {
			return true
		}
	}
	return false
}

// hasEffects tells an operation from one that only looks.
func hasEffects(op *doctor.OperationStep) bool {
	return len(op.Effects.Databases)+len(op.Effects.Tables)+len(op.Effects.Files) > 0
}

func (a *application) execute(ctx context.Context, i int, op doctor.OperationStep, resume string) error {
	host := &operationHost{a: a, step: i}
	if op.Stops {
		stopping, end := a.engine.Stopper.begin()
		defer end()
		host.stopping = stopping
	}
	target := a.engine.Target.ForOperation()
	if terms := doctor.TermsOf(a.source); terms != nil {
		label := ""
		if changesDatabase(a.steps[i].Operation) {
			label = a.plan.Database
		}
		target = terms.Operating(a.engine.Target, label)
		defer target.Close()
	}
	return a.source.Execute(ctx, doctor.ExecuteRequest{Target: target, Check: a.record.Plan.Check(), Step: op, Resume: resume}, host)
}

// operationHost is what an operation sees of the engine.
type operationHost struct {
	a        *application
	step     int
	stopping <-chan struct{} // nil for one that does not stop that way
}

func (h *operationHost) Stopping() <-chan struct{} { return h.stopping }

func (h *operationHost) Progress(p doctor.Progress) {
	e := h.a.engine
	p.Text, p.Unit, p.Note = e.clean(p.Text), e.clean(p.Unit), e.clean(p.Note)
	for i := range p.Parts {
		p.Parts[i].Name = e.clean(p.Parts[i].Name)
	}
	e.Progress(h.a.steps[h.step].Title, p)
}

func (h *operationHost) Save(ctx context.Context, resume string, rows []doctor.SavedRow) error {
	if err := h.a.engine.journal.SaveRows(ctx, h.a.record.ID, h.step, resume, rows); err != nil {
		return err
	}
	h.a.point("saved", h.step)
	return nil
}

func (h *operationHost) Rows(ctx context.Context, each func(doctor.SavedRow) error) error {
	after := int64(0)
	for {
		rows, last, err := h.a.engine.journal.SavedRows(ctx, h.a.record.ID, h.step, after, 1000)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, r := range rows {
			if err := each(r); err != nil {
				return err
			}
		}
		after = last
	}
}
