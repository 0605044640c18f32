package version

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func day(s string) time.Time {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return t
}

// today is a day on which 14 to 18 are maintained and none ends soon.
var today = day("2026-03-01")

func codes(found []doctor.Finding) string {
	var all []string
	for _, f := range found {
		all = append(all, fmt.Sprintf("%s %s", strings.TrimPrefix(f.Code, "version/"), f.Severity))
	}
	return strings.Join(all, ", ")
}

func sound(change func(*facts)) facts {
	f := facts{database: "synapse", versionNum: 150018, version: "15.18", hasSchema: true, hasVersion: true, schema: 94, upgraded: true, compat: 84}
	if change != nil {
		change(&f)
	}
	return f
}

func TestServerAndSchema(t *testing.T) {
	for name, tt := range map[string]struct {
		change  func(*facts)
		want    string
		summary string
	}{
		"sound":              {nil, "", ""},
		"sound on 18":        {func(f *facts) { f.versionNum = 180001 }, "", ""},
		"least of all":       {func(f *facts) { f.versionNum = 140000 }, "", ""},
		"older sound schema": {func(f *facts) { f.schema, f.compat = 72, 72 }, "", ""},
		"13 is too old for 94": {func(f *facts) { f.versionNum = 130014 }, "too-old-for-synapse error, end-of-life warning",
			"PostgreSQL 13 is too old: Synapse 1.151.0 or newer, which this schema belongs to, needs PostgreSQL 14 and refuses to start."},
		"13 will be too old": {func(f *facts) { f.versionNum, f.schema = 130014, 92 }, "too-old-for-newer-synapse info, end-of-life warning",
			"PostgreSQL 13 works with Synapse up to 1.142.1 only; newer releases refuse to start on it."},
		"11 by the oldest of its schema": {func(f *facts) { f.versionNum, f.schema = 110022, 88 }, "too-old-for-newer-synapse info, end-of-life warning",
			"PostgreSQL 11 works with Synapse up to 1.121.1 only"},
		"10 under schema 88": {func(f *facts) { f.versionNum, f.schema = 100023, 88 }, "too-old-for-synapse error, end-of-life warning",
			"PostgreSQL 10 is too old: Synapse 1.116.0 to 1.123.0, which this schema belongs to, needs PostgreSQL 11"},
		"9.5 under 1.31": {func(f *facts) { f.versionNum, f.schema, f.compat = 90525, 59, 0 }, "too-old-for-newer-synapse info, end-of-life warning",
			"PostgreSQL 9.5 works with Synapse up to 1.31.0 only"},
		"9.4": {func(f *facts) { f.versionNum, f.hasSchema, f.hasVersion = 90426, false, false }, "end-of-life warning", "PostgreSQL 9.4 has had no fixes since"},
		"unknown schema wants at least what the newest wants": {func(f *facts) { f.versionNum, f.schema = 130000, 99 },
			"too-old-for-synapse error, end-of-life warning, unknown-schema info", "PostgreSQL 13 is too old: a Synapse newer than 1.157.1, which"},
		"a schema from the future":   {func(f *facts) { f.schema = 95 }, "unknown-schema info", "The schema's version 95 is newer than this doctor knows"},
		"a schema between releases":  {func(f *facts) { f.schema, f.compat = 75, 74 }, "unknown-schema info", "No final release of Synapse that this doctor knows has schema version 75."},
		"PostgreSQL from the future": {func(f *facts) { f.versionNum = 190000 }, "unknown-postgres info", "PostgreSQL 19 is newer"},
		"no schema of Synapse":       {func(f *facts) { f.hasSchema, f.hasVersion, f.versionNum = false, false, 130000 }, "end-of-life warning", ""},
		"no row":                     {func(f *facts) { f.hasVersion, f.schema, f.compat = false, 0, 0 }, "no-schema-version error", "The table schema_version is empty"},
		"compat ahead": {func(f *facts) { f.schema = 73 }, "compat-ahead-of-schema error",
			"An upgrade of the schema stopped half way: it is at version 73, but marked as unfit for any Synapse whose schema is below 84."},
		"compat the same": {func(f *facts) { f.compat = 94 }, "", ""},
		"standby":         {func(f *facts) { f.inRecovery = true }, "in-recovery error", "This server is a standby"},
	} {
		t.Run(name, func(t *testing.T) {
			found := judge(sound(tt.change), today, int(notice.Default))
			if got := codes(found); got != tt.want {
				t.Fatalf("found %q, want %q", got, tt.want)
			}
			if len(found) > 0 && !strings.HasPrefix(found[0].Summary, tt.summary) {
				t.Errorf("summary %q, want %q", found[0].Summary, tt.summary)
			}
		})
	}
}

func TestEndOfLifeIsADay(t *testing.T) {
	for now, want := range map[string]string{
		"2027-05-12": "",
		"2027-05-13": "end-of-life-soon info",
		"2027-11-11": "end-of-life-soon info", // the last fixes come on this day
		"2027-11-12": "end-of-life warning",
	} {
		if got := codes(judge(sound(nil), day(now), int(notice.Default))); got != want {
			t.Errorf("PostgreSQL 15 on %s: %q, want %q", now, got, want)
		}
	}
	found := judge(sound(nil), day("2028-01-01"), int(notice.Default))
	if len(found) != 1 || found[0].Object.Name != "PostgreSQL 15" || !strings.Contains(found[0].Remedy, "\n    pg_upgradecluster 15 main\n") {
		t.Errorf("found %+v", found)
	}
}

func TestLifetimesAreInOrder(t *testing.T) {
	for i, l := range lifetimes {
		day(l.end)
		if majorName(l.num) != l.name || major(l.num+7) != l.num || i > 0 && l.end <= lifetimes[i-1].end {
			t.Errorf("%+v", l)
		}
	}
}

func TestTheWayBackIsEvidence(t *testing.T) {
	e := judge(sound(func(f *facts) { f.versionNum, f.schema = 130000, 92 }), today, int(notice.Default))[0].Evidence
	want := map[string]string{"schema_version": "92", "schema_compat_version": "84", "schema made": "by an upgrade", "server_version": "15.18",
		"schema of": "Synapse 1.129.0 to 1.142.1", "oldest Synapse that can still start": "1.100.0"}
	if !maps.Equal(e, want) {
		t.Errorf("evidence %q, want %q", e, want)
	}
}

func TestQueuedUpdatesAreAdviceAndStuckOnesAreNot(t *testing.T) {
	for name, tt := range map[string]struct {
		updates  []update
		invalid  []string
		want     string
		summary  string
		evidence map[string]string
	}{
		"none":                     {want: ""},
		"none, but a broken index": {invalid: []string{"x"}, want: ""},
		"one": {updates: []update{{name: "a"}}, want: "background-updates-pending info",
			summary: "One background update is queued, which Synapse works off", evidence: map[string]string{"can run": "a"}},
		"waiting, begun, and waiting for what is done": {
			updates: []update{{name: "a", begun: true}, {name: "b", dependsOn: "a"}, {name: "c", dependsOn: "gone"}},
			want:    "background-updates-pending info", summary: "3 background updates are queued",
			evidence: map[string]string{"can run": "a, c", "waiting": "b after a", "has begun": "a"}},
		"a circle": {
			updates: []update{{name: "a", dependsOn: "c"}, {name: "b", dependsOn: "a"}, {name: "c", dependsOn: "b"}, {name: "d", dependsOn: "a"}, {name: "e"}},
			want:    "background-updates-stuck warning", summary: "Background updates wait for each other (a, b, c), so",
			evidence: map[string]string{"can run": "e", "waiting": "a after c, b after a, c after b, d after a"}},
		"itself": {updates: []update{{name: "a", dependsOn: "a"}}, want: "background-updates-stuck warning", summary: "Background updates wait for each other (a)",
			evidence: map[string]string{"waiting": "a after a"}},
		"a build failed": {updates: []update{{name: "a"}}, invalid: []string{"user_ips_index"}, want: "background-updates-stuck warning",
			summary:  "Background updates are queued and a build of the index user_ips_index has failed",
			evidence: map[string]string{"can run": "a", "invalid indexes": "user_ips_index"}},
	} {
		t.Run(name, func(t *testing.T) {
			found := judge(sound(func(f *facts) { f.updates, f.invalid = tt.updates, tt.invalid }), today, int(notice.Default))
			if got := codes(found); got != tt.want {
				t.Fatalf("found %q, want %q", got, tt.want)
			}
			if len(found) == 0 {
				return
			}
			if !strings.HasPrefix(found[0].Summary, tt.summary) {
				t.Errorf("summary %q", found[0].Summary)
			}
			if !maps.Equal(found[0].Evidence, tt.evidence) {
				t.Errorf("evidence %q", found[0].Evidence)
			}
		})
	}
}

func TestManyUpdatesAreBounded(t *testing.T) {
	var updates []update
	for i := range 500 {
		updates = append(updates, update{name: fmt.Sprintf("u%03d", i)})
	}
	found := judge(sound(func(f *facts) { f.updates = updates }), today, int(notice.Default))
	if text := found[0].Evidence["can run"]; !strings.HasSuffix(text, "u059 and 440 more") {
		t.Errorf("evidence %q", text)
	}
}

type collector struct{ found []doctor.Finding }

func (c *collector) Find(f doctor.Finding)    { c.found = append(c.found, f) }
func (c *collector) Progress(doctor.Progress) {}
func (c *collector) Covered(string)           {}
func (c *collector) Measure(doctor.Measure)   {}

func target(t *testing.T, dsns ...string) *doctor.Target {
	t.Helper()
	target := &doctor.Target{ServerName: "test.example"}
	for i, dsn := range dsns {
		s, err := pgdb.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		target.Databases = append(target.Databases, &doctor.Database{Label: fmt.Sprintf("db%d", i), Engine: doctor.Postgres, Settings: s, Meets: doctor.NeedsPostgres})
	}
	target.Bind()
	t.Cleanup(target.Close)
	return target
}

// at is the check on that day, on a machine where no Synapse is.
func at(t *testing.T, now time.Time) doctor.Check {
	t.Helper()
	nowhere := t.TempDir()
	return At(func() time.Time { return now }, synapse.PythonPlaces{Root: nowhere, Home: nowhere})
}

func examine(t *testing.T, target *doctor.Target) []doctor.Finding {
	t.Helper()
	var c collector
	if err := at(t, today).Run(t.Context(), target, &c); err != nil {
		t.Fatal(err)
	}
	return c.found
}

func TestSoundHomeserverIsSilent(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()))
	if found := examine(t, target(t, db.DSN())); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
}

func TestRealDatabasesGiveNoAlarm(t *testing.T) {
	data := pgtest.Data(t)
	for _, dump := range []string{"synapse_ported.dump", "synapse_empty.dump"} {
		t.Run(dump, func(t *testing.T) {
			db := pgtest.Start(t).Database(t, pgtest.WithDump(filepath.Join(data, dump)))
			found := examine(t, target(t, db.DSN()))
			for _, f := range found {
				t.Logf("%s %s: %s %q", f.Severity, f.Code, f.Summary, f.Evidence)
				if f.Severity > doctor.Info {
					t.Errorf("an alarm: %+v", f)
				}
			}
		})
	}
}

func TestFreshSchemasQueueIsAdvice(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()))
	db.Exec(t, `INSERT INTO background_updates (update_name, progress_json, depends_on)
	  SELECT format('update_%s', i), CASE WHEN i = 1 THEN '{"at": 5}' ELSE '{}' END, CASE WHEN i = 2 THEN 'update_1' END FROM generate_series(1, 54) i`)
	found := examine(t, target(t, db.DSN()))
	if codes(found) != "background-updates-pending info" || found[0].Evidence["waiting"] != "update_2 after update_1" || found[0].Evidence["has begun"] != "update_1" {
		t.Errorf("found %+v", found)
	}
}

func TestAFailedUniqueIndexIsStuckAndOneBeingBuiltIsNot(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()))
	db.Exec(t, `INSERT INTO background_updates (update_name, progress_json) VALUES ('user_ips_device_unique_index', '{}')`)
	db.Exec(t, `CREATE TABLE user_ips (user_id text)`)
	conn := db.Conn(t)
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `INSERT INTO user_ips VALUES ('a'), ('a')`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `CREATE UNIQUE INDEX CONCURRENTLY user_ips_user ON user_ips (user_id)`); err == nil {
		t.Fatal("the index was built over duplicates")
	}
	found := examine(t, target(t, db.DSN()))
	if codes(found) != "background-updates-stuck warning" || found[0].Evidence["invalid indexes"] != "user_ips_user" {
		t.Errorf("a failed build: %+v", found)
	}
	db.Exec(t, `DROP INDEX user_ips_user; DELETE FROM user_ips`)

	// A concurrent build waits for every transaction that began before it and may write to the table.
	writer := db.Conn(t)
	defer writer.Close(context.Background())
	if _, err := writer.Exec(t.Context(), `BEGIN; INSERT INTO user_ips VALUES ('b')`); err != nil {
		t.Fatal(err)
	}
	built := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), `CREATE UNIQUE INDEX CONCURRENTLY user_ips_user ON user_ips (user_id)`)
		built <- err
	}()
	watcher := db.Conn(t)
	defer watcher.Close(context.Background())
	for seen := false; !seen; {
		if err := watcher.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('user_ips_user') AND NOT indisvalid)`).Scan(&seen); err != nil {
			t.Fatal(err)
		}
	}
	if found := examine(t, target(t, db.DSN())); codes(found) != "background-updates-pending info" {
		t.Errorf("a build that goes on: %+v", found)
	}
	if _, err := writer.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	if err := <-built; err != nil {
		t.Fatal(err)
	}
}

func TestEachDatabaseIsExamined(t *testing.T) {
	server := pgtest.Start(t)
	state := server.Database(t, pgtest.WithSetup(`CREATE TABLE schema_version (version int, upgraded bool);
	  CREATE TABLE background_updates (update_name text, progress_json text, depends_on text, ordering int)`))
	empty := server.Database(t)
	gone := strings.Replace(empty.DSN(), empty.Name, "no_such_database", 1)
	tg := target(t, empty.DSN(), gone, state.DSN())
	var c collector
	err := at(t, today).Run(t.Context(), tg, &c)
	if err == nil || !strings.HasPrefix(err.Error(), "database db1: ") {
		t.Errorf("a database that could not be looked at: %v", err)
	}
	if err != nil && strings.Contains(err.Error(), empty.Password) {
		t.Error("the password is in the error")
	}
	i := slices.IndexFunc(c.found, func(f doctor.Finding) bool { return f.Code == NoSchemaVersion })
	if i < 0 || c.found[i].Database != "db2" {
		t.Errorf("found %+v", c.found)
	}
}

func TestADatabaseWithoutSynapsesSchemaIsNotCalledSound(t *testing.T) {
	server := pgtest.Start(t)
	empty, full := server.Database(t), server.Database(t, pgtest.WithSetup(pgtest.Fixture()))
	old := at(t, day("2040-01-01"))
	for what, tt := range map[string]struct {
		check   doctor.Check
		dsns    []string
		want    string
		skipped bool
	}{
		"alone":                {at(t, today), []string{empty.DSN()}, "", true},
		"on an old server":     {old, []string{empty.DSN()}, "end-of-life warning", false},
		"beside one that has":  {at(t, today), []string{full.DSN(), empty.DSN()}, "", false},
		"after one that lacks": {at(t, today), []string{empty.DSN(), full.DSN()}, "", false},
	} {
		var c collector
		err := tt.check.Run(t.Context(), target(t, tt.dsns...), &c)
		reason, skipped := doctor.SkipReason(err)
		silent := err == nil && !strings.Contains(tt.want, "warning") || err != nil && !strings.Contains(err.Error(), empty.Name)
		if silent || skipped != tt.skipped || codes(c.found) != tt.want {
			t.Errorf("%s: %v (skipped: %q), found %q", what, err, reason, codes(c.found))
		}
	}
}

func TestARoleThatMayNotLookIsNoHealth(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()))
	db.AdminExec(t, `ALTER TABLE background_updates OWNER TO CURRENT_USER; REVOKE ALL ON background_updates FROM PUBLIC, `+db.User)
	var c collector
	if err := at(t, today).Run(t.Context(), target(t, db.DSN()), &c); err == nil || !strings.Contains(err.Error(), "read background_updates") {
		t.Errorf("error %v", err)
	}
}

// On a server that was made with ICU's locales, a database has those unless it is told otherwise.
func TestTheDatabaseToCreateIsInTheLocaleCOfTheCLibrary(t *testing.T) {
	if pgtest.Start(t).Major(t) < 15 {
		t.Skip("before PostgreSQL 15 no database is in a locale of ICU's")
	}
	s := pgtest.StartWith(t, pgtest.Config{InitdbArgs: []string{"--locale-provider=icu", "--icu-locale=en-US"}})
	db := s.Database(t, pgtest.WithOwner("synapse_user"))
	_, command, _ := strings.Cut(upgradeRemedy(130000), "    createdb ")
	command, _, _ = strings.Cut(command, "\n")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "createdb "+command)
	cmd.Env = []string{"PATH=" + s.BinDir + ":" + os.Getenv("PATH"), "PGHOST=" + s.SocketDir, fmt.Sprintf("PGPORT=%d", s.Port), "PGUSER=postgres"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got string
	if err := db.AdminConn(t).QueryRow(t.Context(), `SELECT concat_ws(' ', datlocprovider, datcollate, datctype, pg_encoding_to_char(encoding))
		FROM pg_database WHERE datname = 'synapse'`).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if got != "c C C UTF8" {
		t.Errorf("provider, collation, character type and encoding are %s", got)
	}
}

func TestEveryCodeIsDeclaredOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Check.Codes {
		if seen[c.ID] || doctor.CheckID(c.ID) != Check.ID || c.Title == "" {
			t.Errorf("code %+v", c)
		}
		seen[c.ID] = true
	}
	for _, code := range []string{TooOld, InRecovery, EndOfLife, EndOfLifeSoon, TooOldForUpgrade, UnknownPostgres, NoSchemaVersion, CompatAhead, UnknownSchema, UpdatesStuck, UpdatesPending,
		NoPsycopg2, BrokenPsycopg2, OldLibPQ} {
		if !seen[code] {
			t.Errorf("%s is not declared", code)
		}
	}
	if len(seen) != 14 || len([]rune(Check.Title)) > 60 {
		t.Errorf("%d codes, title %q", len(seen), Check.Title)
	}
}
