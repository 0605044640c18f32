package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// How often TestALocaleFixSurvivesSIGKILL kills, for each way to mend: SYNAPSE_DOCTOR_KILLS=50 for a long look.
const usualKills = 3

// At a random instant the doctor, the server, or both are killed. No row is ever lost, no database is there twice, and the next
// run brings it to its end.
func TestALocaleFixSurvivesSIGKILL(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	kills := oftenEnough(t, usualKills)
	w := ward{program: build(t), server: pgtest.StartWith(t, pgtest.Config{Locales: []string{"en_US.UTF-8"}})}
	w.sick(t)
	for _, plan := range []string{"locale/in-place", "locale/rebuild"} {
		t.Run(plan, func(t *testing.T) {
			began := time.Now()
			first := w.admit(t)
			if code, said := first.fix(t, plan).wait(); code != 0 {
				t.Fatalf("a fix that is left alone ends with %d:\n%s", code, said)
			}
			whole := time.Since(began)
			want := first.contents(t)
			first.isWell(t, plan)
			for n := range kills {
				moment := time.Duration(rand.Int64N(int64(whole)))
				c := w.admit(t)
				before := c.contents(t)
				run := c.fix(t, plan)
				select {
				case <-run.done:
				case <-time.After(moment):
				}
				how := []string{"the doctor", "the server", "both"}[n%3]
				if how != "the server" {
					run.cmd.Process.Kill()
				}
				if how != "the doctor" {
					if err := w.server.Crash(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				_, said := run.wait()
				t.Logf("%s killed after %s of %s; %s", how, moment.Round(time.Millisecond), whole.Round(time.Millisecond), lastLine(said))
				c.oneOfEachName(t)
				if n%5 == 4 { // put back what was interrupted, and begin again
					if interrupted := c.interrupted(t); interrupted != "" {
						if code, said := c.run(t, "undo", interrupted, "--yes-dangerous").wait(); code != 0 {
							t.Fatalf("undo ends with %d:\n%s", code, said)
						}
						if got := c.contents(t); got != before {
							t.Fatalf("undo gives\n%s\nwant\n%s", got, before)
						}
					}
				}
				if code, said := c.fix(t, plan).wait(); code != 0 && !strings.Contains(said, "nothing was found that a plan would mend") {
					t.Fatalf("the next run ends with %d:\n%s", code, said)
				}
				if got := c.contents(t); got != want {
					t.Fatalf("the next run leaves\n%s\nwant\n%s", got, want)
				}
				c.isWell(t, plan)
				c.discharge(t)
			}
		})
	}
}

// oftenEnough is how often something is killed: as $SYNAPSE_DOCTOR_KILLS says, else the usual number.
func oftenEnough(t *testing.T, usual int) int {
	t.Helper()
	s := os.Getenv("SYNAPSE_DOCTOR_KILLS")
	if s == "" {
		return usual
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "synapse-doctor")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// ward is a server with a sick database, of which each case is a copy.
type ward struct {
	program  string
	server   *pgtest.Server
	template *pgtest.DB
	cases    int
}

// sick makes the database: in en_US, passed off as C, with keys that are there twice.
func (w *ward) sick(t *testing.T) {
	t.Helper()
	db := w.server.Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_ported.dump")),
		pgtest.WithCreate("ENCODING 'UTF8' LC_COLLATE 'en_US.UTF-8' LC_CTYPE 'en_US.UTF-8'"))
	c := db.AdminConn(t)
	defer c.Close(t.Context())
	for _, table := range []string{"users_in_public_rooms", "user_stats_current", "room_stats_state", "user_ips"} {
		// The index is declared dead for the moment in which the copies come in: a corrupt one would not see them either.
		for _, sql := range []string{
			`UPDATE pg_index SET indisready = false, indisvalid = false WHERE indisunique AND indrelid = '` + table + `'::regclass`,
			`INSERT INTO ` + table + ` SELECT * FROM ` + table + ` LIMIT 20`,
			`UPDATE pg_index SET indisready = true, indisvalid = true WHERE indrelid = '` + table + `'::regclass`,
		} {
			if _, err := c.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.template = db
}

// bed is one copy, with a configuration and a state directory.
type bed struct {
	ward  *ward
	db    *pgtest.DB
	dir   string
	state string
}

func (w *ward) admit(t *testing.T) *bed {
	t.Helper()
	w.cases++
	db := *w.template
	db.Name = fmt.Sprintf("patient_%d", w.cases)
	w.admin(t, fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s OWNER %s`, db.Name, w.template.Name, db.User))
	b := &bed{ward: w, db: &db, dir: t.TempDir()}
	b.state = filepath.Join(b.dir, "state")
	if _, err := db.WriteHomeserver(b.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "admin"), []byte(w.server.Admin()), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *ward) admin(t *testing.T, sql string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), w.server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// discharge drops the case's databases.
func (b *bed) discharge(t *testing.T) {
	t.Helper()
	for _, name := range b.databases(t) {
		b.ward.admin(t, fmt.Sprintf(`DROP DATABASE %q WITH (FORCE)`, name))
	}
}

func (b *bed) databases(t *testing.T) []string {
	t.Helper()
	c, err := pgx.Connect(t.Context(), b.ward.server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	rows, err := c.Query(t.Context(), `SELECT datname FROM pg_database WHERE datname = $1 OR datname LIKE $1 || '\_%' ORDER BY 1`, b.db.Name)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// running is a command under way.
type running struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{}
}

func (b *bed) run(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{done: make(chan struct{})}
	r.cmd = exec.CommandContext(t.Context(), b.ward.program, append(args, "-c", filepath.Join(b.dir, "homeserver.yaml"), "--admin-dsn", "@"+filepath.Join(b.dir, "admin"))...)
	r.cmd.Env = append(os.Environ(), "SYNAPSE_DOCTOR_STATE_DIR="+b.state)
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
	r.cmd.WaitDelay = 10 * time.Second
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait() // the exit code is in ProcessState
		close(r.done)
	}()
	return r
}

func (r *running) wait() (code int, said string) {
	<-r.done
	return r.cmd.ProcessState.ExitCode(), r.out.String()
}

func (b *bed) fix(t *testing.T, plan string) *running {
	t.Helper()
	return b.run(t, "fix", "locale", "--apply", "--yes-dangerous", "--plan", plan)
}

// interrupted is the run that was killed, as check tells of it.
func (b *bed) interrupted(t *testing.T) string {
	t.Helper()
	_, said := b.run(t, "check", "locale").wait()
	_, after, found := strings.Cut(said, "run ")
	if !found || !strings.Contains(said, "interrupted") {
		return ""
	}
	return strings.Fields(after)[0]
}

// oneOfEachName makes sure that the name leads to a database.
func (b *bed) oneOfEachName(t *testing.T) {
	t.Helper()
	if names := b.databases(t); len(names) == 0 || names[0] != b.db.Name {
		t.Fatalf("the databases are %q", names)
	}
}

// contents are a count and a checksum of each table, read as the administrator, whatever the indexes say.
func (b *bed) contents(t *testing.T) string {
	t.Helper()
	c := b.db.AdminConn(t)
	defer c.Close(context.Background())
	rows, err := c.Query(t.Context(), `SELECT format('SELECT %L || count(*) || '' '' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM ONLY %s t', relname || ' ', oid::regclass)
		FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname`)
	if err != nil {
		t.Fatal(err)
	}
	queries, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, q := range queries {
		var line string
		if err := c.QueryRow(t.Context(), q).Scan(&line); err != nil {
			t.Fatal(err)
		}
		all.WriteString(line + "\n")
	}
	return all.String()
}

// isWell makes sure that nothing is found, nothing is left in hand, and no database is left over but the old one.
func (b *bed) isWell(t *testing.T, plan string) {
	t.Helper()
	if code, said := b.run(t, "check", "locale", "connection", "--deep").wait(); code != 0 || strings.Contains(said, "interrupted") {
		t.Fatalf("afterwards a check ends with %d:\n%s", code, said)
	}
	for _, name := range b.databases(t) {
		if name != b.db.Name && (plan != "locale/rebuild" || !strings.HasPrefix(name, b.db.Name+"_before_")) {
			t.Errorf("the database %s is left", name)
		}
	}
	marks, _ := filepath.Glob(filepath.Join(b.state, "locks", "*"))
	for _, mark := range marks {
		if text, err := os.ReadFile(mark); err != nil || len(text) > 0 {
			t.Errorf("%s still says %q: %v", mark, text, errors.Join(err))
		}
	}
}
