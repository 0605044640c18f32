package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
	"github.com/synapse-doctor/synapse-doctor/core/report"
)

// measuresWanted says which measures are drawn.
type measuresWanted struct {
	server string // empty: the last recorded run's
	text   string // a part of the object's name, the check or the measure; empty: all
	runs   int
}

// drawMeasures prints how measures have gone through the runs.
func drawMeasures(ctx context.Context, j *journal.Journal, want measuresWanted, o report.Options, w io.Writer) error {
	if want.runs < 1 {
		return errors.New("--number must be at least 1")
	}
	if want.server == "" {
		last, err := j.LastMeasured(ctx)
		if errors.Is(err, journal.ErrNoRun) {
			_, err = fmt.Fprintln(w, "Nothing has been measured yet: synapse-doctor check --record keeps what is measured.")
			return err
		}
		if err != nil {
			return err
		}
		want.server = last.Server
	}
	all, err := j.Series(ctx, want.server, want.runs)
	if err != nil {
		return err
	}
	var lines []report.Line
	for _, s := range all {
		name := strings.Join([]string{s.Key.Check, s.Key.Object.Kind, s.Key.Object.Name, s.Key.Name, s.Key.Database}, " ")
		if !strings.Contains(strings.ToLower(name), strings.ToLower(want.text)) {
			continue
		}
		line := report.Line{Key: s.Key, Unit: s.Unit}
		for _, p := range s.Points {
			line.At = append(line.At, p.At)
			line.Values = append(line.Values, p.Value)
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		if want.text != "" {
			return fmt.Errorf("nothing whose name has %q in it was measured of %s", doctor.Clean(want.text), doctor.Clean(want.server))
		}
		return fmt.Errorf("nothing was measured of %s: synapse-doctor check --record keeps what is measured", doctor.Clean(want.server))
	}
	first, last := span(lines)
	title := fmt.Sprintf("%s, from %s to %s", doctor.Clean(want.server), localTime(first), localTime(last))
	if err := report.Lines(w, title, lines, o); err != nil {
		return fmt.Errorf("print the measures: %w", err)
	}
	return nil
}

// span is the time that the lines go over.
func span(lines []report.Line) (first, last time.Time) {
	for _, l := range lines {
		for _, at := range l.At {
			if first.IsZero() || at.Before(first) {
				first = at
			}
			if at.After(last) {
				last = at
			}
		}
	}
	return first, last
}
