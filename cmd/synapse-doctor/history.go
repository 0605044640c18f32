package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
)

const historyAbout = `Lists the recorded runs, the newest first, or tells one of them: what was found, applied, undone.
history measures shows how the numbers that the checks take have gone, of the objects whose name has TEXT in it.
history prune ends what is older than --older-than: its findings, measures, saved rows and file backups.`

func runHistory(ctx context.Context, args []string, s streams) (int, error) {
	var t targetFlags
	f := newFlags("history", "[RUN | measures [TEXT] | prune]", historyAbout, s)
	f.StringVar(&t.stateDir, "state-dir", "", "where the journal is kept (default as for check)")
	limit := f.IntP("number", "n", 20, "how many runs to list, or to draw")
	server := f.String("server", "", "with measures: of the homeserver with this `NAME` (default: of the last recorded run)")
	var o outputFlags
	f.BoolVar(&o.noColor, "no-color", false, "no colours, also with the environment variable NO_COLOR")
	older := f.Duration("older-than", 90*24*time.Hour, "with prune: the age from which runs are forgotten")
	if err := parse(f, args); err != nil {
		return exitFailed, err
	}
	dir, err := t.state()
	if err != nil {
		return exitFailed, err
	}
	j, err := journal.OpenExisting(dir)
	if errors.Is(err, journal.ErrNoJournal) {
		fmt.Fprintf(s.out, "Nothing has been recorded in %s.\n", doctor.Clean(dir))
		return exitOK, nil
	}
	if err != nil {
		return exitFailed, err
	}
	defer j.Close()
	switch {
	case f.NArg() == 0:
		return exitOK, listRuns(ctx, j, *limit, s.out)
	case f.NArg() == 1 && f.Arg(0) == "prune":
		n, err := j.Prune(ctx, time.Now().Add(-*older))
		if err != nil {
			return exitFailed, err
		}
		fmt.Fprintf(s.out, "%d runs forgotten.\n", n)
		return exitOK, nil
	case f.Arg(0) == "measures" && f.NArg() <= 2:
		return exitOK, drawMeasures(ctx, j, measuresWanted{server: *server, text: f.Arg(1), runs: *limit}, o.options(s.out), s.out)
	case f.NArg() == 1:
		return exitOK, tellRun(ctx, j, f.Arg(0), s.out)
	}
	return exitFailed, errors.New("history takes one run, measures, or prune")
}

func listRuns(ctx context.Context, j *journal.Journal, limit int, w io.Writer) error {
	runs, err := j.Runs(ctx, limit)
	if err != nil {
		return err
	}
	if len(runs) == 0 {
		fmt.Fprintln(w, "Nothing has been recorded.")
		return nil
	}
	fmt.Fprintf(w, "%-22s  %-19s  %-7s  %-11s  %s\n", "RUN", "STARTED", "COMMAND", "STATUS", "SERVER")
	for _, r := range runs {
		fmt.Fprintf(w, "%-22s  %-19s  %-7s  %-11s  %s\n", r.ID, localTime(r.Started), r.Command, r.Status, doctor.Clean(r.Server))
	}
	return nil
}

func tellRun(ctx context.Context, j *journal.Journal, id string, w io.Writer) error {
	r, err := j.Run(ctx, id)
	if errors.Is(err, journal.ErrNoRun) {
		return fmt.Errorf("there is no run %s in the journal; synapse-doctor history lists them", doctor.Clean(id))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "Run %s: %s on %s, from %s to %s, %s (synapse-doctor %s)\n", r.ID, r.Command, doctor.Clean(r.Server),
		localTime(r.Started), localTime(r.Ended), r.Status, r.Version)
	plans, err := j.Plans(ctx, id)
	if err != nil {
		return err
	}
	for _, p := range plans {
		fmt.Fprintf(w, "\n%s: %s (%s)\n", p.Plan.ID, doctor.Clean(p.Plan.Title), p.Status)
		if p.Reason != "" {
			fmt.Fprintf(w, "  %s\n", doctor.Clean(p.Reason))
		}
		for i, step := range p.Plan.Steps {
			fmt.Fprintf(w, "  %-8s  %s\n", p.Steps[i].Status, doctor.Clean(step.Title))
		}
	}
	findings, err := j.Findings(ctx, r)
	if err != nil {
		return err
	}
	if len(findings) > 0 {
		fmt.Fprintln(w)
	}
	for _, f := range findings {
		fmt.Fprintf(w, "%-10s  %-7s  %s: %s\n", f.Trend, f.Severity, f.Key.Code, doctor.Clean(f.Summary))
	}
	return nil
}

// localTime is a date and time where the reader is, and a dash for one that never was.
func localTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}
