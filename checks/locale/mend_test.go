package locale

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// bench is a database with an administrator, and what takes the place of the engine and its journal.
type bench struct {
	t      *testing.T
	db     *pgtest.DB
	target *doctor.Target

	mu     sync.Mutex
	tokens []string
	rows   map[string][]doctor.SavedRow
	resume string
	said   []string
	events int
	cutAt  int    // the event at which the doctor is killed; 0: never
	cut    string // the event at which it was
	dead   bool   // and nobody has gone on since
	crash  bool   // the server is killed, too
}

func newBench(t *testing.T, db *pgtest.DB) *bench {
	t.Helper()
	admin, err := pgdb.Parse(db.Server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	entry := entryOf(db)
	entry.Meets |= doctor.NeedsAdmin | doctor.NeedsSynapse
	b := &bench{t: t, db: db, rows: map[string][]doctor.SavedRow{}}
	b.target = &doctor.Target{RunID: "mend", ServerName: "test.example", Databases: []*doctor.Database{entry},
		Admin: &doctor.Database{Label: "admin", Engine: doctor.Postgres, Settings: admin}}
	b.target.Bind()
	t.Cleanup(b.target.Close)
	return b
}

var errKilled = errors.New("killed")

// event is an instant at which the doctor may be killed: what it was doing ends with it.
func (b *bench) event(name string) error {
	b.events++
	if b.dead {
		return errKilled
	}
	if b.events != b.cutAt {
		return nil
	}
	b.cut, b.dead = name, true
	ctx := context.Background()
	if b.crash {
		b.crashServer()
		return errKilled
	}
	conn, err := pgx.Connect(ctx, b.db.Server.Admin())
	if err != nil {
		b.t.Error(err)
		return errKilled
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE 'synapse-doctor/%'`, b.db.Name); err != nil {
		b.t.Error(err)
	}
	return errKilled
}

// crashServer kills the server as a loss of power would, and starts it again.
func (b *bench) crashServer() {
	text, err := os.ReadFile(filepath.Join(b.db.Server.DataDir, "postmaster.pid"))
	if err != nil {
		b.t.Error(err)
		return
	}
	pid, err := strconv.Atoi(strings.SplitN(string(text), "\n", 2)[0])
	if err != nil {
		b.t.Error(err)
		return
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		b.t.Error(err)
	}
	// Its memory is in use until the last of its processes has noticed.
	for range 50 {
		if err = b.db.Server.Restart(context.Background()); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.t.Error(err)
}

func (*bench) Stopping() <-chan struct{} { return nil }

func (*bench) Document(string, string) {}

func (b *bench) Progress(p doctor.Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, p.Text)
	_ = b.event(p.Text) // the statement that comes next fails
}

func (b *bench) Save(_ context.Context, token string, rows []doctor.SavedRow) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.event("before saving " + token); err != nil {
		return err
	}
	if !slices.Contains(b.tokens, token) {
		b.tokens = append(b.tokens, token)
	}
	b.rows[token], b.resume = slices.Clone(rows), token
	return b.event("after saving " + token)
}

func (b *bench) Rows(_ context.Context, each func(doctor.SavedRow) error) error {
	b.mu.Lock()
	var all []doctor.SavedRow
	for _, token := range b.tokens {
		all = append(all, b.rows[token]...)
	}
	b.mu.Unlock()
	for _, r := range all {
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

// plan is the only plan for these findings, a rebuild apart.
func (b *bench) plan(findings ...doctor.Finding) doctor.Plan {
	b.t.Helper()
	for i := range findings {
		findings[i].Database, findings[i].Fixable = "main", true
	}
	plans, err := plan(b.t.Context(), b.target, findings)
	if err != nil {
		b.t.Fatal(err)
	}
	plans = slices.DeleteFunc(plans, func(p doctor.Plan) bool { return p.ID == "locale/rebuild" })
	if len(plans) != 1 {
		b.t.Fatalf("%d plans", len(plans))
	}
	b.target.Close()
	return plans[0]
}

func of(code, kind, name string) doctor.Finding {
	return doctor.Finding{Code: code, Object: doctor.Object{Kind: kind, Name: name}}
}

// apply carries out the steps of a plan.
func (b *bench) apply(p doctor.Plan) error {
	b.t.Helper()
	for i := range p.Steps {
		if err := b.step(p, i, false); err != nil {
			return err
		}
	}
	return nil
}

// undo puts them back, the last first.
func (b *bench) undo(p doctor.Plan) error {
	b.t.Helper()
	for i := range slices.Backward(p.Steps) {
		if err := b.step(p, i, true); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) step(p doctor.Plan, i int, back bool) error {
	b.t.Helper()
	ctx := context.Background()
	switch s := p.Steps[i]; {
	case s.SQL != nil:
		statement := s.SQL.Statement
		if back {
			statement = s.SQL.Undo[0].Statement
		}
		conn, err := pgx.Connect(ctx, b.db.Server.Admin())
		if err != nil {
			b.t.Fatal(err)
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, statement); err != nil {
			b.t.Fatal(err)
		}
	case s.Operation != nil:
		op, resume := *s.Operation, b.resume
		if back {
			if op.Undo == "" {
				return nil
			}
			op.Name = op.Undo
		}
		if back || op.Name == opExamine {
			resume = ""
		}
		err := operations[op.Name](ctx, b.target, op, resume, b)
		b.target.Close()
		return err
	}
	return nil
}

func (b *bench) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("%v\nafter %q", err, b.said[max(0, len(b.said)-5):])
	}
}

// content is every table of the database outside the catalog, by name: its rows, in the order of their bytes, hashed by
// reading the table alone.
func (b *bench) content() map[string]string {
	b.t.Helper()
	ctx := b.t.Context()
	conn := b.db.AdminConn(b.t)
	defer conn.Close(ctx)
	found := map[string]string{}
	for _, table := range b.ask(`SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1`) {
		hash := b.ask(`SELECT count(*) || ' ' || coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text) COLLATE "C")), '') FROM ` + table + ` t`)
		found[table] = hash[0]
	}
	return found
}

// ask answers a query with its texts, in a session of its own that reads tables alone.
func (b *bench) ask(query string) []string {
	b.t.Helper()
	ctx := b.t.Context()
	conn := b.db.AdminConn(b.t)
	defer conn.Close(ctx)
	if _, err := conn.PgConn().Exec(ctx, "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off").ReadAll(); err != nil {
		b.t.Fatal(err)
	}
	rows, err := conn.Query(ctx, query)
	if err != nil {
		b.t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.t.Fatal(err)
	}
	return found
}

func differing(a, b map[string]string) (tables []string) {
	for name := range a {
		if a[name] != b[name] {
			tables = append(tables, fmt.Sprintf("%s: %s, then %s", name, a[name], b[name]))
		}
	}
	for name := range b {
		if _, is := a[name]; !is {
			tables = append(tables, name+" is new")
		}
	}
	slices.Sort(tables)
	return tables
}

// sound looks with a fresh session at what was mended: no warning, the locale, every index valid, in order and complete, and
// every unique key once.
func (b *bench) sound(inC bool) {
	b.t.Helper()
	ctx := b.t.Context()
	config, err := pgx.ParseConfig(b.db.AdminDSN())
	if err != nil {
		b.t.Fatal(err)
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.Severity == "WARNING" {
			b.t.Errorf("the server warns: %s", n.Message)
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close(ctx)
	var bytewise bool
	if err := conn.QueryRow(ctx, `SELECT 'B'::text < 'a'::text AND lower('É'::text) = 'É'`).Scan(&bytewise); err != nil {
		b.t.Fatal(err)
	}
	if bytewise != inC {
		b.t.Errorf("compares bytes: %t", bytewise)
	}
	if invalid := b.ask(`SELECT indexrelid::regclass::text FROM pg_index WHERE NOT (indisvalid AND indisready)`); len(invalid) > 0 {
		b.t.Errorf("invalid: %v", invalid)
	}
	if left := b.ask(`SELECT nspname::text FROM pg_namespace WHERE nspname = 'synapse_doctor'`); len(left) > 0 {
		b.t.Errorf("the doctor's schema was left behind")
	}
	if versions := b.ask(`SELECT to_jsonb(d) ->> 'datcollversion' FROM pg_database d WHERE datname = current_database() AND to_jsonb(d) ->> 'datcollversion' IS NOT NULL`); inC && len(versions) > 0 {
		b.t.Errorf("a version is still recorded: %v", versions)
	}
	if _, err := conn.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS amcheck`); err != nil {
		b.t.Fatal(err)
	}
	for _, x := range b.ask(`SELECT c.oid::text FROM pg_class c JOIN pg_am a ON a.oid = c.relam JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'i' AND a.amname = 'btree' AND n.nspname !~ '^pg_'`) {
		if _, err := conn.Exec(ctx, `SELECT bt_index_check($1::text::oid::regclass, true)`, x); err != nil {
			b.t.Error(err)
		}
	}
	if _, err := conn.Exec(ctx, `DROP EXTENSION amcheck`); err != nil {
		b.t.Fatal(err)
	}
	b.keysOnce()
}

// keysOnce counts the keys of each unique index over columns, in the tables themselves.
func (b *bench) keysOnce() {
	b.t.Helper()
	queries := b.ask(`SELECT format('SELECT %L FROM %s WHERE %s GROUP BY %s HAVING count(*) > 1', x.indexrelid::regclass, x.indrelid::regclass,
			coalesce(pg_get_expr(x.indpred, x.indrelid), 'true') || ' AND ' || string_agg(format('%I IS NOT NULL', a.attname), ' AND '),
			string_agg(format('%I::text COLLATE "C"', a.attname), ', '))
		FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey::int2[])
		WHERE x.indisunique AND x.indexprs IS NULL AND n.nspname !~ '^pg_' GROUP BY x.indexrelid`)
	if len(queries) == 0 {
		return
	}
	for _, name := range b.ask(strings.Join(queries, " UNION ALL ")) {
		b.t.Errorf("a key of %s is there more than once", name)
	}
}

// finds wants one message found by a search.
func (b *bench) finds(words string) {
	b.t.Helper()
	if found := b.ask(`SELECT event_id FROM event_search WHERE vector @@ websearch_to_tsquery('english', '` + words + `')`); len(found) != 1 {
		b.t.Errorf("a search for %s finds %d messages", words, len(found))
	}
}

// zebulon is a message with the vector that it has under en_US.
const zebulon = `UPDATE event_json SET json = jsonb_set(replace(json, '\u0000', '')::jsonb, '{content,body}', '"ZÉBULON"')::text
	WHERE event_id = (SELECT min(event_id) FROM event_search WHERE key = 'content.body');
UPDATE event_search SET vector = '''zébulon'':1' WHERE event_id = (SELECT min(event_id) FROM event_search WHERE key = 'content.body');`

// A real homeserver, in the locale in which many were made.
func TestARealDatabaseIsMadeOneInC(t *testing.T) {
	dump := filepath.Join(pgtest.Data(t), "synapse_ported.dump")
	pgtest.EachMajor(t, english, func(t *testing.T, s *pgtest.Server) {
		if m := s.Major(t); m != 14 && m != 18 && os.Getenv("SYNAPSE_DOCTOR_MATRIX") == "" {
			return // what differs between the majors, the other tests look at
		}
		db := s.Database(t, pgtest.WithDump(dump), pgtest.WithCreate(inEnUS), pgtest.WithSetup(zebulon))
		b := newBench(t, db)
		before := b.content()
		p := b.plan(of(NotC, "database", db.Name))
		b.ok(b.apply(p))
		b.sound(true)
		b.finds("ZÉBULON")
		for _, changed := range differing(before, b.content()) {
			if !strings.HasPrefix(changed, "public.event_search: ") {
				t.Errorf("changed: %s", changed)
			}
		}
		b.ok(b.undo(p))
		if changed := differing(before, b.content()); len(changed) > 0 {
			t.Errorf("not put back: %v", changed)
		}
		b.sound(false)
		b.finds("ZÉBULON")
	})
}

// A real homeserver whose catalog was edited, and that then went on: keys that are there were not found.
func TestARealDatabaseWithAnEditedCatalogIsMended(t *testing.T) {
	dump := filepath.Join(pgtest.Data(t), "synapse_ported.dump")
	s := pgtest.StartWith(t, english(0))
	db := s.Database(t, pgtest.WithDump(dump), pgtest.WithCreate(inEnUS), pgtest.WithSetup(zebulon))
	if err := db.Corrupt(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys := []string{"events", "event_id", "device_lists_remote_cache", "user_id || device_id || content", "receipts_linearized", "room_id || user_id", "users", "name"}
	count := func(b *bench) (counts []string) {
		for pair := range slices.Chunk(keys, 2) {
			counts = append(counts, b.ask(fmt.Sprintf("SELECT count(DISTINCT (%s) COLLATE \"C\")::text FROM %s", pair[1], pair[0]))...)
		}
		return counts
	}
	b := newBench(t, db)
	had := count(b)
	db.AdminExec(t, `SET session_replication_role = replica; INSERT INTO events SELECT * FROM events ON CONFLICT DO NOTHING; INSERT INTO event_json SELECT * FROM event_json ON CONFLICT DO NOTHING;
		INSERT INTO state_events SELECT * FROM state_events ON CONFLICT DO NOTHING; INSERT INTO room_stats_state SELECT * FROM room_stats_state ON CONFLICT DO NOTHING;
		INSERT INTO event_search SELECT * FROM event_search ON CONFLICT DO NOTHING`)
	before := b.content()
	if strings.Join(b.ask(`SELECT (count(*) > count(DISTINCT event_id COLLATE "C"))::text FROM event_json`), "") != "true" {
		t.Fatal("no key is there twice")
	}
	p := b.plan(of(CatalogEdited, "database", db.Name))
	b.ok(b.apply(p))
	b.sound(true)
	b.finds("ZÉBULON")
	if has := count(b); !slices.Equal(had, has) {
		t.Errorf("keys: %v, had %v", has, had)
	}
	b.ok(b.undo(p))
	if changed := differing(before, b.content()); len(changed) > 0 {
		t.Errorf("not put back: %v", changed)
	}
	if versions := b.ask(`SELECT datcollversion FROM pg_database WHERE datname = current_database()`); len(versions) != 1 || versions[0] == "" {
		t.Errorf("recorded version: %v", versions)
	}
}
