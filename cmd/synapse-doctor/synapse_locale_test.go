//go:build synapse

package main_test

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

const english = "ENCODING 'UTF8' LC_COLLATE 'en_US.UTF-8' LC_CTYPE 'en_US.UTF-8'"

// What is mended in each of the ways is a database that a real Synapse starts on, whose clients read every room and find
// what they search for.
func TestSynapseLocale(t *testing.T) {
	synapse := installed(t)
	doctor := built(t)
	server := pgtest.StartWith(t, pgtest.Config{Sound: true, Locales: []string{"en_US.UTF-8"}})
	dump := filepath.Join(pgtest.Data(t), "synapse_ported.dump")

	for _, way := range []string{"locale/rebuild", "locale/in-place"} {
		t.Run(way, func(t *testing.T) {
			h := newHomeserver(t, synapse, server.Database(t, pgtest.WithDump(dump), pgtest.WithCreate(english)))
			p := patient{doctor, h.config, h.db}
			p.thaw(t)
			rooms := unsafe(t, h)
			if said := h.refuse(t); !strings.Contains(said, "collation") {
				t.Fatalf("Synapse refuses for another reason:\n%s", said)
			}
			if found := p.check(t, 2, "locale", "--deep").damage(); len(found) != 1 || found[0] != "locale/not-c of "+h.db.Name {
				t.Fatalf("found %q", found)
			}
			p.mendLocale(t, way)
			reads(t, h, rooms)
			if way == "locale/rebuild" {
				return // Synapse has written: there is no way back
			}
			h.stop(t)
			p.run(t, 0, "undo", "--yes-dangerous")
			if said := h.refuse(t); !strings.Contains(said, "collation") {
				t.Errorf("after undo Synapse says:\n%s", said)
			}
			p.mendLocale(t, way)
			reads(t, h, rooms)
		})
	}

	t.Run("edited catalog", func(t *testing.T) {
		h := newHomeserver(t, synapse, server.Database(t, pgtest.WithDump(dump), pgtest.WithCreate(english)))
		p := patient{doctor, h.config, h.db}
		p.thaw(t)
		rooms := unsafe(t, h)
		if err := h.db.Corrupt(t.Context()); err != nil {
			t.Fatal(err)
		}
		var twice int
		c := h.db.AdminConn(t)
		// As the upserts of a running Synapse would: keys that exist are not found, and are inserted again.
		for _, table := range []string{"users_in_public_rooms", "user_stats_current", "room_stats_state", "room_stats_current", "event_push_summary", "user_ips", "user_directory"} {
			tag, err := c.Exec(t.Context(), `INSERT INTO `+table+` SELECT * FROM `+table+` ON CONFLICT DO NOTHING`)
			if err != nil {
				t.Fatal(err)
			}
			twice += int(tag.RowsAffected())
		}
		c.Close(t.Context())
		if twice == 0 {
			t.Fatal("no key was inserted twice")
		}
		r := p.check(t, 2, "locale", "--deep")
		for _, code := range []string{"locale/catalog-edited", "locale/index-corrupt", "locale/duplicate-keys"} {
			if !strings.Contains(strings.Join(r.found("locale"), " "), code) {
				t.Errorf("%s was not found: %q", code, r.found("locale"))
			}
		}
		p.mendLocale(t, "locale/in-place")
		reads(t, h, rooms)
	})
}

// unsafe has Synapse work for a while on a database in another locale, as allow_unsafe_locale lets it, and returns the texts
// that alice reads in each of her rooms.
func unsafe(t *testing.T, h *homeserver) map[string][]string {
	t.Helper()
	sound, err := os.ReadFile(h.config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(sound), "database:\n", "database:\n  allow_unsafe_locale: true\n", 1)
	if err := os.WriteFile(h.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.start(t)
	alice := h.login(t, "alice")
	room := alice.createRoom(t, "Ärger im CAFÉ")
	alice.send(t, room, "Über CAFÉ École")
	rooms := map[string][]string{}
	for _, room := range alice.rooms(t) {
		rooms[room] = alice.messages(t, room)
	}
	h.stop(t)
	if err := os.WriteFile(h.config, sound, 0o600); err != nil {
		t.Fatal(err)
	}
	return rooms
}

// reads starts Synapse and makes sure that alice reads the same in every room, and finds a word with letters of no ASCII.
func reads(t *testing.T, h *homeserver, rooms map[string][]string) {
	t.Helper()
	h.start(t)
	alice := h.login(t, "alice")
	if got := alice.rooms(t); len(got) != len(rooms) {
		t.Errorf("alice is in %d rooms, and was in %d", len(got), len(rooms))
	}
	for room, texts := range rooms {
		alice.reads(t, room, texts)
	}
	if n := alice.finds(t, "CAFÉ"); n == 0 {
		t.Error("alice does not find CAFÉ")
	}
	room := alice.createRoom(t, "after the repair")
	alice.send(t, room, "sent after the repair")
	alice.reads(t, room, []string{"sent after the repair"})
	alice.call(t, "POST", "/_matrix/client/v3/rooms/"+url.PathEscape(room)+"/leave", object{})
	h.stop(t)
}

// finds counts the messages that a search gives.
func (c client) finds(t *testing.T, word string) int {
	t.Helper()
	return c.call(t, "POST", "/_matrix/client/v3/search", object{"search_categories": object{"room_events": object{
		"search_term": word, "keys": []string{"content.body"}}}}).SearchCategories.RoomEvents.Count
}

// mendLocale applies a plan and makes sure that the deep check finds nothing afterwards.
func (p patient) mendLocale(t *testing.T, plan string) {
	t.Helper()
	var r fixReport
	if err := json.Unmarshal(p.run(t, 0, "fix", "locale", "--deep", "--plan", plan, "--apply", "--yes-dangerous", "--format", "json"), &r); err != nil {
		t.Fatal(err)
	}
	if !r.Applied || r.After == nil || len(r.After.damage()) > 0 {
		t.Fatalf("the fix says %+v", r)
	}
	p.sound(t)
	if found := p.check(t, 0, "locale", "--deep").damage(); len(found) > 0 {
		t.Errorf("after the fix: %q", found)
	}
}

// damage is what the check locale finds, apart from indexes that only amcheck could examine.
func (r report) damage() []string {
	return slices.DeleteFunc(r.found("locale"), func(f string) bool { return strings.HasPrefix(f, "locale/index-not-examined") })
}
