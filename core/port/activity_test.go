package port

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// vouched counts the tables that the server's counters vouch for.
func vouched(t *testing.T, conn *pgx.Conn, tables []Table) int {
	t.Helper()
	n := 0
	if err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		_, unsure, err := look(t.Context(), tx, tables, false, nil)
		n = len(tables) - len(unsure)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWhoHasWrittenSinceIsSeenAndUpkeepIsNot(t *testing.T) {
	long(t)
	eachEnd(t, func(t *testing.T, server *pgtest.Server) {
		db := server.Database(t, pgtest.WithSetup(`CREATE TABLE a (x int, y text); CREATE TABLE b (x int); CREATE TABLE c (x int); CREATE SEQUENCE s;
INSERT INTO a SELECT i, 'y' || i FROM generate_series(1, 500) i; INSERT INTO b SELECT generate_series(1, 10)`))
		conn := db.Conn(t)
		mustMakeState(t, conn)
		var tables []Table
		for _, name := range []string{"a", "b", "c"} {
			tables = append(tables, copiedTable(t, conn, name))
		}
		settled := func() {
			t.Helper()
			if _, err := conn.Exec(t.Context(), `TRUNCATE synapse_doctor.port_chunk, synapse_doctor.port_table`); err != nil {
				t.Fatal(err)
			}
			asStored(t, conn, tables...)
			if err := flushStatistics(t.Context(), conn); err != nil {
				t.Fatal(err)
			}
			for _, table := range tables {
				if err := verify(t.Context(), conn, table); err != nil {
					t.Fatal(err)
				}
			}
		}
		settled()
		writer := db.Conn(t)
		write := func(sql string) {
			t.Helper()
			if _, err := writer.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
				t.Fatal(err)
			}
			if err := flushStatistics(t.Context(), writer); err != nil {
				t.Fatal(err)
			}
		}
		trusted := server.Major(t) >= 15
		for _, upkeep := range []string{`ANALYZE`, `VACUUM a`, `SELECT nextval('s')`, `SELECT count(*) FROM a`, `CREATE INDEX ON a (x)`, `REINDEX TABLE a`} {
			write(upkeep)
			if n := vouched(t, conn, tables); trusted && n != 3 || !trusted && n != 0 {
				t.Errorf("after %s the counters vouch for %d tables", upkeep, n)
			}
			if err := writtenSince(t.Context(), conn, tables); err != nil {
				t.Errorf("after %s: %v", upkeep, err)
			}
		}
		for _, upkeep := range []string{`VACUUM FULL a`, `UPDATE a SET y = y WHERE x = 7`, `BEGIN; DELETE FROM a; ROLLBACK`, `INSERT INTO a VALUES (0, 'gone'); DELETE FROM a WHERE x = 0`} {
			write(upkeep)
			if n := vouched(t, conn, tables); trusted && n != 2 {
				t.Errorf("after %s the counters vouch for %d tables", upkeep, n)
			}
			if err := writtenSince(t.Context(), conn, tables); err != nil {
				t.Errorf("after %s: %v", upkeep, err)
			}
			if n := vouched(t, conn, tables); trusted && n != 3 {
				t.Errorf("%s was looked at, and the next time the counters vouch for %d tables", upkeep, n)
			}
		}
		for change, want := range map[string]string{
			`UPDATE a SET y = 'other' WHERE x = 7`:    "to a. ",
			`INSERT INTO b VALUES (1)`:                "to b (11 rows, 10 when it was verified)",
			`INSERT INTO c VALUES (1); DELETE FROM b`: "to b (0 rows, 10 when it was verified), c (1 rows, 0 ",
			`TRUNCATE a`: "to a (0 rows, 500",
		} {
			write(`TRUNCATE a, b, c; INSERT INTO a SELECT i, 'y' || i FROM generate_series(1, 500) i; INSERT INTO b SELECT generate_series(1, 10)`)
			settled()
			write(change)
			err := writtenSince(t.Context(), conn, tables)
			if _, is := errors.AsType[*WrittenError](err); !is || !strings.Contains(err.Error(), want) {
				t.Errorf("after %s: %v", change, err)
			}
			if _, is := errors.AsType[*doctor.UnchangedError](err); !is {
				t.Errorf("%v does not tell that nothing was changed", err)
			}
		}
	})
}

func TestCountersOfBeforeACrashVouchForNothing(t *testing.T) {
	long(t)
	server := pgtest.StartWith(t, pgtest.Config{Settings: map[string]string{"synchronous_commit": "on"}})
	db := server.Database(t, pgtest.WithSetup(`CREATE TABLE c (x int)`))
	conn := db.Conn(t)
	mustMakeState(t, conn)
	tables := []Table{copiedTable(t, conn, "c")}
	asStored(t, conn, tables...)
	if err := verify(t.Context(), conn, tables[0]); err != nil {
		t.Fatal(err)
	}
	if n := vouched(t, conn, tables); n != 1 {
		t.Fatalf("the counters vouch for %d tables", n)
	}
	db.Exec(t, `INSERT INTO c VALUES (1)`)
	_ = conn.Close(t.Context())
	if err := server.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn = db.Conn(t)
	if n := vouched(t, conn, tables); n != 0 {
		t.Errorf("after a crash the counters vouch for %d tables", n)
	}
	if err := writtenSince(t.Context(), conn, tables); err == nil {
		t.Error("what was written before the crash is not seen")
	}
}

func TestASessionOfSynapseInTheTargetIsNamed(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	conn := db.Conn(t)
	db.AdminConn(t) // somebody else's
	if err := otherSessions(t.Context(), conn); err != nil {
		t.Error(err)
	}
	other := db.Conn(t)
	if _, err := other.Exec(t.Context(), `SET application_name = 'synapse main'`); err != nil {
		t.Fatal(err)
	}
	err := otherSessions(t.Context(), conn)
	if want := fmt.Sprintf("process %d as synapse main from 127.0.0.1", other.PgConn().PID()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not name %s", err, want)
	}
	if _, err := other.Exec(t.Context(), `SET application_name = 'synapse-doctor/7'`); err != nil {
		t.Fatal(err)
	}
	if err := otherSessions(t.Context(), conn); err != nil {
		t.Error(err)
	}
}
