package locale

import (
	"fmt"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const inEnUS = "ENCODING 'UTF8' LC_COLLATE 'en_US.UTF-8' LC_CTYPE 'en_US.UTF-8'"

// english is a server whose own databases are in en_US.
func english(int) pgtest.Config {
	return pgtest.Config{Shared: true, Locales: []string{"en_US.UTF-8"}, InitdbArgs: []string{"--locale=en_US.UTF-8"}}
}

// alone is the same for a test that kills its server.
func alone() pgtest.Config {
	c := english(0)
	c.Shared = false
	return c
}

// entryOf is the database as Synapse's configuration has it.
func entryOf(db *pgtest.DB) *doctor.Database {
	return &doctor.Database{Label: "main", Engine: doctor.Postgres, Meets: doctor.NeedsPostgres | doctor.NeedsPostgresEntry,
		Settings: pgdb.Settings{"host": db.Host, "port": fmt.Sprint(db.Port), "user": db.User, "password": db.Password, "dbname": db.Name}}
}

func targetOf(t *testing.T, db *pgtest.DB) *doctor.Target {
	t.Helper()
	target := &doctor.Target{ServerName: "test.example", Databases: []*doctor.Database{entryOf(db)}}
	t.Cleanup(target.Close)
	return target
}

// collector is a Reporter.
type collector struct {
	found   []doctor.Finding
	covered string
}

func (c *collector) Find(f doctor.Finding)    { c.found = append(c.found, f) }
func (c *collector) Progress(doctor.Progress) {}
func (c *collector) Covered(text string)      { c.covered = text }
func (c *collector) Measure(doctor.Measure)   {}

// examined runs the check and wants these findings in this order: code, severity, kind and name of the object.
func examined(t *testing.T, target *doctor.Target, want ...string) []doctor.Finding {
	t.Helper()
	var c collector
	if err := run(t.Context(), target, &c); err != nil {
		t.Fatal(err)
	}
	wants(t, c.found, want...)
	return c.found
}

func wants(t *testing.T, found []doctor.Finding, want ...string) {
	t.Helper()
	var got []string
	keys := map[doctor.FindingKey]bool{}
	for _, f := range found {
		got = append(got, fmt.Sprintf("%s %s %s %s", f.Code, f.Severity, f.Object.Kind, f.Object.Name))
		if keys[f.Key()] {
			t.Errorf("two findings are the same: %s", f.Key())
		}
		keys[f.Key()] = true
		if n := strings.Count(f.Remedy, "\n"); n > 60 || f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" {
			t.Errorf("a finding with a remedy of %d lines: %+v", n, f)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
