package synapse_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

func TestWhichOfTwoRowsStays(t *testing.T) {
	for _, c := range []struct {
		table, columns string
		want           synapse.Keep
		by             string
	}{
		{"room_stats_state", "room_id", synapse.KeepAny, ""},
		{"event_txn_id_device_id", "user_id, device_id, room_id, txn_id", synapse.KeepAny, ""},
		{"receipts_linearized", "room_id, receipt_type, user_id, thread_id", synapse.KeepGreatest, "t.stream_id"},
		{"stream_positions", "stream_name, instance_name", synapse.KeepGreatest, "abs(t.stream_id)"},
		{"room_depth", "room_id", synapse.KeepLeast, "t.min_depth"},
		{"users", "name", synapse.KeepAll, ""},
		{"user_filters", "user_id, filter_id", synapse.KeepAll, ""},
		{"ratelimit_override", "user_id", synapse.KeepAll, ""},
		{"room_stats_state", "name", synapse.KeepAll, ""},            // an index that somebody added
		{"event_txn_id_device_id", "device_id", synapse.KeepAll, ""}, // part of one of Synapse's
		{"bridge_puppets", "mxid", synapse.KeepAll, ""},              // a table that somebody added
	} {
		got := synapse.DuplicateRuleOf("public", c.table, strings.Split(c.columns, ", "))
		if got.Keep != c.want || got.By != c.by {
			t.Errorf("%s (%s): %v, want %v by %q", c.table, c.columns, got, c.want, c.by)
		}
	}
	if by := synapse.DuplicateRuleOf("s", "receipts_graph", []string{"room_id", "receipt_type", "user_id"}).By; !strings.Contains(by, `FROM "s".receipts_linearized`) {
		t.Errorf("the schema is not in %s", by)
	}
}

// Every unique index over text of a real homeserver, and every column that decides.
func TestTheRulesKnowEveryUniqueIndexOfARealHomeserver(t *testing.T) {
	dump := filepath.Join(pgtest.Data(t), "synapse_empty.dump")
	conn := pgtest.Start(t).Database(t, pgtest.WithDump(dump)).Conn(t)
	rows, err := conn.Query(t.Context(), `SELECT c.relname, array_agg(a.attname::text ORDER BY k.n)
		FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace s ON s.oid = c.relnamespace,
			unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) JOIN pg_attribute a ON true
		WHERE a.attrelid = c.oid AND a.attnum = k.attnum AND i.indisunique AND s.nspname = 'public' AND 100 = ANY (i.indcollation::oid[])
		GROUP BY i.indexrelid, c.relname`)
	if err != nil {
		t.Fatal(err)
	}
	type unique struct {
		Table   string
		Columns []string
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[unique])
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 140 {
		t.Errorf("only %d indexes", len(found))
	}
	for _, x := range found {
		if !synapse.KnowsUniqueIndex(x.Table, x.Columns) && x.Columns[0] != "lock" {
			t.Errorf("%s (%s) is not known", x.Table, strings.Join(x.Columns, ", "))
		}
		if by := synapse.DuplicateRuleOf("public", x.Table, x.Columns).By; by != "" {
			if _, err := conn.Exec(t.Context(), "SELECT "+by+" FROM "+x.Table+" t"); err != nil {
				t.Errorf("%s: %v", x.Table, err)
			}
		}
	}
}
