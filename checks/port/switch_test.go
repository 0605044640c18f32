package port

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// overSection writes the file that --postgres-config names.
func overSection(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "postgres.yaml")
	text := fmt.Sprintf("database:\n  name: psycopg2\n  txn_limit: 10000\n  args:\n    user: %s\n    password: %q # secret\n    dbname: %s\n    host: %s\n    port: %d\n    cp_max: 10\n",
		db.User, db.Password, db.Name, db.Host, db.Port)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// runWith makes an engine for the check on this target.
func runWith(t *testing.T, check doctor.Check, target *doctor.Target, state string) *engine.Engine {
	t.Helper()
	return engine.New(engine.Options{Version: "test", Target: target, StateDir: state,
		Sources: []doctor.Source{&doctor.Local{PluginName: "test", Version: "test", Checks: []doctor.Check{check}}}})
}

func agree(context.Context, doctor.PlanResult) error { return nil }

func TestTheConfigurationIsSwitchedWithItsPasswordAndPutBack(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()))
	file := sqliteFile(t, soundFile)
	config := homeserver(t, file)
	before, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(t.TempDir(), "state")
	target := func() *doctor.Target {
		return &doctor.Target{ServerName: "test.example", ConfigFiles: []string{config}, PostgresConfig: overSection(t, db),
			Databases: []*doctor.Database{postgres(db), sqlite(file, "sqlite")}}
	}
	check := Check
	check.Run = func(_ context.Context, t *doctor.Target, r doctor.Reporter) error {
		if entry := sqliteEntry(t); entry != nil {
			f := stillOnSQLite(t, entry, "")
			f.Database = "main"
			r.Find(f)
		}
		return nil
	}

	shown, err := runWith(t, check, target(), state).Fix(t.Context(), engine.FixOptions{})
	if err != nil || len(shown.Plans) != 1 || shown.Plans[0].Plan.ID != "port/switch" {
		t.Fatalf("%v, plans %+v", err, shown)
	}
	if diff := fmt.Sprintf("%+v", shown.Plans[0].Steps); strings.Contains(diff, db.Password) || !strings.Contains(diff, "psycopg2") {
		t.Errorf("the diff shows %s", diff)
	}
	applied, err := runWith(t, check, target(), state).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
	if err != nil || applied.Plans[0].Status != doctor.PlanApplied {
		t.Fatalf("%v, %+v", err, applied.Plans)
	}
	got, err := synapse.Load(config)
	if err != nil {
		t.Fatal(err)
	}
	e := got.Databases[0]
	if e.Name != synapse.Psycopg2 || e.Args["password"] != db.Password || e.Args["host"] != db.Host || e.Args["database"] != nil || e.TxnLimit != 10000 || e.CPMax != 10 {
		t.Errorf("the section became %+v", e)
	}
	after, _ := os.ReadFile(config)
	if !strings.Contains(string(after), "# the database\ndatabase:\n  name: psycopg2\n") || !strings.HasSuffix(string(after), "\nlog_config: x\n") {
		t.Errorf("the file became\n%s", after)
	}
	undone, err := runWith(t, check, target(), state).Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil || undone.Plans[0].Status != doctor.PlanApplied {
		t.Fatalf("undo: %v, %+v", err, undone)
	}
	if back, _ := os.ReadFile(config); string(back) != string(before) {
		t.Errorf("undone it is\n%s", back)
	}
}

func TestASectionThatTheDoctorDoesNotEditIsWrittenByHand(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()))
	file := sqliteFile(t, soundFile)
	config := filepath.Join(t.TempDir(), "homeserver.yaml")
	if err := os.WriteFile(config, []byte("server_name: test.example\ndatabase: {name: sqlite3, args: {timeout: 1, database: "+file+"}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	target := &doctor.Target{ServerName: "test.example", ConfigFiles: []string{config}, PostgresConfig: overSection(t, db),
		Databases: []*doctor.Database{postgres(db), sqlite(file, "sqlite")}}
	defer target.Close()
	plans, err := Check.Plan(t.Context(), target, []doctor.Finding{stillOnSQLite(target, sqliteEntry(target), "")})
	if err != nil || len(plans) != 1 || !plans[0].Manual() || plans[0].ID != "port/switch" {
		t.Fatalf("%v, %+v", err, plans)
	}
	if text := plans[0].Steps[0].Manual.Text; !strings.Contains(text, "does not edit "+config) || strings.Contains(text, db.Password) {
		t.Errorf("it says %s", text)
	}
	if f := stillOnSQLite(target, sqliteEntry(target), "process 7 (python)"); f.Fixable || !strings.Contains(f.Remedy, "process 7") {
		t.Errorf("while the file is open: %+v", f)
	}
}
