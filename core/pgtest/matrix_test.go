package pgtest_test

import (
	"os"
	"slices"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestEachMajorIsAServerOfThatMajor(t *testing.T) {
	var ran []int
	config := func(major int) pgtest.Config {
		if major < 16 {
			return pgtest.Config{Settings: map[string]string{"old_snapshot_threshold": "1h"}} // gone in 17
		}
		return pgtest.Config{Settings: map[string]string{"reserved_connections": "1"}} // came with 16
	}
	pgtest.EachMajor(t, config, func(t *testing.T, s *pgtest.Server) {
		var number int
		conn := s.Database(t, pgtest.WithSetup(pgtest.Fixture())).Conn(t)
		if err := conn.QueryRow(t.Context(), `SELECT current_setting('server_version_num')::int`).Scan(&number); err != nil {
			t.Fatal(err)
		}
		if major := number / 10000; major != s.Major(t) {
			t.Errorf("the server is of %d, its cluster of %d", major, s.Major(t))
		}
		ran = append(ran, number/10000)
	})
	installed := pgtest.Majors(t.Context())
	even := slices.DeleteFunc(slices.Clone(installed), func(major int) bool { return major%2 != 0 })
	if os.Getenv("SYNAPSE_DOCTOR_MATRIX") != "1" && len(even) > 0 {
		installed = even
	}
	if testing.Short() && len(installed) > 0 {
		installed = installed[len(installed)-1:]
	}
	if !slices.Equal(ran, installed) {
		t.Errorf("ran on %v, installed are %v", ran, installed)
	}
}
