package database

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// bench is a homeserver with a state directory of its own.
type bench struct {
	homeserver
	state string
}

func (h homeserver) bench(t *testing.T) bench {
	return bench{h, filepath.Join(t.TempDir(), "state")}
}

func (b bench) engine(t *testing.T, trace func(string)) *engine.Engine {
	target := b.target(t)
	target.RunID = "" // for the engine to make
	for _, d := range target.Databases {
		d.Meets = 0 // for the engine to find out
	}
	return engine.New(engine.Options{Version: "test", Target: target, StateDir: b.state, Trace: trace,
		Sources: []doctor.Source{&doctor.Local{PluginName: "test", Checks: []doctor.Check{Check}}}})
}

func agree(context.Context, doctor.PlanResult) error { return nil }

// fix applies what is to be applied, and wants exactly these plans, applied and cured.
func (b bench) fix(t *testing.T, want ...string) []doctor.Plan {
	t.Helper()
	r, err := b.engine(t, nil).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var plans []doctor.Plan
	for _, p := range r.Plans {
		got, plans = append(got, p.Plan.ID), append(plans, p.Plan)
		if p.Status != doctor.PlanApplied {
			t.Fatalf("%s is %s: %s", p.Plan.ID, p.Status, p.Reason)
		}
		b.keepsSecrets(t, fmt.Sprintf("%+v", p))
		for _, s := range p.Plan.Steps {
			b.keepsSecrets(t, fmt.Sprintf("%+v", s.SQL))
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("plans %q, want %q", got, want)
	}
	if r.After != nil && r.After.Checks[0].Status != doctor.StatusOK {
		t.Fatalf("after the fix: %+v", r.After.Checks[0])
	}
	return plans
}

func (b bench) undo(t *testing.T) *engine.UndoReport {
	t.Helper()
	u, err := b.engine(t, nil).Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (b bench) undone(t *testing.T) {
	t.Helper()
	for _, p := range b.undo(t).Plans {
		if p.Status != doctor.PlanApplied {
			t.Fatalf("undo of %s is %s: %s", p.Plan.ID, p.Status, p.Reason)
		}
	}
}

func (b bench) notUndone(t *testing.T, because string) {
	t.Helper()
	p := b.undo(t).Plans[0]
	if p.Status != doctor.PlanRefused && p.Status != doctor.PlanFailed || !strings.Contains(p.Reason, because) {
		t.Fatalf("undo of %s is %s: %s; want %q", p.Plan.ID, p.Status, p.Reason, because)
	}
}

// statements are what a plan runs, without the masked password.
func statements(p doctor.Plan) []string {
	var all []string
	for _, s := range p.Steps {
		all = append(all, s.SQL.Statement)
	}
	return all
}

const odd = `it's a "pass" wörd\`

// fresh is a homeserver on a server that knows nothing of it.
func freshOn(s *pgtest.Server) homeserver {
	return homeserver{server: s, entries: []entryOf{{label: "main", user: "synapse_user", password: odd, name: "synapse", stores: both}}}
}

// there says what there is of the homeserver's role and database.
func (b bench) there(t *testing.T) string {
	e := b.entries[0]
	return ask(t, b.server, "", `SELECT (SELECT count(*) FROM pg_roles WHERE rolname = $1)::text || ' role, ' || (SELECT count(*) FROM pg_database WHERE datname = $2) || ' database'`, e.user, e.name)
}

func createdAndPutBack(t *testing.T, s *pgtest.Server) {
	b := freshOn(s).bench(t)
	p := b.fix(t, "database/create")[0]
	provider := " LOCALE_PROVIDER libc"
	if s.Major(t) < 15 {
		provider = ""
	}
	if got, want := statements(p)[:2], []string{"CREATE ROLE synapse_user LOGIN PASSWORD '********'",
		"CREATE DATABASE synapse ENCODING 'UTF8'" + provider + " LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0 OWNER synapse_user"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := ask(t, s, "synapse", `SELECT concat_ws(' ', pg_encoding_to_char(encoding), datcollate, datctype, to_jsonb(d) ->> 'datlocprovider',
		to_jsonb(d) ->> 'daticulocale', to_jsonb(d) ->> 'datlocale', datdba::regrole, datacl, datconnlimit) FROM pg_database d WHERE datname = 'synapse'`); got != "UTF8 C C c synapse_user -1" && got != "UTF8 C C synapse_user -1" {
		t.Errorf("the database is %s", got)
	}
	if got := ask(t, s, "synapse", `SELECT concat_ws(' ', rolpassword ~ '^SCRAM-SHA-256\$4096:', rolsuper, rolcreatedb, rolcreaterole, rolconnlimit, ('a' < 'B')) FROM pg_authid WHERE rolname = 'synapse_user'`); got != "t f f f -1 f" {
		t.Errorf("the role is %s", got)
	}
	// As Synapse would, with the odd password, over TCP, which asks for it.
	settings := b.settings(b.entries[0])
	c, err := pgdb.Connect(t.Context(), settings, pgdb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Exec(t.Context(), "CREATE TABLE made (i int); DROP TABLE made")
	pgdb.Close(c)
	if err != nil {
		t.Error(err)
	}
	wrong := maps.Clone(settings)
	wrong["password"] += "x"
	if c, err := pgdb.Connect(t.Context(), wrong, pgdb.Options{}); err == nil {
		pgdb.Close(c)
		t.Error("another password works as well")
	}
	if strings.Contains(s.Log(), odd) {
		t.Error("the password is in the server's log")
	}
	b.fix(t) // nothing to do

	asAdminDo(t, s, "synapse", "CREATE TABLE kept (i int)")
	b.notUndone(t, "is in use")
	if got := b.there(t); got != "1 role, 1 database" {
		t.Errorf("a refused undo left %s", got)
	}
	asAdminDo(t, s, "synapse", "DROP TABLE kept")
	b.undone(t)
	if got := b.there(t); got != "0 role, 0 database" {
		t.Errorf("undo left %s", got)
	}
}

func TestARoleAndADatabaseAreCreatedAndPutBack(t *testing.T) {
	pgtest.EachMajor(t, nil, createdAndPutBack)
}

// On a server made with another provider, a database has that unless it is told otherwise.
func TestTheLocaleIsARealCWhateverTheServerWasMadeWith(t *testing.T) {
	pgtest.EachMajor(t, func(major int) pgtest.Config {
		switch {
		case major < 15:
			return pgtest.Config{InitdbArgs: []string{"--locale=C.UTF-8"}}
		case major < 17:
			return pgtest.Config{InitdbArgs: []string{"--locale-provider=icu", "--icu-locale=en"}}
		}
		return pgtest.Config{InitdbArgs: []string{"--locale-provider=builtin", "--builtin-locale=C.UTF-8"}}
	}, createdAndPutBack)
}

func TestTheLocaleIsARealCWhereTheNewestServersWereMadeWithICU(t *testing.T) {
	for _, major := range []string{"17", "18"} {
		t.Run(major, func(t *testing.T) {
			s, err := pgtest.New(t.Context(), pgtest.Config{Version: major, InitdbArgs: []string{"--locale-provider=icu", "--icu-locale=en"}})
			if errors.Is(err, pgtest.ErrNoServer) && os.Getenv("SYNAPSE_DOCTOR_REQUIRE_MATRIX") != "1" {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			createdAndPutBack(t, s)
		})
	}
}

// The size is what tells when looking inside has been done, and somebody came between that and DROP DATABASE.
func TestADatabaseThatWasFilledBetweenTwoUndosIsNotDropped(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{})
	b := freshOn(s).bench(t)
	b.fix(t, "database/create")
	inTheWay := superuser(t, s, "synapse")
	b.notUndone(t, "55006") // DROP DATABASE waits five seconds for it
	inTheWay.Close(t.Context())
	asAdminDo(t, s, "synapse", `DO $$ BEGIN FOR i IN 1..170 LOOP EXECUTE format('CREATE TABLE t%s (k text PRIMARY KEY, v text)', i); END LOOP; END $$`)
	b.notUndone(t, "is not the empty one")
	asAdminDo(t, s, "synapse", `DO $$ BEGIN FOR i IN 1..170 LOOP EXECUTE format('DROP TABLE t%s', i); END LOOP; END $$`, "VACUUM FULL")
	b.undone(t)
	if got := b.there(t); got != "0 role, 0 database" {
		t.Errorf("undo left %s", got)
	}
}

// What unfilled is measured against.
func TestAnEmptyHomeserverIsFarLargerThanAnEmptyDatabase(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_empty.dump")))
	asAdminDo(t, db.Server, db.Name, "VACUUM FULL")
	query := fmt.Sprintf(`SELECT (pg_database_size($1) - pg_database_size('template0') > 2 * %d)::text`, unfilled)
	if ask(t, db.Server, "", query, db.Name) != "true" {
		t.Error("the tables of an empty homeserver are smaller than was thought")
	}
}

func TestARoleIsCreatedWithoutAPasswordWhereNoneIsConfigured(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{})
	h := freshOn(s)
	h.entries[0].password, h.entries[0].extra = "", pgdb.Settings{"host": s.SocketDir} // trusted there
	b := h.bench(t)
	if got := statements(b.fix(t, "database/create")[0])[0]; got != "CREATE ROLE synapse_user LOGIN" {
		t.Error(got)
	}
	if got := ask(t, s, "", `SELECT coalesce(rolpassword, 'none') FROM pg_authid WHERE rolname = 'synapse_user'`); got != "none" {
		t.Error("it has a password")
	}
	b.undone(t)
}

func TestOddNamesAreCreatedAndPutBack(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{})
	h := freshOn(s)
	h.entries[0].user, h.entries[0].name = `Synapse-"User"`, `the "user's" data; DROP`
	b := h.bench(t)
	b.fix(t, "database/create")
	if got := b.there(t); got != "1 role, 1 database" {
		t.Error(got)
	}
	b.undone(t)
	if got := b.there(t); got != "0 role, 0 database" {
		t.Error(got)
	}
}

func TestTwoDatabasesOfOneMissingRoleAreCreatedAndPutBack(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{})
	h := freshOn(s)
	h.entries = append(h.entries, h.entries[0])
	h.entries[0].stores, h.entries[1].stores = []string{"main"}, []string{"state"}
	h.entries[1].label, h.entries[1].name = "state", "synapse_state"
	b := h.bench(t)
	p := b.fix(t, "database/create", "database/create-state")
	if len(p[0].Steps) != 3 || len(p[1].Steps) != 2 {
		t.Errorf("%q, %q", statements(p[0]), statements(p[1]))
	}
	b.undone(t)
	if got := ask(t, s, "", `SELECT count(*)::text FROM pg_database WHERE datname LIKE 'synapse%'`); got != "0" {
		t.Error("a database is left")
	}
	if got := b.there(t); got != "0 role, 0 database" {
		t.Error(got)
	}
}

// A role that cannot log in, is limited and misled: all of it is put right when its database is made.
func TestADatabaseIsCreatedForARoleThatIsInTheWayOfItself(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{})
	b := freshOn(s).bench(t)
	asAdminDo(t, s, "", "CREATE ROLE synapse_user NOLOGIN CONNECTION LIMIT 2", "ALTER ROLE synapse_user SET search_path = nowhere", "ALTER ROLE synapse_user SET client_encoding = 'LATIN1'")
	before := b.snapshot(t, "postgres")
	p := b.fix(t, "database/create")[0]
	want := []string{"ALTER ROLE synapse_user LOGIN", "ALTER ROLE synapse_user CONNECTION LIMIT -1", "ALTER ROLE synapse_user RESET search_path", "ALTER ROLE synapse_user RESET client_encoding"}
	if got := statements(p)[:4]; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	b.undone(t)
	if after := b.snapshot(t, "postgres"); after != before {
		t.Errorf("undo left\n%s\nwhere there was\n%s", after, before)
	}
}

// An administrator who is no superuser may make a role, and yet not give it a database: for that it must be a member.
func TestWhatALesserAdministratorMayNotDoIsPutBack(t *testing.T) {
	pgtest.EachMajor(t, nil, func(t *testing.T, s *pgtest.Server) {
		asAdminDo(t, s, "", "CREATE ROLE dba LOGIN CREATEDB CREATEROLE PASSWORD 'of-the-dba'", "GRANT pg_monitor TO dba")
		b := freshOn(s).bench(t)
		b.adminAs = pgdb.Settings{"host": s.Host, "user": "dba", "password": "of-the-dba", "dbname": "postgres"}
		r, err := b.engine(t, nil).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Plans) != 1 || r.Plans[0].Status != doctor.PlanFailed || !strings.Contains(r.Plans[0].Reason, "42501") {
			t.Fatalf("%+v", r.Plans)
		}
		if got := b.there(t); got != "0 role, 0 database" {
			t.Errorf("it left %s", got)
		}
		asAdminDo(t, s, "", "CREATE ROLE synapse_user LOGIN", "GRANT synapse_user TO dba")
		b.fix(t, "database/create")
		b.undone(t)
		if got := b.there(t); got != "1 role, 0 database" {
			t.Errorf("undo left %s", got)
		}
	})
}

// ownGrant is what an ACL says of the owner itself, who may grant everything whether or not that is said.
var ownGrant = regexp.MustCompile(`(\w+)=([a-zA-Z*]+)/(\w+)`)

// snapshot is all that a plan may change, as the catalogs have it.
func (b bench) snapshot(t *testing.T, database string) string {
	t.Helper()
	text := ask(t, b.server, database, `SELECT concat_ws(E'\n',
	(SELECT string_agg(concat_ws(' ', datname, datdba::regrole, datacl, datconnlimit), E'\n' ORDER BY datname) FROM pg_database),
	(SELECT string_agg(concat_ws(' ', rolname, rolcanlogin, rolconnlimit), E'\n' ORDER BY rolname) FROM pg_roles WHERE rolname !~ '^pg_'),
	(SELECT string_agg(concat_ws(' ', setrole::regrole, setdatabase, one), E'\n' ORDER BY setrole, setdatabase, one) FROM pg_db_role_setting, unnest(setconfig) one),
	(SELECT string_agg(concat_ws(' ', nspname, nspowner::regrole, nspacl), E'\n' ORDER BY nspname) FROM pg_namespace),
	(SELECT string_agg(concat_ws(' ', oid::regclass, relowner::regrole, relacl), E'\n' ORDER BY oid::regclass::text) FROM pg_class WHERE relnamespace = 'public'::regnamespace),
	(SELECT string_agg(concat_ws(' ', oid::regprocedure, proowner::regrole, proacl), E'\n' ORDER BY oid::regprocedure::text) FROM pg_proc WHERE pronamespace = 'public'::regnamespace))`)
	return ownGrant.ReplaceAllStringFunc(text, func(grant string) string {
		if m := ownGrant.FindStringSubmatch(grant); m[1] == m[3] {
			return strings.ReplaceAll(grant, "*", "")
		}
		return grant
	})
}

func TestWhatIsPermittedIsPutBackToTheLastGrant(t *testing.T) {
	cases := []struct {
		name   string
		setup  string
		breaks []string
		plan   string
		want   []string // statements
		newest bool
	}{
		{name: "the database of another", breaks: []string{"ALTER DATABASE {db} OWNER TO postgres"}, plan: "database/permit", newest: true,
			want: []string{"ALTER DATABASE {db} OWNER TO synapse_user"}},
		{name: "the database of another, from an older server",
			breaks: []string{"ALTER DATABASE {db} OWNER TO postgres", "ALTER SCHEMA public OWNER TO postgres", "REVOKE CREATE ON SCHEMA public FROM PUBLIC, synapse_user", "GRANT ALL ON SCHEMA public TO postgres"}, plan: "database/permit",
			want: []string{"ALTER DATABASE {db} OWNER TO synapse_user", "GRANT CREATE ON SCHEMA public TO synapse_user"}},
		{name: "not even CONNECT", breaks: []string{"ALTER DATABASE {db} OWNER TO postgres", "REVOKE CONNECT ON DATABASE {db} FROM PUBLIC, synapse_user", "GRANT CREATE ON SCHEMA public TO synapse_user"}, plan: "database/permit",
			want: []string{"ALTER DATABASE {db} OWNER TO synapse_user"}},
		{name: "not even CONNECT, for the owner either",
			breaks: []string{"GRANT TEMP ON DATABASE {db} TO stranger WITH GRANT OPTION", "REVOKE CONNECT ON DATABASE {db} FROM PUBLIC, synapse_user", "ALTER DATABASE {db} OWNER TO postgres", "GRANT TEMP ON DATABASE {db} TO synapse_user WITH GRANT OPTION", "GRANT CREATE ON SCHEMA public TO synapse_user"}, plan: "database/permit",
			want: []string{"ALTER DATABASE {db} OWNER TO synapse_user", "GRANT CONNECT ON DATABASE {db} TO synapse_user"}},
		{name: "no CONNECT for the owner", breaks: []string{"REVOKE CONNECT ON DATABASE {db} FROM PUBLIC, synapse_user"}, plan: "database/permit",
			want: []string{"GRANT CONNECT ON DATABASE {db} TO synapse_user"}},
		{name: "nothing in the schema", breaks: []string{"ALTER SCHEMA public OWNER TO postgres", "REVOKE ALL ON SCHEMA public FROM PUBLIC, synapse_user", "GRANT ALL ON SCHEMA public TO stranger"}, plan: "database/permit",
			want: []string{"GRANT USAGE, CREATE ON SCHEMA public TO synapse_user"}},
		{name: "misled and limited", breaks: []string{"ALTER ROLE synapse_user NOLOGIN CONNECTION LIMIT 1", "ALTER DATABASE {db} CONNECTION LIMIT 3", `ALTER ROLE synapse_user IN DATABASE {db} SET search_path = 'a, "b"', "C"`,
			"ALTER DATABASE {db} SET search_path = nowhere", "ALTER DATABASE {db} SET client_encoding = latin1", "ALTER SCHEMA public OWNER TO postgres", "REVOKE CREATE ON SCHEMA public FROM PUBLIC, synapse_user"}, plan: "database/permit",
			want: []string{"ALTER ROLE synapse_user LOGIN", "ALTER ROLE synapse_user CONNECTION LIMIT -1", "ALTER ROLE synapse_user IN DATABASE {db} RESET search_path", "ALTER DATABASE {db} RESET search_path",
				"ALTER DATABASE {db} RESET client_encoding", "ALTER DATABASE {db} CONNECTION LIMIT -1", "GRANT CREATE ON SCHEMA public TO synapse_user"}},
		{name: "restored as another, and all granted", setup: pgtest.Fixture() + `;CREATE FUNCTION f(int, text) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TABLE "Odd Table" (i int GENERATED ALWAYS AS IDENTITY, s serial)`,
			breaks: []string{restoredAs("postgres"), "ALTER FUNCTION f OWNER TO postgres", "GRANT ALL ON ALL TABLES IN SCHEMA public TO stranger, synapse_user", "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO synapse_user", "GRANT SELECT ON users TO synapse_user WITH GRANT OPTION", "GRANT EXECUTE ON FUNCTION f TO synapse_user"}, plan: "database/permit"},
		{name: "restored without the role", setup: pgtest.Fixture(), breaks: []string{"REASSIGN OWNED BY synapse_user TO stranger", "DROP OWNED BY synapse_user", "DROP ROLE synapse_user"}, plan: "database/create"},
		{name: "restored without the role, from an older server", breaks: []string{"ALTER SCHEMA public OWNER TO postgres", "REVOKE CREATE ON SCHEMA public FROM PUBLIC", "REVOKE CONNECT ON DATABASE {db} FROM PUBLIC", "ALTER DATABASE {db} SET search_path = nowhere",
			"REASSIGN OWNED BY synapse_user TO stranger", "DROP OWNED BY synapse_user", "DROP ROLE synapse_user"}, plan: "database/create",
			want: []string{"CREATE ROLE synapse_user LOGIN PASSWORD '********'", "ALTER DATABASE {db} RESET search_path", "ALTER DATABASE {db} OWNER TO synapse_user", "GRANT CREATE ON SCHEMA public TO synapse_user"}},
	}
	pgtest.EachMajor(t, nil, func(t *testing.T, s *pgtest.Server) {
		asAdminDo(t, s, "", "CREATE ROLE stranger")
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				if c.newest && s.Major(t) < 15 {
					t.Skip("before PostgreSQL 15 the owner of the schema public is another")
				}
				asAdminDo(t, s, "", `DO $$ BEGIN CREATE ROLE synapse_user; EXCEPTION WHEN duplicate_object THEN END $$`, "ALTER ROLE synapse_user LOGIN CONNECTION LIMIT -1 PASSWORD 'by-which-it-logs-in'")
				asAdminDo(t, s, "", "CREATE DATABASE synapse OWNER synapse_user TEMPLATE template0")
				t.Cleanup(func() { asAdminDo(t, s, "", "DROP DATABASE synapse WITH (FORCE)") })
				if c.setup != "" {
					asAdminDo(t, s, "synapse", "SET ROLE synapse_user;"+c.setup)
				}
				db := &pgtest.DB{Server: s, Name: "synapse", Host: s.Host, Port: s.Port, User: "synapse_user", Password: "by-which-it-logs-in"}
				for _, sql := range c.breaks {
					asAdminDo(t, s, "synapse", named(sql, db))
				}
				b := of(db).bench(t)
				before := b.snapshot(t, "synapse")
				p := b.fix(t, c.plan)[0]
				if c.want != nil {
					var want []string
					for _, sql := range c.want {
						want = append(want, named(sql, db))
					}
					if got := statements(p); !slices.Equal(got, want) {
						t.Errorf("ran\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
					}
				}
				if b.snapshot(t, "synapse") == before {
					t.Error("the plan changed nothing that is looked at")
				}
				asSynapse(t, b.settings(b.entries[0]))
				b.undone(t)
				if after := b.snapshot(t, "synapse"); after != before {
					t.Errorf("undo left\n%s", differing(before, after))
				}
			})
		}
	})
}

// asSynapse makes a table, and changes one where there is one.
func asSynapse(t *testing.T, s pgdb.Settings) {
	t.Helper()
	c, err := pgdb.Connect(t.Context(), s, pgdb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer pgdb.Close(c)
	if _, err := c.Exec(t.Context(), `BEGIN; CREATE TABLE made (i int); ALTER TABLE IF EXISTS users ADD x int; ALTER TABLE IF EXISTS "Odd Table" ADD x int; ROLLBACK`); err != nil {
		t.Errorf("as Synapse: %v", err)
	}
}

func differing(before, after string) string {
	var b strings.Builder
	old := strings.Split(before, "\n")
	for _, line := range strings.Split(after, "\n") {
		if !slices.Contains(old, line) {
			b.WriteString("+ " + line + "\n")
		}
	}
	now := strings.Split(after, "\n")
	for _, line := range old {
		if !slices.Contains(now, line) {
			b.WriteString("- " + line + "\n")
		}
	}
	return b.String()
}

// errCut ends an apply as a kill would: no step after it is recorded or carried out.
var errCut = errors.New("cut off")

func TestACreationThatIsCutOffAnywhereIsSettledByTheNextRun(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{})
	for n := 1; ; n++ {
		b := freshOn(s).bench(t)
		seen, cut := 0, make(chan string)
		go func() {
			point := ""
			defer func() {
				if r := recover(); r != nil && r != errCut {
					panic(r)
				}
				cut <- point
			}()
			_, _ = b.engine(t, func(p string) {
				if seen++; seen == n {
					point = p
					panic(errCut)
				}
			}).Fix(context.WithoutCancel(t.Context()), engine.FixOptions{Apply: true, Consent: agree})
		}()
		point := <-cut
		r, err := b.engine(t, nil).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
		if err != nil {
			t.Fatalf("cut off at %q: %v", point, err)
		}
		for _, p := range r.Plans {
			if p.Status != doctor.PlanApplied {
				t.Errorf("cut off at %q: %s is %s: %s", point, p.Plan.ID, p.Status, p.Reason)
			}
		}
		if got := b.there(t); got != "1 role, 1 database" {
			t.Errorf("cut off at %q: the next run left %s", point, got)
		}
		b.undone(t)
		if got := b.there(t); got != "0 role, 0 database" {
			t.Fatalf("cut off at %q: undo left %s", point, got)
		}
		if point == "" {
			return
		}
	}
}
