//go:build synapse

package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// What Synapse's own script, synapse_port_db, does wrong on a file, the doctor does right on the same file. Each case shows
// both: where a newer Synapse has mended its script, the case is to be removed.
func TestSynapsePortScript(t *testing.T) {
	r := newRivals(t)

	t.Run("case", func(t *testing.T) {
		t.Run("one homeserver from the first run to the last", r.fromFirstToLast)
		t.Run("is ended by", r.ended)
	})
}

// fromFirstToLast ports an odd file, what has changed in it since, and a file without a homeserver.
func (r *rivals) fromFirstToLast(t *testing.T) {
	t.Parallel()
	file := r.seeded(t, oddities+"PRAGMA journal_mode = DELETE")
	before := contents(t, file)[file]
	skip := []string{"--skip-table", "module_notes"}
	ours := r.doctor(t, file, nil, 2, skip...)
	if !bytes.Equal(before, contents(t, file)[file]) {
		t.Error("the doctor has changed the file")
	}
	script, said, failed := r.script(t, file, nil)
	if failed {
		t.Fatalf("the script fails:\n%s", said)
	}
	if bytes.Equal(before, contents(t, file)[file]) {
		t.Error("the script has left the file as it was")
	}
	for _, c := range []struct{ name, query, script, ours string }{
		{"a NULL that means yes", `SELECT coalesce(enabled::text, 'null') FROM pushers WHERE id = 1`, "false", "null"},
		{"an approval", `SELECT coalesce(approved::text, 'null') FROM users WHERE name = '@alice:test.example'`, "false", "null"},
		{"a BLOB in a text column", `SELECT data FROM pushers WHERE id = 2`, `{"url":"\303\251","a":"\\\\n"}`, `{"url":"é","a":"\\n"}`},
		{"a text in a bytea column", `SELECT convert_from(filter_json, 'UTF8') FROM user_filters WHERE filter_id = 1`, `{"a":"\"}`, `{"a":"\\"}`},
		{"a row with a NUL", `SELECT coalesce(max(content), 'gone') FROM account_data WHERE account_data_type = 'nul'`, "gone", "{\"a\":\"\ufffd\"}"},
		{"a fraction in an integer column", `SELECT coalesce(max(retry_last_ts)::text, 'set aside') FROM destinations WHERE destination = 'half.example'`, "2", "set aside"},
		{"the user directory", `SELECT count(*)::text FROM background_updates WHERE update_name LIKE 'populate_user_directory%'`, "0", "4"},
		{"a position beyond the rows", `SELECT (last_value >= 500)::text FROM account_data_sequence`, "false", "true"},
	} {
		if got := asked(t, script, c.query); got != c.script {
			t.Errorf("%s: the script makes %s, and used to make %s", c.name, got, c.script)
		}
		if got := asked(t, ours, c.query); got != c.ours {
			t.Errorf("%s: the doctor makes %s, want %s", c.name, got, c.ours)
		}
	}
	for table, want := range map[string]string{"event_search": "2", "destinations": "1"} {
		if got := asked(t, ours, `SELECT count(*)::text FROM synapse_doctor.port_quarantine WHERE name = '`+table+`'`); got != want {
			t.Errorf("%s rows of %s are set aside, want %s", got, table, want)
		}
	}

	// The script refuses to go on with the sequence that it has set itself, and says what to do.
	if _, said, failed := r.script(t, file, script); !failed || !bytes.Contains(said, []byte("'account_data_sequence' is inconsistent")) {
		t.Errorf("the script's second run goes on:\n%s", said)
	}
	const advice = `DELETE FROM stream_positions WHERE stream_name = 'account_data'` // before every run, because each makes the row anew
	script.AdminExec(t, advice)

	// It keeps what has changed since.
	query(t, file, `UPDATE users SET password_hash = 'new', deactivated = 1; UPDATE events SET outlier = 1; UPDATE event_json SET json = '{"redacted": true}'`)
	if _, said, failed := r.script(t, file, script); failed {
		t.Fatalf("the script fails:\n%s", said)
	}
	r.doctor(t, file, ours, 2, skip...)
	const state = `SELECT password_hash || deactivated || outlier || json FROM users, events, event_json`
	if got := asked(t, script, state); got != "old0false{}" {
		t.Errorf("after its second run the script has %s", got)
	}
	if got, want := asked(t, ours, state), `new1true{"redacted": true}`; got != want {
		t.Errorf("after its second run the doctor has %s, want %s", got, want)
	}

	// A file without a user is nobody's, and the script empties a homeserver with it.
	empty := r.seeded(t, `DELETE FROM users; DELETE FROM profiles; DELETE FROM events; DELETE FROM event_json; DELETE FROM rooms`)
	script.AdminExec(t, advice)
	if _, said, failed := r.script(t, empty, script); failed {
		t.Fatalf("the script fails:\n%s", said)
	}
	r.refused(t, empty, ours)
	const profiles = `SELECT count(*)::text FROM profiles`
	if s, o := asked(t, script, profiles), asked(t, ours, profiles); s != "0" || o != "1" {
		t.Errorf("the script leaves %s profiles, the doctor %s", s, o)
	}
}

// ended has the script end at each defect alone, and the doctor port a file with all of them. A run of the script takes its
// time: SYNAPSE_DOCTOR_KILLS=1, a long look, has it run into every one, and otherwise it is those that homeservers have.
func (r *rivals) ended(t *testing.T) {
	t.Parallel()
	var all string
	for _, c := range []struct {
		name  string
		often bool
		seed  string
	}{
		{"a refresh token that was used", true, `INSERT INTO refresh_tokens (id, user_id, device_id, token, next_token_id) VALUES (1, '@alice:test.example', 'D', 'a', 2), (2, '@alice:test.example', 'D', 'b', NULL);`},
		{"an orphan", true, `INSERT INTO destination_rooms VALUES ('nowhere.example', '!none:test.example', 1);`},
		{"a number that is too large", false, `INSERT INTO local_media_repository (media_id, media_length) VALUES ('large', 3000000000);`},
		{"a text that is too long", false, `INSERT INTO application_services_state (as_id, state) VALUES ('bridge', 'too long');`},
		{"broken UTF-8", true, `INSERT INTO account_data (user_id, account_data_type, stream_id, content) VALUES ('@alice:test.example', 'broken', 2, CAST(x'7b22ff227d' AS TEXT));`},
		{"a NUL in JSON", false, `UPDATE profiles SET fields = '{"a": "\u0000"}';`},
		{"a number in the search", false, `INSERT INTO event_search_content (docid, c0event_id, c1room_id, c2sender, c3key, c4value) VALUES (1, '$e1', '!r:test.example', '@alice:test.example', 'content.body', 7);`},
	} {
		all += c.seed
		if !c.often && os.Getenv("SYNAPSE_DOCTOR_KILLS") == "" {
			continue
		}
		file := r.seeded(t, c.seed)
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, said, failed := r.script(t, file, nil); !failed {
				t.Errorf("the script ends well:\n%s", said)
			}
		})
	}
	db := r.doctor(t, r.seeded(t, all), nil, 2)
	for query, want := range map[string]string{
		`SELECT count(*)::text FROM refresh_tokens`:                                      "2",
		`SELECT string_agg(name, ' ' ORDER BY name) FROM synapse_doctor.port_quarantine`: "application_services_state destination_rooms local_media_repository",
		`SELECT content FROM account_data WHERE account_data_type = 'broken'`:            "{\"\ufffd\"}",
		`SELECT fields ->> 'a' FROM profiles`:                                            "\ufffd",
		`SELECT vector::text FROM event_search`:                                          "'7':1",
		`SELECT string_agg(DISTINCT name || '.' || column_, ' ' ORDER BY name || '.' || column_) FROM synapse_doctor.port_change WHERE name <> 'event_search'`: "account_data.content profiles.fields",
	} {
		if got := asked(t, db, query); got != want {
			t.Errorf("%s gives %q, want %q", query, got, want)
		}
	}
}

// little is a homeserver with one user, one room and one event.
const little = `
INSERT INTO users (name, password_hash, creation_ts, approved) VALUES ('@alice:test.example', 'old', 1, NULL);
INSERT INTO profiles (user_id, displayname, full_user_id) VALUES ('alice', 'Alice', '@alice:test.example');
INSERT INTO rooms (room_id, creator) VALUES ('!r:test.example', '@alice:test.example');
INSERT INTO events (stream_ordering, topological_ordering, event_id, type, room_id, processed, outlier, depth, origin_server_ts, received_ts, sender)
  VALUES (2, 1, '$e1', 'm.room.message', '!r:test.example', 1, 0, 1, 1, 1, '@alice:test.example');
INSERT INTO event_json (event_id, room_id, internal_metadata, json, format_version) VALUES ('$e1', '!r:test.example', '{}', '{}', 3);
`

const oddities = `
INSERT INTO pushers (id, user_name, profile_tag, kind, app_id, app_display_name, device_display_name, pushkey, ts, data, enabled) VALUES
  (1, '@alice:test.example', '', 'http', 'a', 'a', 'a', 'k1', 1, '{}', NULL),
  (2, '@alice:test.example', '', 'http', 'a', 'a', 'a', 'k2', 1, CAST('{"url":"é","a":"\\n"}' AS BLOB), 1);
INSERT INTO user_filters (user_id, filter_id, filter_json, full_user_id) VALUES ('alice', 1, '{"a":"\\"}', '@alice:test.example');
INSERT INTO account_data (user_id, account_data_type, stream_id, content) VALUES ('@alice:test.example', 'nul', 2, '{"a":"' || char(0) || '"}');
INSERT INTO destinations (destination, retry_last_ts) VALUES ('half.example', 1.5);
INSERT INTO stream_positions (stream_name, instance_name, stream_id) VALUES ('account_data', 'master', 500);
INSERT INTO event_search_content (docid, c0event_id, c1room_id, c2sender, c3key, c4value) VALUES
  (1, '$e1', '!r:test.example', '@alice:test.example', 'content.body', 'hello'),
  (2, '$gone', '!r:test.example', '@alice:test.example', 'content.body', 'lost'),
  (-1, '$gone too', '!r:test.example', '@alice:test.example', 'content.body', 'below');
CREATE TABLE module_notes (note TEXT);
INSERT INTO module_notes VALUES ('of a module');
`

// rivals are the script and the doctor, with a file and a database to begin with.
type rivals struct {
	m      *move
	server *pgtest.Server
	schema string // a dump of Synapse's finished schema
	files  atomic.Int64
}

func newRivals(t *testing.T) *rivals {
	t.Helper()
	synapse := installed(t)
	server := pgtest.StartWith(t, pgtest.Config{Sound: true})
	m := onSQLite(t, newHomeserver(t, synapse, server.Database(t)), built(t))
	var updates sync.WaitGroup
	var inFile, inDatabase error
	updates.Go(func() { inFile = m.updated(t.Context(), m.config) })
	updates.Go(func() { inDatabase = m.updated(t.Context(), m.postgres) })
	updates.Wait()
	if err := errors.Join(inFile, inDatabase); err != nil {
		t.Fatal(err)
	}
	m.config = m.postgres
	r := &rivals{m: m, server: server, schema: filepath.Join(t.TempDir(), "schema.dump")}
	dump := exec.CommandContext(t.Context(), filepath.Join(server.BinDir, "pg_dump"), "--format=custom", "--no-owner", "--file="+r.schema,
		"--host="+server.SocketDir, "--port="+strconv.Itoa(server.Port), "--username=postgres", "--dbname="+m.db.Name)
	if out, err := dump.CombinedOutput(); err != nil {
		t.Fatalf("pg_dump: %v\n%s", err, out)
	}
	if err := os.Chmod(filepath.Dir(r.schema), 0o755); err != nil {
		t.Fatal(err)
	}
	return r
}

// seeded is a file with the little homeserver and more.
func (r *rivals) seeded(t *testing.T, more string) string {
	t.Helper()
	file := filepath.Join(filepath.Dir(r.m.config), fmt.Sprintf("case-%d.db", r.files.Add(1)))
	content, err := os.ReadFile(r.m.sqlite)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	query(t, file, little+more)
	return file
}

func query(t *testing.T, file, statements string) {
	t.Helper()
	m := move{sqlite: file}
	m.onSQLite(t, statements)
}

// on is the configuration with another database, made when there is none yet.
func (r *rivals) on(t *testing.T, db *pgtest.DB) (*pgtest.DB, string) {
	t.Helper()
	if db == nil {
		db = r.server.Database(t, pgtest.WithDump(r.schema))
	}
	text, err := os.ReadFile(r.m.postgres)
	if err != nil {
		t.Fatal(err)
	}
	settings, _, _ := strings.Cut(string(text), "database:\n")
	config := filepath.Join(filepath.Dir(r.m.config), "on-"+db.Name+".yaml")
	section := fmt.Sprintf("database: {name: psycopg2, args: {user: %q, password: %q, dbname: %q, host: %s, port: %d}}\n", db.User, db.Password, db.Name, db.Host, db.Port)
	if err := os.WriteFile(config, []byte(settings+section), 0o600); err != nil {
		t.Fatal(err)
	}
	return db, config
}

// script has Synapse's script port the file.
func (r *rivals) script(t *testing.T, file string, db *pgtest.DB) (_ *pgtest.DB, said []byte, failed bool) {
	t.Helper()
	db, config := r.on(t, db)
	cmd := r.m.homeserver.command(t.Context(), filepath.Dir(config), "synapse_port_db", "--sqlite-database", inside+"/"+filepath.Base(file), "--postgres-config", inside+"/"+filepath.Base(config))
	out, err := cmd.CombinedOutput()
	return db, out, err != nil
}

// doctor ports the file, which must end with that code.
func (r *rivals) doctor(t *testing.T, file string, db *pgtest.DB, code int, more ...string) *pgtest.DB {
	t.Helper()
	db, config := r.on(t, db)
	p := patient{r.m.p.program, config, db}
	p.run(t, code, append([]string{"fix", "port", "--apply", "--yes", "--sqlite", file}, more...)...)
	return db
}

// refused makes sure that the doctor does not port the file.
func (r *rivals) refused(t *testing.T, file string, db *pgtest.DB) {
	t.Helper()
	_, config := r.on(t, db)
	cmd := exec.CommandContext(t.Context(), r.m.p.path, "fix", "port", "--apply", "--yes", "--sqlite", file, "-c", config)
	cmd.Env = append(os.Environ(), "SYNAPSE_DOCTOR_STATE_DIR="+r.m.p.state)
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("the doctor ports it:\n%s", out)
	}
}

func asked(t *testing.T, db *pgtest.DB, query string) (answer string) {
	t.Helper()
	c := db.AdminConn(t)
	defer c.Close(t.Context())
	if err := c.QueryRow(t.Context(), query).Scan(&answer); err != nil {
		t.Errorf("%s: %v", query, err)
	}
	return answer
}
