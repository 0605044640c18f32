package port

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// oddFile has a text with a NUL, one with bytes that are no UTF-8, and a number that is too large for its column.
const oddFile = soundFile + `
INSERT INTO account_data VALUES ('@anna:test.example', 'nul', 3, '{"a":"' || char(0) || '"}', 'master'), ('@anna:test.example', 'bytes', 4, CAST(x'7bff7d' AS TEXT), 'master');
INSERT INTO users (name, admin) VALUES ('@max:test.example', 70000);`

// bench is a file, a database and the doctor's state.
type bench struct {
	t     *testing.T
	file  string
	db    *pgtest.DB
	state string
}

func newBench(t *testing.T, script, setup string) *bench {
	return &bench{t, sqliteFile(t, script), pgtest.Start(t).Database(t, pgtest.WithSetup(setup)), filepath.Join(t.TempDir(), "state")}
}

func (b *bench) target() *doctor.Target {
	return &doctor.Target{ServerName: "test.example", RunID: engine.NewRunID(time.Now()), Databases: []*doctor.Database{postgres(b.db), sqlite(b.file, "sqlite")}}
}

// finds runs the check and compares the codes, with the objects, that it finds beside the one of the server's disk.
func (b *bench) finds(want ...string) *collector {
	b.t.Helper()
	c, _, err := examinePair(b.t, b.file, postgres(b.db), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	c.found = slices.DeleteFunc(c.found, func(f doctor.Finding) bool { return f.Code == RoomNotSeen })
	got := c.codes()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		b.t.Errorf("found\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	for _, f := range c.found {
		if f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" {
			b.t.Errorf("%s of %s lacks something: %+v", f.Code, f.Object.Name, f)
		}
	}
	return c
}

// fix applies the plans, and returns what became of the one with this id.
func (b *bench) fix(plan string, preferred ...string) doctor.PlanResult {
	b.t.Helper()
	target := b.target()
	target.Applying = true
	r, err := runWith(b.t, Check, target, b.state).Fix(b.t.Context(), engine.FixOptions{Apply: true, Consent: agree, Preferred: preferred})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, p := range r.Plans {
		if p.Plan.ID == plan {
			return p
		}
	}
	b.t.Fatalf("there is no plan %s: %+v", plan, r.Plans)
	return doctor.PlanResult{}
}

func (b *bench) applied(plan string, preferred ...string) {
	b.t.Helper()
	if p := b.fix(plan, preferred...); p.Status != doctor.PlanApplied {
		b.t.Fatalf("%s is %s: %s", plan, p.Status, p.Reason)
	}
}

func TestAPortFromTheFirstRunToTheDayAfter(t *testing.T) {
	b := newBench(t, oddFile, fresh)
	name := b.db.Name
	c := b.finds(NotPorted+" "+name, OddCells+" account_data.content", Unstorable+" users.admin")
	if f := c.one(t, OddCells); !strings.HasPrefix(f.Summary, "2 values in account_data.content") || !strings.Contains(f.Evidence["rows"], "nul") {
		t.Errorf("odd cells: %+v", f)
	}
	b.applied("port/copy")
	left := []string{CellsChanged + " account_data", RowsQuarantined + " users", UpdatesQueued + " background_updates"}
	c = b.finds(left...)
	if f := c.one(t, RowsQuarantined); !strings.HasPrefix(f.Summary, "1 row of users") || !strings.Contains(f.Observed, "port_quarantine") {
		t.Errorf("quarantine: %+v", f)
	}

	change(t, b.file, `UPDATE users SET password_hash = 'new' WHERE name = '@ben:test.example'; DELETE FROM users WHERE name = '@max:test.example'`)
	if f := b.finds(append(left, FileChanged+" "+name)...).one(t, FileChanged); !f.Fixable {
		t.Error("the port can't be run again")
	}
	b.applied("port/copy")
	left = slices.DeleteFunc(left, func(s string) bool { return strings.HasPrefix(s, RowsQuarantined) })
	b.finds(left...)

	// Without the file the record tells.
	alone := &collector{}
	target := b.target()
	target.Databases = target.Databases[:1]
	if err := Check.Run(t.Context(), target, alone); err != nil {
		t.Fatal(err)
	}
	target.Close()
	if got := alone.codes(); len(got) != 2 || !slices.Contains(got, CellsChanged+" account_data") {
		t.Errorf("without the file: %v", got)
	}

	// Somebody drops what the port has made: an index that the port still has to make, and a unique one.
	b.db.Exec(t, `INSERT INTO synapse_doctor.port_object VALUES ('index', 'public.users', 'users_x', 'CREATE INDEX users_x ON public.users (name)');
		DROP INDEX users_name_key`)
	b.finds(append(left, IndexMissing+" users_x", IndexMissing+" users (name)")...)
	b.db.Exec(t, `DELETE FROM synapse_doctor.port_object; CREATE UNIQUE INDEX users_name_key ON users (name)`)

	// A port that was begun again and killed.
	b.db.Exec(t, `UPDATE synapse_doctor.port SET stage = 'loading'`)
	unfinished := b.finds(append(slices.DeleteFunc(slices.Clone(left), func(s string) bool { return strings.HasPrefix(s, UpdatesQueued) }), Unfinished+" "+name)...)
	if f := unfinished.one(t, Unfinished); !f.Fixable || f.Severity != doctor.Error {
		t.Errorf("unfinished: %+v", f)
	}
	b.applied("port/copy")
	b.finds(left...)

	// Synapse runs on PostgreSQL; then somebody starts it on SQLite once more.
	b.db.Exec(t, `INSERT INTO account_data VALUES ('@ben:test.example', 'later', 10, '{}', 'master'); SELECT pg_stat_force_next_flush()`)
	if f := b.finds(append(left, WrittenSince+" "+name)...).one(t, WrittenSince); f.Severity != doctor.Info {
		t.Errorf("in use: %+v", f)
	}
	change(t, b.file, `UPDATE users SET password_hash = 'newer' WHERE name = '@ben:test.example'`)
	c = b.finds(append(left, WrittenSince+" "+name)...)
	if f := c.one(t, WrittenSince); f.Severity != doctor.Error || !strings.Contains(f.Observed, "account_data") {
		t.Errorf("both in use: %+v", f)
	}
	if plans, err := Check.Plan(t.Context(), b.target(), c.found); err != nil || len(plans) > 0 {
		t.Errorf("plans %+v, %v", plans, err)
	}
}

func TestAPortOfAnotherHomeserverWasBegun(t *testing.T) {
	b := newBench(t, soundFile, fresh)
	b.applied("port/copy")
	change(t, b.file, `DELETE FROM users; INSERT INTO users (name, creation_ts) VALUES ('@anna:test.example', 1800000000)`)
	c := b.finds(FileChanged+" "+b.db.Name, Other+" "+b.db.Name, UpdatesQueued+" background_updates")
	if c.one(t, FileChanged).Fixable {
		t.Error("another homeserver of the same name could be ported over it")
	}
}

func TestAfterAPortTheConfigurationIsSwitched(t *testing.T) {
	b := newBench(t, soundFile, fresh)
	config := homeserver(t, b.file)
	section := overSection(t, b.db)
	also := func(t *doctor.Target) { t.ConfigFiles, t.PostgresConfig = []string{config}, section }
	c, target, err := examinePair(t, b.file, postgres(b.db), also)
	if err != nil || c.one(t, NotPorted).Code == "" || slices.Contains(c.only(), StillOnSQLite) {
		t.Fatalf("found %v, %v", c.codes(), err)
	}
	plans, err := Check.Plan(t.Context(), target, c.found)
	if err != nil || !slices.Equal(plans[0].Requires, []doctor.Requirement{doctor.RequireStopped}) || len(plans[0].Steps) != 3 {
		t.Errorf("the plan for the file itself: %+v, %v", plans, err)
	}
	b.applied("port/copy")
	if c, _, err = examinePair(t, b.file, postgres(b.db), also); err != nil || !c.one(t, StillOnSQLite).Fixable {
		t.Errorf("found %v, %v", c.codes(), err)
	}
	if c, _, err = examinePair(t, b.file, postgres(b.db), nil); err != nil || slices.Contains(c.only(), StillOnSQLite) {
		t.Errorf("without --postgres-config: %v, %v", c.codes(), err)
	}
	change(t, b.file, `UPDATE users SET password_hash = 'new'`)
	if c, _, err = examinePair(t, b.file, postgres(b.db), also); err != nil || slices.Contains(c.only(), StillOnSQLite) {
		t.Errorf("with a file that has changed since: %v, %v", c.codes(), err)
	}
}

// scripted is what Synapse's script makes of soundFile.
const scripted = `
CREATE TABLE port_from_sqlite3 (table_name varchar(100) NOT NULL UNIQUE, forward_rowid bigint NOT NULL, backward_rowid bigint NOT NULL);
ALTER TABLE pushers ADD COLUMN ts bigint;
INSERT INTO users (name, creation_ts) VALUES ('@anna:test.example', 1700000000), ('@ben:test.example', 1700000001);
INSERT INTO account_data VALUES ('@anna:test.example', 'm.push_rules', 2, '{}', 'master');`

func TestAPortBySynapsesScriptIsComparedWithTheFile(t *testing.T) {
	const remains = ScriptRemains + " port_from_sqlite3"
	for name, tt := range map[string]struct {
		change   string
		want     []string
		severity doctor.Severity
		replaced bool
	}{
		"equal":                    {"", []string{remains}, doctor.Info, false},
		"NULL became FALSE":        {`UPDATE users SET approved = false`, []string{remains, BooleanNullLost + " users.approved", ContentDiffers + " users"}, doctor.Warning, true},
		"an old password":          {`UPDATE users SET password_hash = 'old' WHERE name = '@ben:test.example'`, []string{remains, ContentDiffers + " users"}, doctor.Warning, true},
		"a row was dropped":        {`DELETE FROM account_data`, []string{remains, RowsMissing + " account_data"}, doctor.Warning, true},
		"a deleted row has stayed": {`INSERT INTO account_data VALUES ('@ben:test.example', 'x', 1, '{}', 'master')`, []string{remains, RowsSurplus + " account_data"}, doctor.Warning, true},
		"escaped and frozen": {`UPDATE account_data SET content = '\x7b7d'; UPDATE user_directory_stream_pos SET stream_id = NULL`,
			[]string{remains, EscapedJSON + " account_data", ContentDiffers + " account_data", DirectoryFrozen + " user_directory_stream_pos"}, doctor.Warning, true},
		"a unique index is missing": {`DROP INDEX users_name_key`, []string{remains, IndexMissing + " users (name)"}, doctor.Info, false},
		"Synapse has gone on":       {`INSERT INTO users (name, creation_ts) VALUES ('@new:test.example', 1800000000)`, []string{remains, RowsSurplus + " users"}, doctor.Info, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, soundFile, fresh+scripted)
			b.db.Exec(t, tt.change)
			c := b.finds(tt.want...)
			if f := c.one(t, ScriptRemains); f.Severity != tt.severity || f.Fixable != tt.replaced {
				t.Errorf("%s, fixable %t: %s", f.Severity, f.Fixable, f.Summary)
			}
			plans, err := Check.Plan(t.Context(), b.target(), c.found)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, p := range plans {
				ids = append(ids, p.ID)
			}
			if slices.Contains(ids, "port/replace") != tt.replaced || tt.replaced && slices.Index(ids, "port/keep") > slices.Index(ids, "port/replace") {
				t.Errorf("plans %v", ids)
			}
		})
	}
}

func TestWhatTheScriptHasPortedIsReplacedWhenAskedFor(t *testing.T) {
	b := newBench(t, soundFile, fresh+scripted)
	b.db.Exec(t, `UPDATE users SET password_hash = 'old'`)
	if p := b.fix("port/replace"); p.Chosen {
		t.Fatal("it is replaced without being asked for")
	}
	b.applied("port/replace", "port/replace")
	b.finds(UpdatesQueued + " background_updates")
}
