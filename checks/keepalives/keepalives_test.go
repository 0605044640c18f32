package keepalives

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestJudge(t *testing.T) {
	three := []string{idle + "=10", interval + "=10", count + "=3"}
	for name, tt := range map[string]struct {
		conninfo string
		code     string
		place    place
		set      []string
		summary  string
	}{
		"no host is a socket":          {"dbname=x", "", socket, nil, ""},
		"a socket directory":           {"host=/run/postgresql keepalives=0", "", socket, nil, ""},
		"an abstract socket":           {"host=@pg", "", socket, nil, ""},
		"loopback by name":             {"host=LocalHost.", NotSet, loopback, three, "No keepalives are set for LocalHost.: "},
		"loopback by address":          {"host=127.3.2.1", NotSet, loopback, three, ""},
		"loopback by IPv6":             {"host=::1", NotSet, loopback, three, ""},
		"mapped loopback":              {"host=::ffff:127.0.0.1", NotSet, loopback, three, ""},
		"another host":                 {"host=db", NotSet, network, three, "No keepalives are set for db: Synapse notices a dead connection only after the operating system's two hours."},
		"another address":              {"host=10.0.0.1", NotSet, network, three, ""},
		"hostaddr counts before host":  {"host=localhost hostaddr=10.0.0.1", NotSet, network, three, "No keepalives are set for 10.0.0.1: "},
		"hostaddr is loopback":         {"host=db hostaddr=127.0.0.1", NotSet, loopback, three, ""},
		"the worst of several hosts":   {"host=/run/pg,localhost,db", NotSet, network, three, "No keepalives are set for db: "},
		"all set":                      {"host=db keepalives_idle=10 keepalives_interval=10 keepalives_count=3", "", network, nil, ""},
		"all set, and on":              {"host=db keepalives=1 keepalives_idle=60 keepalives_interval=30 keepalives_count=5", "", network, nil, ""},
		"tcp_user_timeout may be away": {"host=db keepalives=2 keepalives_idle=' 10 ' keepalives_interval=10 keepalives_count=3", "", network, nil, ""},
		"only idle": {"host=db keepalives_idle=60", HalfSet, network, three[1:],
			"Only some keepalive settings are there for db; with Linux's own values for the rest a dead connection is noticed after 12 minutes."},
		"idle is missing": {"host=db keepalives_interval=10 keepalives_count=3", HalfSet, network, three[:1],
			"Only some keepalive settings are there for db; with Linux's own values for the rest a dead connection is noticed after 2 hours."},
		"only tcp_user_timeout": {"host=db tcp_user_timeout=30000", NotSet, network, three, ""},
		"switched off": {"host=db keepalives=0", SwitchedOff, network, slices.Concat([]string{"keepalives=1"}, three),
			"Keepalives to db are switched off: Synapse never notices that an idle connection has died."},
		"switched off, rest sound": {"host=db keepalives=0 keepalives_idle=10 keepalives_interval=10 keepalives_count=3", SwitchedOff, network, []string{"keepalives=1"}, ""},
		"off hides what libpq does not read": {"host=db keepalives=0 keepalives_idle=abc keepalives_interval=10 keepalives_count=3", SwitchedOff, network,
			[]string{"keepalives=1", three[0]}, ""},
		"YAML's true": {"host=db keepalives=True keepalives_idle=10 keepalives_interval=10 keepalives_count=3", Invalid, network, []string{"keepalives=1"},
			"Synapse cannot connect to db: keepalives has a value that libpq or the operating system refuses."},
		"zero":           {"host=db keepalives_idle=10 keepalives_interval=0 keepalives_count=3", Invalid, network, three[1:2], "Synapse cannot connect to db: keepalives_interval has"},
		"negative":       {"host=db keepalives_idle=-1 keepalives_interval=10 keepalives_count=3", Invalid, network, three[:1], ""},
		"no number":      {"host=db keepalives_idle=10s", Invalid, network, three, ""},
		"no whole one":   {"host=db keepalives_idle=10.0 keepalives_interval=10 keepalives_count=3", Invalid, network, three[:1], ""},
		"empty":          {"host=db keepalives_idle='' keepalives_interval=10 keepalives_count=3", Invalid, network, three[:1], ""},
		"too many":       {"host=db keepalives_idle=10 keepalives_interval=10 keepalives_count=128", Invalid, network, three[2:], ""},
		"most":           {"host=db keepalives_idle=10 keepalives_interval=1 keepalives_count=127", "", network, nil, ""},
		"beyond an int":  {"host=db keepalives_idle=10 keepalives_interval=10 keepalives_count=3 keepalives=4294967296", Invalid, network, []string{"keepalives=1"}, ""},
		"too slow":       {"host=db keepalives_idle=7200 keepalives_interval=75 keepalives_count=9", TooSlow, network, three, "Synapse notices a dead connection to db only after 2 hours."},
		"just not slow":  {"host=db keepalives_idle=600 keepalives_interval=60 keepalives_count=5", "", network, nil, ""},
		"just too slow":  {"host=db keepalives_idle=601 keepalives_interval=60 keepalives_count=5", TooSlow, network, three, ""},
		"too fast":       {"host=localhost keepalives_idle=1 keepalives_interval=1 keepalives_count=3", TooFast, loopback, three, "Synapse gives a connection to localhost up after 4 seconds"},
		"just fast":      {"host=db keepalives_idle=1 keepalives_interval=1 keepalives_count=4", "", network, nil, ""},
		"IPv6 elsewhere": {"host=2001:db8::1", NotSet, network, three, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := pgdb.Parse(tt.conninfo)
			if err != nil {
				t.Fatal(err)
			}
			v, found := judge(s, limitsOf(&doctor.Target{}))
			if found != (tt.code != "") || v.code != tt.code || v.place != tt.place {
				t.Fatalf("code %q place %d, want %q %d", v.code, v.place, tt.code, tt.place)
			}
			var set []string
			for _, s := range v.set {
				set = append(set, s.Keyword+"="+map[any]string{1: "1", 3: "3", 10: "10"}[s.Value])
			}
			if found && !slices.Equal(set, tt.set) {
				t.Errorf("sets %q, want %q", set, tt.set)
			}
			if !strings.HasPrefix(v.summary, tt.summary) {
				t.Errorf("summary %q, want %q", v.summary, tt.summary)
			}
			for _, setting := range v.set {
				s[setting.Keyword] = map[any]string{1: "1", 3: "3", 10: "10"}[setting.Value]
			}
			if again, found := judge(s, limitsOf(&doctor.Target{})); found {
				t.Errorf("with the settings made: %+v", again)
			}
		})
	}
}

type collector struct{ found []doctor.Finding }

func (c *collector) Find(f doctor.Finding)    { c.found = append(c.found, f) }
func (c *collector) Progress(doctor.Progress) {}
func (c *collector) Covered(string)           {}
func (c *collector) Measure(doctor.Measure)   {}

// write makes the file and a target that reads it.
func write(t *testing.T, content string) (string, *doctor.Target) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "homeserver.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, &doctor.Target{ConfigFiles: []string{path}}
}

func examine(t *testing.T, target *doctor.Target) []doctor.Finding {
	t.Helper()
	var c collector
	if err := Check.Run(t.Context(), target, &c); err != nil {
		t.Fatal(err)
	}
	return c.found
}

const oneDatabase = `server_name: test.example
database:
  name: psycopg2
  args:   # the server in the cellar
    host: db
    password: pl4nted-S3cret
    keepalives_idle: 0   # system's
`

func TestFindingSaysWhatToWriteWhere(t *testing.T) {
	path, target := write(t, oneDatabase)
	found := examine(t, target)
	if len(found) != 1 {
		t.Fatalf("found %+v", found)
	}
	f := found[0]
	if f.Code != Invalid || f.Severity != doctor.Error || f.Database != "main" || !f.Fixable || f.Object != (doctor.Object{Kind: "file", Name: path + ":4"}) {
		t.Errorf("found %+v", f)
	}
	if f.Observed != "keepalives_idle: 0" {
		t.Errorf("observed %q", f.Observed)
	}
	want := "In " + path + ", below args of the database (line 4), set:\n    keepalives_idle: 10\n    keepalives_interval: 10\n    keepalives_count: 3\nThen restart"
	if !strings.HasPrefix(f.Remedy, want) {
		t.Errorf("remedy %q", f.Remedy)
	}
	if f.Evidence["host"] != "db" || f.Evidence["this machine's tcp_keepalive_time"] == "" {
		t.Errorf("evidence %q", f.Evidence)
	}
}

func TestSeverityFollowsTheNetwork(t *testing.T) {
	for host, want := range map[string]doctor.Severity{"localhost": doctor.Info, "db": doctor.Warning} {
		_, target := write(t, "server_name: a\ndatabase: {name: psycopg2, args: {host: "+host+"}}\n")
		if found := examine(t, target); len(found) != 1 || found[0].Severity != want || found[0].Code != NotSet {
			t.Errorf("%s: %+v", host, found)
		}
	}
}

func TestWhatNeedsNoKeepalives(t *testing.T) {
	for name, content := range map[string]string{
		"socket":   "server_name: a\ndatabase: {name: psycopg2, args: {host: /run/pg}}\n",
		"SQLite":   "server_name: a\ndatabase: {name: sqlite3, args: {database: /x.db}}\n",
		"in a dsn": "server_name: a\ndatabase: {name: psycopg2, args: {dsn: 'postgresql://db/x?keepalives_idle=10&keepalives_interval=10&keepalives_count=3'}}\n",
	} {
		_, target := write(t, content)
		if found := examine(t, target); len(found) > 0 {
			t.Errorf("%s: %+v", name, found)
		}
	}
}

func TestHostFromTheEnvironmentCounts(t *testing.T) {
	_, target := write(t, "server_name: a\ndatabase: {name: psycopg2, args: {user: u}}\n")
	if found := examine(t, target); len(found) > 0 {
		t.Errorf("without a host it is the socket: %+v", found)
	}
	target.Databases = []*doctor.Database{{Label: "main", Engine: doctor.Postgres, Settings: pgdb.Settings{"host": "db", "port": "5432"}}}
	if found := examine(t, target); len(found) != 1 || found[0].Code != NotSet {
		t.Errorf("PGHOST=db: %+v", found)
	}
	target.Databases[0].Settings = pgdb.Settings{"host": "db", idle: "10", interval: "10", count: "3"} // a service file
	if found := examine(t, target); len(found) > 0 {
		t.Errorf("keepalives of a service file: %+v", found)
	}
}

func TestConfigurationThatCannotBeReadIsNoHealth(t *testing.T) {
	for name, content := range map[string]string{
		"broken":          "a: b: c",
		"unknown keyword": "server_name: a\ndatabase: {name: psycopg2, args: {hots: db}}\n",
	} {
		_, target := write(t, content)
		var c collector
		if err := Check.Run(t.Context(), target, &c); err == nil || !strings.Contains(err.Error(), "homeserver.yaml:") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// apply does what the host does with edit-file steps, and returns the manual texts.
func apply(t *testing.T, p doctor.Plan) (manual []string) {
	t.Helper()
	for _, step := range p.Steps {
		switch step.Kind() {
		case doctor.KindManual:
			manual = append(manual, step.Manual.Text)
		case doctor.KindEditFile:
			e := step.EditFile
			content, err := os.ReadFile(e.Path)
			if err != nil {
				t.Fatal(err)
			}
			if hash(content) != e.Before || e.Format != "yaml" {
				t.Errorf("the step does not fit the file: %+v", e)
			}
			var splices []synapse.Splice
			for _, s := range e.Splices {
				splices = append(splices, synapse.Splice(s))
			}
			edited, err := synapse.Apply(content, splices)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(e.Path, edited, 0o600); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("a step %q", step.Kind())
		}
	}
	return manual
}

func plans(t *testing.T, target *doctor.Target) []doctor.Plan {
	t.Helper()
	p, err := Check.Plan(t.Context(), target, examine(t, target))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlanCuresAndKeepsTheRest(t *testing.T) {
	path, target := write(t, oneDatabase)
	got := plans(t, target)
	if len(got) != 1 || got[0].ID != "keepalives/set" || got[0].Risk != doctor.Safe || got[0].Expects != doctor.ExpectNone || !got[0].Reversible {
		t.Fatalf("plans %+v", got)
	}
	if now, _ := os.ReadFile(path); string(now) != oneDatabase {
		t.Error("planning changed the file")
	}
	if manual := apply(t, got[0]); len(manual) != 1 || !strings.Contains(manual[0], "\n    systemctl restart matrix-synapse") {
		t.Errorf("manual steps %q", manual)
	}
	now, _ := os.ReadFile(path)
	want := strings.Replace(oneDatabase, "keepalives_idle: 0 ", "keepalives_idle: 10 ", 1) + "    keepalives_interval: 10\n    keepalives_count: 3\n"
	if string(now) != want {
		t.Errorf("the file is\n%s\nwant\n%s", now, want)
	}
	if found := examine(t, target); len(found) > 0 {
		t.Errorf("not cured: %+v", found)
	}
	if again := plans(t, target); len(again) > 0 {
		t.Errorf("still planned: %+v", again)
	}
}

func TestPlanPutsKeywordsBesideADSN(t *testing.T) {
	path, target := write(t, "server_name: a\ndatabase:\n  name: psycopg2\n  args:\n    dsn: host=db keepalives=0\n")
	got := plans(t, target)
	apply(t, got[0])
	now, _ := os.ReadFile(path)
	if !strings.HasSuffix(string(now), "dsn: host=db keepalives=0\n    keepalives: 1\n    keepalives_idle: 10\n    keepalives_interval: 10\n    keepalives_count: 3\n") {
		t.Errorf("the file is\n%s", now)
	}
	if found := examine(t, target); len(found) > 0 {
		t.Errorf("not cured: %+v", found)
	}
}

const twoDatabases = `server_name: a
databases:
  one: {name: psycopg2, data_stores: [main], args: {host: db}}
  two: {name: psycopg2, data_stores: [state], args: {host: db2, keepalives_idle: 5}}
`

func TestTwoDatabasesOfOneFileAreOnePlan(t *testing.T) {
	path, target := write(t, twoDatabases)
	found := examine(t, target)
	slices.Reverse(found)
	got, err := Check.Plan(t.Context(), target, found)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].ID != "keepalives/set-one" || len(got[0].Covers) != 2 {
		t.Fatalf("plans %+v", got)
	}
	apply(t, got[0])
	if left := examine(t, target); len(left) > 0 {
		now, _ := os.ReadFile(path)
		t.Errorf("not cured: %+v\n%s", left, now)
	}
	_, target = write(t, twoDatabases)
	if got, err = Check.Plan(t.Context(), target, found[:1]); err != nil || len(got) != 1 || got[0].ID != "keepalives/set-two" {
		t.Errorf("one finding of two: %+v, %v", got, err)
	}
}

func TestArgsThatStandInAnotherOrderThanTheDatabases(t *testing.T) {
	_, target := write(t, `server_name: a
x-two: &two {host: db2}
x-one: &one {host: db}
databases:
  one: {name: psycopg2, data_stores: [main], args: *one}
  two: {name: psycopg2, data_stores: [state], args: *two}
`)
	got := plans(t, target)
	if len(got) != 1 || got[0].Manual() {
		t.Fatalf("plans %+v", got)
	}
	apply(t, got[0])
	if left := examine(t, target); len(left) > 0 {
		t.Errorf("not cured: %+v", left)
	}
}

func TestEditIsInTheFileThatWins(t *testing.T) {
	path, target := write(t, oneDatabase)
	later, _ := write(t, "database: {name: psycopg2, args: {host: other}}\n")
	target.ConfigFiles = append(target.ConfigFiles, later)
	got := plans(t, target)
	if len(got) != 1 || got[0].Steps[0].EditFile.Path != later {
		t.Fatalf("plans %+v", got)
	}
	apply(t, got[0])
	if first, _ := os.ReadFile(path); string(first) != oneDatabase {
		t.Errorf("the other file changed: %s", first)
	}
}

func TestWhatCannotBeEditedIsAskedOfAPerson(t *testing.T) {
	path, target := write(t, `server_name: a
databases:
  one:
    name: psycopg2
    data_stores: [main]
    args: &pg {host: db}
  main:
    name: psycopg2
    data_stores: [state]
    args: {<<: *pg}
`)
	found := examine(t, target)
	if len(found) != 2 || found[0].Fixable || !found[1].Fixable {
		t.Fatalf("found %+v", found)
	}
	got := plans(t, target)
	if len(got) != 2 || got[0].ID != "keepalives/set" || got[0].Manual() || got[1].ID != "keepalives/set-one" || !got[1].Manual() {
		t.Fatalf("plans %+v", got)
	}
	text := got[1].Steps[0].Manual.Text
	if !strings.HasPrefix(text, "The doctor does not edit "+path+" itself: an edit there would change something else too") ||
		!strings.HasSuffix(text, "Below args of the database one (line 6), write:\n    keepalives_idle: 10\n    keepalives_interval: 10\n    keepalives_count: 3") {
		t.Errorf("text %q", text)
	}
}

func TestEveryCodeIsDeclared(t *testing.T) {
	var declared []string
	for _, c := range Check.Codes {
		declared = append(declared, c.ID)
	}
	want := []string{Invalid, NotSet, SwitchedOff, HalfSet, TooSlow, TooFast}
	if !reflect.DeepEqual(declared, want) || len([]rune(Check.Title)) > 60 {
		t.Errorf("codes %q", declared)
	}
}

func TestServersOwnValuesAreEvidence(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	path := db.Homeserver(t)
	s, err := pgdb.Parse(db.DSN())
	if err != nil {
		t.Fatal(err)
	}
	target := &doctor.Target{ConfigFiles: []string{path}, Databases: []*doctor.Database{
		{Label: "main", Engine: doctor.Postgres, Settings: s, Meets: doctor.NeedsPostgres}}}
	target.Bind()
	defer target.Close()
	found := examine(t, target)
	if len(found) != 1 || found[0].Severity != doctor.Info || found[0].Evidence["server's tcp_keepalives_idle"] == "" {
		t.Errorf("found %+v", found)
	}
	if len(found) == 1 && strings.Contains(strings.Join(slices.Collect(maps.Values(found[0].Evidence)), " "), db.Password) {
		t.Error("the password is among the evidence")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	evidence := map[string]string{}
	addEvidence(ctx, target.Databases[0], evidence)
	if evidence["server's tcp_keepalives_idle"] != "" {
		t.Error("asked a server that could not be asked")
	}
}
