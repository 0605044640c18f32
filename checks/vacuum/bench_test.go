package vacuum_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/synapse-doctor/synapse-doctor/checks/vacuum"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

const writerVariable = "SYNAPSE_DOCTOR_TEST_WRITER"

// TestMain is also the process that has a homeserver's file in use: it writes without end, two rows in each transaction.
func TestMain(m *testing.M) {
	if path := os.Getenv(writerVariable); path != "" {
		if err := write(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	pgtest.Main(m)
}

func write(path string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`PRAGMA busy_timeout=10000`); err != nil {
		return err
	}
	for n := 0; ; n++ {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		for _, s := range []string{`INSERT INTO events (room_id, body) VALUES ('!a:test.example', hex(randomblob(200)))`,
			`INSERT INTO event_json SELECT max(stream_ordering), '{}' FROM events`} {
			if _, err := tx.Exec(s); err != nil {
				return err
			}
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		if n == 20 {
			fmt.Println("writing")
		}
		time.Sleep(time.Millisecond)
	}
}

// used has another process write to the file until the test ends.
func used(t *testing.T, path string) int {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), writerVariable+"="+path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if stderr.Len() > 0 {
			t.Errorf("the writer: %s", stderr.String())
		}
	})
	if _, err := io.ReadFull(out, make([]byte, len("writing\n"))); err != nil {
		t.Fatalf("the writer did not begin: %v", err)
	}
	return c.Process.Pid
}

// homeserver is a small database of the homeserver test.example, with gaps in its rowids and a table without an index.
const homeserver = `
CREATE TABLE schema_version (lock CHAR(1) UNIQUE, version INTEGER, upgraded BOOL);
CREATE TABLE users (name TEXT UNIQUE, password_hash TEXT);
CREATE TABLE events (stream_ordering INTEGER PRIMARY KEY, room_id TEXT, body TEXT);
CREATE TABLE event_json (stream_ordering INTEGER REFERENCES events (stream_ordering), json TEXT);
CREATE TABLE "odd ""name""" (a, b, PRIMARY KEY (b)) WITHOUT ROWID;
CREATE INDEX events_room ON events (room_id);
INSERT INTO schema_version VALUES ('X', 94, 0);
INSERT INTO users VALUES ('@a:test.example', 'x'), ('@b:test.example', 'y');
INSERT INTO "odd ""name""" VALUES (1, 'one'), (2, 'two');
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO events (room_id, body) SELECT '!a:test.example', hex(randomblob(100)) FROM n;
INSERT INTO event_json SELECT stream_ordering, '{"b": "' || body || '"}' FROM events;
DELETE FROM event_json WHERE rowid % 3 = 0;
DELETE FROM events WHERE stream_ordering % 3 = 0;`

// bench is a folder with one file in it, and a state directory elsewhere.
type bench struct {
	t        *testing.T
	path     string
	state    string
	config   string
	deep     bool
	progress func(string, doctor.Progress)
}

// begin makes the homeserver's file; pragmas come before its first table, and after are run at the end.
func begin(t *testing.T, pragmas string, after ...string) *bench {
	t.Helper()
	b := &bench{t: t, path: filepath.Join(t.TempDir(), "homeserver.db"), state: filepath.Join(t.TempDir(), "state")}
	db := b.open(b.path)
	b.exec(db, append([]string{pragmas, homeserver}, after...)...)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) open(path string) *sql.DB {
	b.t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		b.t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	b.t.Cleanup(func() { db.Close() })
	return db
}

func (b *bench) exec(db *sql.DB, statements ...string) {
	b.t.Helper()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			b.t.Fatalf("%.200s: %v", s, err)
		}
	}
}

// killed goes on with what a process that died now would leave of the file and these companions.
func (b *bench) killed(companions ...string) *bench {
	b.t.Helper()
	c := *b
	c.path = filepath.Join(b.t.TempDir(), "homeserver.db")
	for _, companion := range append([]string{""}, companions...) {
		content, err := os.ReadFile(b.path + companion)
		if err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(c.path+companion, content, 0o640); err != nil {
			b.t.Fatal(err)
		}
	}
	return &c
}

func (b *bench) target() *doctor.Target {
	t := &doctor.Target{ServerName: "test.example", Deep: b.deep, Databases: []*doctor.Database{
		{Label: "main", Engine: doctor.SQLite, DataStores: []string{"main", "state"}, Path: b.path}}}
	if b.config != "" {
		t.ConfigFiles = []string{b.config}
	}
	return t
}

func (b *bench) engine() *engine.Engine {
	source := &doctor.Local{PluginName: "builtin", Version: "test", Checks: []doctor.Check{vacuum.Check}}
	return engine.New(engine.Options{Version: "test", Target: b.target(), Sources: []doctor.Source{source}, StateDir: b.state, Progress: b.progress})
}

func (b *bench) check() doctor.CheckResult {
	b.t.Helper()
	r, err := b.engine().Check(b.t.Context(), engine.Selection{})
	if err != nil {
		b.t.Fatal(err)
	}
	return r.Checks[0]
}

// finds runs the check, compares what it found, and makes sure that it left every file as it was.
func (b *bench) finds(want ...string) doctor.CheckResult {
	b.t.Helper()
	before := b.folder()
	r := b.check()
	if left := b.folder(); left != before {
		b.t.Errorf("the check changed the folder from\n%sto\n%s", before, left)
	}
	if r.Status == doctor.StatusUnknown || r.Status == doctor.StatusSkipped {
		b.t.Errorf("the check is %s: %s", r.Status, r.Reason)
	}
	b.are(r.Findings, want...)
	return r
}

func (b *bench) are(findings []doctor.Finding, want ...string) {
	b.t.Helper()
	var got []string
	for _, f := range findings {
		got = append(got, strings.TrimPrefix(f.Code, "vacuum/")+" "+f.Severity.String())
		if f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" || f.Object.Name == "" {
			b.t.Errorf("%s lacks its summary, object, what is observed or expected, or the remedy: %+v", f.Code, f)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		b.t.Errorf("found %q, want %q", got, want)
	}
}

// folder is every file beside the database: names, sizes, times, modes and contents.
func (b *bench) folder() string {
	b.t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(filepath.Dir(b.path), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		var sum [32]byte
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum = sha256.Sum256(content)
		}
		fmt.Fprintf(&out, "%s %s %d %s %x\n", filepath.Base(path), info.Mode(), info.Size(), info.ModTime(), sum[:6])
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return out.String()
}

// original is the folder without the lines of what a fix made.
func (b *bench) original() string {
	var kept []string
	for i, line := range strings.Split(b.folder(), "\n") {
		if i > 0 && !strings.Contains(line, ".snapshot") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

func (b *bench) fix(apply bool) *doctor.FixReport {
	b.t.Helper()
	r, err := b.engine().Fix(b.t.Context(), engine.FixOptions{Selection: engine.Selection{Wanted: []string{"vacuum"}}, Apply: apply, Consent: agree})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// applied applies the one plan that is expected and returns the snapshot's path.
func (b *bench) applied() string {
	b.t.Helper()
	r := b.fix(true)
	if len(r.Plans) != 1 || r.Plans[0].Plan.ID != "vacuum/snapshot" || r.Plans[0].Status != doctor.PlanApplied {
		for _, p := range r.Plans {
			b.t.Errorf("plan %s is %s: %s", p.Plan.ID, p.Status, p.Reason)
		}
		b.t.Fatalf("%d plans", len(r.Plans))
	}
	return r.Plans[0].Plan.Steps[0].Operation.Params["snapshot"]
}

func agree(context.Context, doctor.PlanResult) error { return nil }

// rows is every row of every table, with its rowid where it has one.
func (b *bench) rows(path string) string {
	b.t.Helper()
	db := b.open(path)
	defer db.Close()
	var out strings.Builder
	for _, q := range []string{`SELECT type || name || sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY 1`, `SELECT rowid || name || password_hash FROM users ORDER BY rowid`,
		`SELECT rowid || room_id || body FROM events ORDER BY rowid`, `SELECT rowid || ' ' || stream_ordering || json FROM event_json ORDER BY rowid`, `SELECT a || b FROM "odd ""name""" ORDER BY b`} {
		rows, err := db.Query(q)
		if err != nil {
			b.t.Fatal(err)
		}
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				b.t.Fatal(err)
			}
			out.WriteString(text + "\n")
		}
		if err := rows.Err(); err != nil {
			b.t.Fatal(err)
		}
		rows.Close()
	}
	return out.String()
}
