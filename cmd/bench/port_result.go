package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// portCosts are the runs of one way.
type portCosts []portCost

func (c *portCosts) add(cost portCost) { *c = append(*c, cost) }

// of is the median of something of the runs.
func (c portCosts) of(what func(portCost) time.Duration) time.Duration {
	all := make([]time.Duration, len(c))
	for i, cost := range c {
		all[i] = what(cost)
	}
	slices.Sort(all)
	return median(all)
}

func (c portCosts) wall() time.Duration {
	return c.of(func(c portCost) time.Duration { return c.wall })
}

func cpu(c portCost) time.Duration { return c.client + c.server }

func (c portCosts) memory() int64 {
	var most int64
	for _, cost := range c {
		most = max(most, cost.memory)
	}
	return most
}

// verified is the part of the sessions' time that went into the proof that all is equal. The sessions work side by side from
// the first table to the last, so that it is their part of the time by the clock as well.
func (c portCosts) verified() float64 {
	parts := make([]float64, len(c))
	for i, cost := range c {
		var all time.Duration
		for name, part := range cost.parts {
			if name != "total" {
				all += part
			}
		}
		if all > 0 {
			parts[i] = float64(cost.parts[verification]) / float64(all)
		}
	}
	slices.Sort(parts)
	return parts[len(parts)/2]
}

// verification is what a port's record calls it.
const verification = "proof"

// What must hold.
const (
	timesScript      = 20.0
	timesPgloader    = 2.5
	timesLimit       = 1.3
	portMemoryBytes  = 100_000_000
	partVerification = 0.10
	partSecondRun    = 0.15
)

// portResult is what was measured; ways that were left out are nil.
type portResult struct {
	bench                                      *portBench
	ours, same, again, limit, pgloader, script *way
	shared                                     string
	rounds                                     int
	notes                                      []string
}

func (r portResult) print(w io.Writer) {
	fmt.Fprintf(w, "%d rows, PostgreSQL with shared_buffers %s, %s; rounds: %d, after one port to warm up\n\n", r.bench.rows, r.shared, r.bench.where(), r.rounds)
	fmt.Fprintf(w, "%-34s %9s %9s %9s %8s %8s %8s %8s %8s %8s\n", "", "median", "fastest", "slowest", "rows/s", "client", "server", "memory", "wall", "cpu")
	for _, way := range []*way{r.limit, r.ours, r.same, r.again, r.pgloader, r.script} {
		if way != nil {
			r.row(w, way)
		}
	}
	fmt.Fprintln(w, "\nclient and server: time of the processors, medians. memory: the most of any run, of the client's processes together, without")
	fmt.Fprintln(w, "mapped pages. wall and cpu: how many times what the limit took, by the clock and of all processors.")
	if parts := r.ours.costs[0].parts; len(parts) > 0 {
		fmt.Fprint(w, "The first port, by its own record:")
		for _, name := range slices.Sorted(maps.Keys(parts)) {
			fmt.Fprintf(w, " %s %s", name, seconds(parts[name]))
		}
		fmt.Fprintln(w)
	}
	for _, note := range r.notes {
		fmt.Fprintln(w, note)
	}
	fmt.Fprintln(w)
	r.goals(w)
}

func (r portResult) row(w io.Writer, way *way) {
	walls := make([]time.Duration, len(way.costs))
	for i, cost := range way.costs {
		walls[i] = cost.wall
	}
	memory := "-"
	if m := way.costs.memory(); m > 0 {
		memory = megabytes(m)
	}
	fmt.Fprintf(w, "%-34s %9s %9s %9s %7.0fk %8s %8s %8s %7.2f× %7.2f×\n", way.name, seconds(way.costs.wall()), seconds(slices.Min(walls)), seconds(slices.Max(walls)),
		float64(r.bench.rows)/way.costs.wall().Seconds()/1000, seconds(way.costs.of(func(c portCost) time.Duration { return c.client })),
		seconds(way.costs.of(func(c portCost) time.Duration { return c.server })), memory, timesOf(way, r.limit),
		float64(way.costs.of(cpu))/float64(r.limit.costs.of(cpu)))
}

// timesOf is how many times as long one way takes as another.
func timesOf(a, b *way) float64 { return float64(a.costs.wall()) / float64(b.costs.wall()) }

func (r portResult) goals(w io.Writer) {
	faster := func(what string, other *way, least float64) {
		if other == nil {
			fmt.Fprintf(w, "%-50s %14s   not measured\n", what, "")
			return
		}
		target(w, what, fmt.Sprintf("%.1f×", timesOf(other, r.ours)), timesOf(other, r.ours) >= least)
	}
	faster("at least 20 times as fast as Synapse's script", r.script, timesScript)
	faster("at least 2.5 times as fast as pgloader", r.pgloader, timesPgloader)
	target(w, "at most 1.3 times the limit", fmt.Sprintf("%.2f×", timesOf(r.ours, r.limit)), timesOf(r.ours, r.limit) <= timesLimit)
	if m := r.ours.costs.memory(); m > 0 {
		target(w, "under 100 MB of memory, host and plugin", megabytes(m), m < portMemoryBytes)
	} else {
		fmt.Fprintf(w, "%-50s %14s   not measured: no /proc here\n", "under 100 MB of memory, host and plugin", "")
	}
	verified := r.ours.costs.verified()
	target(w, "verification under 10 % of the time", fmt.Sprintf("%.1f %%", 100*verified), verified > 0 && verified < partVerification)
	second := timesOf(r.again, r.ours)
	target(w, "a second run under 15 % of the first", fmt.Sprintf("%.1f %%", 100*second), second < partSecondRun)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func megabytes(bytes int64) string { return fmt.Sprintf("%.0f MB", float64(bytes)/1e6) }
