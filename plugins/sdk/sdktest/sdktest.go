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
// [pgtest.Fixture] is a small, sound homeserver, test.example. It has the tables, and of them the columns, that
// synapse-doctor's own checks look at; what else the check looks at is added to it in Setup. This shows what is there:
//
//	less "$(go list -f '{{.Dir}}' github.com/synapse-doctor/synapse-doctor/core/pgtest)/fixture.sql"
//
// Where no PostgreSQL server is installed the test is skipped, and fails under CI=true.
//
// The check runs behind the wire that a plugin's process would use, so that what it says has to survive the journey. In a
// plugin's module its plans are held to the check's Changes, as on an administrator's machine.
//
// With a command line in the environment variable SYNAPSE_DOCTOR_TRY, that is run on each case once it is broken, with -c and
// the homeserver's configuration after it, and nothing is tested: what does an administrator read? "make try" of a new plugin
// does that.
//
//	SYNAPSE_DOCTOR_TRY="synapse-doctor check --dev-plugin $PWD/synapse-doctor-plugin-acme" go test -count=1
//
// Beside core/doctor and plugins/internal/wire the package may import core/engine, core/journal and core/pgtest.
package sdktest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
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
	// Setup makes a sound database of the homeserver test.example: [pgtest.Fixture], or less, and what the check looks at besides.
	Setup string
	Cases []Case
}

// Case is one fault.
type Case struct {
	Name  string
	Break string   // SQL that makes the fault, run as the owner of the database
	Want  []string // every finding at or above info, as "code kind name" (of its object), in any order

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
	if command := os.Getenv(tryWith); command != "" {
		for _, c := range s.Cases {
			t.Run(c.Name, func(t *testing.T) { s.broken(t, c).try(c.Name, command) })
		}
		return
	}
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
	b := s.broken(t, c)
	broken := b.content()
	b.stage = "find"
	b.finds(c.Want)
	b.unchanged("the check", broken)

	b.stage = "plan"
	shown := b.fix(false)
	b.unchanged("showing the plan", broken)
	if _, err := os.Stat(b.state); !errors.Is(err, os.ErrNotExist) {
		b.errorf("showing the plan made the state directory")
	}
	if reason := shown.Before.Checks[0].Reason; reason != "" {
		b.fatalf("%s", reason) // such as a plan that goes beyond what the check declares
	}
	chosen := chosenPlans(shown)
	if c.Plan == "" {
		if len(chosen) > 0 {
			b.errorf("plans %v were made where the case has no Plan", chosen)
		}
		return
	}
	if !slices.Equal(chosen, []string{c.Plan}) {
		b.fatalf("chosen plans %v, want %s", chosen, c.Plan)
	}
	b.stage = "apply"
	applied := b.fix(true)
	if c.Manual {
		b.unchanged("a plan for a person", broken)
		return
	}
	b.isApplied(applied)
	b.stage = "cured"
	b.finds(nil)
	mended := b.content()
	for _, name := range differing(broken, mended) {
		if !slices.Contains(c.Changes, name) {
			b.errorf("the fix changed %s, which the case does not name in Changes", name)
		}
	}
	b.stage = "again"
	if again := b.fix(true); again.Applied || len(again.Plans) > 0 {
		b.errorf("applying again found something to do")
	}
	b.unchanged("applying again", mended)
	b.stage = "undo"
	b.undo(c, broken, mended)
	if !c.Irreversible {
		s.interrupted(t, c, mended)
	}
}

// interrupted applies the plan once for each point at which it can be cut off, and has the next run settle it.
func (s Suite) interrupted(t *testing.T, c Case, mended map[string]string) {
	for n := 1; ; n++ {
		b := s.broken(t, c)
		b.stage = "interrupt"
		point, cut := b.cutOff(n)
		if !cut {
			return
		}
		b.stage = fmt.Sprintf("interrupt, at %q", point)
		b.isApplied(b.fix(true))
		after := b.content()
		if names := differing(mended, after); len(names) > 0 {
			b.errorf("the next run left it otherwise than an undisturbed one:%s", difference(names, mended, after))
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
	stage string // which of the suite's stages this is, for whoever reads what failed
}

func (s Suite) begin(t *testing.T) *bench {
	t.Helper()
	return &bench{t: t, suite: s, stage: "sound",
		db: pgtest.Start(t).Database(t, pgtest.WithSetup(s.Setup)), state: filepath.Join(t.TempDir(), "state")}
}

// broken is a bench on which the case's SQL was run.
func (s Suite) broken(t *testing.T, c Case) *bench {
	t.Helper()
	b := s.begin(t)
	b.stage = "break"
	conn := b.db.Conn(t)
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), c.Break); err != nil {
		b.fatalf("%s%s", err, lackingIn(err.Error()))
	}
	return b
}

func (b *bench) errorf(format string, args ...any) {
	b.t.Helper()
	b.t.Errorf(b.stage+": "+format, args...)
}

func (b *bench) fatalf(format string, args ...any) {
	b.t.Helper()
	b.t.Fatalf(b.stage+": "+format, args...)
}

// lackingIn says what to do about a table or a column that is not there.
func lackingIn(reason string) string {
	if strings.Contains(reason, "(SQLSTATE 42P01)") || strings.Contains(reason, "(SQLSTATE 42703)") {
		return "\nThe database has what Setup makes, and pgtest.Fixture is not all of Synapse's schema: what it lacks goes into Setup."
	}
	return ""
}

// ownModule is synapse-doctor's, whose checks are built in, and bound by nothing that they declare.
const ownModule = "github.com/synapse-doctor/synapse-doctor"

// bound tells whether the check's plans are held to its Changes: always in a plugin's module.
func (s Suite) bound() bool {
	if c := s.Check.Changes; len(c.Databases)+len(c.Tables)+len(c.Files) > 0 {
		return true
	}
	build, ok := debug.ReadBuildInfo()
	return ok && build.Main.Path != "" && build.Main.Path != ownModule
}

func (b *bench) engine(trace func(string)) *engine.Engine {
	source := overWire(b.t, &doctor.Local{PluginName: "sdktest", Version: "test", Checks: []doctor.Check{b.suite.Check}})
	if b.suite.bound() {
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
		b.fatalf("the check is %s: %s%s", c.Status, c.Reason, lackingIn(c.Reason))
	}
	var got []string
	for _, f := range c.Findings {
		got = append(got, f.Code+" "+f.Object.Kind+" "+f.Object.Name)
		if f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" {
			b.errorf("%s of %s lacks its summary, what is observed or expected, or the remedy", f.Code, f.Object.Name)
		}
	}
	want = slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		b.errorf("found\n  %s\nwant\n  %s", listed(got), listed(want))
	}
}

func listed(findings []string) string {
	if len(findings) == 0 {
		return "nothing"
	}
	return strings.Join(findings, "\n  ")
}

func (b *bench) fix(apply bool) *doctor.FixReport {
	b.t.Helper()
	r, err := b.engine(nil).Fix(b.t.Context(), engine.FixOptions{Apply: apply, Consent: agree})
	if err != nil {
		b.fatalf("%v", err)
	}
	return r
}

func (b *bench) isApplied(r *doctor.FixReport) {
	b.t.Helper()
	for _, p := range r.Plans {
		if p.Chosen && p.Status != doctor.PlanApplied {
			b.fatalf("plan %s is %s: %s", p.Plan.ID, p.Status, p.Reason)
		}
	}
}

func (b *bench) undo(c Case, broken, mended map[string]string) {
	b.t.Helper()
	r, err := b.engine(nil).Undo(b.t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil {
		b.fatalf("%v", err)
	}
	if c.Irreversible {
		if r.Plans[0].Status != doctor.PlanRefused {
			b.errorf("undo of what can't be put back is %s", r.Plans[0].Status)
		}
		b.unchanged("a refused undo", mended)
		return
	}
	if p := r.Plans[0]; !p.Plan.Reversible && p.Status == doctor.PlanRefused {
		b.fatalf("the plan is not Reversible (%q): set that, or Irreversible in the case", p.Plan.Irreversible)
	}
	if r.Plans[0].Status != doctor.PlanApplied {
		b.errorf("it is %s: %s", r.Plans[0].Status, r.Plans[0].Reason)
	}
	b.unchanged("apply and undo", broken)
}

func (b *bench) unchanged(by string, before map[string]string) {
	b.t.Helper()
	after := b.content()
	if names := differing(before, after); len(names) > 0 {
		b.errorf("%s changed%s", by, difference(names, before, after))
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
		b.fatalf("%v", thrown)
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
