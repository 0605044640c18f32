//go:build synapse

package main_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// What the doctor says and does is right when a real Synapse agrees: it starts on what was called sound, refuses what was
// called broken, and its clients read their messages after the repair. make test-synapse runs this, as root, where
// Debian's archive can be reached or SYNAPSE_DOCTOR_SYNAPSE names the folder of an installation.

func TestSynapse(t *testing.T) {
	synapse := installed(t)
	doctor, server := built(t), pgtest.StartWith(t, pgtest.Config{Sound: true})

	t.Run("fresh", func(t *testing.T) {
		h := newHomeserver(t, synapse, server.Database(t))
		fresh(t, h, patient{doctor, h.config, h.db})
	})
	t.Run("ported", func(t *testing.T) {
		dump := filepath.Join(pgtest.Data(t), "synapse_ported.dump")
		h := newHomeserver(t, synapse, server.Database(t, pgtest.WithDump(dump)))
		ported(t, h, patient{doctor, h.config, h.db})
	})
}

// part runs a part of a story, which ends where a part fails: the next ones go on from there.
func part(t *testing.T, name string, f func(*testing.T)) {
	if !t.Run(name, f) {
		t.FailNow()
	}
}

// fresh follows one homeserver from its first start.
func fresh(t *testing.T, h *homeserver, p patient) {
	h.start(t)
	part(t, "sound as soon as it has started", p.sound)

	room, texts := h.traffic(t)
	part(t, "sound while it works", p.sound)
	part(t, "tended while it works", func(t *testing.T) { texts = tended(t, h, p, room, texts) })
	part(t, "not mended while it works", func(t *testing.T) { refusedWhileConnected(t, h, p) })

	h.stop(t)
	p.mend(t)
	part(t, "sound when it has stopped", p.sound)
	part(t, "each sequence", func(t *testing.T) { eachSequence(t, p) })
	part(t, "refused until mended", func(t *testing.T) {
		refusedUntilMended(t, h, p)
		alice := h.login(t, "alice")
		alice.reads(t, room, texts)
		texts = append(texts, "sent after the repair")
		alice.send(t, room, texts[len(texts)-1])
		h.login(t, "bob").reads(t, room, texts)
		p.sound(t)
		h.stop(t)
	})
	part(t, "keepalives", func(t *testing.T) { keepalives(t, h, p) })
}

// ported follows one that Synapse's own script has moved from SQLite.
func ported(t *testing.T, h *homeserver, p patient) {
	part(t, "the user directory is frozen", p.thaw)
	part(t, "sound before it starts", p.sound)
	h.start(t)
	alice := h.login(t, "alice") // as she did on SQLite
	part(t, "the user directory fills", func(t *testing.T) { alice.findsPerson(t, "bob", "@bob:test.example") })
	room := alice.rooms(t)[0]
	texts := alice.messages(t, room)
	if len(texts) == 0 {
		t.Fatal("alice reads nothing of what was ported")
	}
	texts = append(texts, "sent after the port")
	alice.send(t, room, texts[len(texts)-1])
	alice.reads(t, room, texts)
	part(t, "sound while it works", p.sound)
	h.stop(t)
	part(t, "each sequence", func(t *testing.T) { eachSequence(t, p) })
	part(t, "refused until mended", func(t *testing.T) {
		refusedUntilMended(t, h, p)
		h.login(t, "alice").reads(t, room, texts)
	})
}

// refusedWhileConnected breaks a sequence that Synapse does not use at that moment.
func refusedWhileConnected(t *testing.T, h *homeserver, p patient) {
	const sequence = "sliding_sync_connections_connection_key_seq"
	h.db.Exec(t, "SELECT setval('"+sequence+"', 1)")
	p.wantFound(t, "sequence/behind-table of "+sequence)
	r := p.fix(t, 2, "sequence")
	if len(r.Plans) != 1 || r.Plans[0].Status != "refused" || !strings.Contains(r.Plans[0].Reason, "Synapse") {
		t.Errorf("the fix says %+v", r)
	}
	if at := standing(t, h.db, sequence); at != "1,t" {
		t.Errorf("the fix was refused, and has moved the sequence to %s", at)
	}
}

const behindTable, behindPosition = "sequence/behind-table of ", "sequence/behind-stream-position of "

// breaks are one way to break each sequence that Synapse makes. What traffic has moved is set back; where nothing has
// happened, a row or a position that is ahead comes from elsewhere, as after a restored backup.
var breaks = []struct{ sequence, sql, found string }{
	{"state_group_id_seq", setBack, behindTable},
	{"event_auth_chain_id", setBack, behindTable},
	{"events_stream_seq", setBack, behindTable},
	{"device_inbox_sequence", setBack, behindTable},
	{"account_data_sequence", setBack, behindTable},
	{"receipts_sequence", setBack, behindTable},
	{"presence_stream_sequence", setBack, behindTable},
	{"device_lists_sequence", setBack, behindTable},
	{"push_rules_stream_sequence", setBack, behindTable},
	{"pushers_sequence", setBack, behindTable},
	{"sliding_sync_connections_connection_key_seq", setBack, behindTable},
	{"sliding_sync_connection_positions_connection_position_seq", setBack, behindTable},
	{"sliding_sync_connection_required_state_required_state_id_seq", setBack, behindTable},
	{"user_id_seq", `INSERT INTO users (name) VALUES ('@777:test.example')`, behindTable},
	{"application_services_txn_id_seq", `INSERT INTO application_services_txns (as_id, txn_id, event_ids) VALUES ('bridge', 777, '[]')`, behindTable},
	{"instance_map_instance_id_seq", `INSERT INTO instance_map (instance_id, instance_name) VALUES (777, 'worker1')`, behindTable},
	{"cache_invalidation_stream_seq", `INSERT INTO cache_invalidation_stream_by_instance (stream_id, instance_name, cache_func, invalidation_ts)
		VALUES (777, 'master', 'get_user_by_id', 0)`, behindTable},
	{"state_groups_pending_deletion_sequence_number_seq", `INSERT INTO state_groups_pending_deletion (sequence_number, state_group, insertion_ts)
		OVERRIDING SYSTEM VALUE VALUES (777, 777777777, 4000000000000)`, behindTable},
	{"events_backfill_stream_seq", `INSERT INTO ex_outlier_stream (event_stream_ordering, event_id, state_group, instance_name)
		SELECT -777, event_id, 1, 'master' FROM events LIMIT 1`, behindTable},
	{"e2e_cross_signing_keys_sequence", `INSERT INTO e2e_cross_signing_keys (user_id, keytype, keydata, stream_id, instance_name)
		VALUES ('@gone:test.example', 'master', '{}', 777, 'master')`, behindTable},
	{"un_partial_stated_room_stream_sequence", `INSERT INTO un_partial_stated_room_stream (stream_id, instance_name, room_id)
		SELECT 777, 'master', room_id FROM rooms LIMIT 1`, behindTable},
	{"un_partial_stated_event_stream_sequence", `INSERT INTO un_partial_stated_event_stream (stream_id, instance_name, event_id, rejection_status_changed)
		SELECT 777, 'master', event_id, false FROM events LIMIT 1`, behindTable},
	{"thread_subscriptions_sequence", `INSERT INTO thread_subscriptions (stream_id, instance_name, room_id, event_id, user_id, subscribed, automatic)
		SELECT 777, 'master', room_id, event_id, name, true, true FROM events, users LIMIT 1`, behindTable},
	{"sticky_events_sequence", ahead("sticky_events"), behindPosition},
	{"quarantined_media_id_seq", ahead("quarantined_media"), behindPosition},
	{"profile_updates_sequence", ahead("profile_updates"), behindPosition},
}

const setBack = ""

// ahead records a position that the stream's sequence has not reached.
func ahead(stream string) string {
	return `INSERT INTO stream_positions (stream_name, instance_name, stream_id) VALUES ('` + stream + `', 'worker1', 777)`
}

// eachSequence breaks every sequence that Synapse has made, one at a time, and has it mended.
func eachSequence(t *testing.T, p patient) {
	var broken []string
	for _, b := range breaks {
		broken = append(broken, b.sequence)
	}
	slices.Sort(broken)
	rows, err := p.db.AdminConn(t).Query(t.Context(), `SELECT relname FROM pg_class WHERE relkind = 'S' ORDER BY relname COLLATE "C"`)
	if err != nil {
		t.Fatal(err)
	}
	made, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(broken, made) {
		t.Fatalf("this Synapse makes the sequences %q, and this test breaks %q", made, broken)
	}
	for _, b := range breaks {
		part(t, b.sequence, func(t *testing.T) {
			if b.sql == setBack {
				b.sql = "SELECT setval('" + b.sequence + "', 1)"
			}
			p.db.Exec(t, b.sql)
			p.wantFound(t, b.found+b.sequence)
			p.mend(t)
		})
	}
}

// refusedUntilMended breaks several sequences as a restored backup or Synapse's port script leaves them, and starts
// Synapse before and after the repair. It runs in the end.
func refusedUntilMended(t *testing.T, h *homeserver, p patient) {
	h.db.Exec(t, `SELECT setval('events_stream_seq', 1), setval('receipts_sequence', 1);
		UPDATE stream_positions SET stream_id = stream_id + 5000 WHERE stream_name IN ('account_data', 'to_device');
		INSERT INTO stream_positions (stream_name, instance_name, stream_id)
			SELECT s, 'master', 5000 FROM unnest(ARRAY['thread_subscriptions', 'un_partial_stated_room_stream']) s
			ON CONFLICT (stream_name, instance_name) DO UPDATE SET stream_id = 5000`)
	p.wantFound(t, behindTable+"events_stream_seq", behindTable+"receipts_sequence", behindPosition+"account_data_sequence",
		behindPosition+"device_inbox_sequence", behindPosition+"thread_subscriptions_sequence", behindPosition+"un_partial_stated_room_stream_sequence")
	for range 2 { // the second start shows that the first has not mended it
		if said := h.refuse(t); !strings.Contains(said, "is inconsistent with associated stream position") {
			t.Errorf("Synapse refuses for another reason:\n%s", said)
		}
	}
	p.mend(t)
	h.start(t)
}

// keepalives are put into the file that Synapse starts with.
func keepalives(t *testing.T, h *homeserver, p patient) {
	read := func() []byte {
		text, err := os.ReadFile(h.config)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	before := read()
	if r := p.fix(t, 0, "keepalives"); len(r.Plans) != 1 || r.Plans[0].Status != "applied" {
		t.Errorf("the fix says %+v", r)
	}
	if !bytes.Contains(read(), []byte("keepalives_idle: 10")) {
		t.Errorf("no keepalives in the file:\n%s", read())
	}
	if r := p.check(t, 0, "keepalives"); len(r.found("keepalives")) > 0 {
		t.Errorf("after the fix: %q", r.found("keepalives"))
	}
	h.start(t)
	h.login(t, "alice")
	h.stop(t)
	p.run(t, 0, "undo", "--yes")
	if after := read(); !bytes.Equal(after, before) {
		t.Errorf("undo did not give the first bytes back:\n%s", after)
	}
}
