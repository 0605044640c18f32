package port

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

const (
	smallTarget = `CREATE TABLE schema_version (lock char(1), version int); CREATE TABLE users (name text PRIMARY KEY, creation_ts bigint);
CREATE TABLE plain (x text, n int); CREATE TABLE counters (id bigint PRIMARY KEY, n int); CREATE TABLE indexed (x text UNIQUE, n int); CREATE TABLE events (stream_ordering bigint);
CREATE TABLE device_inbox (stream_id bigint)`
	smallFile = `CREATE TABLE schema_version (lock, version); CREATE TABLE users (name TEXT UNIQUE, creation_ts BIGINT); INSERT INTO users VALUES ('@a:test.example', 7), ('@b:test.example', 8);
CREATE TABLE plain (x TEXT, n INT); CREATE TABLE indexed (x TEXT, n INT); CREATE UNIQUE INDEX indexed_x ON indexed (x); CREATE TABLE counters (id INTEGER PRIMARY KEY, n INT);
CREATE TABLE events (stream_ordering BIGINT); CREATE TABLE device_inbox (stream_id BIGINT);
WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 3000) INSERT INTO plain SELECT 'x' || i, i FROM i;
INSERT INTO indexed SELECT x, n FROM plain; INSERT INTO counters SELECT n, n FROM plain;
CREATE TABLE late (y TEXT); CREATE INDEX late_y ON late (y)`
)

// recorded loads the file, and enters it into the record as one that was read wholly.
func recorded(t *testing.T, l *load, path string) {
	t.Helper()
	l.must(t, path)
	conn := l.Conn(t)
	id, err := fileIdentity(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := beginRun(t.Context(), conn, Homeserver{ServerName: "test.example", Users: map[string]int64{"@a:test.example": 7, "@b:test.example": 8}}, path, id); err != nil {
		t.Fatal(err)
	}
	if err := endRun(t.Context(), conn, path, id, map[string]float64{"copy": 1.5}); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
}

func vacuumed(t *testing.T, conn *pgx.Conn, path string) *Vacuum {
	t.Helper()
	var v *Vacuum
	err := pgx.BeginTxFunc(t.Context(), conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		v, err = Vacuumed(t.Context(), tx, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAVacuumBetweenTwoRunsIsTold(t *testing.T) {
	l := newLoad(t, pgtest.Start(t).Database(t, pgtest.WithSetup(smallTarget)))
	const delete = `DELETE FROM plain WHERE n % 3 = 1; DELETE FROM indexed WHERE n % 3 = 1; DELETE FROM counters WHERE n % 5 = 0`
	path := filepath.Join(t.TempDir(), "homeserver.db")
	conn := l.Conn(t)
	read := map[string][]byte{} // the file as it was read, by what had been done to it before
	const quiet, still, moved = "nothing", "a VACUUM", "rows that moved"
	for _, c := range []struct {
		name, before, since, want string
		to                        string // another file that is looked at, made by since
	}{
		{name: "nothing was done", since: `SELECT 1`, want: quiet},
		{name: "rows were inserted", since: `INSERT INTO plain VALUES ('new', 1); INSERT INTO indexed VALUES ('new', 1)`, want: quiet},
		{name: "rows were updated", since: `UPDATE plain SET n = n + 1; UPDATE counters SET n = 0`, want: quiet},
		{name: "rows were deleted", since: delete, want: quiet},
		{name: "all rows were deleted and inserted again", since: `CREATE TEMP TABLE t AS SELECT * FROM plain; DELETE FROM plain; INSERT INTO plain SELECT * FROM t ORDER BY n DESC`, want: quiet},
		{name: "an index came and went", since: `CREATE INDEX i ON plain (n); DROP INDEX i`, want: quiet},
		{name: "the schema was changed", since: `CREATE TABLE newer (x); CREATE INDEX newer_x ON newer (x); INSERT INTO plain VALUES ('new', 1)`, want: quiet},
		{name: "VACUUM", since: `VACUUM`, want: still},
		{name: "VACUUM after rows were inserted and updated", since: `INSERT INTO plain VALUES ('new', 1); UPDATE plain SET n = n + 1 WHERE n < 10; VACUUM`, want: still},
		{name: "deletes and VACUUM", since: delete + `; VACUUM`, want: moved},
		{name: "VACUUM, and deletes after", since: `VACUUM; ` + delete, want: still},
		{name: "deletes, VACUUM, a new schema", since: delete + `; VACUUM; CREATE TABLE newer (x); INSERT INTO plain VALUES ('new', 1)`, want: moved},
		{name: "VACUUM INTO leaves the file", since: delete + `; VACUUM INTO '%s'`, want: quiet},
		{name: "VACUUM INTO is a snapshot", since: delete + `; VACUUM INTO '%s'`, want: quiet, to: "snapshot"},
		{name: "VACUUM, then a snapshot", since: delete + `; VACUUM; VACUUM INTO '%s'`, want: moved, to: "snapshot"},
		{name: "auto_vacuum full", before: `PRAGMA auto_vacuum = 1; VACUUM`, since: delete, want: quiet},
		{name: "auto_vacuum full, and VACUUM", before: `PRAGMA auto_vacuum = 1; VACUUM`, since: delete + `; VACUUM`, want: moved},
		{name: "auto_vacuum incremental", before: `PRAGMA auto_vacuum = 2; VACUUM`, since: delete + `; PRAGMA incremental_vacuum`, want: quiet},
		{name: "auto_vacuum turned off by VACUUM", before: `PRAGMA auto_vacuum = 2; VACUUM`, since: `PRAGMA auto_vacuum = 0; VACUUM`, want: still},
		{name: "VACUUM again", before: `VACUUM`, since: `VACUUM`, want: still},
		{name: "gaps were there before, and VACUUM", before: `DELETE FROM plain WHERE n BETWEEN 100 AND 200`, since: `DELETE FROM plain WHERE n IN (1, 3000); VACUUM`, want: moved},
		{name: "a snapshot of a snapshot", before: delete, since: `VACUUM INTO '%s'`, want: quiet, to: "snapshot"},
	} {
		if before, ok := read[c.before]; !ok {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			sqlite(t, path, smallFile)
			if c.before != "" {
				sqlite(t, path, c.before)
			}
			l.Exec(t, `TRUNCATE schema_version, users, plain, counters, indexed, events, device_inbox, synapse_doctor.port, synapse_doctor.port_table, synapse_doctor.port_chunk`)
			recorded(t, l, path)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			read = map[string][]byte{c.before: content}
		} else if err := os.WriteFile(path, before, 0o600); err != nil { // the same inode
			t.Fatal(err)
		}
		t.Run(c.name, func(t *testing.T) {
			path := path
			if v := vacuumed(t, conn, path); v != nil {
				t.Fatalf("before anything was done: %+v", v)
			}
			other := filepath.Join(t.TempDir(), "snapshot.db")
			since := c.since
			if strings.Contains(since, "%s") {
				since = strings.ReplaceAll(since, "%s", other)
			}
			sqlite(t, path, since)
			if c.to != "" {
				path = other
			}
			v := vacuumed(t, conn, path)
			switch {
			case c.want == quiet && v != nil:
				t.Errorf("a false alarm: %+v", v)
			case c.want == quiet:
			case v == nil:
				t.Error("it is not told")
			case c.want == still && (!v.Happened || len(v.Moved) > 0):
				t.Errorf("%+v", v)
			case c.want == moved && (!v.Happened || !slices.Equal(v.Moved, []string{"plain"})):
				t.Errorf("%+v", v)
			}
			if v != nil && v.Evidence["schema cookie"] == "" {
				t.Errorf("no evidence: %v", v.Evidence)
			}
		})
	}
}

func TestTheOriginalAfterItsSnapshotIsNoVacuum(t *testing.T) {
	dir := t.TempDir()
	path, snapshot := filepath.Join(dir, "homeserver.db"), filepath.Join(dir, "snapshot.db")
	sqlite(t, path, smallFile+`; DELETE FROM plain WHERE n % 3 = 0; VACUUM INTO '`+snapshot+`'`)
	l := newLoad(t, pgtest.Start(t).Database(t, pgtest.WithSetup(smallTarget)))
	recorded(t, l, snapshot)
	conn := l.Conn(t)
	sqlite(t, path, `INSERT INTO plain VALUES ('new', 1); UPDATE counters SET n = 5 WHERE id = 1; DELETE FROM plain WHERE n = 1`)
	if v := vacuumed(t, conn, path); v != nil {
		t.Errorf("a false alarm: %+v", v)
	}
}

func TestWithoutARecordNoVacuumIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "homeserver.db")
	sqlite(t, path, smallFile)
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(smallTarget))
	conn := db.Conn(t)
	if v := vacuumed(t, conn, path); v != nil {
		t.Errorf("%+v", v)
	}
	mustMakeState(t, conn)
	if v := vacuumed(t, conn, path); v != nil {
		t.Errorf("%+v", v)
	}
}

func TestTheFileIsKnownAgainAndNothingIsWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "homeserver.db")
	sqlite(t, path, smallFile)
	l := newLoad(t, pgtest.Start(t).Database(t, pgtest.WithSetup(smallTarget)))
	recorded(t, l, path)
	before, _ := os.ReadFile(path)
	conn := l.Conn(t)
	r := record(t, conn)
	if same, why := r.SameFile(path); !same {
		t.Errorf("it is not known again: %s", why)
	}
	if v := vacuumed(t, conn, path); v != nil {
		t.Errorf("%+v", v)
	}
	after, _ := os.ReadFile(path)
	entries, _ := os.ReadDir(dir)
	if string(before) != string(after) || len(entries) != 1 {
		t.Errorf("something was written: %v", entries)
	}
	copied := filepath.Join(dir, "copy.db")
	if err := os.WriteFile(copied, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if same, why := r.SameFile(copied); same || why == "" {
		t.Error("a copy is taken for the file")
	}
	sqlite(t, path, `INSERT INTO plain VALUES ('new', 1)`)
	if same, why := r.SameFile(path); same || why == "" {
		t.Error("a file that was written to is taken for the same")
	}
	if same, why := r.SameFile(filepath.Join(dir, "none.db")); same || why == "" {
		t.Error("a file that is not there is taken for the same")
	}
}

func record(t *testing.T, conn *pgx.Conn) (r *Record) {
	t.Helper()
	if err := pgx.BeginTxFunc(t.Context(), conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		r, err = ReadRecord(t.Context(), tx)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return r
}
