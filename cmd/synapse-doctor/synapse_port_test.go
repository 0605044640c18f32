//go:build synapse

package main_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// A homeserver on SQLite is moved while it works, goes on working, and is moved for good: its clients find everything as it
// was last, on one process and on several.
func TestSynapsePort(t *testing.T) {
	synapse := installed(t)
	server := pgtest.StartWith(t, pgtest.Config{Sound: true})
	m := newMove(t, newHomeserver(t, synapse, server.Database(t)), built(t))

	m.start(t)
	before := m.live(t)
	part(t, "first run while it works", func(t *testing.T) {
		snapshot := m.snapshot(t)
		m.port(t, snapshot)
		m.p.run(t, 0, m.portArgs(snapshot)...) // nothing has changed, and nothing is left to do
	})
	part(t, "the schema is the one that Synapse makes with its whole configuration", func(t *testing.T) {
		other := newHomeserver(t, synapse, server.Database(t))
		other.update(t)
		if want, got := schemaOf(t, other.db), schemaOf(t, m.db); got != want {
			t.Errorf("it is not: %s", firstDifference(want, got))
		}
	})
	after := m.liveOn(t, before)
	m.stop(t)
	m.onSQLite(t, `UPDATE pushers SET enabled = NULL`) // as before 1.69, and NULL means yes
	part(t, "last run when it has stopped", func(t *testing.T) { m.port(t, m.sqlite) })

	m.config = m.postgres
	part(t, "all is as it was last", func(t *testing.T) {
		m.start(t)
		m.same(t, after)
		m.directory(t)
		m.sendsOn(t, after)
	})
	part(t, "no port over a homeserver that works", func(t *testing.T) {
		m.stop(t)
		m.onSQLite(t, `UPDATE pushers SET enabled = 0`) // somebody has used the old file again
		m.p.run(t, 2, m.portArgs(m.sqlite)...)
		m.start(t)
		m.same(t, after)
	})
	part(t, "several workers", func(t *testing.T) { m.workers(t, after) })
	m.stop(t)
}

// move is a homeserver that is on its way from SQLite to PostgreSQL.
type move struct {
	*homeserver
	p        patient
	postgres string // the configuration with PostgreSQL
	sqlite   string // the file, as the doctor sees it
	command  string // what runs Synapse's programs
}

// newMove puts the homeserver on SQLite, with its schema and its background updates done.
func newMove(t *testing.T, h *homeserver, doctor program) *move {
	t.Helper()
	m := onSQLite(t, h, doctor)
	// A homeserver that has run for some minutes has done its background updates, without which nothing is ported.
	m.update(t)
	return m
}

// onSQLite is the homeserver with a configuration for SQLite.
func onSQLite(t *testing.T, h *homeserver, doctor program) *move {
	t.Helper()
	dir := filepath.Dir(h.config)
	m := &move{homeserver: h, p: patient{doctor, h.config, h.db}, postgres: h.config, sqlite: filepath.Join(dir, "homeserver.db")}
	text, err := os.ReadFile(h.config)
	if err != nil {
		t.Fatal(err)
	}
	settings, _, _ := strings.Cut(string(text), "database:\n")
	h.config = filepath.Join(dir, "on-sqlite.yaml")
	if err := os.WriteFile(h.config, []byte(settings+"database: {name: sqlite3, args: {database: "+inside+"/homeserver.db}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	enter := h.installation.command(t.Context(), dir, "PROGRAM").Args
	for _, word := range enter[:len(enter)-1] {
		m.command += "'" + strings.ReplaceAll(word, "'", `'\''`) + "' "
	}
	return m
}

// update has Synapse make its schema and do its background updates, as the configuration says.
func (h *homeserver) update(t *testing.T) {
	t.Helper()
	if err := h.updated(t.Context(), h.config); err != nil {
		t.Fatal(err)
	}
}

func (h *homeserver) updated(ctx context.Context, config string) error {
	update := h.installation.command(ctx, filepath.Dir(config), "update_synapse_database", "--database-config", inside+"/"+filepath.Base(config), "--run-background-updates")
	if out, err := update.CombinedOutput(); err != nil {
		return fmt.Errorf("update_synapse_database on %s: %w\n%s", filepath.Base(config), err, lastLines(out))
	}
	return nil
}

// snapshot has the doctor make one while the homeserver works.
func (m *move) snapshot(t *testing.T) string {
	t.Helper()
	m.p.run(t, 0, "fix", "vacuum", "--apply", "--yes", "--sqlite", m.sqlite)
	made, err := filepath.Glob(m.sqlite + "*snapshot*")
	if err != nil || len(made) != 1 {
		t.Fatalf("the snapshots are %q, %v", made, err)
	}
	return made[0]
}

func (m *move) portArgs(file string) []string {
	return []string{"fix", "port", "--apply", "--yes", "--sqlite", file, "--synapse-command", m.command, "--format", "json"}
}

// port moves a file, and makes sure that nothing of it is odd and that its bytes are as before.
func (m *move) port(t *testing.T, file string) {
	t.Helper()
	before := contents(t, file)
	start := time.Now()
	out := m.p.run(t, 0, m.portArgs(file)...)
	t.Logf("ported in %s", time.Since(start).Round(10*time.Millisecond))
	var r fixReport
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	if !r.Applied {
		t.Fatalf("the fix says %s", out)
	}
	if after := contents(t, file); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Errorf("the port has changed the file or what is beside it: %q, before %q", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
	}
}

// contents are the bytes of the file and of its companions.
func contents(t *testing.T, file string) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(file + "*")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		if all[name], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// onSQLite changes the file while Synapse is stopped.
func (m *move) onSQLite(t *testing.T, statement string) {
	t.Helper()
	c, err := sql.Open("sqlite", m.sqlite)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// As it is when Synapse ends: nothing is left in the log.
	for _, s := range []string{statement, `PRAGMA wal_checkpoint(TRUNCATE)`} {
		if _, err := c.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}

// seen is what the users of the homeserver saw last.
type seen struct {
	alice, bob client
	passwords  map[string]string
	timeline   map[string]string // by room: what alice reads, event by event
	found      map[string]int    // by word: how many messages alice finds
	pushers    map[string]string // by user
	profile    map[string]string
	since      string // where alice's sync is
	refresh    string // bob's last refresh token
}

// live has people use the homeserver.
func (m *move) live(t *testing.T) *seen {
	t.Helper()
	room, _ := m.traffic(t)
	s := &seen{alice: m.login(t, "alice"), bob: m.login(t, "bob"), passwords: map[string]string{"alice": password("alice"), "bob": password("bob")}}
	m.register(t, "carol")
	s.passwords["carol"] = password("carol")
	for _, name := range []string{"Ärger im CAFÉ", "plans"} {
		room := s.alice.createRoom(t, name)
		s.bob.call(t, "POST", "/_matrix/client/v3/join/"+url.PathEscape(room), object{})
		for n := range 20 {
			s.alice.send(t, room, fmt.Sprintf("Über CAFÉ %s, number %d", name, n))
		}
	}
	// A refresh token that was used points to its successor: a key of the table to itself.
	_, text := client{url: m.url}.try(t, "POST", "/_matrix/client/v3/login", object{"type": "m.login.password", "refresh_token": true,
		"identifier": object{"type": "m.id.user", "user": "bob"}, "password": password("bob")})
	s.refresh = field(t, text, "refresh_token")
	s.refreshes(t, m.url)
	s.look(t, room)
	return s
}

// refreshes uses bob's refresh token.
func (s *seen) refreshes(t *testing.T, url string) {
	t.Helper()
	status, text := client{url: url}.try(t, "POST", "/_matrix/client/v3/refresh", object{"refresh_token": s.refresh})
	if status != http.StatusOK {
		t.Fatalf("refresh: %d %s", status, text)
	}
	s.refresh = field(t, text, "refresh_token")
}

// liveOn changes what the first run has copied already.
func (m *move) liveOn(t *testing.T, s *seen) *seen {
	t.Helper()
	const v3 = "/_matrix/client/v3/"
	room := slices.Sorted(maps.Keys(s.timeline))[0]
	old := s.alice.send(t, room, "this will be edited")
	gone := s.alice.send(t, room, "this will be redacted")
	for n := range 30 {
		s.bob.send(t, room, fmt.Sprintf("after the first run, number %d", n))
	}
	s.alice.call(t, "PUT", v3+"rooms/"+url.PathEscape(room)+"/send/m.room.message/"+rand.Text(), object{"msgtype": "m.text", "body": "* edited",
		"m.new_content": object{"msgtype": "m.text", "body": "edited"}, "m.relates_to": object{"rel_type": "m.replace", "event_id": old}})
	// One of the events that are in PostgreSQL already, and one that is not.
	for _, event := range []string{gone, s.firstMessage(t, room)} {
		s.alice.call(t, "PUT", v3+"rooms/"+url.PathEscape(room)+"/redact/"+url.PathEscape(event)+"/"+rand.Text(), object{"reason": "gone"})
	}
	s.passwords["alice"] = "a new one"
	s.alice.call(t, "POST", v3+"account/password", object{"new_password": s.passwords["alice"], "logout_devices": false, "auth": object{"type": "m.login.password",
		"identifier": object{"type": "m.id.user", "user": "alice"}, "password": password("alice")}})
	s.alice.call(t, "POST", "/_synapse/admin/v1/deactivate/@carol:test.example", object{"erase": false})
	delete(s.passwords, "carol")
	s.bob.call(t, "PUT", v3+"profile/"+s.bob.user+"/displayname", object{"displayname": "Bob the second"})
	s.alice.call(t, "PUT", v3+"user/"+s.alice.user+"/account_data/m.direct", object{"a": 2})
	s.bob.call(t, "POST", v3+"rooms/"+url.PathEscape(s.alice.createRoom(t, "made after the first run"))+"/join", object{})
	s.refreshes(t, m.url)
	s.look(t, room)
	return s
}

// firstMessage is the oldest message of a room that is not redacted.
func (s *seen) firstMessage(t *testing.T, room string) string {
	t.Helper()
	_, text := s.alice.try(t, "GET", messages(room), nil)
	var r struct {
		Chunk []struct {
			ID      string `json:"event_id"`
			Type    string
			Content struct{ Body string }
		}
	}
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	for _, e := range r.Chunk {
		if e.Type == "m.room.message" && e.Content.Body != "" {
			return e.ID
		}
	}
	t.Fatal("there is no message")
	return ""
}

func messages(room string) string {
	return fmt.Sprintf("/_matrix/client/v3/rooms/%s/messages?dir=f&limit=1000", url.PathEscape(room))
}

// look notes what there is to be seen.
func (s *seen) look(t *testing.T, room string) {
	t.Helper()
	s.timeline, s.found, s.pushers, s.profile = s.reads(t), s.finds(t), map[string]string{}, map[string]string{}
	for _, c := range []client{s.alice, s.bob} {
		s.pushers[c.user], s.profile[c.user] = c.get(t, "/_matrix/client/v3/pushers"), c.get(t, "/_matrix/client/v3/profile/"+c.user)
	}
	_, text := s.alice.try(t, "GET", "/_matrix/client/v3/sync?timeout=0", nil)
	s.since = field(t, text, "next_batch")
}

// reads is what alice reads in each of her rooms: every event whole, but its age.
func (s *seen) reads(t *testing.T) map[string]string {
	t.Helper()
	timeline := map[string]string{}
	for _, room := range s.alice.rooms(t) {
		_, text := s.alice.try(t, "GET", messages(room), nil)
		var r struct{ Chunk []map[string]any }
		if err := json.Unmarshal(text, &r); err != nil {
			t.Fatal(err)
		}
		ageless(r.Chunk)
		plain, err := json.MarshalIndent(r.Chunk, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		timeline[room] = string(plain)
	}
	return timeline
}

// ageless removes what changes with every look.
func ageless(v any) {
	switch v := v.(type) {
	case []map[string]any:
		for _, item := range v {
			ageless(item)
		}
	case []any:
		for _, item := range v {
			ageless(item)
		}
	case map[string]any:
		delete(v, "age")
		delete(v, "transaction_id") // is only told to the session that has sent it
		for _, item := range v {
			ageless(item)
		}
	}
}

func (s *seen) finds(t *testing.T) map[string]int {
	t.Helper()
	found := map[string]int{}
	for _, word := range []string{"CAFÉ", "plans", "message", "nowhere"} {
		found[word] = s.alice.finds(t, word)
	}
	return found
}

// same makes sure that everything is as it was seen last.
func (m *move) same(t *testing.T, s *seen) {
	t.Helper()
	for name, word := range s.passwords {
		if status, text := m.tryLogin(t, name, word); status != http.StatusOK {
			t.Errorf("%s does not get in: %d %s", name, status, text)
		}
	}
	for name, word := range map[string]string{"alice": password("alice"), "carol": password("carol")} {
		if status, _ := m.tryLogin(t, name, word); status == http.StatusOK {
			t.Errorf("%s gets in with the password of before", name)
		}
	}
	timeline := s.reads(t)
	if !slices.Equal(slices.Sorted(maps.Keys(timeline)), slices.Sorted(maps.Keys(s.timeline))) {
		t.Errorf("alice is in %d rooms, and was in %d", len(timeline), len(s.timeline))
	}
	for room, want := range s.timeline {
		if timeline[room] != want {
			t.Errorf("alice reads something else in %s: %s", room, firstDifference(want, timeline[room]))
		}
	}
	if found := s.finds(t); !maps.Equal(found, s.found) || found["CAFÉ"] == 0 {
		t.Errorf("alice finds %v, and found %v", found, s.found)
	}
	for _, c := range []client{s.alice, s.bob} {
		if got := c.get(t, "/_matrix/client/v3/pushers"); got != s.pushers[c.user] || !strings.Contains(got, `"pushkey"`) {
			t.Errorf("the pushers of %s are %s, and were %s", c.user, got, s.pushers[c.user])
		}
		if got := c.get(t, "/_matrix/client/v3/profile/"+c.user); got != s.profile[c.user] {
			t.Errorf("the profile of %s is %s, and was %s", c.user, got, s.profile[c.user])
		}
	}
	s.refreshes(t, m.url)
	var silent int
	if err := m.db.AdminConn(t).QueryRow(t.Context(), `SELECT count(*) FROM pushers WHERE NOT COALESCE(enabled, true)`).Scan(&silent); err != nil || silent > 0 {
		t.Errorf("%d pushers are silent: %v", silent, err)
	}
}

// directory waits until Synapse has filled the user directory.
func (m *move) directory(t *testing.T) {
	t.Helper()
	alice := client{url: m.url}
	_, text := m.tryLogin(t, "alice", "a new one")
	alice.token = field(t, text, "access_token")
	alice.findsPerson(t, "Bob the second", "@bob:test.example")
}

// sendsOn makes sure that what happens now comes after what was.
func (m *move) sendsOn(t *testing.T, s *seen) {
	t.Helper()
	room := slices.Sorted(maps.Keys(s.timeline))[0]
	s.bob.send(t, room, "sent after the port")
	_, text := s.alice.try(t, "GET", "/_matrix/client/v3/sync?timeout=10000&since="+url.QueryEscape(s.since), nil)
	if !bytes.Contains(text, []byte("sent after the port")) {
		t.Errorf("alice's sync goes on with %s", text)
	}
	s.timeline, s.found = s.reads(t), s.finds(t)
}

// noRedis is in the place of txredisapi, which Debian does not have, and which a worker can't start without: nobody is there
// to talk to. So the workers write no streams and hear of nothing that happens, and read what is in the database.
const noRedis = `from twisted.internet import defer, protocol

class ConnectionHandler:
    def __init__(self, *args, **kwargs): pass
    def __getattr__(self, name): return lambda *args, **kwargs: defer.succeed(None)

UnixConnectionHandler = ConnectionHandler
SubscriberProtocol = protocol.Protocol

class RedisFactory(protocol.ReconnectingClientFactory):
    def __init__(self, *args, **kwargs): self.handler = ConnectionHandler()
`

// workers starts two beside the main process. Each of them looks at every sequence before it works.
func (m *move) workers(t *testing.T, s *seen) {
	t.Helper()
	m.stop(t)
	dir, replication := filepath.Dir(m.config), freePort(t)
	text, err := os.ReadFile(m.postgres)
	if err != nil {
		t.Fatal(err)
	}
	shared := strings.Replace(string(text), "listeners:\n",
		fmt.Sprintf("listeners:\n  - {port: %d, bind_addresses: [127.0.0.1], type: http, resources: [{names: [replication]}]}\n", replication), 1) +
		fmt.Sprintf("worker_replication_secret: %q\nredis: {enabled: true, host: 127.0.0.1, port: 1}\ninstance_map: {main: {host: 127.0.0.1, port: %d}}\n", m.secret, replication)
	m.config = filepath.Join(dir, "with-workers.yaml")
	for path, text := range map[string]string{m.config: shared, filepath.Join(dir, "txredisapi.py"): noRedis,
		filepath.Join(dir, "txredisapi-9.dist-info", "METADATA"): "Metadata-Version: 2.1\nName: txredisapi\nVersion: 9\n",
		filepath.Join(dir, "hiredis-9.dist-info", "METADATA"):    "Metadata-Version: 2.1\nName: hiredis\nVersion: 9\n",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	m.start(t)
	for _, name := range []string{"worker1", "worker2"} {
		port := freePort(t)
		w := &homeserver{installation: m.installation, db: m.db, config: m.config, url: fmt.Sprintf("http://127.0.0.1:%d", port),
			log: filepath.Join(dir, name+".log"), worker: filepath.Join(dir, name+".yaml")}
		own := fmt.Sprintf("worker_app: synapse.app.generic_worker\nworker_name: %s\nworker_listeners:\n"+
			"  - {port: %d, bind_addresses: [127.0.0.1], type: http, resources: [{names: [client, health]}]}\n", name, port)
		if err := os.WriteFile(w.worker, []byte(own), 0o600); err != nil {
			t.Fatal(err)
		}
		w.start(t)
		defer w.stop(t)
		reader := *s
		reader.alice.url = w.url
		timeline := reader.reads(t)
		for room, want := range s.timeline {
			if timeline[room] != want {
				t.Errorf("at %s alice reads something else in %s: %s", name, room, firstDifference(want, timeline[room]))
			}
		}
	}
}

// get is an answer with its keys in order.
func (c client) get(t *testing.T, path string) string {
	t.Helper()
	status, text := c.try(t, "GET", path, nil)
	var v any
	if err := json.Unmarshal(text, &v); err != nil || status != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, status, text)
	}
	plain, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

func (h *homeserver) tryLogin(t *testing.T, name, word string) (status int, text []byte) {
	t.Helper()
	return client{url: h.url}.try(t, "POST", "/_matrix/client/v3/login", object{"type": "m.login.password",
		"identifier": object{"type": "m.id.user", "user": name}, "password": word})
}

// field is a text of an answer.
func field(t *testing.T, answer []byte, name string) string {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(answer, &v); err != nil {
		t.Fatalf("%v: %s", err, answer)
	}
	text, ok := v[name].(string)
	if !ok {
		t.Fatalf("no %s in %s", name, answer)
	}
	return text
}

// schemaOf is the schema as pg_dump writes it, without what is the doctor's.
func schemaOf(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(db.Server.BinDir, "pg_dump"), "--schema-only", "--no-owner", "--no-privileges", "--exclude-schema=synapse_doctor",
		"--host="+db.Server.SocketDir, "--port="+strconv.Itoa(db.Port), "--username=postgres", "--dbname="+db.Name)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("pg_dump: %v", explained(err))
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, `\restrict`) && !strings.HasPrefix(line, `\unrestrict`) { // which have a key of their own each time
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// firstDifference shows where two texts begin to differ.
func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(a), len(b)) {
		var was, is string
		if i < len(a) {
			was = a[i]
		}
		if i < len(b) {
			is = b[i]
		}
		if was != is {
			return fmt.Sprintf("line %d is %q, and was %q", i+1, is, was)
		}
	}
	return "nowhere"
}
