package main

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestACopyOfTextHasIdentifiersOfItsOwn(t *testing.T) {
	var x texts
	const event = "$Xm2eSnLb0NgeW6CbsJGkiJHb0LLoSFUrmEyEnPdqryQ"
	cells := map[string]text{}
	for _, s := range []string{
		"@alice:a.example", event, "!MdPyXQGeIJlxfjsyqV:a.example", "plain", "", "costs $5!", "mail a@b.example",
		`{"sender":"@alice:a.example","room_id":"!MdPyXQGeIJlxfjsyqV:a.example","redacts":"` + event + `","body":"#room:a.example é"}`,
	} {
		cells[s] = x.parse(s)
	}
	first, second := x.names(1), x.names(2)
	for s, cell := range cells {
		a, b := cell.write(first), cell.write(second)
		if (a == s) == cell.identifies() || (a == b) == cell.identifies() {
			t.Errorf("%s: copies %s and %s", s, a, b)
		}
	}
	if got := cells["@alice:a.example"].write(first); got != "@alice.1:a.example" {
		t.Errorf("the user is %s", got)
	}
	for s, cell := range cells {
		if !strings.HasPrefix(s, "{") {
			continue
		}
		got := cell.write(first)
		for _, id := range []string{event, "!MdPyXQGeIJlxfjsyqV:a.example", "@alice:a.example"} {
			if renamed := cells[id].write(first); !strings.Contains(got, `"`+renamed+`"`) || len(renamed) < len(id) {
				t.Errorf("%s does not have %s, which %s has become", got, renamed, id)
			}
		}
		if !strings.HasSuffix(got, `"#room.1:a.example é"}`) {
			t.Errorf("got %s", got)
		}
	}
}

func TestALargerHomeserverIsSoundAndHasTheSizeThatWasAsked(t *testing.T) {
	if testing.Short() {
		t.Skip("SQLite itself is what takes the time")
	}
	data := os.Getenv("SYNAPSE_DOCTOR_DATA")
	if data == "" {
		t.Skip("SKIP: SYNAPSE_DOCTOR_DATA is not set: there is no real homeserver to make larger")
	}
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "homeserver.db")
	if err := unpack(ctx, filepath.Join(data, "homeserver.db.zst"), path); err != nil {
		t.Fatal(err)
	}
	before := counts(ctx, t, path)
	const size = 60 << 20
	a, err := amplify(ctx, path, size)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() != a.bytes || a.bytes < size*8/10 || a.bytes > size*14/10 {
		t.Errorf("%d bytes, said to be %d, of %d: %v", info.Size(), a.bytes, int64(size), err)
	}
	after := counts(ctx, t, path)
	for _, table := range []string{
		"users", "profiles", "devices", "access_tokens", "user_filters", "rooms", "room_aliases", "events", "event_json", "event_edges", "state_group_edges",
		"event_auth_chain_links", "event_search_content", "local_media_repository", "sliding_sync_connection_streams", "user_ips", "pushers",
	} {
		if before[table] == 0 || after[table] != before[table]*a.copies {
			t.Errorf("%s: %d rows have become %d in %d copies", table, before[table], after[table], a.copies)
		}
	}
	for _, table := range []string{"schema_version", "applied_schema_deltas", "stream_positions", "federation_stream_position", "user_directory_stream_pos"} {
		if before[table] == 0 || after[table] != before[table] {
			t.Errorf("%s, of which there is one for ever: %d rows have become %d", table, before[table], after[table])
		}
	}
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for what, query := range map[string]string{
		"rooms in the lists of others": `SELECT count(*) FROM sliding_sync_connection_room_configs c JOIN sliding_sync_connection_positions USING (connection_position)
JOIN sliding_sync_connections k USING (connection_key) WHERE NOT EXISTS (SELECT 1 FROM room_memberships m WHERE m.room_id = c.room_id AND m.user_id = k.user_id)`,
		"orphans":                            `SELECT count(*) FROM pragma_foreign_key_check`,
		"indexes that are gone":              `SELECT 323 - count(*) FROM sqlite_schema WHERE type = 'index'`,
		"members without an account":         `SELECT count(*) FROM local_current_membership m WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.name = m.user_id)`,
		"profiles of nobody":                 `SELECT count(*) FROM profiles p WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.name = p.full_user_id AND u.name LIKE '@' || p.user_id || ':%')`,
		"events whose JSON is not theirs":    `SELECT count(*) FROM events e JOIN event_json j USING (event_id) WHERE json_extract(j.json, '$.sender') <> e.sender`,
		"search rows without an event":       `SELECT count(*) FROM event_search_content s WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.event_id = s.c0event_id AND e.room_id = s.c1room_id)`,
		"state of groups that are not there": `SELECT count(*) FROM state_groups_state s WHERE NOT EXISTS (SELECT 1 FROM state_groups g WHERE g.id = s.state_group AND g.room_id = s.room_id)`,
		"a position behind its stream":       `SELECT (SELECT max(stream_id) FROM account_data) > (SELECT stream_id FROM stream_positions WHERE stream_name = 'account_data')`,
	} {
		var n int
		if err := db.QueryRowContext(ctx, query).Scan(&n); err != nil || n != 0 {
			t.Errorf("%s: %d, %v", what, n, err)
		}
	}
	t.Logf("%d copies, %d rows, %.0f MiB", a.copies, a.rows, mib(a.bytes))
}

func counts(ctx context.Context, t *testing.T, path string) map[string]int {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	names, err := (&amplifier{db: db}).tableNames(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, name := range names {
		var count int
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM `+quoted(name)).Scan(&count); err != nil {
			t.Fatal(err)
		}
		n[name] = count
	}
	return n
}
