package main

import (
	"context"
	"fmt"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
)

const undoAbout = `Puts back what a fix has changed: the run that is named, or the last one that has something to put back.
It refuses where something newer would be lost.

Exit codes: 0 put back; 2 refused; 1 failed.`

func runUndo(ctx context.Context, args []string, s streams) (int, error) {
	var t targetFlags
	var o outputFlags
	var c consent
	f := newFlags("undo", "[RUN]", undoAbout, s.err)
	t.register(f)
	c.register(f)
	f.BoolVar(&o.noColor, "no-color", false, "no colours, also with the environment variable NO_COLOR")
	if err := f.Parse(args); err != nil {
		return exitFailed, err
	}
	if f.NArg() > 1 {
		return exitFailed, fmt.Errorf("undo takes one run; synapse-doctor history lists them")
	}
	e, err := t.open(ctx, f, s)
	if err != nil {
		return exitFailed, err
	}
	defer e.close()
	c.begin(s, e, o)
	c.undo = true
	r, err := e.Undo(ctx, engine.UndoOptions{Run: f.Arg(0), Consent: c.ask})
	if err != nil {
		return exitFailed, err
	}
	e.progress.end()
	code := exitOK
	for _, p := range r.Plans {
		switch p.Status {
		case doctor.PlanApplied:
			fmt.Fprintf(s.out, "Put back: %s (%s, run %s)\n", p.Plan.Title, p.Plan.ID, r.Run)
		case doctor.PlanRefused:
			fmt.Fprintf(s.out, "Refused, nothing was changed: %s (%s, run %s): %s\n", p.Plan.Title, p.Plan.ID, r.Run, p.Reason)
			code = max(code, exitFindings)
		default:
			fmt.Fprintf(s.out, "Failed: %s (%s, run %s): %s\n", p.Plan.Title, p.Plan.ID, r.Run, p.Reason)
			return exitFailed, nil
		}
	}
	return code, nil
}
