package upkeep

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// toy is another check, with a plan for the same database.
var toy = doctor.Check{
	ID: "toy", Title: "No toy", Why: "It is a toy.", Needs: doctor.NeedsSynapse,
	Codes: []doctor.Code{{ID: "toy/there", Title: "a toy is there", Severity: doctor.Warning}},
	Run: func(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
		db := t.Meeting(doctor.NeedsSynapse)[0]
		return db.Read(ctx, func(tx pgx.Tx) error {
			var there bool
			err := tx.QueryRow(ctx, `SELECT to_regclass('toy') IS NOT NULL`).Scan(&there)
			if there {
				r.Find(doctor.Finding{Code: "toy/there", Severity: doctor.Warning, Database: db.Label, Object: doctor.Object{Kind: "table", Name: "toy"},
					Summary: "There is a toy.", Observed: "a toy", Expected: "none", Remedy: "Drop it.", Fixable: true})
			}
			return err
		})
	},
	Plan: func(_ context.Context, _ *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
		if len(findings) == 0 {
			return nil, nil
		}
		return []doctor.Plan{{ID: "toy/drop", Covers: covers(findings), Title: "Drop the toy", Risk: doctor.Safe, Expects: doctor.ExpectSynapse, Database: "main",
			Irreversible: "it is gone", Steps: []doctor.Step{{Title: "Drop it", SQL: &doctor.SQLStep{Database: "main", Mode: doctor.ModeAlone, Statement: "DROP TABLE toy",
				Guard: &doctor.Guard{Query: "SELECT to_regclass('toy') IS NOT NULL", Else: "It is gone."}}}}}}, nil
	},
}

// homeserver is a database, and a state directory for engines.
type homeserver struct {
	db      *pgtest.DB
	state   string
	notices []string
}

func newHomeserver(t *testing.T) *homeserver {
	db := fixture(t)
	db.Exec(t, twoTables+`; CREATE TABLE toy (i int)`)
	lower(t, &largeTable, 200000)
	was := lockPatience
	lockPatience = "100ms"
	t.Cleanup(func() { lockPatience = was })
	return &homeserver{db: db, state: filepath.Join(t.TempDir(), "state")}
}

// fix applies the plans of one check in a run of its own.
func (h *homeserver) fix(t *testing.T, ctx context.Context, check string, set func(*engine.Options)) (*doctor.FixReport, error) {
	t.Helper()
	target := target(h.db, nil)
	target.Databases[0].Meets = 0 // for the engine to find out
	o := engine.Options{Version: "test", Target: target, StateDir: h.state, Notice: func(s string) { h.notices = append(h.notices, s) },
		Sources: []doctor.Source{&doctor.Local{PluginName: "builtin", Version: "test", Checks: []doctor.Check{Check, toy}}}}
	if set != nil {
		set(&o)
	}
	return engine.New(o).Fix(ctx, engine.FixOptions{Selection: engine.Selection{Wanted: []string{check}}, Apply: true,
		Consent: func(context.Context, doctor.PlanResult) error { return nil }})
}

// became wants the only plan to have ended so.
func became(t *testing.T, r *doctor.FixReport, err error, status doctor.PlanStatus, reason string) {
	t.Helper()
	if r == nil || len(r.Plans) != 1 {
		t.Fatalf("%+v: %v", r, err)
	}
	if p := r.Plans[0]; p.Status != status || !strings.Contains(p.Reason, reason) {
		t.Fatalf("%s is %s: %s", p.Plan.ID, p.Status, p.Reason)
	}
}

func (h *homeserver) vacuums(t *testing.T, table string) (n int) {
	t.Helper()
	if err := h.db.Conn(t).QueryRow(t.Context(), `SELECT pg_stat_get_vacuum_count($1::text::regclass)`, table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// othersGoOn: another check's plan is applied, nothing is settled before, and no VACUUM that was given up is begun again.
func (h *homeserver) othersGoOn(t *testing.T, vacuums int) {
	t.Helper()
	h.notices = nil
	r, err := h.fix(t, t.Context(), "toy", nil)
	became(t, r, err, doctor.PlanApplied, "")
	if n := h.vacuums(t, "first"); len(h.notices) > 0 || n != vacuums {
		t.Errorf("vacuumed %d times; %q", n, h.notices)
	}
}

func TestWhatIsVacuumedAndAnalyzedIsCured(t *testing.T) {
	h := newHomeserver(t)
	h.db.Exec(t, `CREATE TABLE third AS SELECT i, repeat('x', 200) FROM generate_series(1, 2000) i; ANALYZE third; INSERT INTO third SELECT i FROM generate_series(1, 1500) i`)
	r, err := h.fix(t, t.Context(), "upkeep", nil)
	if err != nil || len(r.Plans) != 2 {
		t.Fatalf("%+v: %v", r, err)
	}
	for _, p := range r.Plans {
		if p.Status != doctor.PlanApplied {
			t.Errorf("%s is %s: %s", p.Plan.ID, p.Status, p.Reason)
		}
	}
	if again, err := h.fix(t, t.Context(), "upkeep", nil); err != nil || again.Applied || len(again.Plans) > 0 {
		t.Errorf("applying again found something to do: %+v, %v", again, err)
	}
	h.othersGoOn(t, 1)
}

func TestAFailedVacuumHoldsNothingUp(t *testing.T) {
	h := newHomeserver(t)
	locker := open(t, h.db, `BEGIN; LOCK TABLE first, second IN SHARE UPDATE EXCLUSIVE MODE`)
	r, err := h.fix(t, t.Context(), "upkeep", nil)
	became(t, r, err, doctor.PlanRefused, "is locked by another session")
	if _, err := locker.Exec(t.Context(), `COMMIT; BEGIN; LOCK TABLE first IN SHARE UPDATE EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	// The other one can be vacuumed.
	var noted string
	r, err = h.fix(t, t.Context(), "upkeep", func(o *engine.Options) {
		o.Progress = func(_ string, p doctor.Progress) { noted += p.Note }
	})
	became(t, r, err, doctor.PlanFailed, "still found")
	if !strings.Contains(noted, "The table first is locked by another session") || h.vacuums(t, "second") != 1 {
		t.Errorf("noted %q", noted)
	}
	if _, err := locker.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	h.othersGoOn(t, 0)
}

func TestAnInterruptedVacuumHoldsNothingUp(t *testing.T) {
	h := newHomeserver(t)
	lockPatience = "60s"
	locker := open(t, h.db, `BEGIN; LOCK TABLE first IN SHARE UPDATE EXCLUSIVE MODE`)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := h.fix(t, ctx, "upkeep", func(o *engine.Options) {
		o.Progress = func(_ string, p doctor.Progress) {
			if strings.HasPrefix(p.Text, "first") {
				cancel()
			}
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := locker.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	h.othersGoOn(t, 0)
}

// Killed, it can't say how it ended: the next run goes on, and ends whatever becomes of it. Where it had not even begun, that run is
// spent with it, and no other.
func TestAKilledVacuumIsGoneOnWithOnce(t *testing.T) {
	for at, status := range map[string]doctor.PlanStatus{"saved": doctor.PlanApplied, "operation": doctor.PlanRefused} {
		t.Run(at, func(t *testing.T) {
			h := newHomeserver(t)
			h.killed(t, at)
			locker := open(t, h.db, `BEGIN; LOCK TABLE first, second IN SHARE UPDATE EXCLUSIVE MODE`)
			r, err := h.fix(t, t.Context(), "toy", nil)
			became(t, r, err, status, "")
			if len(h.notices) != 1 || !strings.Contains(h.notices[0], "was interrupted while it applied upkeep/vacuum") {
				t.Errorf("%q", h.notices)
			}
			if _, err := locker.Exec(t.Context(), `COMMIT`); err != nil {
				t.Fatal(err)
			}
			h.db.Exec(t, `CREATE TABLE IF NOT EXISTS toy (i int)`)
			h.othersGoOn(t, 0)
		})
	}
}

// killed is a run that ends at a point from which it says nothing more.
func (h *homeserver) killed(t *testing.T, at string) {
	t.Helper()
	ended, went := make(chan struct{}), false
	go func() {
		defer close(ended)
		h.fix(t, t.Context(), "upkeep", func(o *engine.Options) {
			o.Trace = func(point string) {
				if strings.HasPrefix(point, at) {
					runtime.Goexit()
				}
			}
		})
		went = true
	}()
	if <-ended; went {
		t.Fatal("it went on")
	}
}
