package locale

import (
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// classes is a database with tables of every kind of row that may be there twice.
const classes = `
CREATE FUNCTION pg_temp.k(n int) RETURNS text LANGUAGE sql AS $$ SELECT CASE n % 3 WHEN 0 THEN '@' WHEN 1 THEN '#' ELSE '' END || CASE n % 2 WHEN 0 THEN 'A' ELSE 'a' END || n $$;
CREATE TABLE schema_version (version int);
INSERT INTO schema_version VALUES (94);
CREATE TABLE room_stats_state (room_id text NOT NULL UNIQUE, name text);
INSERT INTO room_stats_state SELECT pg_temp.k(n), 'old' FROM generate_series(1, 90) n;
ALTER TABLE room_stats_state ADD CONSTRAINT not_old CHECK (name <> 'old') NOT VALID;
CREATE TABLE destinations (destination text PRIMARY KEY, retry_last_ts bigint);
INSERT INTO destinations SELECT pg_temp.k(n), n FROM generate_series(1, 90) n;
CREATE TABLE destination_rooms (destination text NOT NULL REFERENCES destinations ON DELETE CASCADE, room_id text, PRIMARY KEY (destination, room_id));
INSERT INTO destination_rooms SELECT pg_temp.k(n), 'r' FROM generate_series(1, 90) n;
CREATE TABLE receipts_linearized (stream_id bigint NOT NULL UNIQUE, room_id text NOT NULL, receipt_type text NOT NULL, user_id text NOT NULL, event_id text NOT NULL, thread_id text,
  CONSTRAINT receipts_linearized_uniqueness_thread UNIQUE (room_id, receipt_type, user_id, thread_id));
CREATE UNIQUE INDEX receipts_linearized_unique_index ON receipts_linearized (room_id, receipt_type, user_id) WHERE thread_id IS NULL;
INSERT INTO receipts_linearized SELECT n, pg_temp.k(n), 'm.read', 'u', '$' || n, CASE WHEN n % 4 = 0 THEN NULL ELSE 't' END FROM generate_series(1, 90) n;
CREATE TABLE receipts_graph (room_id text NOT NULL, receipt_type text NOT NULL, user_id text NOT NULL, event_ids text NOT NULL, data text NOT NULL, thread_id text,
  CONSTRAINT receipts_graph_uniqueness_thread UNIQUE (room_id, receipt_type, user_id, thread_id));
CREATE UNIQUE INDEX receipts_graph_unique_index ON receipts_graph (room_id, receipt_type, user_id) WHERE thread_id IS NULL;
INSERT INTO receipts_graph SELECT room_id, receipt_type, user_id, to_json(ARRAY[event_id])::text, '{}', thread_id FROM receipts_linearized;
CREATE TABLE user_filters (user_id text NOT NULL, filter_id bigint NOT NULL, filter_json bytea NOT NULL, UNIQUE (user_id, filter_id));
INSERT INTO user_filters SELECT pg_temp.k(n), n, decode(md5(n::text), 'hex') FROM generate_series(1, 90) n;
CREATE TABLE event_txn_id_device_id (event_id text NOT NULL, room_id text NOT NULL, user_id text NOT NULL, device_id text NOT NULL, txn_id text NOT NULL);
CREATE UNIQUE INDEX event_txn_id_device_id_event_id ON event_txn_id_device_id (event_id);
CREATE UNIQUE INDEX event_txn_id_device_id_txn_id ON event_txn_id_device_id (user_id, device_id, room_id, txn_id);
INSERT INTO event_txn_id_device_id SELECT '$' || n, 'r', pg_temp.k(n), 'd', 't' FROM generate_series(1, 30) n;
CREATE TABLE "Odd ""table""" (id text, gone int, big bigint, bytes bytea, j jsonb, plain json, list text[], v tsvector, f float8, r real, n numeric, c char(5), vc varchar(9), yes bool,
  at timestamptz, took interval, "Odd ""column""" text, made text GENERATED ALWAYS AS (lower(id)) STORED, number bigint GENERATED ALWAYS AS IDENTITY);
ALTER TABLE "Odd ""table""" DROP gone;
CREATE UNIQUE INDEX odd ON "Odd ""table""" (lower(id), big) WHERE yes;
CREATE INDEX odd_c ON "Odd ""table""" (id COLLATE "C");
INSERT INTO "Odd ""table""" (id, big, bytes, j, plain, list, v, f, r, n, c, vc, yes, at, took, "Odd ""column""") VALUES
  ('@É', 9007199254740993, '\x00ff5c27', 'null', '{"a":  1.10, "a": "\u0000"}', ARRAY['a', NULL, 'NULL', '"', '{x,y}', ''], '''É'':1A ''it''''s'':2', 'NaN', 0.1, 'NaN', 'ab', 'ab ', true, '2024-02-29 23:59:59.123456+00', '1 mon 2 days -3.5 sec', E'a\nb\t\\'),
  ('x', -9223372036854775808, '', '{"b": 1e400, "a": [null]}', NULL, '{}', '', '-0', '1e-45', 12345678901234567890.123456789000, '', '', true, '-infinity', NULL, ''),
  ('<&>', 0, NULL, '"\\u0041"', '[]', '{{1,2},{3,4}}', NULL, 1.7976931348623157e308, 'Infinity', 0.00, NULL, NULL, true, 'infinity', '0', NULL),
  ('plain', 1, '\x01', '{}', '{}', '{}', '', 1, 1, 1, 'a', 'a', NULL, now(), '1 day', 'x');
`

// twice puts rows in again, as an index that doesn't find them lets happen.
const twice = `
UPDATE pg_index SET indisvalid = false, indisready = false WHERE indisunique AND 100 = ANY (indcollation::oid[]) AND indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace);
SET session_replication_role = replica;
ALTER TABLE room_stats_state DROP CONSTRAINT not_old;
INSERT INTO room_stats_state SELECT room_id, 'new' FROM room_stats_state WHERE ascii(room_id) % 2 = 0;
INSERT INTO room_stats_state SELECT room_id, 'newest' FROM room_stats_state WHERE room_id = '@A6' LIMIT 1;
ALTER TABLE room_stats_state ADD CONSTRAINT not_old CHECK (name <> 'old') NOT VALID;
INSERT INTO destinations SELECT destination, NULL FROM destinations WHERE retry_last_ts % 2 = 0;
INSERT INTO receipts_linearized SELECT stream_id + 1000, room_id, receipt_type, user_id, event_id || 'new', thread_id FROM receipts_linearized WHERE stream_id % 5 <> 0;
INSERT INTO receipts_graph SELECT room_id, receipt_type, user_id, to_json(ARRAY[event_id])::text, '{}', thread_id FROM receipts_linearized WHERE stream_id > 1000;
INSERT INTO user_filters SELECT * FROM user_filters WHERE filter_id % 3 = 0;
INSERT INTO event_txn_id_device_id SELECT event_id, 'r', user_id, 'd', txn_id || CASE WHEN event_id < '$2' THEN '' ELSE '2' END FROM event_txn_id_device_id WHERE event_id < '$3';
INSERT INTO event_txn_id_device_id SELECT event_id || 'b', 'r', user_id, 'd', 't' FROM event_txn_id_device_id WHERE event_id >= '$3' AND event_id < '$4';
INSERT INTO "Odd ""table""" (id, big, bytes, j, plain, list, v, f, r, n, c, vc, yes, at, took, "Odd ""column""", number) OVERRIDING SYSTEM VALUE
  SELECT id, big, bytes, j, plain, list, v, f, r, n, c, vc, yes, at, took, "Odd ""column""", number FROM "Odd ""table""";
UPDATE pg_index SET indisvalid = true, indisready = true WHERE indisunique AND 100 = ANY (indcollation::oid[]) AND indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace);
`

// inEnglish has rows twice in a database in en_US.
func inEnglish(t *testing.T, s *pgtest.Server) *bench {
	t.Helper()
	db := s.Database(t, pgtest.WithCreate(inEnUS), pgtest.WithSetup(classes))
	db.AdminExec(t, twice)
	return newBench(t, db)
}

func TestOfRowsWithOneKeyTheRightOneStays(t *testing.T) {
	pgtest.EachMajor(t, english, func(t *testing.T, s *pgtest.Server) {
		b := inEnglish(t, s)
		before := b.content()
		ask := func(query string) string { return strings.Join(b.ask(query), "\n") }
		const newest = `SELECT string_agg(s || ' ' || k, ',' ORDER BY s) FROM (SELECT max(stream_id) AS s, room_id || coalesce(thread_id, '') AS k FROM receipts_linearized GROUP BY 2) r`
		kept, old := ask(newest), ask(`SELECT count(*)::text FROM room_stats_state r WHERE name = 'old' AND NOT EXISTS (SELECT FROM room_stats_state s WHERE s.room_id = r.room_id AND s.name <> 'old')`)
		p := b.plan(of(NotC, "database", b.db.Name))
		b.ok(b.apply(p))
		b.sound(true)
		for what, c := range map[string]struct{ query, want string }{
			"the newest receipt stays":        {newest, kept},
			"each receipt once":               {`SELECT count(*)::text FROM receipts_linearized`, "90"},
			"the graph has the same receipts": {`SELECT count(*)::text FROM receipts_graph g JOIN receipts_linearized l ON g.room_id = l.room_id AND g.event_ids = to_json(ARRAY[l.event_id])::text`, "90"},
			"no room's statistics are lost":   {`SELECT count(*) || ' ' || count(*) FILTER (WHERE name = 'old') || ' ' || count(*) FILTER (WHERE name = 'newest') FROM room_stats_state`, "90 " + old + " 1"},
			"each filter once":                {`SELECT count(*)::text FROM user_filters`, "90"},
			"two keys of one table":           {`SELECT count(*) || ' ' || count(DISTINCT event_id) || ' ' || count(DISTINCT user_id || txn_id) FROM event_txn_id_device_id`, "30 30 30"},
			"the odd table":                   {`SELECT count(*)::text FROM "Odd ""table"""`, "5"},
		} {
			if got := ask(c.query); got != c.want {
				t.Errorf("%s: %s, want %s", what, got, c.want)
			}
		}
		mended := b.content()
		if before["public.destination_rooms"] != mended["public.destination_rooms"] {
			t.Error("rows that belong to a row which was there twice are lost")
		}

		b.ok(b.undo(p))
		if changed := differing(before, b.content()); len(changed) > 0 {
			t.Errorf("not put back: %v", changed)
		}
		invalid := ask(`SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid AND NOT indisready ORDER BY 1`)
		for _, name := range []string{"room_stats_state_room_id_key", "destinations_pkey", "user_filters_user_id_filter_id_key", "odd"} {
			if !strings.Contains(invalid, name) {
				t.Errorf("%s holds a key twice and is not invalid: %s", name, invalid)
			}
		}
		if strings.Contains(invalid, "destination_rooms_pkey") || strings.Contains(invalid, "receipts_linearized_stream_id_key") {
			t.Errorf("more is invalid than has to be: %s", invalid)
		}
		if got := ask(`SELECT conname || ' ' || convalidated FROM pg_constraint WHERE conname = 'not_old'`); got != "not_old false" {
			t.Errorf("the constraint is %q", got)
		}
		// What was put back can be mended again.
		second := newBench(t, b.db)
		second.ok(second.apply(second.plan(of(NotC, "database", b.db.Name))))
		second.sound(true)
		if b.content()["public.user_filters"] != mended["public.user_filters"] {
			t.Error("mended otherwise the second time")
		}
	})
}
