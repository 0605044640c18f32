package port

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// sqlite runs a script on a file, as Synapse or an administrator would.
func sqlite(t testing.TB, path, script string) {
	t.Helper()
	if _, err := os.Stat(path); os.IsNotExist(err) {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	db := openSQL(t, path)
	defer db.Close()
	if _, err := db.Exec(script); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
}

// load is a target, and what the loading of files into it says.
type load struct {
	*pgtest.DB
	database *doctor.Database
	w        Work

	mu    sync.Mutex
	notes []string
	stop  chan struct{}

	shares map[string]float64 // seconds of the sessions, by what they did
}

func newLoad(t testing.TB, db *pgtest.DB) *load {
	t.Helper()
	settings, err := pgdb.Settings{"host": db.Host, "port": fmt.Sprint(db.Port), "user": db.User, "password": db.Password, "dbname": db.Name}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	l := &load{DB: db, database: &doctor.Database{Label: "main", Engine: doctor.Postgres, Settings: settings}, stop: make(chan struct{})}
	conn := db.Conn(t)
	defer conn.Close(t.Context())
	if err := makeState(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	return l
}

// run loads the file, and returns what was decided of each table that is not as it was.
func (l *load) run(t testing.TB, ctx context.Context, path string) (map[string]decision, error) {
	t.Helper()
	conn, err := session(ctx, l.database)
	if err != nil {
		t.Fatal(err)
	}
	defer pgdb.Close(conn)
	p := &porting{w: l.w, path: path, stop: l.stop, track: newTracker(func(p doctor.Progress) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if p.Note != "" {
			l.notes = append(l.notes, p.Note)
		}
	})}
	p.match = match(t, conn, path)
	if p.guard, err = newGuard(path); err != nil {
		t.Fatal(err)
	}
	defer p.dismiss()
	if err := p.hire(ctx, l.w.sessions(), l.database); err != nil {
		t.Fatal(err)
	}
	err = p.load(ctx, conn)
	l.shares = p.shares(1)
	decided := map[string]decision{}
	for _, s := range p.states {
		if s.decision != asItIs {
			decided[s.Name] = s.decision
		}
	}
	return decided, err
}

func (l *load) must(t testing.TB, path string) map[string]decision {
	t.Helper()
	decided, err := l.run(t, t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return decided
}

func match(t testing.TB, conn *pgx.Conn, path string) *Match {
	t.Helper()
	file, err := sqlitedb.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var m *Match
	err = pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		m, err = ReadMatch(t.Context(), tx, file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// dump is the content of every table of a schema but the doctor's, in an order of its own.
func (l *load) dump(t testing.TB) map[string][]string {
	t.Helper()
	conn := l.Conn(t)
	defer conn.Close(t.Context())
	tables := column(t, conn, `SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace`)
	content := map[string][]string{}
	for _, name := range tables {
		content[name] = column(t, conn, "SELECT r::text FROM "+name+" r ORDER BY r::text COLLATE \"C\"")
	}
	content["quarantine"] = column(t, conn, `SELECT name || ' ' || key || ' ' || reason || ' ' || row::text FROM synapse_doctor.port_quarantine ORDER BY name, key, reason, row::text`)
	content["change"] = column(t, conn, `SELECT name || ' ' || key || ' ' || column_ || ' ' || change FROM synapse_doctor.port_change ORDER BY 1`)
	content["objects"] = column(t, conn, `SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' UNION ALL SELECT conrelid::regclass || pg_get_constraintdef(oid) FROM pg_constraint ORDER BY 1`)
	return content
}

func column(t testing.TB, conn *pgx.Conn, sql string) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return found
}

// same compares two dumps.
func same(t testing.TB, got, want map[string][]string) {
	t.Helper()
	for name := range want {
		if !slices.Equal(got[name], want[name]) {
			t.Errorf("%s: %d rows, want %d:\n%s\nwant\n%s", name, len(got[name]), len(want[name]), some(got[name], want[name]), some(want[name], got[name]))
		}
	}
}

// some are a few of the rows that the others lack.
func some(rows, others []string) string {
	var out []string
	for _, r := range rows {
		if !slices.Contains(others, r) && len(out) < 5 {
			out = append(out, r)
		}
	}
	return strings.Join(out, "\n")
}

// synapseSchema is a database with Synapse's schema, as it is when all background updates are done.
func synapseSchema(t testing.TB, s *pgtest.Server) *pgtest.DB {
	t.Helper()
	return s.Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_empty.dump")), pgtest.WithSetup("DELETE FROM background_updates"))
}

func TestTheRealHomeserverIsCopied(t *testing.T) {
	long(t)
	path := pgtest.SQLite(t)
	l := newLoad(t, synapseSchema(t, pgtest.Start(t)))
	before := l.dump(t)
	decided := l.must(t, path)
	if len(decided) < 50 {
		t.Errorf("only %d tables were loaded", len(decided))
	}
	after := l.dump(t)
	if !slices.Equal(before["objects"], after["objects"]) {
		t.Errorf("indexes or constraints are not what they were:\n%s\n%s", some(before["objects"], after["objects"]), some(after["objects"], before["objects"]))
	}
	reference := newLoad(t, pgtest.Start(t).Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_ported.dump")))).dump(t)
	for _, name := range []string{"events", "event_json", "event_search", "state_groups_state", "room_memberships", "users", "device_lists_stream"} {
		if len(reference[name]) == 0 || !slices.Equal(after[name], reference[name]) {
			t.Errorf("%s: %d rows, Synapse's script made %d:\n%s\n%s", name, len(after[name]), len(reference[name]), some(after[name], reference[name]), some(reference[name], after[name]))
		}
	}
	if decided := l.must(t, path); len(decided) > 0 {
		t.Errorf("the second run over the same file: %v", decided)
	}
}
