package locale

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// few is as much of [classes] as it takes for an interruption to have something to spoil.
const few = `CREATE TABLE schema_version (version int);
INSERT INTO schema_version VALUES (94);
CREATE TABLE room_stats_state (room_id text NOT NULL UNIQUE, name text);
INSERT INTO room_stats_state VALUES ('a1', 'old'), ('@B2', 'old'), ('#c3', 'old');
CREATE TABLE destinations (destination text PRIMARY KEY, retry_last_ts bigint);
INSERT INTO destinations VALUES ('a1', 1), ('B2', 2);
CREATE TABLE destination_rooms (destination text NOT NULL REFERENCES destinations ON DELETE CASCADE, room_id text, PRIMARY KEY (destination, room_id));
INSERT INTO destination_rooms VALUES ('a1', 'r'), ('B2', 'r');
CREATE TABLE event_json (event_id text NOT NULL UNIQUE, json text);
CREATE TABLE event_search (event_id text UNIQUE, key text, vector tsvector);
INSERT INTO event_json SELECT '$' || n, '{"content": {"body": "ZÉBULON ' || n || '"}}' FROM generate_series(1, 3) n;
INSERT INTO event_search SELECT '$' || n, 'content.body', to_tsvector('english', 'ZÉBULON ' || n) FROM generate_series(1, 3) n;`

const fewTwice = `UPDATE pg_index SET indisvalid = false, indisready = false WHERE indisunique AND indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace);
INSERT INTO room_stats_state VALUES ('a1', 'new'), ('@B2', 'new');
INSERT INTO destinations VALUES ('B2', NULL);
INSERT INTO event_search SELECT * FROM event_search WHERE event_id = '$2';
UPDATE pg_index SET indisvalid = true, indisready = true WHERE indisunique AND indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace);`

// A doctor that is killed at any instant, and the next one killed too while it puts everything back.
func TestAKilledDoctorIsGoneOnWith(t *testing.T) {
	s := pgtest.StartWith(t, english(0))
	make := func() *bench {
		db := s.Database(t, pgtest.WithCreate(inEnUS), pgtest.WithSetup(few))
		db.AdminExec(t, fewTwice)
		return newBench(t, db)
	}
	plain := make()
	before := plain.content()
	p := plain.plan(of(NotC, "database", plain.db.Name))
	plain.ok(plain.apply(p))
	plain.sound(true)
	mended := plain.content()
	applied := plain.events
	plain.ok(plain.undo(p))
	total := plain.events
	if changed := differing(before, plain.content()); len(changed) > 0 {
		t.Fatalf("not put back: %v", changed)
	}
	stride := 9
	if testing.Short() {
		stride = 17
	}
	for n := 1; ; n += stride {
		b := make()
		p := b.plan(of(NotC, "database", b.db.Name))
		b.cutAt = n
		for i := range p.Steps {
			b.goOn(func() error { return b.step(p, i, false) })
		}
		if b.cut == "" {
			break
		}
		b.sound(true)
		if changed := differing(mended, b.content()); len(changed) > 0 {
			t.Errorf("killed at %q: %v", b.cut, changed)
		}
		b.cut, b.events, b.cutAt = "", 0, 1+(n-1)*(total-applied)/applied
		for i := range slices.Backward(p.Steps) {
			b.goOn(func() error { return b.step(p, i, true) })
		}
		if changed := differing(before, b.content()); len(changed) > 0 {
			t.Errorf("killed at %q while it was put back: %v", b.cut, changed)
		}
	}
	t.Logf("%d instants, and %d while putting back", applied, total-applied)
}

// goOn does something, and once more where the doctor was killed over it.
func (b *bench) goOn(do func() error) {
	b.t.Helper()
	err := do()
	if b.dead {
		b.dead = false
		err = do()
	}
	if err != nil {
		b.t.Fatalf("killed at %q: %v\nafter %q", b.cut, err, b.said[max(0, len(b.said)-5):])
	}
}

// What was done when the doctor was killed is put back without being finished first.
func TestAKilledDoctorsWorkIsPutBack(t *testing.T) {
	s := pgtest.StartWith(t, english(0))
	stride := 11
	if testing.Short() {
		stride = 23
	}
	for n := 2; ; n += stride {
		db := s.Database(t, pgtest.WithCreate(inEnUS), pgtest.WithSetup(few))
		db.AdminExec(t, fewTwice)
		b := newBench(t, db)
		before := b.content()
		p := b.plan(of(NotC, "database", db.Name))
		b.cutAt = n
		err := b.apply(p)
		if b.cut == "" {
			b.ok(err)
			return
		}
		cut := b.cut
		b.dead = false
		if err := b.step(p, 2, true); err != nil {
			t.Errorf("killed at %q: %v", cut, err)
		}
		if changed := differing(before, b.content()); len(changed) > 0 {
			t.Errorf("killed at %q: %v", cut, changed)
		}
		if left := b.ask(`SELECT datcollate FROM pg_database WHERE datname = current_database()`); left[0] != "en_US.UTF-8" {
			t.Errorf("killed at %q: the locale is %v", cut, left)
		}
	}
}

func TestAKilledServerIsGoneOnWith(t *testing.T) {
	s := pgtest.StartWith(t, alone())
	stride := 13
	if testing.Short() {
		stride = 29
	}
	for n := 3; ; n += stride {
		db := s.Database(t, pgtest.WithCreate(inEnUS), pgtest.WithSetup(few))
		db.AdminExec(t, fewTwice)
		db.AdminExec(t, `CHECKPOINT`) // the test's own commits are not on disk at once
		b := newBench(t, db)
		before := b.content()
		p := b.plan(of(NotC, "database", db.Name))
		b.cutAt, b.crash = n, true
		for i := range p.Steps {
			b.goOn(func() error { return b.step(p, i, false) })
		}
		if b.cut == "" {
			return
		}
		b.sound(true)
		for i := range slices.Backward(p.Steps) {
			b.goOn(func() error { return b.step(p, i, true) })
		}
		if changed := differing(before, b.content()); len(changed) > 0 {
			t.Errorf("killed at %q: %v", b.cut, changed)
		}
	}
}

// An execution that was interrupted may have archived more than the one that was committed.
func TestWhatWasArchivedAndNotRemovedIsNotPutBack(t *testing.T) {
	s := pgtest.StartWith(t, english(0))
	db := s.Database(t, pgtest.WithCreate(inEnUS), pgtest.WithSetup(few))
	db.AdminExec(t, fewTwice)
	b := newBench(t, db)
	before := b.content()
	p := b.plan(of(NotC, "database", db.Name))
	b.ok(b.apply(p))
	const unit = `rows of "public"."destinations"`
	text, err := json.Marshal(line{Unit: unit, Chunk: 1, Row: json.RawMessage(`{"destination": "never removed", "retry_last_ts": "1"}`)})
	if err != nil {
		t.Fatal(err)
	}
	resume := b.resume
	b.ok(b.Save(t.Context(), unit+", chunk 1", []doctor.SavedRow{{Table: `"public"."destinations"`, JSON: string(text)}}))
	b.resume = resume
	b.ok(b.undo(p))
	if changed := differing(before, b.content()); len(changed) > 0 {
		t.Errorf("not as it was: %v", changed)
	}
}
