package database

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// entryOf is one database of a test's homeserver.
type entryOf struct {
	label, user, password, name string
	extra                       pgdb.Settings // host, options
	cpMax                       int           // 0: not configured
	stores                      []string
}

// homeserver is a test's configuration on one server.
type homeserver struct {
	server  *pgtest.Server
	entries []entryOf
	extra   string // of homeserver.yaml
	noAdmin bool
	noLogin bool          // Synapse's login is taken not to work
	adminAs pgdb.Settings // what differs from the superuser's
}

func (h homeserver) settings(e entryOf) pgdb.Settings {
	s := pgdb.Settings{"host": h.server.Host, "port": fmt.Sprint(h.server.Port), "user": e.user, "dbname": e.name}
	if e.password != "" {
		s["password"] = e.password
	}
	maps.Copy(s, e.extra)
	return s
}

// config writes homeserver.yaml.
func (h homeserver) config(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("server_name: test.example\n" + h.extra + "databases:\n")
	for _, e := range h.entries {
		fmt.Fprintf(&b, "  %s:\n    name: psycopg2\n    data_stores: [%s]\n    args:\n", e.label, strings.Join(e.stores, ", "))
		for k, v := range h.settings(e) {
			fmt.Fprintf(&b, "      %s: %q\n", k, v)
		}
		if e.cpMax > 0 {
			fmt.Fprintf(&b, "      cp_max: %d\n", e.cpMax)
		}
	}
	path := filepath.Join(t.TempDir(), "homeserver.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (h homeserver) admin() *doctor.Database {
	s := pgdb.Settings{"host": h.server.SocketDir, "port": fmt.Sprint(h.server.Port), "user": "postgres", "password": h.server.Password, "dbname": "postgres", "sslmode": "disable"}
	maps.Copy(s, h.adminAs)
	return &doctor.Database{Label: "admin", Engine: doctor.Postgres, Settings: s}
}

// target is what the engine would hand to the check.
func (h homeserver) target(t *testing.T) *doctor.Target {
	t.Helper()
	target := &doctor.Target{RunID: "test", ServerName: "test.example", ConfigFiles: []string{h.config(t)}}
	if !h.noAdmin {
		target.Admin = h.admin()
	}
	for _, e := range h.entries {
		d := &doctor.Database{Label: e.label, Engine: doctor.Postgres, DataStores: e.stores, Settings: h.settings(e), Meets: doctor.NeedsPostgresEntry}
		if h.noAdmin {
			d.NoAdmin = "none was given (--admin-dsn)"
		} else {
			d.Meets |= doctor.NeedsAdmin
		}
		if !h.noLogin && d.Read(t.Context(), func(pgx.Tx) error { return nil }) == nil {
			d.Meets |= doctor.NeedsPostgres
		}
		d.Close()
		target.Databases = append(target.Databases, d)
	}
	target.Bind()
	t.Cleanup(target.Close)
	return target
}

var both = []string{"main", "state"}

// of is a homeserver with this one database.
func of(db *pgtest.DB) homeserver {
	return homeserver{server: db.Server, entries: []entryOf{{label: "main", user: db.User, password: db.Password, name: db.Name, stores: both}}}
}

// collector is a Reporter.
type collector []doctor.Finding

func (c *collector) Find(f doctor.Finding)    { *c = append(*c, f) }
func (c *collector) Progress(doctor.Progress) {}
func (c *collector) Covered(string)           {}
func (c *collector) Measure(doctor.Measure)   {}

// finds runs the check and wants these findings: code, severity, kind and name of the object, and whether it is fixable.
func (h homeserver) finds(t *testing.T, want ...string) []doctor.Finding {
	t.Helper()
	var found collector
	if err := Check.Run(t.Context(), h.target(t), &found); err != nil {
		t.Fatal(err)
	}
	h.want(t, found, want)
	return found
}

func (h homeserver) want(t *testing.T, found []doctor.Finding, want []string) {
	t.Helper()
	var got []string
	for _, f := range found {
		text := fmt.Sprintf("%s %s %s %s", f.Code, f.Severity, f.Object.Kind, f.Object.Name)
		if f.Fixable {
			text += " fixable"
		}
		got = append(got, text)
		h.wellFormed(t, f)
	}
	if !slices.Equal(got, want) {
		t.Errorf("found\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func (h homeserver) wellFormed(t *testing.T, f doctor.Finding) {
	t.Helper()
	known := slices.ContainsFunc(Check.Codes, func(c doctor.Code) bool { return c.ID == f.Code })
	if !known || f.Database == "" || f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" {
		t.Errorf("incomplete: %+v", f)
	}
	h.keepsSecrets(t, fmt.Sprintf("%+v", f))
}

func (h homeserver) keepsSecrets(t *testing.T, text string) {
	t.Helper()
	for _, e := range h.entries {
		if e.password != "" && strings.Contains(text, e.password) {
			t.Errorf("the password is in %s", text)
		}
	}
}

// asAdminDo runs statements as the superuser, each in a transaction of its own, in the named database.
func asAdminDo(t *testing.T, s *pgtest.Server, database string, statements ...string) {
	t.Helper()
	c := superuser(t, s, database)
	defer c.Close(context.Background())
	for _, sql := range statements {
		if _, err := c.Exec(context.WithoutCancel(t.Context()), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func superuser(t *testing.T, s *pgtest.Server, database string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(s.Admin())
	if err != nil {
		t.Fatal(err)
	}
	if database != "" {
		config.Database = database
	}
	c, err := pgx.ConnectConfig(context.WithoutCancel(t.Context()), config) // a test's end has things to put right too
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask returns the one text that a query gives to the superuser.
func ask(t *testing.T, s *pgtest.Server, database, query string, args ...any) string {
	t.Helper()
	c := superuser(t, s, database)
	defer c.Close(context.Background())
	var text string
	if err := c.QueryRow(t.Context(), query, args...).Scan(&text); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return text
}

func TestASoundHomeserverHasNoFindingsOnAnyServer(t *testing.T) {
	pgtest.EachMajor(t, nil, func(t *testing.T, s *pgtest.Server) {
		for _, setup := range []string{"", pgtest.Fixture()} {
			h := of(s.Database(t, pgtest.WithSetup(setup)))
			h.finds(t)
			h.noAdmin = true
			h.finds(t)
			h.noAdmin, h.noLogin = false, true
			h.finds(t)
		}
	})
}

// named puts the names of the test's own database and of its owner into a text.
func named(text string, db *pgtest.DB) string {
	return strings.NewReplacer("{db}", db.Name, "{role}", db.User).Replace(text)
}

func TestEachFaultIsFound(t *testing.T) {
	shared := pgtest.Start(t)
	fifteen := shared.Major(t) >= 15
	asAdminDo(t, shared, "", "CREATE ROLE stranger", "CREATE ROLE owners")
	for i, c := range []struct {
		name    string
		setup   string
		breaks  []string // as the superuser, in the database
		noLogin bool     // Synapse can't get in either
		want    []string
		seen    []string // by Synapse's login; nil: the same, none of them fixable
		newest  bool     // only from 15 on
	}{
		{name: "may not log in", breaks: []string{"ALTER ROLE {role} NOLOGIN"},
			want: []string{"database/role-cannot-login error role {role} fixable"}, noLogin: true},
		{name: "closed", breaks: []string{"UPDATE pg_database SET datallowconn = false WHERE datname = '{db}'"},
			want: []string{"database/not-allowing-connections error database {db}"}, noLogin: true},
		{name: "limited to none", breaks: []string{"ALTER DATABASE {db} CONNECTION LIMIT 0"},
			want: []string{"database/not-allowing-connections error database {db}"}, noLogin: true},
		{name: "half dropped", breaks: []string{"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{db}'"},
			want: []string{"database/not-allowing-connections error database {db}"}, noLogin: true},
		{name: "no CONNECT", breaks: []string{"REVOKE CONNECT ON DATABASE {db} FROM PUBLIC, {role}"},
			want: []string{"database/connect-revoked error database {db} fixable"}, noLogin: true},
		{name: "another owner", breaks: []string{"ALTER DATABASE {db} OWNER TO stranger"}, newest: true,
			want: []string{"database/owner-wrong error database {db} fixable", "database/no-create-on-schema error schema public fixable"}},
		{name: "another owner, all granted", breaks: []string{"ALTER DATABASE {db} OWNER TO stranger", "GRANT CREATE ON SCHEMA public TO {role}"},
			want: []string{"database/owner-wrong warning database {db} fixable"}},
		{name: "a member of the owner", breaks: []string{"ALTER DATABASE {db} OWNER TO owners", "GRANT CREATE ON SCHEMA public TO {role}", "GRANT owners TO {role}"}},
		{name: "a member of the owner that does not inherit",
			breaks: []string{"ALTER DATABASE {db} OWNER TO owners", "GRANT CREATE ON SCHEMA public TO {role}", "ALTER ROLE {role} NOINHERIT", "GRANT owners TO {role}"},
			want:   []string{"database/owner-wrong warning database {db} fixable"}},
		{name: "no CREATE though owner", breaks: []string{"ALTER SCHEMA public OWNER TO postgres", "REVOKE CREATE ON SCHEMA public FROM PUBLIC, {role}"},
			want: []string{"database/no-create-on-schema error schema public fixable"}},
		{name: "no USAGE", breaks: []string{"ALTER SCHEMA public OWNER TO postgres", "REVOKE ALL ON SCHEMA public FROM PUBLIC, {role}"},
			want: []string{"database/no-create-on-schema error schema public fixable"}},
		{name: "no schema", breaks: []string{"DROP SCHEMA public"},
			want: []string{"database/no-create-on-schema error schema public"}},
		{name: "few connections of the role", breaks: []string{"ALTER ROLE {role} CONNECTION LIMIT 4"},
			want: []string{"database/connection-limit warning role {role} fixable"}},
		{name: "no connections of the role", breaks: []string{"ALTER ROLE {role} CONNECTION LIMIT 0"}, noLogin: true,
			want: []string{"database/connection-limit error role {role} fixable"}},
		{name: "enough connections of the role", breaks: []string{"ALTER ROLE {role} CONNECTION LIMIT 5"}},
		{name: "few connections to the database", breaks: []string{"ALTER DATABASE {db} CONNECTION LIMIT 4"},
			want: []string{"database/connection-limit warning database {db} fixable"}},
		{name: "few connections to the database, for a superuser", breaks: []string{"ALTER DATABASE {db} CONNECTION LIMIT 4", "ALTER ROLE {role} SUPERUSER CONNECTION LIMIT 1"}},
		{name: "a path of the role to nowhere", breaks: []string{"ALTER ROLE {role} SET search_path = 'nowhere, public'"},
			want: []string{"database/search-path-set error role {role} fixable"}},
		{name: "a path of the database to another schema", breaks: []string{"CREATE SCHEMA other AUTHORIZATION {role}", "ALTER DATABASE {db} SET search_path = other, public"},
			want: []string{"database/search-path-set warning database {db} fixable"}},
		{name: "a path of the role in the database where it may not create", breaks: []string{"CREATE SCHEMA other", "GRANT USAGE ON SCHEMA other TO {role}", "ALTER ROLE {role} IN DATABASE {db} SET search_path = other, public"},
			want: []string{"database/search-path-set error role {role} fixable"}},
		{name: "a path over a schema that it may not use", breaks: []string{"CREATE SCHEMA other", "ALTER ROLE {role} SET search_path = other, public"}},
		{name: "a path of everybody", breaks: []string{"ALTER ROLE ALL SET search_path = nowhere"},
			want: []string{"database/search-path-set error setting search_path"}},
		{name: "two paths, one after the other", breaks: []string{"ALTER ROLE {role} SET search_path = nowhere", "ALTER DATABASE {db} SET search_path = elsewhere"},
			want: []string{"database/search-path-set error role {role} fixable", "database/search-path-set error database {db} fixable"}},
		{name: "a wrong path behind a sound one", breaks: []string{"ALTER ROLE {role} SET search_path = public", "ALTER DATABASE {db} SET search_path = elsewhere"}},
		{name: "a path away from Synapse's tables", setup: pgtest.Fixture(), breaks: []string{"CREATE SCHEMA other AUTHORIZATION {role}", "ALTER ROLE {role} SET search_path = other"},
			want: []string{"database/search-path-set error role {role} fixable"}},
		{name: "a path that makes new tables elsewhere", setup: pgtest.Fixture(), breaks: []string{"CREATE SCHEMA other AUTHORIZATION {role}", "ALTER ROLE {role} SET search_path = other, public"},
			want: []string{"database/search-path-set warning role {role} fixable"}},
		{name: "Synapse's tables in a schema of their own", setup: "CREATE SCHEMA matrix; SET search_path = matrix;" + pgtest.Fixture(), breaks: []string{"ALTER ROLE {role} SET search_path = matrix"}},
		{name: "client_encoding, seen by the administrator alone", breaks: []string{"ALTER ROLE {role} SET client_encoding = 'LATIN1'", "ALTER ROLE {role} NOLOGIN"}, noLogin: true,
			want: []string{"database/role-cannot-login error role {role} fixable", "database/client-encoding-set warning role {role} fixable"}},
		{name: "client_encoding, which the check encoding reports", breaks: []string{"ALTER ROLE {role} SET client_encoding = 'LATIN1'"}},
		{name: "client_encoding UTF8 in another spelling", breaks: []string{"ALTER ROLE {role} SET client_encoding = 'Unicode'", "ALTER ROLE {role} NOLOGIN"}, noLogin: true,
			want: []string{"database/role-cannot-login error role {role} fixable"}},
		{name: "restored as the superuser", setup: pgtest.Fixture(), breaks: []string{restoredAs("postgres")},
			want: []string{"database/tables-not-owned error database {db} fixable"}},
		{name: "a table of somebody's among Synapse's", setup: pgtest.Fixture(), breaks: []string{"CREATE TABLE copy_of_mine (i serial)"},
			want: []string{"database/tables-not-owned warning database {db}"}},
		{name: "an extension, a view and a table elsewhere", setup: pgtest.Fixture(),
			breaks: []string{"CREATE EXTENSION pg_trgm", "CREATE TABLE of_the_extension (i int)", "ALTER EXTENSION pg_trgm ADD TABLE of_the_extension", "CREATE VIEW v AS SELECT 1", "CREATE SCHEMA mine", "CREATE TABLE mine.t (i int)"}},
		{name: "sessions become another role", setup: pgtest.Fixture(), breaks: []string{restoredAs("stranger"), "ALTER DATABASE {db} OWNER TO stranger", "ALTER ROLE {role} NOINHERIT", "GRANT stranger TO {role}", "ALTER ROLE {role} SET role = 'stranger'"}},
	} {
		if testing.Short() && i%5 != 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if c.newest && !fifteen {
				t.Skip("before PostgreSQL 15 everybody may make tables in public")
			}
			db := shared.Database(t, pgtest.WithSetup(c.setup), pgtest.WithOwner(fmt.Sprintf("role_%d", i)))
			t.Cleanup(func() { asAdminDo(t, shared, "", "ALTER ROLE ALL RESET search_path") })
			var breaks []string
			for _, sql := range c.breaks {
				breaks = append(breaks, named(sql, db))
			}
			asAdminDo(t, shared, db.Name, breaks...)
			var want, unaided []string
			for _, w := range c.want {
				w = named(w, db)
				want, unaided = append(want, w), append(unaided, strings.TrimSuffix(w, " fixable"))
			}
			h := of(db)
			h.finds(t, want...)
			if !c.noLogin {
				h.noAdmin = true
				h.finds(t, unaided...)
			}
			if c.name == "half dropped" { // which Drop can't
				asAdminDo(t, shared, "", named("UPDATE pg_database SET datconnlimit = -1 WHERE datname = '{db}'", db))
			}
		})
	}
}

// restoredAs makes everything in public the role's, as pg_restore --no-owner does.
func restoredAs(role string) string {
	return fmt.Sprintf(`DO $$ DECLARE r record; BEGIN
  FOR r IN SELECT c.oid::regclass::text AS name, c.relkind FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'S')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
  LOOP EXECUTE format('ALTER %%s %%s OWNER TO %%I', CASE r.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, r.name, %[1]s); END LOOP;
END $$`, literal(role))
}

func TestAMissingRoleAndDatabaseAreFoundUnderAnyName(t *testing.T) {
	s := pgtest.Start(t)
	asAdminDo(t, s, "", `CREATE ROLE "Half-There" LOGIN`)
	for _, c := range []struct {
		user, name string
		want       []string
		sql        string
	}{
		{"nobody", "nothing", []string{"database/role-missing error role nobody fixable", "database/database-missing error database nothing fixable"},
			"CREATE DATABASE nothing ENCODING 'UTF8' LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0 OWNER nobody;"},
		{"Half-There", "my data", []string{"database/database-missing error database my data fixable"},
			`CREATE DATABASE "my data" ENCODING 'UTF8' LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0 OWNER "Half-There";`},
		{"user", "select", []string{"database/role-missing error role user fixable", "database/database-missing error database select fixable"},
			`CREATE DATABASE "select" ENCODING 'UTF8' LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0 OWNER "user";`},
		{"nobody", "postgres", []string{"database/role-missing error role nobody fixable"}, "createuser --pwprompt nobody"},
	} {
		h := homeserver{server: s, entries: []entryOf{{label: "main", user: c.user, password: "secret-of-nobody", name: c.name, stores: both}}}
		found := h.finds(t, c.want...)
		sql := c.sql
		if s.Major(t) < 15 {
			sql = strings.Replace(sql, "LOCALE_PROVIDER libc ", "", 1)
		}
		if len(found) > 0 && !strings.Contains(found[len(found)-1].Remedy, "    "+sql) && !strings.Contains(found[len(found)-1].Remedy, sql) {
			t.Errorf("%s is not in: %s", sql, found[len(found)-1].Remedy)
		}
	}
}

func TestAWrongNameIsAnsweredWithTheDatabasesThatTheRoleHas(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithOwner("owner_of_one"))
	h := of(db)
	h.entries[0].name = "misspelt"
	found := h.finds(t, "database/database-missing error database misspelt fixable")
	if !strings.Contains(found[0].Remedy, "The role owner_of_one owns "+db.Name) {
		t.Error(found[0].Remedy)
	}
}

func TestADatabaseOfSomethingElseIsNotTheDoctorsToChange(t *testing.T) {
	s := pgtest.Start(t)
	for setup, want := range map[string]string{
		"CREATE TABLE shop (i int)": "not Synapse's",
		pgtest.Fixture() + "; INSERT INTO users VALUES ('@zoe:zzz.other.example')":  "another homeserver",
		"CREATE TABLE schema_version (version int); CREATE TABLE users (name text)": "no user yet",
	} {
		db := s.Database(t, pgtest.WithSetup(setup), pgtest.WithOwner("limited_role"))
		asAdminDo(t, s, "", "ALTER ROLE limited_role CONNECTION LIMIT 4")
		found := of(db).finds(t, "database/connection-limit warning role limited_role")
		if len(found) > 0 && !strings.Contains(found[0].Remedy, want) {
			t.Errorf("%q is not in: %s", want, found[0].Remedy)
		}
	}
}

func TestTheConnectionsOfAllProcessesToAllDatabasesAreCounted(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{Settings: map[string]string{"max_connections": "50", "superuser_reserved_connections": "4"}})
	one, two := s.Database(t), s.Database(t)
	h := homeserver{server: s, entries: []entryOf{
		{label: "main", user: one.User, password: one.Password, name: one.Name, stores: []string{"main"}, cpMax: 10},
		{label: "state", user: two.User, password: two.Password, name: two.Name, stores: []string{"state"}},
	}, extra: "instance_map: {main: {host: h, port: 1}, writer1: {host: h, port: 2}}\n"}
	h.finds(t) // 2 × 15
	h.extra += "federation_sender_instances: [sender1]\n"
	h.finds(t) // 3 × 15 of 46
	h.extra += "pusher_instances: [pusher1, sender1]\n"
	found := h.finds(t, "database/max-connections warning setting max_connections")
	if f := found[0]; f.Database != "main" || f.Expected != "at least 60 for Synapse alone" || !strings.Contains(f.Remedy, "ALTER SYSTEM SET max_connections = 90;") ||
		f.Evidence["for the database state"] != "4 processes (main, pusher1, sender1, writer1) × cp_max 5" {
		t.Errorf("%+v", f)
	}
	asAdminDo(t, s, "", "ALTER ROLE "+one.User+" CONNECTION LIMIT 59")
	h.finds(t, "database/connection-limit warning role "+one.User+" fixable", "database/max-connections warning setting max_connections")
	h.noAdmin = true
	h.finds(t, "database/connection-limit warning role "+one.User, "database/max-connections warning setting max_connections")
}

func TestReservedConnectionsAreNotCounted(t *testing.T) {
	pgtest.EachMajor(t, func(major int) pgtest.Config {
		settings := map[string]string{"max_connections": "20"}
		if major >= 16 {
			settings["reserved_connections"] = "13"
		}
		return pgtest.Config{Settings: settings}
	}, func(t *testing.T, s *pgtest.Server) {
		var want []string
		if s.Major(t) >= 16 {
			want = []string{"database/max-connections warning setting max_connections"} // 20 − 3 − 13 < 5
		}
		of(s.Database(t)).finds(t, want...)
	})
}

func TestOptionsOfTheConfigurationWinOverSettings(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithOwner("with_options"))
	asAdminDo(t, db.Server, db.Name, "CREATE SCHEMA other AUTHORIZATION with_options", "ALTER ROLE with_options SET search_path = nowhere")
	h := of(db)
	h.entries[0].extra = pgdb.Settings{"options": "-c search_path=public"}
	h.finds(t)
	asAdminDo(t, db.Server, db.Name, "ALTER SCHEMA public OWNER TO postgres", "REVOKE CREATE ON SCHEMA public FROM PUBLIC, with_options")
	h.finds(t, "database/no-create-on-schema error schema public fixable")
	h.entries[0].extra = pgdb.Settings{"options": "-c search_path=other"}
	h.finds(t, "database/search-path-set warning setting search_path")
}

func TestWhatCouldNotBeLookedAtIsNeverHealthy(t *testing.T) {
	s := pgtest.Start(t)
	db := s.Database(t)
	h := of(db)
	h.noAdmin, h.noLogin = true, true
	target := h.target(t)
	var found collector
	err := Check.Run(t.Context(), target, &found)
	if reason, ok := doctor.SkipReason(err); !ok || !strings.Contains(reason, "none was given (--admin-dsn)") || len(found) > 0 {
		t.Errorf("%v, %v", err, found)
	}
	// One of two can be looked at.
	h.entries = append(h.entries, h.entries[0])
	h.entries[0].stores, h.entries[1].stores, h.entries[1].label = []string{"main"}, []string{"state"}, "state"
	asAdminDo(t, s, db.Name, "ALTER DATABASE "+db.Name+" CONNECTION LIMIT 4")
	target = h.target(t)
	target.Databases[1].Meets |= doctor.NeedsPostgres
	err = Check.Run(t.Context(), target, &found)
	if _, skipped := doctor.SkipReason(err); err == nil || skipped || len(found) != 1 {
		t.Errorf("%v, %v", err, found)
	}
	// The administrator gets lost after the engine has looked.
	h = of(db)
	target = h.target(t)
	target.Admin.Settings["port"] = "1"
	if err := Check.Run(t.Context(), target, &found); err == nil {
		t.Error("no error without the administrator")
	}
}
