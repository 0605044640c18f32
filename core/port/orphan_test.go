package port

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// asStored records that what the tables hold now is what was stored.
func asStored(t *testing.T, conn *pgx.Conn, tables ...Table) {
	t.Helper()
	for _, table := range tables {
		if _, err := conn.Exec(t.Context(), `INSERT INTO synapse_doctor.port_chunk (name, first, last, rows, source_sum, stored, stored_sum, first_key, last_key)
SELECT $1, 1, n, n, s, n, s, '', '' FROM (SELECT count(*), coalesce(sum(`+table.hash()+`), 0) FROM `+table.Ident+`) x(n, s)`, table.Name); err != nil {
			t.Fatal(err)
		}
	}
}

const family = `CREATE TABLE rooms (room_id text PRIMARY KEY, n int);
CREATE TABLE events (event_id text PRIMARY KEY, room_id text REFERENCES rooms ON DELETE CASCADE, ok bool, size float8, raw bytea, twin jsonb);
CREATE TABLE edges (id bigint PRIMARY KEY, event_id text NOT NULL CONSTRAINT edges_event REFERENCES events ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE loose (id bigint, event_id text);
CREATE TABLE refresh_tokens (id bigint PRIMARY KEY, token text, next_token_id bigint CONSTRAINT refresh_next REFERENCES refresh_tokens ON DELETE CASCADE);
CREATE TABLE access_tokens (id bigint PRIMARY KEY, token text, refresh_token_id bigint REFERENCES refresh_tokens ON DELETE CASCADE);
CREATE TABLE pairs (a int, b int, PRIMARY KEY (a, b));
CREATE TABLE wholly (id int PRIMARY KEY, a int, b int, CONSTRAINT wholly_both FOREIGN KEY (a, b) REFERENCES pairs MATCH FULL);
CREATE TABLE partly (id int PRIMARY KEY, a int, b int, CONSTRAINT partly_both FOREIGN KEY (a, b) REFERENCES pairs);
ALTER TABLE loose ADD CONSTRAINT loose_event FOREIGN KEY (event_id) REFERENCES events NOT VALID`

const orphans = `INSERT INTO rooms VALUES ('!a', 1);
INSERT INTO events VALUES ('$1', '!a', true, 1, '\x00ff', '{"k": 1}'), ('$2', '!gone', false, 'NaN', '\x5c', NULL), ('$3', NULL, NULL, NULL, NULL, NULL);
INSERT INTO edges VALUES (1, '$1'), (2, '$2'), (3, '$3'), (4, '$never');
INSERT INTO loose VALUES (1, '$1'), (2, '$2'), (3, '$elsewhere');
INSERT INTO refresh_tokens SELECT i, 'secret' || i, CASE WHEN i <= 40 THEN i + 1 ELSE 999 END FROM generate_series(1, 41) i;
INSERT INTO refresh_tokens VALUES (100, 'secret100', NULL), (101, 'secret101', 100);
INSERT INTO access_tokens VALUES (1, 'secretA', 5), (2, 'secretB', 101), (3, 'secretC', NULL);
INSERT INTO pairs VALUES (1, 1);
INSERT INTO wholly VALUES (1, 1, 1), (2, 1, NULL), (3, NULL, NULL), (4, 2, 2);
INSERT INTO partly VALUES (1, 1, 1), (2, 1, NULL), (3, NULL, NULL), (4, 2, 2)`

func TestRowsWithoutAParentGoIntoQuarantineWholeAndTheirChildrenToo(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(family))
	conn := db.Conn(t)
	mustMakeState(t, conn)
	before := schemaOfTarget(t, conn)
	m := &Match{}
	for _, table := range plainTables(t, conn) {
		table = copiedTable(t, conn, table.Name)
		table.Key = []string{table.Columns[0].Name}
		m.Tables = append(m.Tables, table)
	}
	if err := dropObjects(t.Context(), conn, m.Tables, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, orphans)
	asStored(t, conn, m.Tables...)
	if n := restoreAll(t, conn, m); n != 1+2+41+1+2+1 {
		t.Errorf("%d orphans, want 48", n)
	}
	wantSameSchema(t, before, schemaOfTarget(t, conn))
	for table, want := range map[string]string{
		"events": "$1 $3", "edges": "1 3", "loose": "1 2 3", "refresh_tokens": "100 101", "access_tokens": "2 3", "wholly": "1 3", "partly": "1 2 3",
	} {
		key := "id"
		if table == "events" {
			key = "event_id"
		}
		if got := scalar[string](t, conn, `SELECT string_agg(`+key+`::text, ' ' ORDER BY `+key+`) FROM `+table); got != want {
			t.Errorf("%s holds %s, want %s", table, got, want)
		}
	}
	for _, table := range m.Tables {
		if err := verify(t.Context(), conn, table); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []string{
		`events|the foreign key events_room_id_fkey: the table rooms has no row with room_id="!gone"|` +
			`{"ok": ["integer", 0], "raw": ["blob", "XA=="], "size": ["real", "NaN"], "twin": ["null", null], "room_id": ["text", "!gone"], "event_id": ["text", "$2"]}`,
		`edges|the foreign key edges_event: the table events has no row with event_id="$never"|{"id": ["integer", 4], "event_id": ["text", "$never"]}`,
		`refresh_tokens|the foreign key refresh_next: the table refresh_tokens has no row with id=2|{"id": ["integer", 1], "token": ["text", "secret1"], "next_token_id": ["integer", 2]}`,
		`wholly|the foreign key wholly_both: the table pairs has no row with a=1 b=NULL|{"a": ["integer", 1], "b": ["null", null], "id": ["integer", 2]}`,
	} {
		if n := scalar[int](t, conn, `SELECT count(*) FROM synapse_doctor.port_quarantine WHERE concat_ws('|', name, reason, row) = $1`, want); n != 1 {
			t.Errorf("%d rows in quarantine are %s", n, want)
		}
	}
	if told := scalar[string](t, conn, `SELECT string_agg(key || reason, E'\n') FROM synapse_doctor.port_quarantine`); strings.Contains(told, "secret") {
		t.Errorf("a secret is told: %s", told)
	}
	if n := scalar[int](t, conn, `SELECT count(*) FROM synapse_doctor.port_quarantine WHERE hash IS NULL`); n != 0 {
		t.Errorf("%d rows have no hash", n)
	}
	if found, err := orphanedTables(t.Context(), conn); err != nil || len(found) != 6 || !found["access_tokens"] {
		t.Errorf("tables with orphans: %v %v", found, err)
	}
}

func TestARowThatIsNotWhatWasStoredIsSeen(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(family+`; INSERT INTO rooms SELECT '!' || i, i FROM generate_series(1, 1000) i`))
	conn := db.Conn(t)
	mustMakeState(t, conn)
	table := copiedTable(t, conn, "rooms")
	for _, c := range []struct{ change, wanted string }{
		{`UPDATE rooms SET n = n + 1 WHERE n = 500`, "not what was read from the file"},
		{`UPDATE rooms SET n = NULL WHERE n = 500`, "not what was read from the file"},
		{`DELETE FROM rooms WHERE n = 3`, "holds 999 rows, and 1000 were stored"},
		{`INSERT INTO rooms VALUES ('!new', 0)`, "holds 1001 rows, and 1000 were stored"},
		{`UPDATE rooms SET n = 0 WHERE n <= 2; UPDATE rooms SET n = 3 - substr(room_id, 2)::int WHERE n = 0`, "not what was read from the file"},
		{`SELECT 1`, ""},
	} {
		if _, err := conn.Exec(t.Context(), `DELETE FROM synapse_doctor.port_chunk; TRUNCATE rooms CASCADE; `+`INSERT INTO rooms SELECT '!' || i, i FROM generate_series(1, 1000) i`, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
		asStored(t, conn, table)
		db.Exec(t, c.change)
		err := verify(t.Context(), conn, table)
		if c.wanted == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.wanted) || !strings.Contains(err.Error(), "rooms") {
			t.Errorf("%s: %v", c.change, err)
		}
		if n := scalar[int](t, conn, `SELECT count(*) FROM synapse_doctor.port_chunk`); n != 0 {
			t.Errorf("%s: the record is still there, so that the next run does not load the table anew", c.change)
		}
	}
	if err := hashAgrees(t.Context(), conn); err != nil {
		t.Error(err)
	}
}

func TestSeveralSessionsMakeObjectsAgainAtOnceAndAreKilledMeanwhile(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(family+`; CREATE INDEX ON edges (event_id); CREATE INDEX ON events (room_id); CREATE INDEX ON refresh_tokens (token)`))
	conn := db.Conn(t)
	mustMakeState(t, conn)
	before := schemaOfTarget(t, conn)
	m := &Match{}
	for _, table := range plainTables(t, conn) {
		m.Tables = append(m.Tables, copiedTable(t, conn, table.Name))
	}
	random := rand.New(rand.NewPCG(7, 9))
	for round := range 5 {
		db.Exec(t, `TRUNCATE synapse_doctor.port_chunk, synapse_doctor.port_quarantine`)
		if err := dropObjects(t.Context(), conn, m.Tables, nil, nil, nil); err != nil {
			t.Fatal(err)
		}
		db.Exec(t, `TRUNCATE rooms, events, edges, loose, refresh_tokens, access_tokens, pairs, wholly, partly; `+orphans)
		asStored(t, conn, m.Tables...)
		for attempt := range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			pending, err := pendingObjects(t.Context(), conn)
			if err != nil {
				t.Fatal(err)
			}
			random.Shuffle(len(pending), func(i, j int) { pending[i], pending[j] = pending[j], pending[i] })
			work := make(chan object, len(pending))
			for _, o := range pending {
				work <- o
			}
			close(work)
			var wg sync.WaitGroup
			for range 3 {
				session := db.Conn(t)
				wg.Go(func() {
					for o := range work {
						if _, err := o.restore(ctx, session, "", m); err != nil && attempt == 2 {
							t.Errorf("round %d: %v", round, err)
						}
					}
				})
			}
			if attempt < 2 { // as a kill does, the sessions end wherever they are
				admin := db.AdminConn(t)
				if _, err := admin.Exec(t.Context(), `SELECT pg_sleep($1), pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'synapse_user' AND pid <> $2`,
					random.Float64()/50, int32(conn.PgConn().PID())); err != nil {
					t.Fatal(err)
				}
			}
			wg.Wait()
			cancel()
		}
		if left, err := pendingObjects(t.Context(), conn); err != nil || len(left) > 0 {
			t.Fatalf("round %d: %d objects are left: %v %v", round, len(left), left, err)
		}
		wantSameSchema(t, before, schemaOfTarget(t, conn))
		if n := scalar[int](t, conn, `SELECT count(*) FROM synapse_doctor.port_quarantine`); n != 48 {
			t.Errorf("round %d: %d rows in quarantine, want 48", round, n)
		}
		for _, table := range m.Tables {
			if err := verify(t.Context(), conn, table); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
	}
}
