package port

import (
	"database/sql"
	"os"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// eachEnd runs a subtest on the oldest and the newest major version, each on a server that such tests share. Between them
// lies all that matters to a copy: how numbers are read, how a table is locked, what the statistics count.
func eachEnd(t *testing.T, run func(t *testing.T, s *pgtest.Server)) {
	t.Helper()
	if os.Getenv("SYNAPSE_DOCTOR_MATRIX") == "1" { // as in the tests of checks/locale: all of them
		pgtest.EachMajor(t, func(int) pgtest.Config { return pgtest.Config{Shared: true} }, run)
		return
	}
	pgtest.EachOf(t, []int{14, 18}, func(int) pgtest.Config { return pgtest.Config{Shared: true} }, run)
}

// long leaves a test out with -short, as under the race detector: it is about the server, not about what runs side by side here.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes seconds")
	}
}

func openSQL(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	return db
}

// alone waits until the server has noticed that everybody has left the database; what they did is in its statistics then.
func alone(t testing.TB, db *pgtest.DB) {
	t.Helper()
	conn := db.AdminConn(t)
	defer conn.Close(t.Context())
	for busy := true; busy; {
		if err := conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid())`).Scan(&busy); err != nil {
			t.Fatal(err)
		}
	}
}
