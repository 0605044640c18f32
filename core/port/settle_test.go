package port

import "testing"

func TestSequencesAndTheUserDirectoryAreSettled(t *testing.T) {
	db := emptySchema(t)
	db.Exec(t, `INSERT INTO events (stream_ordering, event_id, type, room_id, sender, processed, outlier, topological_ordering, depth) VALUES (71, '$e', 't', '!r', '@a:b', true, false, 1, 1), (-33, '$f', 't', '!r', '@a:b', true, false, 1, 1);
INSERT INTO ex_outlier_stream (event_stream_ordering, event_id, state_group, instance_name) VALUES (90, '$x', 1, 'master');
INSERT INTO stream_positions (stream_name, instance_name, stream_id) VALUES ('account_data', 'gone', 500);
INSERT INTO thread_subscriptions (stream_id, instance_name, room_id, event_id, user_id, subscribed, automatic) SELECT 5, 'master', '!r', '$e', '@a:b', true, true WHERE false;
INSERT INTO users (name) VALUES ('@44:b'), ('@name:b');
SELECT setval('state_group_id_seq', 1000);
CREATE TABLE module_rows (id serial PRIMARY KEY, x int); INSERT INTO module_rows VALUES (12, 1);
CREATE TABLE other_rows (id serial PRIMARY KEY, x int); INSERT INTO other_rows VALUES (12, 1)`)
	conn := db.Conn(t)
	m := &Match{}
	for _, table := range plainTables(t, conn) {
		if table.Name != "other_rows" {
			m.Tables = append(m.Tables, table)
		}
	}
	before := scalar[string](t, conn, sequences)
	for range 2 {
		if err := settle(t.Context(), conn, m); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"events_stream_seq": "90 t", "events_backfill_stream_seq": "33 t", "account_data_sequence": "500 t", "user_id_seq": "44 t", "state_group_id_seq": "1000 t",
			"module_rows_id_seq": "12 t", "other_rows_id_seq": "1 f", "event_auth_chain_id": "1 f", "receipts_sequence": "1 t", "thread_subscriptions_sequence": "2 t",
			"un_partial_stated_room_stream_sequence": "1 t", "sliding_sync_connections_connection_key_seq": "1 f",
		} {
			if got := scalar[string](t, conn, `SELECT last_value || CASE WHEN is_called THEN ' t' ELSE ' f' END FROM `+name); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		if got := scalar[string](t, conn, `SELECT string_agg(format('%s after %s by %s', update_name, depends_on, ordering), ', ' ORDER BY update_name) FROM background_updates`); got !=
			"populate_user_directory_cleanup after populate_user_directory_process_users by 0, populate_user_directory_createtables after  by 0, "+
				"populate_user_directory_process_rooms after populate_user_directory_createtables by 0, populate_user_directory_process_users after populate_user_directory_process_rooms by 0" {
			t.Error(got)
		}
		if got := scalar[string](t, conn, `SELECT string_agg(lock || coalesce(stream_id::text, ' NULL'), ',') FROM user_directory_stream_pos`); got != "X NULL" {
			t.Error(got)
		}
	}
	if after := scalar[string](t, conn, sequences); after == before {
		t.Error("nothing was moved")
	}
	if err := analyze(t.Context(), conn, m.Tables); err != nil {
		t.Error(err)
	}
}

const sequences = `SELECT string_agg(sequencename || coalesce(last_value, 0), ',' ORDER BY sequencename) FROM pg_sequences`

func TestWithoutTheDirectorysTablesNothingIsQueued(t *testing.T) {
	db := emptySchema(t)
	db.Exec(t, `DROP TABLE user_directory_search`)
	conn := db.Conn(t)
	if err := settle(t.Context(), conn, &Match{}); err != nil {
		t.Fatal(err)
	}
	if n := scalar[int](t, conn, `SELECT count(*) FROM background_updates`); n != 0 {
		t.Errorf("%d updates are queued", n)
	}
}
