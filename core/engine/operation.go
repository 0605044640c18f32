package engine

import (
	"context"
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
	resume := ""
	if i < len(a.record.Steps) {
		resume = a.record.Steps[i].Resume
	}
	a.point("operation", i)
	if err := a.execute(ctx, i, *a.steps[i].Operation, resume); err != nil {
		a.results[i].Status = doctor.StepFailed
		return fmt.Errorf("%s stopped on its way: %w: %w", a.steps[i].Title, err, errUnsettled)
	}
	return a.done(ctx, span(i, i+1), journal.Step{Status: journal.StepApplied})
}

func (a *application) execute(ctx context.Context, i int, op doctor.OperationStep, resume string) error {
	return a.source.Execute(ctx, doctor.ExecuteRequest{Target: a.engine.Target.ForOperation(), Check: a.record.Plan.Check(), Step: op, Resume: resume},
		&operationHost{a, i})
}

// operationHost is what an operation sees of the engine.
type operationHost struct {
	a    *application
	step int
}

func (h *operationHost) Progress(p doctor.Progress) {
	e := h.a.engine
	p.Text, p.Unit = e.clean(p.Text), e.clean(p.Unit)
	e.Progress(h.a.steps[h.step].Title, p)
}

func (h *operationHost) Save(ctx context.Context, resume string, rows []doctor.SavedRow) error {
	if err := h.a.engine.journal.SaveRows(ctx, h.a.record.ID, h.step, resume, rows); err != nil {
		return err
	}
	h.a.point("saved", h.step)
	return nil
}
