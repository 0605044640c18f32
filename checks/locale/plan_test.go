package locale

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func agree(context.Context, doctor.PlanResult) error { return nil }

// By the engine, with its gates and its journal.
func TestTheEngineMendsInPlaceAndPutsItBack(t *testing.T) {
	s := pgtest.StartWith(t, english(0))
	db := s.Database(t, pgtest.WithCreate(inEnUS), pgtest.WithSetup(pgtest.Fixture()))
	db.AdminExec(t, `UPDATE pg_index SET indisvalid = false, indisready = false WHERE indexrelid = 'rooms_pkey'::regclass; INSERT INTO rooms SELECT * FROM rooms LIMIT 1;
		UPDATE pg_index SET indisvalid = true, indisready = true WHERE indexrelid = 'rooms_pkey'::regclass`)
	b := newBench(t, db)
	before := b.content()
	state := filepath.Join(t.TempDir(), "state")
	check := Check
	check.Plan, check.Operations = plan, operations
	mend := func() *engine.Engine {
		admin, err := pgdb.Parse(s.Admin())
		if err != nil {
			t.Fatal(err)
		}
		entry := entryOf(db)
		entry.DataStores = []string{"main", "state"}
		target := &doctor.Target{ServerName: "test.example", Databases: []*doctor.Database{entry}, Admin: &doctor.Database{Label: "admin", Engine: doctor.Postgres, Settings: admin}}
		return engine.New(engine.Options{Version: "test", Target: target, StateDir: state,
			Sources: []doctor.Source{&doctor.Local{PluginName: "test", Version: "test", Checks: []doctor.Check{check}}}})
	}
	r, err := mend().Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree, Preferred: []string{"locale/in-place"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Plans {
		if p.Chosen != (p.Plan.ID == "locale/in-place") || p.Chosen && p.Status != doctor.PlanApplied {
			t.Errorf("plan %s is %s: %s", p.Plan.ID, p.Status, p.Reason)
		}
	}
	b.sound(true)
	u, err := mend().Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	if u.Plans[0].Status != doctor.PlanApplied {
		t.Errorf("undo is %s: %s", u.Plans[0].Status, u.Plans[0].Reason)
	}
	if changed := differing(before, b.content()); len(changed) > 0 {
		t.Errorf("not put back: %v", changed)
	}
	if limit := b.ask(`SELECT datconnlimit::text FROM pg_database WHERE datname = current_database()`)[0]; limit != "-1" {
		t.Errorf("the database is left with the connection limit %s", limit)
	}
}

func TestThePlanSaysAllThatItRuns(t *testing.T) {
	s := pgtest.StartWith(t, english(0))
	db := s.Database(t, pgtest.WithCreate(inEnUS), pgtest.WithSetup(few))
	db.AdminExec(t, `ALTER DATABASE "`+db.Name+`" CONNECTION LIMIT 7`)
	p := newBench(t, db).plan(of(NotC, "database", db.Name), of(IndexCorrupt, "index", "destinations_pkey"))
	if len(p.Covers) != 2 || p.Risk != doctor.Dangerous || !p.Resumes || !p.Reversible || p.UndoOnFailure || p.DiskBytes <= 0 {
		t.Errorf("%+v", p)
	}
	if !slices.Equal(p.Requires, []doctor.Requirement{doctor.RequireStopped, doctor.RequireAdmin, doctor.RequireShut}) {
		t.Errorf("requires %v", p.Requires)
	}
	if got := p.Steps[3].SQL.Statement; got != `ALTER DATABASE "`+db.Name+`" CONNECTION LIMIT 7` {
		t.Errorf("opens by %s", got)
	}
	op := p.Steps[2].Operation
	all := strings.Join(op.Statements, "\n")
	for _, want := range []string{"UPDATE pg_database SET datcollate = 'C', datctype = 'C' WHERE datname = '" + db.Name + "'", `REINDEX INDEX "public"."destinations_pkey"`,
		`REINDEX INDEX "public"."event_search_event_id_key"`, `LOCK TABLE ONLY "public"."room_stats_state"`, "event_search t SET vector", "datcollversion = NULL"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in\n%s", want, all)
		}
	}
	if !slices.Contains(op.Effects.Tables, "destination_rooms") || !slices.Contains(op.Effects.Databases, db.Name) {
		t.Errorf("effects %v", op.Effects)
	}
	told, err := readParams(op.Params)
	if err != nil || told.Was.Collate != "en_US.UTF-8" || !told.Edit || !told.Vectors {
		t.Errorf("params %+v: %v", told, err)
	}
}

// Every provider, and back again.
func TestEveryProviderBecomesLibcAndIsPutBack(t *testing.T) {
	pgtest.EachMajor(t, english, func(t *testing.T, s *pgtest.Server) {
		providers := map[string]string{}
		if s.Major(t) >= 15 {
			providers["icu"] = "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
		}
		if s.Major(t) >= 16 {
			providers["icu with rules"] = "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'en-US' ICU_RULES '&a < g'"
		}
		if s.Major(t) >= 17 {
			providers["builtin"] = "ENCODING 'UTF8' LC_COLLATE 'en_US.UTF-8' LC_CTYPE 'en_US.UTF-8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"
		}
		providers["libc"] = inEnUS
		for name, create := range providers {
			t.Run(name, func(t *testing.T) {
				db := s.Database(t, pgtest.WithCreate(create), pgtest.WithSetup(few))
				b := newBench(t, db)
				const row = `SELECT (to_jsonb(d) - 'datfrozenxid' - 'datminmxid')::text FROM pg_database d WHERE datname = current_database()`
				before, rows := b.content(), b.ask(row)
				code := NotC
				if strings.HasPrefix(name, "icu") {
					code = ProviderNotLibcC
				}
				p := b.plan(of(code, "database", db.Name))
				b.ok(b.apply(p))
				b.sound(true)
				b.ok(b.undo(p))
				if is := b.ask(row); is[0] != rows[0] {
					t.Errorf("the catalog has %s, and had %s", is[0], rows[0])
				}
				if changed := differing(before, b.content()); len(changed) > 0 {
					t.Errorf("not put back: %v", changed)
				}
			})
		}
	})
}
