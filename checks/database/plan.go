package database

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// plan answers the findings of each database with one plan that takes it from what it is to what Synapse needs.
func plan(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
	seen, err := look(ctx, t)
	if len(seen) == 0 {
		return nil, err // of others, the report has said why they could not be looked at
	}
	asked := map[doctor.FindingKey]bool{}
	for _, f := range findings {
		asked[f.Key()] = true
	}
	var plans []doctor.Plan
	made := map[string]bool{} // the roles that an earlier plan makes, by server
	for _, e := range seen {
		w := work{entry: e, mends: map[doctor.FindingKey]bool{}}
		var covers []doctor.FindingKey
		for _, f := range e.faults {
			if f.Fixable && !f.latent && asked[f.Key()] {
				covers = append(covers, f.Key())
			}
			// A role that is made has none of the rights that it needs.
			if f.Fixable && (asked[f.Key()] || f.latent) {
				w.mends[f.Key()] = true
			}
		}
		if len(covers) > 0 {
			p := w.plan(made)
			p.Covers = covers
			plans = append(plans, p)
		}
	}
	return plans, nil
}

// work is the making of one entry's plan.
type work struct {
	*entry
	mends map[doctor.FindingKey]bool
}

// mending reports whether the plan mends this fault.
func (w work) mending(code string, o doctor.Object) bool {
	return w.mends[doctor.FindingKey{Code: code, Database: w.db.Label, Object: o}]
}

func (w work) plan(made map[string]bool) doctor.Plan {
	p := doctor.Plan{
		Risk: doctor.Careful, Expects: w.expects(), Database: w.db.Label,
		Requires: []doctor.Requirement{doctor.RequireAdmin}, Reversible: true, UndoOnFailure: true,
	}
	missing := w.login.OID == 0
	if missing && w.once(made, w.login.Name) {
		p.Steps = append(p.Steps, w.createRole())
	}
	p.Steps = append(p.Steps, w.permit()...)
	if w.database == nil {
		p.Steps = append(p.Steps, w.create(), w.seeEmpty())
	}
	switch {
	case missing && w.database == nil:
		p.ID, p.Title = w.planID("create"), fmt.Sprintf("Create the role %s and the empty database %s, which is right only for a new homeserver", w.login.Name, w.name)
	case w.database == nil:
		p.ID, p.Title = w.planID("create"), fmt.Sprintf("Create the database %s, empty, which is right only for a new homeserver", w.name)
	case missing:
		p.ID, p.Title = w.planID("create"), fmt.Sprintf("Create the role %s and give it the database %s, which belongs to %s", w.login.Name, w.name, w.database.Owner)
	default:
		p.ID, p.Title = w.planID("permit"), fmt.Sprintf("Let the role %s use the database %s", w.login.Name, w.name)
	}
	return p
}

// planID is the same for the same database in every run.
func (w work) planID(what string) string {
	if w.db.Label == "main" {
		return "database/" + what
	}
	return "database/" + what + "-" + w.db.Label
}

const roleThere = `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`

// changed is the end of what a guard says that no longer holds.
const changed = " since the plan was made: run the fix again."

func (w work) createRole() doctor.Step {
	q := &doctor.SQLStep{
		Admin: true, Mode: doctor.ModeAlone, Statement: fmt.Sprintf("CREATE ROLE %s LOGIN", w.login.Ident),
		Guard: &doctor.Guard{Query: "SELECT NOT (" + roleThere + ")", Args: texts(w.login.Name), Else: fmt.Sprintf("The role %s has been created", w.login.Name) + changed},
		Undo: []doctor.UndoSQL{{Statement: "DROP ROLE " + w.login.Ident,
			Guard: &doctor.Guard{Query: roleThere, Args: texts(w.login.Name), Else: fmt.Sprintf("The role %s is no longer there.", w.login.Name)}}},
	}
	title := fmt.Sprintf("Create the role %s with the password that is configured", w.login.Name)
	if w.hasPassword() {
		q.Statement += " PASSWORD '" + doctor.Masked + "'"
		q.Verifier = &doctor.Verifier{Password: w.db.Label, Salt: salt()}
	} else {
		title = fmt.Sprintf("Create the role %s without a password, since none is configured: it can log in only where pg_hba.conf asks for none", w.login.Name)
	}
	return doctor.Step{Title: title, SQL: q}
}

func salt() []byte {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return b
}

// databaseThere is the end of a query that asks for the database with this owner.
const databaseThere = `EXISTS (SELECT FROM pg_database d JOIN pg_roles o ON o.oid = d.datdba WHERE d.datname = $1 AND o.rolname = $2)`

// unfilled bounds by how much a database that nobody has used is larger than template0, of which it is a copy: a session
// leaves 160 kB there (pg_internal.init). The tables of an empty homeserver take 6 MB.
const unfilled = 2 << 20

// create makes the database. A database can't be looked into from another one, so that only its size tells here that
// nobody has filled it; [work.seeEmpty] looks closer, and is asked first.
func (w work) create() doctor.Step {
	empty := fmt.Sprintf(" AND pg_database_size($1) < pg_database_size('template0') + %d", unfilled)
	return doctor.Step{Title: fmt.Sprintf("Create the database %s", w.name), SQL: &doctor.SQLStep{
		Admin: true, Mode: doctor.ModeNone, Statement: w.createDatabase(),
		Guard: &doctor.Guard{
			Query: `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $2) AND NOT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, Args: texts(w.name, w.acting.Name),
			Else: fmt.Sprintf("The database %s has been created, or its role %s is not there: run the fix again.", w.name, w.acting.Name)},
		Undo: []doctor.UndoSQL{{Statement: "DROP DATABASE " + w.ident,
			Guard: &doctor.Guard{Query: "SELECT " + databaseThere + empty, Args: texts(w.name, w.acting.Name),
				Else: fmt.Sprintf("The database %s is not the empty one that was created: dropping it would lose what is in it.", w.name)}}},
	}}
}

const emptyQuery = `SELECT count(*) = 0 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'v', 'S', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')`

// soundQuery asks of the new database what matters to Synapse. The provider has a column since PostgreSQL 15.
const soundQuery = `SELECT pg_encoding_to_char(d.encoding) = 'UTF8' AND d.datcollate = 'C' AND d.datctype = 'C'
  AND coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c' AND o.rolname = $1
FROM pg_database d JOIN pg_roles o ON o.oid = d.datdba WHERE d.datname = current_database()`

// seeEmpty looks at the new database from inside. It changes nothing, but it is put back before the database is dropped,
// and only while that holds nothing.
func (w work) seeEmpty() doctor.Step {
	return doctor.Step{Title: fmt.Sprintf("See that the new database belongs to %s, sorts as C does, and is empty", w.acting.Name), SQL: &doctor.SQLStep{
		Database: w.db.Label, Admin: true, Mode: doctor.ModeAlone, Statement: emptyQuery, MaxRows: 1,
		Guard: &doctor.Guard{Query: soundQuery, Args: texts(w.acting.Name), Else: fmt.Sprintf("The new database %s is not what it was to be: in UTF8, in the locale C, and %s's.", w.name, w.acting.Name)},
		Undo: []doctor.UndoSQL{{Statement: "SELECT 1",
			Guard: &doctor.Guard{Query: emptyQuery, Else: fmt.Sprintf("the database %s is in use: dropping it would lose what is in it", w.name)}}},
	}}
}

func texts(values ...string) []doctor.Value {
	var args []doctor.Value
	for _, v := range values {
		args = append(args, doctor.Value{V: v})
	}
	return args
}

// unlessEmpty is nil for an empty text, which stands for what is not asked about.
func unlessEmpty(s string) doctor.Value {
	if s == "" {
		return doctor.Value{}
	}
	return doctor.Value{V: s}
}
