package port

import (
	"database/sql"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// eachEnd runs a subtest on the oldest and the newest major version, each on a server that such tests share. Between them
// lies all that matters to a copy: how numbers are read, how a table is locked, what the statistics count.
func eachEnd(t *testing.T, run func(t *testing.T, s *pgtest.Server)) {
	t.Helper()
	pgtest.EachOf(t, []int{14, 18}, func(int) pgtest.Config { return pgtest.Config{Shared: true} }, run)
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
