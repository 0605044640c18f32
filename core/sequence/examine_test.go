package sequence

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// A large table is looked up through an index, or not at all.
func TestNoLargeTableIsReadWhole(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		t.Run(fmt.Sprintf("analyzed=%t", !fresh), func(t *testing.T) {
			db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()))
			db.Exec(t, `DROP INDEX IF EXISTS events_room_stream;
INSERT INTO events (topological_ordering, event_id, type, room_id, processed, outlier, stream_ordering)
  SELECT 1, '$big' || i, 'm.room.message', '!room1:test.example', true, false, i FROM generate_series(1000, 40000) i;
INSERT INTO state_groups SELECT i, '!room1:test.example', '$' || i FROM generate_series(1000, 30000) i;
INSERT INTO account_data SELECT format('@big%s:test.example', i % 300), 'type' || i, 1000 + i, repeat('x', 60), 'master' FROM generate_series(1, 30000) i;
INSERT INTO room_account_data SELECT format('@big%s:test.example', i % 300), '!r' || i, 'type', 1000 + i, repeat('x', 60), 'master' FROM generate_series(1, 30000) i;
INSERT INTO application_services_txns SELECT 'bridge' || i % 3, 1000 + i, '[]' FROM generate_series(1, 30000) i;
INSERT INTO users (name) SELECT '@name' || i || ':test.example' FROM generate_series(1, 30000) i;
INSERT INTO device_lists_changes_in_room SELECT '@user1:test.example', 'PHONE', '!room' || i, 1000 + i, true, 'master' FROM generate_series(1, 30000) i;
INSERT INTO presence_stream SELECT 1000 + i, '@user', 'offline', 1, 'master' FROM generate_series(1, 30000) i`)
			if !fresh {
				db.Exec(t, `ANALYZE events, state_groups, account_data, room_account_data, application_services_txns, users, device_lists_changes_in_room, presence_stream`)
			}
			conn := db.Conn(t)
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c, err := readCatalog(t.Context(), tx, wanted())
			if err != nil {
				t.Fatal(err)
			}
			_, q := compose(c, &doctor.Database{}, false)
			var text []byte
			if err := tx.QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) "+q.statement()).Scan(&text); err != nil {
				t.Fatal(err)
			}
			var explained any
			if err := json.Unmarshal(text, &explained); err != nil {
				t.Fatal(err)
			}
			scans := 0
			walk(explained, func(node map[string]any) {
				scans++
				table, _ := node["Relation Name"].(string)
				if bytes := tableBytes(q, table); node["Node Type"] == "Seq Scan" && bytes > 1<<20 {
					t.Errorf("%s (%d KB) is read whole", table, bytes>>10)
				}
			})
			if scans < 50 {
				t.Errorf("only %d nodes were seen", scans)
			}
		})
	}
}

func tableBytes(q *questions, table string) int64 {
	for _, c := range q.columns {
		if c.Table == table {
			return c.Bytes
		}
	}
	return 0
}

func walk(v any, visit func(map[string]any)) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			walk(x, visit)
		}
	case map[string]any:
		if v["Node Type"] != nil {
			visit(v)
		}
		for _, x := range v {
			walk(x, visit)
		}
	}
}

func TestATableTooLargeToReadWholeIsSaidUnlessDeep(t *testing.T) {
	c := &catalog{columns: map[string]ColumnInfo{"room_tags_revisions.stream_id": {Table: "room_tags_revisions", Column: "stream_id",
		Ident: "public.room_tags_revisions", ColumnIdent: "stream_id", MayRead: true, Bytes: scanLimit + 1}}}
	for _, deep := range []bool{false, true} {
		q := &questions{catalog: c, deep: deep, refused: map[string]bool{}}
		var marks []Mark
		q.greatest(Column{Table: "room_tags_revisions", Column: "stream_id"}, false, &marks)
		if said := len(q.unread) == 1 && strings.Contains(q.unread[0].Error(), "--deep"); said == deep || (len(marks) == 1) != deep {
			t.Errorf("deep %t: %v %v", deep, q.unread, marks)
		}
	}
}
