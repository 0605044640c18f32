package ident_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/checks/ident"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// password is what stands in homeserver.yaml in these stories.
const password = `p%4'"\ $ä`

// story is one way in which a server and a homeserver.yaml do not fit together.
type story struct {
	name string
	hba  []string // below pgtest's own line for the superuser
	role string   // how synapse_user's password is kept: what follows ALTER ROLE synapse_user; empty: as configured
	host string   // empty: 127.0.0.1; socket: the server's
	want []string // code and place, :N being a line of pg_hba.conf; info left out

	byHand  bool // the doctor has no plan
	risen   bool // --set-password, with none configured
	added   int  // records
	prepare func(t *testing.T, b *bench)
}

var stories = []story{
	{name: "sound", hba: []string{"host all all 127.0.0.1/32 scram-sha-256"}},
	{name: "Red Hat", hba: []string{"local all all peer", "host all all 127.0.0.1/32 ident", "host all all ::1/128 ident"},
		want: []string{"ident/ident-rule pg_hba.conf:3"}, added: 1},
	{name: "Red Hat over ::1", hba: []string{"local all all peer", "host all all 127.0.0.1/32 ident", "host all all ::1/128 ident"}, host: "::1",
		want: []string{"ident/ident-rule pg_hba.conf:4"}, added: 1},
	{name: "Red Hat over localhost", hba: []string{"local all all peer", "host all all 127.0.0.1/32 ident", "host all all ::1/128 ident"}, host: "localhost",
		want: []string{"ident/ident-rule pg_hba.conf:3", "ident/ident-rule pg_hba.conf:4"}, added: 2},
	{name: "one half of localhost", hba: []string{"host all all 127.0.0.1/32 scram-sha-256", "host all all ::1/128 ident"}, host: "localhost",
		want: []string{"ident/ident-rule pg_hba.conf:3"}, added: 1},
	{name: "Debian through the socket", hba: []string{"local all all peer", "host all all 127.0.0.1/32 scram-sha-256"}, host: "socket",
		want: []string{"ident/peer-rule pg_hba.conf:2"}, added: 1},
	{name: "turned away", hba: []string{"host all synapse_user samehost reject # on purpose?", "host all all 127.0.0.1/32 scram-sha-256"},
		want: []string{"ident/reject-rule pg_hba.conf:2"}, added: 1},
	{name: "no record", hba: []string{"host all all 10.0.0.0/8 scram-sha-256"}, want: []string{"ident/no-rule pg_hba.conf"}, added: 1},
	{name: "encrypted only", hba: []string{"hostssl all all all scram-sha-256"}, want: []string{"ident/hostssl-only pg_hba.conf:2"}, added: 1},
	{name: "a method that Synapse has not", hba: []string{"host all all 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapport=9 ldapprefix=x ldapsuffix=y"},
		want: []string{"ident/other-method pg_hba.conf:2"}, added: 1,
		prepare: func(t *testing.T, b *bench) {
			var refused bool
			if err := b.db.AdminConn(t).QueryRow(t.Context(), "SELECT bool_or(error IS NOT NULL) FROM pg_hba_file_rules").Scan(&refused); err != nil || refused {
				t.Skipf("this server is built without LDAP (%v)", err)
			}
		}},
	{name: "no password", hba: []string{"host all all 127.0.0.1/32 scram-sha-256"}, role: "PASSWORD NULL", want: []string{"ident/role-without-password synapse_user"}},
	{name: "md5 under SCRAM", hba: []string{"host all all 127.0.0.1/32 scram-sha-256"}, role: "md5", want: []string{"ident/hash-mismatch pg_hba.conf:2"}},
	{name: "SCRAM under md5", hba: []string{"host all all 127.0.0.1/32 md5"}},
	{name: "md5 under ident", hba: []string{"host all all 127.0.0.1/32 ident"}, role: "md5", want: []string{"ident/ident-rule pg_hba.conf:2"}, added: 1},
	{name: "another password", hba: []string{"host all all 127.0.0.1/32 md5"}, role: "PASSWORD 'another'", want: []string{"ident/wrong-password synapse_user"}},
	{name: "expired", hba: []string{"host all all 127.0.0.1/32 scram-sha-256"}, role: "VALID UNTIL '2020-02-02'", want: []string{"ident/password-expired synapse_user"}},
	{name: "everything at once", hba: []string{"host synapse all all ident", "host all all all ident"}, role: "VALID UNTIL '2020-02-02' PASSWORD NULL",
		want: []string{"ident/ident-rule pg_hba.conf:3"}, added: 1},
	{name: "trust on this machine", hba: []string{"host all all all trust"}, want: []string{"ident/trust-rule pg_hba.conf:2"}, added: 1},
	{name: "trust and another password", hba: []string{"local all all trust"}, host: "socket", role: "PASSWORD 'another'",
		want: []string{"ident/trust-rule pg_hba.conf:2"}, added: 1},
	{name: "none configured", hba: []string{"host all all all scram-sha-256"}, want: []string{"ident/password-not-configured synapse_user"}, byHand: true,
		prepare: func(_ *testing.T, b *bench) { b.password = "" }},
	{name: "none configured, and one to be made", hba: []string{"host all all all ident"}, want: []string{"ident/ident-rule pg_hba.conf:2"}, added: 1, risen: true,
		prepare: func(_ *testing.T, b *bench) { b.password = "" }},
	{name: "an error in the file", hba: []string{"host all all 127.0.0.1/32 ident", "host all all 127.0.0.1/33 ident"},
		want: []string{"ident/file-error pg_hba.conf:3", "ident/ident-rule pg_hba.conf:2"}, byHand: true},
	{name: "edited so that it would lock Synapse out", hba: []string{"host all all 127.0.0.1/32 scram-sha-256"}, byHand: true,
		want: []string{"ident/ident-rule pg_hba.conf:2", "ident/not-reloaded pg_hba.conf"},
		prepare: func(t *testing.T, b *bench) {
			b.write(t, strings.Replace(b.hba(t), "host all all 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 ident", 1))
		}},
	{name: "edited and not loaded", hba: []string{"host all all 127.0.0.1/32 scram-sha-256"}, want: []string{"ident/not-reloaded pg_hba.conf"},
		prepare: func(t *testing.T, b *bench) {
			b.append(t, "host all all 10.0.0.0/8 scram-sha-256\n")
		}},
	{name: "trust written and not loaded", hba: []string{"host all all 127.0.0.1/32 scram-sha-256"}, want: []string{"ident/not-reloaded pg_hba.conf"}, byHand: true,
		prepare: func(t *testing.T, b *bench) { b.append(t, "host all all 0.0.0.0/0 trust\n") }},
	{name: "the cure stands there and is not loaded", hba: []string{"host all all 127.0.0.1/32 ident"}, want: []string{"ident/not-reloaded pg_hba.conf"},
		prepare: func(t *testing.T, b *bench) {
			b.write(t, strings.Replace(b.hba(t), "host all all 127.0.0.1/32 ident", "host all all 127.0.0.1/32 scram-sha-256", 1))
		}},
	{name: "included", hba: []string{"include more.conf", "host all all all reject"}, want: []string{"ident/ident-rule more.conf:2"},
		prepare: func(t *testing.T, b *bench) {
			if b.major < 16 {
				t.Skip("nothing is included before 16")
			}
			b.server.WriteFile(t, "more.conf", []byte("# from elsewhere\r\nhost all \"synapse_user\" /^127\r\n"))
			b.server.WriteFile(t, "more.conf", []byte("# from elsewhere\r\nhost /^synapse \"synapse_user\",+all 127.0.0.0 255.0.0.0 ident\r\n"))
			b.server.Reload(t)
		}},
}

func TestSynapseIsLetIn(t *testing.T) {
	pgtest.EachMajor(t, nil, func(t *testing.T, server *pgtest.Server) {
		for _, s := range pgtest.Some(stories) {
			t.Run(s.name, func(t *testing.T) { tell(t, server, s) })
		}
	})
}

// tell goes through a story: what is found, that looking and planning change nothing, the cure, and the way back.
func tell(t *testing.T, server *pgtest.Server, s story) {
	b := newBench(t, server, s)
	before, role := b.hba(t), b.rolpassword(t)
	b.finds(t, s.want)
	shown := b.fix(t, false, nil)
	if got := b.hba(t); got != before || b.rolpassword(t) != role {
		t.Fatalf("showing the plan changed something:\n%s", got)
	}
	if len(s.want) == 0 || s.byHand {
		if len(shown.Plans) > 0 {
			t.Errorf("there is the plan %s", shown.Plans[0].Plan.ID)
		}
		b.fix(t, true, nil)
		if got := b.hba(t); got != before {
			t.Errorf("the file was changed:\n%s", got)
		}
		return
	}
	info, err := os.Stat(b.file)
	if err != nil {
		t.Fatal(err)
	}
	b.applied(t, b.fix(t, true, nil))
	b.finds(t, nil)
	b.letsIn(t)
	b.onlyAdded(t, before, s.added)
	if after, err := os.Stat(b.file); err != nil || after.Mode() != info.Mode() || fmt.Sprint(owner(after)) != fmt.Sprint(owner(info)) {
		t.Errorf("the file was %v, and is %v (%v)", info, after, err)
	}
	cured := b.hba(t)
	if again := b.fix(t, true, nil); len(again.Plans) > 0 || b.hba(t) != cured {
		t.Errorf("a second run found something to do: %+v", again.Plans[0].Plan)
	}
	if shown.Plans[0].Plan.Reversible {
		b.undo(t)
		if got := b.hba(t); got != before || b.rolpassword(t) != role {
			t.Errorf("undo left another password, or the file as\n%s\nnot\n%s", got, before)
		}
		b.finds(t, s.want)
	}
}

// bench is a server, a database of it and the homeserver.yaml that goes with them.
type bench struct {
	server   *pgtest.Server
	db       *pgtest.DB
	major    int
	file     string // pg_hba.conf
	host     string
	password string
	config   string
	made     bool
	state    string
	target   *doctor.Target // of the last engine
}

func newBench(t *testing.T, server *pgtest.Server, s story) *bench {
	t.Helper()
	b := &bench{server: server, db: server.Database(t), major: server.Major(t), file: filepath.Join(server.DataDir, "pg_hba.conf"), host: s.host, password: password,
		made: s.risen, state: filepath.Join(t.TempDir(), "state")}
	if b.host == "" {
		b.host = "127.0.0.1"
	}
	if b.host == "socket" {
		b.host = server.SocketDir
	}
	if b.host == "::1" || b.host == "localhost" {
		if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
			t.Skip("this machine has no IPv6")
		} else {
			l.Close()
		}
	}
	admin := b.db.AdminConn(t)
	exec := func(sql string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	literal := "'" + strings.ReplaceAll(password, "'", "''") + "'"
	exec("SET standard_conforming_strings = on")
	if s.role == "md5" {
		exec("SET password_encryption = 'md5'")
	}
	exec("ALTER ROLE synapse_user PASSWORD " + literal + " VALID UNTIL 'infinity'")
	if s.role != "" && s.role != "md5" {
		exec("ALTER ROLE synapse_user " + s.role)
	}

	server.SetHBA(t, s.hba...)
	if s.prepare != nil {
		s.prepare(t, b)
	}
	b.config = filepath.Join(t.TempDir(), "homeserver.yaml")
	text := fmt.Sprintf("server_name: test.example\ndatabase:\n  name: psycopg2\n  args:\n    user: synapse_user\n    dbname: %s\n    host: %q\n    port: %d\n", b.db.Name, b.host, server.Port)
	if b.password != "" {
		text += "    password: '" + strings.ReplaceAll(b.password, "'", "''") + "'\n"
	}
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) hba(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (b *bench) write(t *testing.T, text string) {
	t.Helper()
	now := time.Now() // the kernel's own stamp is some milliseconds old
	if err := errors.Join(os.WriteFile(b.file, []byte(text), 0o600), os.Chtimes(b.file, now, now)); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) append(t *testing.T, text string) { b.write(t, b.hba(t)+text) }

func (b *bench) rolpassword(t *testing.T) string {
	t.Helper()
	var text string
	if err := b.db.AdminConn(t).QueryRow(t.Context(), `SELECT concat(rolpassword, ' until ', rolvaliduntil) FROM pg_authid WHERE rolname = 'synapse_user'`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

func (b *bench) engine(trace func(string)) *engine.Engine {
	settings := pgdb.Settings{"host": b.host, "port": strconv.Itoa(b.server.Port), "user": "synapse_user", "dbname": b.db.Name}
	if b.password != "" {
		settings["password"] = b.password
	}
	if b.made && b.target != nil { // a later run reads what was written
		if made := b.target.Databases[0].Settings["password"]; made != "" {
			settings["password"] = made
		}
	}
	b.target = &doctor.Target{ServerName: "test.example", ConfigFiles: []string{b.config}, SetPassword: b.made,
		Databases: []*doctor.Database{{Label: "main", Engine: doctor.Postgres, DataStores: []string{"main", "state"}, Settings: settings}},
		Admin: &doctor.Database{Label: "admin", Engine: doctor.Postgres, Settings: pgdb.Settings{
			"host": b.server.SocketDir, "port": strconv.Itoa(b.server.Port), "user": "postgres", "dbname": "postgres"}}}
	source := &doctor.Local{PluginName: "builtin", Version: "test", Checks: []doctor.Check{ident.Check}}
	return engine.New(engine.Options{Version: "test", Target: b.target, Sources: []doctor.Source{source}, StateDir: b.state, Trace: trace,
		Redactor: doctor.NewRedactor([]string{b.password}, nil)})
}

// finds runs the check; info is left out.
func (b *bench) finds(t *testing.T, want []string) {
	t.Helper()
	r, err := b.engine(nil).Check(t.Context(), engine.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	c := r.Checks[0]
	var got []string
	for _, f := range c.Findings {
		if f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" {
			t.Errorf("%s of %s lacks its summary, what is observed or expected, or the remedy", f.Code, f.Object.Name)
		}
		if f.Severity > doctor.Info {
			got = append(got, f.Code+" "+filepath.Base(f.Object.Name))
		}
	}
	slices.Sort(got)
	if c.Status == doctor.StatusUnknown || c.Status == doctor.StatusSkipped || !slices.Equal(got, want) {
		t.Errorf("%s (%s), found %q, want %q", c.Status, c.Reason, got, want)
	}
}

func agree(context.Context, doctor.PlanResult) error { return nil }

func (b *bench) fix(t *testing.T, apply bool, trace func(string)) *doctor.FixReport {
	t.Helper()
	r, err := b.engine(trace).Fix(t.Context(), engine.FixOptions{Apply: apply, Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (b *bench) applied(t *testing.T, r *doctor.FixReport) {
	t.Helper()
	if len(r.Plans) != 1 {
		t.Fatalf("%d plans", len(r.Plans))
	}
	if p := r.Plans[0]; p.Status != doctor.PlanApplied {
		t.Fatalf("plan %s is %s: %s", p.Plan.ID, p.Status, p.Reason)
	}
}

func (b *bench) undo(t *testing.T) {
	t.Helper()
	r, err := b.engine(nil).Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Plans[0]; p.Status != doctor.PlanApplied {
		t.Fatalf("undo is %s: %s", p.Status, p.Reason)
	}
	if b.made {
		b.target = nil
	}
}

// letsIn tries what the plan has promised, without the doctor.
func (b *bench) letsIn(t *testing.T) {
	t.Helper()
	settings := b.target.Databases[0].Settings
	connect := func(password string) error {
		c, err := pgdb.Connect(t.Context(), pgdb.Settings{"host": b.host, "port": settings["port"], "user": "synapse_user", "dbname": b.db.Name, "password": password}, pgdb.Options{})
		if err == nil {
			pgdb.Close(c)
		}
		return err
	}
	if err := connect(settings["password"]); err != nil {
		t.Errorf("Synapse is not let in: %v", err)
	}
	if err := connect("wrong"); err == nil {
		t.Error("a wrong password is let in")
	}
}

// onlyAdded compares the lines: every one that was there still is, in its order, and what came is records and comments.
func (b *bench) onlyAdded(t *testing.T, before string, records int) {
	t.Helper()
	rest := b.hba(t)
	added := 0
	old := strings.SplitAfter(before, "\n")
	for line := range strings.Lines(rest) {
		switch {
		case len(old) > 0 && line == old[0]:
			old = old[1:]
		case strings.HasPrefix(line, "# synapse-doctor"), strings.HasPrefix(line, "# The first record"):
		default:
			added++
			if strings.Contains(line, "trust") {
				t.Errorf("trust was written: %s", line)
			}
		}
	}
	if len(strings.Join(old, "")) > 0 || added != records {
		t.Errorf("lines %q are missing, and %d were added, not %d:\n%s", old, added, records, rest)
	}
}

// A kill at any point leaves a server that accepts what it accepted before or what was planned; the next run completes it.
func TestKilledBetweenAnyTwoSteps(t *testing.T) {
	server := pgtest.StartWith(t, pgtest.Config{})
	s := story{name: "killed", hba: []string{"host all all 127.0.0.1/32 ident"}, role: "PASSWORD NULL"}
	for n := 1; ; n++ {
		b := newBench(t, server, s)
		before := b.hba(t)
		point, cut := cutOff(t, b, n)
		if !cut {
			if n < 11 {
				t.Errorf("there were only %d points", n)
			}
			return
		}
		for _, wrong := range []string{"", "wrong", "anything"} {
			settings := pgdb.Settings{"host": b.host, "port": strconv.Itoa(server.Port), "user": "synapse_user", "dbname": b.db.Name, "password": wrong}
			if c, err := pgdb.Connect(t.Context(), settings, pgdb.Options{}); err == nil {
				pgdb.Close(c)
				t.Errorf("killed at %s: the password %q is let in", point, wrong)
			}
		}
		var faults int
		if err := b.db.AdminConn(t).QueryRow(t.Context(), `SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL`).Scan(&faults); err != nil || faults > 0 {
			t.Errorf("killed at %s: %d errors in the file, %v", point, faults, err)
		}
		if r := b.fix(t, true, nil); len(r.Plans) > 0 { // else all had been done
			b.applied(t, r)
		}
		b.letsIn(t)
		b.onlyAdded(t, before, 1)
		b.finds(t, nil)
	}
}

var errCut = errors.New("cut off")

// cutOff applies the plan and stops at the n-th point.
func cutOff(t *testing.T, b *bench, n int) (point string, cut bool) {
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
		}).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
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

// What does not help is put back, and the server is told so.
func TestWhatDoesNotHelpIsPutBack(t *testing.T) {
	server := pgtest.StartWith(t, pgtest.Config{})
	b := newBench(t, server, story{hba: []string{"host all all 127.0.0.1/32 ident"}})
	before, role := b.hba(t), b.rolpassword(t)
	admin := b.db.AdminConn(t)
	// Somebody sets another password in the very moment in which the server loads the file.
	r := b.fix(t, true, func(point string) {
		if strings.HasPrefix(point, "reloaded") {
			if _, err := admin.Exec(t.Context(), "ALTER ROLE synapse_user PASSWORD 'other'"); err != nil {
				t.Error(err)
			}
		}
	})
	if p := r.Plans[0]; p.Status != doctor.PlanFailed || !strings.Contains(p.Reason, "put back") {
		t.Errorf("the plan is %s: %s", p.Status, p.Reason)
	}
	if got := b.hba(t); got != before {
		t.Errorf("the file is\n%s", got)
	}
	if b.rolpassword(t) == role {
		t.Error("the password that somebody else has set was taken back")
	}
	if got := loadedRules(t, admin, b); !strings.Contains(got, "ident") {
		t.Errorf("the server goes by %s", got)
	}
}

// loadedRules tries Synapse's login and says what the server made of it.
func loadedRules(t *testing.T, _ *pgx.Conn, b *bench) string {
	t.Helper()
	_, err := pgdb.Connect(t.Context(), pgdb.Settings{"host": b.host, "port": strconv.Itoa(b.server.Port), "user": "synapse_user", "dbname": b.db.Name, "password": "other"}, pgdb.Options{})
	if failure, ok := errors.AsType[*pgdb.ConnectError](err); ok && failure.SQLSTATE == "28000" {
		return "ident"
	}
	return fmt.Sprint(err)
}

// A server whose postgresql.conf has an error loads nothing: it is not even told to.
func TestAServerThatWouldNotLoadItsFilesIsNotTold(t *testing.T) {
	server := pgtest.StartWith(t, pgtest.Config{})
	b := newBench(t, server, story{hba: []string{"host all all 127.0.0.1/32 ident"}})
	before := b.hba(t)
	conf := filepath.Join(server.DataDir, "postgresql.conf")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, append(text, "\nno such thing\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	p := b.fix(t, true, nil).Plans[0]
	if p.Status == doctor.PlanApplied || !strings.Contains(p.Reason, "postgresql.conf") {
		t.Errorf("the plan is %s: %s", p.Status, p.Reason)
	}
	if got := b.hba(t); got != before {
		t.Errorf("the file is\n%s", got)
	}
	if err := os.WriteFile(conf, text, 0o600); err != nil {
		t.Fatal(err)
	}
	b.applied(t, b.fix(t, true, nil))
}
