package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// chunkToy is a toy whose plan turns the values one after another, and stops between two of them when it is asked to.
func chunkToy(afterOne func()) doctor.Check {
	c := toyCheck("")
	c.Run = func(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
		n, err := negative(ctx, t)
		if n > 0 {
			r.Find(doctor.Finding{Code: "toy/negative", Severity: doctor.Error, Object: doctor.Object{Kind: "table", Name: "toy"}, Summary: "values are negative", Fixable: true})
		}
		return err
	}
	c.Plan = func(_ context.Context, _ *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
		return []doctor.Plan{{
			ID: "toy/chunks", Covers: []doctor.FindingKey{findings[0].Key()}, Title: "make every value positive", Risk: doctor.Careful,
			Expects: doctor.ExpectSynapse, Database: "main", Irreversible: "it is a toy", Resumes: true,
			Steps: []doctor.Step{{Title: "turn the values", Operation: &doctor.OperationStep{Name: "chunks", Stops: true, Effects: doctor.Effects{Tables: []string{"toy"}}, Resumes: "it goes on"}}},
		}}, nil
	}
	c.Operations = map[string]doctor.OperationFunc{"chunks": func(ctx context.Context, t *doctor.Target, _ doctor.OperationStep, _ string, h doctor.OperationHost) error {
		for n := 1; n > 0; {
			if err := write(ctx, t, `UPDATE toy SET value = -value WHERE id = (SELECT min(id) FROM toy WHERE value < 0)`); err != nil {
				return err
			}
			afterOne()
			select {
			case <-h.Stopping():
				return doctor.Stopped("Run it again.")
			default:
			}
			var err error
			if n, err = negative(ctx, t); err != nil {
				return err
			}
		}
		h.Document("report.md", "# Half")
		h.Document("../report.md", "# Turned, with the password "+t.Main().Settings["password"]+"\n")
		return nil
	}}
	return c
}

func TestAnOperationThatIsAskedToStopGoesOnInTheNextRunAndItsReportIsKept(t *testing.T) {
	b := newBench(t)
	stopper := &engine.Stopper{}
	if stopper.Stop() {
		t.Error("there is nothing to stop")
	}
	told := 0
	stopper.Asked(func() { told++ })
	with := func(afterOne func()) func(*engine.Options) {
		return func(o *engine.Options) {
			o.Stopper = stopper
			o.Redactor = doctor.NewRedactor([]string{b.db.Password}, nil)
			o.Sources = []doctor.Source{&doctor.Local{PluginName: "toys", Checks: []doctor.Check{chunkToy(afterOne)}}}
		}
	}
	r := b.fix(t, with(func() {
		if !stopper.Stop() || stopper.Stop() {
			t.Error("it is asked once")
		}
	}))
	p := r.Plans[0]
	if p.Status != doctor.PlanFailed || !strings.Contains(p.Reason, "stopped, as it was asked to. Run it again.") || strings.Contains(p.Reason, "undo") || told != 1 {
		t.Fatalf("%s: %s; told %d times", p.Status, p.Reason, told)
	}
	if got := b.contents(t); !strings.Contains(got, "3=30 4=40 5=50 6=60 7=-70") {
		t.Fatalf("one chunk, and no more: %s", got)
	}
	if found := engine.FindInterrupted(b.state); len(found) != 1 {
		t.Errorf("it is not known as interrupted: %v", found)
	}
	b.fix(t, with(func() {}))
	if got := b.contents(t); !strings.Contains(got, "7=70") {
		t.Fatal(got)
	}
	if found := engine.FindInterrupted(b.state); len(found) != 0 {
		t.Errorf("it is settled: %v", found)
	}
	reports, err := filepath.Glob(filepath.Join(b.state, "reports", "*"))
	if err != nil || len(reports) != 1 || !strings.HasSuffix(reports[0], "-report.md") {
		t.Fatalf("%q, %v", reports, err)
	}
	text, err := os.ReadFile(reports[0])
	if err != nil || string(text) != "# Turned, with the password "+doctor.Masked+"\n" {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(reports[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if leftover, _ := filepath.Glob(filepath.Join(b.state, "reports", ".*")); len(leftover) > 0 {
		t.Error(leftover)
	}
}

// The configured password comes into a file as it stands between double quotes, and into nothing else.
func TestAConfiguredPasswordIsFilledIntoAFile(t *testing.T) {
	b := newBench(t)
	password := `p"\ ü&1`
	b.db.AdminExec(t, fmt.Sprintf(`ALTER ROLE %q PASSWORD '%s'`, b.db.User, password))
	defer b.db.AdminExec(t, fmt.Sprintf(`ALTER ROLE %q PASSWORD '%s'`, b.db.User, b.db.Password)) // the role is that of other tests, too
	c := toyCheck(b.file)
	plan := c.Plan
	c.Plan = func(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
		plans, err := plan(ctx, t, findings)
		for i := range plans[0].Steps {
			if f := plans[0].Steps[i].EditFile; f != nil {
				f.Configured = "main"
				f.Splices[0].New = []byte(`whole
password: "` + doctor.Masked + `"`)
			}
		}
		return plans, err
	}
	r := b.fix(t, func(o *engine.Options) {
		o.Target.Main().Settings["password"] = password
		o.Redactor = doctor.NewRedactor([]string{password}, nil)
		o.Sources = []doctor.Source{&doctor.Local{PluginName: "toys", Checks: []doctor.Check{c}}}
	})
	if p := r.Plans[0]; p.Status != doctor.PlanApplied || strings.Contains(fmt.Sprint(r), `p"`) || strings.Contains(fmt.Sprint(r), `p\"`) {
		t.Fatalf("%s: %s %+v", p.Status, p.Reason, p.Steps)
	}
	text, err := os.ReadFile(b.file)
	if want := `password: "p\"\\ ü\u00261"`; err != nil || !strings.Contains(string(text), want) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestAPortIsNotWhatAPlanCallsNotEmpty(t *testing.T) {
	b := newBench(t)
	expects := func(o *engine.Options) {
		c := toyCheck(b.file)
		plan := c.Plan
		c.Plan = func(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
			plans, err := plan(ctx, t, findings)
			plans[0].Expects = doctor.ExpectEmpty
			return plans, err
		}
		o.Sources = []doctor.Source{&doctor.Local{PluginName: "toys", Checks: []doctor.Check{c}}}
	}
	if p := b.fix(t, expects).Plans[0]; p.Status != doctor.PlanRefused || !strings.Contains(p.Reason, "is not empty, as the plan expects") {
		t.Fatalf("%s: %s", p.Status, p.Reason)
	}
	b.db.Exec(t, `CREATE SCHEMA synapse_doctor; CREATE TABLE synapse_doctor.port ()`)
	r := b.fix(t, expects)
	if len(r.Plans) == 0 {
		t.Fatalf("%+v", r.Before.Checks)
	}
	if p := r.Plans[0]; p.Status != doctor.PlanApplied {
		t.Fatalf("%s: %s", p.Status, p.Reason)
	}
}

func negative(ctx context.Context, t *doctor.Target) (n int, err error) {
	err = t.Main().Read(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT count(*) FROM toy WHERE value < 0`).Scan(&n)
	})
	return n, err
}

func write(ctx context.Context, t *doctor.Target, sql string) error {
	c, err := pgdb.Connect(ctx, t.Main().Settings, t.Main().Options())
	if err != nil {
		return err
	}
	defer pgdb.Close(c)
	_, err = c.Exec(ctx, sql)
	return err
}
