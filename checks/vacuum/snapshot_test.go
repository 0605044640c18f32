package vacuum_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// what is expected of every snapshot: the rows with their rowids, auto_vacuum off, readable by itself, nobody else's to read.
func (b *bench) isSnapshot(path, want string) {
	b.t.Helper()
	s, err := sqlitedb.Look(b.t.Context(), path)
	if err != nil {
		b.t.Fatal(err)
	}
	if s.Header.AutoVacuum != sqlitedb.AutoVacuumNone || s.Header.WAL || s.Pending() {
		b.t.Errorf("the snapshot is %+v", s)
	}
	if got := b.rows(path); got != want {
		b.t.Errorf("the snapshot has other rows: %d bytes of them, want %d", len(got), len(want))
	}
	info, err := os.Stat(path)
	if err != nil {
		b.t.Fatal(err)
	}
	was, err := os.Stat(b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 || info.Sys().(*syscall.Stat_t).Uid != was.Sys().(*syscall.Stat_t).Uid {
		b.t.Errorf("mode %s, owner %d", info.Mode(), info.Sys().(*syscall.Stat_t).Uid)
	}
	if now, err := sqlitedb.Look(b.t.Context(), b.path); err != nil || !info.ModTime().Equal(now.Changed) {
		b.t.Errorf("its time is %s, and what it has was written at %s (%v)", info.ModTime(), now.Changed, err)
	}
	for _, left := range []string{".copy", ".partial"} {
		if names, _ := filepath.Glob(path + left + "*"); len(names) > 0 {
			b.t.Errorf("left behind: %v", names)
		}
	}
}

// recovered is what SQLite makes of copies of the file and its companions.
func (b *bench) recovered(companions ...string) string { return b.rows(b.killed(companions...).path) }

func TestASnapshotOfEachStateHasEveryRowAndLeavesTheOriginal(t *testing.T) {
	for name, c := range map[string]struct {
		make       func() *bench
		companions []string
		after      []string // what the check still says of the original
	}{
		"auto_vacuum full":        {func() *bench { return begin(t, `PRAGMA auto_vacuum=FULL`) }, nil, []string{"auto-vacuum-on error"}},
		"auto_vacuum incremental": {func() *bench { return begin(t, `PRAGMA auto_vacuum=INCREMENTAL`) }, nil, []string{"auto-vacuum-on error"}},
		"a -wal":                  {func() *bench { return withWAL(t, ``) }, []string{"-wal"}, []string{"wal-not-checkpointed warning"}},
		"a -wal and auto_vacuum":  {func() *bench { return withWAL(t, `PRAGMA auto_vacuum=FULL`) }, []string{"-wal"}, []string{"wal-not-checkpointed warning", "auto-vacuum-on error"}},
		"a hot journal":           {func() *bench { return withJournal(t, ``) }, []string{"-journal"}, []string{"hot-journal error"}},
		"a hot journal and auto_vacuum": {func() *bench { return withJournal(t, `PRAGMA auto_vacuum=INCREMENTAL`) }, []string{"-journal"},
			[]string{"hot-journal error", "auto-vacuum-on error"}},
		"a WAL header and auto_vacuum": {func() *bench { return begin(t, `PRAGMA auto_vacuum=FULL; PRAGMA journal_mode=WAL`) }, nil, []string{"auto-vacuum-on error", "wal-missing info"}},
	} {
		if testing.Short() && name != "a -wal" && name != "a hot journal" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			b := c.make()
			b.t = t
			if os.Geteuid() == 0 {
				if err := os.Chown(b.path, 4242, 4243); err != nil {
					t.Fatal(err)
				}
			}
			want, before := b.recovered(c.companions...), b.folder()
			original := b.original()
			if shown := b.fix(false); len(shown.Plans) != 1 || b.folder() != before {
				t.Fatalf("%d plans; the folder is now\n%s", len(shown.Plans), b.folder())
			}
			path := b.applied()
			if path != b.path+".snapshot" {
				t.Errorf("named %s", path)
			}
			b.isSnapshot(path, want)
			if b.original() != original {
				t.Errorf("the original was changed from\n%s\nto\n%s", original, b.original())
			}
			for _, f := range b.finds(c.after...).Findings {
				if f.Fixable || f.Code != "vacuum/wal-missing" && (f.Object.Kind != "original" || f.Evidence["snapshot"] != path) {
					t.Errorf("after it, %+v", f)
				}
			}
			if again := b.fix(true); len(again.Plans) > 0 {
				t.Errorf("applying again plans %s", again.Plans[0].Plan.ID)
			}
			snapshot := *b
			snapshot.path = path
			snapshot.finds()
			u, err := b.engine().Undo(t.Context(), engine.UndoOptions{Consent: agree})
			if err != nil || u.Plans[0].Status != doctor.PlanApplied {
				t.Fatalf("undo: %v, %+v", err, u)
			}
			if left := b.original(); left != original || strings.Contains(b.folder(), ".snapshot") {
				t.Errorf("undo left\n%s", b.folder())
			}
		})
	}
}

func TestASnapshotOfAFileThatIsWrittenToIsOfOneInstant(t *testing.T) {
	for _, pragmas := range []string{`PRAGMA journal_mode=WAL`, `PRAGMA auto_vacuum=FULL; PRAGMA journal_mode=WAL`, `PRAGMA auto_vacuum=INCREMENTAL`} {
		b := begin(t, pragmas)
		b.exec(b.open(b.path), `DELETE FROM event_json WHERE stream_ordering % 3 = 0`) // a row of each for every other
		used(t, b.path)
		b.progress = func(_ string, p doctor.Progress) {
			if p.Text == "counting the rows of homeserver.db" {
				time.Sleep(20 * time.Millisecond) // so that much is written before the pages are copied
			}
		}
		path := b.applied()
		db := b.open(path)
		var lone, rows, written int
		var sound string
		if err := db.QueryRow(`SELECT (SELECT count(*) FROM events WHERE body <> '' AND stream_ordering > 3000 AND stream_ordering NOT IN (SELECT stream_ordering FROM event_json)),
			(SELECT count(*) FROM events), (SELECT count(*) FROM events WHERE stream_ordering > 3000)`).Scan(&lone, &rows, &written); err != nil {
			t.Fatal(err)
		}
		if err := db.QueryRow(`PRAGMA integrity_check`).Scan(&sound); err != nil || sound != "ok" || lone != 0 || rows < 2000 || written < 20 {
			t.Errorf("%s: %s, %v, %d events without their JSON, %d in all, %d while in use", pragmas, sound, err, lone, rows, written)
		}
		for _, f := range b.check().Findings {
			if f.Fixable {
				t.Errorf("%s: after it, %s", pragmas, f.Code)
			}
		}
	}
}

func TestNothingIsWrittenOver(t *testing.T) {
	b := begin(t, `PRAGMA auto_vacuum=FULL`)
	if err := os.WriteFile(b.path+".snapshot", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if path := b.applied(); path != b.path+".snapshot.2" {
		t.Errorf("named %s", path)
	}
	if text, err := os.ReadFile(b.path + ".snapshot"); err != nil || string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestASnapshotThatIsOlderThanTheFileDoesNotCount(t *testing.T) {
	b := begin(t, `PRAGMA auto_vacuum=FULL`)
	first := b.applied()
	b.exec(b.open(b.path), `INSERT INTO users VALUES ('@c:test.example', 'z')`)
	if f := b.finds("auto-vacuum-on error").Findings[0]; !f.Fixable {
		t.Error("the old snapshot counts")
	}
	if second := b.applied(); second == first {
		t.Errorf("the second is %s", second)
	}
}

func TestWhatAKilledRunHasLeftIsRemovedByTheNext(t *testing.T) {
	b := begin(t, `PRAGMA auto_vacuum=FULL`)
	want := b.rows(b.path)
	for _, left := range []string{".copy", ".copy-wal", ".copy-journal", ".partial", ".partial-journal"} {
		if err := os.WriteFile(b.path+".snapshot"+left, []byte(strings.Repeat("x", 5000)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.isSnapshot(b.applied(), want)
}

// At every point at which the doctor can be killed, the next run finishes.
func TestASnapshotThatWasCutOffIsMadeByTheNextRun(t *testing.T) {
	for n := 1; n < 50; n++ {
		b := withWAL(t, `PRAGMA auto_vacuum=FULL`)
		want, original := b.recovered("-wal"), b.original()
		point := b.cutOff(n)
		if point == "" {
			if n < 4 {
				t.Errorf("only %d points", n)
			}
			return
		}
		b.fix(true)
		if b.original() != original {
			t.Errorf("at %q the original was changed", point)
		}
		b.isSnapshot(b.path+".snapshot", want)
		if left, _ := filepath.Glob(b.path + ".snapshot?*"); len(left) > 0 {
			t.Errorf("at %q %v was left", point, left)
		}
	}
}

var errCut = errors.New("cut off")

// cutOff applies the plan and stops as a kill would at the n-th point; it returns the point's name, empty when there is none.
func (b *bench) cutOff(n int) (point string) {
	seen := 0
	defer func() {
		if thrown := recover(); thrown != nil && thrown != errCut {
			panic(thrown)
		}
	}()
	e := b.engine()
	e.Trace = func(p string) {
		if seen++; seen == n {
			point = p
			panic(errCut)
		}
	}
	if _, err := e.Fix(b.t.Context(), engine.FixOptions{Selection: engine.Selection{Wanted: []string{"vacuum"}}, Apply: true, Consent: agree}); err != nil {
		b.t.Fatal(err)
	}
	return ""
}

func TestASnapshotThatIsInterruptedLeavesNothing(t *testing.T) {
	for _, b := range []*bench{begin(t, `PRAGMA auto_vacuum=FULL`), withWAL(t, `PRAGMA auto_vacuum=FULL`)} {
		original := b.folder()
		ctx, cancel := context.WithCancel(t.Context())
		steps := 0
		b.progress = func(what string, p doctor.Progress) {
			if strings.Contains(p.Text, "counting") {
				if steps++; steps == 3 {
					cancel()
				}
			}
		}
		r, err := b.engine().Fix(ctx, engine.FixOptions{Selection: engine.Selection{Wanted: []string{"vacuum"}}, Apply: true, Consent: agree})
		if err != nil {
			t.Fatal(err)
		}
		if r.Plans[0].Status != doctor.PlanFailed {
			t.Errorf("%s: %s", r.Plans[0].Status, r.Plans[0].Reason)
		}
		if left := filepath.Base(b.path); strings.Contains(b.folder(), left+".snapshot") {
			t.Errorf("left\n%s\nof\n%s", b.folder(), original)
		}
	}
}

func TestAnUndoKeepsASnapshotThatWasWorkedOn(t *testing.T) {
	b := begin(t, `PRAGMA auto_vacuum=FULL`)
	path := b.applied()
	b.exec(b.open(path), `INSERT INTO users VALUES ('@c:test.example', 'z')`)
	u, err := b.engine().Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil || u.Plans[0].Status != doctor.PlanRefused {
		t.Errorf("%v, %+v", err, u)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
