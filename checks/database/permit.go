package database

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// group names the one transaction of what is permitted.
const group = "permit"

// permit are the steps that give the role what it lacks, in one transaction: its own attributes, the settings, then the
// database and what is in it. The owner comes first of these, since what the owner may do need not be granted, and what
// is granted before would be merged with that (aclnewowner), and lost when the owner is put back.
func (w work) permit() []doctor.Step {
	var steps []doctor.Step
	add := func(title string, q doctor.SQLStep) {
		q.Admin, q.Mode, q.Group = true, doctor.ModeGroup, group
		if w.database != nil {
			q.Database = w.db.Label // a role belongs to no database, so any will do while there is none
		}
		steps = append(steps, doctor.Step{Title: title, SQL: &q})
	}
	w.attributes(add)
	resets := w.settingsToReset()
	for _, s := range resets {
		add(fmt.Sprintf("Take away %s %s", s.Name, s.Value), w.resetStep(s))
	}
	if w.database == nil {
		return steps
	}
	taken := w.mending(OwnerWrong, databaseObject(w.name))
	if taken {
		add(fmt.Sprintf("Make %s the owner of the database", w.acting.Name), w.ownerStep())
	}
	byOwning := taken && w.database.OwnerConnects && w.acting.Name == w.login.Name
	if w.mending(ConnectRevoked, databaseObject(w.name)) && !byOwning {
		add(fmt.Sprintf("Let %s connect", w.login.Name), w.connectStep())
	}
	if limit := w.database.Limit; w.mending(ConnectionLimit, databaseObject(w.name)) {
		add("Take away the database's limit of connections", doctor.SQLStep{
			Statement: w.liftDatabaseLimit(),
			Guard:     limitGuard(databaseLimit, w.name, limit),
			Undo:      []doctor.UndoSQL{{Statement: fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT %d", w.ident, limit), Guard: limitGuard(databaseLimit, w.name, -1)}},
		})
	}
	if w.inside == nil {
		return steps
	}
	w.schemaStep(add, resets, taken)
	if w.mending(TablesNotOwned, databaseObject(w.name)) {
		for _, o := range w.takenObjects() {
			add(fmt.Sprintf("Give %s to %s", o.Ident, w.acting.Name), w.objectStep(o))
		}
	}
	return steps
}

const (
	roleLimit     = `SELECT rolconnlimit = $2 FROM pg_roles WHERE rolname = $1`
	databaseLimit = `SELECT datconnlimit = $2 FROM pg_database WHERE datname = $1`
	canLogin      = `SELECT rolcanlogin FROM pg_roles WHERE rolname = $1`
	cannotLogin   = `SELECT NOT rolcanlogin FROM pg_roles WHERE rolname = $1`
)

func limitGuard(query, name string, limit int32) *doctor.Guard {
	return &doctor.Guard{Query: query, Args: []doctor.Value{{V: name}, {V: int64(limit)}}, Else: fmt.Sprintf("The limit of connections of %s has changed", name) + changed}
}

func (w work) attributes(add func(string, doctor.SQLStep)) {
	object := roleObject(w.login.Name)
	if w.mending(RoleCannotLogin, object) {
		other := fmt.Sprintf("Whether %s may log in has changed", w.login.Name) + changed
		add(fmt.Sprintf("Let %s log in", w.login.Name), doctor.SQLStep{
			Statement: fmt.Sprintf("ALTER ROLE %s LOGIN", w.login.Ident), Guard: &doctor.Guard{Query: cannotLogin, Args: texts(w.login.Name), Else: other},
			Undo: []doctor.UndoSQL{{Statement: fmt.Sprintf("ALTER ROLE %s NOLOGIN", w.login.Ident), Guard: &doctor.Guard{Query: canLogin, Args: texts(w.login.Name), Else: other}}},
		})
	}
	if limit := w.login.Limit; w.mending(ConnectionLimit, object) {
		add("Take away the role's limit of connections", doctor.SQLStep{
			Statement: w.liftRoleLimit(), Guard: limitGuard(roleLimit, w.login.Name, limit),
			Undo: []doctor.UndoSQL{{Statement: fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT %d", w.login.Ident, limit), Guard: limitGuard(roleLimit, w.login.Name, -1)}},
		})
	}
}

func (w work) settingsToReset() []setting {
	var resets []setting
	if w.inside != nil {
		for _, s := range w.astray() {
			if w.resettable(s) && w.mending(SearchPathSet, w.objectOf(s)) {
				resets = append(resets, s)
			}
		}
	}
	for _, s := range w.encodings() {
		if w.resettable(s) && w.mending(ClientEncodingSet, w.objectOf(s)) {
			resets = append(resets, s)
		}
	}
	return resets
}

// stillSet is true while the role $1 has the setting $3 in the database $2, with the value $4 unless that is null.
const stillSet = `SELECT EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) c(entry)
  WHERE s.setrole = coalesce((SELECT oid FROM pg_roles WHERE rolname = $1), 0) AND s.setdatabase = coalesce((SELECT oid FROM pg_database WHERE datname = $2), 0)
    AND lower(split_part(c.entry, '=', 1)) = $3 AND ($4::text IS NULL OR substr(c.entry, strpos(c.entry, '=') + 1) = $4))`

func (w work) resetStep(s setting) doctor.SQLStep {
	var role, database string
	if s.OfRole {
		role = w.login.Name
	}
	if s.OfDatabase {
		database = w.name
	}
	args := func(value string) []doctor.Value {
		return []doctor.Value{unlessEmpty(role), unlessEmpty(database), {V: s.Name}, unlessEmpty(value)}
	}
	return doctor.SQLStep{
		Statement: w.reset(s),
		Guard:     &doctor.Guard{Query: stillSet, Args: args(s.Value), Else: fmt.Sprintf("The setting of %s has changed", s.Name) + changed},
		Undo: []doctor.UndoSQL{{Statement: w.set(s), Guard: &doctor.Guard{Query: "SELECT NOT (" + stillSet + ")", Args: args(""),
			Else: fmt.Sprintf("%s was set anew since: putting the old value back would undo that.", s.Name)}}},
	}
}

const databaseOwner = `SELECT o.rolname = $2 FROM pg_database d JOIN pg_roles o ON o.oid = d.datdba WHERE d.datname = $1`

func (w work) ownerStep() doctor.SQLStep {
	other := fmt.Sprintf("The database %s has got another owner", w.name) + changed
	return doctor.SQLStep{
		Statement: w.takeDatabase(),
		Guard:     &doctor.Guard{Query: databaseOwner, Args: texts(w.name, w.database.Owner), Else: other},
		Undo: append([]doctor.UndoSQL{{
			Statement: fmt.Sprintf("ALTER DATABASE %s OWNER TO %s", w.ident, w.database.OwnerIdent),
			Guard:     &doctor.Guard{Query: databaseOwner, Args: texts(w.name, w.acting.Name), Else: other},
		}}, again(w.database.Regrants)...),
	}
}

// again are the grants that a change of owner and back loses.
func again(grants []string) []doctor.UndoSQL {
	var undo []doctor.UndoSQL
	for _, grant := range grants {
		undo = append(undo, doctor.UndoSQL{Statement: grant})
	}
	return undo
}

func (w work) connectStep() doctor.SQLStep {
	return doctor.SQLStep{
		Statement: w.grantConnect(),
		Guard: &doctor.Guard{Query: `SELECT NOT has_database_privilege($1::name, $2::text, 'CONNECT')`, Args: texts(w.login.Name, w.name),
			Else: fmt.Sprintf("What %s may do has changed", w.login.Name) + changed},
		Undo: []doctor.UndoSQL{{Statement: fmt.Sprintf("REVOKE CONNECT ON DATABASE %s FROM %s", w.ident, w.login.Ident)}},
	}
}

// schemaStep grants what the role lacks in the schema of its tables, and only what it will not have as the owner. Where a
// search_path is taken away, that is the schema to which the rest leads.
func (w work) schemaStep(add func(string, doctor.SQLStep), resets []setting, taken bool) {
	target := w.targetOf(w.pathWithout(resets))
	moved := slices.ContainsFunc(resets, func(s setting) bool { return s.Name == "search_path" })
	if target == nil || !moved && !w.mending(NoCreateOnSchema, doctor.Object{Kind: "schema", Name: target.Name}) {
		return
	}
	var grant []string
	if !target.Usage && !(taken && target.OwnerUsage) {
		grant = append(grant, "USAGE")
	}
	if !target.Create && !(taken && target.OwnerCreate) {
		grant = append(grant, "CREATE")
	}
	if len(grant) == 0 {
		return
	}
	privileges := strings.Join(grant, ", ")
	add(fmt.Sprintf("Let %s make tables in the schema %s", w.acting.Name, target.Name), doctor.SQLStep{
		Statement: w.grantSchema(target, privileges),
		Guard: &doctor.Guard{Query: `SELECT NOT has_schema_privilege($1::name, $2::text, $3::text)`, Args: texts(w.acting.Name, target.Name, grant[len(grant)-1]),
			Else: fmt.Sprintf("What %s may do has changed", w.acting.Name) + changed},
		Undo: []doctor.UndoSQL{{Statement: fmt.Sprintf("REVOKE %s ON SCHEMA %s FROM %s", privileges, target.Ident, w.acting.Ident)}},
	})
}

// pathWithout is the search_path of sessions without some of the settings.
func (w work) pathWithout(resets []setting) []string {
	if value, ok := option(w.db.Settings["options"], "search_path"); ok {
		return splitPath(value)
	}
	for _, s := range w.settings {
		if s.Name == "search_path" && !slices.Contains(resets, s) {
			return splitPath(s.Value)
		}
	}
	return defaultPath
}

const (
	relationOwner = `SELECT o.rolname = $2 FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner WHERE c.oid = to_regclass($1)`
	functionOwner = `SELECT o.rolname = $2 FROM pg_proc p JOIN pg_roles o ON o.oid = p.proowner WHERE p.oid = to_regprocedure($1)`
)

func (w work) objectStep(o object) doctor.SQLStep {
	query := relationOwner
	if o.Kind == "FUNCTION" {
		query = functionOwner
	}
	owned := func(by string) *doctor.Guard {
		return &doctor.Guard{Query: query, Args: texts(o.Ident, by), Else: fmt.Sprintf("%s is gone, or has got another owner", o.Ident) + changed}
	}
	return doctor.SQLStep{
		Statement: o.give(w.acting.Ident), Guard: owned(o.Owner),
		Undo: append([]doctor.UndoSQL{{Statement: o.give(o.OwnerIdent), Guard: owned(w.acting.Name)}}, again(o.Regrants)...),
	}
}
