package port

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

func TestDataStoresInSeveralDatabasesAreRefused(t *testing.T) {
	file := sqliteFile(t, soundFile)
	config := func(text string) string {
		path := filepath.Join(t.TempDir(), "homeserver.yaml")
		if err := os.WriteFile(path, []byte("server_name: test.example\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := func(label, store, engine, name string) string {
		return "  " + label + ":\n    name: " + engine + "\n    data_stores: [" + store + "]\n    args:\n      " + map[string]string{"sqlite3": "database", "psycopg2": "dbname"}[engine] + ": " + name + "\n"
	}
	database := func(label, store string) *doctor.Database {
		return &doctor.Database{Label: label, Engine: doctor.Postgres, DataStores: []string{store}, Settings: pgdb.Settings{"dbname": "db_" + label, "host": "127.0.0.1", "port": "1"}, Meets: doctor.NeedsPostgres}
	}
	whole := database("main", "main")
	whole.DataStores = nil
	for name, c := range map[string]struct {
		config    string
		databases []*doctor.Database
		want      string
	}{
		"two PostgreSQL databases":           {"", []*doctor.Database{database("main", "main"), database("state", "state"), sqlite(file, "sqlite")}, `main (database "db_main" at 127.0.0.1`},
		"a database for half of it":          {"", []*doctor.Database{database("main", "main"), sqlite(file, "sqlite")}, "a port fills one"},
		"two SQLite files":                   {config("databases:\n" + one("main", "main", "sqlite3", file) + one("state", "state", "sqlite3", "/tmp/state.db")), []*doctor.Database{whole, sqlite(file, "sqlite")}, "state (/tmp/state.db)"},
		"two SQLite files, and no target":    {config("databases:\n" + one("main", "main", "sqlite3", file) + one("state", "state", "sqlite3", "/tmp/state.db")), []*doctor.Database{sqlite(file, "main"), sqlite("/tmp/state.db", "state")}, "state (/tmp/state.db)"},
		"the state is in PostgreSQL already": {config("databases:\n" + one("main", "main", "sqlite3", file) + one("state", "state", "psycopg2", "st")), []*doctor.Database{sqlite(file, "main"), database("state", "state")}, "state (PostgreSQL)"},
	} {
		t.Run(name, func(t *testing.T) {
			target := &doctor.Target{ServerName: "test.example", RunID: "test", Databases: c.databases}
			if c.config != "" {
				target.ConfigFiles = []string{c.config}
			}
			var found collector
			if err := Check.Run(t.Context(), target, &found); err != nil {
				t.Fatal(err)
			}
			f := found.one(t, Split)
			if len(found.found) != 1 || f.Fixable || !strings.Contains(f.Observed, c.want) {
				t.Errorf("%v: %s", found.codes(), f.Observed)
			}
			if plans, err := Check.Plan(t.Context(), target, found.found); err != nil && len(plans) > 0 {
				t.Errorf("planned %v, %v", plans, err)
			}
			err := Check.Operations["port"](t.Context(), target, doctor.OperationStep{}, "", host{})
			u, unchanged := errors.AsType[*doctor.UnchangedError](err)
			if len(c.databases) > 1 && !strings.Contains(name, "already") && !strings.Contains(name, "no target") && (!unchanged || !strings.Contains(u.Reason, c.want)) {
				t.Errorf("the operation: %v", err)
			}
		})
	}
}

// host is of an operation that is refused before it does anything.
type host struct{ doctor.OperationHost }

func (host) Stopping() <-chan struct{} { return nil }
func (host) Progress(doctor.Progress)  {}
func (host) Document(string, string)   {}
