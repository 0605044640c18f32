// Package sdktest takes a check through everything that is wanted of it, on a real PostgreSQL server.
//
// Give it the SQL that makes a sound database, and for each fault the SQL that breaks it and the findings that are
// expected. [Suite.Run] then always tests the same things, each on a database of its own:
//
//	sound      the check is silent
//	break      the case's SQL is run
//	find       the check finds exactly what is wanted, and each finding says what is there, what ought to be, and what to do
//	plan       the plan is shown, and nothing has changed
//	apply      it is carried out
//	cured      the check is silent again, and no table changed but those that the case names
//	again      applying once more finds nothing to do
//	undo       everything is as it was when it was broken
//	interrupt  cut off at every point in turn, the next run finishes it or puts it back
//
// A whole test:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
//	func TestGreeting(t *testing.T) {
//		sdktest.Suite{
//			Check: greeting.Check,
//			Setup: pgtest.Fixture() + `CREATE TABLE greetings (room_id text PRIMARY KEY, words text)`,
//			Cases: []sdktest.Case{{
//				Name:    "a room is not greeted",
//				Break:   `INSERT INTO greetings VALUES ('!room1:test.example', '')`,
//				Want:    []string{"greeting/no-words room !room1:test.example"},
//				Plan:    "greeting/say-hello",
//				Changes: []string{"greetings"},
//			}},
//		}.Run(t)
//	}
//
// [pgtest.Fixture] is a small, sound homeserver, test.example; what else the check looks at is added to it. Where no
// PostgreSQL server is installed the test is skipped, and fails under CI=true.
//
// The check runs behind the wire that a plugin's process would use, so that what it says has to survive the journey. A check
// that declares Changes is taken for a third party's: its plans are held to them, here as on an administrator's machine.
// Beside core/doctor and plugins/internal/wire the package may import core/engine, core/journal and core/pgtest.
package sdktest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// Suite exercises one check.
type Suite struct {
	Check doctor.Check
	// Setup makes a sound database of the homeserver test.example: [pgtest.Fixture], or less.
	Setup string
	Cases []Case
}

// Case is one fault.
type Case struct {
	Name  string
	Break string   // SQL that makes the fault, run as the owner of the database
	Want  []string // every finding at or above info, as "code kind name", in any order

	// Plan is the id of the plan that is chosen; empty when the check has none for this fault.
	Plan string
	// Manual: the plan has only steps for a person, so that nothing is applied.
	Manual bool
	// Changes lists the tables and sequences that the plan may change, by bare name.
	Changes []string
	// Irreversible: undo can't put it back, and says so.
	Irreversible bool
}

// Run runs the suite's cases as subtests.
func (s Suite) Run(t *testing.T) {
	t.Run("sound", func(t *testing.T) {
		b := s.begin(t)
		before := b.content()
		b.finds(nil)
		b.unchanged("the check", before)
	})
	for _, c := range s.Cases {
		t.Run(c.Name, func(t *testing.T) { s.run(t, c) })
	}
}

func (s Suite) run(t *testing.T, c Case) {
	b := s.begin(t)
	b.db.Exec(t, c.Break)
	broken := b.content()
	b.finds(c.Want)
	b.unchanged("the check", broken)

	shown := b.fix(false)
	b.unchanged("showing the plan", broken)
	if _, err := os.Stat(b.state); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("showing the plan made the state directory")
	}
	if reason := shown.Before.Checks[0].Reason; reason != "" {
		t.Fatal(reason) // such as a plan that goes beyond what the check declares
	}
	chosen := chosenPlans(shown)
	if c.Plan == "" {
		if len(chosen) > 0 {
			t.Errorf("plans %v were made where none was expected", chosen)
		}
		return
	}
	if !slices.Equal(chosen, []string{c.Plan}) {
		t.Fatalf("chosen plans %v, want %s", chosen, c.Plan)
	}
	applied := b.fix(true)
	if c.Manual {
		b.unchanged("a plan for a person", broken)
		return
	}
	b.isApplied(applied)
	b.finds(nil)
	mended := b.content()
	for _, name := range differing(broken, mended) {
		if !slices.Contains(c.Changes, name) {
			t.Errorf("the fix changed %s", name)
		}
	}
	if again := b.fix(true); again.Applied || len(again.Plans) > 0 {
		t.Errorf("applying again found something to do")
	}
	b.unchanged("applying again", mended)
	b.undo(c, broken, mended)
	if !c.Irreversible {
		s.interrupted(t, c, mended)
	}
}

// interrupted applies the plan once for each point at which it can be cut off, and has the next run settle it.
func (s Suite) interrupted(t *testing.T, c Case, mended map[string]string) {
	for n := 1; ; n++ {
		b := s.begin(t)
		b.db.Exec(t, c.Break)
		point, cut := b.cutOff(n)
		if !cut {
			return
		}
		b.isApplied(b.fix(true))
		if got := differing(b.content(), mended); len(got) > 0 {
			t.Errorf("cut off at %q, the next run left %v otherwise than an undisturbed one", point, got)
		}
		b.finds(nil)
	}
}

// bench is one database with a state directory of its own.
type bench struct {
	t     *testing.T
	suite Suite
	db    *pgtest.DB
	state string
}

func (s Suite) begin(t *testing.T) *bench {
	return &bench{t: t, suite: s, db: pgtest.Start(t).Database(t, pgtest.WithSetup(s.Setup)), state: filepath.Join(t.TempDir(), "state")}
}

func (b *bench) engine(trace func(string)) *engine.Engine {
	source := overWire(b.t, &doctor.Local{PluginName: "sdktest", Version: "test", Checks: []doctor.Check{b.suite.Check}})
	if c := b.suite.Check.Changes; len(c.Databases)+len(c.Tables)+len(c.Files) > 0 {
		source = guest{source, &doctor.Terms{TrustDatabase: true, AllowFix: true}}
	}
	return engine.New(engine.Options{Version: "test", Target: b.target(), Sources: []doctor.Source{source}, StateDir: b.state, Trace: trace})
}

func (b *bench) target() *doctor.Target {
	return &doctor.Target{ServerName: "test.example", Databases: []*doctor.Database{{
		Label: "main", Engine: doctor.Postgres, DataStores: []string{"main", "state"},
		Settings: map[string]string{"host": b.db.Host, "port": fmt.Sprint(b.db.Port), "dbname": b.db.Name, "user": b.db.User, "password": b.db.Password, "sslmode": "disable"},
	}}}
}

// finds runs the check and compares what it found.
func (b *bench) finds(want []string) {
	b.t.Helper()
	r, err := b.engine(nil).Check(b.t.Context(), engine.Selection{})
	if err != nil {
		b.t.Fatal(err)
	}
	c := r.Checks[0]
	if c.Status == doctor.StatusUnknown || c.Status == doctor.StatusSkipped {
		b.t.Fatalf("the check is %s: %s", c.Status, c.Reason)
	}
	var got []string
	for _, f := range c.Findings {
		got = append(got, f.Code+" "+f.Object.Kind+" "+f.Object.Name)
		if f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" {
			b.t.Errorf("%s of %s lacks its summary, what is observed or expected, or the remedy", f.Code, f.Object.Name)
		}
	}
	want = slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		b.t.Errorf("found\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func (b *bench) fix(apply bool) *doctor.FixReport {
	b.t.Helper()
	r, err := b.engine(nil).Fix(b.t.Context(), engine.FixOptions{Apply: apply, Consent: agree})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bench) isApplied(r *doctor.FixReport) {
	b.t.Helper()
	for _, p := range r.Plans {
		if p.Chosen && p.Status != doctor.PlanApplied {
			b.t.Fatalf("plan %s is %s: %s", p.Plan.ID, p.Status, p.Reason)
		}
	}
}

func (b *bench) undo(c Case, broken, mended map[string]string) {
	b.t.Helper()
	r, err := b.engine(nil).Undo(b.t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil {
		b.t.Fatalf("undo: %v", err)
	}
	if c.Irreversible {
		if r.Plans[0].Status != doctor.PlanRefused {
			b.t.Errorf("undo of what can't be put back is %s", r.Plans[0].Status)
		}
		b.unchanged("a refused undo", mended)
		return
	}
	if r.Plans[0].Status != doctor.PlanApplied {
		b.t.Errorf("undo is %s: %s", r.Plans[0].Status, r.Plans[0].Reason)
	}
	b.unchanged("apply and undo", broken)
}

func (b *bench) unchanged(by string, before map[string]string) {
	b.t.Helper()
	if changed := differing(before, b.content()); len(changed) > 0 {
		b.t.Errorf("%s changed %v", by, changed)
	}
}

// errCut ends an apply as a kill would: no step after it is recorded or carried out.
var errCut = errors.New("cut off")

// cutOff applies the plan and stops at the n-th point; cut is false when there is no such point.
func (b *bench) cutOff(n int) (point string, cut bool) {
	b.t.Helper()
	seen := 0
	done := make(chan any)
	go func() {
		var thrown any
		defer func() { done <- thrown }()
		defer func() { thrown = recover() }()
		_, err := b.engine(func(p string) {
			if seen++; seen == n {
				point = p
				panic(errCut)
			}
		}).Fix(context.WithoutCancel(b.t.Context()), engine.FixOptions{Apply: true, Consent: agree})
		if err != nil {
			panic(err)
		}
	}()
	switch thrown := <-done; thrown {
	case nil:
		return "", false
	case errCut:
		return point, true
	default:
		b.t.Fatal(thrown)
		return "", false
	}
}

func agree(context.Context, doctor.PlanResult) error { return nil }

func chosenPlans(r *doctor.FixReport) []string {
	var ids []string
	for _, p := range r.Plans {
		if p.Chosen {
			ids = append(ids, p.Plan.ID)
		}
	}
	return ids
}
