package locale

import (
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// The library is another than the one that the indexes were built with, and has let keys in twice.
func TestAfterAChangeOfTheLibraryIndexesAreRebuiltAndItsVersionRecorded(t *testing.T) {
	pgtest.EachMajor(t, english, func(t *testing.T, s *pgtest.Server) {
		b := inEnglish(t, s)
		of14 := s.Major(t) < 15
		if !of14 {
			if err := b.db.Drift(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		b.db.AdminExec(t, `CREATE COLLATION other (provider = libc, locale = 'en_US.UTF-8'); UPDATE pg_collation SET collversion = '2.28' WHERE collname = 'other';
			CREATE TABLE named (v text COLLATE other UNIQUE); INSERT INTO named VALUES ('a'), ('B')`)
		before := b.content()
		findings := []doctor.Finding{of(VersionChanged, "collation", "other")}
		for _, x := range b.ask(`SELECT relname::text FROM pg_class WHERE relname IN ('room_stats_state_room_id_key', 'destinations_pkey', 'odd', 'user_filters_user_id_filter_id_key') OR relname ~ '^(receipts|event_txn)_.*(u|uniqueness|event_id|txn_id|index|thread)$' AND relkind = 'i'`) {
			findings = append(findings, of(DuplicateKeys, "index", x))
		}
		if !of14 {
			findings = append(findings, of(VersionChanged, "database", b.db.Name))
		}
		p := b.plan(findings...)
		if p.ID != "locale/reindex" || p.Risk != doctor.Careful || slices.Contains(p.Requires, doctor.RequireShut) {
			t.Errorf("plan %s, %s, %v", p.ID, p.Risk, p.Requires)
		}
		files := b.ask(`SELECT relname || relfilenode FROM pg_class WHERE relname IN ('named_v_key', 'destination_rooms_pkey') ORDER BY 1`)
		b.ok(b.apply(p))
		b.sound(false)
		rebuilt := b.ask(`SELECT relname || relfilenode FROM pg_class WHERE relname IN ('named_v_key', 'destination_rooms_pkey') ORDER BY 1`)
		if files[1] == rebuilt[1] || (files[0] == rebuilt[0]) != of14 {
			t.Errorf("rebuilt: %v, before %v", rebuilt, files)
		}
		const versions = `SELECT collversion FROM pg_collation WHERE collname = 'other' UNION ALL SELECT coalesce(to_jsonb(d) ->> 'datcollversion', '') FROM pg_database d WHERE datname = current_database()`
		if is := b.ask(versions); is[0] == "2.28" || is[1] == "2.28" {
			t.Errorf("recorded: %v", is)
		}
		b.ok(b.undo(p))
		if changed := differing(before, b.content()); len(changed) > 0 {
			t.Errorf("not put back: %v", changed)
		}
		if is := b.ask(versions); is[0] != "2.28" || is[1] != "2.28" && !of14 {
			t.Errorf("recorded after the undo: %v", is)
		}
	})
}

func TestOnlyWhatWasFoundIsRebuilt(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(few))
	db.AdminExec(t, `UPDATE pg_index SET indisvalid = false, indisready = false WHERE indexrelid = 'room_stats_state_room_id_key'::regclass; INSERT INTO room_stats_state VALUES ('a1', 'new');
		UPDATE pg_index SET indisvalid = true, indisready = true WHERE indexrelid = 'room_stats_state_room_id_key'::regclass`)
	b := newBench(t, db)
	const files = `SELECT relname || relfilenode FROM pg_class WHERE relkind = 'i' AND relnamespace = 'public'::regnamespace ORDER BY 1`
	before := b.ask(files)
	p := b.plan(of(IndexCorrupt, "index", "room_stats_state_room_id_key"), of(DuplicateKeys, "index", "room_stats_state_room_id_key"))
	b.ok(b.apply(p))
	b.sound(true)
	var changed []string
	for i, x := range b.ask(files) {
		if x != before[i] {
			changed = append(changed, x)
		}
	}
	if len(changed) != 1 || !strings.HasPrefix(changed[0], "room_stats_state_room_id_key") {
		t.Errorf("rebuilt: %v", changed)
	}
	if is := b.ask(`SELECT string_agg(room_id || name, ' ' ORDER BY room_id || name COLLATE "C") FROM room_stats_state`)[0]; is != "#c3old @B2old a1new" {
		t.Errorf("rows: %s", is)
	}
}

func TestWhatAFailedBuildHasLeftIsDropped(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(few+`CREATE INDEX destinations_ccnew ON destinations (destination); CREATE INDEX twin ON destinations (destination)`))
	db.AdminExec(t, `UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'destinations_ccnew'::regclass`)
	b := newBench(t, db)
	b.ok(b.apply(b.plan(of(IndexInvalid, "index", "destinations_ccnew"))))
	b.sound(true)
	if left := b.ask(`SELECT relname::text FROM pg_class WHERE relname IN ('destinations_ccnew', 'twin')`); !slices.Equal(left, []string{"twin"}) {
		t.Errorf("left: %v", left)
	}
}
