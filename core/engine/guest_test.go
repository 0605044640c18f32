package engine_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
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

func TestAThirdPartysPlanThatShowsMoreThanWasDeclaredIsNotMade(t *testing.T) {
	db := guestDB(t)
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
		"another session":            {sqlOf(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity`), "calls pg_terminate_backend"},
		"the doctor's lock":          {sqlOf(`SELECT pg_advisory_unlock_all()`), "calls pg_advisory_unlock_all"},
		"a large object":             {sqlOf(`SELECT lo_create(0)`), "calls lo_create"},
		"no such table":              {sqlOf(`DELETE FROM nowhere`), "does not take"},
		"outside transactions":       {func(p *doctor.Plan) { p.Steps[0].SQL.Mode = doctor.ModeNone }, "outside a transaction"},
		"a lasting effect":           {func(p *doctor.Plan) { p.Steps[0].SQL.Lasting = true }, "no rollback takes back"},
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
			r, err := guestEngine(t, db, newGuest(c.change)).Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
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
	for name, c := range map[string]struct {
		setup, statement, want string
	}{
		"through a function":         {"", `UPDATE bridge SET value = meddle()`, "it changes public.secrets; rolled back"},
		"through a trigger":          {`CREATE TRIGGER t AFTER UPDATE ON bridge EXECUTE FUNCTION forget()`, mendBridge, "it changes public.secrets; rolled back"},
		"through a deferred trigger": {`CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON bridge DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION forget()`, mendBridge, "it changes public.secrets; rolled back"},
		"through a cascade":          {"", `DELETE FROM bridge`, "it changes public.secrets; rolled back"},
		"DDL in a function":          {"", `SELECT quietly()`, "it changes the catalog"},
		"SELECT INTO":                {"", `SELECT 1 AS id INTO made`, "it changes the catalog"},
		"another's sequence":         {"", `UPDATE bridge SET value = nextval('stream')`, "it changes public.stream; rolled back"},
		"through a rule":             {`CREATE RULE r AS ON UPDATE TO bridge DO ALSO DELETE FROM secrets`, mendBridge, ""},
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
		`DROP ROLE IF EXISTS guest_reader, guest_writer, guest_member, guest_maker`,
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
