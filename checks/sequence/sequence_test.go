package sequence

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/core/sequence"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func fixture(t *testing.T) *pgtest.DB {
	return pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()))
}

func dump(t *testing.T, name string) *pgtest.DB {
	return pgtest.Start(t).Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), name)))
}

func target(db *pgtest.DB) *doctor.Target {
	return &doctor.Target{ServerName: "test.example", Databases: []*doctor.Database{{
		Label: "main", Engine: doctor.Postgres, Meets: doctor.NeedsPostgres | doctor.NeedsSynapse,
		Settings: pgdb.Settings{"host": db.Host, "port": fmt.Sprint(db.Port), "user": db.User, "password": db.Password, "dbname": db.Name},
	}}}
}

// collector is a Reporter.
type collector []doctor.Finding

func (c *collector) Find(f doctor.Finding)    { *c = append(*c, f) }
func (c *collector) Progress(doctor.Progress) {}
func (c *collector) Covered(string)           {}
func (c *collector) Measure(doctor.Measure)   {}

func runCheck(t *testing.T, target *doctor.Target) ([]doctor.Finding, error) {
	t.Helper()
	defer target.Close()
	var c collector
	err := Check.Run(t.Context(), target, &c)
	return c, err
}

// find runs the check, which must have seen everything.
func find(t *testing.T, db *pgtest.DB) []doctor.Finding {
	t.Helper()
	found, err := runCheck(t, target(db))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func wantSilence(t *testing.T, db *pgtest.DB) {
	t.Helper()
	for _, f := range find(t, db) {
		t.Errorf("%s %s: %s %v", f.Code, f.Object.Name, f.Summary, f.Evidence)
	}
}

// wantOne is the only finding, which must be this one.
func wantOne(t *testing.T, db *pgtest.DB, code, sequence string) doctor.Finding {
	t.Helper()
	found := find(t, db)
	if len(found) != 1 || found[0].Code != code || found[0].Object != (doctor.Object{Kind: "sequence", Name: sequence}) {
		t.Fatalf("want %s of %s alone, got %+v", code, sequence, found)
	}
	return found[0]
}

func plans(t *testing.T, target *doctor.Target, findings []doctor.Finding) []doctor.Plan {
	t.Helper()
	defer target.Close()
	plans, err := Check.Plan(t.Context(), target, findings)
	if err != nil {
		t.Fatal(err)
	}
	return plans
}

// onlyPlan is the plan that answers all findings.
func onlyPlan(t *testing.T, db *pgtest.DB, findings []doctor.Finding) doctor.Plan {
	t.Helper()
	got := plans(t, target(db), findings)
	if len(got) != 1 || len(got[0].Covers) != len(findings) {
		t.Fatalf("want one plan for %d findings, got %+v", len(findings), got)
	}
	return got[0]
}

var errGuard = errors.New("guard")

func guarded(ctx context.Context, tx pgx.Tx, g *doctor.Guard) error {
	if g == nil {
		return nil
	}
	var holds bool
	if err := tx.QueryRow(ctx, g.Query).Scan(&holds); err != nil {
		return fmt.Errorf("%s: %w", g.Query, err)
	}
	if !holds {
		return fmt.Errorf("%w: %s", errGuard, g.Else)
	}
	return nil
}

// carryOut runs a plan as the host does: one transaction, guard before statement.
func carryOut(t *testing.T, conn *pgx.Conn, p doctor.Plan, before func(step int)) error {
	t.Helper()
	ctx := t.Context()
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	for i, s := range p.Steps {
		if before != nil {
			before(i)
		}
		switch s.Kind() {
		case doctor.KindSQL:
			if s.SQL.Mode != doctor.ModeGroup || s.SQL.Group != p.Steps[0].SQL.Group {
				t.Fatalf("step %d is not in the one transaction", i)
			}
			if err := guarded(ctx, tx, s.SQL.Guard); err != nil {
				return err
			}
			tag, err := tx.Exec(ctx, s.SQL.Statement)
			if err != nil {
				return fmt.Errorf("%s: %w", s.SQL.Statement, err)
			}
			if tag.RowsAffected() > s.SQL.MaxRows {
				t.Fatalf("%s: %d rows", s.SQL.Statement, tag.RowsAffected())
			}
		case doctor.KindProbe:
			if err := guarded(ctx, tx, s.Probe.Holds); err != nil {
				return err
			}
		default:
			t.Fatalf("unexpected step %q", s.Kind())
		}
	}
	return tx.Commit(ctx)
}

// putBack undoes a plan as the host does. before is called before each guard.
func putBack(t *testing.T, conn *pgx.Conn, p doctor.Plan, before func(*doctor.Guard)) error {
	t.Helper()
	ctx := t.Context()
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	for _, s := range slices.Backward(p.Steps) {
		if s.SQL == nil {
			continue
		}
		for _, u := range s.SQL.Undo {
			if before != nil && u.Guard != nil {
				before(u.Guard)
			}
			if err := guarded(ctx, tx, u.Guard); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, u.Statement); err != nil {
				return err
			}
		}
	}
	return tx.Commit(ctx)
}

// standing is last_value and is_called of every sequence.
func standing(t *testing.T, conn *pgx.Conn) map[string]string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `SELECT c.relname, (xpath('//r/text()', query_to_xml(format('SELECT (last_value, is_called) AS r FROM %s', c.oid::regclass), false, true, '')))[1]::text
		FROM pg_class c WHERE relkind = 'S'`)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	var name, at string
	if _, err := pgx.ForEachRow(rows, []any{&name, &at}, func() error { all[name] = at; return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// wantMended finds one fault, mends it, and sees that only this sequence has moved, and only forward; then undoes it, and
// mends it again.
func wantMended(t *testing.T, db *pgtest.DB, code, sequence string) {
	t.Helper()
	f := wantOne(t, db, code, sequence)
	p := onlyPlan(t, db, []doctor.Finding{f})
	if p.ID != "sequence/resync" || p.Expects != doctor.ExpectSynapse || !slices.Contains(p.Requires, doctor.RequireStopped) || !p.Reversible {
		t.Errorf("plan %+v", p)
	}
	conn := db.Conn(t)
	before := standing(t, conn)
	if err := carryOut(t, conn, p, nil); err != nil {
		t.Fatal(err)
	}
	wantSilence(t, db)
	for name, at := range standing(t, conn) {
		if (at != before[name]) != (name == sequence) {
			t.Errorf("%s went from %s to %s", name, before[name], at)
		}
	}
	if err := putBack(t, conn, p, nil); err != nil {
		t.Fatal(err)
	}
	for name, at := range standing(t, conn) {
		if at != before[name] {
			t.Errorf("undone, %s is %s and was %s", name, at, before[name])
		}
	}
	if err := carryOut(t, conn, p, nil); err != nil {
		t.Fatal(err)
	}
	wantSilence(t, db)
}

func TestASoundDatabaseHasNoFindings(t *testing.T) {
	t.Run("fixture", func(t *testing.T) { wantSilence(t, fixture(t)) })
	for _, name := range []string{"synapse_ported.dump", "synapse_empty.dump"} {
		t.Run(name, func(t *testing.T) { wantSilence(t, dump(t, name)) })
	}
}

func TestTheFixtureAndTheDumpsHaveAllSequences(t *testing.T) {
	if len(sequence.All) != 26 {
		t.Errorf("%d sequences are known, want 26", len(sequence.All))
	}
	have := standing(t, fixture(t).Conn(t))
	for _, k := range sequence.All {
		if have[k.Name] == "" {
			t.Errorf("the fixture lacks %s", k.Name)
		}
	}
	if len(have) != len(sequence.All) {
		t.Errorf("the fixture has %d sequences, want %d", len(have), len(sequence.All))
	}
}

func TestEachSequenceSetBackIsFoundAloneAndMended(t *testing.T) {
	db := fixture(t) // mended after each, it serves for the next
	for _, k := range pgtest.Some(sequence.All) {
		for _, how := range []string{"ALTER SEQUENCE %s RESTART", "SELECT setval('%s', 1)"} {
			t.Run(k.Name+"/"+how[:6], func(t *testing.T) {
				db.Exec(t, fmt.Sprintf(how, k.Name))
				wantMended(t, db, BehindTable, k.Name)
			})
		}
	}
}

// emptyInDump says how to break a sequence whose tables are empty on the ported server.
var emptyInDump = map[string]string{
	"state_groups_pending_deletion_sequence_number_seq": `INSERT INTO state_groups_pending_deletion (sequence_number, state_group, insertion_ts) OVERRIDING SYSTEM VALUE VALUES (7, 1, 1)`,
	"user_id_seq":                             `INSERT INTO users (name) VALUES ('@7:test.example')`,
	"application_services_txn_id_seq":         `INSERT INTO application_services_txns VALUES ('as', 7, '[]')`,
	"instance_map_instance_id_seq":            `INSERT INTO instance_map VALUES (7, 'worker')`,
	"events_backfill_stream_seq":              `INSERT INTO ex_outlier_stream VALUES (-7, '$e', 1, 'master')`,
	"cache_invalidation_stream_seq":           `INSERT INTO cache_invalidation_stream_by_instance VALUES (7, 'master', 'f')`,
	"un_partial_stated_room_stream_sequence":  `INSERT INTO un_partial_stated_room_stream SELECT 7, 'master', room_id FROM rooms LIMIT 1`,
	"un_partial_stated_event_stream_sequence": `INSERT INTO un_partial_stated_event_stream SELECT 7, 'master', event_id, false FROM events LIMIT 1`,
	"e2e_cross_signing_keys_sequence":         `INSERT INTO e2e_cross_signing_keys VALUES ('@a:test.example', 'master', '{}', 7)`,
	"thread_subscriptions_sequence":           `INSERT INTO thread_subscriptions SELECT 7, 'master', room_id, event_id, '@alice:test.example', true, true FROM events LIMIT 1`,
	"sticky_events_sequence":                  `INSERT INTO sticky_events VALUES (7, 'master', '$e', '!r', 1, '@a:b', 1)`,
	"quarantined_media_id_seq":                `INSERT INTO quarantined_media_changes VALUES (7, 'master', NULL, 'm', true)`,
	"profile_updates_sequence":                `INSERT INTO profile_updates (stream_id, instance_name, user_id, action, inserted_ts) VALUES (7, 'master', '@alice:test.example', 'update', 1)`,
}

func TestEachSequenceOfAPortedServerIsFoundAloneAndMended(t *testing.T) {
	db := dump(t, "synapse_ported.dump")
	for _, k := range pgtest.Some(sequence.All) {
		t.Run(k.Name, func(t *testing.T) {
			if sql, ok := emptyInDump[k.Name]; ok {
				db.Exec(t, sql)
			} else {
				db.Exec(t, "ALTER SEQUENCE "+k.Name+" RESTART")
			}
			wantMended(t, db, BehindTable, k.Name)
		})
	}
}

func TestEachTableOfASequenceIsLookedAt(t *testing.T) {
	db, n := fixture(t), 0
	for _, k := range pgtest.Some(sequence.All) {
		if k.Kind == sequence.Identity {
			continue // GENERATED ALWAYS can't be updated
		}
		for _, c := range k.Feeds {
			t.Run(k.Name+"/"+c.Table, func(t *testing.T) {
				n += 1000
				way, end := "+", "max"
				if k.Down {
					way, end = "-", "min"
				}
				db.Exec(t, fmt.Sprintf("UPDATE %[1]s SET %[2]s = %[2]s %[3]s %[5]d WHERE %[2]s = (SELECT %[4]s(%[2]s) FROM %[1]s)", c.Table, c.Column, way, end, n))
				wantMended(t, db, BehindTable, k.Name)
			})
		}
	}
}

func TestAWriterAheadIsFoundWhoeverItIs(t *testing.T) {
	db := fixture(t)
	for _, k := range sequence.All {
		if k.Stream == "" {
			continue
		}
		t.Run(k.Stream, func(t *testing.T) {
			n := 2000
			if k.Down {
				n = -2000
			}
			db.Exec(t, fmt.Sprintf("INSERT INTO stream_positions VALUES ('%s', 'long-gone', %d)", k.Stream, n))
			wantMended(t, db, BehindStreamPosition, k.Name)
		})
	}
}

func TestAReaderAheadIsEvidenceOfItsSequence(t *testing.T) {
	db, n := fixture(t), 3000
	for _, k := range sequence.All {
		for _, c := range k.Readers {
			n += 1000
			t.Run(c.Table, func(t *testing.T) {
				where := ""
				if c.Where != "" {
					where = " WHERE " + c.Where
				}
				db.Exec(t, fmt.Sprintf("UPDATE %s SET %s = %d%s", c.Table, c.Column, n, where))
				code := BehindStreamPosition
				if c == sequence.Converted {
					code = BehindTable // so Synapse calls it
				}
				f := wantOne(t, db, code, k.Name)
				if f.Evidence[c.String()] != fmt.Sprint(n) {
					t.Errorf("evidence %v", f.Evidence)
				}
				wantMended(t, db, code, k.Name)
			})
		}
	}
}

func TestSeveralFaultsAreOnePlan(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `ALTER SEQUENCE events_stream_seq RESTART; SELECT setval('receipts_sequence', 5); UPDATE stream_positions SET stream_id = 90 WHERE stream_name = 'pushers'`)
	found := find(t, db)
	if len(found) != 3 {
		t.Fatalf("%+v", found)
	}
	p := onlyPlan(t, db, found)
	if err := carryOut(t, db.Conn(t), p, nil); err != nil {
		t.Fatal(err)
	}
	wantSilence(t, db)
	if again := plans(t, target(db), found); len(again) != 0 {
		t.Errorf("mended, there is still a plan: %+v", again)
	}
}

func TestAPlanThatFailsHalfwayLeavesTheSequenceAsItWas(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `SELECT setval('events_stream_seq', 5), setval('pushers_sequence', 3)`)
	conn := db.Conn(t)
	before := standing(t, conn)
	p := onlyPlan(t, db, find(t, db))
	last := len(p.Steps) - 1
	p.Steps[last].Probe.Holds.Query = "SELECT false"
	if err := carryOut(t, conn, p, nil); !errors.Is(err, errGuard) {
		t.Fatal(err)
	}
	for name, at := range standing(t, conn) {
		if at != before[name] {
			t.Errorf("rolled back, %s is %s and was %s", name, at, before[name])
		}
	}
}

func TestAPlanIsRefusedWhenSomethingHasMoved(t *testing.T) {
	for what, sql := range map[string]string{
		"the sequence":      `SELECT nextval('events_stream_seq')`,
		"its is_called":     `SELECT setval('events_stream_seq', 5, false)`,
		"a table":           `UPDATE events SET stream_ordering = 999 WHERE stream_ordering = 481`,
		"a position":        `UPDATE stream_positions SET stream_id = 999 WHERE stream_name = 'events'`,
		"a reader":          `UPDATE stats_incremental_position SET stream_id = 999`,
		"the sequence, far": `SELECT setval('events_stream_seq', 5000)`,
	} {
		t.Run(what, func(t *testing.T) {
			db := fixture(t)
			db.Exec(t, `SELECT setval('events_stream_seq', 5)`)
			p := onlyPlan(t, db, find(t, db))
			db.Exec(t, sql)
			conn := db.Conn(t)
			before := standing(t, conn)
			if err := carryOut(t, conn, p, nil); !errors.Is(err, errGuard) {
				t.Errorf("not refused: %v", err)
			}
			if after := standing(t, conn); after["events_stream_seq"] != before["events_stream_seq"] {
				t.Errorf("it went from %s to %s", before["events_stream_seq"], after["events_stream_seq"])
			}
		})
	}
}

func TestAWriterHoldsThePlanUpAtOnce(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `SELECT setval('events_stream_seq', 5)`)
	p := onlyPlan(t, db, find(t, db))
	writer := db.Conn(t)
	if _, err := writer.Exec(t.Context(), `BEGIN; UPDATE events SET depth = depth WHERE stream_ordering = 5`); err != nil {
		t.Fatal(err)
	}
	err := carryOut(t, db.Conn(t), p, nil)
	if coded, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); !ok || coded.SQLState() != "55P03" {
		t.Errorf("want lock_not_available, got %v", err)
	}
}

// Synapse draws from its sequences without touching a table first, so a lock on the tables does not hold it up.
func TestNobodyDrawsWhileAPlanOrItsUndoGoesOn(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `SELECT setval('events_stream_seq', 5); ALTER SEQUENCE user_id_seq RESTART; UPDATE users SET name = '@70:test.example' WHERE name = (SELECT max(name) FROM users)`)
	p := onlyPlan(t, db, find(t, db))
	others := db.Conn(t)
	if _, err := others.Exec(t.Context(), `SET lock_timeout = '1ms'`); err != nil {
		t.Fatal(err)
	}
	guards := 0
	wantHeldUp := func(g *doctor.Guard) {
		for _, name := range []string{"events_stream_seq", "user_id_seq"} {
			if !strings.Contains(g.Query, "FROM public."+name) {
				continue
			}
			guards++
			_, err := others.Exec(t.Context(), "SELECT nextval('"+name+"')")
			if coded, ok := errors.AsType[interface {
				error
				SQLState() string
			}](err); !ok || coded.SQLState() != "55P03" {
				t.Errorf("somebody drew from %s: %v", name, err)
			}
		}
	}
	conn := db.Conn(t)
	if err := carryOut(t, conn, p, func(i int) {
		if s := p.Steps[i].SQL; s != nil && s.Guard != nil {
			wantHeldUp(s.Guard)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if guards != 2 {
		t.Errorf("%d guards were seen on the way there", guards)
	}
	if err := putBack(t, conn, p, wantHeldUp); err != nil {
		t.Fatal(err)
	}
	if guards != 7 { // on the way back three, and two for the one that was never called
		t.Errorf("%d guards were seen on the way there and back", guards)
	}
}

// whole is all that PostgreSQL keeps of a sequence, and how many numbers it gives before it writes to its log again.
func whole(t *testing.T, q interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, name string) (at string, logged int64) {
	t.Helper()
	if err := q.QueryRow(t.Context(), fmt.Sprintf(`SELECT concat_ws(' ', c.last_value, c.is_called, s), c.log_cnt
		FROM %[1]s c, pg_sequence s WHERE s.seqrelid = '%[1]s'::regclass`, name)).Scan(&at, &logged); err != nil {
		t.Fatal(err)
	}
	return at, logged
}

func TestKeepingOthersFromDrawingLeavesASequenceAsItWas(t *testing.T) {
	db := fixture(t)
	conn := db.Conn(t)
	for _, before := range []string{`SELECT nextval('user_id_seq')`, `SELECT setval('user_id_seq', 5)`, `ALTER SEQUENCE user_id_seq RESTART WITH 9`,
		`ALTER SEQUENCE user_id_seq AS integer`, `ALTER SEQUENCE user_id_seq MAXVALUE 100`} {
		db.Exec(t, before)
		at, _ := whole(t, conn, "user_id_seq")
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		e, err := sequence.Examine(t.Context(), tx, target(db).Databases[0], false)
		if err != nil {
			t.Fatal(err)
		}
		s := e.Sequences[slices.IndexFunc(e.Sequences, func(s *sequence.State) bool { return s.Name == "user_id_seq" })]
		if _, err := tx.Exec(t.Context(), hold(s)); err != nil {
			t.Fatal(err)
		}
		if now, _ := whole(t, tx, "user_id_seq"); now != at {
			t.Errorf("after %s and the lock it is %s and was %s", before, now, at)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if now, logged := whole(t, conn, "user_id_seq"); now != at || logged != 0 {
			t.Errorf("after %s and the lock's end it is %s (%d logged) and was %s", before, now, logged, at)
		}
	}
}

func TestAPlanThatFailsAtItsEndHasMovedNothing(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `SELECT setval('events_stream_seq', 5), nextval('events_stream_seq')`)
	p := onlyPlan(t, db, find(t, db))
	conn := db.Conn(t)
	at, logged := whole(t, conn, "events_stream_seq")
	p.Steps[len(p.Steps)-1].Probe.Holds.Query = "SELECT false"
	if err := carryOut(t, conn, p, nil); !errors.Is(err, errGuard) {
		t.Fatalf("it went through: %v", err)
	}
	if now, left := whole(t, conn, "events_stream_seq"); now != at || left != logged || logged == 0 {
		t.Errorf("it is %s (%d logged) and was %s (%d)", now, left, at, logged)
	}
}

func TestUndoIsRefusedWhenNumbersWereDrawn(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `SELECT setval('events_stream_seq', 5)`)
	p := onlyPlan(t, db, find(t, db))
	conn := db.Conn(t)
	if err := carryOut(t, conn, p, nil); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `SELECT nextval('events_stream_seq')`)
	if err := putBack(t, conn, p, nil); !errors.Is(err, errGuard) {
		t.Errorf("not refused: %v", err)
	}
	if at := standing(t, conn)["events_stream_seq"]; at != "(486,t)" {
		t.Errorf("it is %s", at)
	}
}

// Synapse's port script leaves every sequence so; started, Synapse lets readers go up to the number that comes next.
func TestASequenceThatWasNeverCalled(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `ALTER SEQUENCE events_stream_seq RESTART WITH 486; ALTER SEQUENCE device_lists_sequence RESTART WITH 51;
		ALTER SEQUENCE state_group_id_seq RESTART WITH 61`)
	wantSilence(t, db)
	db.Exec(t, `UPDATE stats_incremental_position SET stream_id = 486`)
	f := wantOne(t, db, NotCalled, "events_stream_seq")
	if f.Severity != doctor.Info {
		t.Errorf("severity %s", f.Severity)
	}
	wantMended(t, db, NotCalled, "events_stream_seq")
	db.Exec(t, `UPDATE device_lists_changes_converted_stream_position SET stream_id = 51`)
	wantMended(t, db, NotCalled, "device_lists_sequence")
	db.Exec(t, `SELECT setval('events_stream_seq', 485, false)`)
	wantMended(t, db, BehindStreamPosition, "events_stream_seq")
}

func TestUserNamesThatAreNumbers(t *testing.T) {
	for locale, create := range map[string]string{
		"C":   "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'",
		"ICU": "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'",
	} {
		t.Run(locale, func(t *testing.T) {
			s := pgtest.Start(t)
			if locale == "ICU" && s.Major(t) < 15 {
				t.Skip("before PostgreSQL 15 no database is in a locale of ICU's")
			}
			db := s.Database(t, pgtest.WithCreate(create), pgtest.WithSetup(pgtest.Fixture()))
			db.Exec(t, `INSERT INTO users (name) VALUES ('@99999999999999999999:test.example'), ('@9223372036854775807:test.example'), ('@12ab:test.example'), ('@a77:test.example'), ('@77')`)
			wantSilence(t, db)
			db.Exec(t, `INSERT INTO users (name) VALUES ('@0070:test.example'), ('@8:test.example.org')`)
			f := wantOne(t, db, BehindTable, "user_id_seq")
			if f.Evidence["users.name"] != "70" || f.Evidence["users.name of 19 digits or more"] != "2" || f.Severity != doctor.Warning {
				t.Errorf("%s %v", f.Severity, f.Evidence)
			}
			wantMended(t, db, BehindTable, "user_id_seq")
		})
	}
}

func TestANumberThatDoesNotFitIsSaidAndNotPlanned(t *testing.T) {
	for _, n := range []string{"2147483647", "3000000000", "9223372036854775807"} {
		db := fixture(t)
		db.Exec(t, "UPDATE stream_positions SET stream_id = "+n+" WHERE stream_name = 'thread_subscriptions'")
		f := wantOne(t, db, BehindStreamPosition, "thread_subscriptions_sequence")
		if f.Fixable || !strings.Contains(f.Remedy, "up to 2147483647") {
			t.Errorf("fixable %t: %s", f.Fixable, f.Remedy)
		}
		if p := plans(t, target(db), []doctor.Finding{f}); len(p) != 0 {
			t.Errorf("%+v", p)
		}
	}
}

func TestAnOlderSchemaIsNoFault(t *testing.T) {
	db := fixture(t)
	for _, k := range sequence.All {
		if k.Kind != sequence.Plain {
			db.Exec(t, "DROP TABLE "+k.Feeds[0].Table+" CASCADE")
			continue
		}
		db.Exec(t, "DROP SEQUENCE "+k.Name)
		wantSilence(t, db)
		for _, c := range slices.Concat(k.Feeds, k.Readers) {
			db.Exec(t, "DROP TABLE IF EXISTS "+c.Table+" CASCADE")
		}
		wantSilence(t, db)
	}
	db.Exec(t, "DROP TABLE stream_positions")
	wantSilence(t, db)
}

func TestATableOrColumnThatIsMissingHidesNothingElse(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `DROP TABLE events CASCADE; ALTER TABLE ex_outlier_stream DROP COLUMN event_stream_ordering; DROP TABLE stream_positions;
		SELECT setval('events_stream_seq', 40)`)
	wantMended(t, db, BehindTable, "events_stream_seq")
}

func TestASequenceThatSynapseDoesNotMakeIsInformation(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `CREATE SEQUENCE "Odd'name"; CREATE TABLE module_rows (id serial PRIMARY KEY); CREATE SCHEMA elsewhere; CREATE SEQUENCE elsewhere.s;
		INSERT INTO module_rows VALUES (5)`)
	found := find(t, db)
	if len(found) != 2 || found[0].Object.Name != "module_rows_id_seq" || found[1].Object.Name != "Odd'name" {
		t.Fatalf("%+v", found)
	}
	for _, f := range found {
		if f.Code != Unknown || f.Severity != doctor.Info || f.Fixable {
			t.Errorf("%+v", f)
		}
	}
	if !strings.Contains(found[0].Remedy, `setval('public.module_rows_id_seq'`) || found[1].Evidence["last_value"] != "1" {
		t.Errorf("%+v", found)
	}
	if p := plans(t, target(db), found); len(p) != 0 {
		t.Errorf("%+v", p)
	}
}

// The host takes more than a thousand findings of one check for a fault of the plugin.
func TestAThousandSequencesOfAnotherProgramAreToldAtOnce(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `DO $$ BEGIN FOR i IN 1001..2100 LOOP EXECUTE format('CREATE TABLE other_%s (id serial)', i); END LOOP; END $$;
		INSERT INTO other_1003 VALUES (7); SELECT setval('receipts_sequence', 3)`)
	found := find(t, db)
	if len(found) != 3 || found[0].Object.Name != "receipts_sequence" || found[1].Object.Name != "other_1003_id_seq" {
		t.Fatalf("%d: %+v", len(found), found)
	}
	f := found[2]
	if f.Code != Unknown || f.Severity != doctor.Info || f.Fixable || f.Object != (doctor.Object{Kind: "schema", Name: "public"}) ||
		f.Evidence["sequences"] != "1099" || f.Evidence["not compared with their columns"] != "600" ||
		!strings.HasPrefix(f.Evidence["the first"], "other_1001_id_seq, other_1002_id_seq, other_1004_id_seq, ") {
		t.Errorf("%+v", f)
	}
	db.Exec(t, `DO $$ BEGIN FOR i IN 1001..1080 LOOP EXECUTE format('INSERT INTO other_%s VALUES (7)', i); END LOOP; END $$`)
	found = find(t, db)
	if f = found[len(found)-1]; len(found) != 1+50+1 || f.Evidence["behind their columns too"] != "30" {
		t.Errorf("%d: %+v", len(found), f)
	}
}

// as is the target for another role.
func as(t *testing.T, db *pgtest.DB, role string) *doctor.Target {
	t.Helper()
	db.AdminExec(t, fmt.Sprintf(`DROP ROLE IF EXISTS %s; CREATE ROLE %[1]s LOGIN PASSWORD 'secret'`, role))
	other := target(db)
	other.Databases[0].Settings["user"], other.Databases[0].Settings["password"] = role, "secret"
	return other
}

func TestAReadOnlyRoleIsEnoughToLook(t *testing.T) {
	db := fixture(t)
	reader := as(t, db, "only_reads")
	db.AdminExec(t, `GRANT pg_read_all_data TO only_reads; SELECT setval('receipts_sequence', 3)`)
	found, err := runCheck(t, reader)
	if err != nil || len(found) != 1 || found[0].Object.Name != "receipts_sequence" {
		t.Fatalf("%+v, %v", found, err)
	}
	got := plans(t, reader, found)
	if len(got) != 1 || !got[0].Manual() || got[0].ID != "sequence/by-owner" {
		t.Fatalf("%+v", got)
	}
	_, sql, _ := strings.Cut(got[0].Steps[0].Manual.Text, "\n\n    ")
	db.Exec(t, sql)
	wantSilence(t, db)
}

func TestWhatMayNotBeReadIsNamedAndTheRestIsKept(t *testing.T) {
	db := fixture(t)
	reader := as(t, db, "reads_little")
	db.AdminExec(t, `GRANT SELECT ON ALL TABLES IN SCHEMA public TO reads_little; GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO reads_little;
		REVOKE SELECT ON device_inbox FROM reads_little; REVOKE SELECT ON SEQUENCE pushers_sequence FROM reads_little;
		SELECT setval('receipts_sequence', 3)`)
	found, err := runCheck(t, reader)
	if len(found) != 1 || found[0].Object.Name != "receipts_sequence" {
		t.Errorf("%+v", found)
	}
	for _, name := range []string{"device_inbox", "pushers_sequence"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
}

func TestWithOnlyUpdateOnTheSequenceAPlainSetvalIsUsedAndSaid(t *testing.T) {
	db := fixture(t)
	setter := as(t, db, "only_sets")
	db.AdminExec(t, `GRANT pg_read_all_data TO only_sets; GRANT UPDATE ON SEQUENCE receipts_sequence TO only_sets; SELECT setval('receipts_sequence', 3)`)
	found, err := runCheck(t, setter)
	if err != nil {
		t.Fatal(err)
	}
	got := plans(t, setter, found)
	if len(got) != 1 || len(got[0].Steps) != 2 || !got[0].Steps[0].SQL.Lasting || !strings.Contains(got[0].Steps[0].Title, "ROLLBACK") ||
		!strings.Contains(got[0].Steps[0].Title, "have to stay stopped") {
		t.Fatalf("%+v", got)
	}
	conn, err := pgdb.Connect(t.Context(), setter.Databases[0].Settings, pgdb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if err := carryOut(t, conn, got[0], nil); err != nil {
		t.Fatal(err)
	}
	wantSilence(t, db)
	if err := putBack(t, conn, got[0], nil); err != nil {
		t.Fatal(err)
	}
	if at := standing(t, db.AdminConn(t))["receipts_sequence"]; at != "(3,t)" {
		t.Errorf("undone, it is %s", at)
	}
}

func TestASplitConfigurationLooksAtEachDatabaseForItsOwn(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `SELECT setval('state_group_id_seq', 1), setval('events_stream_seq', 1)`)
	for store, want := range map[string]string{"main": "events_stream_seq", "state": "state_group_id_seq"} {
		one := target(db)
		one.Databases[0].DataStores, one.Databases[0].Label = []string{store}, store
		found, err := runCheck(t, one)
		if err != nil || len(found) != 1 || found[0].Object.Name != want || found[0].Database != store {
			t.Fatalf("%s: %+v, %v", store, found, err)
		}
		id := map[string]string{"main": "sequence/resync", "state": "sequence/resync-state"}[store]
		if got := plans(t, one, found); len(got) != 1 || got[0].ID != id || got[0].Database != store {
			t.Errorf("%+v", got)
		}
	}
}

func TestTheGreatestOfManyGroupsIsFound(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `INSERT INTO account_data VALUES ('@aaa', 'a', 700, '', 'master'), ('@aaa', 'b', 20, '', 'master'), ('@zzz', 'a', 1, '', 'master')`)
	f := wantOne(t, db, BehindTable, "account_data_sequence")
	if f.Evidence["account_data.stream_id"] != "700" {
		t.Errorf("%v", f.Evidence)
	}
}
