package main

import (
	"fmt"
	"io"
	"runtime"
	"time"
)

// What must hold. They are told, not enforced: a busy machine is no fault of the program.
const (
	mostForPlugins  = 30 * time.Millisecond
	mostTimesPsql   = 2.0
	mostMemoryBytes = 100 << 20
)

func printResult(w io.Writer, h homeserver, s script, t timings, m memory) {
	fmt.Fprintf(w, "\nA whole check of %s\n", h.name)
	fmt.Fprintf(w, "%s, %d CPUs; %d rounds that take turns, after one to warm up\n\n", h.db.Server.BinDir, runtime.NumCPU(), len(t.psql))
	fmt.Fprintf(w, "%-38s %9s %9s %9s %8s\n", "", "median", "fastest", "slowest", "of psql")
	row := func(name string, t, psql times) {
		fmt.Fprintf(w, "%-38s %9s %9s %9s %7.2f×\n", name, ms(t.median()), ms(t[0]), ms(t[len(t)-1]), ratio(t, psql))
	}
	row("check, over plugins", t.plugins, t.psql)
	row("check --in-process", t.inProcess, t.psql)
	row(fmt.Sprintf("psql, the same %d statements", s.statements), t.psql, t.psql)
	fmt.Fprintf(w, "\nThe doctor sent them in %d sessions, psql in one.\n\n", s.sessions)

	extra := t.plugins.median() - t.inProcess.median()
	target(w, "over plugins at most 30 ms more than in process", fmt.Sprintf("%+.1f ms", milliseconds(extra)), extra <= mostForPlugins)
	target(w, "the whole under twice psql's time", fmt.Sprintf("%.2f×", ratio(t.plugins, t.psql)), ratio(t.plugins, t.psql) < mostTimesPsql)
	if m.total() == 0 {
		fmt.Fprintln(w, "memory of host and plugin under 100 MiB            not measured: no /proc here")
		return
	}
	target(w, "memory of host and plugin together under 100 MiB", fmt.Sprintf("%.0f + %.0f MiB", mib(m.host), mib(m.plugin)), m.total() < mostMemoryBytes)
}

func target(w io.Writer, what, got string, holds bool) {
	verdict := "holds"
	if !holds {
		verdict = "MISSED"
	}
	fmt.Fprintf(w, "%-50s %14s   %s\n", what, got, verdict)
}

func ratio(t, psql times) float64 { return float64(t.median()) / float64(psql.median()) }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", milliseconds(d)) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
