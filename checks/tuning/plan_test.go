package tuning

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// asInstalled are PostgreSQL's own defaults, where a throw-away server differs from them.
const asInstalled = `
fsync = on
synchronous_commit = on
full_page_writes = on
shared_buffers = 128MB
max_connections = 100
autovacuum = on
`

// bench is a server with a homeserver's database, and a state directory.
type bench struct {
	server  *pgtest.Server
	db      *pgtest.DB
	config  string
	state   string
	machine doctor.Machine
	admin   bool
	limits  map[string]float64
}

// newBench makes the database while nothing waits for the disk, and has the server be as installed then.
func newBench(t *testing.T, s *pgtest.Server, more ...string) *bench {
	db := s.Database(t, pgtest.WithSetup(pgtest.Fixture()))
	s.WriteFile(t, "postgresql.conf", []byte(read(t, filepath.Join(s.DataDir, "postgresql.conf"))+asInstalled+strings.Join(more, "\n")+"\n"))
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &bench{server: s, db: db, config: db.Homeserver(t), state: filepath.Join(t.TempDir(), "state"), admin: true}
}

// twoEntries: main and state are in databases of the same server, whose connections they share.
func (b *bench) twoEntries(t *testing.T) {
	config := filepath.Join(t.TempDir(), "homeserver.yaml")
	text := "server_name: test.example\ndatabases:\n"
	for _, label := range []string{"main", "state"} {
		text += fmt.Sprintf("  %s: {name: psycopg2, data_stores: [%[1]s], args: {host: %s, cp_max: 40}}\n", label, b.db.Host)
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	target := b.target()
	defer target.Close()
	target.ConfigFiles = []string{config}
	state := b.target().Databases[0]
	state.Label = "state"
	target.Databases = append(target.Databases, state)
	for _, d := range target.Databases {
		d.Meets = doctor.NeedsPostgresEntry | doctor.NeedsPostgres
	}
	servers, err := look(t.Context(), target, hostMachine)
	if err != nil || len(servers) != 1 || servers[0].opens.connections != 80 {
		t.Fatalf("%d servers, %+v: %v", len(servers), servers[0].opens, err)
	}
}

func (b *bench) notSuper(t *testing.T) {
	target := b.target()
	defer target.Close()
	target.Admin.Settings = target.Databases[0].Settings
	target.Databases[0].Meets = doctor.NeedsPostgresEntry | doctor.NeedsPostgres | doctor.NeedsAdmin
	target.Machine = doctor.Machine{Memory: 4 * gib}
	plans, err := planOn(t.Context(), target, []doctor.Finding{{Code: WorstCase, Database: "main", Object: doctor.Object{Kind: "setting", Name: "work_mem"}}}, hostMachine)
	if err != nil || len(plans) != 1 || !plans[0].Manual() || !strings.Contains(plans[0].Steps[0].Manual.Text, "not a superuser's") {
		t.Errorf("plans %+v: %v", plans, err)
	}
}

func (b *bench) target() *doctor.Target {
	port := strconv.Itoa(b.server.Port)
	t := &doctor.Target{ServerName: "test.example", RunID: engine.NewRunID(time.Now()), ConfigFiles: []string{b.config}, Machine: b.machine, Thresholds: b.limits,
		Databases: []*doctor.Database{{Label: "main", Engine: doctor.Postgres, DataStores: []string{"main", "state"}, Settings: pgdb.Settings{
			"host": b.db.Host, "port": port, "dbname": b.db.Name, "user": b.db.User, "password": b.db.Password, "sslmode": "disable"}}}}
	if b.admin {
		t.Admin = &doctor.Database{Label: "admin", Engine: doctor.Postgres,
			Settings: pgdb.Settings{"host": b.server.SocketDir, "port": port, "dbname": "postgres", "user": "postgres"}}
	}
	return t
}

func (b *bench) engine(trace func(string)) *engine.Engine {
	return engine.New(engine.Options{Version: "test", Target: b.target(), StateDir: b.state, Trace: trace,
		Sources: []doctor.Source{&doctor.Local{PluginName: "test", Version: "test", Checks: []doctor.Check{Check}}}})
}

func agree(context.Context, doctor.PlanResult) error { return nil }

func (b *bench) check(t *testing.T) doctor.CheckResult {
	t.Helper()
	r, err := b.engine(nil).Check(t.Context(), engine.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	c := r.Checks[0]
	if c.Status == doctor.StatusUnknown || c.Status == doctor.StatusSkipped {
		t.Fatalf("%s: %s", c.Status, c.Reason)
	}
	return c
}

// finds compares the findings, each as its severity, code and object.
func (b *bench) finds(t *testing.T, want ...string) []doctor.Finding {
	t.Helper()
	c := b.check(t)
	var got []string
	for _, f := range c.Findings {
		got = append(got, fmt.Sprintf("%s %s %s", f.Severity, f.Code, f.Object.Name))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("found\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	return c.Findings
}

func (b *bench) fix(t *testing.T, apply bool, choose ...string) []doctor.PlanResult {
	t.Helper()
	r, err := b.engine(nil).Fix(t.Context(), engine.FixOptions{Apply: apply, Consent: agree, Selection: engine.Selection{Wanted: append([]string{checkID}, choose...)}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Plans
}

func (b *bench) applied(t *testing.T, ids ...string) {
	t.Helper()
	var got []string
	for _, p := range b.fix(t, true) {
		if p.Status != doctor.PlanApplied {
			t.Fatalf("plan %s is %s: %s", p.Plan.ID, p.Status, p.Reason)
		}
		got = append(got, p.Plan.ID)
	}
	slices.Sort(ids)
	slices.Sort(got)
	if !slices.Equal(got, ids) {
		t.Fatalf("applied %v, want %v", got, ids)
	}
}

// auto is what ALTER SYSTEM has set: the lines of postgresql.auto.conf, sorted.
func (b *bench) auto(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.server.DataDir, "postgresql.auto.conf"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (b *bench) show(t *testing.T, name string) (value string) {
	t.Helper()
	c := b.db.Conn(t)
	defer c.Close(t.Context())
	if err := c.QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

func (b *bench) alter(t *testing.T, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), b.server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close(t.Context())
	b.server.Reload(t)
}

// reset puts a shared server back.
func (b *bench) reset(t *testing.T) {
	t.Helper()
	b.alter(t, "ALTER SYSTEM RESET ALL")
}

// A server of each major version goes through all of it, one after the other.
func TestAServerIsJudgedMendedAndPutBack(t *testing.T) {
	pgtest.EachMajor(t, nil, func(t *testing.T, s *pgtest.Server) {
		b := newBench(t, s)
		t.Run("as installed it is silent", b.asInstalled)
		t.Run("a plan without a restart is applied and put back", b.reloaded)
		t.Run("a value that is not allowed is an error", b.notAllowed)
		t.Run("what waits for a restart is none", b.waiting)
		t.Run("a configuration that would not start is not left behind", b.wouldNotStart)
		t.Run("a restart is waited for, and cures", b.restarted)
		t.Run("the advised values start", b.advisedValuesStart)
		t.Run("huge pages are counted as it does itself", b.estimated)
	})
}

func (b *bench) asInstalled(t *testing.T) {
	for i, memory := range []int64{0, 512 * mib, gib, 4 * gib, 24 * gib} {
		b.machine, b.admin = doctor.Machine{Memory: memory, Disk: []doctor.Disk{doctor.DiskUnknown, doctor.DiskSSD, doctor.DiskHDD}[i%3]}, i%2 == 0
		b.finds(t)
	}
	b.admin = true
	if c := b.check(t).Coverage; !strings.Contains(c, "fit in shared_buffers") || !strings.Contains(c, "as --db-memory says") {
		t.Errorf("covered: %s", c)
	}
}

func (b *bench) reloaded(t *testing.T) {
	b.machine = doctor.Machine{Memory: 4 * gib}
	b.alter(t, "ALTER SYSTEM SET checkpoint_completion_target = '0.5'", "ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET work_mem = '512MB'")
	defer b.reset(t)
	before := b.auto(t)
	found := b.finds(t, "warning tuning/not-crash-safe fsync", "warning tuning/worst-case work_mem", "info tuning/checkpoints checkpoint_completion_target")
	for _, f := range found {
		if !strings.Contains(f.Observed, "ALTER SYSTEM, in "+b.server.DataDir+"/postgresql.auto.conf:") {
			t.Errorf("%s is said to come from: %s", f.Object.Name, f.Observed)
		}
	}
	b.fix(t, false)
	everything, err := b.engine(nil).Fix(t.Context(), engine.FixOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range everything.Plans {
		if p.Chosen == (p.Plan.ID == "tuning/advice") {
			t.Errorf("a fix of everything: %s chosen %t", p.Plan.ID, p.Chosen)
		}
	}
	if now := b.auto(t); now != before {
		t.Errorf("showing the plans changed\n%s\ninto\n%s", before, now)
	}
	b.applied(t, "tuning/durable", "tuning/reload", "tuning/advice")
	b.finds(t)
	if b.show(t, "fsync") != "on" || b.show(t, "checkpoint_completion_target") != "0.9" || b.show(t, "work_mem") == "512MB" {
		t.Error("what was set does not count")
	}
	if plans := b.fix(t, true); len(plans) > 0 {
		t.Errorf("a second fix has something to do: %+v", plans)
	}
	u, err := b.engine(nil).Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil || u.Plans[0].Status != doctor.PlanApplied {
		t.Fatalf("undo: %v %+v", err, u)
	}
	if now := b.auto(t); now != before {
		t.Errorf("undo left\n%s\nwhere there was\n%s", now, before)
	}
	if b.show(t, "work_mem") != "512MB" || b.show(t, "fsync") != "off" {
		t.Error("what was put back does not count")
	}
}

// waiting: a setting that a restart returns to its default has a row without a name in pg_file_settings.
func (b *bench) waiting(t *testing.T) {
	b.machine = doctor.Machine{Memory: 4 * gib}
	defer b.reset(t)
	b.alter(t, "ALTER SYSTEM SET huge_pages = off")
	b.finds(t, "info tuning/restart-pending huge_pages")
	b.restart(t)
	b.finds(t)
	b.unloaded(t, "ALTER SYSTEM RESET huge_pages")
	for range 2 { // before and after the files are loaded
		found := b.finds(t, "info tuning/restart-pending huge_pages")
		if !strings.Contains(found[0].Summary, "changed to try") {
			t.Errorf("said: %s", found[0].Summary)
		}
		b.server.Reload(t)
	}
	b.alter(t, "ALTER SYSTEM SET work_mem = '512MB'")
	b.finds(t, "warning tuning/worst-case work_mem", "info tuning/restart-pending huge_pages")
	b.applied(t, "tuning/reload")
	waits := "info tuning/restart-pending huge_pages"
	b.unloaded(t, "ALTER SYSTEM SET shared_buffers = '3584MB'")
	found := b.finds(t, "warning tuning/worst-case shared_buffers", "info tuning/restart-pending shared_buffers", waits)
	if !strings.Contains(found[0].Observed, "3584MB, from ALTER SYSTEM") {
		t.Errorf("observed: %s", found[0].Observed)
	}
	b.unloaded(t, "ALTER SYSTEM RESET shared_buffers")
	b.finds(t, waits)
}

// unloaded alters the system, and the server has not yet read its files again.
func (b *bench) unloaded(t *testing.T, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), b.server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

// append adds lines to the server's file until the test ends.
func (b *bench) append(t *testing.T, lines string) (undo func()) {
	t.Helper()
	sound := read(t, filepath.Join(b.server.DataDir, "postgresql.conf"))
	b.server.WriteFile(t, "postgresql.conf", []byte(sound+lines))
	return func() { b.server.WriteFile(t, "postgresql.conf", []byte(sound)) }
}

// notAllowed: PostgreSQL has the same words for what waits for a restart and for a value that it would not start with.
func (b *bench) notAllowed(t *testing.T) {
	b.machine = doctor.Machine{Memory: 4 * gib}
	for _, line := range []string{"work_mem = 'lots'", "Shared_Buffers = 'lots'", "max_connections = 0", "wal_level = most"} {
		undo := b.append(t, line+"\n")
		c := b.check(t)
		if len(c.Findings) != 1 || c.Findings[0].Code != ConfigurationFaulty || !strings.Contains(c.Findings[0].Observed, "which is not allowed") {
			t.Errorf("%s: %+v", line, c.Findings)
		}
		undo()
	}
	undo := b.append(t, "max_connections = 150\nMax_Wal_Senders = 11\ndefault_tablespace = 'elsewhere'\n")
	defer undo()
	b.finds(t, "info tuning/restart-pending max_connections")
}

// Lines that are good by themselves, and ask the kernel for more than it has: the trial says so, and nothing is written.
func (b *bench) wouldNotStart(t *testing.T) {
	b.machine = doctor.Machine{Memory: 2 * gib}
	b.alter(t, "ALTER SYSTEM SET shared_buffers = '1536MB'", "ALTER SYSTEM SET max_locks_per_transaction = 500000000")
	defer b.reset(t)
	b.refused(t, "would not start")
	if left, _ := filepath.Glob("/tmp/synapse-doctor-*/PG_VERSION"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func (b *bench) restarted(t *testing.T) {
	b.machine = doctor.Machine{Memory: gib}
	config := read(t, b.config)
	defer os.WriteFile(b.config, []byte(config), 0o600)
	if err := os.WriteFile(b.config, []byte(strings.Replace(config, "cp_max: 2", "cp_max: 30", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	b.alter(t, "ALTER SYSTEM SET shared_buffers = '900MB'", "ALTER SYSTEM SET max_connections = 20")
	b.restart(t)
	before := b.auto(t)
	b.finds(t, "warning tuning/worst-case shared_buffers", "warning tuning/max-connections max_connections")
	plans := b.fix(t, false)
	if len(plans) != 1 || plans[0].Plan.Steps[0].Operation == nil {
		t.Fatalf("plans: %+v", plans)
	}
	text := plans[0].Plan.Steps[len(plans[0].Plan.Steps)-1].Manual.Text
	for _, want := range []string{"pg_ctl restart -D " + b.server.DataDir, "Should the server not start"} {
		if !strings.Contains(text, want) {
			t.Errorf("the last step lacks %q: %s", want, text)
		}
	}
	b.applied(t, "tuning/restart")
	b.finds(t, "info tuning/restart-pending shared_buffers", "info tuning/restart-pending max_connections")
	if got := b.show(t, "shared_buffers"); got != "900MB" {
		t.Errorf("before the restart it is %s", got)
	}
	b.restart(t)
	b.finds(t)
	if b.show(t, "shared_buffers") != "128MB" || b.show(t, "max_connections") != "60" {
		t.Errorf("after the restart: %s, %s", b.show(t, "shared_buffers"), b.show(t, "max_connections"))
	}
	if u, err := b.engine(nil).Undo(t.Context(), engine.UndoOptions{Consent: agree}); err != nil || u.Plans[0].Status != doctor.PlanApplied {
		t.Fatalf("undo: %v %+v", err, u)
	}
	if got := b.auto(t); got != before {
		t.Errorf("undo left %q", got)
	}
	b.reset(t)
	b.restart(t)
}

func (b *bench) restart(t *testing.T) {
	t.Helper()
	if err := b.server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// advisedValuesStart: what the check would choose for machines of these sizes is what a server starts with.
func (b *bench) advisedValuesStart(t *testing.T) {
	for i, memory := range []int64{gib, 4 * gib, 24 * gib} {
		b.machine = doctor.Machine{Memory: memory, Disk: []doctor.Disk{doctor.DiskSSD, doctor.DiskHDD}[i%2]}
		var values map[string]string
		for _, s := range b.look(t) {
			h := s.host()
			h.Size, h.Index, h.Rows = 100*gib, 5*gib, 1e8 // as if there were much to hold
			values = h.Values()
		}
		var statements []string
		for name, value := range values {
			statements = append(statements, alter(name, value))
		}
		b.alter(t, statements...)
		b.restart(t)
		for name, value := range values {
			if got := b.show(t, name); got != value {
				t.Errorf("%s: %s is %s, not %s", about(memory), name, got, value)
			}
		}
		for _, f := range b.check(t).Findings {
			if f.Code != HugePages { // which are another matter
				t.Errorf("%s: %s", about(memory), f.Summary)
			}
		}
	}
}

// estimated: how many huge pages the server needs is computed nearly as it says itself, which it does from 15 on.
func (b *bench) estimated(t *testing.T) {
	s := b.look(t)[0]
	if s.major() < 15 {
		t.Skip("before 15 the server does not say it")
	}
	s.machine.huge.size = 2 * mib
	said, _ := s.pagesNeeded()
	delete(s.settings, "shared_memory_size_in_huge_pages")
	allocated, _ := s.pagesNeeded()
	s.shmem = 0
	estimate, _ := s.pagesNeeded()
	for _, n := range []int64{allocated, estimate} {
		if n < said || n > said+said/10 {
			t.Errorf("the server says %d; allocated are %d, estimated %d", said, allocated, estimate)
		}
	}
}

// look is what the check sees.
func (b *bench) look(t *testing.T) []*server {
	t.Helper()
	target := b.target()
	for _, d := range target.Databases {
		d.Meets = doctor.NeedsPostgresEntry | doctor.NeedsPostgres
		if b.admin {
			d.Meets |= doctor.NeedsAdmin
		}
	}
	defer target.Close()
	servers, err := look(t.Context(), target, hostMachine)
	if err != nil || len(servers) != 1 {
		t.Fatalf("%d servers: %v", len(servers), err)
	}
	return servers
}

// A server of the usual version is enough for the rest.
func TestPlansOfOneServer(t *testing.T) {
	b := newBench(t, pgtest.StartWith(t, pgtest.Config{}), "work_mem = '1GB'")
	t.Run("a checkpoint on request counts as forced", b.countsCheckpoints)
	t.Run("two entries of one server are judged once", b.twoEntries)
	t.Run("an administrator who is no superuser alters nothing", b.notSuper)
	t.Run("nothing is changed on a guess", b.onlyInferred)
	t.Run("what was not set is reset again", b.resetAgain)
	t.Run("what is set elsewhere is for a person", b.setElsewhere)
	t.Run("a trial has nothing that the running server holds", b.trial)
	t.Run("names are those of PostgreSQL, however they are written", b.otherCase)
	t.Run("what the command line sets does not wait for a file", b.commandLine)
	t.Run("nothing is loaded when an error comes in between", b.faultyAtLast)
	t.Run("a fix that is killed is settled", b.killed)
	t.Run("nothing is changed where the files have an error", b.faultyFiles)
}

func (b *bench) countsCheckpoints(t *testing.T) {
	before := b.look(t)[0].facts
	b.alter(t, "CHECKPOINT", "CHECKPOINT", "CHECKPOINT")
	for b.look(t)[0].Forced < before.Forced+3 {
		time.Sleep(10 * time.Millisecond)
	}
	if now := b.look(t)[0].facts; now.Timed != before.Timed {
		t.Errorf("%d by time, and %d before", now.Timed, before.Timed)
	}
}

func (b *bench) resetAgain(t *testing.T) {
	b.machine = doctor.Machine{Memory: 4 * gib}
	found := b.finds(t, "warning tuning/worst-case work_mem")
	if !strings.Contains(found[0].Observed, "/postgresql.conf:") {
		t.Errorf("observed: %s", found[0].Observed)
	}
	b.applied(t, "tuning/reload")
	if got := b.auto(t); !strings.HasPrefix(got, "work_mem = '") || strings.Contains(got, "\n") {
		t.Errorf("set: %q", got)
	}
	if _, err := b.engine(nil).Undo(t.Context(), engine.UndoOptions{Consent: agree}); err != nil {
		t.Fatal(err)
	}
	if got := b.auto(t); got != "" || b.show(t, "work_mem") != "1GB" {
		t.Errorf("left: %q, work_mem %s", got, b.show(t, "work_mem"))
	}
	b.applied(t, "tuning/reload")
	b.alter(t, "ALTER SYSTEM SET work_mem = '8MB'")
	defer b.reset(t)
	if u, err := b.engine(nil).Undo(t.Context(), engine.UndoOptions{Consent: agree}); err != nil || u.Plans[0].Status == doctor.PlanApplied {
		t.Errorf("what was set since is lost: %v %+v", err, u)
	}
	if got := b.show(t, "work_mem"); got != "8MB" {
		t.Errorf("work_mem is %s", got)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// refused: the plan is not begun, and nothing is left behind.
func (b *bench) refused(t *testing.T, words string) {
	t.Helper()
	before := b.auto(t)
	plans := b.fix(t, true)
	if len(plans) != 1 {
		t.Fatalf("%d plans", len(plans))
	}
	if p := plans[0]; p.Status != doctor.PlanRefused || !strings.Contains(p.Reason, words) {
		t.Fatalf("%s is %s: %s", p.Plan.ID, p.Status, p.Reason)
	}
	if now := b.auto(t); now != before {
		t.Errorf("left\n%s\nwhere there was\n%s", now, before)
	}
}

func (b *bench) faultyFiles(t *testing.T) {
	b.machine = doctor.Machine{Memory: 2 * gib}
	conf := filepath.Join(b.server.DataDir, "postgresql.conf")
	sound := read(t, conf)
	for _, wrong := range []string{"work_mem = '512MB'", "shared_buffers = '1536MB'"} { // one for each kind of plan
		b.alter(t, "ALTER SYSTEM RESET ALL", "ALTER SYSTEM SET work_mem = '4MB'", "ALTER SYSTEM SET "+wrong)
		b.restart(t)
		b.server.WriteFile(t, "postgresql.conf", []byte(sound+"work_mem = = 3\n"))
		c := b.check(t)
		if c.Status != doctor.StatusError || c.Findings[0].Code != ConfigurationFaulty || !strings.HasPrefix(c.Findings[0].Object.Name, conf+":") {
			t.Errorf("found %+v", c.Findings)
		}
		b.refused(t, "have an error")
		b.server.WriteFile(t, "postgresql.conf", []byte(sound))
	}
}

// trial: the certificate of the example is nowhere, as it is not in a trial's directory, and more huge pages are asked for
// than any machine has free. What a trial that was killed has left is removed.
func (b *bench) trial(t *testing.T) {
	defer b.append(t, "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\nhuge_pages = on\n")()
	r := trial{dataDir: b.server.DataDir, configFile: filepath.Join(b.server.DataDir, "postgresql.conf"), major: b.server.Major(t), set: map[string]string{"shared_buffers": "64MB"}}
	account, err := accountOf(r.dataDir)
	if err != nil {
		t.Fatal(err)
	}
	base := os.TempDir()
	if account != nil {
		base = "/tmp"
	}
	made := map[string]bool{trialPrefix + "1-dead": false, trialPrefix + "1-held": true, trialPrefix + "1-open": true}
	for name := range made {
		path := filepath.Join(base, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(path)
	}
	if err := os.Chmod(filepath.Join(base, trialPrefix+"1-open"), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := lockDir(filepath.Join(base, trialPrefix+"1-held"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if need, err := r.run(t.Context()); err != nil || need == 0 {
		t.Errorf("%s: %v", about(need), err)
	}
	for name, stays := range made {
		if _, err := os.Stat(filepath.Join(base, name)); (err == nil) != stays {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(r.dir); err == nil {
		t.Errorf("%s is left", r.dir)
	}
}

// faultyAtLast: the last to look is the reload itself.
func (b *bench) faultyAtLast(t *testing.T) {
	b.machine = doctor.Machine{Memory: 2 * gib}
	b.alter(t, "ALTER SYSTEM RESET ALL", "ALTER SYSTEM SET work_mem = '512MB'")
	before := b.auto(t)
	undo := func() {}
	r, err := b.engine(func(p string) {
		if strings.HasPrefix(p, "reload") {
			undo = b.append(t, "maintenance_work_mem = 'lots'\n")
		}
	}).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree, Selection: engine.Selection{Wanted: []string{checkID}}})
	undo()
	if err != nil || len(r.Plans) != 1 || r.Plans[0].Status == doctor.PlanApplied || !strings.Contains(r.Plans[0].Reason, "maintenance_work_mem: setting could not be applied") {
		t.Errorf("%v: %+v", err, r)
	}
	if now := b.auto(t); now != before || b.show(t, "work_mem") != "512MB" {
		t.Errorf("left\n%s\nwhere there was\n%s", now, before)
	}
}

func (b *bench) otherCase(t *testing.T) {
	b.machine = doctor.Machine{Memory: 2 * gib}
	auto := filepath.Join(b.server.DataDir, "postgresql.auto.conf")
	if err := os.WriteFile(auto, []byte("Work_Mem = '512MB'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.server.Reload(t)
	defer b.reset(t)
	b.finds(t, "warning tuning/worst-case work_mem")
	b.applied(t, "tuning/reload")
	if got := b.auto(t); !strings.HasPrefix(got, "work_mem = ") || strings.Contains(got, "\n") {
		t.Errorf("set: %q", got)
	}
	if _, err := b.engine(nil).Undo(t.Context(), engine.UndoOptions{Consent: agree}); err != nil || b.show(t, "work_mem") != "512MB" {
		t.Errorf("%v; work_mem is %s", err, b.show(t, "work_mem"))
	}
}

// commandLine: PostgreSQL marks such a setting as waiting, and a restart changes nothing. The server of the tests has its
// port on the command line.
func (b *bench) commandLine(t *testing.T) {
	b.machine = doctor.Machine{Memory: 4 * gib}
	b.alter(t, "ALTER SYSTEM RESET ALL", "ALTER SYSTEM SET work_mem = '4MB'", "ALTER SYSTEM SET port = 4711")
	defer b.reset(t)
	b.finds(t)
}

func (b *bench) setElsewhere(t *testing.T) {
	b.machine = doctor.Machine{Memory: 2 * gib}
	defer func() { b.admin = true }()
	b.alter(t, "ALTER ROLE synapse_user SET work_mem = '512MB'")
	found := b.finds(t, "warning tuning/worst-case work_mem")
	if !strings.Contains(found[0].Observed, "ALTER ROLE synapse_user SET") {
		t.Errorf("observed: %s", found[0].Observed)
	}
	plans := b.fix(t, false)
	if len(plans) != 1 || plans[0].Status != doctor.PlanManual || !strings.Contains(plans[0].Plan.Steps[0].Manual.Text, `ALTER ROLE "synapse_user" SET work_mem = '`) {
		t.Errorf("plans: %+v", plans)
	}
	b.alter(t, "ALTER ROLE synapse_user RESET work_mem", "ALTER SYSTEM SET work_mem = '512MB'")
	b.admin = false
	found = b.finds(t, "warning tuning/worst-case work_mem")
	if !strings.Contains(found[0].Observed, "only an administrator of the server sees") {
		t.Errorf("observed: %s", found[0].Observed)
	}
	plans = b.fix(t, false)
	if len(plans) != 1 || plans[0].Plan.ID != "tuning/by-hand" || !strings.Contains(plans[0].Plan.Steps[0].Manual.Text, "ALTER SYSTEM SET work_mem = '") {
		t.Errorf("plans: %+v", plans)
	}
}

// A kernel that shows no process leaves only a guess at the memory.
func (b *bench) onlyInferred(t *testing.T) {
	k := tree(t, map[string]string{"proc/meminfo": "MemTotal: 2097152 kB\n"})
	target := b.target()
	defer target.Close()
	target.Databases[0].Meets = doctor.NeedsPostgresEntry | doctor.NeedsPostgres | doctor.NeedsAdmin
	plans, err := planOn(t.Context(), target, []doctor.Finding{{Code: WorstCase, Database: "main", Object: doctor.Object{Kind: "setting", Name: "work_mem"}}}, k)
	if err != nil || len(plans) != 1 || !plans[0].Manual() || !strings.Contains(plans[0].Steps[0].Manual.Text, "only inferred") {
		t.Errorf("plans %+v: %v", plans, err)
	}
}

// Cut off at every point in turn, the next run leaves what an undisturbed one does.
func (b *bench) killed(t *testing.T) {
	defer func(state string) { b.state = state }(b.state)
	b.machine = doctor.Machine{Memory: 2 * gib}
	want := ""
	for n := 0; ; n++ {
		b.alter(t, "ALTER SYSTEM RESET ALL", "ALTER SYSTEM SET work_mem = '512MB'", "ALTER SYSTEM SET checkpoint_timeout = '1min'")
		b.state = filepath.Join(t.TempDir(), "state")
		point, cut := b.cutOff(t, n)
		if n == 0 {
			want = b.auto(t)
			continue
		}
		if !cut {
			break
		}
		if b.fix(t, true); b.auto(t) != want {
			t.Errorf("cut off at %q: %s", point, b.auto(t))
		}
		b.finds(t)
	}
}

var errCut = errors.New("cut off")

// cutOff applies the plans and stops at the n-th point, as a kill would; 0: nowhere.
func (b *bench) cutOff(t *testing.T, n int) (point string, cut bool) {
	t.Helper()
	seen := 0
	done := make(chan any)
	go func() {
		var thrown any
		defer func() { done <- thrown }()
		defer func() { thrown = recover() }()
		_, err := b.engine(func(p string) {
			if seen++; seen == n {
				point = p
				panic(errCut)
			}
		}).Fix(context.WithoutCancel(t.Context()), engine.FixOptions{Apply: true, Consent: agree, Selection: engine.Selection{Wanted: []string{checkID}}})
		if err != nil {
			panic(err)
		}
	}()
	switch thrown := <-done; thrown {
	case nil:
		return "", false
	case errCut:
		return point, true
	default:
		t.Fatal(thrown)
		return "", false
	}
}
