package synapse_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

func vectorOf(t *testing.T, table string) synapse.SearchVector {
	t.Helper()
	for _, v := range synapse.SearchVectors("public") {
		if v.Table == table {
			return v
		}
	}
	t.Fatalf("no search vectors in %s", table)
	return synapse.SearchVector{}
}

// differing lists the keys of the rows whose vector is not what their text gives.
func differing(t *testing.T, conn *pgx.Conn, v synapse.SearchVector) []string {
	t.Helper()
	if _, err := conn.Exec(t.Context(), v.Prepare); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(t.Context(), v.Differing, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	var key string
	var vector *string
	if _, err := pgx.ForEachRow(rows, []any{&key, &vector}, func() error { keys = append(keys, key); return nil }); err != nil {
		t.Fatal(err)
	}
	return keys
}

func update(t *testing.T, conn *pgx.Conn, v synapse.SearchVector, parts int) (changed int64) {
	t.Helper()
	for part := range parts {
		tag, err := conn.Exec(t.Context(), v.Update, parts, part)
		if err != nil {
			t.Fatal(err)
		}
		changed += tag.RowsAffected()
	}
	return changed
}

// The events of the real homeserver, whose vectors Synapse made itself: names, topics with m.topic, escaped NUL, other scripts.
func TestTheVectorsThatSynapseMadeAreWhatTheirTextGives(t *testing.T) {
	dump := filepath.Join(pgtest.Data(t), "synapse_ported.dump")
	s := pgtest.StartWith(t, pgtest.Config{Locales: []string{"en_US.UTF-8"}})
	v := vectorOf(t, "event_search")
	conn := s.Database(t, pgtest.WithDump(dump)).AdminConn(t)
	if keys := differing(t, conn, v); len(keys) > 0 {
		t.Errorf("%d differ: %q", len(keys), keys[:min(len(keys), 5)])
	}

	other := s.Database(t, pgtest.WithDump(dump), pgtest.WithCreate("ENCODING 'UTF8' LC_COLLATE 'en_US.UTF-8' LC_CTYPE 'en_US.UTF-8'")).AdminConn(t)
	keys := differing(t, other, v)
	if len(keys) == 0 || len(keys) != int(update(t, other, v, 3)) {
		t.Fatalf("%d vectors differ under another CTYPE, and another number was changed", len(keys))
	}
	if keys := differing(t, other, v); len(keys) > 0 {
		t.Errorf("%d still differ", len(keys))
	}
}

func TestWhatIsIndexedOfAnEvent(t *testing.T) {
	conn := pgtest.Start(t).Database(t).AdminConn(t)
	if _, err := conn.Exec(t.Context(), vectorOf(t, "event_search").Prepare); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ json, key, want string }{
		"a message":                    {`{"content":{"body":"hello"}}`, "content.body", "hello"},
		"a body that is no string":     {`{"content":{"body":1}}`, "content.body", "none"},
		"a redacted event":             {`{"content":{}}`, "content.body", "none"},
		"no content":                   {`{}`, "content.body", "none"},
		"content that is no object":    {`{"content":[1]}`, "content.body", "none"},
		"NUL":                          {`{"content":{"body":"a\u0000b"}}`, "content.body", "a b"},
		"NUL twice":                    {`{"content":{"body":"a\u0000\u0000b"}}`, "content.body", "a  b"},
		"NUL elsewhere":                {`{"x":"\u0000","content":{"body":"a"}}`, "content.body", "a"},
		"a backslash before u0000":     {`{"x":"\u0000","content":{"body":"a\\u0000b"}}`, "content.body", `a\u0000b`},
		"a backslash before NUL":       {`{"content":{"body":"a\\\u0000b"}}`, "content.body", `a\ b`},
		"half a pair":                  {`{"content":{"body":"a\ud83db"}}`, "content.body", "a b"},
		"the other half":               {`{"content":{"body":"a\ude00b"}}`, "content.body", "a b"},
		"a pair beside half a pair":    {`{"content":{"body":"\ud83d\ud83d\ude00\ude00"}}`, "content.body", " 😀 "},
		"hexadecimal of an old port":   {`\x7b7d`, "content.body", "none"},
		"a topic":                      {`{"content":{"topic":"a"}}`, "content.topic", "a"},
		"a plain m.topic":              {`{"content":{"topic":"a","m.topic":{"m.text":[{"body":"b"}]}}}`, "content.topic", "b"},
		"an m.topic after HTML":        {`{"content":{"topic":"a","m.topic":{"m.text":[{"body":"h","mimetype":"text/html"},{"body":"c","mimetype":"text/plain"}]}}}`, "content.topic", "c"},
		"an m.topic that is no plain":  {`{"content":{"topic":"a","m.topic":{"m.text":[{"body":"h","mimetype":"text/html"}]}}}`, "content.topic", "a"},
		"an m.topic that is broken":    {`{"content":{"topic":"a","m.topic":{"m.text":[3,{"body":4},{"body":"d","mimetype":5}]}}}`, "content.topic", "a"},
		"an m.topic without a topic":   {`{"content":{"m.topic":{"m.text":[{"body":"b"}]}}}`, "content.topic", "none"},
		"a room's name, key with null": {`{"content":{"name":null}}`, "content.name", "none"},
	} {
		var got string
		if err := conn.QueryRow(t.Context(), `SELECT coalesce(pg_temp.synapse_doctor_text($1, $2), 'none')`, c.json, c.key).Scan(&got); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

const directory = `CREATE TABLE schema_version (version int); INSERT INTO schema_version VALUES (94);
CREATE TABLE user_directory (user_id text NOT NULL UNIQUE, room_id text, display_name text, avatar_url text);
CREATE TABLE user_directory_search (user_id text NOT NULL UNIQUE, vector tsvector);
INSERT INTO user_directory VALUES ('@anna.k:test.example', NULL, 'Élan ΟΔΟΣ'), ('@b:test.example:8448', NULL, NULL), ('@c:test.example', NULL, 'Ǆ ①');
INSERT INTO user_directory_search VALUES ('@anna.k:test.example', ''), ('@b:test.example:8448', NULL), ('@c:test.example', ''), ('@gone:test.example', 'kept');`

func TestTheUserDirectoryIsIndexedInLowerCaseAndNormalForm(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(directory))
	conn := db.AdminConn(t)
	v := vectorOf(t, "user_directory_search")
	vectors := func() string {
		t.Helper()
		var all string
		if err := conn.QueryRow(context.Background(), `SELECT string_agg(vector::text, ' | ' ORDER BY user_id) FROM user_directory_search`).Scan(&all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	if keys := differing(t, conn, v); len(keys) != 3 {
		t.Fatalf("differing: %q", keys)
	}
	update(t, conn, v, 2)
	// As Python's lower() and unicodedata.normalize("NFKC", …) make them.
	want := `'anna.k':1A 'test.example':2 'élan':3B 'οδος':4B | 'b':1A 'test.example:8448':2 | '1':4B 'c':1A 'dž':3B 'test.example':2 | 'kept'`
	if got := vectors(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if keys := differing(t, conn, v); len(keys) > 0 {
		t.Errorf("still differing: %q", keys)
	}
	db.Exec(t, `UPDATE schema_version SET version = 73`) // Synapse 1.76 indexed names as they were
	differing(t, conn, v)
	update(t, conn, v, 1)
	if got := vectors(); !strings.Contains(got, `'Élan':3B 'ΟΔΟΣ':4B`) {
		t.Errorf("an old Synapse's names were folded: %s", got)
	}
}

func TestMain(m *testing.M) { pgtest.Main(m) }
