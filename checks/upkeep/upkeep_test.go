package upkeep

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// Autovacuum is on, as on a sound server, and never wakes up: a table stays as it was broken.
func usual(int) pgtest.Config {
	return pgtest.Config{Shared: true, Settings: map[string]string{"autovacuum": "on", "autovacuum_naptime": "2147483",
		"max_prepared_transactions": "5", "max_replication_slots": "5", "wal_level": "logical"}}
}

func fixture(t testing.TB) *pgtest.DB {
	return pgtest.StartWith(t, usual(0)).Database(t, pgtest.WithSetup(pgtest.Fixture()))
}

func dump(t testing.TB, name string) *pgtest.DB {
	return pgtest.StartWith(t, usual(0)).Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), name)))
}

// target is the database as the engine would hand it over, with thresholds set by name: large-table.
func target(db *pgtest.DB, set map[string]float64) *doctor.Target {
	t := &doctor.Target{ServerName: "test.example", Thresholds: map[string]float64{}, Databases: []*doctor.Database{{
		Label: "main", Engine: doctor.Postgres, Meets: doctor.NeedsPostgres | doctor.NeedsSynapse,
		Settings: pgdb.Settings{"host": db.Host, "port": fmt.Sprint(db.Port), "user": db.User, "password": db.Password, "dbname": db.Name},
	}}}
	for name, v := range set {
		t.Thresholds["upkeep/"+name] = v
	}
	t.Bind()
	return t
}

// withAdmin adds the superuser's login.
func withAdmin(t *doctor.Target, db *pgtest.DB) *doctor.Target {
	t.Databases[0].Meets |= doctor.NeedsAdmin
	t.Admin = &doctor.Database{Label: "admin", Engine: doctor.Postgres,
		Settings: pgdb.Settings{"host": db.Server.SocketDir, "port": fmt.Sprint(db.Port), "user": "postgres", "dbname": "postgres"}}
	t.Bind()
	return t
}

// collector is a Reporter.
type collector struct {
	mu       sync.Mutex
	found    []doctor.Finding
	measures []doctor.Measure
	covered  string
	progress int
}

func (c *collector) Find(f doctor.Finding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found = append(c.found, f)
}
func (c *collector) Progress(doctor.Progress) { c.mu.Lock(); c.progress++; c.mu.Unlock() }
func (c *collector) Covered(s string)         { c.mu.Lock(); c.covered = s; c.mu.Unlock() }
func (c *collector) Measure(m doctor.Measure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.Check = "upkeep"
	c.measures = append(c.measures, m)
}

func look(t testing.TB, target *doctor.Target) (*collector, error) {
	t.Helper()
	defer target.Close()
	c := &collector{}
	err := Check.Run(t.Context(), target, c)
	declared := map[string]bool{}
	for _, code := range Check.Codes {
		declared[code.ID] = true
	}
	for _, f := range c.found {
		if f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" || !declared[f.Code] || f.Database == "" {
			t.Errorf("%s of %s is not whole: %+v", f.Code, f.Object.Name, f)
		}
		if strings.Contains(f.Summary+f.Observed+f.Expected+f.Remedy, "%!") {
			t.Errorf("%s is badly written: %+v", f.Code, f)
		}
	}
	seen := map[doctor.MeasureKey]bool{}
	for _, m := range c.measures {
		if seen[m.Key()] {
			t.Errorf("%+v was measured twice", m.Key())
		}
		seen[m.Key()] = true
	}
	return c, err
}

// find runs the check, which must have seen everything.
func find(t testing.TB, target *doctor.Target) *collector {
	t.Helper()
	c, err := look(t, target)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// said is every finding as "severity code kind name".
func (c *collector) said() []string {
	var out []string
	for _, f := range c.found {
		out = append(out, fmt.Sprintf("%s %s %s %s", f.Severity, f.Code, f.Object.Kind, f.Object.Name))
	}
	slices.Sort(out)
	return out
}

func (c *collector) want(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := c.said(); !slices.Equal(got, want) {
		t.Errorf("found\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func (c *collector) measured(kind, object, name string) (float64, bool) {
	for _, m := range c.measures {
		if m.Object == (doctor.Object{Kind: kind, Name: object}) && m.Name == name {
			return m.Value, true
		}
	}
	return 0, false
}

// Both have just been restored, so that nothing was ever analyzed or vacuumed. That the ported one's user directory is empty,
// and stays so, is true.
func TestASoundDatabaseHasNoFindings(t *testing.T) {
	frozen := "info upkeep/user-directory-frozen table user_directory_stream_pos"
	for _, deep := range []bool{false, true} {
		for name, want := range map[string][]string{"synapse_empty.dump": nil, "synapse_ported.dump": {frozen}, "": nil} {
			t.Run(fmt.Sprintf("%s/%t", name, deep), func(t *testing.T) {
				db := fixture(t)
				if name != "" {
					db = dump(t, name)
				}
				target := target(db, nil)
				target.Deep = deep
				c := find(t, target)
				c.want(t, want...)
				if deep != strings.Contains(c.covered, "read: ") {
					t.Errorf("covered: %s", c.covered)
				}
			})
		}
	}
}

func TestThresholdsAreWithinTheirBounds(t *testing.T) {
	seen := map[string]bool{}
	for _, th := range Check.Thresholds {
		if err := th.Allows(th.Default); err != nil || seen[th.ID] || th.Title == "" || !strings.HasPrefix(th.ID, "upkeep/") {
			t.Errorf("%+v: %v", th, err)
		}
		seen[th.ID] = true
	}
}

// Each fault is broken, found and put back before the next, in one database; each is found alone.
var faults = []struct {
	name   string
	breaks string
	mends  string
	set    map[string]float64
	deep   bool
	want   string
}{
	{name: "autovacuum off for a small table", breaks: `ALTER TABLE users SET (autovacuum_enabled = off)`, mends: `ALTER TABLE users RESET (autovacuum_enabled)`,
		want: "info upkeep/autovacuum-off-on-table table users"},
	{name: "autovacuum off for a table that is not tiny", mends: `DROP TABLE big`,
		breaks: `CREATE TABLE big AS SELECT i, repeat('x', 200) FROM generate_series(1, 10000) i; ALTER TABLE big SET (autovacuum_enabled = no)`,
		want:   "warning upkeep/autovacuum-off-on-table table big"},
	{name: "autovacuum off for what is stored out of line", breaks: `ALTER TABLE event_json SET (toast.autovacuum_enabled = false)`, mends: `ALTER TABLE event_json RESET (toast.autovacuum_enabled)`,
		want: "info upkeep/autovacuum-off-on-table table event_json"},
	{name: "autovacuum off for every table", mends: `DO $$ DECLARE t text; BEGIN FOR t IN SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP EXECUTE format('ALTER TABLE %s RESET (autovacuum_enabled)', t); END LOOP; END $$`,
		breaks: `DO $$ DECLARE t text; BEGIN FOR t IN SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', t); END LOOP; END $$`,
		want:   "warning upkeep/autovacuum-off-on-table database *"},
	{name: "an option that says on", breaks: `ALTER TABLE users SET (autovacuum_enabled = on, autovacuum_vacuum_scale_factor = 0.01)`, mends: `ALTER TABLE users RESET (autovacuum_enabled)`},
	{name: "never analyzed", breaks: `CREATE TABLE big AS SELECT i, repeat('x', 200) FROM generate_series(1, 10000) i`, mends: `DROP TABLE big`, set: map[string]float64{"analyze-from": 1e6},
		want: "warning upkeep/never-analyzed database *"},
	{name: "dead rows", breaks: `CREATE TABLE big AS SELECT i, repeat('x', 200) FROM generate_series(1, 2000) i; ANALYZE big; DELETE FROM big WHERE i > 800`, mends: `DROP TABLE big`,
		set: map[string]float64{"large-table": 200000}, want: "warning upkeep/dead-rows table big"},
	{name: "fewer dead rows", breaks: `CREATE TABLE big AS SELECT i, repeat('x', 200) FROM generate_series(1, 2000) i; ANALYZE big; DELETE FROM big WHERE i > 1300`, mends: `DROP TABLE big`,
		set: map[string]float64{"large-table": 200000, "changed-rows": 1000}},
	{name: "dead rows of a table that is not large", breaks: `CREATE TABLE big AS SELECT i, repeat('x', 200) FROM generate_series(1, 2000) i; ANALYZE big; DELETE FROM big WHERE i > 800`, mends: `DROP TABLE big`},
	{name: "changed since it was analyzed", breaks: `CREATE TABLE big AS SELECT i, repeat('x', 200) FROM generate_series(1, 2000) i; ANALYZE big; UPDATE big SET i = -i WHERE i < 1200`, mends: `DROP TABLE big`,
		set: map[string]float64{"large-table": 200000}, want: "warning upkeep/statistics-old table big"},
	{name: "a table known to swell", set: map[string]float64{"share-from": 200000, "table-share": 10}, mends: `DELETE FROM device_inbox WHERE user_id = '@a:test.example'; VACUUM device_inbox`,
		breaks: `INSERT INTO device_inbox SELECT '@a:test.example', 'D', i, repeat('x', 100) FROM generate_series(1, 2000) i`,
		want:   "info upkeep/table-dominates table device_inbox"},
	{name: "state", set: map[string]float64{"share-from": 200000, "state-share": 20}, mends: `DELETE FROM state_groups_state WHERE room_id = '!r'; VACUUM state_groups_state`,
		breaks: `INSERT INTO state_groups_state SELECT i, '!r', 't', '', repeat('x', 100) FROM generate_series(1, 5000) i`,
		want:   "info upkeep/table-dominates table state_groups_state"},
	{name: "extremities", breaks: `INSERT INTO event_forward_extremities SELECT '$x' || i, '!room2:test.example' FROM generate_series(1, 12) i`,
		mends: `DELETE FROM event_forward_extremities WHERE event_id LIKE '$x%'`, want: "info upkeep/forward-extremities table event_forward_extremities"},
	{name: "a great many extremities", breaks: `INSERT INTO event_forward_extremities SELECT '$x' || i, '!room2:test.example' FROM generate_series(1, 200) i`,
		mends: `DELETE FROM event_forward_extremities WHERE event_id LIKE '$x%'`, want: "warning upkeep/forward-extremities table event_forward_extremities"},
	{name: "extremities within bounds", breaks: `INSERT INTO event_forward_extremities SELECT '$x' || i, '!room2:test.example' FROM generate_series(1, 9) i`,
		mends: `DELETE FROM event_forward_extremities WHERE event_id LIKE '$x%'`},
	{name: "extremities, found by --deep", breaks: `INSERT INTO event_forward_extremities SELECT '$x' || i, '!room2:test.example' FROM generate_series(1, 12) i`,
		mends: `DELETE FROM event_forward_extremities WHERE event_id LIKE '$x%'`, deep: true, want: "info upkeep/forward-extremities table event_forward_extremities"},
	{name: "user directory", breaks: `UPDATE user_directory_stream_pos SET stream_id = NULL`, mends: `UPDATE user_directory_stream_pos SET stream_id = 485`,
		want: "info upkeep/user-directory-frozen table user_directory_stream_pos"},
	{name: "user directory being filled", breaks: `UPDATE user_directory_stream_pos SET stream_id = NULL; INSERT INTO background_updates (update_name, progress_json) VALUES ('populate_user_directory_process_rooms', '{}')`,
		mends: `UPDATE user_directory_stream_pos SET stream_id = 485; DELETE FROM background_updates`},
	{name: "locks", breaks: `CREATE TABLE worker_locks (lock_name text, lock_key text, instance_name text, token text, last_renewed_ts bigint); INSERT INTO worker_locks VALUES ('a', 'b', 'gone', 't', 1700000000000)`,
		mends: `DROP TABLE worker_locks`, want: "info upkeep/stale-locks table worker_locks"},
	{name: "cache invalidations", breaks: `INSERT INTO cache_invalidation_stream_by_instance SELECT i, 'master', 'f', NULL, 1700000000000 FROM generate_series(100, 700) i`,
		mends: `DELETE FROM cache_invalidation_stream_by_instance WHERE stream_id >= 100`, want: "info upkeep/pruner-late table cache_invalidation_stream_by_instance"},
	{name: "state groups to be deleted", breaks: `INSERT INTO state_groups_pending_deletion (state_group, insertion_ts) SELECT 5000 + i, 1700000000000 FROM generate_series(1, 600) i`,
		mends: `DELETE FROM state_groups_pending_deletion WHERE state_group > 5000`, want: "info upkeep/pruner-late table state_groups_pending_deletion"},
	{name: "pokes that were sent", breaks: `INSERT INTO device_lists_outbound_pokes SELECT 'd', i, '@u:h', 'D', i > 100, 1700000000000, 'master' FROM generate_series(100, 900) i`,
		mends: `DELETE FROM device_lists_outbound_pokes WHERE destination = 'd'`, want: "info upkeep/pruner-late table device_lists_outbound_pokes"},
	{name: "pokes that wait", breaks: `INSERT INTO device_lists_outbound_pokes SELECT 'd', i, '@u:h', 'D', false, 1700000000000, 'master' FROM generate_series(100, 900) i`,
		mends: `DELETE FROM device_lists_outbound_pokes WHERE destination = 'd'`},
	{name: "rows recorded as deleted", breaks: `INSERT INTO device_lists_changes_in_room (user_id, device_id, room_id, stream_id, converted_to_destinations) SELECT '@a:b', 'D', '!x' || i, 1, true FROM generate_series(1, 600) i`,
		mends: `DELETE FROM device_lists_changes_in_room WHERE stream_id = 1`, want: "info upkeep/pruner-late table device_lists_changes_in_room_max_pruned_stream_id"},
	{name: "rows that are still to be converted", breaks: `INSERT INTO device_lists_changes_in_room (user_id, device_id, room_id, stream_id, converted_to_destinations) SELECT '@a:b', 'D', '!x' || i, 1, false FROM generate_series(1, 600) i`,
		mends: `DELETE FROM device_lists_changes_in_room WHERE stream_id = 1`},

	{name: "events without content", deep: true, breaks: `CREATE TABLE kept AS SELECT * FROM event_json WHERE event_id IN ('$event7', '$event8'); DELETE FROM event_json WHERE event_id IN ('$event7', '$event8')`,
		mends: `INSERT INTO event_json SELECT * FROM kept; DROP TABLE kept`, want: "error upkeep/events-without-json table events"},
	{name: "content without events", deep: true, breaks: `INSERT INTO event_json SELECT '$lost', room_id, internal_metadata, json FROM event_json LIMIT 1`,
		mends: `DELETE FROM event_json WHERE event_id = '$lost'`, want: "warning upkeep/json-without-event table event_json"},
	{name: "memberships moved", deep: true, breaks: `UPDATE room_memberships SET event_stream_ordering = event_stream_ordering + 1 WHERE room_id = '!room2:test.example'`,
		mends: `UPDATE room_memberships SET event_stream_ordering = event_stream_ordering - 1 WHERE room_id = '!room2:test.example'`,
		want:  "warning upkeep/membership-moved table room_memberships"},
	{name: "memberships that have no place yet", deep: true, breaks: `UPDATE current_state_events SET event_stream_ordering = NULL`},
	{name: "bytes as text", deep: true, breaks: `UPDATE event_json SET json = convert_to(json, 'UTF8')::text WHERE event_id = '$event9'`, mends: `UPDATE event_json SET json = '{}' WHERE event_id = '$event9'`,
		want: "error upkeep/mangled-json column event_json.json"},
	{name: "octal escapes", deep: true, breaks: `UPDATE event_json SET json = '{"body": "\303\244 \\ \" \u00e4"}' WHERE event_id = '$event9'`, mends: `UPDATE event_json SET json = '{}' WHERE event_id = '$event9'`,
		want: "error upkeep/mangled-json column event_json.json"},
	{name: "JSON with every escape that it knows", deep: true, breaks: `UPDATE event_json SET json = '{"body": "\\303 \" \/ \b\f\n\r\t \u00e4 \\\\x"}' WHERE event_id = '$event9'`, mends: `UPDATE event_json SET json = '{}' WHERE event_id = '$event9'`},
	{name: "account data cut off", deep: true, breaks: `UPDATE account_data SET content = '{"a": ' WHERE stream_id = (SELECT min(stream_id) FROM account_data)`,
		mends: `UPDATE account_data SET content = '{}'`, want: "error upkeep/mangled-json column account_data.content"},
	{name: "a missing state group", deep: true, breaks: `DELETE FROM state_groups WHERE id = 3`, mends: `INSERT INTO state_groups VALUES (3, '!room3:test.example', '$event4')`,
		want: "warning upkeep/missing-state-groups table state_group_edges"},
	{name: "what is left of a state group that was deleted", deep: true, breaks: `INSERT INTO state_group_edges VALUES (99999, 99998)`, mends: `DELETE FROM state_group_edges WHERE state_group = 99999`},
	{name: "unreferenced state groups", deep: true, set: map[string]float64{"unreferenced-groups": 20},
		breaks: `INSERT INTO state_groups SELECT 10000 + i, '!room1:test.example', '$x' FROM generate_series(1, 30) i; INSERT INTO state_groups_pending_deletion (state_group, insertion_ts) SELECT 10000 + i, 0 FROM generate_series(1, 5) i`,
		mends:  `DELETE FROM state_groups WHERE id > 10000; DELETE FROM state_groups_pending_deletion WHERE state_group > 10000`,
		want:   "info upkeep/unreferenced-state-groups table state_groups"},
}

func TestEachFaultIsFoundAlone(t *testing.T) {
	db := fixture(t)
	for _, f := range pgtest.Some(faults) {
		t.Run(f.name, func(t *testing.T) {
			db.Exec(t, f.breaks)
			target := target(db, f.set)
			target.Deep = f.deep
			var want []string
			if f.want != "" {
				want = []string{strings.Replace(f.want, "*", db.Name, 1)}
			}
			find(t, target).want(t, want...)
			mends, vacuum, _ := strings.Cut(f.mends, "; VACUUM") // which can't be among others
			db.Exec(t, mends)
			if vacuum != "" {
				db.Exec(t, "VACUUM"+vacuum)
			}
		})
	}
	find(t, target(db, nil)).want(t)
}

// counted returns when the server's counters have arrived: a session may tell its own as late as its end.
func counted(t *testing.T, db *pgtest.DB, condition string) {
	t.Helper()
	conn := db.AdminConn(t)
	defer conn.Close(t.Context())
	for there := false; !there; {
		if err := conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_user_tables WHERE `+condition+`)`).Scan(&there); err != nil {
			t.Fatal(err)
		}
	}
}

// A crash, a failover or a reset loses what was counted: what is dead since then is no share of the table.
func TestCountersThatWereLostMakeNoDeadTable(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `CREATE TABLE big AS SELECT i, repeat('x', 200) FROM generate_series(1, 2000) i; ANALYZE big`)
	counted(t, db, `n_tup_ins = 2000 AND relname = 'big'`)
	db.AdminExec(t, `SELECT pg_stat_reset()`)
	db.Exec(t, `DELETE FROM big WHERE i > 1900`)
	counted(t, db, `n_tup_del = 100 AND relname = 'big'`)
	set := map[string]float64{"large-table": 200000}
	c := find(t, target(db, set))
	c.want(t)
	if v, ok := c.measured("table", "big", "dead-rows"); !ok || v != 5 {
		t.Errorf("%v %% of the rows are dead", v)
	}
	db.Exec(t, `CREATE TABLE bare AS SELECT i, repeat('x', 200) FROM generate_series(1, 2000) i; DELETE FROM bare WHERE i > 800`)
	counted(t, db, `n_tup_del = 1200 AND relname = 'bare'`)
	find(t, target(db, set)).want(t) // of which never-analyzed would speak
}

// open begins a transaction, with a snapshot, in a session of its own.
func open(t *testing.T, db *pgtest.DB, sql string) *pgx.Conn {
	t.Helper()
	conn := db.Conn(t)
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestWhatHoldsVacuumBackIsFound(t *testing.T) {
	db := fixture(t)
	t.Run("a transaction left open", func(t *testing.T) {
		conn := open(t, db, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM users`)
		find(t, target(db, nil)).want(t)
		find(t, target(db, map[string]float64{"idle-transaction": 0})).
			want(t, fmt.Sprintf("warning upkeep/idle-in-transaction session pid %d", conn.PgConn().PID()))
	})
	t.Run("a long query", func(t *testing.T) {
		conn := db.Conn(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn.Exec(t.Context(), `SELECT pg_sleep(60)`)
		}()
		watcher := db.Conn(t)
		for n := 0; n == 0; {
			if err := watcher.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND backend_xmin IS NOT NULL`, conn.PgConn().PID()).Scan(&n); err != nil {
				t.Fatal(err)
			}
		}
		find(t, target(db, nil)).want(t)
		find(t, target(db, map[string]float64{"old-snapshot": 0})).
			want(t, fmt.Sprintf("warning upkeep/old-snapshot session pid %d", conn.PgConn().PID()))
		db.AdminExec(t, fmt.Sprintf(`SELECT pg_terminate_backend(%d)`, conn.PgConn().PID()))
		<-done
	})
	t.Run("the build of an index", func(t *testing.T) {
		conn := db.Conn(t)
		db.Exec(t, `CREATE FUNCTION slow(n bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN n; END'`)
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn.Exec(t.Context(), `CREATE INDEX building ON users (slow(creation_ts))`)
		}()
		watcher := db.Conn(t)
		for n := 0; n == 0; {
			if err := watcher.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_progress_create_index JOIN pg_stat_activity USING (pid) WHERE backend_xmin IS NOT NULL`).Scan(&n); err != nil {
				t.Fatal(err)
			}
		}
		find(t, target(db, map[string]float64{"old-snapshot": 0})).
			want(t, fmt.Sprintf("info upkeep/old-snapshot session pid %d", conn.PgConn().PID()))
		db.AdminExec(t, fmt.Sprintf(`SELECT pg_terminate_backend(%d)`, conn.PgConn().PID()))
		<-done
		db.Exec(t, `DROP FUNCTION slow`)
	})
	t.Run("many transactions", func(t *testing.T) {
		conn := open(t, db, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM users`)
		other := db.Conn(t)
		for range 5 {
			if _, err := other.Exec(t.Context(), `SELECT txid_current()`); err != nil {
				t.Fatal(err)
			}
		}
		c := find(t, target(db, map[string]float64{"held-back": 5}))
		c.want(t, fmt.Sprintf("warning upkeep/idle-in-transaction session pid %d", conn.PgConn().PID()))
		if v, ok := c.measured("database", db.Name, "oldest-snapshot"); !ok || v < 5 {
			t.Errorf("oldest-snapshot is %v", v)
		}
	})
	t.Run("a prepared transaction", func(t *testing.T) {
		db.Exec(t, `BEGIN; UPDATE users SET admin = 0; PREPARE TRANSACTION 'it''s forgotten'`)
		defer db.Exec(t, `ROLLBACK PREPARED 'it''s forgotten'`)
		find(t, target(db, nil)).want(t)
		c := find(t, target(db, map[string]float64{"prepared-transaction": 0}))
		c.want(t, "warning upkeep/prepared-transaction prepared transaction it's forgotten")
		if !strings.Contains(c.found[0].Remedy, "ROLLBACK PREPARED 'it''s forgotten';") {
			t.Error(c.found[0].Remedy)
		}
	})
	t.Run("a replication slot", func(t *testing.T) {
		db.AdminExec(t, `SELECT pg_create_physical_replication_slot('later')`)
		defer db.AdminExec(t, `SELECT pg_drop_replication_slot('later')`)
		find(t, target(db, nil)).want(t) // it keeps nothing yet
		db.AdminExec(t, `SELECT pg_create_physical_replication_slot('standby1', true)`)
		defer db.AdminExec(t, `SELECT pg_drop_replication_slot('standby1')`)
		find(t, target(db, nil)).want(t, "info upkeep/slot-keeps-wal replication slot standby1")
		find(t, target(db, map[string]float64{"slot-wal": 0})).want(t, "warning upkeep/slot-keeps-wal replication slot standby1")
	})
}

func TestASlotThatHoldsRowsOrIsLostIsFound(t *testing.T) {
	db := fixture(t)
	t.Run("holds", func(t *testing.T) {
		db.AdminExec(t, `SELECT pg_create_logical_replication_slot('bridge', 'pgoutput')`)
		defer db.AdminExec(t, `SELECT pg_drop_replication_slot('bridge')`)
		for range 5 {
			db.Exec(t, `SELECT txid_current()`)
		}
		c := find(t, target(db, map[string]float64{"held-back": 3}))
		c.want(t, "warning upkeep/slot-keeps-wal replication slot bridge")
		if !strings.Contains(c.found[0].Summary, "keeps dead rows") {
			t.Error(c.found[0].Summary)
		}
		held := target(db, map[string]float64{"held-back": 3})
		defer held.Close()
		v := &vacuumer{db: held.Databases[0], watched: held.Databases[0], mode: modeVacuum, host: &host{}}
		if err := v.nobodyHolds(t.Context(), held); err == nil || !strings.Contains(err.Error(), "replication slot bridge") {
			t.Errorf("vacuum would begin: %v", err)
		}
	})
	t.Run("lost", func(t *testing.T) {
		db.AdminExec(t, `SELECT pg_create_physical_replication_slot('gone', true)`)
		defer db.AdminExec(t, `SELECT pg_drop_replication_slot('gone')`)
		db.AdminExec(t, `ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'`)
		db.Server.Reload(t)
		for range 3 {
			db.AdminExec(t, `SELECT txid_current(), pg_switch_wal()`)
		}
		db.AdminExec(t, `CHECKPOINT`)
		c := find(t, target(db, nil))
		db.AdminExec(t, `ALTER SYSTEM RESET max_slot_wal_keep_size`)
		db.Server.Reload(t)
		c.want(t, "warning upkeep/slot-keeps-wal replication slot gone")
		if !strings.Contains(c.found[0].Summary, "is lost") {
			t.Error(c.found[0].Summary, c.found[0].Evidence)
		}
	})
}

// A standby that sends hot_standby_feedback, as far as the server can see.
func TestAStandbyThatHoldsRowsIsFound(t *testing.T) {
	db := fixture(t)
	var xid uint32
	if err := db.Conn(t).QueryRow(t.Context(), `SELECT txid_current()::text::int`).Scan(&xid); err != nil {
		t.Fatal(err)
	}
	standby, err := pgconn.Connect(t.Context(), db.AdminDSN()+" replication=true application_name=standby7")
	if err != nil {
		t.Fatal(err)
	}
	defer standby.Close(t.Context())
	system, err := standby.Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	standby.Frontend().Send(&pgproto3.Query{String: "START_REPLICATION " + string(system[0].Rows[0][2])})
	feedback := []byte{'h', 0, 0, 0, 0, 0, 0, 0, 0}
	for _, n := range []uint32{xid, 0, 0, 0} { // its oldest, and that of its slots, each with an epoch
		feedback = binary.BigEndian.AppendUint32(feedback, n)
	}
	standby.Frontend().Send(&pgproto3.CopyData{Data: feedback})
	if err := standby.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	admin := db.AdminConn(t)
	for heard := false; !heard; {
		if err := admin.QueryRow(t.Context(), `SELECT coalesce(bool_or(backend_xmin IS NOT NULL), false) FROM pg_stat_replication`).Scan(&heard); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		db.Exec(t, `SELECT txid_current()`)
	}
	find(t, withAdmin(target(db, nil), db)).want(t)
	find(t, withAdmin(target(db, map[string]float64{"held-back": 3}), db)).want(t, "warning upkeep/standby-holds-back standby standby7")
}

func TestSessionsThatCannotBeSeenAreSaid(t *testing.T) {
	db := fixture(t)
	admin := db.AdminConn(t)
	if _, err := admin.Exec(t.Context(), `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM users`); err != nil {
		t.Fatal(err)
	}
	set := map[string]float64{"idle-transaction": 0}
	c := find(t, target(db, set))
	c.want(t)
	if !strings.Contains(c.covered, "what 1 session of other roles") {
		t.Errorf("covered: %s", c.covered)
	}
	for range 5 {
		db.Exec(t, `SELECT txid_current()`)
	}
	held := find(t, target(db, map[string]float64{"held-back": 5})) // the age of its snapshot is no secret
	held.want(t, fmt.Sprintf("warning upkeep/old-snapshot session pid %d", admin.PgConn().PID()))
	if !strings.Contains(held.found[0].Summary, "which this role can't look into") {
		t.Error(held.found[0].Summary)
	}
	c = find(t, withAdmin(target(db, set), db))
	c.want(t, fmt.Sprintf("warning upkeep/idle-in-transaction session pid %d", admin.PgConn().PID()))
	if strings.Contains(c.covered, "other roles") {
		t.Errorf("covered: %s", c.covered)
	}
}

func TestAServerThatIsNotLookedAfterIsFound(t *testing.T) {
	db := fixture(t)
	set := func(statements ...string) {
		for _, sql := range statements {
			db.AdminExec(t, sql)
		}
		db.Server.Reload(t)
	}
	set(`ALTER SYSTEM SET autovacuum = off`, `ALTER SYSTEM SET track_counts = off`)
	c := find(t, target(db, nil))
	set(`ALTER SYSTEM RESET track_counts`, `ALTER SYSTEM RESET autovacuum`)
	c.want(t, "warning upkeep/autovacuum-off setting autovacuum", "warning upkeep/autovacuum-off setting track_counts")
	find(t, target(db, nil)).want(t)
}

// As vacuum sees it: what a stopping server says, and what it does not yet say.
func TestTheEndOfTheNumbersIsAnError(t *testing.T) {
	e := &examination{target: &doctor.Target{}, server: server{FreezeMaxAge: 200e6, MultixactMaxAge: 400e6}}
	for _, c := range []struct {
		xid, multi int64
		want       string
	}{{300e6, 0, ""}, {300e6 + 1, 0, "warning"}, {1_599_999_999, 0, "warning"}, {1_600_000_000, 0, "error"}, {0, 600e6, ""}, {250e6, 601e6, "warning"}, {2_000_000_000, 601e6, "error"}} {
		f, found := e.judgeAge(databaseAge{Name: "synapse", XID: c.xid, Multixact: c.multi})
		if found != (c.want != "") || found && f.Severity.String() != c.want {
			t.Errorf("%d and %d: %t %v", c.xid, c.multi, found, f.Severity)
		}
	}
	e.server.FreezeMaxAge = 2e9 // as high as it can be set
	if _, found := e.judgeAge(databaseAge{XID: 1_700_000_000}); !found {
		t.Error("beyond failsafe age, nothing is said")
	}
}

// earlier is what a run measured, as the run after it is handed it.
func (c *collector) earlier(ago time.Duration) doctor.Earlier {
	measures := slices.Clone(c.measures)
	for i := range measures {
		measures[i].At = time.Now().Add(-ago).Truncate(time.Second)
	}
	return doctor.NewEarlier(append(measures, doctor.Measure{Check: "another", Database: "main", Name: "n", At: time.Now()})) // whose run was just now
}

// newEvent shows that Synapse has worked.
const newEvent = `INSERT INTO events (topological_ordering, event_id, type, room_id, processed, outlier, stream_ordering) VALUES (1, '$new', 'm', '!room1:test.example', true, false, 9999)`

func TestGrowthIsToldAgainstTheEarlierRun(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `CREATE TABLE swelling AS SELECT repeat('x', 100) AS x FROM generate_series(1, 1000)`)
	set := map[string]float64{"share-from": 100000, "table-share": 100, "state-share": 100}
	before := find(t, target(db, set))
	before.want(t)
	db.Exec(t, `INSERT INTO swelling SELECT repeat('x', 100) FROM generate_series(1, 1000)`)
	after := target(db, set)
	after.Earlier = before.earlier(10 * 24 * time.Hour)
	find(t, after).want(t, "info upkeep/table-grows table swelling")
	after = target(db, set)
	after.Earlier = before.earlier(time.Hour)
	find(t, after).want(t) // what an hour shows is chance
	after = target(db, set)
	after.Earlier = before.earlier(11 * time.Hour)
	half := find(t, after)
	half.want(t)
	after = target(db, set)
	after.Earlier = half.earlier(11 * time.Hour)
	find(t, after).want(t, "info upkeep/table-grows table swelling") // against the run before that
}

func TestUpdatesThatGetNowhereAreFound(t *testing.T) {
	db := fixture(t)
	for _, c := range []struct {
		name, then string
		ago        time.Duration
		stuck      bool
	}{
		{"nothing has moved", ``, 48 * time.Hour, true},
		{"an hour ago", ``, time.Hour, false},
		{"it has got on", `UPDATE background_updates SET progress_json = '{"last": 8}' WHERE update_name = 'b'`, 48 * time.Hour, false},
		{"another is done", `DELETE FROM background_updates WHERE update_name = 'a'`, 48 * time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			db.Exec(t, `DELETE FROM events WHERE event_id = '$new'; DELETE FROM background_updates; INSERT INTO background_updates VALUES ('a', '{}', 'b', 1), ('b', '{"last": 7}', 'not queued', 2)`)
			before := find(t, target(db, nil))
			before.want(t)
			later := target(db, nil)
			later.Earlier = before.earlier(c.ago)
			find(t, later).want(t) // Synapse has not worked since
			db.Exec(t, newEvent+`; `+c.then)
			later = target(db, nil)
			later.Earlier = before.earlier(c.ago)
			var want []string
			if c.stuck {
				want = []string{"warning upkeep/background-update-stuck background update b"}
			}
			find(t, later).want(t, want...)
		})
	}
}

// While an index is built, for hours perhaps, the update that waits for it records nothing.
func TestAnUpdateThatBuildsAnIndexIsNotStuck(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `INSERT INTO background_updates VALUES ('a', '{}', NULL, 1)`)
	before := find(t, target(db, nil))
	db.Exec(t, newEvent)
	later := func() *collector {
		later := target(db, nil)
		later.Earlier = before.earlier(48 * time.Hour)
		return find(t, later)
	}
	writer := open(t, db, `BEGIN; DELETE FROM users WHERE false; LOCK TABLE users IN ROW EXCLUSIVE MODE`)
	builder, watcher := db.Conn(t), db.Conn(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		builder.Exec(t.Context(), `CREATE INDEX CONCURRENTLY building ON users (creation_ts)`)
	}()
	for building := false; !building; {
		if err := watcher.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_progress_create_index)`).Scan(&building); err != nil {
			t.Fatal(err)
		}
	}
	later().want(t)
	if _, err := writer.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	<-done
	later().want(t, "warning upkeep/background-update-stuck background update a")
}

// Somebody has tables, or an index, to himself: nothing is waited for, and the rest is told.
func TestALockedTableHoldsNothingUp(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `VACUUM event_json`)
	db.Exec(t, `ALTER TABLE users SET (autovacuum_enabled = off)`)
	// The index of what is stored out of line, which only an administrator can name.
	if _, err := db.AdminConn(t).Exec(t.Context(), `BEGIN; DO $$ BEGIN EXECUTE 'REINDEX INDEX pg_toast.' || (SELECT relname || '_index' FROM pg_class WHERE oid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'pushers'::regclass)); END $$`); err != nil {
		t.Fatal(err)
	}
	open(t, db, `BEGIN; LOCK TABLE event_json IN ACCESS EXCLUSIVE MODE; ALTER INDEX events_order_room SET (fillfactor = 90); DROP INDEX receipts_linearized_id`)
	start := time.Now()
	c := find(t, target(db, nil))
	c.want(t, "info upkeep/autovacuum-off-on-table table users")
	if v, ok := c.measured("table", "event_json", "size"); !ok || v <= 0 {
		t.Errorf("size %v", v)
	}
	if took := time.Since(start); took > 4*time.Second { // a lock is waited for five seconds
		t.Errorf("it took %s", took)
	}
}

func TestAPrunerThatWasLateBeforeIsAWarning(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `INSERT INTO cache_invalidation_stream_by_instance SELECT i, 'master', 'f', NULL, 1700000000000 FROM generate_series(100, 700) i`)
	before := find(t, target(db, nil))
	later := target(db, nil)
	later.Earlier = before.earlier(48 * time.Hour)
	find(t, later).want(t, "info upkeep/pruner-late table cache_invalidation_stream_by_instance") // Synapse has not worked since
	db.Exec(t, newEvent)
	later = target(db, nil)
	later.Earlier = before.earlier(48 * time.Hour)
	find(t, later).want(t, "warning upkeep/pruner-late table cache_invalidation_stream_by_instance")
}

func TestTheDiskIsLookedAtWhereItIsLocal(t *testing.T) {
	db := fixture(t)
	local := func(set map[string]float64) *doctor.Target {
		target := target(db, set)
		target.Databases[0].DataDir = db.Server.DataDir
		return target
	}
	c := find(t, local(nil))
	if v, ok := c.measured("disk", db.Server.DataDir, "free"); !ok || v <= 0 {
		t.Errorf("free is %v", v)
	}
	find(t, local(map[string]float64{"disk-free": 1e7})).want(t, "warning upkeep/disk-low disk "+db.Server.DataDir)
	grown := local(map[string]float64{"disk-days": 1e4})
	size, _ := c.measured("database", db.Name, "size")
	e := c.earlier(26 * time.Hour)
	for i := range e.Measures {
		if e.Measures[i].Name == "size" && e.Measures[i].Object.Kind == "database" {
			e.Measures[i].Value = size - 1e6 // it grows by a megabyte a day
		}
	}
	grown.Earlier = e
	f := find(t, grown)
	if days, _ := c.measured("disk", db.Server.DataDir, "free"); days/1e6 < 1e4 {
		f.want(t, "warning upkeep/disk-low disk "+db.Server.DataDir)
	}
}

func TestDisksAreToldApart(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "pg_wal")
	if err := os.Symlink("/proc", link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{dir: true, link: false} {
		if same, err := sameDisk(dir, path); err != nil || same != want {
			t.Errorf("%s: %t, %v", path, same, err)
		}
	}
	if _, err := sameDisk(dir, filepath.Join(dir, "nothing")); !unseen(err) {
		t.Error(err)
	}
}

// Tables of one row that are written all the time may take some room. What takes far more is said, and is no failure.
func TestABloatedTableOfAFewRowsIsNotRead(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `CREATE TABLE worker_locks (instance_name text, last_renewed_ts bigint); INSERT INTO worker_locks SELECT repeat('x', 100), 1700000000000 FROM generate_series(1, 50000)`)
	find(t, target(db, nil)).want(t, "info upkeep/stale-locks table worker_locks")
	was := mostBloated
	mostBloated = 4 * mib
	defer func() { mostBloated = was }()
	c := find(t, target(db, nil))
	c.want(t)
	if !strings.Contains(c.covered, "not read: worker_locks, which takes ") {
		t.Errorf("covered: %s", c.covered)
	}
}

func TestWritersThatTheConfigurationDoesNotNameAreSaid(t *testing.T) {
	db := fixture(t)
	target := target(db, nil)
	target.ConfigFiles = []string{db.Homeserver(t)}
	c := find(t, target)
	c.want(t, "info upkeep/stale-writers table stream_positions")
	if f := c.found[0]; f.Evidence["persister1"] == "" || len(f.Evidence) != 1 {
		t.Errorf("%+v", f.Evidence)
	}
}

func TestTablesAreMeasured(t *testing.T) {
	db := dump(t, "synapse_ported.dump")
	c := find(t, target(db, nil))
	for _, table := range []string{"event_json", "state_groups_state", "device_lists_changes_in_room", "event_push_actions", "e2e_room_keys", "device_inbox",
		"device_federation_outbox", "device_federation_inbox", "stream_ordering_to_exterm", "presence_stream"} {
		if v, ok := c.measured("table", table, "size"); !ok || v <= 0 {
			t.Errorf("%s: size %v", table, v)
		}
		if _, ok := c.measured("table", table, "share"); !ok {
			t.Errorf("%s has no share", table)
		}
	}
	if v, _ := c.measured("table", "event_json", "rows"); v < 3800 || v > 3950 {
		t.Errorf("event_json has about %v rows", v)
	}
	if len(c.measures) > maxMeasures {
		t.Errorf("%d measures", len(c.measures))
	}
}
