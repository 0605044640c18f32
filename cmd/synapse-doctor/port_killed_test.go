package main_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "modernc.org/sqlite"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// How often TestAPortSurvivesEverything interrupts, once in each way: SYNAPSE_DOCTOR_KILLS=120 for a long look.
const usualInterruptions = 6

// At a random instant the doctor or the server is killed, the connections are cut, or Ctrl-C is pressed once or twice. One more
// run, with a file that has changed meanwhile, and every table is what a port that was left alone gives.
func TestAPortSurvivesEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	times := oftenEnough(t, usualInterruptions)
	p := newPorts(t)
	first := p.begin(t)
	began := time.Now()
	if code, said := first.port(t, p.old).wait(); code != 0 {
		t.Fatalf("a port that is left alone ends with %d:\n%s", code, said)
	}
	whole := time.Since(began)
	if code, said := first.port(t, p.newer).wait(); code != 0 {
		t.Fatalf("a second run with a newer file ends with %d:\n%s", code, said)
	}
	fresh := p.begin(t)
	if code, said := fresh.port(t, p.newer).wait(); code != 0 {
		t.Fatalf("a port of the newer file ends with %d:\n%s", code, said)
	}
	want := fresh.contents(t)
	if got := first.contents(t); got != want {
		t.Fatalf("the second run gives something else than a fresh port:\n%s", differing(got, want))
	}
	wantSchema := fresh.schema(t)
	fresh.discharge(t)
	first.discharge(t)
	for n := range times {
		b := p.begin(t)
		again := n%4 == 3 // it is the second run that is interrupted
		if again {
			if code, said := b.port(t, p.old).wait(); code != 0 {
				t.Fatalf("%d:\n%s", code, said)
			}
		}
		file := p.old
		if again {
			file = p.newer
		}
		how := interruptions[n%len(interruptions)]
		moment := time.Duration(rand.Int64N(int64(whole)))
		run := b.port(t, file)
		select {
		case <-run.done:
		case <-time.After(moment):
		}
		how.interrupt(t, b, run)
		code, said := run.wait()
		t.Logf("%d: %s after %s of %s, second run %v: %d: %s", n, how.name, moment.Round(time.Millisecond), whole.Round(time.Millisecond), again, code, lastLine(said))
		if code, said := b.port(t, p.newer).wait(); code != 0 {
			t.Fatalf("the next run ends with %d:\n%s", code, said)
		}
		if got := b.contents(t); got != want {
			t.Fatalf("the next run leaves something else than a fresh port:\n%s", differing(got, want))
		}
		if got := b.schema(t); got != wantSchema {
			t.Fatalf("the next run leaves another schema:\n%s", differing(got, wantSchema))
		}
		b.discharge(t)
	}
	t.Run("the disk is full", func(t *testing.T) { p.full(t, want) })
}

// full has the database on a disk that is too small, and then is not.
func (p *ports) full(t *testing.T, want string) {
	disk, err := os.MkdirTemp("", "small-disk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(disk) })
	mount := func(options string) error {
		out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", options, "tmpfs", disk).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if err := mount("size=31m,mode=0777"); err != nil {
		t.Skipf("a small disk takes a mount, which is not allowed here: %v", err)
	}
	defer func() { _ = exec.Command("umount", "-l", disk).Run() }()
	space := filepath.Join(disk, "space")
	p.admin(t, fmt.Sprintf(`COPY (SELECT) TO PROGRAM 'mkdir -m 700 %s'`, space))
	p.admin(t, fmt.Sprintf(`CREATE TABLESPACE small LOCATION '%s'`, space))
	b := p.begin(t)
	defer b.discharge(t) // before the disk goes
	p.admin(t, fmt.Sprintf(`ALTER DATABASE %s SET TABLESPACE small`, b.db.Name))
	code, said := b.port(t, p.old).wait()
	if code != 1 || !strings.Contains(said, "53100") {
		t.Fatalf("on a full disk it ends with %d:\n%s", code, said)
	}
	t.Log(lastLine(said))
	if err := mount("remount,size=1g"); err != nil {
		t.Fatal(err)
	}
	if code, said := b.port(t, p.newer).wait(); code != 0 {
		t.Fatalf("with room again it ends with %d:\n%s", code, said)
	}
	if got := b.contents(t); got != want {
		t.Fatalf("the next run leaves something else than a fresh port:\n%s", differing(got, want))
	}
}

type interruption struct {
	name      string
	interrupt func(t *testing.T, b *bed, r *running)
}

var interruptions = []interruption{
	{"the doctor is killed", func(_ *testing.T, _ *bed, r *running) { r.cmd.Process.Kill() }},
	{"the server is killed", func(t *testing.T, b *bed, _ *running) {
		if err := b.ward.server.Crash(t.Context()); err != nil {
			t.Fatal(err)
		}
	}},
	{"Ctrl-C", func(_ *testing.T, _ *bed, r *running) { r.cmd.Process.Signal(os.Interrupt) }},
	{"the doctor is killed", func(_ *testing.T, _ *bed, r *running) { r.cmd.Process.Kill() }},
	{"the connections are cut", func(t *testing.T, b *bed, _ *running) {
		b.ward.admin(t, fmt.Sprintf(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '%s'`, b.db.Name))
	}},
	{"Ctrl-C twice", func(_ *testing.T, _ *bed, r *running) {
		r.cmd.Process.Signal(os.Interrupt)
		time.Sleep(20 * time.Millisecond)
		r.cmd.Process.Signal(syscall.SIGINT)
	}},
}

// ports is a server with a fresh schema of Synapse, and two states of one homeserver's file.
type ports struct {
	ward
	old, newer string
}

func newPorts(t *testing.T) *ports {
	t.Helper()
	p := &ports{ward: ward{program: build(t), server: pgtest.StartWith(t, pgtest.Config{})}}
	p.template = p.server.Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_empty.dump")))
	p.old, p.newer = pgtest.SQLite(t), pgtest.SQLite(t)
	// What a homeserver does between two runs: rows come, go and change where they are, and then the file is vacuumed.
	inFile(t, p.newer,
		`UPDATE users SET password_hash = '$2b$12$changed', deactivated = 1 WHERE rowid = (SELECT min(rowid) FROM users)`,
		`UPDATE event_json SET json = replace(json, '"body"', '"redacted"') WHERE rowid % 500 = 7`,
		`DELETE FROM device_inbox WHERE rowid % 3 = 0`,
		`DELETE FROM presence_stream WHERE rowid % 2 = 0`,
		`INSERT INTO user_daily_visits (user_id, device_id, timestamp, user_agent) SELECT name, 'NEW', 1234567890123, 'agent' FROM users`,
		`VACUUM`)
	return p
}

func inFile(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func (p *ports) begin(t *testing.T) *bed {
	t.Helper()
	return p.admit(t)
}

func (b *bed) port(t *testing.T, file string) *running {
	t.Helper()
	return b.run(t, "fix", "port", "--apply", "--yes", "--sqlite", file)
}

// schema is every index and constraint as the server tells of it.
func (b *bed) schema(t *testing.T) string {
	t.Helper()
	c := b.db.AdminConn(t)
	defer c.Close(context.Background())
	rows, err := c.Query(t.Context(), `SELECT indexrelid::regclass || ' ' || pg_get_indexdef(indexrelid) || ' ' || indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid WHERE relnamespace = 'public'::regnamespace
		UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// differing are the lines that two texts do not share.
func differing(got, want string) string {
	in := func(lines []string) map[string]bool {
		m := map[string]bool{}
		for _, l := range lines {
			m[l] = true
		}
		return m
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	var b strings.Builder
	for _, l := range g {
		if !in(w)[l] {
			b.WriteString("got  " + l + "\n")
		}
	}
	for _, l := range w {
		if !in(g)[l] {
			b.WriteString("want " + l + "\n")
		}
	}
	return b.String()
}
