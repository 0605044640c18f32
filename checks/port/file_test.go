package port

import (
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// soundFile is the script of a small SQLite homeserver, with tables that the fixture's database has too.
const soundFile = `
CREATE TABLE schema_version (Lock CHAR(1) NOT NULL DEFAULT 'X' UNIQUE, version INTEGER NOT NULL, upgraded BOOL NOT NULL);
CREATE TABLE applied_schema_deltas (version INTEGER NOT NULL, file TEXT NOT NULL, UNIQUE (version, file));
CREATE TABLE background_updates (update_name TEXT NOT NULL, progress_json TEXT NOT NULL, depends_on TEXT, ordering INT NOT NULL DEFAULT 0, UNIQUE (update_name));
CREATE TABLE users (name TEXT, password_hash TEXT, creation_ts BIGINT, admin SMALLINT NOT NULL DEFAULT 0, is_guest SMALLINT NOT NULL DEFAULT 0,
  deactivated SMALLINT NOT NULL DEFAULT 0, shadow_banned BOOL, approved BOOL, locked BOOL NOT NULL DEFAULT 0, UNIQUE (name));
CREATE TABLE account_data (user_id TEXT NOT NULL, account_data_type TEXT NOT NULL, stream_id BIGINT NOT NULL, content TEXT NOT NULL, instance_name TEXT, UNIQUE (user_id, account_data_type));
CREATE TABLE events (topological_ordering BIGINT NOT NULL, event_id TEXT NOT NULL, type TEXT NOT NULL, room_id TEXT NOT NULL, processed BOOL NOT NULL, outlier BOOL NOT NULL,
  depth BIGINT NOT NULL DEFAULT 0, origin_server_ts BIGINT, received_ts BIGINT, sender TEXT, contains_url BOOL, instance_name TEXT, stream_ordering INTEGER PRIMARY KEY, state_key TEXT,
  rejection_reason TEXT, UNIQUE (event_id));
CREATE TABLE device_inbox (user_id TEXT NOT NULL, device_id TEXT NOT NULL, stream_id BIGINT NOT NULL, message_json TEXT NOT NULL, instance_name TEXT);
INSERT INTO schema_version VALUES ('X', 94, 1);
INSERT INTO applied_schema_deltas VALUES (94, '94/03_quarantined_media_changes.sql'), (94, '94/07_profile_updates.sql'), (94, '94/08_only.sql.sqlite');
INSERT INTO users (name, creation_ts) VALUES ('@anna:test.example', 1700000000), ('@ben:test.example', 1700000001);
INSERT INTO account_data VALUES ('@anna:test.example', 'm.push_rules', 2, '{}', 'master');
`

// sqliteFile makes a SQLite file that nobody has open.
func sqliteFile(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "homeserver.db")
	change(t, path, script)
	return path
}

func change(t *testing.T, path, script string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(script); err != nil {
		t.Fatal(err)
	}
}

func sqlite(path, label string) *doctor.Database {
	return &doctor.Database{Label: label, Engine: doctor.SQLite, Path: path, Meets: doctor.NeedsSQLite}
}

// homeserver writes a configuration that is on the file.
func homeserver(t *testing.T, file string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "homeserver.yaml")
	if err := os.WriteFile(path, []byte("server_name: test.example\n# the database\ndatabase:\n  name: sqlite3\n  args:\n    database: "+file+"\nlog_config: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAHomeserverOnSQLiteIsShownTheWay(t *testing.T) {
	file := sqliteFile(t, soundFile)
	config := homeserver(t, file)
	target := &doctor.Target{ServerName: "test.example", ConfigFiles: []string{config}, SkipTables: []string{"old one"}, Databases: []*doctor.Database{sqlite(file, "main")}}
	var c collector
	if err := Check.Run(t.Context(), target, &c); err != nil {
		t.Fatal(err)
	}
	f := c.one(t, OnSQLite)
	if len(c.found) != 1 || f.Severity != doctor.Info || !f.Fixable {
		t.Errorf("found %v", c.codes())
	}
	section := filepath.Join(filepath.Dir(config), "postgres.yaml")
	for _, want := range []string{
		"createdb --encoding=UTF8 --locale=C --template=template0 --owner=synapse_user synapse",
		"    synapse-doctor fix vacuum --apply -c " + config,
		"    synapse-doctor fix port --apply --sqlite " + file + ".snapshot --postgres-config " + section + " -c " + config + " --skip-table 'old one'",
		"    synapse-doctor fix port --apply --postgres-config " + section + " -c " + config,
		"systemctl stop matrix-synapse", "systemctl start matrix-synapse",
	} {
		if !strings.Contains(f.Remedy, want) {
			t.Errorf("the walk lacks %q:\n%s", want, f.Remedy)
		}
	}
	plans, err := Check.Plan(t.Context(), target, c.found)
	if err != nil || len(plans) != 1 || plans[0].ID != "port/walk" || !plans[0].Manual() || len(plans[0].Steps) != 8 {
		t.Errorf("plans %+v (%v)", plans, err)
	}
}

func TestWhatIsWrongWithTheFile(t *testing.T) {
	for name, tt := range map[string]struct {
		change string
		want   []string
		fails  string
	}{
		"nothing":                  {"", nil, ""},
		"pending updates":          {"INSERT INTO background_updates VALUES ('a', '{}', NULL, 1), ('b', '{}', 'a', 1)", []string{UpdatesPending}, ""},
		"another homeserver's":     {"UPDATE users SET name = '@anna:other.example' WHERE name LIKE '@anna%'", []string{Other}, ""},
		"another's among our own":  {"INSERT INTO users (name) VALUES ('@zoe:other.example')", []string{Other}, ""},
		"no users":                 {"DELETE FROM users", []string{Other}, ""},
		"not a homeserver's":       {"DROP TABLE schema_version", nil, "is not the database of a Synapse"},
		"a name that is a keyword": {`CREATE TABLE "order" ("group" TEXT UNIQUE)`, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := sqliteFile(t, soundFile+tt.change)
			var c collector
			err := Check.Run(t.Context(), &doctor.Target{ServerName: "test.example", Databases: []*doctor.Database{sqlite(file, "main")}}, &c)
			if tt.fails != "" {
				if reason, ok := doctor.SkipReason(err); !ok || !strings.Contains(reason, tt.fails) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var codes []string
			for _, f := range c.found {
				if f.Code != OnSQLite {
					codes = append(codes, f.Code)
				}
			}
			if !slices.Equal(codes, tt.want) {
				t.Errorf("found %v, want %v", codes, tt.want)
			}
		})
	}
}

func TestAFileInUseIsLookedAtInItsSnapshot(t *testing.T) {
	file := sqliteFile(t, soundFile)
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("PRAGMA journal_mode = WAL; INSERT INTO users (name) VALUES ('@late:test.example')"); err != nil {
		t.Fatal(err)
	}
	target := &doctor.Target{ServerName: "test.example", Databases: []*doctor.Database{sqlite(file, "main")}}
	var c collector
	if err := Check.Run(t.Context(), target, &c); err != nil || len(c.found) != 1 || len(c.covered) != 1 {
		t.Fatalf("found %v, covered %q, %v", c.codes(), c.covered, err)
	}
	// With a database to port into the rows that are only in the -wal must not be passed over.
	target.Databases = append(target.Databases, &doctor.Database{Label: "new", Engine: doctor.Postgres, Meets: doctor.NeedsPostgres})
	err = Check.Run(t.Context(), target, &collector{})
	if s, ok := err.(*doctor.SkipError); !ok || !s.NeedFailed || !strings.Contains(s.Reason, "fix vacuum --apply") {
		t.Errorf("got %v", err)
	}
}

func TestAnAbsentFileIsNotHealthy(t *testing.T) {
	err := Check.Run(t.Context(), &doctor.Target{Databases: []*doctor.Database{sqlite(filepath.Join(t.TempDir(), "none.db"), "main")}}, &collector{})
	if s, ok := err.(*doctor.SkipError); !ok || !s.NeedFailed {
		t.Errorf("got %v", err)
	}
}

func TestSchemasAreComparedByWhatBothKeep(t *testing.T) {
	made := func(version int64, files ...string) schema {
		s := schema{version: version}
		for _, f := range files {
			n := int64(f[0]-'0')*10 + int64(f[1]-'0')
			s.deltas = append(s.deltas, delta{n, f})
		}
		return s
	}
	for name, tt := range map[string]struct {
		file, target schema
		want         string
	}{
		"the same":                 {made(94, "93/a.sql", "94/b.sql"), made(94, "93/a.sql", "94/b.sql"), ""},
		"of one engine each":       {made(94, "94/b.sql", "94/c.sql.sqlite"), made(94, "94/b.sql", "94/c.sql.postgres"), ""},
		"made long ago":            {made(94, "54/x.sql", "73/y.py", "94/b.sql"), made(94, "73/y.py", "94/b.sql"), ""},
		"no schema yet":            {made(94, "94/b.sql"), schema{}, ""},
		"an older file":            {made(93, "93/a.sql"), made(94, "93/a.sql", "94/b.sql"), "SQLite file is older"},
		"an older file by a delta": {made(94, "94/a.sql"), made(94, "94/a.sql", "94/b.sql"), "SQLite file is older"},
		"an older database":        {made(94, "93/a.sql", "94/b.sql"), made(93, "93/a.sql"), "PostgreSQL database is older"},
		"both have changes alone":  {made(94, "94/a.sql", "94/c.sql"), made(94, "94/a.sql", "94/b.sql"), "different releases"},
	} {
		to := &target{schema: tt.target, name: "synapse"}
		to.id.HasSchema = tt.target.version > 0
		found := judgeSchemas(&source{schema: tt.file}, to)
		switch {
		case tt.want == "" && len(found) > 0:
			t.Errorf("%s: %s", name, found[0].Summary)
		case tt.want != "" && (len(found) != 1 || !strings.Contains(found[0].Summary, tt.want)):
			t.Errorf("%s: %+v", name, found)
		}
	}
}

func TestTheRoomThatIsNeeded(t *testing.T) {
	for free, want := range map[int64]doctor.Severity{100: doctor.Error, 124: doctor.Error, 125: doctor.Warning, 199: doctor.Warning, 200: 0} {
		found := judgeRoom([]room{{seen: true, dir: "/pg", free: free, least: 125, most: 200}}, &target{})
		if want == 0 && len(found) > 0 || want > 0 && (len(found) != 1 || found[0].Severity != want || found[0].Code != NoRoom || blocked(found) != (want == doctor.Error)) {
			t.Errorf("%d bytes free: %+v", free, found)
		}
	}
	if found := judgeRoom([]room{{least: 125, most: 200}}, &target{}); len(found) != 1 || found[0].Code != RoomNotSeen || found[0].Severity != doctor.Info {
		t.Errorf("a disk that can't be seen: %+v", found)
	}
}

func TestAFolderOfConfigurationGetsNoFileMore(t *testing.T) {
	for want, files := range map[string][]string{
		"/etc/s/postgres.yaml":                {"/etc/s/homeserver.yaml", "/etc/s/conf.d/db.yaml"},
		"/etc/s/postgres.yaml.new":            {"/etc/s/homeserver.yaml", "/etc/s/other.yaml"},
		"/etc/t/conf.d/postgres.yaml.new":     {"/etc/t/conf.d/db.yaml"},
		"/var/lib/synapse/data/postgres.yaml": {"/var/lib/synapse/data/homeserver.yaml"},
	} {
		if got := beside(files, files[0]); got != want {
			t.Errorf("%v: %s, want %s", files, got, want)
		}
	}
}
