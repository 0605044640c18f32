package port

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// oddSchema has a table for each way in which rows are stored.
const oddSchema = `
CREATE TABLE events (event_id text NOT NULL PRIMARY KEY, room_id text NOT NULL, origin_server_ts bigint, stream_ordering bigint UNIQUE);
CREATE TABLE event_search (event_id text, room_id text, sender text, key text, vector tsvector, origin_server_ts bigint, stream_ordering bigint);
CREATE UNIQUE INDEX event_search_event_id_idx ON event_search (event_id);
CREATE INDEX event_search_fts_idx ON event_search USING gin (vector);
CREATE TABLE notes (id bigint PRIMARY KEY, small smallint, word text NOT NULL, short varchar(5), raw bytea, flag boolean, num double precision);
CREATE INDEX notes_word ON notes (word);
CREATE TABLE profiles (user_id text PRIMARY KEY, fields jsonb);
CREATE TABLE module (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, price numeric(6,2), at timestamptz, ip inet, u uuid, tags text[], code char(3), doc json);
CREATE TABLE children (id bigint PRIMARY KEY, parent text REFERENCES events (event_id), room_id text);
CREATE INDEX children_room ON children (room_id);
CREATE TABLE guarded (event_id text, stream_ordering bigint);
CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
  IF EXISTS (SELECT FROM events e WHERE e.event_id = new.event_id AND e.stream_ordering <> new.stream_ordering) THEN RAISE EXCEPTION 'Incorrect event_stream_ordering'; END IF; RETURN new; END$$;
CREATE TRIGGER guard BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION guard();
CREATE TABLE doubled (name text PRIMARY KEY, n int CHECK (n < 100));
CREATE TABLE keyed (k text PRIMARY KEY, v bigint);
CREATE TABLE shadowed (rowid text, oid bigint);
CREATE TABLE empty (a int);
INSERT INTO empty VALUES (1), (2);
CREATE TABLE background_updates (update_name text PRIMARY KEY);`

// oddSource is the same as a SQLite file may have it: its types hold nothing off.
const oddSource = `
CREATE TABLE events (stream_ordering INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, room_id TEXT NOT NULL, origin_server_ts BIGINT);
CREATE TABLE event_search_content (docid INTEGER PRIMARY KEY, c0event_id, c1room_id, c2sender, c3key, c4value);
CREATE TABLE notes (id, small, word, short, raw, flag, num);
CREATE TABLE profiles (user_id TEXT PRIMARY KEY, fields JSONB);
CREATE TABLE module (ID INTEGER PRIMARY KEY, price, at, ip, u, tags, code, doc);
CREATE TABLE children (id INTEGER PRIMARY KEY, parent TEXT, room_id TEXT);
CREATE TABLE guarded (event_id TEXT, stream_ordering BIGINT);
CREATE TABLE doubled (name, n);
CREATE TABLE keyed (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE shadowed (rowid TEXT, oid BIGINT);
CREATE TABLE empty (a INT);
CREATE TABLE background_updates (update_name TEXT);
CREATE TABLE module_only (x); INSERT INTO module_only VALUES (1);
CREATE TABLE module_none (x);
INSERT INTO events VALUES (-5, '$back', '!r', 1), (1, '$a', '!r', 10), (2, '$b', '!r', 20), (3, '$c', '!s', 30);
INSERT INTO event_search_content VALUES (-3, '$back', '!r', '@u', 'content.body', 'old news'), (1, '$a', '!r', '@u', 'content.body', 'Running foxes'),
  (2, '$b', '!r', '@u', 'content.body', 17), (3, '$a', '!r', '@u', 'content.body', 'second'), (4, '$gone', '!r', '@u', 'content.body', 'x'), (5, '$c', '!other', '@u', 'content.body', 'x'),
  (6, '$c', '!s', '@u', 'content.body', CAST(x'6e756c0068ff' AS TEXT));
INSERT INTO notes VALUES (1, 5, 'plain', 'abcde', x'00ff', 1, 1.5), (2, NULL, CAST(x'610062' AS TEXT), NULL, 'text\x', NULL, 7), (3, 2, 'neighbour', '', NULL, 0, NULL),
  (4, 40000, 'overflow', NULL, NULL, NULL, NULL), (5, 1, NULL, NULL, NULL, NULL, NULL), (6, 1, 'long', 'abcdef', NULL, 2, 'x'),
  (7.0, '8', CAST(x'ff41fffe42' AS TEXT), 12345, 99, 't', '2.5'), (x'01', 1, 'blob id', NULL, NULL, NULL, NULL), (8, 1, x'7b7d', NULL, 1.25, 5, 1e300), (9, 1, x'ff', NULL, NULL, NULL, NULL);
INSERT INTO profiles VALUES ('@a', '{"b": 1, "a": "x"}'), ('@b', '{"n": "\u0000 \ud800"}'), ('@c', 'no json'), ('@d', NULL), ('@e', '{}');
INSERT INTO module VALUES (1, '12.50', '2024-01-02 03:04:05+01', '10.0.0.1', '{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}', '{a,"b c"}', 'ab', '{"k": [1]}'), (2, 3, NULL, 'nowhere', NULL, NULL, 'abcd', NULL), (3, 1.5, NULL, NULL, NULL, NULL, NULL, '{}');
INSERT INTO children VALUES (1, '$a', '!r'), (2, '$missing', '!r'), (3, NULL, '!s');
INSERT INTO guarded VALUES ('$a', 1), ('$b', 77), ('$unknown', 5);
INSERT INTO doubled VALUES ('x', 1), ('y', 2), ('x', 3), ('z', 100), ('x', 4);
INSERT INTO keyed VALUES ('k1', 1), ('k0', 2), ('k2', 'no number');
INSERT INTO shadowed VALUES ('r', 1), ('s', 2);`

func oddTarget(t testing.TB, s *pgtest.Server) *pgtest.DB {
	return s.Database(t, pgtest.WithSetup(oddSchema))
}

func oddFile(t testing.TB) string {
	path := filepath.Join(t.TempDir(), "odd.db")
	sqlite(t, path, oddSource)
	return path
}

func TestOddCellsNeverCostANeighbour(t *testing.T) {
	eachEnd(t, func(t *testing.T, s *pgtest.Server) {
		l := newLoad(t, oddTarget(t, s))
		path := oddFile(t)
		conn := l.Conn(t)
		m := match(t, conn, path)
		if !slices.Equal(m.OnlySource, []string{"module_only"}) || len(m.Unequal) > 0 {
			t.Errorf("only in the file: %v; unequal: %v", m.OnlySource, m.Unequal)
		}
		before := l.dump(t)["objects"]
		l.must(t, path)
		got := l.dump(t)
		if !slices.Equal(got["objects"], before) {
			t.Errorf("indexes or constraints:\n%s\nwant\n%s", strings.Join(got["objects"], "\n"), strings.Join(before, "\n"))
		}
		for table, want := range map[string][]string{
			"events": {"($a,!r,10,1)", "($b,!r,20,2)", "($back,!r,1,-5)", "($c,!s,30,3)"},
			"event_search": {"($a,!r,@u,content.body,\"'fox':2 'run':1\",10,1)", "($b,!r,@u,content.body,'17':1,20,2)", "($back,!r,@u,content.body,\"'news':2 'old':1\",1,-5)",
				"($c,!s,@u,content.body,\"'h�':2 'nul':1\",30,3)"},
			"notes": {"(1,5,plain,abcde,\"\\\\x00ff\",t,1.5)", "(2,,a\ufffdb,,\"\\\\x746578745c78\",,7)", "(3,2,neighbour,\"\",,f,)", "(7,8,\ufffdA\ufffdB,12345,\"\\\\x3939\",t,2.5)",
				"(8,1,{},,\"\\\\x312e3235\",t,1e+300)", "(9,1,\ufffd,,,,)"},
			"profiles": {"(@a,\"{\"\"a\"\": \"\"x\"\", \"\"b\"\": 1}\")", "(@b,\"{\"\"n\"\": \"\"\ufffd \ufffd\"\"}\")", "(@d,)", "(@e,{})"},
			"module":   {"(1,12.50,\"2024-01-02 02:04:05+00\",10.0.0.1,a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,\"{a,\"\"b c\"\"}\",\"ab \",\"{\"\"k\"\": [1]}\")", "(3,1.50,,,,,,{})"},
			"children": {"(1,$a,!r)", "(3,,!s)"},
			"guarded":  {"($a,1)", "($unknown,5)"},
			"doubled":  {"(x,1)", "(y,2)"},
			"keyed":    {"(k0,2)", "(k1,1)"},
			"shadowed": {"(r,1)", "(s,2)"},
			"empty":    nil,
		} {
			if !slices.Equal(got[table], want) {
				t.Errorf("%s:\n%s\nwant\n%s", table, strings.Join(got[table], "\n"), strings.Join(want, "\n"))
			}
		}
		for _, want := range []string{
			`event_search event_id="$a" the server refused the row: `, `event_search event_id="$gone" column event_id: ` + noEvent, `event_search event_id="$c" column event_id: ` + noEvent,
			`notes id=4 column small: the number 40000 is out of the range of smallint {"id": ["integer", 4]`, `notes id=5 column word: there is no value`, `notes id=6 column num: the text is no number that the column holds; column short: the text has 6 characters`,
			`notes id="\x01" column id: bytes can't be stored`, `{"id": ["blob", "AQ=="]`,
			`profiles user_id="@c" the server refused the row: `, `module id=2 the server refused the row: `, `children `, `"$missing"`, `guarded rowid 2 the server refused the row: Incorrect event_stream_ordering (SQLSTATE P0001)`,
			`doubled name="x" the server refused the row: `, `["integer", 3]`, `["integer", 4]`, `doubled name="z" the server refused the row: `, `keyed k="k2" column v: the text is no number that bigint holds`,
		} {
			if !slices.ContainsFunc(got["quarantine"], func(s string) bool { return strings.Contains(s, want) }) {
				t.Errorf("not in quarantine: %s", want)
			}
		}
		if n := len(got["quarantine"]); n != 15 {
			t.Errorf("%d rows in quarantine:\n%s", n, strings.Join(got["quarantine"], "\n"))
		}
		want := []string{
			`event_search event_id="$c" vector bytes that are no UTF-8 became U+FFFD, one NUL became a space`,
			`notes id=2 word one NUL became U+FFFD`,
			`notes id=7.0 word bytes that are no UTF-8 became U+FFFD`,
			`notes id=8 flag the number 5 became true`,
			`notes id=9 word bytes that are no UTF-8 became U+FFFD`,
			`profiles user_id="@b" fields 2 escapes that jsonb does not take became \ufffd`,
		}
		if !slices.Equal(got["change"], want) {
			t.Errorf("changes:\n%s\nwant\n%s", strings.Join(got["change"], "\n"), strings.Join(want, "\n"))
		}
		if decided := l.must(t, path); len(decided) > 0 {
			t.Errorf("again: %v", decided)
		}
		same(t, l.dump(t), got)
	})
}

// Whatever was done to the file, the next run leaves what a first run over the same file leaves.
func TestALaterRunLeavesWhatAFreshOneWould(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	s := pgtest.Start(t)
	path := oddFile(t)
	l := newLoad(t, oddTarget(t, s))
	l.must(t, path)
	for _, c := range []struct {
		script string
		want   map[string]decision
	}{
		{`INSERT INTO events VALUES (4, '$d', '!r', 40), (-6, '$older', '!r', 0); INSERT INTO event_search_content VALUES (7, '$d', '!r', '@u', 'content.body', 'more'); INSERT INTO shadowed VALUES ('t', 3)`,
			map[string]decision{"events": loadRest, "event_search": loadRest, "shadowed": loadRest, "children": loadAnew, "guarded": loadAnew}},
		{`INSERT INTO events VALUES (9, '$missing', '!r', 90)`, map[string]decision{"events": loadRest, "children": loadAnew, "guarded": loadAnew}},
		{`UPDATE notes SET word = 'edited' WHERE id = 3`, map[string]decision{"notes": loadAnew, "guarded": loadAnew}},
		{`UPDATE notes SET small = 41000 WHERE id = 4`, map[string]decision{"notes": loadAnew, "guarded": loadAnew}},
		{`UPDATE notes SET word = CAST(x'610062' AS TEXT) WHERE id = 1`, map[string]decision{"notes": loadAnew, "guarded": loadAnew}},
		{`DELETE FROM shadowed WHERE oid = 1; DELETE FROM doubled WHERE n = 1; DELETE FROM keyed WHERE v = 1`, map[string]decision{"shadowed": loadAnew, "doubled": loadAnew, "keyed": loadAnew, "guarded": loadAnew}},
		{`DELETE FROM events WHERE event_id = '$a'`, map[string]decision{"events": loadAnew, "event_search": loadAnew, "guarded": loadAnew}},
		{`UPDATE events SET origin_server_ts = 31 WHERE event_id = '$c'`, map[string]decision{"events": loadAnew, "event_search": loadAnew, "children": loadAnew, "guarded": loadAnew}},
		{`UPDATE profiles SET fields = '{"b": 2}' WHERE user_id = '@a'; UPDATE module SET price = 7 WHERE id = 2`, map[string]decision{"profiles": loadAnew, "module": loadAnew, "children": loadAnew, "guarded": loadAnew}},
		{`DELETE FROM shadowed; DELETE FROM empty`, map[string]decision{"shadowed": loadAnew, "children": loadAnew, "guarded": loadAnew}},
		{`INSERT INTO shadowed VALUES ('x', 1), ('y', 2), ('z', 3), ('w', 4)`, map[string]decision{"shadowed": loadRest, "children": loadAnew, "guarded": loadAnew}},
		{`DELETE FROM shadowed WHERE oid = 1; VACUUM`, map[string]decision{"shadowed": loadAnew, "doubled": loadAnew, "children": loadAnew, "guarded": loadAnew}},
		{`UPDATE shadowed SET oid = oid + 0; VACUUM`, nil},
	} {
		sqlite(t, path, c.script)
		decided := l.must(t, path)
		if fmt.Sprint(decided) != fmt.Sprint(c.want) && len(decided)+len(c.want) > 0 {
			t.Errorf("after %s: %v, want %v", c.script, decided, c.want)
		}
		fresh := newLoad(t, oddTarget(t, s))
		fresh.must(t, path)
		got, want := l.dump(t), fresh.dump(t)
		same(t, got, want)
		if t.Failed() {
			t.Fatalf("after %s", c.script)
		}
	}
}

func TestRowsThatHaveOnlyMovedAreNotLoadedAgain(t *testing.T) {
	path := oddFile(t)
	sqlite(t, path, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) INSERT INTO shadowed SELECT 'r' || i, i FROM n; DELETE FROM shadowed WHERE oid < 1000`)
	l := newLoad(t, oddTarget(t, pgtest.Start(t)))
	l.must(t, path)
	before := l.dump(t)
	ctid := column(t, l.Conn(t), `SELECT min(xmin::text) || ' ' || pg_relation_filenode('shadowed') FROM shadowed`)
	sqlite(t, path, "VACUUM")
	decided := l.must(t, path)
	if len(decided) != 1 || decided["shadowed"] != rewrite {
		t.Errorf("%v", decided)
	}
	same(t, l.dump(t), before)
	if now := column(t, l.Conn(t), `SELECT min(xmin::text) || ' ' || pg_relation_filenode('shadowed') FROM shadowed`); !slices.Equal(now, ctid) {
		t.Error("the rows were loaded again")
	}
	if decided := l.must(t, path); len(decided) > 0 {
		t.Errorf("the record of the moved rows does not fit: %v", decided)
	}
	sqlite(t, path, fmt.Sprintf("UPDATE shadowed SET oid = oid + 1 WHERE oid = %d", 1000+rand.IntN(29000)))
	if decided := l.must(t, path); decided["shadowed"] != loadAnew {
		t.Errorf("%v", decided)
	}
}
