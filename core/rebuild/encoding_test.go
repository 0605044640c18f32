package rebuild

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

const ascii, latin1 = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'", "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"

func TestARealDatabaseInSQLASCIIIsRebuilt(t *testing.T) {
	if testing.Short() {
		t.Skip("what is tried is the server")
	}
	db := server(t).Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_ported.dump")), pgtest.WithCreate(ascii))
	f := newFixture(t, db, "")
	want := rows(t, f.Server, f.Name)
	f.apply(t)
	f.want(t, "database UTF8 C/C -1; before SQL_ASCII C/C 0")
	sameRows(t, want, rows(t, f.Server, f.Name))
}

// examine carries out the first step alone.
func (f *fixture) examine(t *testing.T) error {
	t.Helper()
	return f.do(t, t.Context(), Work{}, 0, false)
}

// refused makes sure that the examination stops, says all of this, and has changed nothing.
func (f *fixture) refused(t *testing.T, says ...string) {
	t.Helper()
	before := f.databases(t)
	err := f.examine(t)
	if !unchanged(err) {
		t.Fatalf("not refused: %v", err)
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("it does not say %q: %v", text, err)
		}
	}
	f.want(t, before)
	f.nothingLeft(t)
}

func TestBytesThatAreNoTextAreNamed(t *testing.T) {
	db := server(t).Database(t, pgtest.WithCreate(ascii), pgtest.WithSetup(`CREATE TABLE notes (a int, b text, c text[], d jsonb, PRIMARY KEY (b, a));
		CREATE TABLE keyless (v varchar(9), n numeric); CREATE TABLE login_tokens (token text PRIMARY KEY, user_id text); INSERT INTO login_tokens VALUES ('syl_hidden', E'hid\xe9'); CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE "Sound" (t text, m mood, v tsvector, b bytea);
		INSERT INTO notes VALUES (1, 'fine', '{grüße}', '{"ü": 1}'), (2, E'na\xefve', '{x}', NULL), (3, 'x', ARRAY['y', E'\xe9'], NULL), (4, 'x', NULL, ('{"' || E'\xfc' || '": 2}')::jsonb);
		INSERT INTO keyless SELECT E'caf\xe9', 1 FROM generate_series(1, 30); INSERT INTO "Sound" VALUES ('ёлка', 'ok', 'ёлка', '\xff')`))
	f := newFixture(t, db, "")
	f.refused(t, "34 values are not valid in the encoding UTF8", `table "public"."notes", column b: row b="na\xefve" a="2" (at the bytes ef 76 65);`,
		`table "public"."notes", column c: row b="x" a="3"`, `table "public"."notes", column d: row b="x" a="4"`,
		`table "public"."keyless", column v: row ctid (0,1) (at the bytes e9), row ctid (0,2)`, "ctid (0,5) (at the bytes e9) and 25 more", "--source-encoding",
		`table "public"."login_tokens", column user_id: row ctid (0,1);`)
	if err := f.examine(t); strings.Contains(err.Error(), "hid") {
		t.Errorf("a secret is told: %v", err)
	}
	if err := f.examine(t); strings.Contains(err.Error(), "Sound") {
		t.Errorf("a sound table is named: %v", err)
	}
	// A text that arrives after the examination is not let through either.
	db.Exec(t, `DELETE FROM notes WHERE a > 1; DELETE FROM keyless; DELETE FROM login_tokens`)
	if err := f.examine(t); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `INSERT INTO keyless VALUES (E'caf\xe9')`)
	if err := f.do(t, t.Context(), Work{}, 1, false); err != nil {
		t.Fatal(err)
	}
	if err := f.do(t, t.Context(), Work{}, 2, false); !unchanged(err) || !strings.Contains(err.Error(), `"public"."keyless"`) {
		t.Errorf("the bytes were carried, or not named: %v", err)
	}
	f.want(t, "database SQL_ASCII C/C 0")
}

func TestBytesInTheSchemaThatAreNoTextStopIt(t *testing.T) {
	db := server(t).Database(t, pgtest.WithCreate(ascii), pgtest.WithSetup(`CREATE TABLE notes (a text DEFAULT E'caf\xe9')`))
	newFixture(t, db, "").refused(t, "the schema of the database can't be written in UTF8")
	newFixture(t, db, "latin1").refused(t, "the schema itself holds text that is not ASCII", `caf\xe9`)
}

func TestTextInAnotherEncodingIsConverted(t *testing.T) {
	const setup = `CREATE TABLE notes (a int PRIMARY KEY, b text, c text[], d jsonb, v tsvector, k char(4)); CREATE UNIQUE INDEX ON notes (b); COMMENT ON TABLE notes IS 'plain';
		INSERT INTO notes VALUES (1, E'caf\xe9', ARRAY[E'\xfc', 'u'], ('{"' || E'\xe9\xe9' || '": "' || E'\xe0' || '", "zzz": 1}')::jsonb, (E'\xe9t\xe9')::tsvector, E'\xe9'), (2, 'plain', NULL, '{}', 'a b', 'x');`
	for name, c := range map[string]struct{ create, source, asked, conversion string }{
		"SQL_ASCII": {ascii, "SQL_ASCII", "Latin-1", "LATIN1"}, "LATIN1": {latin1, "LATIN1", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			db := server(t).Database(t, pgtest.WithCreate(c.create))
			db.Exec(t, "SET client_encoding = '"+c.source+"'; "+setup)
			f := newFixture(t, db, c.asked)
			if f.params.sourceEncoding != c.conversion {
				t.Fatalf("source encoding %q", f.params.sourceEncoding)
			}
			f.apply(t)
			f.want(t, "database UTF8 C/C -1; before "+c.source+" C/C 0")
			conn := connect(t, f.Server, f.Name)
			defer conn.Close(t.Context())
			var got string
			if err := conn.QueryRow(t.Context(), `SELECT string_agg(notes::text, ' ' ORDER BY a) FROM notes`).Scan(&got); err != nil {
				t.Fatal(err)
			}
			const want = `(1,café,"{ü,u}","{""zzz"": 1, ""éé"": ""à""}",'été',"é   ") (2,plain,,{},"'a' 'b'","x   ")`
			if got != want {
				t.Errorf("%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestASourceEncodingThatWouldGarbleIsRefused(t *testing.T) {
	db := server(t).Database(t, pgtest.WithCreate(ascii), pgtest.WithSetup(`CREATE TABLE notes (a text); INSERT INTO notes VALUES ('grüße'), ('plain')`))
	newFixture(t, db, "latin1").refused(t, "UTF-8 already", "without --source-encoding")
	db.Exec(t, `INSERT INTO notes VALUES (E'\x81 is nothing in Windows-1252')`)
	newFixture(t, db, "win1252").refused(t, "one value is not valid in the encoding WIN1252", `table "public"."notes", column a: row ctid (0,3)`)
	_, err := Plan(t.Context(), target(t, db), target(t, db).Main(), "encoding", nil)
	if err != nil {
		t.Error(err)
	}
	odd := target(t, db)
	odd.SourceEncoding = "ebcdic"
	if _, err := Plan(t.Context(), odd, odd.Main(), "encoding", nil); err == nil || !strings.Contains(err.Error(), `"ebcdic"`) {
		t.Errorf("an unknown encoding is planned with: %v", err)
	}
}

func TestWhatACopyWouldNotHaveIsNamed(t *testing.T) {
	db := server(t).Database(t, pgtest.WithSetup(smallSchema))
	f := newFixture(t, db, "")
	for says, c := range map[string][2]string{
		"large objects (1)":                {`SELECT lo_create(4242)`, `SELECT lo_unlink(4242)`},
		"publications (pub)":               {`CREATE PUBLICATION pub FOR TABLE users`, `DROP PUBLICATION pub`},
		"replication slots (slot)":         {`SELECT pg_create_logical_replication_slot('slot', 'pgoutput')`, `SELECT pg_drop_replication_slot('slot')`},
		"event triggers (guard)":           {`CREATE FUNCTION guard() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER guard ON ddl_command_end EXECUTE FUNCTION guard()`, `DROP EVENT TRIGGER guard`},
		"materialized views (public.seen)": {`CREATE MATERIALIZED VIEW public.seen AS SELECT 1`, `DROP MATERIALIZED VIEW public.seen`},
		"prepared transactions (half)":     {`BEGIN; INSERT INTO public.empty VALUES ('x'); PREPARE TRANSACTION 'half'`, `ROLLBACK PREPARED 'half'`},
	} {
		db.AdminExec(t, c[0])
		f.refused(t, says)
		db.AdminExec(t, c[1])
	}
	db.AdminExec(t, `CREATE EXTENSION pg_trgm VERSION '1.5'`) // an older one than the server would make
	if err := f.examine(t); err != nil {
		t.Error(err)
	}
	other := db.Conn(t)
	f.refused(t, "others are connected to the database", "synapse_user")
	_ = other.Close(t.Context())
	f.server(t, "CREATE DATABASE "+f.params.before)
	if err := f.examine(t); !unchanged(err) || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("a taken name: %v", err)
	}
	f.server(t, "DROP DATABASE "+f.params.before)
	f.target.Admin.Settings["dbname"] = db.Name
	f.refused(t, "give --admin-dsn with dbname=postgres")
}

func TestDuplicatesThatACorruptIndexHidesStopIt(t *testing.T) {
	s := server(t)
	db := s.Database(t, pgtest.WithCreate(enUS), pgtest.WithSetup(`CREATE TABLE users (name text PRIMARY KEY, n int); INSERT INTO users SELECT chr(CASE n % 2 WHEN 0 THEN 65 ELSE 97 END + n / 2 % 26) || md5(n::text), n FROM generate_series(1, 3000) n;
		CREATE TABLE part (a text, b text); CREATE UNIQUE INDEX part_lower ON part (lower(a)) WHERE b IS NOT NULL`))
	if err := db.Corrupt(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn := db.Conn(t)
	tag, err := conn.Exec(t.Context(), `WITH old AS MATERIALIZED (SELECT name, n FROM users) INSERT INTO users SELECT name, n FROM old ON CONFLICT DO NOTHING`)
	if err != nil || tag.RowsAffected() == 0 {
		t.Fatalf("the fixture made %d duplicates: %v", tag.RowsAffected(), err)
	}
	_ = conn.Close(t.Context())
	f := newFixture(t, db, "")
	f.refused(t, fmt.Sprintf(`users_pkey of table "public"."users" (%d keys, %d rows too many)`, tag.RowsAffected(), tag.RowsAffected()))

	// Whoever names those that are not to be carried gets a database without them.
	const surplus = `SELECT array_agg(ctid::text) FROM (SELECT ctid, row_number() OVER (PARTITION BY name || '') AS nth FROM users) u WHERE nth > 1`
	kept := 0
	w := Work{LeaveOut: func(ctx context.Context, _ *doctor.Target, _ string, _ doctor.OperationHost, keep bool) (map[string][]string, error) {
		if keep {
			kept++
		}
		var places []string
		conn := db.AdminConn(t)
		defer conn.Close(ctx)
		err := conn.QueryRow(ctx, surplus).Scan(&places)
		return map[string][]string{`"public"."users"`: places}, err
	}}
	for i := range f.plan.Steps {
		if err := f.do(t, t.Context(), w, i, false); err != nil {
			t.Fatal(err)
		}
	}
	var n int
	if err := db.Conn(t).QueryRow(t.Context(), `SELECT count(*) FROM users`).Scan(&n); err != nil || n != 3000 || kept != 1 {
		t.Errorf("%d users: %v; what is left out was kept %d times", n, err, kept)
	}
}

func TestADatabaseThatCantBeCompletedIsDropped(t *testing.T) {
	db := smallDatabase(t)
	db.AdminExec(t, `SET session_replication_role = replica; INSERT INTO events VALUES (99999, 'nobody', 'orphan')`) // hidden from the foreign key
	f := newFixture(t, db, "")
	if err := f.do(t, t.Context(), Work{}, 1, false); err != nil {
		t.Fatal(err)
	}
	err := f.do(t, t.Context(), Work{}, 2, false)
	if !unchanged(err) || !strings.Contains(err.Error(), "events_sender_fkey") {
		t.Errorf("%v", err)
	}
	f.want(t, "database UTF8 en_US.UTF-8/en_US.UTF-8 0")
	f.nothingLeft(t)
}

// What PostgreSQL or a program would have to get wrong is done here by hand.
func TestADifferenceBetweenTheDatabasesIsNoticed(t *testing.T) {
	for says, c := range map[string][2]string{
		`the table "public"."users" is not the same`:  {"pre-data", `CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF new.admin = 250 THEN new.name = ''x''; END IF; RETURN new; END'; CREATE TRIGGER spoil BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION spoil()`},
		`the table "public"."events" is not the same`: {"pre-data", `CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN CASE WHEN new.id <> 7 THEN new END; END'; CREATE TRIGGER spoil BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION spoil()`},
		"column public.events.body":                   {"post-data", `ALTER TABLE events ALTER body SET DEFAULT 'x'`},
		"the trigger":                                 {"post-data", `CREATE TRIGGER odd BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()`},
		"constraint users_pkey":                       {"post-data", `ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE`},
		"the sequences":                               {"post-data", `SELECT nextval('counter')`},
		"relation public.empty":                       {"post-data", `GRANT SELECT ON empty TO PUBLIC`},
		"index public.events_body is":                 {"post-data", `DROP INDEX events_body; CREATE INDEX events_body ON events (body DESC)`},
	} {
		f := newFixture(t, smallDatabase(t), "")
		if err := f.do(t, t.Context(), Work{}, 1, false); err != nil {
			t.Fatal(err)
		}
		fresh := *f.DB
		fresh.Name = f.params.fresh
		err := f.do(t, t.Context(), once(c[0], func() { fresh.AdminExec(t, c[1]) }), 2, false)
		if !unchanged(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("after %s: %v", c[1], err)
		}
		f.want(t, strings.Replace(databaseBefore, " -1", " 0", 1))
	}
}

func TestNobodyWritesToADatabaseThatIsBeingCopied(t *testing.T) {
	f := newFixture(t, smallDatabase(t), "")
	if err := f.do(t, t.Context(), Work{}, 1, false); err != nil {
		t.Fatal(err)
	}
	var refused, read error
	err := f.do(t, t.Context(), once("post-data", func() {
		conn := connect(t, f.Server, f.Name)
		defer conn.Close(t.Context())
		_, read = conn.Exec(t.Context(), `SET lock_timeout = '100ms'; SELECT * FROM users LIMIT 1`)
		_, refused = conn.Exec(t.Context(), `UPDATE users SET admin = 1`)
	}), 2, false)
	if err != nil || read != nil {
		t.Fatal(err, read)
	}
	if sqlState(refused) != "55P03" {
		t.Errorf("a superuser could write: %v", refused)
	}
}

func TestThePasswordIsInNoFileAndNoArgument(t *testing.T) {
	f := newFixture(t, smallDatabase(t), "")
	k, err := Work{}.open(t.Context(), f.target, *f.plan.Steps[2].Operation, f.host)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	file, env := k.connection()
	if strings.Contains(file, f.Server.Password) || !slices.Contains(env, "PGPASSWORD="+f.Server.Password) {
		t.Error("the password is not where it belongs")
	}
	if text := fmt.Sprintf("%+v", f.plan); strings.Contains(text, f.Server.Password) || strings.Contains(text, f.Password) {
		t.Error("the plan has a password in it")
	}
}

func TestADatabaseThatThePlanHasNotMadeIsNeverDropped(t *testing.T) {
	f := newFixture(t, smallDatabase(t), "")
	if err := f.do(t, t.Context(), Work{}, 1, false); err != nil {
		t.Fatal(err)
	}
	other := *f.DB
	other.Name = f.params.fresh
	f.server(t, "CREATE DATABASE "+other.Name+" CONNECTION LIMIT 0")
	if err := f.do(t, t.Context(), Work{}, 2, false); err == nil || !strings.Contains(err.Error(), "not made") { // though it is empty
		t.Errorf("%v", err)
	}
	other.AdminExec(t, `CREATE TABLE precious (a int)`)
	for _, token := range []string{"", tokenCreating} {
		f.host.token = token
		if err := f.do(t, t.Context(), Work{}, 2, false); err == nil || !strings.Contains(err.Error(), "not made") {
			t.Errorf("token %q: %v", token, err)
		}
		if err := f.do(t, t.Context(), Work{}, 2, true); err == nil {
			t.Errorf("undo dropped it")
		}
	}
	other.AdminExec(t, `SELECT * FROM precious`)
}

func TestUndoRefusesToLoseWhatWasWrittenSince(t *testing.T) {
	f := newFixture(t, smallDatabase(t), "")
	f.apply(t)
	if err := f.do(t, t.Context(), Work{}, 3, true); err != nil {
		t.Fatal(err)
	}
	for says, c := range map[string][2]string{
		`table "public"."users"`:                {`UPDATE users SET admin = 0 WHERE name = 'user 7'`, `UPDATE users SET admin = 7 WHERE name = 'user 7'`},
		`sequence "public"."counter"`:           {`SELECT nextval('counter')`, `SELECT setval('counter', 7)`},
		"relation public.later is new":          {`CREATE TABLE later (a int)`, `DROP TABLE later`},
		"index public.events_body is not there": {`DROP INDEX events_body`, `CREATE INDEX events_body ON events (body)`},
		`table "public"."empty" is (1 rows, `:   {`INSERT INTO empty VALUES (NULL)`, `DELETE FROM empty`},
	} {
		f.AdminExec(t, c[0])
		if err := f.do(t, t.Context(), Work{}, 2, true); !unchanged(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("after %s: %v", c[0], err)
		}
		f.AdminExec(t, c[1])
	}
	f.server(t, fmt.Sprintf("ALTER DATABASE %s RENAME TO away", f.params.before))
	if err := f.do(t, t.Context(), Work{}, 2, true); !unchanged(err) {
		t.Errorf("renamed away: %v", err)
	}
	f.server(t, "ALTER DATABASE away RENAME TO "+f.params.before)
	f.want(t, strings.Replace(databaseAfter, "C/C -1", "C/C 0", 1))
	if err := f.do(t, t.Context(), Work{}, 2, true); err != nil { // as it was again
		t.Fatal(err)
	}
	f.want(t, strings.Replace(databasePutBack, " -1;", " 0;", 1))
}

func TestUndoSaysThatTheOldDatabaseIsGone(t *testing.T) {
	f := newFixture(t, smallDatabase(t), "")
	f.apply(t)
	f.server(t, "DROP DATABASE "+f.params.before)
	if err := f.do(t, t.Context(), Work{}, 2, true); !unchanged(err) || !strings.Contains(err.Error(), "was dropped") {
		t.Errorf("%v", err)
	}
}

func TestASessionInTheDatabaseIsNamedWhenTheNamesAreExchanged(t *testing.T) {
	f := newFixture(t, smallDatabase(t), "")
	if err := f.do(t, t.Context(), Work{}, 1, false); err != nil {
		t.Fatal(err)
	}
	conn := f.AdminConn(t)
	if _, err := conn.Exec(t.Context(), `SELECT 1`); err != nil {
		t.Fatal(err)
	}
	err := f.do(t, t.Context(), Work{}, 2, false)
	if err == nil || unchanged(err) || !strings.Contains(err.Error(), "postgres in "+f.Name) {
		t.Errorf("%v", err)
	}
	// A superuser writes in the meantime: what was complete is made anew.
	if _, err := conn.Exec(t.Context(), `UPDATE users SET admin = -1 WHERE name = 'user 1'`); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
	if err := f.do(t, t.Context(), Work{}, 2, false); err != nil {
		t.Fatal(err)
	}
	var admin int
	if err := f.AdminConn(t).QueryRow(t.Context(), `SELECT admin FROM users WHERE name = 'user 1'`).Scan(&admin); err != nil || admin != -1 {
		t.Errorf("what was written before the exchange is lost: %d, %v", admin, err)
	}
}

func TestNamesOfDatabasesAreShortenedButNeverTheSame(t *testing.T) {
	p := newParams("main", strings.Repeat("ä", 31), 1, "", fixedTime)
	seen := map[string]bool{p.database: true}
	for _, name := range []string{p.fresh, p.before, p.rebuilt} {
		if len(name) > 63 || seen[name] || !strings.HasSuffix(name, "_20261124_063059") || strings.ContainsRune(name, '\uFFFD') {
			t.Errorf("%q", name)
		}
		seen[name] = true
	}
	back, err := readParams(doctor.OperationStep{Params: p.toMap()})
	if err != nil || back != p {
		t.Errorf("%+v, %v", back, err)
	}
	if _, err := readParams(doctor.OperationStep{}); err == nil {
		t.Error("parameters that are missing were read")
	}
}

func TestSettingsOfADatabaseAreWrittenAsTheServerStoredThem(t *testing.T) {
	for value, want := range map[string]string{
		`public`: `'public'`, `"$user", public`: `'$user', 'public'`, `"a, b", "c""d"`: `'a, b', 'c"d'`, ``: `''`, `""`: `''`, `it's`: `'it''s'`,
	} {
		if got := settingValue("search_path", value); got != want {
			t.Errorf("search_path %s: %s, want %s", value, got, want)
		}
	}
	if got := settingValue("application_name", `a, "b"`); got != `'a, "b"'` {
		t.Error(got)
	}
}

func TestErrorsThatComeAgainAreToldFromInterruptions(t *testing.T) {
	if final(errors.New("connection reset")) || final(context.Canceled) || !final(mismatch("x")) || !final(&programError{}) {
		t.Error("wrong")
	}
}

var fixedTime = time.Date(2026, 11, 24, 6, 30, 59, 0, time.UTC)
