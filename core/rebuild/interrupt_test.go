package rebuild

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

const smallSchema = `CREATE SEQUENCE counter; SELECT setval('counter', 7);
CREATE TABLE users (name text PRIMARY KEY, admin int); CREATE TABLE events (id bigint PRIMARY KEY, sender text REFERENCES users, body text);
CREATE INDEX events_body ON events (body); CREATE TABLE empty (a text);
INSERT INTO users SELECT 'user ' || n, n FROM generate_series(1, 500) n; INSERT INTO events SELECT n, 'user ' || 1 + n % 500, repeat('Wörter ', n % 30) FROM generate_series(1, 3000) n;`

func smallDatabase(t *testing.T) *pgtest.DB {
	t.Helper()
	return server(t).Database(t, pgtest.WithSetup(smallSchema), pgtest.WithCreate(enUS))
}

// interruption ends a call at a point.
type interruption struct {
	name string
	end  func(t *testing.T, f *fixture, cancel context.CancelFunc)
}

var interruptions = []interruption{
	{"cancelled", func(_ *testing.T, _ *fixture, cancel context.CancelFunc) { cancel() }},
	{"its sessions ended", func(t *testing.T, f *fixture, _ context.CancelFunc) {
		f.server(t, `SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE application_name LIKE 'synapse-doctor/%'`)
	}},
}

// points lists where a call that is not interrupted comes by.
func points(t *testing.T, run func(Work) error) []string {
	t.Helper()
	var mu sync.Mutex
	var found []string
	seen := map[string]bool{}
	err := run(Work{trace: func(point string) {
		mu.Lock()
		defer mu.Unlock()
		if !seen[point] {
			seen[point] = true
			found = append(found, point)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// once calls fn at the first time that the work comes by a point.
func once(point string, fn func()) Work {
	var did sync.Once
	return Work{grace: 300 * time.Millisecond, trace: func(at string) {
		if at == point {
			did.Do(fn)
		}
	}}
}

const (
	databaseBefore  = "database UTF8 en_US.UTF-8/en_US.UTF-8 -1"
	databaseAfter   = "database UTF8 C/C -1; before UTF8 en_US.UTF-8/en_US.UTF-8 0"
	databasePutBack = databaseBefore + "; rebuilt UTF8 C/C 0"
)

func TestARebuildThatIsInterruptedAnywhereIsFinishedByTheNextCall(t *testing.T) {
	first := newFixture(t, smallDatabase(t), "")
	if err := first.do(t, t.Context(), Work{}, 1, false); err != nil {
		t.Fatal(err)
	}
	all := points(t, func(w Work) error { return first.do(t, t.Context(), w, 2, false) })
	if len(all) < 15 {
		t.Fatalf("points: %q", all)
	}
	for i, point := range all {
		if testing.Short() && i%3 != 0 {
			continue
		}
		how := interruptions[i%len(interruptions)]
		t.Run(point+" "+how.name, func(t *testing.T) {
			f := newFixture(t, smallDatabase(t), "")
			want := rows(t, f.Server, f.Name)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if err := f.do(t, ctx, Work{}, 1, false); err != nil {
				t.Fatal(err)
			}
			err := f.do(t, ctx, once(point, func() { how.end(t, f, cancel) }), 2, false)
			if err == nil && point != "after-swap" && point != "complete" {
				t.Errorf("the interruption went unnoticed")
			}
			if unchanged(err) {
				t.Errorf("it said that nothing had changed: %v", err)
			}
			filled := f.oid(t, f.params.fresh)
			if err := f.do(t, t.Context(), Work{grace: 300 * time.Millisecond}, 2, false); err != nil {
				t.Fatal(err)
			}
			if point == "before-swap" && f.oid(t, f.Name) != filled {
				t.Error("a database that was complete was filled again")
			}
			if err := f.do(t, t.Context(), Work{}, 3, false); err != nil {
				t.Fatal(err)
			}
			f.want(t, databaseAfter)
			sameRows(t, want, rows(t, f.Server, f.Name))
			sameRows(t, want, rows(t, f.Server, f.params.before))
			f.nothingLeft(t)
		})
	}
}

// oid is the number of a database; 0: there is none.
func (f *fixture) oid(t *testing.T, name string) uint32 {
	t.Helper()
	conn := connect(t, f.Server, "postgres")
	defer conn.Close(t.Context())
	var oid uint32
	if err := conn.QueryRow(t.Context(), `SELECT coalesce((SELECT oid FROM pg_database WHERE datname = $1), 0)`, name).Scan(&oid); err != nil {
		t.Fatal(err)
	}
	return oid
}

func (f *fixture) nothingLeft(t *testing.T) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "synapse-doctor-"+f.params.fresh)); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestAnUndoThatIsInterruptedAnywhereIsFinishedByTheNextCall(t *testing.T) {
	var all []string
	for i := 0; i <= len(all); i++ {
		f := newFixture(t, smallDatabase(t), "")
		want := rows(t, f.Server, f.Name)
		for step := range 3 {
			if err := f.do(t, t.Context(), Work{}, step, false); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 {
			all = points(t, func(w Work) error { return f.do(t, t.Context(), w, 2, true) })
		} else {
			ctx, cancel := context.WithCancel(t.Context())
			how := interruptions[i%len(interruptions)]
			if err := f.do(t, ctx, once(all[i-1], func() { how.end(t, f, cancel) }), 2, true); unchanged(err) {
				t.Errorf("%s at %s: it said that nothing had changed: %v", how.name, all[i-1], err)
			}
			cancel()
			if err := f.do(t, t.Context(), Work{}, 2, true); err != nil {
				t.Fatalf("%s at %s: %v", how.name, all[i-1], err)
			}
		}
		if err := f.do(t, t.Context(), Work{}, 1, true); err != nil {
			t.Fatal(err)
		}
		f.want(t, databasePutBack)
		sameRows(t, want, rows(t, f.Server, f.Name))
	}
	if len(all) < 5 {
		t.Errorf("points: %q", all)
	}
}

func TestWhatARebuildLeftHalfDoneIsDroppedByItsUndo(t *testing.T) {
	for _, point := range []string{"created", "copied", "before-swap", "swap-2"} {
		f := newFixture(t, smallDatabase(t), "")
		want := rows(t, f.Server, f.Name)
		ctx, cancel := context.WithCancel(t.Context())
		if err := f.do(t, ctx, Work{}, 1, false); err != nil {
			t.Fatal(err)
		}
		if err := f.do(t, ctx, once(point, cancel), 2, false); err == nil {
			t.Errorf("%s: the interruption went unnoticed", point)
		}
		for i := range 2 { // an undo that is called again has nothing to do
			if err := f.do(t, t.Context(), Work{}, 2, true); err != nil {
				t.Fatalf("%s, %d: %v", point, i, err)
			}
		}
		if err := f.do(t, t.Context(), Work{}, 1, true); err != nil {
			t.Fatal(err)
		}
		f.want(t, databaseBefore)
		sameRows(t, want, rows(t, f.Server, f.Name))
	}
}

func TestADoctorThatHangsIsOvertaken(t *testing.T) {
	f := newFixture(t, smallDatabase(t), "")
	want := rows(t, f.Server, f.Name)
	if err := f.do(t, t.Context(), Work{}, 1, false); err != nil {
		t.Fatal(err)
	}
	hangs, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		step := *f.plan.Steps[2].Operation
		w := once("sequences", func() { close(hangs); <-goOn })
		ended <- w.Operations()[step.Name](t.Context(), target(t, f.DB), step, "", &host{})
	}()
	<-hangs
	f.host.token = tokenCreating
	if err := f.do(t, t.Context(), Work{grace: 300 * time.Millisecond}, 2, false); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	if err := <-ended; err == nil || unchanged(err) {
		t.Errorf("the one that was overtaken ended with %v", err)
	}
	if err := f.do(t, t.Context(), Work{}, 3, false); err != nil {
		t.Fatal(err)
	}
	f.want(t, databaseAfter)
	sameRows(t, want, rows(t, f.Server, f.Name))
}

func TestACallThatIsCancelledAtAnyInstantEndsSoonAndLeavesNothingBehind(t *testing.T) {
	f := newFixture(t, smallDatabase(t), "")
	want := rows(t, f.Server, f.Name)
	if err := f.do(t, t.Context(), Work{}, 1, false); err != nil {
		t.Fatal(err)
	}
	const cancels = 8
	for i := range cancels {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Millisecond+time.Duration(rand.Int64N(1e8)))
		err := f.do(t, ctx, Work{}, 2, false)
		late, _ := ctx.Deadline()
		if took := time.Since(late); err != nil && took > 5*time.Second {
			t.Errorf("it ended %s late: %v", took, err)
		}
		cancel()
		if unchanged(err) {
			t.Errorf("it said that nothing had changed: %v", err)
		}
		f.nothingLeft(t)
	}
	if err := f.do(t, t.Context(), Work{}, 2, false); err != nil {
		t.Fatal(err)
	}
	if err := f.do(t, t.Context(), Work{}, 3, false); err != nil {
		t.Fatal(err)
	}
	f.want(t, databaseAfter)
	sameRows(t, want, rows(t, f.Server, f.Name))
}

// A process of its own does the rebuild, so that it can be killed.
const childEnv = "SYNAPSE_DOCTOR_TEST_REBUILD"

type childWork struct {
	Step  doctor.OperationStep
	DSN   string
	Admin string
	Dir   string
}

func child() {
	var w childWork
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &w); err != nil {
		panic(err)
	}
	database, err := pgdb.Parse(w.DSN)
	if err != nil {
		panic(err)
	}
	admin, err := pgdb.Parse(w.Admin)
	if err != nil {
		panic(err)
	}
	t := &doctor.Target{RunID: "child", Databases: []*doctor.Database{{Label: "main", Engine: doctor.Postgres, Settings: database, DataDir: w.Dir, Meets: doctor.NeedsAdmin}},
		Admin: &doctor.Database{Engine: doctor.Postgres, Settings: admin}}
	t.Bind()
	if err := Operations[Rebuild](context.Background(), t, w.Step, tokenCreating, &host{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func TestADoctorThatIsKilledAtAnyInstantLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("the process that is killed is one of its own")
	}
	f := newFixture(t, server(t).Database(t, pgtest.WithSetup(smallSchema+`INSERT INTO events SELECT n, 'user 1', repeat('more words ', n % 40) FROM generate_series(3001, 40000) n`), pgtest.WithCreate(enUS)), "")
	want := rows(t, f.Server, f.Name)
	if err := f.do(t, t.Context(), Work{}, 1, false); err != nil {
		t.Fatal(err)
	}
	work, err := json.Marshal(childWork{*f.plan.Steps[2].Operation, f.DSN(), f.Server.Admin(), f.Server.DataDir})
	if err != nil {
		t.Fatal(err)
	}
	run := func(limit time.Duration) (time.Duration, error) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+string(work))
		cmd.Stderr = os.Stderr
		start := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if limit > 0 {
			time.AfterFunc(limit, func() { _ = cmd.Process.Kill() }) // it may have ended by itself
		}
		err := cmd.Wait()
		return time.Since(start), err
	}
	whole, err := run(0)
	if err != nil {
		t.Fatal(err)
	}
	const kills = 5
	for i := range kills {
		// Undo takes it back to where it can begin again.
		if err := f.do(t, t.Context(), Work{}, 2, true); err != nil {
			t.Fatal(err)
		}
		f.dropRebuilt(t)
		at := whole * time.Duration(i) / kills
		at += time.Duration(rand.Int64N(int64(whole / kills)))
		_, err := run(at)
		if _, killed := errors.AsType[*exec.ExitError](err); err != nil && !killed {
			t.Fatal(err)
		}
		sameRows(t, want, rows(t, f.Server, f.Name))
		if n := strings.Count(f.databases(t), "database"); n != 1 {
			t.Fatalf("killed at %s: %s", at, f.databases(t))
		}
		if _, err := run(0); err != nil {
			t.Fatalf("killed at %s: %v", at, err)
		}
		f.want(t, strings.Replace(databaseAfter, "C/C -1", "C/C 0", 1))
		sameRows(t, want, rows(t, f.Server, f.Name))
		f.nothingLeft(t)
	}
}

func (f *fixture) dropRebuilt(t *testing.T) {
	t.Helper()
	other := *f.DB
	other.Name = f.params.rebuilt
	if err := other.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The programs of older servers are not here, but a pg_dump knows them.
func TestOlderServersAreRebuiltToo(t *testing.T) {
	if testing.Short() {
		t.Skip("one major is enough")
	}
	newest := server(t).Major(t)
	for _, major := range pgtest.Majors(t.Context()) {
		if major >= newest || !dumpable(t, major) {
			continue
		}
		s := pgtest.StartWith(t, pgtest.Config{Version: fmt.Sprint(major), Locales: []string{"en_US.UTF-8"}})
		f := newFixture(t, s.Database(t, pgtest.WithSetup(smallSchema), pgtest.WithCreate(enUS)), "")
		want := rows(t, s, f.Name)
		f.apply(t)
		f.want(t, databaseAfter)
		sameRows(t, want, rows(t, s, f.Name))
	}
}

// What is asked of the catalogs is asked of each major version; for the newest there may be no pg_dump.
func TestTheCatalogsOfEachMajorAreRead(t *testing.T) {
	pgtest.EachMajor(t, nil, func(t *testing.T, s *pgtest.Server) {
		db := s.Database(t, pgtest.WithSetup(smallSchema), pgtest.WithCreate("ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"))
		db.AdminExec(t, fmt.Sprintf("ALTER DATABASE %s SET work_mem = '7MB'; GRANT CONNECT ON DATABASE %[1]s TO synapse_user WITH GRANT OPTION", db.Name))
		f := newFixture(t, db, "")
		k, err := Work{}.open(t.Context(), f.target, *f.plan.Steps[2].Operation, f.host)
		if err != nil {
			t.Fatal(err)
		}
		defer k.close()
		facts, err := k.fitting(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		old, err := k.session(t.Context(), f.Name)
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(old)
		tables, err := listTables(t.Context(), old)
		if err != nil || len(tables) != 3 {
			t.Fatalf("%v, %v", tables, err)
		}
		objects, err := definitions(t.Context(), old)
		if err != nil || objects["constraint events_sender_fkey on public.events"] == "" || objects["column public.events.body"] == "" {
			t.Errorf("%v, %v", objects, err)
		}
		if err := errors.Join(carriable(t.Context(), old), k.scanText(t.Context(), facts, tables), k.findDuplicates(t.Context(), old)); err != nil {
			t.Error(err)
		}
		// Bytes are compared in the same way in both databases.
		read, fresh := f.params.readings(facts)
		for _, r := range []reading{read, fresh, {}} {
			if s, err := r.sumOf(t.Context(), old, tables[0]); err != nil || s.rows != 3000 {
				t.Errorf("%v, %v", s, err)
			}
		}
		if err := k.make(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := k.equip(t.Context()); err != nil {
			t.Error(err)
		}
		closeConn(old)
		if err := k.swap(t.Context()); err != nil {
			t.Error(err)
		}
		f.want(t, "database UTF8 C/C 0; before SQL_ASCII C/C 0")
	})
}

// As root the programs run as the user whose socket the administrator's login is known by.
func TestTheProgramsRunAsTheUserOfTheSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run programs as another user")
	}
	f := newFixture(t, smallDatabase(t), "")
	f.target.Admin.OSUser = "postgres"
	account, err := accountOf("postgres")
	if err != nil {
		t.Fatal(err)
	}
	k, err := Work{}.open(t.Context(), f.target, *f.plan.Steps[2].Operation, f.host)
	if err != nil {
		t.Fatal(err)
	}
	place, err := k.newWorkplace()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := k.run(t.Context(), place, &out, f.Name, "/bin/sh", "-c", "id -u; cat service >&2; touch made"); err != nil || out.String() != fmt.Sprintln(account.Uid) {
		t.Errorf("it runs as %s, want %d: %v", out.String(), account.Uid, err)
	}
	k.close()
	f.apply(t)
	f.want(t, databaseAfter)
	f.nothingLeft(t)
}

func TestAServerThatCrashesLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("what is tried is the server")
	}
	major := server(t).Major(t)
	s := pgtest.StartWith(t, pgtest.Config{Version: fmt.Sprint(major), Locales: []string{"en_US.UTF-8"}})
	for _, point := range []string{"copied", "post-data", "swap-3", "after-swap"} {
		f := newFixture(t, s.Database(t, pgtest.WithSetup(smallSchema), pgtest.WithCreate(enUS)), "")
		want := rows(t, s, f.Name)
		if err := f.do(t, t.Context(), Work{}, 1, false); err != nil {
			t.Fatal(err)
		}
		if err := f.do(t, t.Context(), once(point, func() { crash(t, s) }), 2, false); unchanged(err) {
			t.Errorf("%s: it said that nothing had changed: %v", point, err)
		}
		if err := f.do(t, t.Context(), Work{}, 2, false); err != nil {
			t.Fatalf("%s: %v", point, err)
		}
		if err := f.do(t, t.Context(), Work{}, 3, false); err != nil {
			t.Fatal(err)
		}
		f.want(t, databaseAfter)
		sameRows(t, want, rows(t, s, f.Name))
	}
}

// crash ends all of the server's processes as a power cut does, and starts it again.
func crash(t *testing.T, s *pgtest.Server) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.DataDir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, _, _ := strings.Cut(string(text), "\n")
	// SIGQUIT is the immediate shutdown: no process writes anything any more.
	if out, err := exec.CommandContext(t.Context(), "kill", "-QUIT", pid).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}
