package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/report"
)

const undoAbout = `Puts back what a fix has changed: the run that is named, or the last one that has something to put back.
It refuses where something newer would be lost.

Exit codes: 0 put back; 2 refused; 1 failed.`

func runUndo(ctx context.Context, args []string, s streams) (int, error) {
	var t targetFlags
	var o outputFlags
	var c consent
	f := newFlags("undo", "[RUN]", undoAbout, s)
	t.register(f)
	c.register(f)
	f.BoolVar(&o.noColor, "no-color", false, "no colours, also with the environment variable NO_COLOR")
	if err := parse(f, args); err != nil {
		return exitFailed, err
	}
	if f.NArg() > 1 {
		return exitFailed, fmt.Errorf("undo takes one run; synapse-doctor history lists them")
	}
	e, err := t.open(ctx, f, s, false)
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
	var page strings.Builder
	for _, p := range r.Plans {
		what := fmt.Sprintf("%s (%s, run %s)", p.Plan.Title, p.Plan.ID, r.Run)
		switch p.Status {
		case doctor.PlanApplied:
			fmt.Fprintf(&page, "Put back: %s\n\n", what)
		case doctor.PlanRefused:
			fmt.Fprintf(&page, "Refused, nothing was changed: %s: %s\n\n", what, p.Reason)
			code = max(code, exitFindings)
		default:
			fmt.Fprintf(&page, "Failed: %s: %s\n\n", what, p.Reason)
			code = exitFailed
		}
		if code == exitFailed {
			break
		}
	}
	return code, report.Page(s.out, page.String(), o.options(s.out))
}
