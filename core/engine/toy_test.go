package engine_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// toySchema is just enough of a homeserver for the gates, and a table of which negative values are the fault.
const toySchema = `
CREATE TABLE schema_version (version integer NOT NULL);
INSERT INTO schema_version VALUES (94);
CREATE TABLE users (name text PRIMARY KEY);
INSERT INTO users VALUES ('@alice:test.example'), ('@zoe:test.example');
CREATE TABLE toy (id bigint PRIMARY KEY, value bigint NOT NULL, note text);
INSERT INTO toy SELECT n, n * 10, 'row ' || n FROM generate_series(1, 20) n;
CREATE TABLE toy_log (id bigint PRIMARY KEY);
`

// breakToy makes the fault that the toy check finds in the database.
const breakToy = `UPDATE toy SET value = -value WHERE id IN (3, 7)`

// toyCheck finds negative values in toy, and the word broken in a file. Its plan mends both: a transaction, an edit, a
// second transaction, so that a kill can fall between any two of them.
func toyCheck(file string) doctor.Check {
	return doctor.Check{
		ID: "toy", Title: "toys are whole", Why: "A broken toy makes a child cry.",
		Needs: doctor.NeedsSynapse,
		Codes: []doctor.Code{{ID: "toy/negative", Title: "a value is negative", Severity: doctor.Error}},
		Run: func(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
			return t.Main().Read(ctx, func(tx pgx.Tx) error {
				var n int
				if err := tx.QueryRow(ctx, `SELECT count(*) FROM toy WHERE value < 0`).Scan(&n); err != nil {
					return err
				}
				text, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				if n > 0 || strings.Contains(string(text), "broken") {
					r.Find(doctor.Finding{Code: "toy/negative", Severity: doctor.Error, Object: doctor.Object{Kind: "table", Name: "toy"},
						Summary: fmt.Sprintf("%d values of toy are negative", n), Fixable: true})
				}
				return nil
			})
		},
		Plan: func(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			sum := sha256.Sum256(text)
			plan := doctor.Plan{
				ID: "toy/mend", Covers: []doctor.FindingKey{findings[0].Key()}, Title: "make every value positive", Risk: doctor.Careful,
				Expects: doctor.ExpectSynapse, Database: "main", Requires: []doctor.Requirement{doctor.RequireStopped}, Reversible: true, UndoOnFailure: true,
				Steps: []doctor.Step{
					{Title: "lock toy", SQL: &doctor.SQLStep{Database: "main", Statement: `LOCK TABLE toy IN SHARE ROW EXCLUSIVE MODE NOWAIT`, Mode: doctor.ModeGroup, Group: "mend"}},
					{Title: "turn the values", SQL: &doctor.SQLStep{Database: "main", Mode: doctor.ModeGroup, Group: "mend", MaxRows: 5,
						Statement: `UPDATE toy SET value = -value WHERE value < $1`, Args: []doctor.Value{{V: int64(0)}},
						Guard: &doctor.Guard{Query: `SELECT count(*) < 5 FROM toy WHERE value < 0`, Else: "there are more negative values than were planned on"},
						Save:  &doctor.Save{Table: "toy", Query: `SELECT row_to_json(t)::text FROM toy t WHERE value < 0`},
						Undo: []doctor.UndoSQL{{ForEachSaved: true,
							Statement: `UPDATE toy SET value = old.value FROM json_populate_record(NULL::toy, $1::json) old WHERE toy.id = old.id`}}}},
				},
			}
			if at := strings.Index(string(text), "broken"); at >= 0 {
				plan.Steps = append(plan.Steps, doctor.Step{Title: "mend the file", EditFile: &doctor.EditFileStep{Path: file, Before: hex.EncodeToString(sum[:]), Format: "yaml",
					Splices: []doctor.Splice{{Offset: int64(at), Old: []byte("broken"), New: []byte("whole and sound")}}}})
			}
			plan.Steps = append(plan.Steps,
				doctor.Step{Title: "log it", SQL: &doctor.SQLStep{Database: "main", Mode: doctor.ModeAlone, MaxRows: 1,
					Statement: `INSERT INTO toy_log VALUES (1)`, Undo: []doctor.UndoSQL{{Statement: `DELETE FROM toy_log WHERE id = 1`}}}},
				doctor.Step{Title: "look", Probe: &doctor.ProbeStep{Database: "main", Holds: &doctor.Guard{Query: `SELECT count(*) = 0 FROM toy WHERE value < 0`}}})
			return []doctor.Plan{plan}, nil
		},
	}
}

// bench is a broken toy homeserver.
type bench struct {
	db    *pgtest.DB
	file  string
	state string
	admin string // the server's socket, for the toy that shuts its database
}

func newBench(t *testing.T) bench {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(toySchema))
	db.Exec(t, breakToy)
	dir := t.TempDir()
	b := bench{db: db, file: filepath.Join(dir, "toy.yaml"), state: filepath.Join(dir, "state")}
	if err := os.WriteFile(b.file, []byte("# kept\r\nstate: broken # kept too"), 0o640); err != nil {
		t.Fatal(err)
	}
	return b
}

func target(db *pgtest.DB) *doctor.Target {
	return &doctor.Target{ServerName: "test.example", Databases: []*doctor.Database{{
		Label: "main", Engine: doctor.Postgres, DataStores: []string{"main", "state"},
		Settings: pgdb.Settings{"host": db.Host, "port": fmt.Sprint(db.Port), "dbname": db.Name, "user": db.User, "password": db.Password},
	}}}
}

func (b bench) engine(change ...func(*engine.Options)) *engine.Engine {
	o := engine.Options{Version: "test", Target: target(b.db), StateDir: b.state,
		Sources: []doctor.Source{&doctor.Local{PluginName: "toys", Checks: []doctor.Check{toyCheck(b.file)}}}}
	if b.admin != "" {
		o.Target.Admin = &doctor.Database{Label: "admin", Engine: doctor.Postgres,
			Settings: pgdb.Settings{"host": b.admin, "port": fmt.Sprint(b.db.Port), "user": "postgres", "dbname": b.db.Name}}
		o.Sources = []doctor.Source{&doctor.Local{PluginName: "toys", Checks: []doctor.Check{shutToyCheck()}}}
	}
	for _, f := range change {
		f(&o)
	}
	return engine.New(o)
}

func agree(context.Context, doctor.PlanResult) error { return nil }

func (b bench) fix(t *testing.T, change ...func(*engine.Options)) *doctor.FixReport {
	t.Helper()
	r, err := b.engine(change...).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// state is all that the plan may change.
func (b bench) contents(t *testing.T) string {
	t.Helper()
	c := b.db.Conn(t)
	var rows string
	if err := c.QueryRow(t.Context(), `SELECT (SELECT string_agg(format('%s=%s', id, value), ' ' ORDER BY id) FROM toy) || ' log ' || (SELECT count(*) FROM toy_log)`).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	c.Close(t.Context())
	text, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(b.file)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%s\n%q %v %d:%d", rows, text, info.Mode(), owner.Uid, owner.Gid)
}

func TestMain(m *testing.M) {
	if os.Getenv(victimEnv) != "" {
		victim()
		return
	}
	pgtest.Main(m)
}
