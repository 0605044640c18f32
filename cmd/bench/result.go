package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// What must hold. They are told, not enforced: a busy machine is no fault of the program.
const (
	mostForPlugins  = 30 * time.Millisecond
	mostTimesPsql   = 2.0
	mostMemoryBytes = 100 << 20
)

func printResult(w io.Writer, h homeserver, s script, timed timings, m memory) {
	fmt.Fprintf(w, "\nA whole check of %s\n", h.name)
	fmt.Fprintf(w, "PostgreSQL %s, %d CPUs%s; %d rounds, after one to warm up\n\n", h.server, runtime.NumCPU(), load(), len(timed.psql.wall))
	fmt.Fprintf(w, "%-30s %9s %9s %9s %9s %8s\n", "", "median", "fastest", "slowest", "cpu", "of psql")
	row := func(name string, t times) {
		fmt.Fprintf(w, "%-30s %9s %9s %9s %9s %7.2f×\n", name, ms(median(t.wall)), ms(t.wall[0]), ms(t.wall[len(t.wall)-1]), ms(median(t.cpu)),
			ratio(t, timed.psql))
	}
	row("check, over plugins", timed.plugins)
	row("check --in-process", timed.inProcess)
	row(fmt.Sprintf("psql, the same %d statements", s.statements), timed.psql)
	fmt.Fprintf(w, "\nThe doctor sent them in %d sessions, psql in one; cpu is without the server's.\n\n", s.sessions)

	extra := median(timed.plugins.wall) - median(timed.inProcess.wall)
	target(w, "over plugins at most 30 ms more than in process", fmt.Sprintf("%+.1f ms", milliseconds(extra)), extra <= mostForPlugins)
	target(w, "the whole under twice psql's time", fmt.Sprintf("%.2f×", ratio(timed.plugins, timed.psql)), ratio(timed.plugins, timed.psql) < mostTimesPsql)
	if m.total() == 0 {
		fmt.Fprintln(w, "memory of host and plugin under 100 MiB            not measured: no /proc here")
		return
	}
	target(w, "memory of host and plugin together under 100 MiB", fmt.Sprintf("%.0f + %.0f MiB", mib(m.host), mib(m.plugin)), m.total() < mostMemoryBytes)
}

// load is how many processes wanted to run of late: with more of them than CPUs, the times say little.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	minute, _, _ := strings.Cut(string(text), " ")
	return " (load " + minute + ")"
}

func target(w io.Writer, what, got string, holds bool) {
	verdict := "holds"
	if !holds {
		verdict = "MISSED"
	}
	fmt.Fprintf(w, "%-50s %14s   %s\n", what, got, verdict)
}

func ratio(t, psql times) float64 { return float64(median(t.wall)) / float64(median(psql.wall)) }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", milliseconds(d)) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
