package port

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

func opened(t *testing.T, path string) *sqlitedb.DB {
	t.Helper()
	file, err := sqlitedb.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

func wantRefused(t *testing.T, what string, err error, says string) {
	t.Helper()
	if _, is := errors.AsType[*doctor.UnchangedError](err); !is || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v, want a refusal with %q", what, err, says)
	}
}

func TestAFileOfAnotherHomeserverOrOfNoneIsRefused(t *testing.T) {
	for _, c := range []struct{ name, script, server, says string }{
		{"Synapse's", smallFile, "test.example", ""},
		{"Synapse's, without a configuration", smallFile, "", ""},
		{"another server's", smallFile, "other.example", "it has the user @a:test.example, and this server is other.example"},
		{"a user of another server", smallFile + `; INSERT INTO users VALUES ('@z:else.example', 100)`, "test.example", "@z:else.example"},
		{"no users", smallFile + `; DELETE FROM users`, "test.example", "has no users"},
		{"another program's", `CREATE TABLE users (name)`, "test.example", "is not a database of Synapse"},
	} {
		path := filepath.Join(t.TempDir(), "homeserver.db")
		sqlite(t, path, c.script)
		h, err := ReadHomeserver(t.Context(), opened(t, path), c.server)
		if c.says != "" {
			wantRefused(t, c.name, err, c.says)
			continue
		}
		if err != nil || h.ServerName != "test.example" || len(h.Users) != 2 || h.Users["@b:test.example"] != 8 {
			t.Errorf("%s: %+v %v", c.name, h, err)
		}
	}
}

func TestATargetIsTakenOnlyWhereNothingIsLost(t *testing.T) {
	long(t)
	dir := t.TempDir()
	ours, namesake, later := filepath.Join(dir, "ours.db"), filepath.Join(dir, "namesake.db"), filepath.Join(dir, "later.db")
	sqlite(t, ours, smallFile+`; INSERT INTO events VALUES (10)`)
	sqlite(t, namesake, smallFile+`; UPDATE users SET creation_ts = creation_ts + 1000`)
	sqlite(t, later, smallFile+`; DELETE FROM users WHERE name LIKE '@a:%'; INSERT INTO users VALUES ('@0:test.example', 1), ('@c:test.example', 9)`)
	admitted := func(conn *pgx.Conn, path string, replace bool) (Standing, error) {
		file := opened(t, path)
		h, err := ReadHomeserver(t.Context(), file, "test.example")
		if err != nil {
			t.Fatal(err)
		}
		return admit(t.Context(), conn, file, h, replace)
	}
	const script = `; CREATE TABLE port_from_sqlite3 (table_name varchar(100) NOT NULL UNIQUE, forward_rowid bigint NOT NULL, backward_rowid bigint NOT NULL)`
	for _, c := range []struct {
		name, setup string
		replace     bool
		want        Standing
		says        string
	}{
		{name: "nothing", want: Absent},
		{name: "a fresh schema", setup: smallTarget, want: Fresh},
		{name: "a fresh schema, to be replaced", setup: smallTarget, replace: true, want: Fresh},
		{name: "another program's", setup: `CREATE TABLE wiki (page text)`, says: "1 tables that are not Synapse's"},
		{name: "another homeserver's", setup: smallTarget + `; INSERT INTO users VALUES ('@x:else.example')`, says: "@x:else.example"},
		{name: "this homeserver's", setup: smallTarget + `; INSERT INTO users VALUES ('@a:test.example', 7)`, says: "there are rows in users"},
		{name: "this homeserver's, to be replaced", setup: smallTarget + `; INSERT INTO users VALUES ('@a:test.example', 7)`, replace: true, says: "there are rows in users"},
		{name: "events only", setup: smallTarget + `; INSERT INTO events VALUES (1)`, says: "there are rows in events"},
		{name: "the script's", setup: smallTarget + script + `; INSERT INTO users VALUES ('@a:test.example', 7); INSERT INTO events VALUES (10)`, says: "port_from_sqlite3"},
		{name: "the script's, to be replaced", setup: smallTarget + script + `; INSERT INTO users VALUES ('@a:test.example', 7); INSERT INTO events VALUES (10)`, replace: true, want: Replaced},
		{name: "the script's, gone on with", setup: smallTarget + script + `; INSERT INTO users VALUES ('@a:test.example', 7); INSERT INTO events VALUES (11)`, replace: true, says: "its events are ahead of the file's (11, and 10 in the file)"},
		{name: "the script's, of another homeserver", setup: smallTarget + script + `; INSERT INTO users VALUES ('@x:else.example')`, replace: true, says: "@x:else.example"},
	} {
		db := pgtest.Start(t).Database(t)
		if c.setup != "" {
			db.Exec(t, c.setup)
		}
		got, err := admitted(db.Conn(t), ours, c.replace)
		if c.says != "" {
			wantRefused(t, c.name, err, c.says)
		} else if err != nil || got != c.want {
			t.Errorf("%s: %d %v, want %d", c.name, got, err, c.want)
		}
	}

	db := pgtest.Start(t).Database(t, pgtest.WithSetup(smallTarget+script))
	conn := db.Conn(t)
	mustMakeState(t, conn)
	if got, err := admitted(conn, ours, true); err != nil || got != Replaced {
		t.Errorf("tables of the record without a record: %d %v", got, err)
	}
	h, err := ReadHomeserver(t.Context(), opened(t, ours), "test.example")
	if err != nil {
		t.Fatal(err)
	}
	id, err := fileIdentity(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := beginRun(t.Context(), conn, h, ours, id); err != nil {
			t.Fatal(err)
		}
	}
	db.Exec(t, `INSERT INTO users VALUES ('@a:test.example', 7)`)
	if got := scalar[string](t, conn, `SELECT format('%s %s %s %s', stage, runs, users ->> '@a:test.example', to_regclass('port_from_sqlite3') IS NULL) FROM synapse_doctor.port`); got != "loading 2 7 t" {
		t.Errorf("the record is %s", got)
	}
	for _, c := range []struct{ name, path, says string }{
		{"the file", ours, ""}, {"the file, with other users and one less", later, ""}, {"a homeserver of the same name", namesake, "not of the homeserver whose port was begun: of 2 users"},
	} {
		got, err := admitted(conn, c.path, false)
		if c.says != "" {
			wantRefused(t, c.name, err, c.says)
		} else if err != nil || got != Ours {
			t.Errorf("%s: %d %v", c.name, got, err)
		}
	}
	db.Exec(t, `UPDATE synapse_doctor.port SET server_name = 'else.example'`)
	_, err = admitted(conn, ours, true)
	wantRefused(t, "another server's record", err, "was begun for the homeserver else.example")
	db.Exec(t, `UPDATE synapse_doctor.port SET format = 99`)
	_, err = admitted(conn, ours, true)
	wantRefused(t, "a record of another format", err, "format 99")
}

func TestTheRecordIsReadByARoleThatMayOnlyRead(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(smallTarget))
	conn := db.Conn(t)
	if r := record(t, conn); r != nil {
		t.Errorf("a record without a port: %+v", r)
	}
	mustMakeState(t, conn)
	if r := record(t, conn); r != nil {
		t.Errorf("a record before a port was begun: %+v", r)
	}
	h := Homeserver{ServerName: "test.example", Users: map[string]int64{"@a:test.example": 7}}
	if err := beginRun(t.Context(), conn, h, "/var/lib/homeserver.db", FileIdentity{Size: 12}); err != nil {
		t.Fatal(err)
	}
	if r := record(t, conn); r.Complete() || r.Stage != "loading" || !r.Finished.IsZero() || r.Path != "/var/lib/homeserver.db" || r.File.Size != 12 {
		t.Errorf("%+v", r)
	}
	if err := endRun(t.Context(), conn, "/var/lib/newer.db", FileIdentity{Size: 13, Roots: map[string]int64{"users": 2}}, map[string]float64{"copy": 1.5}); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `INSERT INTO synapse_doctor.port_quarantine (name, key, reason, rowid_, row) SELECT 'plain', 'n=' || i, 'column n: ' || i || ' is too large', i, '{}' FROM generate_series(1, 20) i;
INSERT INTO synapse_doctor.port_quarantine (name, key, reason, row) VALUES ('plain', 'n=0', 'no parent "x"', '{}');
INSERT INTO synapse_doctor.port_change SELECT 'plain', i, 'n=' || i, 'x', 'a NUL became U+FFFD' FROM generate_series(1, 3) i;
INSERT INTO synapse_doctor.port_table (name, whole, rows, sum, verified) VALUES ('plain', true, 5, 17, true), ('gone', true, 1, 1, true);
INSERT INTO synapse_doctor.port_object (kind, relation, name, definition) VALUES ('index', 'public.plain', 'plain_x', 'CREATE INDEX')`)
	check := func(conn *pgx.Conn) {
		t.Helper()
		r := record(t, conn)
		if !r.Complete() || r.Finished.IsZero() || r.Path != "/var/lib/newer.db" || r.File.Size != 13 || r.File.Roots["users"] != 2 || r.Seconds["copy"] != 1.5 || r.Runs != 1 || r.Bytes < 1<<20 {
			t.Errorf("%+v", r)
		}
		if len(r.Lost) != 2 || r.Lost[0].Count != 20 || len(r.Lost[0].Keys) != mostKeys || r.Lost[0].Keys[0] != "n=1" || r.Lost[1].Reason != `no parent "x"` {
			t.Errorf("in quarantine: %+v", r.Lost)
		}
		if len(r.Changed) != 1 || r.Changed[0].Count != 3 || r.Changed[0].Column != "x" {
			t.Errorf("changed: %+v", r.Changed)
		}
		if fmt.Sprint(r.Pending) != "[the index plain_x of public.plain]" || len(r.Tables) != 2 || r.Tables[1].Rows != 5 {
			t.Errorf("%v %+v", r.Pending, r.Tables)
		}
		if err := pgx.BeginTxFunc(t.Context(), conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			written, unsure, err := r.Untouched(t.Context(), tx, nil)
			if written != nil || fmt.Sprint(unsure) != "[plain]" {
				t.Errorf("without the tables' columns: %v %v", written, unsure)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	check(conn)
	reader := db.Server.Database(t, pgtest.WithOwner("only_reads"))
	admin := db.AdminConn(t)
	if _, err := admin.Exec(t.Context(), `GRANT SELECT ON ALL TABLES IN SCHEMA public TO only_reads`); err != nil {
		t.Fatal(err)
	}
	login, err := pgx.Connect(t.Context(), strings.Replace(reader.DSN(), "dbname='"+reader.Name, "dbname='"+db.Name, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer login.Close(t.Context())
	if name := scalar[string](t, login, `SELECT current_database() || ' ' || current_user`); name != db.Name+" only_reads" {
		t.Fatal(name)
	}
	if err := pgx.BeginFunc(t.Context(), login, func(tx pgx.Tx) error { _, err := ReadRecord(t.Context(), tx); return err }); err == nil || !strings.Contains(err.Error(), "GRANT USAGE") {
		t.Errorf("a record that may not be read: %v", err)
	}
	if _, err := admin.Exec(t.Context(), `GRANT USAGE ON SCHEMA synapse_doctor TO only_reads; GRANT SELECT ON ALL TABLES IN SCHEMA synapse_doctor TO only_reads`); err != nil {
		t.Fatal(err)
	}
	check(login)
}
