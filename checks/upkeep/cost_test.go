package upkeep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// filled has thousands of rows in every table that the check looks into, none of them overdue.
const filled = `
INSERT INTO events (topological_ordering, event_id, type, room_id, processed, outlier, stream_ordering) SELECT i, '$f' || i, 'm', '!room1:test.example', true, false, 1000 + i FROM generate_series(1, %[1]d) i;
INSERT INTO event_json SELECT '$f' || i, '!room1:test.example', '{}', '{"body": "' || repeat('x', 400) || '"}', 3 FROM generate_series(1, %[1]d) i;
INSERT INTO cache_invalidation_stream_by_instance SELECT 1000 + i, 'master', 'f', NULL, extract(epoch FROM now()) * 1000 FROM generate_series(1, %[1]d) i;
INSERT INTO device_lists_outbound_pokes SELECT 'd', 1000 + i, '@u:h', 'D', false, 1700000000000, 'master' FROM generate_series(1, %[1]d) i;
INSERT INTO device_lists_changes_in_room (user_id, device_id, room_id, stream_id, converted_to_destinations) SELECT '@a:b', 'D', '!x', 1000 + i, true FROM generate_series(1, %[1]d) i;
INSERT INTO state_groups SELECT 10000 + i, '!room1:test.example', '$f' || i FROM generate_series(1, %[1]d) i;
INSERT INTO state_group_edges SELECT 10000 + i, 10000 + i - 1 FROM generate_series(2, %[1]d) i;
INSERT INTO event_to_state_groups SELECT '$f' || i, 10000 + i FROM generate_series(1, %[1]d) i;
INSERT INTO state_groups_state SELECT 10000 + i / 10, '!room1:test.example', 'm', i::text, '$f' || i FROM generate_series(1, %[1]d) i;
INSERT INTO state_groups_pending_deletion (state_group, insertion_ts) SELECT 1000000 + i, extract(epoch FROM now()) * 1000 FROM generate_series(1, %[1]d) i;
INSERT INTO event_forward_extremities SELECT '$f' || i || repeat('y', 300), '!many' || i || ':test.example' FROM generate_series(1, %[1]d) i;
ANALYZE;`

// read is what was read of a table so far: by scans of all of it, and pages of it and its indexes.
type readSoFar struct {
	Table        string
	Scans, Pages int64
}

func readOf(t *testing.T, db *pgtest.DB) map[string]readSoFar {
	t.Helper()
	conn := db.AdminConn(t)
	for others := 1; others > 0; { // what a session has read counts when it ends
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`).Scan(&others); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := conn.Query(t.Context(), `SELECT relname::text, coalesce(seq_scan, 0), coalesce(heap_blks_read + heap_blks_hit, 0) + coalesce(idx_blks_read + idx_blks_hit, 0)
		FROM pg_stat_user_tables JOIN pg_statio_user_tables USING (relid, relname) WHERE pg_relation_size(relid) > 300000`)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	out := map[string]readSoFar{}
	var r readSoFar
	for rows.Next() {
		if err := rows.Scan(&r.Table, &r.Scans, &r.Pages); err != nil {
			t.Fatal(err)
		}
		out[r.Table] = r
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	return out
}

func TestNoLargeTableIsReadWithoutDeep(t *testing.T) {
	db := pgtest.StartWith(t, usual(0)).Database(t, pgtest.WithSetup(pgtest.Fixture()+fmt.Sprintf(filled, 15000)))
	before := readOf(t, db)
	if len(before) < 10 {
		t.Fatalf("only %d tables are large", len(before))
	}
	c := find(t, target(db, map[string]float64{"share-from": 0, "large-table": 0, "table-share": 100}))
	if !strings.Contains(c.covered, "only with --deep, because it is large: event_forward_extremities") {
		t.Errorf("covered: %s", c.covered)
	}
	looked := 0
	for table, after := range readOf(t, db) {
		scans, pages := after.Scans-before[table].Scans, after.Pages-before[table].Pages
		if scans > 0 || pages > 100 {
			t.Errorf("%s: %d scans, %d pages", table, scans, pages)
		}
		if pages > 0 {
			looked++
		}
	}
	if looked < 4 {
		t.Errorf("the counters show only %d tables that were looked into: they can't be right", looked)
	}
}

func TestDeepIsBounded(t *testing.T) {
	db := fixture(t)
	t.Run("by its budget", func(t *testing.T) {
		target := target(db, nil)
		target.Deep, target.DeepBudget = true, time.Nanosecond
		c, err := look(t, target)
		if err == nil || !strings.Contains(err.Error(), "no time left in the budget") || !strings.Contains(c.covered, "left out: ") || strings.Contains(c.covered, "read: ") {
			t.Errorf("%v; covered: %s", err, c.covered)
		}
	})
	t.Run("by whoever waits for it", func(t *testing.T) {
		target := target(db, nil)
		target.Deep = true
		defer target.Close()
		ctx, cancel := context.WithCancel(t.Context())
		c := &stopper{cancel: cancel}
		if err := Check.Run(ctx, target, c); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

// stopper ends the run at its first progress.
type stopper struct {
	collector
	cancel func()
}

func (s *stopper) Progress(doctor.Progress) { s.cancel() }

// A small transaction for each part: what --deep reads for long must not itself hold vacuum back.
func TestDeepReadsInParts(t *testing.T) {
	db := pgtest.StartWith(t, usual(0)).Database(t, pgtest.WithSetup(pgtest.Fixture()+fmt.Sprintf(filled, 15000)))
	db.Exec(t, `DELETE FROM event_json WHERE event_id IN ('$f1', '$f14999')`)
	was := firstPages
	firstPages = 16
	defer func() { firstPages = was }()
	target := target(db, nil)
	target.Deep = true
	c := find(t, target)
	c.want(t, "error upkeep/events-without-json table events")
	if f := c.found[0]; f.Evidence["row 1"] != "$f1" || f.Evidence["row 2"] != "$f14999" {
		t.Errorf("%v", f.Evidence)
	}
	if c.progress < 20 {
		t.Errorf("progress was told %d times", c.progress)
	}
}

func TestStateGroupsOfASplitDatabase(t *testing.T) {
	main, state := fixture(t), fixture(t)
	main.Exec(t, `INSERT INTO event_to_state_groups VALUES ('$used', 10001)`)
	state.Exec(t, `DROP TABLE event_to_state_groups; INSERT INTO state_groups SELECT 10000 + i, '!room1:test.example', '$x' FROM generate_series(1, 3) i`)
	both := target(main, map[string]float64{"unreferenced-groups": 1})
	both.Databases = append(both.Databases, target(state, nil).Databases...)
	both.Databases[0].DataStores, both.Databases[1].DataStores, both.Databases[1].Label = []string{"main"}, []string{"state"}, "state"
	both.Deep = true
	c := find(t, both)
	c.want(t, "info upkeep/unreferenced-state-groups table state_groups")
	if f := c.found[0]; f.Database != "state" || !strings.HasPrefix(f.Observed, "at least 2 ") {
		t.Errorf("%+v", f)
	}
}

// For each state group all of a large table would be read.
func TestStateGroupsAreNotLookedUpWithoutAnIndex(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `CREATE INDEX ON state_group_edges (prev_state_group); INSERT INTO state_groups SELECT 10000 + i, '!room1:test.example', '$x' FROM generate_series(1, 3) i`)
	was := small
	small = 0
	defer func() { small = was }()
	for _, name := range []string{"one", "two"} {
		looked := target(db, nil)
		looked.Deep = true
		want := "event_to_state_groups has no index"
		if name == "two" {
			looked.Databases = append(looked.Databases, target(db, nil).Databases...)
			looked.Databases[0].DataStores, looked.Databases[1].DataStores, looked.Databases[1].Label = []string{"main"}, []string{"state"}, "state"
			looked.Bind()
			want = "event_to_state_groups in the main database has no index"
		}
		if _, err := look(t, looked); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryMajorVersion(t *testing.T) {
	pgtest.EachMajor(t, usual, func(t *testing.T, s *pgtest.Server) {
		db := s.Database(t, pgtest.WithSetup(pgtest.Fixture()+`CREATE TABLE big AS SELECT i, repeat('x', 200) FROM generate_series(1, 2000) i; ANALYZE;`))
		sound := target(db, nil)
		sound.Deep = true
		find(t, withAdmin(sound, db)).want(t)
		db.Exec(t, `ALTER TABLE users SET (autovacuum_enabled = off); DELETE FROM event_json WHERE event_id = '$event7'; INSERT INTO event_json VALUES ('$lost', 'r', '{}', '\x7b7d', 3);
			UPDATE room_memberships SET event_stream_ordering = 1 WHERE room_id = '!room2:test.example'; DELETE FROM state_groups WHERE id = 3; DELETE FROM big WHERE i > 500`)
		db.AdminExec(t, `SELECT pg_create_physical_replication_slot('standby1', true)`)
		defer db.AdminExec(t, `SELECT pg_drop_replication_slot('standby1')`)
		conn := db.Conn(t)
		for dead := 0; dead == 0; { // before 15, counters are told in passing
			if err := conn.QueryRow(t.Context(), `SELECT pg_stat_get_dead_tuples('big'::regclass)`).Scan(&dead); err != nil {
				t.Fatal(err)
			}
		}
		broken := func() *doctor.Target {
			broken := target(db, map[string]float64{"large-table": 200000})
			broken.Deep = true
			return broken
		}
		c, made := plans(t, db, broken)
		c.want(t, "info upkeep/autovacuum-off-on-table table users", "error upkeep/events-without-json table events", "warning upkeep/json-without-event table event_json",
			"error upkeep/mangled-json column event_json.json", "warning upkeep/membership-moved table room_memberships", "warning upkeep/missing-state-groups table state_group_edges",
			"warning upkeep/dead-rows table big", "info upkeep/slot-keeps-wal replication slot standby1")
		i := slices.IndexFunc(made, func(p doctor.Plan) bool { return p.ID == "upkeep/vacuum" })
		if i < 0 || len(made) != 2 {
			t.Fatalf("%+v", made)
		}
		if err := carryOut(t, broken(), made[i], "", &host{}); err != nil {
			t.Fatal(err)
		}
		if c := find(t, broken()); slices.ContainsFunc(c.found, func(f doctor.Finding) bool { return f.Code == DeadRows }) {
			t.Errorf("vacuumed, it is still found: %v", c.said())
		}
	})
}

// BenchmarkCheap runs the check side by side on a small and on a large database, alternating. SYNAPSE_DOCTOR_ROWS is how many
// rows each table of the large one has: a million make about 2 GB.
func BenchmarkCheap(b *testing.B) {
	var rows int
	if fmt.Sscan(os.Getenv("SYNAPSE_DOCTOR_ROWS"), &rows); rows == 0 {
		b.Skip("SYNAPSE_DOCTOR_ROWS is not set")
	}
	s := pgtest.StartWith(b, usual(0))
	small := s.Database(b, pgtest.WithSetup(pgtest.Fixture()+fmt.Sprintf(filled, 8000)))
	large := s.Database(b, pgtest.WithSetup(pgtest.Fixture()))
	large.Exec(b, fmt.Sprintf(filled, rows))
	var took [2]time.Duration
	for b.Loop() {
		for i, db := range []*pgtest.DB{small, large} {
			start := time.Now()
			find(b, target(db, nil))
			took[i] += time.Since(start)
		}
	}
	for i, db := range []*pgtest.DB{small, large} {
		var bytes int64
		if err := db.Conn(b).QueryRow(b.Context(), `SELECT pg_database_size(current_database())`).Scan(&bytes); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(bytes)/1e6, []string{"small-MB", "large-MB"}[i])
		b.ReportMetric(took[i].Seconds()*1000/float64(b.N), []string{"small-ms", "large-ms"}[i])
	}
	b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "ratio")
}
