package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/report"
)

const checkAbout = `Examines the homeserver's database and reports. It writes nothing: not to the database, not to a file.
Without arguments every check runs; otherwise the named checks, or only the named codes.

Exit codes: 0 nothing at or above --fail-on; 2 findings; 1 could not complete, which wins over 2. With --format nagios they are
those of Nagios: 0 OK, 1 WARNING, 2 CRITICAL (an error), 3 UNKNOWN.`

func runCheck(ctx context.Context, args []string, s streams) (int, error) {
	var t targetFlags
	var o outputFlags
	f := newFlags("check", "[CHECK|CODE …]", checkAbout, s)
	t.register(f)
	failOn := f.String("fail-on", "warning", "exit 2 for findings of this `SEVERITY` or worse: info, warning, error")
	record := f.Bool("record", false, "keep the result in the journal, for history")
	since := f.String("since", "", "also tell what has changed since `WHEN`: last, a run of history, a day or time such as 2026-11-01, an age such as 7d; what is measured is compared with that too")
	o.register(f, report.Formats())
	if err := parse(f, args); err != nil {
		return exitFailed, err
	}
	threshold, err := doctor.ParseSeverity(*failOn)
	if err != nil {
		return exitFailed, fmt.Errorf("--fail-on: %w", err)
	}
	o.failOn = threshold
	o.incomplete = func(r *doctor.Report) bool { return checkCode(r, threshold, f.NArg() > 0) == exitFailed }
	e, formatter, err := t.openReport(ctx, f, &o, s)
	if err != nil {
		return exitFailed, err
	}
	defer e.close()
	until, err := e.lookBack(ctx, *since)
	if err != nil {
		return exitFailed, err
	}
	r, err := e.Check(ctx, engine.Selection{Wanted: f.Args(), Skip: t.skip})
	go e.close() // the plugins end while the report is printed
	if err != nil {
		return exitFailed, err
	}
	if *since != "" {
		if err := e.Compare(ctx, r, until); err != nil {
			return exitFailed, noEarlier(*since, err)
		}
	}
	e.progress.end()
	tellInterrupted(e.StateDir, s.err)
	if err := o.write(s, func(w io.Writer) error { return formatter.Check(w, r) }); err != nil {
		return exitFailed, err
	}
	if *record {
		if err := e.Record(ctx, r); err != nil {
			return exitFailed, err
		}
	}
	code := checkCode(r, threshold, f.NArg() > 0)
	if o.format == "nagios" { // what reads it goes by these codes
		code = report.NagiosState(r, threshold, code != exitFailed)
	}
	return code, nil
}

// checkCode is the exit code of a report. asked: the checks were named.
func checkCode(r *doctor.Report, threshold doctor.Severity, asked bool) int {
	code := exitOK
	reportsConnections, ignored := false, false // a failure that is ignored is no excuse for not having looked
	for _, c := range r.Checks {
		if c.ID == "connection" {
			reportsConnections = true
			ignored = slices.ContainsFunc(c.Findings, func(f doctor.Finding) bool { return f.Ignored != nil })
		}
	}
	for _, p := range r.Plugins {
		if p.Status == doctor.StatusUnknown {
			return exitFailed
		}
	}
	for _, c := range r.Checks {
		if c.Status == doctor.StatusUnknown {
			return exitFailed
		}
		if c.Status == doctor.StatusSkipped && c.NeedFailed && (asked && !reportsConnections || ignored) {
			return exitFailed
		}
		for _, f := range c.Findings {
			if f.Severity >= threshold && f.Ignored == nil {
				code = exitFindings
			}
		}
	}
	return code
}
