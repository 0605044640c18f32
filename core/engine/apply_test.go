package engine_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
)

func TestAFixMendsAndProvesItAndUndoPutsEverythingBack(t *testing.T) {
	b := newBench(t)
	broken := b.contents(t)

	r := b.fix(t)
	if got := r.Plans[0]; got.Status != doctor.PlanApplied {
		t.Fatalf("status %s: %s", got.Status, got.Reason)
	}
	for i, s := range r.Plans[0].Steps {
		if s.Status != doctor.StepApplied {
			t.Errorf("step %d is %s", i, s.Status)
		}
	}
	if r.After == nil || r.After.Checks[0].Status != doctor.StatusOK {
		t.Fatalf("after the fix: %+v", r.After)
	}
	mended := b.contents(t)
	if !strings.Contains(mended, "3=30") || !strings.Contains(mended, `state: whole and sound # kept too`) || strings.Contains(mended, "=-") {
		t.Errorf("not mended: %s", mended)
	}

	if again := b.fix(t); again.Applied || len(again.Plans) != 0 {
		t.Errorf("a second fix had something to do: %+v", again.Plans)
	}

	u, err := b.engine().Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	if u.Plans[0].Status != doctor.PlanApplied {
		t.Fatalf("undo: %s: %s", u.Plans[0].Status, u.Plans[0].Reason)
	}
	if got := b.contents(t); got != broken {
		t.Errorf("undo left\n%s\nwhere there was\n%s", got, broken)
	}
	if _, err := b.engine().Undo(t.Context(), engine.UndoOptions{Consent: agree}); !errors.Is(err, engine.ErrNothingToUndo) {
		t.Errorf("a second undo: %v", err)
	}
}

func TestAPlanIsShownWithoutChangingAnything(t *testing.T) {
	b := newBench(t)
	before := b.contents(t)
	r, err := b.engine().Fix(t.Context(), engine.FixOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Applied || r.After != nil || len(r.Plans) != 1 || !r.Plans[0].Chosen || r.Plans[0].Status != doctor.PlanPlanned {
		t.Errorf("%+v", r)
	}
	if diff := r.Plans[0].Steps[2].Diff; !strings.Contains(diff, "+state: whole and sound") {
		t.Errorf("diff: %q", diff)
	}
	if got := b.contents(t); got != before {
		t.Errorf("changed: %s", got)
	}
	if _, err := os.Stat(b.state); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state directory was made: %v", err)
	}
}

// refused runs a fix that must be refused with the given words, and must change nothing.
func (b bench) refused(t *testing.T, words string, o engine.FixOptions, change ...func(*engine.Options)) {
	t.Helper()
	before := b.contents(t)
	o.Apply = true
	if o.Consent == nil {
		o.Consent = agree
	}
	r, err := b.engine(change...).Fix(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Plans[0]; got.Status != doctor.PlanRefused || !strings.Contains(got.Reason, words) {
		t.Errorf("status %s: %s; want refused with %q", got.Status, got.Reason, words)
	}
	if r.Applied {
		t.Error("the report says that something was applied")
	}
	if got := b.contents(t); got != before {
		t.Errorf("changed: %s", got)
	}
}

func TestAFixIsRefusedWhileSynapseIsConnected(t *testing.T) {
	b := newBench(t)
	session := b.db.Conn(t)
	b.refused(t, "is connected", engine.FixOptions{})
	session.Close(t.Context())
	if r := b.fix(t); r.Plans[0].Status != doctor.PlanApplied {
		t.Errorf("after it was stopped: %s", r.Plans[0].Reason)
	}
}

func TestAFixIsRefusedWhileTheProcessOfThePidFileLives(t *testing.T) {
	b := newBench(t)
	pid := filepath.Join(t.TempDir(), "synapse-homeserver.pid")
	os.WriteFile(pid, []byte("1\n"), 0o600)
	live := func(o *engine.Options) { o.PIDFiles = []string{pid} }
	if command, _ := os.ReadFile("/proc/1/cmdline"); strings.Contains(string(command), "synapse") {
		b.refused(t, "process 1", engine.FixOptions{}, live)
	} else if r := b.fix(t, live); r.Plans[0].Status != doctor.PlanApplied {
		t.Errorf("a process that only inherited the number was taken for Synapse: %s", r.Plans[0].Reason)
	}
}

func TestAFixIsRefusedOnAnotherHomeserversDatabase(t *testing.T) {
	b := newBench(t)
	b.refused(t, "belongs to another homeserver", engine.FixOptions{}, b.whilePlanning(t, `INSERT INTO users VALUES ('@aaa:other.example')`))
}

func TestAFixIsRefusedOnADatabaseWithoutUsers(t *testing.T) {
	b := newBench(t)
	b.refused(t, "has no user", engine.FixOptions{}, b.whilePlanning(t, `DELETE FROM users`))
}

// whilePlanning changes the database after it was examined and before the plan is applied.
func (b bench) whilePlanning(t *testing.T, sql string) func(*engine.Options) {
	check := toyCheck(b.file)
	plan := check.Plan
	check.Plan = func(ctx context.Context, tg *doctor.Target, f []doctor.Finding) ([]doctor.Plan, error) {
		defer b.db.Exec(t, sql)
		return plan(ctx, tg, f)
	}
	return func(o *engine.Options) {
		o.Sources = []doctor.Source{&doctor.Local{PluginName: "toys", Checks: []doctor.Check{check}}}
	}
}

func TestAFixIsRefusedWithoutConsent(t *testing.T) {
	b := newBench(t)
	b.refused(t, "no thanks", engine.FixOptions{Consent: func(context.Context, doctor.PlanResult) error {
		return &engine.Refusal{Reason: "no thanks"}
	}})
	if found := engine.FindInterrupted(b.state); len(found) != 0 {
		t.Errorf("a refusal looks like an interruption: %+v", found)
	}
}

func TestASecondDoctorIsToldWhoIsAtWork(t *testing.T) {
	b := newBench(t)
	r, err := b.engine().Fix(t.Context(), engine.FixOptions{Apply: true, Consent: func(ctx context.Context, _ doctor.PlanResult) error {
		b.refused(t, "another synapse-doctor is at work", engine.FixOptions{})
		elsewhere := b
		elsewhere.state = filepath.Join(t.TempDir(), "other-machine")
		elsewhere.refused(t, "synapse-doctor/", engine.FixOptions{})
		return nil
	}})
	if err != nil || r.Plans[0].Status != doctor.PlanApplied {
		t.Errorf("the first one: %v %+v", err, r.Plans)
	}
}

func TestAFileChangedSinceThePlanIsLeftAloneAndTheRestPutBack(t *testing.T) {
	b := newBench(t)
	r, err := b.engine().Fix(t.Context(), engine.FixOptions{Apply: true, Consent: func(context.Context, doctor.PlanResult) error {
		return os.WriteFile(b.file, []byte("state: broken by hand"), 0o640)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Plans[0]; got.Status != doctor.PlanFailed || !strings.Contains(got.Reason, "has changed since") || !strings.Contains(got.Reason, "put back") {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
	want := []doctor.StepStatus{doctor.StepUndone, doctor.StepUndone, doctor.StepFailed, doctor.StepSkipped, doctor.StepSkipped}
	for i, s := range r.Plans[0].Steps {
		if s.Status != want[i] {
			t.Errorf("step %d is %s, want %s", i, s.Status, want[i])
		}
	}
	if got := b.contents(t); !strings.Contains(got, "3=-30") || !strings.Contains(got, "broken by hand") {
		t.Errorf("left: %s", got)
	}
}

func TestAGuardThatNoLongerHoldsRollsEverythingBack(t *testing.T) {
	b := newBench(t)
	r, err := b.engine().Fix(t.Context(), engine.FixOptions{Apply: true, Consent: func(context.Context, doctor.PlanResult) error {
		b.db.Exec(t, `UPDATE toy SET value = -abs(value)`)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Plans[0]; got.Status != doctor.PlanRefused || !strings.Contains(got.Reason, "more negative values than were planned") {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
	if got := b.contents(t); !strings.Contains(got, "3=-30") || !strings.Contains(got, "log 0") {
		t.Errorf("left: %s", got)
	}
}

func TestMoreRowsThanPlannedAreRolledBack(t *testing.T) {
	b := newBench(t)
	check := toyCheck(b.file)
	plan := check.Plan
	check.Plan = func(ctx context.Context, tg *doctor.Target, f []doctor.Finding) ([]doctor.Plan, error) {
		plans, err := plan(ctx, tg, f)
		plans[0].Steps[1].SQL.MaxRows, plans[0].Steps[1].SQL.Save = 1, nil
		return plans, err
	}
	r := b.fix(t, func(o *engine.Options) {
		o.Sources = []doctor.Source{&doctor.Local{PluginName: "toys", Checks: []doctor.Check{check}}}
	})
	if got := r.Plans[0]; got.Status != doctor.PlanFailed || !strings.Contains(got.Reason, "2 rows where at most 1") {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
	if got := b.contents(t); !strings.Contains(got, "3=-30") || !strings.Contains(got, "log 0") {
		t.Errorf("left: %s", got)
	}
}

func TestAnEditKeepsModeLinkAndTheFileBehindIt(t *testing.T) {
	b := newBench(t)
	real := b.file + ".real"
	if err := os.Rename(b.file, real); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, b.file); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(real, 0o604); err != nil {
		t.Fatal(err)
	}
	if r := b.fix(t); r.Plans[0].Status != doctor.PlanApplied {
		t.Fatal(r.Plans[0].Reason)
	}
	if link, err := os.Readlink(b.file); err != nil || link != real {
		t.Errorf("the link is gone: %v", err)
	}
	if info, err := os.Stat(real); err != nil || info.Mode().Perm() != 0o604 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(real), ".*synapse-doctor*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestUndoRefusesWhereAFileHasBeenEditedSince(t *testing.T) {
	b := newBench(t)
	b.fix(t)
	if err := os.WriteFile(b.file, []byte("state: edited by hand"), 0o640); err != nil {
		t.Fatal(err)
	}
	u, err := b.engine().Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	if got := u.Plans[0]; got.Status == doctor.PlanApplied || !strings.Contains(got.Reason, "changed since") {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
	if got := b.contents(t); !strings.Contains(got, "edited by hand") {
		t.Errorf("left: %s", got)
	}
}

func TestAFixThatDoesNotHelpIsAFailure(t *testing.T) {
	b := newBench(t)
	check := toyCheck(b.file)
	plan := check.Plan
	check.Plan = func(ctx context.Context, tg *doctor.Target, f []doctor.Finding) ([]doctor.Plan, error) {
		plans, err := plan(ctx, tg, f)
		plans[0].Steps = plans[0].Steps[:1] // locks, and mends nothing
		return plans, err
	}
	r := b.fix(t, func(o *engine.Options) {
		o.Sources = []doctor.Source{&doctor.Local{PluginName: "toys", Checks: []doctor.Check{check}}}
	})
	if got := r.Plans[0]; got.Status != doctor.PlanFailed || !strings.Contains(got.Reason, "still found") {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
}

func TestWhatRollbackDoesNotPutBackIsPutBack(t *testing.T) {
	b := newBench(t)
	b.db.Exec(t, `CREATE SEQUENCE toy_seq; SELECT setval('toy_seq', 5)`)
	check := toyCheck(b.file)
	plan := check.Plan
	check.Plan = func(ctx context.Context, tg *doctor.Target, f []doctor.Finding) ([]doctor.Plan, error) {
		plans, err := plan(ctx, tg, f)
		plans[0].Steps = []doctor.Step{
			{Title: "set it", SQL: &doctor.SQLStep{Database: "main", Mode: doctor.ModeGroup, Group: "g", MaxRows: 1, Lasting: true, Statement: `SELECT setval('toy_seq', 50)`,
				Undo: []doctor.UndoSQL{{Statement: `SELECT setval('toy_seq', 5)`, Guard: &doctor.Guard{Query: `SELECT last_value = 50 FROM toy_seq`}}}}},
			{Title: "fail", SQL: &doctor.SQLStep{Database: "main", Mode: doctor.ModeGroup, Group: "g", Statement: `SELECT 1/0`}},
		}
		return plans, err
	}
	r := b.fix(t, func(o *engine.Options) {
		o.Sources = []doctor.Source{&doctor.Local{PluginName: "toys", Checks: []doctor.Check{check}}}
	})
	if got := r.Plans[0]; got.Status != doctor.PlanFailed || !strings.Contains(got.Reason, "22012") {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
	var last int64
	if err := b.db.Conn(t).QueryRow(t.Context(), `SELECT last_value FROM toy_seq`).Scan(&last); err != nil || last != 5 {
		t.Errorf("the sequence stands at %d, %v", last, err)
	}
}

func TestAnInterruptedQuestionChangesNothingAndLeavesNothingToSettle(t *testing.T) {
	b := newBench(t)
	before := b.contents(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := b.engine().Fix(ctx, engine.FixOptions{Apply: true, Consent: func(ctx context.Context, _ doctor.PlanResult) error {
		cancel()
		return ctx.Err()
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if got := b.contents(t); got != before {
		t.Errorf("changed: %s", got)
	}
	if found := engine.FindInterrupted(b.state); len(found) != 0 {
		t.Errorf("%+v", found)
	}
}
