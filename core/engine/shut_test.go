package engine_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// shutToyCheck mends the same fault as toyCheck, by an operation behind shut doors that keeps each row before it turns it.
func shutToyCheck() doctor.Check {
	c := toyCheck("/dev/null")
	c.Plan = func(_ context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
		name := t.Main().Settings["dbname"]
		operation := func(title, name, undo string, effects ...string) doctor.Step {
			return doctor.Step{Title: title, Operation: &doctor.OperationStep{Name: name, Undo: undo, Effects: doctor.Effects{Databases: effects}}}
		}
		return []doctor.Plan{{
			ID: "toy/turn", Covers: []doctor.FindingKey{findings[0].Key()}, Title: "turn every value, one by one", Risk: doctor.Dangerous,
			Expects: doctor.ExpectSynapse, Database: "main", Reversible: true, UndoOnFailure: true, Resumes: true,
			Requires: []doctor.Requirement{doctor.RequireStopped, doctor.RequireAdmin, doctor.RequireShut},
			Steps:    []doctor.Step{operation("look", "look", ""), doctor.Shut(name, -1), operation("turn", "turn", "turn-back", name), doctor.Open(name, -1)},
		}}, nil
	}
	c.Operations = map[string]doctor.OperationFunc{
		"look": func(ctx context.Context, t *doctor.Target, _ doctor.OperationStep, _ string, _ doctor.OperationHost) error {
			return t.Main().Read(ctx, func(tx pgx.Tx) error {
				var sacred int
				if err := tx.QueryRow(ctx, `SELECT count(*) FROM toy WHERE note = 'sacred'`).Scan(&sacred); err != nil || sacred == 0 {
					return err
				}
				return doctor.Unchanged("a sacred toy can't be turned")
			})
		},
		"turn": func(ctx context.Context, t *doctor.Target, _ doctor.OperationStep, _ string, h doctor.OperationHost) error {
			return inToys(ctx, t, func(c *pgx.Conn) error {
				for {
					var id int64
					var row string
					err := c.QueryRow(ctx, `SELECT id, row_to_json(t)::text FROM toy t WHERE value < 0 ORDER BY id LIMIT 1`).Scan(&id, &row)
					if err == pgx.ErrNoRows {
						return nil
					}
					if err != nil {
						return err
					}
					if err := h.Save(ctx, fmt.Sprint(id), []doctor.SavedRow{{Table: "toy", JSON: row}}); err != nil {
						return err
					}
					if _, err := c.Exec(ctx, `UPDATE toy SET value = -value WHERE id = $1`, id); err != nil {
						return err
					}
				}
			})
		},
		"turn-back": func(ctx context.Context, t *doctor.Target, _ doctor.OperationStep, _ string, h doctor.OperationHost) error {
			return inToys(ctx, t, func(c *pgx.Conn) error {
				var played bool
				if err := c.QueryRow(ctx, `SELECT EXISTS (SELECT FROM toy_log)`).Scan(&played); err != nil {
					return err
				}
				if played {
					return doctor.Unchanged("the toys have been played with")
				}
				return h.Rows(ctx, func(r doctor.SavedRow) error {
					_, err := c.Exec(ctx, `UPDATE toy SET value = old.value FROM json_populate_record(NULL::toy, $1::json) old WHERE toy.id = old.id`, r.JSON)
					return err
				})
			})
		},
	}
	return c
}

func inToys(ctx context.Context, t *doctor.Target, fn func(*pgx.Conn) error) error {
	admin := t.AdminIn(t.Main())
	c, err := pgdb.Connect(ctx, admin.Settings, admin.Options())
	if err != nil {
		return err
	}
	defer pgdb.Close(c)
	return fn(c)
}

func newShutBench(t *testing.T) bench {
	b := newBench(t)
	b.admin = b.db.Server.SocketDir
	return b
}

// toys are the values and whether the database is open, seen by the administrator.
func (b bench) toys(t *testing.T) string {
	t.Helper()
	c := b.db.AdminConn(t)
	defer c.Close(t.Context())
	var all string
	if err := c.QueryRow(t.Context(), `SELECT string_agg(value::text, ' ' ORDER BY id) || (SELECT ' limit ' || datconnlimit FROM pg_database WHERE datname = current_database()) FROM toy`).Scan(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

func (b bench) isShut(t *testing.T) bool { return strings.HasSuffix(b.toys(t), "limit 0") }

func wantPlan(t *testing.T, r *doctor.FixReport, status doctor.PlanStatus, reason string) {
	t.Helper()
	if len(r.Plans) != 1 || r.Plans[0].Status != status || !strings.Contains(r.Plans[0].Reason, reason) {
		t.Fatalf("%+v\nwant %s: %s", r.Plans, status, reason)
	}
}

func TestAnOperationBehindShutDoorsIsAppliedAndPutBack(t *testing.T) {
	b := newShutBench(t)
	broken := b.toys(t)
	wantPlan(t, b.fix(t), doctor.PlanApplied, "")
	if got := b.toys(t); strings.Contains(got, " -") != strings.Contains(got, "limit -1") || strings.Count(got, "-") != 1 {
		t.Errorf("mended: %s", got)
	}
	if _, err := b.engine().Undo(t.Context(), engine.UndoOptions{Consent: agree}); err != nil {
		t.Fatal(err)
	}
	if got := b.toys(t); got != broken {
		t.Errorf("put back: %s, want %s", got, broken)
	}
}

func TestAnOperationKilledAnywhereIsGoneOnWith(t *testing.T) {
	probe := newShutBench(t)
	points, _ := probe.victim(t, false, 0)
	mended := probe.toys(t)
	begun := slices.Index(points, "operation 2")
	opened := slices.Index(points, "after-commit 3")
	if begun < 0 || opened < begun {
		t.Fatalf("the points are %q", points)
	}
	for n := 1; n <= len(points); n++ {
		t.Run(strings.ReplaceAll(points[n-1], " ", "-"), func(t *testing.T) {
			b := newShutBench(t)
			broken := b.toys(t)
			if _, killed := b.victim(t, false, n); !killed {
				t.Fatal("not killed")
			}
			if shut := b.isShut(t); shut != (n-1 > slices.Index(points, "before-commit 1") && n-1 < opened) {
				t.Errorf("killed at %s, the database is shut: %v", points[n-1], shut)
			}
			var notices []string
			r := b.fix(t, func(o *engine.Options) { o.Notice = func(s string) { notices = append(notices, s) } })
			for _, p := range r.Plans {
				if p.Status != doctor.PlanApplied {
					t.Errorf("the next run: %s: %s", p.Status, p.Reason)
				}
			}
			if got := b.toys(t); got != mended {
				t.Errorf("after the next run (%v): %s, want %s", notices, got, mended)
			}
			if n-1 > begun && len(r.Plans) > 0 {
				t.Errorf("it was not gone on with, but planned anew: %v", notices)
			}
			if found := engine.FindInterrupted(b.state); len(found) != 0 {
				t.Errorf("still said to be interrupted: %+v", found)
			}
			if _, err := b.engine().Undo(t.Context(), engine.UndoOptions{Consent: agree}); err != nil {
				t.Fatalf("undo (%v): %v", notices, err)
			}
			if got := b.toys(t); got != broken {
				t.Errorf("after undo: %s, want %s", got, broken)
			}
		})
	}
}

func TestAnOperationKilledAnywhereCanBePutBackInstead(t *testing.T) {
	probe := newShutBench(t)
	points, _ := probe.victim(t, false, 0)
	for n := slices.Index(points, "operation 2") + 1; n <= slices.Index(points, "before-commit 3"); n++ {
		t.Run(strings.ReplaceAll(points[n-1], " ", "-"), func(t *testing.T) {
			b := newShutBench(t)
			broken := b.toys(t)
			b.victim(t, false, n)
			run := engine.FindInterrupted(b.state)[0].Run
			u, err := b.engine().Undo(t.Context(), engine.UndoOptions{Run: run, Consent: agree})
			if err != nil || u.Plans[0].Status != doctor.PlanApplied {
				t.Fatalf("undo: %v, %+v", err, u)
			}
			if got := b.toys(t); got != broken {
				t.Errorf("after undo: %s, want %s", got, broken)
			}
			if found := engine.FindInterrupted(b.state); len(found) != 0 {
				t.Errorf("still said to be interrupted: %+v", found)
			}
			if _, err := b.engine().Undo(t.Context(), engine.UndoOptions{Run: run, Consent: agree}); err == nil {
				t.Error("there is still something to undo")
			}
		})
	}
}

func TestAnUndoBehindShutDoorsKilledAnywhereIsFinishedByTheNextRun(t *testing.T) {
	probe := newShutBench(t)
	probe.fix(t)
	points, _ := probe.victim(t, true, 0)
	for n := 1; n <= len(points); n++ {
		t.Run(strings.ReplaceAll(points[n-1], " ", "-"), func(t *testing.T) {
			b := newShutBench(t)
			broken := b.toys(t)
			b.fix(t)
			b.victim(t, true, n)
			// Whatever the next command is, it settles the undo first.
			_, err := b.engine().Undo(t.Context(), engine.UndoOptions{Consent: agree})
			if err != nil && err != engine.ErrNothingToUndo {
				t.Fatal(err)
			}
			if got := b.toys(t); got != broken {
				t.Errorf("after the next run: %s, want %s", got, broken)
			}
		})
	}
}

func TestAnUndoThatWouldLoseSomethingLeavesTheDatabaseOpen(t *testing.T) {
	b := newShutBench(t)
	b.fix(t)
	mended := b.toys(t)
	b.db.Exec(t, `INSERT INTO toy_log VALUES (7)`)
	u, err := b.engine().Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil || u.Plans[0].Status != doctor.PlanRefused && u.Plans[0].Status != doctor.PlanFailed || !strings.Contains(u.Plans[0].Reason, "played with") {
		t.Fatalf("%v %+v", err, u)
	}
	if got := b.toys(t); got != mended {
		t.Errorf("%s, want %s", got, mended)
	}
	b.db.Exec(t, `DELETE FROM toy_log`)
	if u, err := b.engine().Undo(t.Context(), engine.UndoOptions{Consent: agree}); err != nil || u.Plans[0].Status != doctor.PlanApplied {
		t.Errorf("and then it can't be undone: %v %+v", err, u)
	}
}

func TestWhatDoesNotHoldBeforeAnythingIsChangedIsRefused(t *testing.T) {
	b := newShutBench(t)
	b.db.Exec(t, `UPDATE toy SET note = 'sacred' WHERE id = 1`)
	broken := b.toys(t)
	r := b.fix(t)
	wantPlan(t, r, doctor.PlanRefused, "a sacred toy can't be turned")
	if got := b.toys(t); got != broken || r.Applied {
		t.Errorf("applied %v: %s, want %s", r.Applied, got, broken)
	}
}

func TestWhatAnOperationRefusesBehindShutDoorsLeavesThemOpen(t *testing.T) {
	b := newShutBench(t)
	b.db.Exec(t, `UPDATE toy SET note = 'sacred' WHERE id = 1`)
	broken := b.toys(t)
	r := b.fix(t, func(o *engine.Options) {
		c := shutToyCheck()
		c.Operations["turn"], c.Operations["look"] = c.Operations["look"], func(context.Context, *doctor.Target, doctor.OperationStep, string, doctor.OperationHost) error {
			return nil
		}
		look := c.Operations["turn"]
		c.Operations["turn"] = func(ctx context.Context, t *doctor.Target, s doctor.OperationStep, resume string, h doctor.OperationHost) error {
			admin := *t
			admin.Databases = []*doctor.Database{t.AdminIn(t.Main())} // Synapse's role is shut out
			defer admin.Close()
			return look(ctx, &admin, s, resume, h)
		}
		o.Sources = []doctor.Source{&doctor.Local{PluginName: "toys", Checks: []doctor.Check{c}}}
	})
	wantPlan(t, r, doctor.PlanRefused, "a sacred toy can't be turned")
	if got := b.toys(t); got != broken || r.Applied {
		t.Errorf("applied %v: %s, want %s", r.Applied, got, broken)
	}
}

func TestADatabaseIsNotShutOnSomebody(t *testing.T) {
	b := newShutBench(t)
	other := b.db.AdminConn(t) // not Synapse's role, and in the way all the same
	r := b.fix(t)
	wantPlan(t, r, doctor.PlanRefused, "must be left by everybody while it is mended, and there are still: session")
	other.Close(t.Context())
	wantPlan(t, b.fix(t), doctor.PlanApplied, "")
}

func TestADatabaseIsShutOnlyBySomebodyWhoCanStillEnter(t *testing.T) {
	b := newShutBench(t)
	r := b.fix(t, func(o *engine.Options) {
		o.Target.Admin.Settings = pgdb.Settings{"host": b.db.Host, "port": fmt.Sprint(b.db.Port), "user": b.db.User, "password": b.db.Password, "dbname": b.db.Name}
	})
	wantPlan(t, r, doctor.PlanRefused, "it needs a superuser")
	if b.isShut(t) {
		t.Error("it was shut")
	}
}

func TestADatabaseOpenedByHandIsNotGoneOnWith(t *testing.T) {
	b := newShutBench(t)
	points, _ := newShutBench(t).victim(t, false, 0)
	b.victim(t, false, slices.Index(points, "saved 2")+1)
	open := `ALTER DATABASE ` + b.db.Name + ` CONNECTION LIMIT -1`
	b.db.AdminExec(t, open)
	var notices []string
	b.fix(t, func(o *engine.Options) { o.Notice = func(s string) { notices = append(notices, s) } })
	if !strings.Contains(strings.Join(notices, " "), "somebody has opened the database") {
		t.Errorf("notices %q", notices)
	}
	if len(engine.FindInterrupted(b.state)) != 1 {
		t.Error("it is forgotten that a run was interrupted")
	}
}

func TestAPlanThatNeedsItsDatabaseShutMustShutIt(t *testing.T) {
	for name, change := range map[string]func(*doctor.Plan){
		"no step shuts it":                   func(p *doctor.Plan) { p.Steps = slices.Delete(p.Steps, 1, 2) },
		"before the database is shut":        func(p *doctor.Plan) { p.Steps[1], p.Steps[2] = p.Steps[2], p.Steps[1] },
		"without requiring an administrator": func(p *doctor.Plan) { p.Requires = p.Requires[2:] },
	} {
		t.Run(name, func(t *testing.T) {
			b := newShutBench(t)
			r := b.fix(t, func(o *engine.Options) {
				c := shutToyCheck()
				plan := c.Plan
				c.Plan = func(ctx context.Context, t *doctor.Target, f []doctor.Finding) ([]doctor.Plan, error) {
					plans, err := plan(ctx, t, f)
					change(&plans[0])
					return plans, err
				}
				o.Sources = []doctor.Source{&doctor.Local{PluginName: "toys", Checks: []doctor.Check{c}}}
			})
			if len(r.Plans) != 0 || r.Before.Checks[0].Status != doctor.StatusUnknown {
				t.Errorf("%+v %+v", r.Plans, r.Before.Checks[0])
			}
		})
	}
}

// A row that an interrupted operation saves again is there once.
func TestRowsSavedAgainReplaceTheFirst(t *testing.T) {
	b := newShutBench(t)
	points, _ := newShutBench(t).victim(t, false, 0)
	b.victim(t, false, slices.Index(points, "saved 2")+1)
	b.fix(t)
	j, err := journal.OpenExisting(b.state)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	runs, err := j.Runs(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range runs {
		plans, err := j.Plans(t.Context(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range plans {
			rows, _, err := j.SavedRows(t.Context(), p.ID, 2, 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			n += len(rows)
		}
	}
	if n != 2 {
		t.Errorf("%d rows are kept, want 2", n)
	}
}

// A server that does not wait for its disk would forget, in a crash, what the journal calls done.
func TestAStepIsCommittedToDiskWhateverTheServersSetting(t *testing.T) {
	for _, newBench := range []func(*testing.T) bench{newShutBench, newBench} {
		b := newBench(t)
		var is string
		if err := b.db.Conn(t).QueryRow(t.Context(), `SHOW synchronous_commit`).Scan(&is); err != nil || is != "off" {
			t.Fatalf("the server has synchronous_commit %s: %v", is, err)
		}
		b.db.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = session_user`)
		r := b.fix(t, func(o *engine.Options) {
			c := toyCheck(b.file)
			if b.admin != "" {
				c = shutToyCheck()
			}
			plan := c.Plan
			c.Plan = func(ctx context.Context, t *doctor.Target, f []doctor.Finding) ([]doctor.Plan, error) {
				plans, err := plan(ctx, t, f)
				plans[0].Steps[1].SQL.Guard = &doctor.Guard{Query: `SELECT current_setting('synchronous_commit') <> 'off'`, Else: "it does not wait for the disk"}
				return plans, err
			}
			o.Sources = []doctor.Source{&doctor.Local{PluginName: "toys", Checks: []doctor.Check{c}}}
		})
		wantPlan(t, r, doctor.PlanApplied, "")
	}
}
