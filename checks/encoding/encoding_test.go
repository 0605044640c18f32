package encoding_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/checks/encoding"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func target(db *pgtest.DB) *doctor.Target {
	return &doctor.Target{ServerName: "test.example", Databases: []*doctor.Database{{
		Label: "main", Engine: doctor.Postgres, Meets: doctor.NeedsPostgres,
		Settings: pgdb.Settings{"host": db.Host, "port": fmt.Sprint(db.Port), "user": db.User, "password": db.Password, "dbname": db.Name},
	}}}
}

// collector is a Reporter.
type collector []doctor.Finding

func (c *collector) Find(f doctor.Finding)    { *c = append(*c, f) }
func (c *collector) Progress(doctor.Progress) {}
func (c *collector) Covered(string)           {}
func (c *collector) Measure(doctor.Measure)   {}

// find runs the check and wants these findings: code, kind and name of the object.
func find(t *testing.T, db *pgtest.DB, want ...string) []doctor.Finding {
	t.Helper()
	target := target(db)
	defer target.Close()
	var found collector
	if err := encoding.Check.Run(t.Context(), target, &found); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range found {
		got = append(got, f.Code+" "+f.Object.Kind+" "+f.Object.Name)
	}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Fatalf("found %q, want %q", got, want)
	}
	return found
}

func plans(t *testing.T, db *pgtest.DB, findings []doctor.Finding) []doctor.Plan {
	t.Helper()
	target := target(db)
	defer target.Close()
	plans, err := encoding.Check.Plan(t.Context(), target, findings)
	if err != nil {
		t.Fatal(err)
	}
	return plans
}

var errGuard = errors.New("guard")

func statement(t *testing.T, tx pgx.Tx, g *doctor.Guard, sql string) error {
	t.Helper()
	args := make([]any, len(g.Args))
	for i, a := range g.Args {
		args[i] = a.V
	}
	var holds bool
	if err := tx.QueryRow(t.Context(), g.Query, args...).Scan(&holds); err != nil {
		return err
	}
	if !holds {
		return errGuard
	}
	_, err := tx.Exec(t.Context(), sql)
	return err
}

// inOne runs the plan's statements, or what puts them back, in one transaction.
func inOne(t *testing.T, db *pgtest.DB, p doctor.Plan, undo bool) error {
	t.Helper()
	tx, err := db.Conn(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	for _, s := range p.Steps {
		if s.SQL == nil {
			continue
		}
		guard, sql := s.SQL.Guard, s.SQL.Statement
		if undo {
			guard, sql = s.SQL.Undo[0].Guard, s.SQL.Undo[0].Statement
		}
		if err := statement(t, tx, guard, sql); err != nil {
			return err
		}
	}
	return tx.Commit(t.Context())
}

func TestADatabaseInUTF8HasNoFindings(t *testing.T) {
	find(t, pgtest.Start(t).Database(t))
}

func TestEncodingsOtherThanUTF8AreErrorsWithCommandsToRun(t *testing.T) {
	for _, name := range []string{"SQL_ASCII", "LATIN1"} {
		t.Run(name, func(t *testing.T) {
			db := pgtest.Start(t).Database(t, pgtest.WithCreate("ENCODING '"+name+"' LC_COLLATE 'C' LC_CTYPE 'C'"))
			found := find(t, db, "encoding/not-utf8 database "+db.Name)
			if found[0].Observed != name || found[0].Severity != doctor.Error {
				t.Errorf("%+v", found[0])
			}
			p := plans(t, db, found)
			if len(p) != 2 || p[0].ID != "encoding/rebuild" || p[0].Manual() || p[1].ID != "encoding/rebuild-by-hand" || !p[1].Manual() {
				t.Fatalf("%+v", p)
			}
		})
	}
}

// The commands of the plan, run as they stand.
func TestTheCommandsMakeADatabaseInUTF8AndStopAtABadByte(t *testing.T) {
	s := pgtest.Start(t)
	db := s.Database(t, pgtest.WithCreate("ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"))
	db.Exec(t, `CREATE TABLE messages (body text); INSERT INTO messages VALUES ('grüße'), (E'bad \xff byte')`)
	t.Cleanup(func() {
		for _, name := range []string{db.Name + "_old", db.Name + "_utf8"} {
			other := *db
			other.Name = name
			_ = other.Drop(context.Background()) // there only when the commands got that far
		}
	})
	text := plans(t, db, find(t, db, "encoding/not-utf8 database "+db.Name))[1].Steps[0].Manual.Text
	var commands []string
	for line := range strings.Lines(text) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			commands = append(commands, command)
		}
	}
	if len(commands) != 4 {
		t.Fatalf("commands %q", commands)
	}
	dir := t.TempDir()
	run := func(command string) error {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + s.BinDir + ":" + os.Getenv("PATH"), "PGHOST=" + s.SocketDir, fmt.Sprintf("PGPORT=%d", s.Port), "PGUSER=postgres"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	}
	if err := run(commands[0]); err == nil || !strings.Contains(err.Error(), "0xff") {
		t.Fatalf("the dump did not stop at the bad byte: %v", err)
	}
	db.Exec(t, `DELETE FROM messages WHERE body LIKE 'bad%'`)
	for _, command := range commands {
		if err := run(command); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "synapse.dump")); err != nil {
		t.Error(err)
	}
	find(t, db)
	var body, owner string
	if err := db.Conn(t).QueryRow(t.Context(), `SELECT body, tableowner FROM messages, pg_tables WHERE tablename = 'messages'`).Scan(&body, &owner); err != nil {
		t.Fatal(err)
	}
	if body != "grüße" || owner != db.User {
		t.Errorf("%q of %s", body, owner)
	}
}

func TestAClientEncodingThatIsSetIsFoundAndTakenAway(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithOwner("owner_of_settings"))
	for _, c := range []struct{ set, object string }{
		{"ALTER ROLE owner_of_settings SET client_encoding = 'LATIN1'", "role owner_of_settings"},
		{"ALTER ROLE owner_of_settings IN DATABASE " + db.Name + " SET client_encoding = 'sql_ascii'", "role owner_of_settings"},
		{"ALTER DATABASE " + db.Name + " SET client_encoding = 'WIN1252'", "database " + db.Name},
	} {
		t.Run(c.object, func(t *testing.T) {
			db.Exec(t, c.set)
			found := find(t, db, "encoding/client-encoding-set "+c.object)
			p := plans(t, db, found)
			if len(p) != 1 || p[0].Manual() || !p[0].Reversible || p[0].Risk != doctor.Safe {
				t.Fatalf("%+v", p)
			}
			if err := inOne(t, db, p[0], false); err != nil {
				t.Fatal(err)
			}
			find(t, db)
			if err := inOne(t, db, p[0], false); !errors.Is(err, errGuard) {
				t.Errorf("applied twice: %v", err)
			}
			if err := inOne(t, db, p[0], true); err != nil {
				t.Fatal(err)
			}
			find(t, db, "encoding/client-encoding-set "+c.object)
			if err := inOne(t, db, p[0], true); !errors.Is(err, errGuard) {
				t.Errorf("undone twice: %v", err)
			}
			db.Exec(t, strings.Replace(strings.Split(c.set, " = ")[0], " SET ", " RESET ", 1))
		})
	}
}

func TestSettingsOfOneRoleAreOneFindingAndOnePlan(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithOwner("sets_twice"))
	db.Exec(t, "ALTER ROLE sets_twice SET client_encoding = 'LATIN1'; ALTER ROLE sets_twice IN DATABASE "+db.Name+" SET client_encoding = 'LATIN2'")
	found := find(t, db, "encoding/client-encoding-set role sets_twice")
	p := plans(t, db, found)
	if len(p) != 1 || len(p[0].Covers) != 1 {
		t.Fatalf("%+v", p)
	}
	if err := inOne(t, db, p[0], false); err != nil {
		t.Fatal(err)
	}
	find(t, db)
}

func TestASettingThatIsOverruledByUTF8IsNoFault(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithOwner("overrules"))
	db.Exec(t, "ALTER DATABASE "+db.Name+" SET client_encoding = 'LATIN1'; ALTER ROLE overrules SET client_encoding = 'unicode'")
	find(t, db)
}

func TestASettingForAllRolesIsLeftToAnAdministrator(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{})
	db := s.Database(t)
	db.AdminExec(t, "ALTER ROLE ALL SET client_encoding = 'LATIN1'")
	found := find(t, db, "encoding/client-encoding-set setting client_encoding")
	p := plans(t, db, found)
	if len(p) != 1 || !p[0].Manual() || !strings.Contains(p[0].Steps[0].Manual.Text, "\n    ALTER ROLE ALL RESET client_encoding;") {
		t.Fatalf("%+v", p)
	}
}
