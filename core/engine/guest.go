package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// A plan of a third party is held to what its check declared (doctor.CheckInfo.Changes) three times: by what its steps are,
// by what the server says that its statements would change, and, before each transaction commits, by what the transaction
// did, whoever did it: a trigger, a function, a cascade.

// Bounds on what a third party may plan.
const (
	maxGuestPlans     = 100
	maxGuestSteps     = 1000
	maxGuestStatement = 100_000  // bytes
	maxGuestArgs      = 1000     // of one statement
	maxGuestFile      = 1 << 20  // bytes that one step puts into a file
	maxGuestEdited    = 64 << 20 // bytes of a file that is edited
	maxGuestSaved     = 64 << 20 // bytes of the rows that one step saves
	maxGuestAnswer    = 16 << 20 // bytes of the server's plan of one statement
)

// admit gives each check of a third party what its plugin is handed, and says why a check that needs PostgreSQL is not run.
func (e *Engine) admit(s selected) gate {
	terms := doctor.TermsOf(s.source.source)
	onPostgres := s.info.Needs & (doctor.NeedsPostgres | doctor.NeedsSynapse | doctor.NeedsAdmin)
	switch {
	case terms == nil || onPostgres == 0:
		return gate{}
	case onPostgres.Has(doctor.NeedsAdmin):
		return gate{skip: "needs an administrator's connection, which a plugin of a third party is never handed"}
	case terms.TrustDatabase:
		return gate{}
	case terms.Reader == nil:
		return gate{skip: "its plugin is handed no connection to PostgreSQL: " + terms.HowToConnect()}
	}
	if s.source.readerErr != nil {
		return gate{unknown: s.source.readerErr.Error()}
	}
	var g gate
	for _, d := range e.Target.Databases {
		if d.Engine == doctor.Postgres && d.Meets.Has(onPostgres) && !terms.Admitted(d.Label) {
			g.partly = append(g.partly, fmt.Sprintf("read_dsn under %s does not lead to %s", terms.Entry, d.Where()))
		}
	}
	return g
}

// admitReaders proves, for each third party that has a login of its own, that it leads to the target and only reads.
func (e *Engine) admitReaders(ctx context.Context) {
	for i := range e.described {
		d := &e.described[i]
		if terms := doctor.TermsOf(d.source); d.err == nil && terms != nil && terms.Reader != nil && !terms.TrustDatabase {
			d.readerErr = e.admitReader(ctx, terms)
		}
	}
}

func (e *Engine) admitReader(ctx context.Context, terms *doctor.Terms) error {
	led, possible := false, false
	for i, d := range e.Target.Databases {
		if d.Engine != doctor.Postgres {
			continue
		}
		terms.Admit(d.Label, nil)
		settings := maps.Clone(terms.Reader)
		if name := settings["dbname"]; name != "" && name != d.Settings["dbname"] || !d.Meets.Has(doctor.NeedsPostgres) {
			continue
		}
		possible = true
		settings["dbname"] = d.Settings["dbname"]
		settings, err := settings.Resolve()
		if err != nil {
			return fmt.Errorf("read_dsn under %s: %w", terms.Entry, err)
		}
		e.Redactor.Add(settings["password"])
		e.Redactor.Add(settings["sslpassword"])
		same, err := e.onlyReads(ctx, settings, e.examined[i])
		if err != nil {
			return fmt.Errorf("read_dsn under %s: %w", terms.Entry, err)
		}
		if same {
			led = true
			terms.Admit(d.Label, settings)
		}
	}
	if possible && !led {
		return fmt.Errorf("read_dsn under %s leads to another server than the homeserver's", terms.Entry)
	}
	return nil
}

// readerQuery asks where a session is, and for the first thing that its role may do besides reading: by itself, or as any
// role that it could become.
const readerQuery = `WITH able AS (SELECT oid, rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication FROM pg_roles r WHERE pg_has_role(session_user, r.oid, 'MEMBER')),
  own AS (SELECT c.oid, c.relkind, c.relowner, format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_')
SELECT session_user::text, extract(epoch FROM pg_postmaster_start_time())::text,
  CASE WHEN has_function_privilege('pg_control_system()', 'EXECUTE') THEN (SELECT system_identifier::text FROM pg_control_system()) ELSE '' END,
  coalesce(
    (SELECT 'is a superuser, or can become one' FROM able WHERE rolsuper LIMIT 1),
    (SELECT 'may make roles' FROM able WHERE rolcreaterole LIMIT 1),
    (SELECT 'may make databases' FROM able WHERE rolcreatedb LIMIT 1),
    (SELECT 'may replicate' FROM able WHERE rolreplication LIMIT 1),
    (SELECT 'is a member of ' || rolname FROM able
      WHERE rolname IN ('pg_write_all_data', 'pg_write_server_files', 'pg_read_server_files', 'pg_execute_server_program', 'pg_signal_backend',
        'pg_maintain', 'pg_create_subscription', 'pg_checkpoint') ORDER BY rolname LIMIT 1),
    (SELECT 'owns ' || own.name FROM own JOIN able ON able.oid = own.relowner ORDER BY own.name LIMIT 1),
    (SELECT 'may change ' || own.name FROM own JOIN able ON has_table_privilege(able.oid, own.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
      OR has_any_column_privilege(able.oid, own.oid, 'INSERT, UPDATE')
      OR CASE WHEN own.relkind = 'S' THEN has_sequence_privilege(able.oid, own.oid, 'USAGE') ELSE false END ORDER BY own.name LIMIT 1), '')`

// onlyReads connects with a third party's login. It reports whether that leads to the server that was examined, and it is an
// error when the role may do more than read.
func (e *Engine) onlyReads(ctx context.Context, s pgdb.Settings, x *examined) (same bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectLimit, noAnswer{connectLimit})
	defer cancel()
	c, err := pgdb.Connect(ctx, s, pgdb.Options{ApplicationName: doctor.ApplicationName(e.Target.RunID), ReadOnly: true})
	if err != nil {
		return false, err
	}
	defer pgdb.Close(c)
	var role, started, systemID, more string
	if err := c.QueryRow(ctx, readerQuery).Scan(&role, &started, &systemID, &more); err != nil {
		return false, fmt.Errorf("ask what the role may do: %w", err)
	}
	if more != "" {
		return false, fmt.Errorf("the role %q %s, and it must be able to do nothing but read: GRANT pg_read_all_data, and nothing else", role, more)
	}
	return started == x.started && (systemID == x.systemID || systemID == "" || x.systemID == ""), nil
}

// bindGuest holds the plans of a third party to what its check declared. It is an error when one goes beyond that.
func (e *Engine) bindGuest(ctx context.Context, s selected, plans []doctor.Plan) error {
	if doctor.TermsOf(s.source.source) == nil {
		return nil
	}
	if len(plans) > maxGuestPlans {
		return fmt.Errorf("there are %d plans; a plugin of a third party may make %d", len(plans), maxGuestPlans)
	}
	for i := range plans {
		p := &plans[i]
		p.Bound(&doctor.Effects{
			Databases: slices.Clone(s.info.Changes.Databases), Tables: slices.Clone(s.info.Changes.Tables), Files: slices.Clone(s.info.Changes.Files),
		})
		if p.Risk == doctor.Safe && slices.ContainsFunc(p.Steps, func(s doctor.Step) bool { return s.SQL != nil || s.Operation != nil }) {
			p.Risk = doctor.Careful // that nothing can be lost is not for a third party to say
		}
		err := e.validateGuest(*p)
		if err == nil {
			err = e.explain(ctx, *p)
		}
		if err != nil {
			return fmt.Errorf("plan %q exceeds what a plugin of a third party may do: %w", doctor.Clean(p.ID), err)
		}
	}
	return nil
}

// validateGuest looks at what the steps of a third party's plan are.
func (e *Engine) validateGuest(p doctor.Plan) error {
	for _, r := range p.Requires {
		if r == doctor.RequireAdmin || r == doctor.RequireShut {
			return fmt.Errorf("it requires %s", r)
		}
	}
	if p.Expects != doctor.ExpectSynapse && p.Expects != doctor.ExpectNone {
		return fmt.Errorf("it is for a database that is %s", p.Expects)
	}
	if len(p.Steps) > maxGuestSteps {
		return fmt.Errorf("it has %d steps, and at most %d are possible", len(p.Steps), maxGuestSteps)
	}
	for i, step := range p.Steps {
		if err := e.validateGuestStep(p, step); err != nil {
			return fmt.Errorf("step %d %w", i+1, err)
		}
	}
	return nil
}

func (e *Engine) validateGuestStep(p doctor.Plan, step doctor.Step) error {
	bounds := p.Bounds()
	switch step.Kind() {
	case doctor.KindSQL:
		q := step.SQL
		switch {
		case q.Admin:
			return errors.New("runs SQL as the administrator")
		case q.Mode == doctor.ModeNone:
			return errors.New("runs SQL outside a transaction")
		case q.Reload:
			return errors.New("makes the server load its configuration")
		case q.Lasting:
			return errors.New("has an effect that no rollback takes back")
		case q.Verifier != nil:
			return errors.New("sets a password")
		}
	case doctor.KindEditFile:
		f := step.EditFile
		if f.Server != nil || f.Password != "" || f.Configured != "" {
			return errors.New("edits a file of the database's server, or writes a password")
		}
		size := 0
		for _, s := range f.Splices {
			size += len(s.New) + len(s.Old)
		}
		if size > maxGuestFile {
			return fmt.Errorf("changes more than %d bytes of a file", maxGuestFile)
		}
		real, err := filepath.EvalSymlinks(f.Path)
		if err != nil {
			return fmt.Errorf("edits %s, which can't be read: %w", doctor.Clean(f.Path), cause(err))
		}
		return e.mayEdit(bounds, f.Path, real)
	case doctor.KindProbe:
		if step.Probe.Admin {
			return errors.New("asks as the administrator")
		}
		if step.Probe.Login != nil && step.Probe.Login.Address != "" {
			return errors.New("logs in at an address of its own choice")
		}
	case doctor.KindOperation:
		op := step.Operation
		for what, names := range map[string][2][]string{
			"database": {op.Effects.Databases, bounds.Databases},
			"table":    {qualified(op.Effects.Tables), declaredTables(bounds)},
			"file":     {cleaned(op.Effects.Files), cleaned(bounds.Files)},
		} {
			for _, name := range names[0] {
				if !slices.Contains(names[1], name) {
					return fmt.Errorf("changes the %s %s, which the check did not declare in its Changes", what, doctor.Clean(name))
				}
			}
		}
		if changesDatabase(op) && (p.Database == "" || p.Expects == doctor.ExpectNone) {
			return errors.New("changes a database, and its plan names or expects none")
		}
	}
	for _, q := range statements(step) {
		if len(q.text) > maxGuestStatement || len(q.args) > maxGuestArgs {
			return fmt.Errorf("has a statement of more than %d bytes, or with more than %d arguments", maxGuestStatement, maxGuestArgs)
		}
		if _, err := functionsOf(q.text); err != nil {
			return err
		}
	}
	return nil
}

// mayEdit refuses a file that was not declared, and a link that leads to such a file. real is where the path ends. It also
// refuses what is no ordinary file, what the doctor keeps itself, and a file that has other names: those were not declared.
func (e *Engine) mayEdit(bounds *doctor.Effects, path, real string) error {
	if bounds == nil {
		return nil
	}
	declared := cleaned(bounds.Files)
	shown := doctor.Clean(path)
	if !slices.Contains(declared, filepath.Clean(path)) {
		return fmt.Errorf("edits %s, which the check did not declare in its Changes", shown)
	}
	if !slices.Contains(declared, real) {
		return fmt.Errorf("edits %s, which leads to %s, and the check did not declare that", shown, doctor.Clean(real))
	}
	info, err := os.Lstat(real)
	if err != nil {
		return fmt.Errorf("edits %s, which can't be read: %w", shown, cause(err))
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("edits %s, which is no ordinary file", shown)
	case info.Size() > maxGuestEdited:
		return fmt.Errorf("edits %s, which is larger than %d MiB", shown, maxGuestEdited>>20)
	case ok && owner.Nlink > 1:
		return fmt.Errorf("edits %s, which has other names as well (hard links)", shown)
	case e.keeps(real):
		return fmt.Errorf("edits %s, which belongs to the doctor itself", shown)
	}
	return nil
}

// keeps reports whether a file is in the doctor's state directory.
func (e *Engine) keeps(real string) bool {
	if e.StateDir == "" {
		return false
	}
	dir, err := filepath.Abs(e.StateDir)
	if err != nil {
		return true
	}
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	inside, err := filepath.Rel(dir, real)
	return err == nil && filepath.IsLocal(inside)
}

func cleaned(paths []string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = filepath.Clean(p)
	}
	return out
}

// qualified are the names of tables with their schema.
func qualified(tables []string) []string {
	out := make([]string, len(tables))
	for i, t := range tables {
		if out[i] = t; !strings.Contains(t, ".") {
			out[i] = "public." + t
		}
	}
	return out
}

// declaredTables are the tables that a plan may change. The catalog, and what the doctor itself keeps, are never among them.
func declaredTables(bounds *doctor.Effects) []string {
	return slices.DeleteFunc(qualified(bounds.Tables), func(t string) bool {
		schema, _, _ := strings.Cut(t, ".")
		return strings.HasPrefix(schema, "pg_") || schema == "information_schema" || schema == "synapse_doctor"
	})
}

// statement is a text that a step has the server run.
type statement struct {
	text  string
	args  []doctor.Value
	reads string // what it is, where it may only read
}

// statements are all that a step would have the server run, the ones that put it back included.
func statements(step doctor.Step) []statement {
	var all []statement
	guard := func(g *doctor.Guard) {
		if g != nil {
			all = append(all, statement{g.Query, g.Args, "a guard"})
		}
	}
	if q := step.SQL; q != nil {
		guard(q.Guard)
		if q.Save != nil {
			all = append(all, statement{q.Save.Query, q.Save.Args, "the query of the rows that are saved"})
		}
		all = append(all, statement{q.Statement, q.Args, ""})
		for _, u := range q.Undo {
			guard(u.Guard)
			args := u.Args
			if u.ForEachSaved {
				args = append([]doctor.Value{{V: "{}"}}, args...)
			}
			all = append(all, statement{u.Statement, args, ""})
		}
	}
	if step.Probe != nil {
		guard(step.Probe.Holds)
	}
	return all
}

// explain asks the server what the statements of a plan would change, and runs none of them.
func (e *Engine) explain(ctx context.Context, p doctor.Plan) error {
	tables := declaredTables(p.Bounds())
	for i, step := range p.Steps {
		all := statements(step)
		if len(all) == 0 {
			continue
		}
		changes := false
		label := p.Database
		if step.Probe != nil {
			label = step.Probe.Database
		}
		err := e.Target.Database(label).Read(ctx, func(tx pgx.Tx) error {
			if err := watched(ctx, tx); err != nil {
				return err
			}
			for _, s := range all {
				found, err := explainOne(ctx, tx, s, tables)
				if err != nil {
					return err
				}
				changes = changes || found
			}
			return nil
		})
		if q := step.SQL; err == nil && changes && p.Reversible && len(q.Undo) == 0 {
			err = errors.New("changes something and has no Undo, and its plan says that it can be put back")
		}
		if err != nil {
			return fmt.Errorf("step %d %w", i+1, err)
		}
	}
	return nil
}

// watched refuses a server that does not count what is changed, or on which backslashes in strings are read otherwise.
func watched(ctx context.Context, c conn) error {
	var counts, strings string
	if err := c.QueryRow(ctx, `SELECT pg_catalog.current_setting('track_counts'), pg_catalog.current_setting('standard_conforming_strings')`).Scan(&counts, &strings); err != nil {
		return fmt.Errorf("could not be looked at: %w", err)
	}
	if counts != "on" || strings != "on" {
		return errors.New("can't be watched: the server's track_counts and standard_conforming_strings must be on")
	}
	return nil
}

// maxMessage is the longest message that PostgreSQL sends.
const maxMessage = 1<<30 - 1

// explainOne reports whether a statement changes a table. It is an error when that is one that was not declared.
func explainOne(ctx context.Context, tx pgx.Tx, s statement, tables []string) (changes bool, err error) {
	names, err := functionsOf(s.text)
	if err != nil {
		return false, err
	}
	if err := harmless(ctx, tx, names); err != nil {
		return false, err
	}
	// What the server computes while it plans, as repeat('x', 1000000000), is in what it says.
	wire := tx.Conn().PgConn().Frontend()
	wire.SetMaxBodyLen(maxGuestAnswer)
	defer wire.SetMaxBodyLen(maxMessage)
	rows, err := tx.Query(ctx, "EXPLAIN (VERBOSE, FORMAT JSON) "+s.text, values(s.args)...)
	var texts []string
	if err == nil {
		texts, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if _, large := errors.AsType[*pgproto3.ExceededMaxBodyLenErr](err); large {
		return false, fmt.Errorf("has a statement of which the server's plan is larger than %d MiB", maxGuestAnswer>>20)
	}
	if err != nil {
		return false, fmt.Errorf("has a statement that the server does not take: %w", err)
	}
	var found []string
	for _, text := range texts {
		var plan any
		if err := json.Unmarshal([]byte(text), &plan); err != nil {
			return false, fmt.Errorf("could not be looked at: %w", err)
		}
		found = append(found, modified(plan)...)
	}
	if s.reads != "" && len(found) > 0 {
		return false, fmt.Errorf("changes %s by %s, which may only read", doctor.Clean(found[0]), s.reads)
	}
	other := slices.DeleteFunc(slices.Clone(found), func(t string) bool { return slices.Contains(tables, t) })
	if len(other) == 0 {
		return len(found) > 0, nil
	}
	rows, err = tx.Query(ctx, strangerQuery, other, tables)
	if err != nil {
		return false, fmt.Errorf("could not be looked at: %w", err)
	}
	other, err = pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return false, fmt.Errorf("could not be looked at: %w", err)
	}
	if len(other) > 0 {
		return false, fmt.Errorf("changes %s, which the check did not declare in its Changes", doctor.Clean(other[0]))
	}
	return true, nil
}

// strangerQuery lists those of some tables that are not a part of a declared one: its partitions, and what inherits from it.
const strangerQuery = `WITH RECURSIVE part(name, whole) AS (
    SELECT t.name, c.oid FROM pg_catalog.unnest($1::text[]) t(name)
      LEFT JOIN (pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace) ON n.nspname || '.' || c.relname = t.name
    UNION SELECT p.name, i.inhparent FROM part p JOIN pg_catalog.pg_inherits i ON i.inhrelid = p.whole)
SELECT name FROM part p LEFT JOIN pg_catalog.pg_class c ON c.oid = p.whole LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
GROUP BY name HAVING bool_or(n.nspname || '.' || c.relname = ANY ($2::text[])) IS NOT TRUE ORDER BY name`

// modified are the tables that a plan of the server, as JSON, would change: those of every ModifyTable in it.
func modified(node any) []string {
	var found []string
	switch n := node.(type) {
	case []any:
		for _, child := range n {
			found = append(found, modified(child)...)
		}
	case map[string]any:
		if n["Node Type"] == "ModifyTable" {
			targets := []any{n}
			if several, ok := n["Target Tables"].([]any); ok {
				targets = append(targets, several...)
			}
			for _, target := range targets {
				t, _ := target.(map[string]any)
				if name, ok := t["Relation Name"].(string); ok {
					found = append(found, fmt.Sprint(t["Schema"])+"."+name)
				}
			}
			if len(found) == 0 {
				found = append(found, "a table that the server does not name")
			}
		}
		for _, child := range n {
			switch child.(type) {
			case []any, map[string]any:
				found = append(found, modified(child)...)
			}
		}
	}
	return found
}

// watch is how many rows of each table a session had changed when its transaction began.
type watch string

const watchQuery = `SELECT coalesce(pg_catalog.json_object_agg(relid, n_tup_ins + n_tup_upd + n_tup_del), '{}')::text
FROM pg_catalog.pg_stat_xact_all_tables WHERE n_tup_ins + n_tup_upd + n_tup_del > 0`

// begun begins to watch a transaction of a third party's plan. What its steps call is looked at once more: the plan may be
// an old one that is put back.
func (a *application) begun(ctx context.Context, tx pgx.Tx, indexes []int) (w watch, err error) {
	if a.plan.Bounds() == nil {
		return "", nil
	}
	if err := watched(ctx, tx); err != nil {
		return "", refuse("what the plan does %v", err)
	}
	for _, i := range indexes {
		for _, s := range statements(a.steps[i]) {
			names, err := functionsOf(s.text)
			if err == nil {
				err = harmless(ctx, tx, names)
			}
			if err != nil {
				return "", refuse("step %d %v", i+1, err)
			}
		}
	}
	tx.Conn().PgConn().Frontend().SetMaxBodyLen(maxGuestSaved) // of a session that no other plan uses
	if err := tx.QueryRow(ctx, watchQuery).Scan(&w); err != nil {
		return "", fmt.Errorf("begin to watch what the plan does: %w", err)
	}
	return w, nil
}

// touchedQuery lists the relations that this transaction has changed, or locked as one does who changes them, and that neither
// are declared nor belong to one that is: as an index, a TOAST table, an own sequence or a partition. DDL shows itself by
// changes to the catalog. pg_locks alone does not tell: catalog changes give up their locks at once, and pg_stat does not
// count what happens to a sequence.
const touchedQuery = `WITH RECURSIVE touched(oid) AS (
    SELECT relation FROM pg_locks WHERE locktype = 'relation' AND pid = pg_backend_pid() AND granted AND mode NOT IN ('AccessShareLock', 'RowShareLock')
      AND database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    UNION SELECT relid FROM pg_stat_xact_all_tables
      WHERE n_tup_ins + n_tup_upd + n_tup_del > coalesce(($2::json ->> relid::text)::bigint, 0)),
  part(oid, whole) AS (
    SELECT oid, oid FROM touched
    UNION SELECT p.oid, w.whole FROM part p CROSS JOIN LATERAL (
      SELECT indrelid FROM pg_index WHERE indexrelid = p.whole
      UNION ALL SELECT oid FROM pg_class WHERE reltoastrelid = p.whole
      UNION ALL SELECT inhparent FROM pg_inherits WHERE inhrelid = p.whole
      UNION ALL SELECT d.refobjid FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
        WHERE d.classid = 'pg_class'::regclass AND d.objid = p.whole AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')) w(whole))
SELECT coalesce(n.nspname, 'pg_catalog') = 'pg_catalog', coalesce(n.nspname || '.' || c.relname, '')
FROM touched t LEFT JOIN pg_class c USING (oid) LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT EXISTS (SELECT FROM part p JOIN pg_class w ON w.oid = p.whole JOIN pg_namespace s ON s.oid = w.relnamespace
  WHERE p.oid = t.oid AND s.nspname || '.' || w.relname = ANY ($1))
  AND NOT EXISTS (SELECT FROM part p JOIN touched w ON w.oid = p.whole JOIN pg_class v ON v.oid = w.oid AND v.relkind <> 'v'
    WHERE p.oid = t.oid AND p.whole <> t.oid)
  AND c.relkind IS DISTINCT FROM 'v' -- it holds nothing; to make, change or drop one is in the catalog
ORDER BY 1 DESC, 2`

// within refuses a transaction that did more than the check declared, whoever did it. It is called when nothing but COMMIT is
// left: triggers that are deferred to that moment have their turn before.
func (a *application) within(ctx context.Context, tx pgx.Tx, w watch, xid string) error {
	bounds := a.plan.Bounds()
	if bounds == nil {
		return nil
	}
	if _, err := tx.Exec(ctx, `SET CONSTRAINTS ALL IMMEDIATE`); err != nil {
		return fmt.Errorf("carry out what is deferred: %w", err)
	}
	// A function that the plan has called may have set another search path, or made temporary tables, which come before all
	// others: what is asked from here on means PostgreSQL's own.
	if _, err := tx.Exec(ctx, `SET LOCAL search_path = pg_catalog, pg_temp`); err != nil {
		return fmt.Errorf("look at what the plan did: %w", err)
	}
	var is *string
	var locked bool
	if err := tx.QueryRow(ctx, `SELECT txid_current_if_assigned()::text, (`+holdsLock+`)
		FROM (SELECT count(set_config(name, 'on', true)) FROM pg_settings WHERE name = 'synchronous_commit' AND setting = 'off') s`, advisoryKey).Scan(&is, &locked); err != nil {
		return fmt.Errorf("look at what the plan did: %w", err)
	}
	if is == nil || *is != xid {
		return errors.New("a statement of the plan has ended its transaction")
	}
	if !locked {
		return refuse("a function that the plan calls has given up the doctor's lock on the database; rolled back")
	}
	rows, err := tx.Query(ctx, touchedQuery, declaredTables(bounds), string(w))
	if err != nil {
		return fmt.Errorf("look at what the plan did: %w", err)
	}
	catalog, name := false, ""
	var names []string
	if _, err := pgx.ForEachRow(rows, []any{&catalog, &name}, func() error {
		if !catalog {
			names = append(names, a.engine.clean(name))
		} else if len(names) == 0 { // the catalog's come first
			names = append(names, "the catalog (something is made, altered or dropped)")
		}
		return nil
	}); err != nil {
		return fmt.Errorf("look at what the plan did: %w", err)
	}
	if len(names) > 0 {
		return refuse("it exceeds what the check %s declared: it changes %s; rolled back", a.plan.Check(), strings.Join(names[:min(len(names), 5)], ", ")+more(len(names)-5))
	}
	return nil
}

// exec runs a statement of a plan. A third party's goes by the extended protocol, which takes exactly one: without arguments
// pgx would send it by the simple one, where a COMMIT and anything else could follow.
func (a *application) exec(ctx context.Context, c conn, text string, args ...any) (pgconn.CommandTag, error) {
	if a.plan.Bounds() == nil {
		return c.Exec(ctx, text, args...)
	}
	rows, err := c.Query(ctx, text, args...)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	rows.Close()
	return rows.CommandTag(), rows.Err()
}

// countsItself reports whether the number that the server gives for a statement is that of the rows that it changes. For
// SELECT, or behind a WITH, it is not.
func countsItself(text string) bool {
	s := scanner{text: text}
	t, err := s.next()
	return err == nil && slices.Contains([]string{"insert", "update", "delete", "merge"}, t.text)
}

// changedRows is how many rows of tables, catalog and TOAST aside, a third party's plan has changed in this session.
func (a *application) changedRows(ctx context.Context, c conn) (n int64, err error) {
	if a.plan.Bounds() == nil {
		return 0, nil
	}
	err = c.QueryRow(ctx, `SELECT coalesce(pg_catalog.sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint FROM pg_catalog.pg_stat_xact_user_tables`).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count what the plan changes: %w", err)
	}
	return n, nil
}

// changesDatabase reports whether an operation says that it changes something in a database.
func changesDatabase(op *doctor.OperationStep) bool {
	return len(op.Effects.Databases)+len(op.Effects.Tables) > 0
}

// asRecorded says what is wrong with a plugin that has other checks, or may change more, than was recorded when it was trusted.
func asRecorded(terms *doctor.Terms, d doctor.Description) error {
	if terms == nil {
		return nil
	}
	if err := sameChecks(terms, d); err != nil {
		return err
	}
	if terms.Changes == nil {
		return nil
	}
	for _, c := range d.Checks {
		if !c.Plans {
			continue
		}
		for _, of := range []struct {
			what           string
			says, recorded []string
		}{
			{"table", qualified(c.Changes.Tables), qualified(terms.Changes.Tables)},
			{"file", cleaned(c.Changes.Files), cleaned(terms.Changes.Files)},
			{"database", c.Changes.Databases, terms.Changes.Databases},
		} {
			for _, name := range of.says {
				if !slices.Contains(of.recorded, name) {
					return fmt.Errorf("its check %s may change the %s %s, which was not recorded: look at it, and run: %s", c.ID, of.what, doctor.Clean(name), terms.Update)
				}
			}
		}
	}
	return nil
}

func sameChecks(terms *doctor.Terms, d doctor.Description) error {
	if terms.Checks == nil {
		return nil
	}
	var ids []string
	for _, c := range d.Checks {
		ids = append(ids, c.ID)
	}
	want := slices.Sorted(slices.Values(terms.Checks))
	slices.Sort(ids)
	if slices.Equal(ids, want) {
		return nil
	}
	return fmt.Errorf("it has the checks %s, and %s were recorded: look at it, and run: %s", strings.Join(ids, ", "), strings.Join(want, ", "), terms.Update)
}

// mayApply says why a third party's plan is not applied.
func (p *planned) mayApply() error {
	if terms := doctor.TermsOf(p.source.source); terms != nil && !terms.AllowFix {
		return refuse("a plugin of a third party made it: %s", terms.HowToAllow())
	}
	return nil
}

// Administrator is the database of the main data store, and the administrator's connection to it. Its error says why there is
// none.
func (e *Engine) Administrator(ctx context.Context) (main, admin *doctor.Database, err error) {
	e.examine(ctx)
	main = e.Target.Main()
	switch {
	case main == nil || main.Engine != doctor.Postgres:
		return nil, nil, errors.New("the homeserver does not use PostgreSQL")
	case e.Target.AdminIn(main) == nil:
		return nil, nil, errors.New(e.clean(main.NoAdmin))
	}
	return main, e.Target.AdminIn(main), nil
}
