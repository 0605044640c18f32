package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// needing is a check that finds nothing, and a connection check that finds what it is told.
func needing(connectionFinds bool, needs ...doctor.Needs) doctor.Source {
	silent := func(context.Context, *doctor.Target, doctor.Reporter) error { return nil }
	checks := []doctor.Check{{ID: "connection", Needs: doctor.NeedsPostgresEntry, Codes: []doctor.Code{{ID: "connection/refused"}},
		Run: func(_ context.Context, _ *doctor.Target, r doctor.Reporter) error {
			if connectionFinds {
				r.Find(doctor.Finding{Code: "connection/refused", Severity: doctor.Error})
			}
			return nil
		}}}
	for i, n := range needs {
		checks = append(checks, doctor.Check{ID: fmt.Sprintf("c%d", i), Needs: n, Run: silent})
	}
	return &doctor.Local{PluginName: "p", Checks: checks}
}

func statuses(t *testing.T, target *doctor.Target, source doctor.Source, sel engine.Selection) string {
	t.Helper()
	r, err := engine.New(engine.Options{Target: target, Sources: []doctor.Source{source}}).Check(t.Context(), sel)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, c := range r.Checks {
		s := c.ID + "=" + c.Status.String()
		if c.NeedFailed {
			s += "(failed: " + c.Reason + ")"
		} else if c.Reason != "" {
			s += "(" + c.Reason + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, "\n")
}

func contains(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%q is not in\n%s", w, got)
		}
	}
}

// closedPort is an address at which nobody listens.
func closedPort(t *testing.T) (host, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	host, port, _ = net.SplitHostPort(l.Addr().String())
	return host, port
}

func unreachable(t *testing.T) *doctor.Target {
	host, port := closedPort(t)
	return &doctor.Target{ServerName: "test.example", ConfigFiles: []string{"homeserver.yaml"}, Databases: []*doctor.Database{{Label: "main", Engine: doctor.Postgres,
		Settings: map[string]string{"host": host, "port": port, "dbname": "synapse", "user": "synapse_user", "sslmode": "disable"}}}}
}

func TestWithoutAConnectionWhatNeedsItIsSkippedAndTheConnectionCheckSaysWhy(t *testing.T) {
	got := statuses(t, unreachable(t), needing(true, doctor.NeedsPostgres, doctor.NeedsSynapse, doctor.NeedsConfig, doctor.NeedsSQLite, doctor.NeedsAdmin), engine.Selection{})
	contains(t, got, "connection=error", "c0=skipped(failed: no connection to database", "see connection", "c1=skipped(failed:", "c2=ok",
		"c3=skipped(the homeserver does not use SQLite)", "c4=skipped(needs an administrator's connection")
}

func TestASkipThatNoFindingExplainsIsUnknown(t *testing.T) {
	got := statuses(t, unreachable(t), needing(false, doctor.NeedsPostgres), engine.Selection{})
	contains(t, got, "connection=ok", "c0=unknown")
	got = statuses(t, unreachable(t), needing(false, doctor.NeedsPostgres), engine.Selection{Wanted: []string{"c0"}})
	contains(t, got, "c0=skipped(failed:")
}

func TestASQLiteHomeserverSkipsWhatIsForPostgreSQL(t *testing.T) {
	target := &doctor.Target{ConfigFiles: []string{"x"}, Databases: []*doctor.Database{{Label: "main", Engine: doctor.SQLite, Path: "homeserver.db"}}}
	got := statuses(t, target, needing(false, doctor.NeedsPostgres, doctor.NeedsSQLite), engine.Selection{})
	contains(t, got, "connection=skipped(the homeserver does not use PostgreSQL)", "c0=skipped(the homeserver does not use PostgreSQL)", "c1=ok")
	if strings.Contains(got, "failed") {
		t.Errorf("what does not apply counts as failed:\n%s", got)
	}
}

func TestOneDatabaseOfTwoThatCantBeReachedMakesTheCheckUnknown(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(toySchema))
	two := target(db)
	two.Databases[0].DataStores = []string{"main"}
	broken := unreachable(t).Databases[0]
	broken.Label, broken.DataStores = "state", []string{"state"}
	two.Databases = append(two.Databases, broken)
	got := statuses(t, two, needing(true, doctor.NeedsSynapse), engine.Selection{})
	contains(t, got, "c0=unknown(not wholly examined: no connection to database")
}

func TestAnotherHomeserversDatabaseIsNotExaminedAsOurs(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(toySchema))
	other := target(db)
	other.ServerName = "other.example"
	got := statuses(t, other, needing(true, doctor.NeedsPostgres, doctor.NeedsSynapse), engine.Selection{})
	contains(t, got, "c0=ok", "c1=skipped(failed:", "belongs to another homeserver than other.example")
}

func TestASourceThatCantBeAskedIsInTheReport(t *testing.T) {
	e := engine.New(engine.Options{Target: &doctor.Target{}, Sources: []doctor.Source{mute{}, needing(false)}})
	r, err := e.Check(t.Context(), engine.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Plugins[0]; p.Status != doctor.StatusUnknown || p.Reason != "it does not start" {
		t.Errorf("%+v", p)
	}
	if len(r.Checks) != 1 {
		t.Errorf("the other plugin's checks: %+v", r.Checks)
	}
}

// mute is a source that can't be asked anything.
type mute struct{ doctor.Source }

func (mute) Name() string { return "mute" }
func (mute) Describe(context.Context) (doctor.Description, error) {
	return doctor.Description{}, errors.New("it does not start")
}

func TestAnIgnoredFindingIsShownAndAlarmsNobody(t *testing.T) {
	source := &doctor.Local{PluginName: "p", Checks: []doctor.Check{{ID: "c", Codes: []doctor.Code{{ID: "c/one"}, {ID: "c/two"}},
		Run: func(_ context.Context, _ *doctor.Target, r doctor.Reporter) error {
			r.Find(doctor.Finding{Code: "c/one", Severity: doctor.Error, Fixable: true})
			r.Find(doctor.Finding{Code: "c/two", Severity: doctor.Info, Fixable: true})
			return nil
		},
		Plan: func(_ context.Context, _ *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
			var plans []doctor.Plan
			for _, f := range findings {
				plans = append(plans, doctor.Plan{ID: strings.Replace(f.Code, "c/", "c/mend-", 1), Covers: []doctor.FindingKey{f.Key()}, Title: "T", Risk: doctor.Safe,
					Expects: doctor.ExpectNone, Steps: []doctor.Step{{Title: "S", Manual: &doctor.ManualStep{Text: "do it"}}}})
			}
			return plans, nil
		}}}}
	o := engine.Options{Target: &doctor.Target{}, Sources: []doctor.Source{source}, StateDir: t.TempDir(), Ignored: func(f doctor.Finding) *doctor.Ignored {
		if f.Code == "c/one" {
			return &doctor.Ignored{Why: "it is so"}
		}
		return nil
	}}
	r, err := engine.New(o).Check(t.Context(), engine.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Checks[0]; c.Status != doctor.StatusInfo || len(c.Findings) != 2 || c.Findings[0].Ignored == nil || c.Findings[0].Ignored.Why != "it is so" || c.Findings[1].Ignored != nil {
		t.Errorf("%+v", c)
	}
	for wanted, want := range map[string]string{"c": "c/mend-two", "c/one": "c/mend-one"} {
		r, err := engine.New(o).Fix(t.Context(), engine.FixOptions{Selection: engine.Selection{Wanted: []string{wanted}}})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Plans) != 1 || r.Plans[0].Plan.ID != want {
			t.Errorf("fix %s: %+v", wanted, r.Plans)
		}
	}
}
