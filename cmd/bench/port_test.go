package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestTheLimitLeavesTheRowsAndTheStructureThatAPortLeaves(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	data := os.Getenv("SYNAPSE_DOCTOR_DATA")
	if data == "" {
		t.Skip("SKIP: SYNAPSE_DOCTOR_DATA is not set: there is no real homeserver to copy")
	}
	ctx := t.Context()
	server := pgtest.Start(t)
	ported, err := server.CreateDatabase(ctx, pgtest.WithDump(filepath.Join(data, "synapse_ported.dump")),
		pgtest.WithSetup(`DROP TABLE port_from_sqlite3`)) // of Synapse's script, which made the port
	if err != nil {
		t.Fatal(err)
	}
	target, err := server.CreateDatabase(ctx, pgtest.WithDump(filepath.Join(data, "synapse_empty.dump")))
	if err != nil {
		t.Fatal(err)
	}
	b := portBench{server: server, dir: t.TempDir()}
	if err := b.export(ctx, ported); err != nil {
		t.Fatal(err)
	}
	before := structureOf(ctx, t, target)
	cost, err := b.limit(ctx, target)
	if err != nil {
		t.Fatal(err)
	}
	if after := structureOf(ctx, t, target); !slices.Equal(before, after) || len(before) < 400 {
		t.Errorf("of %d indexes, constraints and triggers there are %d; no longer: %q", len(before), len(after), missing(before, after))
	}
	if cost.wall <= 0 || cost.client <= 0 || cost.server <= 0 || cost.server > 20*cost.wall {
		t.Errorf("it is said to have taken %+v", cost)
	}
	if err := b.expectRows(ctx, target); err != nil {
		t.Error(err)
	}
	b.files[0].rows = 10_000_000
	if err := b.expectRows(ctx, target); err == nil || !strings.Contains(err.Error(), "10000000") {
		t.Errorf("rows that are missing: %v", err)
	}
}

func structureOf(ctx context.Context, t *testing.T, db *pgtest.DB) []string {
	t.Helper()
	conn, err := pgx.Connect(ctx, db.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	all, err := listOf(ctx, conn, `SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT format('%s %s %s', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func missing(from, in []string) []string {
	return slices.DeleteFunc(slices.Clone(from), func(s string) bool { return slices.Contains(in, s) })
}

func TestTheCostliestTaskIsDoneFirstAndWhatComesAfterItWaits(t *testing.T) {
	server := pgtest.Start(t)
	db, err := server.CreateDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	order := make(chan string, 10)
	named := func(name string, cost int64, then ...task) task {
		return task{cost: cost, then: then, run: func(context.Context, *pgx.Conn) error { order <- name; return nil }}
	}
	if err := perform(t.Context(), db.DSN(), []task{named("small", 1), named("large", 9, named("index", 9)), named("middle", 5)}); err != nil {
		t.Fatal(err)
	}
	close(order)
	var got []string
	for name := range order {
		got = append(got, name)
	}
	if len(got) != 4 || slices.Index(got, "index") < slices.Index(got, "large") || slices.Index(got, "small") < slices.Index(got, "large") {
		t.Errorf("done in the order %q", got)
	}
	failed := errors.New("no")
	bad := task{run: func(context.Context, *pgx.Conn) error { return failed }, then: []task{named("never", 1)}}
	waits := task{cost: 1, run: func(ctx context.Context, _ *pgx.Conn) error { <-ctx.Done(); return ctx.Err() }}
	if err := perform(t.Context(), db.DSN(), []task{bad, waits}); !errors.Is(err, failed) {
		t.Errorf("a failed task: %v", err)
	}
}

func TestAGoalIsMetOrMissed(t *testing.T) {
	took := func(s float64) portCosts {
		wall := time.Duration(s * float64(time.Second))
		return portCosts{{wall: wall, client: wall, server: wall, memory: 50e6, parts: map[string]time.Duration{verification: wall / 20, "copy": wall * 19 / 20}}}
	}
	r := portResult{bench: &portBench{rows: 1000}, ours: &way{name: "ours", costs: took(10)}, again: &way{costs: took(1)}, limit: &way{costs: took(8)},
		pgloader: &way{costs: took(30)}}
	lines := func() []string {
		var b bytes.Buffer
		r.goals(&b)
		return regexp.MustCompile(`holds|MISSED|not measured`).FindAllString(b.String(), -1)
	}
	if got, want := lines(), []string{"not measured", "holds", "holds", "holds", "holds", "holds"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r.script, r.pgloader.costs, r.limit.costs, r.again.costs = &way{costs: took(199)}, took(24), took(7.6), took(1.6)
	r.ours.costs[0].memory, r.ours.costs[0].parts = 101e6, map[string]time.Duration{verification: time.Second, "copy": 9 * time.Second, "total": 20 * time.Second}
	if got, want := lines(), slices.Repeat([]string{"MISSED"}, 6); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r.ours.costs[0].parts = nil
	if got := lines(); got[4] != "MISSED" {
		t.Errorf("a verification that left no trace: %s", got[4])
	}
}

func TestMemoryAndTimeAreReadFromProc(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("SKIP: no /proc here")
	}
	debug.FreeOSMemory() // else the runtime gives back what earlier tests have left, in between; a little of it it does all the same
	before := ownPages(os.Getpid())
	held, err := syscall.Mmap(-1, 0, 64<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	for i := range held {
		held[i] = 1
	}
	if grown := ownPages(os.Getpid()) - before; grown < 48<<20 || grown > 80<<20 {
		t.Errorf("64 MiB more are seen as %d bytes", grown)
	}
	if err := syscall.Munmap(held); err != nil {
		t.Fatal(err)
	}
	start, own := timeOf(os.Getpid(), false), ownTime()
	for ownTime()-own < 200*time.Millisecond {
	}
	if ticks := timeOf(os.Getpid(), false) - start; ticks < 15 {
		t.Errorf("a fifth of a second is seen as %d hundredths", ticks)
	}
}
