package pgtest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

var shared struct {
	mu     sync.Mutex
	server *Server
	err    error
	majors map[string]*Server // by their Config
}

// Main runs a test binary's tests and stops the server that they shared. It is the body of a TestMain, which the testing
// package then ends with the right exit code.
func Main(m *testing.M) {
	defer Stop()
	m.Run()
}

// Stop ends the shared server, for a TestMain that has to do more than [Main].
func Stop() {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server != nil {
		shared.server.Close()
		shared.server = nil
	}
	for _, s := range shared.majors {
		s.Close()
	}
	shared.majors = nil
}

// Start returns the server that the tests of this binary share, and starts it for the first of them.
func Start(tb testing.TB) *Server {
	tb.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = New(context.WithoutCancel(tb.Context()), Config{})
	}
	need(tb, shared.err)
	return shared.server
}

// StartWith starts a server for this test alone, or, where [Config.Shared] says so, for the tests that ask for the same.
func StartWith(tb testing.TB, c Config) *Server {
	tb.Helper()
	s, err := serverFor(tb, c)
	need(tb, err)
	return s
}

// need ends the test when there is no server: as skipped where none is installed, unless this is CI.
func need(tb testing.TB, err error) {
	tb.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrNoServer) && os.Getenv("CI") != "true":
		tb.Skip(err)
	default:
		tb.Fatal(err)
	}
}

// Major is the server's major version: 15.
func (s *Server) Major(tb testing.TB) int {
	tb.Helper()
	n, err := s.major()
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// SetHBA replaces the lines of pg_hba.conf and makes the server read them.
func (s *Server) SetHBA(tb testing.TB, lines ...string) {
	tb.Helper()
	if err := s.writeHBA(lines); err != nil {
		tb.Fatal(err)
	}
	s.Reload(tb)
}

// Reload makes the server read its configuration, and returns when new sessions see it.
func (s *Server) Reload(tb testing.TB) {
	tb.Helper()
	admin := connect(tb, s.Admin())
	var before, after string
	const loaded = "SELECT pg_conf_load_time()::text"
	if err := admin.QueryRow(tb.Context(), loaded).Scan(&before); err != nil {
		tb.Fatal(err)
	}
	if _, err := admin.Exec(tb.Context(), "SELECT pg_reload_conf()"); err != nil {
		tb.Fatal(err)
	}
	// The postmaster tells its sessions before it reads pg_hba.conf, and makes a new one only after: so a new one is asked.
	for after = before; after == before; {
		fresh := connect(tb, s.Admin())
		if err := fresh.QueryRow(tb.Context(), loaded).Scan(&after); err != nil {
			tb.Fatal(err)
		}
		_ = fresh.Close(tb.Context())
	}
}

// MakeSound gives a server that is there already the settings of [Config.Sound].
func (s *Server) MakeSound(tb testing.TB) {
	tb.Helper()
	var lines strings.Builder
	for name, value := range soundSettings {
		fmt.Fprintf(&lines, "%s = '%s'\n", name, value)
	}
	if err := appendFile(filepath.Join(s.DataDir, "postgresql.conf"), lines.String()); err != nil {
		tb.Fatal(err)
	}
	s.Reload(tb)
}

// WriteFile puts a file that only the server may read, such as a certificate's key, into the data directory.
func (s *Server) WriteFile(tb testing.TB, name string, data []byte) {
	tb.Helper()
	path := filepath.Join(s.DataDir, name)
	if err := errors.Join(os.WriteFile(path, data, 0o600), s.account.give(path)); err != nil {
		tb.Fatal(err)
	}
}

// Database makes a database for this test. It is dropped when the test ends.
func (s *Server) Database(tb testing.TB, opts ...Option) *DB {
	tb.Helper()
	db, err := s.CreateDatabase(tb.Context(), opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Drop(context.Background()); err != nil {
			tb.Errorf("drop %s: %v", db.Name, err)
		}
	})
	return db
}

// Conn is a session of the owner. It is closed when the test ends.
func (db *DB) Conn(tb testing.TB) *pgx.Conn {
	tb.Helper()
	return connect(tb, db.DSN())
}

// AdminConn is a session of the superuser in this database. It is closed when the test ends.
func (db *DB) AdminConn(tb testing.TB) *pgx.Conn {
	tb.Helper()
	return connect(tb, db.AdminDSN())
}

func connect(tb testing.TB, dsn string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.Background()) }) // a test may have ended it
	return conn
}

// Exec runs statements as the owner.
func (db *DB) Exec(tb testing.TB, sql string) {
	tb.Helper()
	if err := db.run(tb.Context(), sql); err != nil {
		tb.Fatal(err)
	}
}

// AdminExec runs statements as the superuser in this database.
func (db *DB) AdminExec(tb testing.TB, sql string) {
	tb.Helper()
	conn := db.AdminConn(tb)
	if _, err := conn.PgConn().Exec(tb.Context(), sql).ReadAll(); err != nil {
		tb.Fatal(err)
	}
	_ = conn.Close(tb.Context())
}

// Homeserver writes a homeserver.yaml that uses the database into a directory of the test, and returns its path.
func (db *DB) Homeserver(tb testing.TB) string {
	tb.Helper()
	path, err := db.WriteHomeserver(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// Restore restores a custom-format dump so that the owner of the database owns everything in it.
// [WithDump] does it once for all the databases that are made from the same dump.
func Restore(tb testing.TB, db *DB, dump string) {
	tb.Helper()
	if err := db.restore(tb.Context(), dump); err != nil {
		tb.Fatal(err)
	}
}

// Data is the directory of real Synapse databases, from $SYNAPSE_DOCTOR_DATA. The test is skipped without it.
func Data(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("SYNAPSE_DOCTOR_DATA")
	if dir == "" {
		tb.Skip("this test reads real Synapse databases: set SYNAPSE_DOCTOR_DATA to their directory")
	}
	return dir
}

//go:embed fixture.sql
var fixture string

// Fixture is the script that makes a small, sound homeserver's database: the tables, columns and sequences that checks
// look at, and a few rows of the server test.example.
func Fixture() string { return fixture }
