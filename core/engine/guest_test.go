package engine_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// guestSchema is a homeserver with two tables of a bridge, and one, secrets, that is none of the bridge's business.
const guestSchema = `
CREATE TABLE schema_version (version integer NOT NULL);
INSERT INTO schema_version VALUES (94);
CREATE TABLE users (name text PRIMARY KEY);
INSERT INTO users VALUES ('@alice:test.example'), ('@zoe:test.example');
CREATE TABLE bridge (id bigserial PRIMARY KEY, value bigint NOT NULL, note text);
INSERT INTO bridge (value, note) SELECT -n, repeat('long ', 2000) FROM generate_series(1, 5) n;
CREATE TABLE secrets (id bigint PRIMARY KEY, bridge bigint REFERENCES bridge ON DELETE CASCADE);
INSERT INTO secrets SELECT n, n FROM generate_series(1, 5) n;
CREATE SEQUENCE stream;
CREATE FUNCTION meddle() RETURNS bigint LANGUAGE sql VOLATILE AS 'UPDATE secrets SET bridge = NULL RETURNING id';
CREATE FUNCTION quietly() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$BEGIN CREATE TABLE made (id int); RETURN 1; END$$;
CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN DELETE FROM secrets; RETURN NULL; END$$;
`

// guest is the toy plugin of a third party.
type guest struct {
	doctor.Local
	terms *doctor.Terms
}

func (g *guest) Terms() *doctor.Terms { return g.terms }

const mendBridge = `UPDATE bridge SET value = -value WHERE value < 0`

// newGuest finds negative values in bridge as long as there are any. change makes of the honest plan what a test wants.
func newGuest(change func(*doctor.Plan)) *guest {
	check := doctor.Check{
		ID: "bridge", Title: "T", Why: "W", Codes: []doctor.Code{{ID: "bridge/negative", Title: "t", Severity: doctor.Warning}},
		Changes: doctor.Effects{Tables: []string{"bridge"}},
		Run: func(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
			r.Find(doctor.Finding{Code: "bridge/negative", Severity: doctor.Warning, Fixable: true, Object: doctor.Object{Kind: "table", Name: "bridge"}})
			return nil
		},
		Plan: func(_ context.Context, _ *doctor.Target, fs []doctor.Finding) ([]doctor.Plan, error) {
			p := doctor.Plan{ID: "bridge/mend", Covers: []doctor.FindingKey{fs[0].Key()}, Title: "T", Risk: doctor.Safe, Expects: doctor.ExpectSynapse,
				Database: "main", Reversible: true, Steps: []doctor.Step{{Title: "S", SQL: &doctor.SQLStep{
					Database: "main", Mode: doctor.ModeAlone, MaxRows: 100, Statement: mendBridge,
					Guard: &doctor.Guard{Query: `SELECT count(*) > 0 FROM bridge WHERE value < 0`},
					Save:  &doctor.Save{Table: "bridge", Query: `SELECT row_to_json(b)::text FROM bridge b WHERE value < 0`},
					Undo: []doctor.UndoSQL{{ForEachSaved: true,
						Statement: `UPDATE bridge b SET value = old.value FROM json_populate_record(NULL::bridge, $1::json) old WHERE b.id = old.id`}},
				}}}}
			change(&p)
			return []doctor.Plan{p}, nil
		},
	}
	return &guest{doctor.Local{PluginName: "acme", Checks: []doctor.Check{check}}, &doctor.Terms{Entry: "plugins.acme in F", AllowFix: true, TrustDatabase: true}}
}

func guestDB(t *testing.T) *pgtest.DB {
	return pgtest.Start(t).Database(t, pgtest.WithSetup(guestSchema))
}

func guestEngine(t *testing.T, db *pgtest.DB, g doctor.Source) *engine.Engine {
	return guestEngineIn(filepath.Join(t.TempDir(), "state"), db, g)
}

func guestEngineIn(state string, db *pgtest.DB, g doctor.Source) *engine.Engine {
	return engine.New(engine.Options{Version: "test", Target: target(db), StateDir: state, Sources: []doctor.Source{g}})
}

func everything(t *testing.T, db *pgtest.DB) (text string) {
	t.Helper()
	c := db.Conn(t)
	defer c.Close(t.Context())
	err := c.QueryRow(t.Context(), `SELECT (SELECT string_agg(b.id || '=' || value, ' ' ORDER BY id) FROM bridge b) || ' secrets ' ||
		(SELECT string_agg(s::text, ' ' ORDER BY id) FROM secrets s) || ' stream ' || (SELECT last_value FROM stream) ||
		' relations ' || (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace)`).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAnHonestPlanOfAThirdPartyIsAppliedAndUndone(t *testing.T) {
	db := guestDB(t)
	before := everything(t, db)
	state := filepath.Join(t.TempDir(), "state")
	r, err := guestEngineIn(state, db, newGuest(func(*doctor.Plan) {})).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	// The toy's check finds its fault whatever was done.
	if p := r.Plans[0]; p.Steps[0].Status != doctor.StepApplied || strings.Contains(everything(t, db), "=-") {
		t.Fatalf("%s: %s; %s", p.Status, p.Reason, everything(t, db))
	}
	if risk := r.Plans[0].Plan.Risk; risk != doctor.Careful {
		t.Errorf("a third party's word that its SQL is safe was taken: %s", risk)
	}
	// It needs no plugin, and is held to what was declared all the same.
	u, err := guestEngineIn(state, db, &doctor.Local{}).Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	if u.Plans[0].Status != doctor.PlanApplied || everything(t, db) != before {
		t.Errorf("undo: %+v\n%s", u.Plans[0], everything(t, db))
	}
}

func sqlOf(statement string) func(*doctor.Plan) {
	return func(p *doctor.Plan) {
		q := p.Steps[0].SQL
		q.Statement, q.Guard, q.Save, q.Undo = statement, nil, nil, nil
		p.Reversible, p.Irreversible = false, "no"
	}
}

// oneAfterTheOther spares the race detector long tables of statements.
func oneAfterTheOther(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("nothing runs at the same time as anything else")
	}
}

func TestAThirdPartysPlanThatShowsMoreThanWasDeclaredIsNotMade(t *testing.T) {
	oneAfterTheOther(t)
	db := guestDB(t)
	db.Exec(t, `CREATE VIEW secrets_view AS SELECT * FROM secrets; CREATE TABLE "Bridge" (id int); CREATE SCHEMA other; CREATE TABLE other.bridge (id int)`)
	before := everything(t, db)
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, []byte("broken"), 0o600)
	sum := sha256.Sum256([]byte("broken"))
	edit := func(path string) func(*doctor.Plan) {
		return func(p *doctor.Plan) {
			p.Steps[0] = doctor.Step{Title: "S", EditFile: &doctor.EditFileStep{Path: path, Before: hex.EncodeToString(sum[:]), Splices: []doctor.Splice{{Old: []byte("b"), New: []byte("B")}}}}
		}
	}
	for name, c := range map[string]struct {
		change func(*doctor.Plan)
		want   string
	}{
		"another table":         {sqlOf(`DELETE FROM secrets`), "changes public.secrets, which the check did not declare"},
		"another table in WITH": {sqlOf(`WITH gone AS (DELETE FROM secrets RETURNING *) UPDATE bridge SET value = 1 WHERE id IN (SELECT id FROM gone)`), "changes public.secrets"},
		"the undo": {func(p *doctor.Plan) {
			p.Steps[0].SQL.Undo[0].Statement = `DELETE FROM secrets WHERE id = ($1::json->>'id')::int`
		}, "changes public.secrets"},
		"the guard": {func(p *doctor.Plan) {
			p.Steps[0].SQL.Guard.Query = `WITH x AS (DELETE FROM secrets RETURNING 1) SELECT true`
		}, "changes public.secrets"},
		"the saved rows":             {func(p *doctor.Plan) { p.Steps[0].SQL.Save.Query = `DELETE FROM secrets RETURNING id::text` }, "changes public.secrets"},
		"a COMMIT":                   {sqlOf(`COMMIT`), "does not begin with SELECT"},
		"a COMMIT afterwards":        {sqlOf(mendBridge + `; COMMIT; DROP TABLE secrets`), "several statements in one"},
		"a COMMIT in comments":       {sqlOf("/* /* SELECT */ */ -- SELECT\nCOMMIT"), "does not begin with SELECT"},
		"a DO":                       {sqlOf(`DO 'BEGIN DELETE FROM secrets; END'`), "does not begin with SELECT"},
		"DDL":                        {sqlOf(`DROP TABLE secrets`), "does not begin with SELECT"},
		"setval":                     {sqlOf(`SELECT setval('stream', 1000)`), "calls setval, whose effect can't be watched"},
		"setval, hidden":             {sqlOf("SELECT pg_catalog.\"setval\" /* ( */ ('stream', 1000)"), "calls setval"},
		"a call without parentheses": {sqlOf(`SELECT (x).pg_advisory_unlock FROM (SELECT 5::bigint AS x) s`), "calls pg_advisory_unlock"},
		"setval, in a text":          {sqlOf(`SELECT query_to_xml('SELECT setval(''stream'', 1000)', true, true, '')`), "calls query_to_xml"},
		"setval, escaped":            {sqlOf(`SELECT U&"\0073etval"('stream', 1000)`), "escapes"},
		"a setting":                  {sqlOf(`SELECT set_config('search_path', 'x', false)`), "calls set_config"},
		"a call by TREAT":            {sqlOf(`SELECT TREAT(5::bigint AS pg_advisory_unlock)`), "has a TREAT(…)"},
		"a call on an argument": {func(p *doctor.Plan) {
			sqlOf(`SELECT $1.pg_advisory_unlock`)(p)
			p.Steps[0].SQL.Args = []doctor.Value{{V: int64(5)}}
		}, "calls pg_advisory_unlock"},
		"a file of the server":   {sqlOf(`SELECT pg_read_file('PG_VERSION')`), "calls pg_read_file"},
		"a notification":         {sqlOf(`SELECT pg_notify('c', 'x')`), "calls pg_notify"},
		"the configuration":      {sqlOf(`SELECT pg_reload_conf()`), "calls pg_reload_conf"},
		"a table by INTO":        {sqlOf(`SELECT 1 AS id INTO made`), "makes a table by SELECT … INTO"},
		"a table that shadows":   {sqlOf(`WITH insert AS (SELECT 1) SELECT (1) insert INTO TEMP pg_locks`), "makes a table by SELECT … INTO"},
		"a view of another":      {sqlOf(`UPDATE secrets_view SET bridge = NULL`), "changes public.secrets, which"},
		"another schema":         {sqlOf(`DELETE FROM other.bridge`), "changes other.bridge, which"},
		"a name in quotes":       {sqlOf(`DELETE FROM "Bridge"`), "changes public.Bridge, which"},
		"a transaction prepared": {sqlOf(`PREPARE TRANSACTION 'x'`), "does not begin with SELECT"},
		"EXPLAIN ANALYZE":        {sqlOf(`EXPLAIN ANALYZE DELETE FROM secrets`), "does not begin with SELECT"},
		"a program":              {sqlOf(`COPY bridge TO PROGRAM 'cat'`), "does not begin with SELECT"},
		"the guard, its own table": {func(p *doctor.Plan) {
			p.Steps[0].SQL.Guard.Query = `WITH x AS (DELETE FROM bridge RETURNING 1) SELECT count(*) > 0 FROM x`
		}, "changes public.bridge by a guard, which may only read"},
		"the saved rows, its own table": {func(p *doctor.Plan) {
			p.Steps[0].SQL.Save.Query = `DELETE FROM bridge b RETURNING row_to_json(b)::text`
		}, "may only read"},
		"a probe": {func(p *doctor.Plan) {
			p.Steps = append(p.Steps, doctor.Step{Title: "S", Probe: &doctor.ProbeStep{Database: "main", Holds: &doctor.Guard{Query: `UPDATE bridge SET value = 1 RETURNING true`}}})
		}, "step 2 changes public.bridge by a guard"},
		"an undo that is none": {func(p *doctor.Plan) { p.Steps[0].SQL.Undo = nil }, "has no Undo"},
		"an operation without a database": {func(p *doctor.Plan) {
			p.Expects = doctor.ExpectNone
			p.Steps = []doctor.Step{{Title: "S", Operation: &doctor.OperationStep{Name: "work", Effects: doctor.Effects{Tables: []string{"bridge"}}}}}
		}, "its plan names or expects none"},
		"an operation on another table": {func(p *doctor.Plan) {
			p.Steps = []doctor.Step{{Title: "S", Operation: &doctor.OperationStep{Name: "work", Effects: doctor.Effects{Tables: []string{"bridge", "secrets"}}}}}
		}, "changes the table public.secrets, which the check did not declare"},
		"an operation on a file": {func(p *doctor.Plan) {
			p.Steps = []doctor.Step{{Title: "S", Operation: &doctor.OperationStep{Name: "work", Effects: doctor.Effects{Files: []string{file}}}}}
		}, "changes the file " + file},
		"an undo by no operation": {func(p *doctor.Plan) {
			p.Steps = []doctor.Step{{Title: "S", Operation: &doctor.OperationStep{Name: "work", Undo: "more", Effects: doctor.Effects{Tables: []string{"bridge"}}}}}
		}, `is put back by the operation "more", which the check did not declare`},
		"another session":      {sqlOf(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity`), "calls pg_terminate_backend"},
		"the doctor's lock":    {sqlOf(`SELECT pg_advisory_unlock_all()`), "calls pg_advisory_unlock_all"},
		"a large object":       {sqlOf(`SELECT lo_create(0)`), "calls lo_create"},
		"a flood":              {sqlOf(`SELECT repeat('x', 40000000)`), "larger than 16 MiB"},
		"no such table":        {sqlOf(`DELETE FROM nowhere`), "does not take"},
		"outside transactions": {func(p *doctor.Plan) { p.Steps[0].SQL.Mode = doctor.ModeNone }, "outside a transaction"},
		"a lasting effect":     {func(p *doctor.Plan) { p.Steps[0].SQL.Lasting = true }, "no rollback takes back"},
		"the administrator": {func(p *doctor.Plan) {
			p.Requires = []doctor.Requirement{doctor.RequireAdmin}
			p.Steps[0].SQL.Admin = true
		}, "requires admin"},
		"a shut database": {func(p *doctor.Plan) { p.Requires = []doctor.Requirement{doctor.RequireShut, doctor.RequireStopped} }, ""},
		"a login elsewhere": {func(p *doctor.Plan) {
			p.Steps[0] = doctor.Step{Title: "S", Probe: &doctor.ProbeStep{Database: "main", Login: &doctor.Login{Address: "192.0.2.1"}}}
		}, "address of its own choice"},
		"a file": {edit(file), "edits " + file + ", which the check did not declare"},
		"too many steps": {func(p *doctor.Plan) {
			for range 1000 {
				p.Steps = append(p.Steps, p.Steps[0])
			}
		}, "at most 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(c.change)
			g.Checks[0].Operations = map[string]doctor.OperationFunc{"work": nil}
			r, err := guestEngine(t, db, g).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
			if err != nil {
				t.Fatal(err)
			}
			got := r.Before.Checks[0]
			if len(r.Plans) != 0 || got.Status != doctor.StatusUnknown || len(got.Findings) != 1 || !strings.Contains(got.Reason, c.want) ||
				!strings.Contains(got.Reason, "the plugin broke the protocol") {
				t.Errorf("%d plans; %s, %d findings: %s", len(r.Plans), got.Status, len(got.Findings), got.Reason)
			}
			if now := everything(t, db); now != before {
				t.Errorf("changed:\n%s\n%s", before, now)
			}
		})
	}
}

func TestAThirdPartysPlanThatDoesMoreThanWasDeclaredIsRolledBack(t *testing.T) {
	oneAfterTheOther(t)
	for name, c := range map[string]struct {
		setup, statement, want string
	}{
		"through a function":         {"", `UPDATE bridge SET value = meddle()`, "it changes public.secrets; rolled back"},
		"through a trigger":          {`CREATE TRIGGER t AFTER UPDATE ON bridge EXECUTE FUNCTION forget()`, mendBridge, "it changes public.secrets; rolled back"},
		"through a deferred trigger": {`CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON bridge DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION forget()`, mendBridge, "it changes public.secrets; rolled back"},
		"through a cascade":          {"", `DELETE FROM bridge`, "it changes public.secrets; rolled back"},
		"DDL in a function":          {"", `SELECT quietly()`, "it changes the catalog"},
		"through a default":          {`ALTER TABLE bridge ALTER note SET DEFAULT meddle()::text`, `INSERT INTO bridge (value) VALUES (1)`, "it changes public.secrets; rolled back"},
		"through a domain":           {`CREATE DOMAIN d AS int CHECK (meddle() IS NOT NULL)`, `UPDATE bridge SET value = 1::d`, "it changes public.secrets; rolled back"},
		"through an operator": {`CREATE FUNCTION f(int, int) RETURNS int LANGUAGE sql AS 'SELECT meddle()::int'; CREATE OPERATOR !!! (FUNCTION = f, LEFTARG = int, RIGHTARG = int)`,
			`UPDATE bridge SET value = 1 !!! 2`, "it changes public.secrets; rolled back"},
		"through an INSTEAD OF trigger": {`CREATE VIEW v AS SELECT 1 AS id; CREATE TRIGGER t INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION forget();
			CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'INSERT INTO v VALUES (1); SELECT 1'`, `SELECT g()`, "it changes public.secrets; rolled back"},
		"through a function with rights of its own": {`ALTER FUNCTION meddle() SECURITY DEFINER SET search_path = public`, `SELECT meddle()`, "it changes public.secrets; rolled back"},
		"TRUNCATE in a function":                    {`CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$BEGIN TRUNCATE bridge CASCADE; RETURN 1; END$$`, `SELECT f()`, "it changes the catalog"},
		"a setting of the role in a function":       {`CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$BEGIN ALTER ROLE CURRENT_USER SET work_mem = '1MB'; RETURN 1; END$$`, `SELECT f()`, "it changes the catalog"},
		"GRANT in a function":                       {`CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$BEGIN GRANT SELECT ON secrets TO public; RETURN 1; END$$`, `SELECT f()`, "it changes the catalog"},
		"a large object in a function":              {`CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM lo_create(0); RETURN 1; END$$`, `SELECT f()`, "it changes the catalog"},
		"what is asked afterwards is shadowed": {`CREATE FUNCTION shade() RETURNS int LANGUAGE plpgsql AS $$BEGIN
			CREATE TEMP TABLE pg_locks AS SELECT * FROM pg_catalog.pg_locks LIMIT 0;
			CREATE TEMP TABLE pg_stat_xact_all_tables AS SELECT * FROM pg_catalog.pg_stat_xact_all_tables LIMIT 0;
			DELETE FROM secrets; RETURN 1; END$$`, `SELECT shade()`, "it changes the catalog"},
		"what is asked afterwards is elsewhere": {`CREATE SCHEMA evil; CREATE VIEW evil.pg_locks AS SELECT * FROM pg_catalog.pg_locks LIMIT 0;
			CREATE VIEW evil.pg_stat_xact_all_tables AS SELECT * FROM pg_catalog.pg_stat_xact_all_tables LIMIT 0;
			CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$BEGIN
			DELETE FROM secrets; PERFORM set_config('search_path', 'evil, pg_catalog', false); RETURN 1; END$$`, `SELECT f()`, "it changes public.secrets; rolled back"},
		"the doctor's lock is given up": {`CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM pg_advisory_unlock_all(); RETURN 1; END$$`,
			`UPDATE bridge SET value = f()`, "has given up the doctor's lock on the database; rolled back"},
		"another's sequence": {"", `UPDATE bridge SET value = nextval('stream')`, "it changes public.stream; rolled back"},
		"through a rule":     {`CREATE RULE r AS ON UPDATE TO bridge DO ALSO DELETE FROM secrets`, mendBridge, ""},
	} {
		t.Run(name, func(t *testing.T) {
			db := guestDB(t)
			if c.setup != "" {
				db.Exec(t, c.setup)
			}
			before := everything(t, db)
			r, err := guestEngine(t, db, newGuest(sqlOf(c.statement))).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
			if err != nil {
				t.Fatal(err)
			}
			if c.want != "" {
				if len(r.Plans) != 1 {
					t.Fatal(r.Before.Checks[0].Reason)
				}
				if got := r.Plans[0]; got.Status != doctor.PlanRefused || !strings.Contains(got.Reason, c.want) {
					t.Errorf("%s: %s", got.Status, got.Reason)
				}
			} else if len(r.Plans) != 0 {
				t.Error("a plan was made")
			}
			if now := everything(t, db); name != "another's sequence" && now != before {
				t.Errorf("changed:\n%s\n%s", before, now)
			}
		})
	}
}

func TestAThirdPartysPlanIsHeldToTheRowsThatItNames(t *testing.T) {
	db := guestDB(t)
	db.Exec(t, `CREATE FUNCTION every() RETURNS bool LANGUAGE sql AS 'UPDATE bridge SET value = 1; SELECT true'`)
	before := everything(t, db)
	for name, c := range map[string]struct {
		change func(*doctor.Plan)
		want   string
	}{
		"plainly":     {sqlOf(mendBridge), "it affected 5 rows where at most 4 were planned; rolled back"},
		"behind WITH": {sqlOf(`WITH x AS (UPDATE bridge SET value = 1 RETURNING 1) SELECT 1`), "it affected 5 rows where at most 4 were planned; rolled back"},
		"behind WITH and another": {sqlOf(`WITH x AS (UPDATE bridge SET value = 1 WHERE id < 5 RETURNING 1) UPDATE bridge SET value = 1 WHERE id = 5`),
			"it affected 5 rows where at most 4 were planned; rolled back"},
		"by a function": {sqlOf(`SELECT every()`), "it affected 5 rows where at most 4 were planned; rolled back"},
		"in its guard":  {func(p *doctor.Plan) { p.Steps[0].SQL.Guard.Query = `SELECT every()` }, "may only read; rolled back"},
		"saved":         {func(*doctor.Plan) {}, "more rows of bridge would change than the 4 that were planned"},
		"bytes, saved": {func(p *doctor.Plan) {
			p.Steps[0].SQL.Save.Query, p.Steps[0].SQL.MaxRows = `SELECT repeat('x', 1 << 20) FROM generate_series(1, 100)`, 1000
		}, "larger than 64 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(func(p *doctor.Plan) {
				p.Steps[0].SQL.MaxRows = 4
				c.change(p)
			})
			r, err := guestEngine(t, db, g).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Plans) != 1 || r.Plans[0].Steps[0].Status != doctor.StepFailed || !strings.Contains(r.Plans[0].Reason, c.want) {
				t.Errorf("%s; %+v", r.Before.Checks[0].Reason, r.Plans)
			}
			if now := everything(t, db); now != before {
				t.Errorf("changed:\n%s\n%s", before, now)
			}
		})
	}
}

func TestHonestStatementsOfAThirdPartyAreApplied(t *testing.T) {
	oneAfterTheOther(t)
	const setup = `CREATE VIEW own_view AS SELECT * FROM bridge;
		CREATE TABLE child () INHERITS (bridge);
		INSERT INTO child (value) VALUES (-9);
		CREATE TABLE split (id int, at int) PARTITION BY RANGE (at);
		CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (0) TO (10);
		CREATE TABLE split_2 PARTITION OF split FOR VALUES FROM (10) TO (20);
		INSERT INTO split VALUES (1, 1), (2, 11);
		CREATE INDEX ON bridge (value)`
	statements := []string{
		mendBridge,
		mendBridge + `;`,
		`DELETE FROM child WHERE value < 0`,
		`INSERT INTO bridge (value, note) SELECT 7, repeat('long ', 9000) FROM secrets`,
		`INSERT INTO bridge (id, value) VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET value = excluded.value RETURNING id`,
		`WITH gone AS (DELETE FROM split RETURNING id) INSERT INTO bridge (value) SELECT id FROM gone`,
		`UPDATE split SET at = 15 WHERE at = 1`,
		`UPDATE own_view SET value = -value WHERE value < 0`,
		`WITH s AS (SELECT id FROM secrets FOR UPDATE) UPDATE bridge SET value = 1 FROM s WHERE s.id = bridge.id`,
		`UPDATE bridge SET note = random()::text || now() || coalesce(note, '') || '--' || $$/*$$ /* ' */ -- "
		 WHERE "value" < 0`,
		`SELECT count(*) FROM secrets`,
	}
	pgtest.EachMajor(t, nil, func(t *testing.T, s *pgtest.Server) {
		db := s.Database(t, pgtest.WithSetup(guestSchema+setup))
		g := newGuest(func(p *doctor.Plan) {
			p.Steps, p.Reversible, p.Irreversible = nil, false, "no"
			for _, statement := range statements {
				p.Steps = append(p.Steps, doctor.Step{Title: statement, SQL: &doctor.SQLStep{Database: "main", Mode: doctor.ModeAlone, MaxRows: 20, Statement: statement}})
			}
		})
		g.Checks[0].Changes.Tables = []string{"public.bridge", "split"}
		r, err := guestEngine(t, db, g).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Plans) != 1 {
			t.Fatal(r.Before.Checks[0].Reason)
		}
		for i, step := range r.Plans[0].Steps {
			if step.Status != doctor.StepApplied {
				t.Errorf("%s: %s; %s", statements[i], step.Status, r.Plans[0].Reason)
			}
		}
	})
}

func TestAnUndoOfAThirdPartyIsHeldToWhatWasDeclared(t *testing.T) {
	db := guestDB(t)
	state := filepath.Join(t.TempDir(), "state")
	if _, err := guestEngineIn(state, db, newGuest(func(*doctor.Plan) {})).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree}); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `CREATE TRIGGER t AFTER UPDATE ON bridge EXECUTE FUNCTION forget()`)
	before := everything(t, db)
	u, err := guestEngineIn(state, db, &doctor.Local{}).Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	if p := u.Plans[0]; p.Status != doctor.PlanRefused || !strings.Contains(p.Reason, "it changes public.secrets") || everything(t, db) != before {
		t.Errorf("%s: %s", p.Status, p.Reason)
	}
}

func TestAnUndoOfAThirdPartyCallsNothingThatCanNotBeWatchedByNow(t *testing.T) {
	db := guestDB(t)
	state := filepath.Join(t.TempDir(), "state")
	g := newGuest(func(p *doctor.Plan) {
		p.Steps[0].SQL.Save, p.Steps[0].SQL.Undo = nil, []doctor.UndoSQL{{Statement: `UPDATE bridge SET value = 1 WHERE quietly() = 0`}}
	})
	if _, err := guestEngineIn(state, db, g).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree}); err != nil {
		t.Fatal(err)
	}
	before := everything(t, db)
	if _, err := db.AdminConn(t).Exec(t.Context(), `ALTER EXTENSION plpgsql ADD FUNCTION quietly()`); err != nil {
		t.Fatal(err)
	}
	u, err := guestEngineIn(state, db, &doctor.Local{}).Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	if p := u.Plans[0]; p.Status != doctor.PlanRefused || !strings.Contains(p.Reason, "step 1 calls quietly") || everything(t, db) != before {
		t.Errorf("%s: %s", p.Status, p.Reason)
	}
}

func TestAThirdPartysPlanIsShownButNotAppliedUntilThatIsAllowed(t *testing.T) {
	db := guestDB(t)
	before := everything(t, db)
	g := newGuest(func(*doctor.Plan) {})
	g.terms.AllowFix = false
	e := guestEngine(t, db, g)
	r, err := e.Fix(t.Context(), engine.FixOptions{})
	if err != nil || len(r.Plans) != 1 || r.Plans[0].Status != doctor.PlanPlanned {
		t.Fatalf("%+v, %v", r, err)
	}
	r, err = e.Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Plans[0]; p.Status != doctor.PlanRefused || !strings.Contains(p.Reason, "allow_fix: true under plugins.acme in F") || everything(t, db) != before {
		t.Errorf("%s: %s", p.Status, p.Reason)
	}
}

// curious is a check that tells what it was handed.
func curious(needs doctor.Needs) doctor.Check {
	return doctor.Check{ID: "curious", Title: "T", Why: "W", Needs: needs, Codes: []doctor.Code{{ID: "curious/saw", Title: "t", Severity: doctor.Info}},
		Run: func(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
			saw := map[string]string{"user": t.Databases[0].Settings["user"], "meeting": ""}
			for range t.Meeting(doctor.NeedsPostgres) {
				saw["meeting"] += "x"
			}
			if t.Databases[0].Settings != nil {
				err := t.Databases[0].Read(ctx, func(tx pgx.Tx) error {
					_, err := tx.Exec(ctx, `SELECT count(*) FROM bridge`)
					return err
				})
				if err != nil {
					return err
				}
			}
			r.Find(doctor.Finding{Code: "curious/saw", Severity: doctor.Info, Evidence: saw})
			return nil
		}}
}

// handing hands on what its terms say, as the host of a plugin does.
type handing struct{ guest }

func (h *handing) Check(ctx context.Context, req doctor.CheckRequest, events doctor.Events) error {
	req.Target = h.terms.Handed(req.Target)
	return h.guest.Check(ctx, req, events)
}

func TestWhatAThirdPartyIsHanded(t *testing.T) {
	db := guestDB(t)
	other := guestDB(t)
	admin := db.AdminConn(t)
	for _, s := range []string{
		`DROP ROLE IF EXISTS guest_reader, guest_writer, guest_member, guest_maker, guest_creator, guest_replica, guest_killer, guest_counter`,
		`CREATE ROLE guest_creator LOGIN CREATEDB PASSWORD 'reader-secret'`,
		`CREATE ROLE guest_replica LOGIN REPLICATION PASSWORD 'reader-secret'`,
		`CREATE ROLE guest_killer LOGIN PASSWORD 'reader-secret' IN ROLE pg_read_all_data, pg_signal_backend`,
		`CREATE ROLE guest_counter LOGIN PASSWORD 'reader-secret' IN ROLE pg_read_all_data`,
		`GRANT USAGE ON SEQUENCE stream TO guest_counter`,
		`CREATE ROLE guest_reader LOGIN PASSWORD 'reader-secret' IN ROLE pg_read_all_data`,
		`CREATE ROLE guest_writer LOGIN PASSWORD 'reader-secret' IN ROLE pg_read_all_data`,
		`GRANT TRUNCATE ON secrets TO guest_writer`,
		`CREATE ROLE guest_member LOGIN NOINHERIT PASSWORD 'reader-secret'`,
		`GRANT ` + pgx.Identifier{db.User}.Sanitize() + ` TO guest_member`,
		`CREATE ROLE guest_maker LOGIN CREATEROLE PASSWORD 'reader-secret'`,
	} {
		if _, err := admin.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	reader := func(user, dbname string) pgdb.Settings {
		s := pgdb.Settings{"host": db.Host, "port": target(db).Databases[0].Settings["port"], "user": user, "password": "reader-secret"}
		if dbname != "" {
			s["dbname"] = dbname
		}
		return s
	}
	for name, c := range map[string]struct {
		needs  doctor.Needs
		terms  *doctor.Terms
		status doctor.Status
		want   string // the reason, or the user that it connects as
	}{
		"nothing":                   {doctor.NeedsPostgres, &doctor.Terms{}, doctor.StatusSkipped, "read_dsn (a role that has only pg_read_all_data), or trust_database: true, under plugins.acme in F"},
		"nothing, and none needed":  {0, &doctor.Terms{}, doctor.StatusInfo, ""},
		"an administrator":          {doctor.NeedsAdmin, &doctor.Terms{TrustDatabase: true}, doctor.StatusSkipped, "administrator"},
		"trust":                     {doctor.NeedsSynapse, &doctor.Terms{TrustDatabase: true}, doctor.StatusInfo, db.User},
		"a reader":                  {doctor.NeedsSynapse, &doctor.Terms{Reader: reader("guest_reader", "")}, doctor.StatusInfo, "guest_reader"},
		"a reader, none needed":     {0, &doctor.Terms{Reader: reader("guest_reader", db.Name)}, doctor.StatusInfo, "guest_reader"},
		"a reader of another":       {doctor.NeedsPostgres, &doctor.Terms{Reader: reader("guest_reader", other.Name)}, doctor.StatusUnknown, "does not lead to"},
		"a reader that truncates":   {doctor.NeedsPostgres, &doctor.Terms{Reader: reader("guest_writer", "")}, doctor.StatusUnknown, `the role "guest_writer" may change public.secrets`},
		"a member of the owner":     {doctor.NeedsPostgres, &doctor.Terms{Reader: reader("guest_member", "")}, doctor.StatusUnknown, `owns public.bridge`},
		"a maker of roles":          {doctor.NeedsPostgres, &doctor.Terms{Reader: reader("guest_maker", "")}, doctor.StatusUnknown, `may make roles`},
		"a maker of databases":      {doctor.NeedsPostgres, &doctor.Terms{Reader: reader("guest_creator", "")}, doctor.StatusUnknown, `may make databases`},
		"a replica":                 {doctor.NeedsPostgres, &doctor.Terms{Reader: reader("guest_replica", "")}, doctor.StatusUnknown, `may replicate`},
		"one that ends others":      {doctor.NeedsPostgres, &doctor.Terms{Reader: reader("guest_killer", "")}, doctor.StatusUnknown, `is a member of pg_signal_backend`},
		"one that counts on":        {doctor.NeedsPostgres, &doctor.Terms{Reader: reader("guest_counter", "")}, doctor.StatusUnknown, `may change public.stream`},
		"a reader that is unknown":  {doctor.NeedsPostgres, &doctor.Terms{Reader: reader("guest_nobody", "")}, doctor.StatusUnknown, `read_dsn under plugins.acme in F`},
		"Synapse's login as reader": {doctor.NeedsPostgres, &doctor.Terms{Reader: target(db).Databases[0].Settings}, doctor.StatusUnknown, `owns public.bridge`},
	} {
		t.Run(name, func(t *testing.T) {
			c.terms.Entry = "plugins.acme in F"
			h := &handing{guest{doctor.Local{PluginName: "acme", Checks: []doctor.Check{curious(c.needs)}}, c.terms}}
			r, err := guestEngine(t, db, h).Check(t.Context(), engine.Selection{})
			if err != nil {
				t.Fatal(err)
			}
			got := r.Checks[0]
			said := got.Reason
			if len(got.Findings) > 0 && got.Status == doctor.StatusInfo {
				said = got.Findings[0].Evidence["user"]
			}
			if got.Status != c.status || !strings.Contains(said, c.want) || strings.Contains(got.Reason, "reader-secret") {
				t.Errorf("%s: %s", got.Status, said)
			}
			if c.want == "" && said != "" {
				t.Errorf("it was handed the login of %s", said)
			}
		})
	}
}

func TestAPluginThatCanNotBeAskedCostsItsOwnChecks(t *testing.T) {
	db := guestDB(t)
	g := newGuest(func(*doctor.Plan) {})
	g.terms.Checks, g.terms.Update = []string{"bridge", "other"}, "synapse-doctor plugin update acme"
	r, err := guestEngine(t, db, g).Check(t.Context(), engine.Selection{Wanted: []string{"other/code"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Checks) != 1 || r.Checks[0].ID != "other" || r.Checks[0].Status != doctor.StatusUnknown ||
		!strings.HasSuffix(r.Checks[0].Reason, "run: synapse-doctor plugin update acme") {
		t.Errorf("%+v", r.Checks)
	}
}

func TestAThirdPartyMayNotDeclareMoreThanWasRecorded(t *testing.T) {
	db := guestDB(t)
	for _, c := range []struct {
		recorded *doctor.Effects
		want     string
	}{
		{nil, ""}, {&doctor.Effects{Tables: []string{"bridge"}}, ""}, {&doctor.Effects{Tables: []string{"public.bridge", "rooms"}}, ""},
		{&doctor.Effects{}, "its check bridge may change the table"}, {&doctor.Effects{Tables: []string{"rooms"}}, "which was not recorded: look at it, and run: synapse-doctor plugin update acme"},
	} {
		g := newGuest(func(*doctor.Plan) {})
		g.terms.Checks, g.terms.Changes, g.terms.Update = []string{"bridge"}, c.recorded, "synapse-doctor plugin update acme"
		r, err := guestEngine(t, db, g).Check(t.Context(), engine.Selection{})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Checks[0]; (got.Status == doctor.StatusUnknown) != (c.want != "") || !strings.Contains(got.Reason, c.want) {
			t.Errorf("recorded %v: %s %q", c.recorded, got.Status, got.Reason)
		}
	}
}

func TestAThirdPartyEditsOnlyTheFilesThatItDeclared(t *testing.T) {
	db := guestDB(t)
	file := filepath.Join(t.TempDir(), "file")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("broken"))
	for name, c := range map[string]struct {
		declared []string
		swap     bool // another file is put behind the link when the plan has been made
		want     string
	}{
		"the link alone":   {[]string{link}, false, "which leads to " + file + ", and the check did not declare that"},
		"both":             {[]string{link, file}, false, ""},
		"the link swapped": {[]string{link, file}, true, "and the check did not declare that"},
	} {
		t.Run(name, func(t *testing.T) {
			other := filepath.Join(t.TempDir(), "other")
			for _, path := range []string{file, other} {
				if err := os.WriteFile(path, []byte("broken"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			point := func(to string) {
				os.Remove(link)
				if err := os.Symlink(to, link); err != nil {
					t.Fatal(err)
				}
			}
			point(file)
			g := newGuest(func(p *doctor.Plan) {
				p.Steps[0] = doctor.Step{Title: "S", EditFile: &doctor.EditFileStep{Path: link, Before: hex.EncodeToString(sum[:]),
					Splices: []doctor.Splice{{Old: []byte("broken"), New: []byte("whole")}}}}
			})
			g.Checks[0].Changes = doctor.Effects{Files: c.declared}
			r, err := guestEngine(t, db, g).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: func(context.Context, doctor.PlanResult) error {
				if c.swap {
					point(other)
				}
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			said := r.Before.Checks[0].Reason
			if len(r.Plans) > 0 {
				said += r.Plans[0].Reason
			}
			one, _ := os.ReadFile(file)
			two, _ := os.ReadFile(other)
			if !strings.Contains(said, c.want) || (string(one) == "whole") != (c.want == "") || string(two) != "broken" {
				t.Errorf("%q; %s, %s", said, one, two)
			}
		})
	}
}

// working is a plugin whose plan is an operation that tells what it was handed.
func working(saw *[]*doctor.Target, effects doctor.Effects) *guest {
	g := newGuest(func(p *doctor.Plan) {
		p.Steps = []doctor.Step{{Title: "S", Operation: &doctor.OperationStep{Name: "work", Undo: "back", Effects: effects}}}
	})
	work := func(_ context.Context, t *doctor.Target, _ doctor.OperationStep, _ string, _ doctor.OperationHost) error {
		*saw = append(*saw, t)
		return nil
	}
	g.Checks[0].Operations = map[string]doctor.OperationFunc{"work": work, "back": work}
	g.Checks[0].Changes = doctor.Effects{Tables: []string{"bridge"}, Files: []string{"/f"}}
	g.terms.TrustDatabase = false
	return g
}

func TestAnOperationOfAThirdPartyIsHandedTheLoginToWhatItChanges(t *testing.T) {
	db := guestDB(t)
	for name, c := range map[string]struct {
		effects doctor.Effects
		main    bool
	}{
		"a table":      {doctor.Effects{Tables: []string{"bridge"}}, true},
		"a file alone": {doctor.Effects{Files: []string{"/f"}}, false},
		"nothing":      {doctor.Effects{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var saw []*doctor.Target
			to := target(db)
			to.Databases[0].DataStores = []string{"main"}
			second := target(db).Databases[0]
			second.Label, second.DataStores = "state", []string{"state"}
			to.Databases, to.Replicas = append(to.Databases, second), target(db).Databases
			e := engine.New(engine.Options{Version: "test", Target: to, StateDir: filepath.Join(t.TempDir(), "state"), Sources: []doctor.Source{working(&saw, c.effects)}})
			r, err := e.Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
			if err != nil {
				t.Fatal(err)
			}
			if len(saw) != 1 {
				t.Fatalf("%s; %+v", r.Before.Checks[0].Reason, r.Plans)
			}
			if got := saw[0]; got.Admin != nil || got.Replicas != nil || (got.Databases[0].Settings != nil) != c.main || got.Databases[1].Settings != nil {
				t.Errorf("%+v %+v", got.Databases[0], got.Databases[1])
			}
		})
	}
}

func TestAThirdPartysOperationIsPutBackByItsOwnPluginAndOnlyWhileThatIsAllowed(t *testing.T) {
	db := guestDB(t)
	for name, c := range map[string]struct {
		change func(*guest) doctor.Source
		want   string
	}{
		"the same":       {func(g *guest) doctor.Source { return g }, ""},
		"removed":        {func(*guest) doctor.Source { return &doctor.Local{} }, `the plugin with the check "bridge" is not loaded`},
		"not allowed":    {func(g *guest) doctor.Source { g.terms.AllowFix = false; return g }, "allow_fix: true under plugins.acme in F"},
		"one of our own": {func(g *guest) doctor.Source { return &g.Local }, "made by another plugin"},
	} {
		t.Run(name, func(t *testing.T) {
			state := filepath.Join(t.TempDir(), "state")
			var saw []*doctor.Target
			if _, err := guestEngineIn(state, db, working(&saw, doctor.Effects{Tables: []string{"bridge"}})).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree}); err != nil || len(saw) != 1 {
				t.Fatal(saw, err)
			}
			u, err := guestEngineIn(state, db, c.change(working(&saw, doctor.Effects{}))).Undo(t.Context(), engine.UndoOptions{Consent: agree})
			if err != nil {
				t.Fatal(err)
			}
			if p := u.Plans[0]; !strings.Contains(p.Reason, c.want) || (p.Status == doctor.PlanApplied) != (c.want == "") || (len(saw) == 2) != (c.want == "") {
				t.Errorf("%s: %s; %d", p.Status, p.Reason, len(saw))
			}
		})
	}
}

func TestAThirdPartyEditsOnlyOrdinaryFilesThatAreItsOwn(t *testing.T) {
	db := guestDB(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"state", "a", "b"} {
		if err := os.MkdirAll(in(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"state/file", "a/file", "b/file", "twice"} {
		if err := os.WriteFile(in(f), []byte("broken"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{os.Link(in("twice"), in("once")), syscall.Mkfifo(in("pipe"), 0o600), os.Symlink(in("a"), in("link")),
		os.Truncate(in("twice"), 6), os.WriteFile(in("large"), nil, 0o600), os.Truncate(in("large"), 65<<20)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sum := sha256.Sum256([]byte("broken"))
	for name, c := range map[string]struct{ path, want string }{
		"another name":        {in("once"), "hard links"},
		"a pipe":              {in("pipe"), "no ordinary file"},
		"a directory":         {in("a"), "no ordinary file"},
		"a large file":        {in("large"), "larger than 64 MiB"},
		"the doctor's own":    {in("state/file"), "belongs to the doctor itself"},
		"no such file":        {in("missing"), "can't be read"},
		"up and down":         {in("a") + "/../b/file", ""},
		"up behind a link":    {in("link") + "/../b/file", ""},
		"through a directory": {in("link/file"), "which leads to " + in("a/file")},
		"a relative path":     {"file", "without an absolute path"},
		"an honest one":       {in("a/file"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(func(p *doctor.Plan) {
				p.Steps[0] = doctor.Step{Title: "S", EditFile: &doctor.EditFileStep{Path: c.path, Before: hex.EncodeToString(sum[:]),
					Splices: []doctor.Splice{{Old: []byte("broken"), New: []byte("whole")}}}}
			})
			g.Checks[0].Changes = doctor.Effects{Files: []string{c.path}}
			r, err := guestEngineIn(state, db, g).Fix(t.Context(), engine.FixOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Before.Checks[0].Reason; !strings.Contains(got, c.want) || (len(r.Plans) == 1) != (c.want == "") {
				t.Errorf("%d plans: %s", len(r.Plans), got)
			}
		})
	}
}

func TestAThirdPartysFileIsNotPutBackWhereItLeadsElsewhere(t *testing.T) {
	db := guestDB(t)
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	state, dir, other := filepath.Join(root, "state"), filepath.Join(root, "dir"), filepath.Join(root, "other")
	path := filepath.Join(dir, "file")
	for _, d := range []string{dir, other} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("broken"))
	g := newGuest(func(p *doctor.Plan) {
		p.Steps[0] = doctor.Step{Title: "S", EditFile: &doctor.EditFileStep{Path: path, Before: hex.EncodeToString(sum[:]),
			Splices: []doctor.Splice{{Old: []byte("broken"), New: []byte("whole")}}}}
	})
	g.Checks[0].Changes = doctor.Effects{Files: []string{path}}
	if _, err := guestEngineIn(state, db, g).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree}); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.WriteFile(filepath.Join(other, "file"), []byte("whole"), 0o600), os.RemoveAll(dir), os.Symlink(other, dir)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	u, err := guestEngineIn(state, db, &doctor.Local{}).Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(filepath.Join(other, "file")); u.Plans[0].Status != doctor.PlanRefused || !strings.Contains(u.Plans[0].Reason, "which leads to") || string(text) != "whole" {
		t.Errorf("%s: %s; %s", u.Plans[0].Status, u.Plans[0].Reason, text)
	}
}
