package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// A victim is this test binary started again, which applies or undoes a fix and is killed with SIGKILL at a given point.

const victimEnv = "ENGINE_TEST_VICTIM"

type victimOrders struct {
	DB      *pgtest.DB
	File    string
	State   string
	Undo    bool
	DieAt   int // the n-th point; 0: live
	Visited string
	Admin   string
	Run     string // that is undone
}

func victim() {
	var o victimOrders
	if err := json.Unmarshal([]byte(os.Getenv(victimEnv)), &o); err != nil {
		panic(err)
	}
	b := bench{db: o.DB, file: o.File, state: o.State, admin: o.Admin}
	var n atomic.Int64
	visited, err := os.OpenFile(o.Visited, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	e := b.engine(func(opts *engine.Options) {
		opts.Trace = func(point string) {
			fmt.Fprintln(visited, point)
			if n.Add(1) == int64(o.DieAt) {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
	})
	if o.Undo {
		_, err = e.Undo(context.Background(), engine.UndoOptions{Run: o.Run, Consent: agree})
	} else {
		_, err = e.Fix(context.Background(), engine.FixOptions{Apply: true, Consent: agree})
	}
	if err != nil {
		panic(err)
	}
}

// run starts a victim and returns the points that it passed, and whether it was killed.
func (b bench) victim(t *testing.T, undo bool, dieAt int) (points []string, killed bool) {
	t.Helper()
	visited := t.TempDir() + "/points"
	db := *b.db
	db.Server = nil
	orders, err := json.Marshal(victimOrders{DB: &db, File: b.file, State: b.state, Undo: undo, DieAt: dieAt, Visited: visited, Admin: b.admin})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+string(orders))
	out, err := cmd.CombinedOutput()
	text, _ := os.ReadFile(visited)
	points = strings.Split(strings.TrimSpace(string(text)), "\n")
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
		return points, true
	}
	if err != nil {
		t.Fatalf("victim: %v\n%s", err, out)
	}
	return points, false
}

func TestAFixKilledAnywhereIsFinishedOrUndoneByTheNextRun(t *testing.T) {
	probe := newBench(t)
	points, _ := probe.victim(t, false, 0)
	if len(points) < 10 {
		t.Fatalf("only these points: %v", points)
	}
	mended := probe.contents(t)
	for n := 1; n <= len(points); n++ {
		t.Run(strings.ReplaceAll(points[n-1], " ", "-"), func(t *testing.T) {
			b := newBench(t)
			broken := b.contents(t)
			if _, killed := b.victim(t, false, n); !killed {
				t.Fatal("not killed")
			}
			if found := engine.FindInterrupted(b.state); len(found) != 1 && points[n-1] != "consent 0" {
				t.Errorf("a check would not say that a run was interrupted: %+v", found)
			}
			// Nobody fixes again, but puts back: the next run must settle what was left first.
			var notices []string
			notice := func(o *engine.Options) { o.Notice = func(s string) { notices = append(notices, s) } }
			r := b.fix(t, notice)
			for _, p := range r.Plans {
				if p.Status != doctor.PlanApplied {
					t.Errorf("the next run: %s: %s", p.Status, p.Reason)
				}
			}
			if got := b.contents(t); got != mended {
				t.Errorf("after the next run (%v):\n%s\nwant\n%s", notices, got, mended)
			}
			if found := engine.FindInterrupted(b.state); len(found) != 0 {
				t.Errorf("still said to be interrupted: %+v", found)
			}
			u, err := b.engine().Undo(t.Context(), engine.UndoOptions{Consent: agree})
			if err != nil {
				t.Fatalf("undo (%v): %v", notices, err)
			}
			if u.Plans[0].Status != doctor.PlanApplied {
				t.Errorf("undo: %s", u.Plans[0].Reason)
			}
			if got := b.contents(t); got != broken {
				t.Errorf("after undo:\n%s\nwant\n%s", got, broken)
			}
		})
	}
}

func TestAnUndoKilledAnywhereIsFinishedByTheNextRun(t *testing.T) {
	probe := newBench(t)
	probe.fix(t)
	points, _ := probe.victim(t, true, 0)
	broken := probe.contents(t)
	if len(points) < 5 {
		t.Fatalf("only these points: %v", points)
	}
	for n := 1; n <= len(points); n++ {
		t.Run(strings.ReplaceAll(points[n-1], " ", "-"), func(t *testing.T) {
			b := newBench(t)
			b.fix(t)
			if _, killed := b.victim(t, true, n); !killed {
				t.Fatal("not killed")
			}
			u, err := b.engine().Undo(t.Context(), engine.UndoOptions{Consent: agree})
			if err != nil && !strings.Contains(err.Error(), "nothing to undo") {
				t.Fatal(err)
			}
			if err == nil && u.Plans[0].Status != doctor.PlanApplied {
				t.Errorf("%s: %s", u.Plans[0].Status, u.Plans[0].Reason)
			}
			if got := b.contents(t); got != broken {
				t.Errorf("left:\n%s\nwant\n%s", got, broken)
			}
		})
	}
}
