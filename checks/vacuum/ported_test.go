package vacuum_test

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/checks/vacuum"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/core/port"
)

// host is what the port's operation sees of an engine that nobody watches.
type host struct{}

func (host) Progress(doctor.Progress)                                {}
func (host) Save(context.Context, string, []doctor.SavedRow) error   { return nil }
func (host) Rows(context.Context, func(doctor.SavedRow) error) error { return nil }
func (host) Stopping() <-chan struct{}                               { return nil }
func (host) Document(string, string)                                 {}

func TestAVacuumSinceThePortIsToldFromOrdinaryChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	path := pgtest.SQLite(t)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	defer db.Close()
	exec := func(statements ...string) {
		t.Helper()
		for _, s := range append(statements, `PRAGMA wal_checkpoint(TRUNCATE)`) {
			if _, err := db.Exec(s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
	pg := pgtest.Start(t).Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_empty.dump")))
	settings, err := pgdb.Settings{"host": pg.Host, "port": fmt.Sprint(pg.Port), "dbname": pg.Name, "user": pg.User, "password": pg.Password}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	target := func() *doctor.Target {
		return &doctor.Target{ServerName: "test.example", Databases: []*doctor.Database{
			{Label: "main", Engine: doctor.Postgres, Settings: maps.Clone(settings), Meets: doctor.NeedsPostgresEntry | doctor.NeedsPostgres},
			{Label: "sqlite", Engine: doctor.SQLite, DataStores: []string{"sqlite"}, Path: path, Meets: doctor.NeedsSQLite},
		}}
	}
	found := func() []string {
		t.Helper()
		var r reporter
		x := target()
		defer x.Close()
		if err := vacuum.RunBelow(t.TempDir())(t.Context(), x, &r); err != nil {
			t.Fatal(err)
		}
		var codes []string
		for _, f := range r.findings {
			if f.Code != vacuum.WALMissing && f.Code != vacuum.InUse {
				codes = append(codes, strings.TrimPrefix(f.Code, "vacuum/")+" "+f.Severity.String()+" "+f.Evidence["moved"])
			}
		}
		return codes
	}
	is := func(what string, want ...string) {
		t.Helper()
		if got := found(); !slices.Equal(got, want) {
			t.Errorf("%s: found %q, want %q", what, got, want)
		}
	}
	exec(`INSERT INTO users_pending_deactivation VALUES ('@x:test.example'), ('@y:test.example'), ('@z:test.example')`)
	is("before a port")
	operation := doctor.OperationStep{Name: port.Port, Params: map[string]string{}}
	x := target()
	if err := port.Operations()[port.Port](t.Context(), x, operation, "", host{}); err != nil {
		t.Fatal(err)
	}
	x.Close()
	is("after a port")
	exec(`UPDATE users SET password_hash = 'new'`, `DELETE FROM received_transactions`, `INSERT INTO users (name, creation_ts) VALUES ('@zoe.new:test.example', 1)`)
	is("after ordinary changes")
	exec(`VACUUM`)
	is("after a VACUUM that moved nothing", "vacuumed-between-runs info ")
	exec(`DELETE FROM users_pending_deactivation WHERE rowid = 1`, `VACUUM`) // the only table of the schema without an index
	is("after a VACUUM that moved rows", "vacuumed-between-runs warning users_pending_deactivation")
}
