package rebuild

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
	}
	defer stopServer()
	m.Run()
}

var shared struct {
	sync.Mutex
	server *pgtest.Server
}

func stopServer() {
	if shared.server != nil {
		shared.server.Close()
	}
}

// server is the newest server for which there is a pg_dump, with the locale en_US. The tests share it.
func server(t *testing.T) *pgtest.Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		return shared.server
	}
	for _, major := range slices.Backward(pgtest.Majors(t.Context())) {
		if !dumpable(t, major) {
			continue
		}
		var err error
		if shared.server, err = pgtest.New(context.WithoutCancel(t.Context()), pgtest.Config{Version: fmt.Sprint(major), Locales: []string{"en_US.UTF-8"},
			Settings: map[string]string{"max_prepared_transactions": "2", "wal_level": "logical"}}); err != nil {
			t.Fatal(err)
		}
		return shared.server
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("there is no server for which there is a pg_dump")
	}
	t.Skip("there is no server for which there is a pg_dump")
	return nil
}

func dumpable(t *testing.T, major int) bool {
	_, err := findPrograms(t.Context(), major*10000, "")
	return err == nil
}

// host stands for the engine: it keeps the token, and fails when it is told to.
type host struct {
	mu       sync.Mutex
	token    string
	progress []doctor.Progress
}

func (*host) Stopping() <-chan struct{} { return nil }

func (*host) Document(string, string) {}

func (h *host) Progress(p doctor.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.progress = append(h.progress, p)
}

func (h *host) Save(_ context.Context, resume string, _ []doctor.SavedRow) error {
	h.token = resume
	return nil
}

func (h *host) Rows(context.Context, func(doctor.SavedRow) error) error { return nil }

// target is the homeserver's database with the administrator's connection, as the engine hands it to a plan.
func target(t *testing.T, db *pgtest.DB) *doctor.Target {
	t.Helper()
	settings := func(dsn string) pgdb.Settings {
		s, err := pgdb.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	out := &doctor.Target{RunID: strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")), ServerName: "test.example",
		Databases: []*doctor.Database{{Label: "main", Engine: doctor.Postgres, Settings: settings(db.DSN()), DataDir: db.Server.DataDir,
			Meets: doctor.NeedsPostgresEntry | doctor.NeedsPostgres | doctor.NeedsSynapse | doctor.NeedsAdmin}},
		Admin: &doctor.Database{Label: "admin", Engine: doctor.Postgres, Settings: settings(db.Server.Admin())}}
	out.Bind()
	t.Cleanup(out.Close)
	return out
}

// fixture is one database and its plan.
type fixture struct {
	*pgtest.DB
	target *doctor.Target
	plan   doctor.Plan
	params params
	host   *host
}

func newFixture(t *testing.T, db *pgtest.DB, sourceEncoding string) *fixture {
	t.Helper()
	f := &fixture{DB: db, target: target(t, db), host: &host{}}
	f.target.SourceEncoding = sourceEncoding
	var err error
	if f.plan, err = Plan(t.Context(), f.target, f.target.Main(), "locale", nil); err != nil {
		t.Fatal(err)
	}
	if f.params, err = readParams(*f.plan.Steps[2].Operation); err != nil {
		t.Fatal(err)
	}
	f.target.Close()
	t.Cleanup(func() {
		for _, name := range []string{f.params.fresh, f.params.before, f.params.rebuilt} {
			other := *db
			other.Name = name
			if err := other.Drop(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	return f
}

func (f *fixture) server(t *testing.T, statement string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.Server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// do carries out one step of the plan, or what undoes it.
func (f *fixture) do(t *testing.T, ctx context.Context, w Work, i int, undo bool) error {
	t.Helper()
	s := f.plan.Steps[i]
	if s.SQL != nil {
		statement := s.SQL.Statement
		if undo {
			statement = s.SQL.Undo[0].Statement
		}
		f.server(t, statement)
		return nil
	}
	step := *s.Operation
	resume := f.host.token
	if undo {
		step.Name, resume = step.Undo, ""
	}
	return w.Operations()[step.Name](ctx, f.target.ForOperation(), step, resume, f.host)
}

// apply carries out the plan.
func (f *fixture) apply(t *testing.T) {
	t.Helper()
	for i, s := range f.plan.Steps {
		if err := f.do(t, t.Context(), Work{}, i, false); err != nil {
			t.Fatalf("%s: %v", s.Title, err)
		}
	}
}

// databases lists name, encoding, collation and connection limit of the databases that have to do with the plan.
func (f *fixture) databases(t *testing.T) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.Server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var all string
	err = conn.QueryRow(t.Context(), `SELECT string_agg(format('%s %s %s/%s %s', CASE datname WHEN $1 THEN 'database' WHEN $2 THEN 'new' WHEN $3 THEN 'before' ELSE 'rebuilt' END,
		pg_encoding_to_char(encoding), datcollate, datctype, datconnlimit), '; ' ORDER BY datname) FROM pg_database WHERE datname IN ($1, $2, $3, $4)`,
		f.params.database, f.params.fresh, f.params.before, f.params.rebuilt).Scan(&all)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (f *fixture) want(t *testing.T, databases string) {
	t.Helper()
	if got := f.databases(t); got != databases {
		t.Fatalf("databases: %s\nwant: %s", got, databases)
	}
}

func unchanged(err error) bool { _, ok := errors.AsType[*doctor.UnchangedError](err); return ok }

// rows reads all that a database holds, in a way of its own: every row of every table as text, but search vectors.
func rows(t *testing.T, s *pgtest.Server, database string) map[string]string {
	t.Helper()
	conn := connect(t, s, database)
	defer conn.Close(t.Context())
	names, err := conn.Query(t.Context(), `SELECT format('%I.%I', n.nspname, c.relname), c.relkind::text, string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		JOIN pg_attribute ON attrelid = c.oid WHERE relkind IN ('r', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'synapse_doctor') AND attnum > 0 AND NOT attisdropped AND atttypid <> 'tsvector'::regtype
		GROUP BY n.nspname, c.relname, c.relkind`)
	if err != nil {
		t.Fatal(err)
	}
	queries := map[string]string{}
	var name, kind, columns string
	if _, err := pgx.ForEachRow(names, []any{&name, &kind, &columns}, func() error {
		if kind == "S" {
			columns = "last_value, is_called"
		}
		queries[name] = "SELECT coalesce(string_agg(r, chr(10) ORDER BY r COLLATE \"C\"), '') FROM (SELECT ROW(" + columns + ")::text AS r FROM " + name + ") x"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for name, query := range queries {
		var text string
		if err := conn.QueryRow(t.Context(), query).Scan(&text); err != nil {
			t.Fatal(err)
		}
		found[name] = text
	}
	return found
}

func connect(t *testing.T, s *pgtest.Server, database string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(s.Admin())
	if err != nil {
		t.Fatal(err)
	}
	config.Database = database
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func sameRows(t *testing.T, want, got map[string]string) {
	t.Helper()
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s is not what it was:\n%.300s\nwas\n%.300s", name, got[name], text)
		}
	}
	if len(want) != len(got) {
		t.Errorf("%d tables and sequences, were %d", len(got), len(want))
	}
}

// schema is what pg_dump writes of a database, its own settings and privileges included.
func schema(t *testing.T, s *pgtest.Server, database string) string {
	t.Helper()
	p, err := findPrograms(t.Context(), s.Major(t)*10000, "")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), p.dump, "--create", "--schema-only", "--exclude-schema=synapse_doctor", "-h", s.SocketDir, "-p", fmt.Sprint(s.Port), "-U", "postgres", database)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return restrictLine.ReplaceAllString(string(out), "")
}

// restrictLine has a key that is another each time.
var restrictLine = regexp.MustCompile(`(?m)^\\(un)?restrict .*\n`)

const enUS = "ENCODING 'UTF8' LC_COLLATE 'en_US.UTF-8' LC_CTYPE 'en_US.UTF-8'"

func TestARealDatabaseInAnotherLocaleIsRebuiltAndPutBack(t *testing.T) {
	dump := filepath.Join(pgtest.Data(t), "synapse_ported.dump")
	s := server(t)
	db := s.Database(t, pgtest.WithDump(dump), pgtest.WithCreate(enUS))
	// What hangs on the database itself, and on its tables.
	db.AdminExec(t, `CREATE ROLE reader; CREATE ROLE "Odd role" LOGIN; GRANT SELECT ON events, users TO reader; GRANT SELECT (name) ON users TO "Odd role"; ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reader;
		CREATE EXTENSION pg_trgm; CREATE UNLOGGED TABLE odd (a int GENERATED ALWAYS AS IDENTITY, b numeric DEFAULT 1.50, c int GENERATED ALWAYS AS (a + 1) STORED, "D d" float8, e char(5), f text[], PRIMARY KEY (a)) WITH (fillfactor = 70);
		INSERT INTO odd (b, "D d", e, f) VALUES (1.0, -0.0, 'x', '{a,NULL}'), (NULL, 'NaN', NULL, NULL); ALTER TABLE odd ALTER f SET (n_distinct = -0.3), ALTER f SET STATISTICS 7;
		GRANT CREATE ON SCHEMA public TO PUBLIC; ALTER SCHEMA public OWNER TO synapse_user; CREATE SCHEMA "Odd, schema"; CREATE TABLE "Odd, schema"."p(" (a int, b text) PARTITION BY RANGE (a); CREATE TABLE "Odd, schema".p1 PARTITION OF "Odd, schema"."p(" FOR VALUES FROM (0) TO (10); CREATE TABLE child () INHERITS (odd); INSERT INTO "Odd, schema".p1 VALUES (1, 'x'); INSERT INTO child (a, e) OVERRIDING SYSTEM VALUE VALUES (77, 'c');
		COMMENT ON COLUMN odd.f IS 'ümlaut'; CREATE VIEW seen AS SELECT a FROM odd WHERE e IN ('x', 'y'); ALTER TABLE odd OWNER TO "Odd role"; ALTER TABLE odd DROP COLUMN b`)
	db.AdminExec(t, fmt.Sprintf(`GRANT CONNECT ON DATABASE %[1]s TO reader WITH GRANT OPTION; REVOKE TEMPORARY ON DATABASE %[1]s FROM PUBLIC;
		SET ROLE reader; GRANT CONNECT ON DATABASE %[1]s TO "Odd role"; RESET ROLE;
		ALTER DATABASE %[1]s SET search_path = public, "$user", "Odd, schema"; ALTER DATABASE %[1]s SET default_transaction_read_only = on; ALTER DATABASE %[1]s SET statement_timeout = '900ms';
		ALTER ROLE "Odd role" IN DATABASE %[1]s SET work_mem = '7MB'; ALTER ROLE "Odd role" IN DATABASE %[1]s SET my.setting = 'it''s = odd';
		COMMENT ON DATABASE %[1]s IS 'it''s ours'`, db.Name))
	// Vectors as a Synapse on this database would have made them.
	vectors := synapse.SearchVectors("public")[0]
	conn := connect(t, s, db.Name)
	prepare(t, conn, vectors)
	if tag, err := conn.Exec(t.Context(), vectors.Update, 1, 0); err != nil || tag.RowsAffected() == 0 {
		t.Fatalf("%d vectors were changed: %v", tag.RowsAffected(), err)
	}
	conn.Close(t.Context())
	wantRows, wantSchema := rows(t, s, db.Name), schema(t, s, db.Name)

	f := newFixture(t, db, "")
	const before = "database UTF8 en_US.UTF-8/en_US.UTF-8 -1"
	f.want(t, before)
	f.apply(t)
	f.want(t, "database UTF8 C/C -1; before UTF8 en_US.UTF-8/en_US.UTF-8 0")
	sameRows(t, wantRows, rows(t, s, db.Name))
	sameRows(t, wantRows, rows(t, s, f.params.before))
	got := strings.NewReplacer("LOCALE = 'C'", "LOCALE = 'en_US.UTF-8'").Replace(schema(t, s, db.Name))
	if got != wantSchema {
		t.Errorf("pg_dump --create writes something else than before:\n%s", difference(wantSchema, got))
	}
	conn = connect(t, s, db.Name)
	prepare(t, conn, vectors)
	var wrong int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM ("+vectors.Differing+") x", 1, 0).Scan(&wrong); err != nil || wrong > 0 {
		t.Errorf("%d search vectors were made by the old rules (%v)", wrong, err)
	}
	conn.Close(t.Context())
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "synapse-doctor-"+db.Name+"_*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}

	for _, i := range []int{3, 2, 1} {
		if err := f.do(t, t.Context(), Work{}, i, true); err != nil {
			t.Fatal(err)
		}
	}
	f.want(t, before+"; rebuilt UTF8 C/C 0")
	sameRows(t, wantRows, rows(t, s, db.Name))
	if got := schema(t, s, db.Name); got != wantSchema {
		t.Errorf("after undo pg_dump --create writes something else than before:\n%s", difference(wantSchema, got))
	}
}

// prepare makes ready to look at search vectors, whatever is set for the database.
func prepare(t *testing.T, conn *pgx.Conn, v synapse.SearchVector) {
	t.Helper()
	for _, statement := range []string{"SET statement_timeout = 0", "SET default_transaction_read_only = off", v.Prepare} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// difference lists the lines that only one of two texts has.
func difference(a, b string) string {
	var out []string
	in := func(text string) map[string]bool {
		lines := map[string]bool{}
		for line := range strings.Lines(text) {
			lines[line] = true
		}
		return lines
	}
	for sign, texts := range map[string][2]string{"- ": {a, b}, "+ ": {b, a}} {
		other := in(texts[1])
		for line := range strings.Lines(texts[0]) {
			if !other[line] {
				out = append(out, sign+line)
			}
		}
	}
	return strings.Join(out[:min(len(out), 40)], "")
}
