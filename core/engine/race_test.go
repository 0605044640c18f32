package engine_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
)

// at calls f when the engine passes the point for the first time.
func at(point string, f func()) func(*engine.Options) {
	done := false
	return func(o *engine.Options) {
		o.Trace = func(p string) {
			if p == point && !done {
				done = true
				f()
			}
		}
	}
}

func TestSynapseStartedWhileTheTransactionRunsRollsItBack(t *testing.T) {
	b := newBench(t)
	before := b.contents(t)
	r := b.fix(t, at("statement 1", func() { b.db.Conn(t) }))
	if got := r.Plans[0]; got.Status != doctor.PlanRefused || !strings.Contains(got.Reason, "connected meanwhile") {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
	if got := b.contents(t); got != before {
		t.Errorf("left: %s", got)
	}
}

func TestSynapseIsSeenThoughItsRoleBecomesAnother(t *testing.T) {
	b := newBench(t)
	b.db.AdminExec(t, `DO $$ BEGIN CREATE ROLE toy_owner; EXCEPTION WHEN duplicate_object THEN END $$; GRANT toy_owner TO `+b.db.User+`; GRANT ALL ON ALL TABLES IN SCHEMA public TO toy_owner`)
	b.db.AdminExec(t, `ALTER ROLE `+b.db.User+` IN DATABASE `+b.db.Name+` SET role = 'toy_owner'`)
	b.db.Conn(t)
	r := b.fix(t)
	if got := r.Plans[0]; got.Status != doctor.PlanRefused || !strings.Contains(got.Reason, "is connected") {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
}

func TestAFileSavedJustBeforeItIsReplacedIsNotLost(t *testing.T) {
	b := newBench(t)
	const saved = "state: broken # and saved by somebody"
	r := b.fix(t, at("before-rename", func() {
		if err := os.WriteFile(b.file, []byte(saved), 0o640); err != nil {
			t.Error(err)
		}
	}))
	if got := r.Plans[0]; got.Status != doctor.PlanFailed || !strings.Contains(got.Reason, "changed just now") {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
	if text, _ := os.ReadFile(b.file); string(text) != saved {
		t.Errorf("the file holds %q", text)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(b.file), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAFileWithSeveralNamesKeepsThem(t *testing.T) {
	b := newBench(t)
	twin := b.file + ".twin"
	if err := os.Link(b.file, twin); err != nil {
		t.Fatal(err)
	}
	r := b.fix(t)
	if r.Plans[0].Status != doctor.PlanApplied || !strings.Contains(r.Plans[0].Steps[2].Note, "in place") {
		t.Errorf("%s %q", r.Plans[0].Status, r.Plans[0].Steps[2].Note)
	}
	if text, _ := os.ReadFile(twin); !strings.Contains(string(text), "whole and sound") {
		t.Errorf("the other name holds %q", text)
	}
}

// killedAt kills a victim at a point.
func (b bench) killedAt(t *testing.T, undo bool, point string) {
	t.Helper()
	probe := newBench(t)
	if undo {
		probe.fix(t)
	}
	points, _ := probe.victim(t, undo, 0)
	n := slices.Index(points, point) + 1
	if n == 0 {
		t.Fatalf("no point %q in %v", point, points)
	}
	if _, killed := b.victim(t, undo, n); !killed {
		t.Fatal("not killed")
	}
}

func TestAnInterruptedUndoIsNotFinishedWhileSynapseIsConnected(t *testing.T) {
	b := newBench(t)
	b.fix(t)
	b.killedAt(t, true, "undo-before-commit 0")
	before := b.contents(t)
	synapse := b.db.Conn(t)
	var notices []string
	_, err := b.engine(func(o *engine.Options) { o.Notice = func(s string) { notices = append(notices, s) } }).
		Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.contents(t); got != before {
		t.Errorf("changed under Synapse:\n%s\nwas\n%s", got, before)
	}
	if said := strings.Join(notices, "\n"); !strings.Contains(said, "could not be settled") || !strings.Contains(said, "is connected") {
		t.Errorf("said: %s", said)
	}
	if found := engine.FindInterrupted(b.state); len(found) != 1 {
		t.Errorf("the mark is gone: %+v", found)
	}
	synapse.Close(t.Context())
	b.fix(t) // settles, and mends again
	if got := b.contents(t); strings.Contains(got, "=-") {
		t.Errorf("left: %s", got)
	}
}

func TestWhatCanNoLongerBePutBackDoesNotBlockTheDoctorForEver(t *testing.T) {
	b := newBench(t)
	b.fix(t)
	b.killedAt(t, true, "undo-file 2")
	if err := os.WriteFile(b.file, []byte("state: edited by hand"), 0o640); err != nil {
		t.Fatal(err)
	}
	b.db.Exec(t, breakToy)
	r := b.fix(t)
	if len(r.Plans) != 1 || r.Plans[0].Status != doctor.PlanApplied {
		t.Errorf("%+v", r.Plans)
	}
	if found := engine.FindInterrupted(b.state); len(found) != 0 {
		t.Errorf("%+v", found)
	}
}

func TestARunKilledBeforeItRecordedAPlanLeavesNoMark(t *testing.T) {
	b := newBench(t)
	b.killedAt(t, false, "consent 0")
	if found := engine.FindInterrupted(b.state); len(found) != 0 {
		t.Errorf("%+v", found)
	}
	if r := b.fix(t); r.Plans[0].Status != doctor.PlanApplied {
		t.Errorf("%s", r.Plans[0].Reason)
	}
}
