package pgtest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) {
	if os.Getenv("PGTEST_HANG") != "" {
		hang()
	}
	pgtest.Main(m)
}

func TestADatabaseBelongsToAnOrdinaryRoleThatLogsInOverTCP(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	var super bool
	var encoding, collate string
	err := db.Conn(t).QueryRow(t.Context(), `SELECT rolsuper, current_setting('server_encoding'), datcollate
		FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database() AND inet_server_addr() IS NOT NULL`).Scan(&super, &encoding, &collate)
	if err != nil {
		t.Fatal(err)
	}
	if super || encoding != "UTF8" || collate != "C" {
		t.Errorf("superuser %t, encoding %s, collation %s", super, encoding, collate)
	}
	db.Exec(t, `CREATE TABLE t (n int)`)
}

func TestDatabasesOfOneScriptAreApart(t *testing.T) {
	s := pgtest.Start(t)
	setup := pgtest.WithSetup(`CREATE TABLE t (n int); INSERT INTO t VALUES (1);`)
	a, b := s.Database(t, setup), s.Database(t, setup)
	a.Exec(t, `DELETE FROM t`)
	for db, want := range map[*pgtest.DB]int{a: 0, b: 1} {
		var n int
		var owner string
		if err := db.Conn(t).QueryRow(t.Context(), `SELECT (SELECT count(*) FROM t), tableowner FROM pg_tables WHERE tablename = 't'`).Scan(&n, &owner); err != nil {
			t.Fatal(err)
		}
		if n != want || owner != db.User {
			t.Errorf("%s: %d rows owned by %s, want %d", db.Name, n, owner, want)
		}
	}
}

func TestADroppedDatabaseIsGoneEvenWithSessions(t *testing.T) {
	s := pgtest.Start(t)
	var name string
	t.Run("inner", func(t *testing.T) {
		db := s.Database(t)
		name = db.Name
		if _, err := pgx.Connect(t.Context(), db.DSN()); err != nil { // left open on purpose
			t.Fatal(err)
		}
	})
	if _, err := pgx.Connect(t.Context(), strings.Replace(s.Admin(), "dbname='postgres'", "dbname="+name, 1)); err == nil {
		t.Errorf("%s is still there", name)
	}
}

func TestHBALinesDecideWhoLogsIn(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{HBA: []string{"host all all all reject"}})
	db := s.Database(t)
	if _, err := pgx.Connect(t.Context(), db.DSN()); err == nil {
		t.Fatal("a rejected login worked")
	}
	s.SetHBA(t, "host all all all scram-sha-256")
	db.Conn(t)
}

func TestRestoreGivesEverythingToTheOwner(t *testing.T) {
	dump := filepath.Join(pgtest.Data(t), "synapse_empty.dump")
	pgtest.EachMajor(t, nil, func(t *testing.T, s *pgtest.Server) {
		var tables, foreign int
		err := s.Database(t, pgtest.WithDump(dump)).Conn(t).QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE tableowner <> current_user)
			FROM pg_tables WHERE schemaname = 'public'`).Scan(&tables, &foreign)
		if err != nil {
			t.Fatal(err)
		}
		if tables < 100 || foreign > 0 {
			t.Errorf("%d tables, %d of them not the owner's", tables, foreign)
		}
	})
}

func TestHomeserverYAMLHoldsTheLogin(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	text, err := os.ReadFile(db.Homeserver(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"server_name: test.example", "name: psycopg2", db.Name, db.Password} {
		if !strings.Contains(string(text), want) {
			t.Errorf("homeserver.yaml lacks %q", want)
		}
	}
}

func TestAServerThatWasAskedForIsNotReplacedByAnother(t *testing.T) {
	t.Setenv("PGTEST_BINDIR", t.TempDir())
	if dir, err := pgtest.BinDir(t.Context(), ""); !errors.Is(err, pgtest.ErrNoServer) {
		t.Errorf("got %s, %v", dir, err)
	}
}

func TestNothingIsLeftAfterClose(t *testing.T) {
	s, err := pgtest.New(t.Context(), pgtest.Config{})
	if errors.Is(err, pgtest.ErrNoServer) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := os.Stat(s.DataDir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", s.DataDir, err)
	}
	s.Close()
}

// hang makes a server, says where it is, and waits to be killed.
func hang() {
	s, err := pgtest.New(context.Background(), pgtest.Config{})
	if err != nil {
		panic(err)
	}
	fmt.Println(s.DataDir)
	select {}
}

func TestAKilledTestTakesItsServerWithIt(t *testing.T) {
	pgtest.Start(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PGTEST_HANG=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	dir := strings.TrimSpace(line)
	pidFile := filepath.Join(dir, "postmaster.pid")
	if _, err := os.Stat(pidFile); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for {          // the server removes the file as the last thing it does; a server that stays runs into the test's time limit
		if _, err := os.Stat(pidFile); os.IsNotExist(err) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	pgtest.StartWith(t, pgtest.Config{}) // sweeps
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s was left behind: %v", dir, err)
	}
}
