package journal_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
)

func measuring(check, table string, size float64) doctor.CheckResult {
	return doctor.CheckResult{ID: check, Status: doctor.StatusOK, Measures: []doctor.Measure{
		{Check: check, Database: "main", Object: doctor.Object{Kind: "table", Name: table}, Name: "size", Value: size, Unit: "bytes"}}}
}

func TestEarlierMeasuresAreEachChecksNewest(t *testing.T) {
	j := open(t)
	record(t, j, "r1", start, measuring("upkeep", "events", 1), measuring("tuning", "shared_buffers", 10))
	record(t, j, "r2", start.Add(time.Hour), measuring("upkeep", "events", 2))
	record(t, j, "r3", start.Add(2*time.Hour), found("sequence", doctor.StatusOK))
	ctx := context.Background()
	get := func(until time.Time) map[string]float64 {
		e, err := j.Earlier(ctx, "test.example", until)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, m := range e.Measures {
			got[m.Check] = m.Value
			if want := map[float64]time.Time{1: start, 10: start, 2: start.Add(time.Hour)}[m.Value]; !m.At.Equal(want) {
				t.Errorf("%v at %v", m, m.At)
			}
		}
		return got
	}
	if got := get(start.Add(24 * time.Hour)); got["upkeep"] != 2 || got["tuning"] != 10 || len(got) != 2 {
		t.Errorf("now: %v", got)
	}
	if got := get(start.Add(time.Minute)); got["upkeep"] != 1 || len(got) != 2 {
		t.Errorf("then: %v", got)
	}
	if got := get(start.Add(-time.Minute)); len(got) != 0 {
		t.Errorf("before anything: %v", got)
	}
	if e, err := j.Earlier(ctx, "other.example", start.Add(24*time.Hour)); err != nil || len(e.Measures) != 0 {
		t.Errorf("another server's: %v, %v", e, err)
	}
	series, err := j.Series(ctx, "test.example", 20)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range series {
		if s.Key.Check == "upkeep" && (len(s.Points) != 2 || s.Points[0].Value != 1 || s.Points[1].Value != 2) {
			t.Errorf("%+v", s)
		}
	}
	if len(series) != 2 || series[1].Key.Check != "upkeep" { // the newest run's come last
		t.Errorf("%+v", series)
	}
	if _, err := j.Prune(ctx, start.Add(24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := get(start.Add(24 * time.Hour)); len(got) != 0 {
		t.Errorf("pruned: %v", got)
	}
}

func TestWhatHasChangedSinceARun(t *testing.T) {
	j := open(t)
	record(t, j, "r1", start, found("sequence", doctor.StatusError, "a", "b"), found("other", doctor.StatusUnknown), found("gone", doctor.StatusError, "g"))
	run, err := j.LastExamined(t.Context(), "test.example", start)
	if err != nil {
		t.Fatal(err)
	}
	since, err := j.Compare(t.Context(), []doctor.CheckResult{
		found("sequence", doctor.StatusError, "b", "c"), found("other", doctor.StatusError, "x"), found("gone", doctor.StatusSkipped)}, run)
	if err != nil {
		t.Fatal(err)
	}
	if len(since.New) != 1 || since.New[0].Object.Name != "c" || len(since.Resolved) != 1 || since.Resolved[0].Object.Name != "a" ||
		since.Persisting != 1 || since.NotComparable != 1 || since.Run != "r1" {
		t.Errorf("%+v", since)
	}
	if _, err := j.LastExamined(t.Context(), "test.example", start.Add(-time.Second)); !errors.Is(err, journal.ErrNoRun) {
		t.Errorf("before anything: %v", err)
	}
}

// A check may look into the journal, and writes nothing: no byte of it, no file beside it.
func TestReadingWritesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := journal.OpenReading(dir); !errors.Is(err, journal.ErrNoJournal) {
		t.Errorf("no journal: %v", err)
	}
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	record(t, j, "r1", start, measuring("upkeep", "events", 1))
	// Another doctor has it open, and rows are in its -wal only.
	look(t, dir, 1)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	before, names := contents(t, dir)
	look(t, dir, 1)
	if after, now := contents(t, dir); after != before || now != names {
		t.Errorf("there were %s, now there are %s", names, now)
	}
	// One of an older format has no measures; nothing makes it a newer one.
	setVersion(t, filepath.Join(dir, "journal.db"), 2)
	look(t, dir, 0)
	setVersion(t, filepath.Join(dir, "journal.db"), 99)
	if _, err := journal.OpenReading(dir); err == nil || !strings.Contains(err.Error(), "upgrade synapse-doctor") {
		t.Errorf("a newer one: %v", err)
	}
}

func look(t *testing.T, dir string, want int) {
	t.Helper()
	j, err := journal.OpenReading(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	e, err := j.Earlier(t.Context(), "test.example", start.Add(time.Hour))
	if err != nil || len(e.Measures) != want {
		t.Errorf("%v, %v", e, err)
	}
}

func contents(t *testing.T, dir string) (data, names string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names += e.Name() + " "
	}
	b, err := os.ReadFile(filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), names
}
