package pgtest_test

import (
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func enUS(int) pgtest.Config { return pgtest.Config{Locales: []string{"en_US.UTF-8"}} }

// What checks have to find is really there: a key that exists is not found, and is inserted again.
func TestACorruptedDatabaseTakesAKeyTwice(t *testing.T) {
	pgtest.EachMajor(t, enUS, func(t *testing.T, s *pgtest.Server) {
		db := s.Database(t, pgtest.WithCreate("ENCODING 'UTF8' LC_COLLATE 'en_US.UTF-8' LC_CTYPE 'en_US.UTF-8'"))
		db.Exec(t, `CREATE TABLE k (v text UNIQUE);
			INSERT INTO k SELECT CASE n % 3 WHEN 0 THEN '@' WHEN 1 THEN '#' ELSE '' END || CASE n % 2 WHEN 0 THEN 'A' ELSE 'a' END || n FROM generate_series(1, 5000) n`)
		if err := db.Corrupt(t.Context()); err != nil {
			t.Fatal(err)
		}
		db.Exec(t, `INSERT INTO k SELECT v FROM k ON CONFLICT DO NOTHING`)
		var twice int
		if err := db.Conn(t).QueryRow(t.Context(), `SELECT count(*) - count(DISTINCT v || '') FROM k`).Scan(&twice); err != nil {
			t.Fatal(err)
		}
		if twice == 0 {
			t.Error("no key is there twice")
		}
	})
}
