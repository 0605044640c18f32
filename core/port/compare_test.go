package port

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func quiet(doctor.Progress) {}

// compared are the differences, as text.
func (l *load) compared(t testing.TB, path string) []string {
	t.Helper()
	defer l.database.Close()
	conn := l.Conn(t)
	m := match(t, conn, path)
	_ = conn.Close(t.Context())
	found, err := Compare(t.Context(), l.database, path, m, quiet)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range found {
		out = append(out, fmt.Sprintf("%s %d %d %v missing %q surplus %q changed %q", d.Table, d.Source, d.Target, d.Content, d.MissingKeys, d.SurplusKeys, d.ChangedKeys))
	}
	return out
}

func TestADifferenceBetweenTheSidesIsNamedByItsRow(t *testing.T) {
	l := newLoad(t, oddTarget(t, pgtest.Start(t)))
	path := oddFile(t)
	l.must(t, path)
	if found := l.compared(t, path); len(found) > 0 {
		t.Errorf("after a port:\n%s", strings.Join(found, "\n"))
	}
	l.Exec(t, `DELETE FROM notes WHERE id = 3; UPDATE notes SET flag = false WHERE id = 2; INSERT INTO notes VALUES (77, 1, 'x');
		UPDATE shadowed SET oid = 9 WHERE rowid = 'r'; UPDATE profiles SET fields = '{"a": "x"}' WHERE user_id = '@a'; DELETE FROM profiles WHERE user_id = '@e';
		UPDATE event_search SET vector = to_tsvector('simple', 'Running foxes') WHERE event_id = '$a'; UPDATE module SET price = 1 WHERE id = 1`)
	want := []string{
		`event_search 4 4 true missing [] surplus [] changed []`,
		`module 2 2 true missing [] surplus [] changed []`,
		`notes 6 6 true missing ["id=3"] surplus ["id=77"] changed ["id=2"]`,
		`profiles 4 3 false missing ["user_id=\"@e\""] surplus [] changed []`,
		`shadowed 2 2 true missing [] surplus [] changed []`,
	}
	if found := l.compared(t, path); !slices.Equal(found, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(found, "\n"), strings.Join(want, "\n"))
	}
}

func TestAPortBySynapsesScriptIsCompared(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	path := pgtest.SQLite(t)
	db := pgtest.Start(t).Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_ported.dump")))
	l := &load{DB: db, database: newLoad(t, synapseSchema(t, pgtest.Start(t))).database}
	l.database.Settings["dbname"] = db.Name
	for _, d := range l.compared(t, path) {
		t.Log(d)
	}
	db.Exec(t, `DELETE FROM event_json WHERE event_id = (SELECT min(event_id) FROM event_json); UPDATE users SET approved = NOT coalesce(approved, false)`)
	found := l.compared(t, path)
	for _, table := range []string{"event_json", "users"} {
		if !slices.ContainsFunc(found, func(s string) bool { return strings.HasPrefix(s, table+" ") }) {
			t.Errorf("%s is not among %s", table, strings.Join(found, "\n"))
		}
	}
}

func TestAScanTellsWhatACopyWouldFind(t *testing.T) {
	l := newLoad(t, oddTarget(t, pgtest.Start(t)))
	path := oddFile(t)
	conn := l.Conn(t)
	var scanned []string
	err := match(t, conn, path).Scan(t.Context(), path, quiet, func(o Oddity) {
		scanned = append(scanned, fmt.Sprintf("%s %d %s %v", o.Table, o.Rowid, o.Column, o.Lost))
	})
	if err != nil {
		t.Fatal(err)
	}
	l.must(t, path)
	// What the server alone can tell: JSON, the types of a module, a CHECK, a key that the file does not have, a trigger.
	copied := column(t, conn, `SELECT name || ' ' || rowid_ || ' ' || CASE WHEN reason ~ '; column' THEN '' ELSE substring(reason from '^column ([^:]*)') END || ' true' FROM synapse_doctor.port_quarantine
		WHERE reason !~ 'SQLSTATE' AND rowid_ IS NOT NULL UNION ALL SELECT name || ' ' || rowid_ || ' ' || column_ || ' false' FROM synapse_doctor.port_change`)
	copied = append(copied, "children 2 parent true", "event_search 3 event_id true")
	slices.Sort(copied)
	slices.Sort(scanned)
	if !slices.Equal(scanned, copied) {
		t.Errorf("%s\nwant\n%s", strings.Join(scanned, "\n"), strings.Join(copied, "\n"))
	}
}
