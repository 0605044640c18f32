package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
)

func open(t *testing.T) *journal.Journal {
	t.Helper()
	j, err := journal.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func record(t *testing.T, j *journal.Journal, id string, at time.Time, checks ...doctor.CheckResult) {
	t.Helper()
	ctx := t.Context()
	if err := errors.Join(
		j.Begin(ctx, journal.Run{ID: id, Command: "check", Version: "1", Server: "test.example", Started: at}),
		j.RecordFindings(ctx, id, checks),
		j.End(ctx, id, at.Add(time.Second), journal.RunDone),
	); err != nil {
		t.Fatal(err)
	}
}

func found(check string, status doctor.Status, names ...string) doctor.CheckResult {
	r := doctor.CheckResult{ID: check, Status: status}
	for _, n := range names {
		r.Findings = append(r.Findings, doctor.Finding{Code: check + "/fault", Severity: doctor.Error, Object: doctor.Object{Kind: "sequence", Name: n}, Summary: n})
	}
	return r
}

func TestFindingsAreNewPersistingOrResolved(t *testing.T) {
	j := open(t)
	record(t, j, "r1", start, found("sequence", doctor.StatusError, "a", "b"), found("other", doctor.StatusError, "x"))
	record(t, j, "r2", start.Add(time.Hour), found("sequence", doctor.StatusError, "b", "c"), found("other", doctor.StatusUnknown))
	r, err := j.Run(t.Context(), "r2")
	if err != nil {
		t.Fatal(err)
	}
	findings, err := j.Findings(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]journal.Trend{}
	for _, f := range findings {
		got[f.Key.Object.Name] = f.Trend
	}
	// x was not found again, but its check could not look: it is not resolved.
	want := map[string]journal.Trend{"b": journal.TrendPersisting, "c": journal.TrendNew, "a": journal.TrendResolved}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAPlanIsReadBackAsItWasApproved(t *testing.T) {
	j := open(t)
	ctx := t.Context()
	plan := doctor.Plan{ID: "a/b", Covers: []doctor.FindingKey{{Code: "a/x", Object: doctor.Object{Name: "n"}}}, Reversible: true, Duration: time.Minute,
		Steps: []doctor.Step{
			{Title: "one", SQL: &doctor.SQLStep{Statement: "SELECT $1", Args: []doctor.Value{{}, {V: "text"}, {V: int64(1) << 62}, {V: true}, {V: []byte{0, 255}}},
				Guard: &doctor.Guard{Query: "SELECT true"}, Undo: []doctor.UndoSQL{{Statement: "x", ForEachSaved: true}}}},
			{Title: "two", EditFile: &doctor.EditFileStep{Path: "/f", Splices: []doctor.Splice{{Offset: 3, Old: []byte("a\xff"), New: []byte("b")}}}},
		}}
	if err := j.Begin(ctx, journal.Run{ID: "r", Command: "fix", Started: start}); err != nil {
		t.Fatal(err)
	}
	id, err := j.AddPlan(ctx, "r", "server/db", plan)
	if err != nil {
		t.Fatal(err)
	}
	rows := []doctor.SavedRow{{Table: "t", JSON: `{"a":1}`}, {Table: "t", JSON: `{"a":2}`}}
	if err := errors.Join(
		j.SetSteps(ctx, id, []int{0}, journal.Step{Status: journal.StepStarted, XID: "77"}),
		j.SaveRows(ctx, id, 0, "token", rows),
		j.SaveFile(ctx, journal.Plan{ID: id, Run: "r"}, 1, journal.File{Path: "/f", Before: "b", After: "a"}, []byte("secret content")),
	); err != nil {
		t.Fatal(err)
	}
	plans, err := j.Unsettled(ctx)
	if err != nil || len(plans) != 1 {
		t.Fatalf("%v %v", plans, err)
	}
	if !reflect.DeepEqual(plans[0].Plan, plan) {
		t.Errorf("read back\n%+v\nwritten\n%+v", plans[0].Plan, plan)
	}
	if s := plans[0].Steps[0]; s.Status != journal.StepStarted || s.XID != "77" || s.Resume != "token" {
		t.Errorf("step: %+v", s)
	}
	saved, last, err := j.SavedRows(ctx, id, 0, 0, 1)
	if err != nil || len(saved) != 1 || saved[0] != rows[0] {
		t.Errorf("first page: %v %v", saved, err)
	}
	if saved, _, _ = j.SavedRows(ctx, id, 0, last, 10); len(saved) != 1 || saved[0] != rows[1] {
		t.Errorf("second page: %v", saved)
	}
	file, ok, err := j.SavedFile(ctx, id, 1)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if text, err := os.ReadFile(file.Backup); err != nil || string(text) != "secret content" {
		t.Errorf("backup: %q %v", text, err)
	}
	for _, path := range []string{file.Backup, filepath.Join(j.Dir(), "journal.db"), j.Dir(), filepath.Dir(file.Backup)} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %v %v", path, info.Mode(), err)
		}
	}
}

func TestPruneEndsOldRunsWithTheirCopiesAndKeepsWhatIsNotSettled(t *testing.T) {
	j := open(t)
	ctx := t.Context()
	for _, id := range []string{"old", "unsettled", "young"} {
		at := start
		if id == "young" {
			at = start.Add(100 * time.Hour)
		}
		record(t, j, id, at)
		p, err := j.AddPlan(ctx, id, "t", doctor.Plan{ID: "a/b", Steps: []doctor.Step{{Manual: &doctor.ManualStep{Text: "x"}}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.SaveFile(ctx, journal.Plan{ID: p, Run: id}, 0, journal.File{Path: "/etc/x.yaml"}, []byte("copy")); err != nil {
			t.Fatal(err)
		}
		if id != "unsettled" {
			if err := j.SetPlan(ctx, p, journal.PlanApplied, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	n, err := j.Prune(ctx, start.Add(50*time.Hour))
	if err != nil || n != 1 {
		t.Fatalf("pruned %d, %v", n, err)
	}
	left, _ := filepath.Glob(filepath.Join(j.Dir(), "backups", "*"))
	if got := strings.Join(left, " "); strings.Contains(got, "/old") || !strings.Contains(got, "/unsettled") || !strings.Contains(got, "/young") {
		t.Errorf("copies left: %s", got)
	}
	if _, err := j.Run(ctx, "old"); !errors.Is(err, journal.ErrNoRun) {
		t.Errorf("old run: %v", err)
	}
}

func TestAStateDirectoryOpenToOthersIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Open(dir); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("%v", err)
	}
}

func TestAJournalOfANewerVersionIsRefused(t *testing.T) {
	j := open(t)
	dir := j.Dir()
	j.Close()
	setVersion(t, filepath.Join(dir, "journal.db"), 99)
	if _, err := journal.Open(dir); err == nil || !strings.Contains(err.Error(), "upgrade synapse-doctor") {
		t.Errorf("%v", err)
	}
	if _, err := journal.OpenExisting(t.TempDir()); !errors.Is(err, journal.ErrNoJournal) {
		t.Errorf("%v", err)
	}
}
