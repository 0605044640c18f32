package report

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// meaning is SQL as PostgreSQL reads it: its tokens without white space and comments, which are kept apart. Two strings
// with nothing but white space with a newline between them are one string, so those have to stay as they are.
func meaning(sql string) []string {
	var out []string
	tokens := lex(sql)
	for i, t := range tokens {
		switch t.kind {
		case space:
			if i > 0 && i+1 < len(tokens) && tokens[i-1].kind == quoted && tokens[i+1].kind == quoted && strings.Contains(t.text, "\n") {
				out = append(out, "joined")
			}
		case comment:
			out = append(out, strings.TrimRight(t.text, " \t"))
		default:
			out = append(out, t.text)
		}
	}
	return out
}

func sameMeaning(t *testing.T, sql string, w int) {
	t.Helper()
	lines := layoutSQL(sql, w)
	got := strings.Join(lines, "\n")
	if a, b := strings.Join(meaning(strings.TrimSpace(sql)), "\x00"), strings.Join(meaning(got), "\x00"); a != b {
		t.Fatalf("at %d columns\n%q\nbecame\n%q", w, sql, got)
	}
}

var statements = []string{
	setvalEvents,
	"SELECT a, 'it''s, FROM here', E'\\', WHERE', \"odd, name\", $tag$, AND $x$ $tag$, U&'x, y', $1 FROM t -- , FROM\nWHERE a AND b",
	"UPDATE device_lists_remote_extremeties AS d SET stream_id = x.stream_id, user_id = x.user_id FROM (SELECT user_id, max(stream_id) AS stream_id FROM device_lists_remote_cache GROUP BY user_id) AS x WHERE d.user_id = x.user_id AND d.stream_id <> x.stream_id",
	"INSERT INTO t (a, b, c) VALUES (1, 'two', /* three, /* four */ */ 5) ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING a",
	"SELECT 'one'\n  'two', 'three' 'four' AND 'a very long string that does not fit in any of the widths at all, ever'",
	"CREATE DATABASE synapse_utf8 WITH TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' OWNER synapse",
	"SELECT 1; SELECT 2;\n\n  SELECT 3, 4",
	"DO $$ BEGIN PERFORM 1,\n 2; END $$",
}

func TestLaidOutSQLMeansTheSame(t *testing.T) {
	for _, s := range statements {
		for w := 10; w <= 140; w++ {
			sameMeaning(t, s, w)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	parts := []string{"SELECT ", "FROM ", " WHERE ", ",", ", ", "(", ")", " ", "\n", "'a, b'", "'", "\"x y\"", "$$ , $$", "$t$", "-- c, d\n",
		"/* e, */", "AND ", "word", " ON ", "E'\\''", "$1", ";", "\t", "é", "1.5", "::text", "JOIN "}
	for range 20000 {
		var b strings.Builder
		for range r.IntN(25) {
			b.WriteString(parts[r.IntN(len(parts))])
		}
		if complete(b.String()) {
			sameMeaning(t, b.String(), 5+r.IntN(40))
		}
	}
}

// complete reports whether every quote in sql is closed.
func complete(sql string) bool {
	tokens := lex(sql + "\n-- end")
	return len(tokens) > 0 && tokens[len(tokens)-1].text == "-- end"
}

func FuzzLayoutSQL(f *testing.F) {
	for _, s := range statements {
		f.Add(s, 30)
	}
	f.Fuzz(func(t *testing.T, sql string, w int) {
		if complete(sql) && w > 0 && w < 1000 && doctor.CleanText(sql) == sql {
			sameMeaning(t, sql, w)
		}
	})
}

func TestLongSQLBreaksBeforeClausesAndAfterCommas(t *testing.T) {
	for _, c := range []struct {
		sql  string
		w    int
		want string
	}{
		{"SELECT a, b FROM t WHERE a = 1 AND b = 2;", 80, "SELECT a, b FROM t WHERE a = 1 AND b = 2;"},
		{"SELECT a, b FROM t WHERE a = 1 AND b = 2;", 30, "SELECT a, b\n  FROM t\n  WHERE a = 1\n  AND b = 2;"},
		{"INSERT INTO t (a, b) VALUES (1, 2) ON CONFLICT (a) DO UPDATE SET b = 3", 40,
			"INSERT INTO t (a, b)\n  VALUES (1, 2)\n  ON CONFLICT (a) DO UPDATE SET b = 3"},
		{"SELECT setval('events_stream_seq', 57, true);", 36, "SELECT setval('events_stream_seq',\n  57, true);"},
		{"SELECT 'a string that is far too long to fit';", 20, "SELECT\n  'a string that is far too long to fit';"},
	} {
		if got := strings.Join(layoutSQL(c.sql, c.w), "\n"); got != c.want {
			t.Errorf("%s at %d:\n%s\nwant\n%s", c.sql, c.w, got, c.want)
		}
	}
}

func TestArgumentsBecomeLiterals(t *testing.T) {
	args := []doctor.Value{{V: "it's"}, {V: int64(-7)}, {V: nil}, {V: true}, {V: []byte{0xde, 0xad}}, {V: `back\slash'`}, {V: int64(9)},
		{V: ""}, {V: int64(1)}, {V: "ten"}}
	for _, c := range []struct{ in, want string }{
		{"SELECT $1, $2::bigint, $3, $4, $5", `SELECT 'it''s', (-7)::bigint, NULL, true, '\xdead'::bytea`},
		{"SELECT $6", `SELECT  E'back\\slash'''`},
		{"SELECT '$1', \"$1\", $$ $1 $$, -- $1\n a$1, $7", "SELECT '$1', \"$1\", $$ $1 $$, -- $1\n a$1, 9"},
		{"SELECT $10, $11", "SELECT 'ten', $11"},
		{"SELECT x=$2", "SELECT x=(-7)"},
	} {
		if got := inline(c.in, args); got != c.want {
			t.Errorf("%s\nbecame %s\nwant   %s", c.in, got, c.want)
		}
	}
}

func TestOnlySQLIsLaidOut(t *testing.T) {
	for s, want := range map[string]bool{
		"SELECT 1":                       true,
		"-- first\nALTER ROLE x":         true,
		"COMMIT;":                        true,
		"select 1":                       false,
		"SET":                            false,
		"sudo -u postgres psql":          false,
		"psql -c 'SELECT 1'":             false,
		"synapse-doctor fix":             false,
		"UPDATED x":                      false,
		"host all all 127.0.0.1/32":      false,
		"  WITH x AS (SELECT 1) TABLE x": true,
	} {
		if got := looksLikeSQL(s); got != want {
			t.Errorf("looksLikeSQL(%q) = %t", s, got)
		}
	}
}
