package database

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// access judges what pg_database says: whether anybody gets in, whether the role does, and whose the database is.
func (e *entry) access() {
	if why := e.database.shut(); why != "" {
		e.notAllowing(why)
	}
	if !e.database.Connect {
		e.findUnlessMissing(doctor.Finding{
			Code: ConnectRevoked, Severity: doctor.Error, Object: databaseObject(e.name), Fixable: true,
			Summary:  fmt.Sprintf("The role %s may not connect to the database %s: Synapse does not start.", e.login.Name, e.name),
			Observed: "neither PUBLIC nor the role has CONNECT", Expected: "the privilege CONNECT",
		}, "Look first whether dbname under database: args: in homeserver.yaml names the right database.", asAdmin("", e.grantConnect()))
	}
	if !e.database.Owned {
		f := doctor.Finding{
			Code: OwnerWrong, Severity: doctor.Warning, Object: databaseObject(e.name), Fixable: true,
			Summary:  fmt.Sprintf("The database %s belongs to %s, and Synapse's role %s is not a member of that.", e.name, e.database.Owner, e.acting.Name),
			Observed: e.database.Owner, Expected: e.acting.Name,
		}
		if target := e.mayMakeIn(); target != nil && !target.Create {
			f.Severity = doctor.Error
		}
		e.findUnlessMissing(f, "", asAdmin("", e.takeDatabase()))
	}
}

func (e *entry) notAllowing(why string) {
	f := doctor.Finding{
		Code: NotAllowingConnections, Severity: doctor.Error, Object: databaseObject(e.name),
		Summary:  fmt.Sprintf("The database %s lets nobody in: Synapse does not start.", e.name),
		Observed: why, Expected: "a database that takes connections",
	}
	const interrupted = "A doctor that works on a database keeps it shut. If a run of synapse-doctor was interrupted, run synapse-doctor fix --apply again first: it settles what was left, and opens the database. Otherwise find out who shut it, and why: it may be in the middle of a repair, a move or an upgrade."
	switch {
	case e.database.Limit == invalid:
		e.find(f, "Somebody began to drop the database, and the server was interrupted in it: part of the data is gone. It can't be used any more, only dropped, and made anew from a backup. Make a copy of the server's data directory before you do that, if you are not certain of the backup.",
			asAdmin("", "DROP DATABASE "+e.ident, e.createDatabase()))
	case !e.database.AllowsConnections:
		e.find(f, interrupted, asAdmin("", fmt.Sprintf("ALTER DATABASE %s ALLOW_CONNECTIONS true", e.ident)))
	default:
		e.find(f, interrupted, asAdmin("", e.liftDatabaseLimit()))
	}
}

func (e *entry) grantConnect() string {
	return fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s", e.ident, e.login.Ident)
}

func (e *entry) takeDatabase() string {
	return fmt.Sprintf("ALTER DATABASE %s OWNER TO %s", e.ident, e.acting.Ident)
}

// path is the search_path with which sessions begin. set is false where it is the server's own.
func (e *entry) path() (path []string, set bool) {
	if value, ok := e.setFor("search_path"); ok {
		return splitPath(value), true
	}
	return defaultPath, false
}

// mayMakeIn is the schema in which Synapse's tables are made, or would be if the role might look into it; nil when there
// is none, or when a search_path leads astray and is the fault.
func (e *entry) mayMakeIn() *schema {
	if e.inside == nil {
		return nil
	}
	path, set := e.path()
	if set && !e.isSound(path) {
		return nil
	}
	return e.targetOf(path)
}

func (e *entry) targetOf(path []string) *schema {
	if s := e.makesIn(path); s != nil {
		return s
	}
	if along := e.alongPath(path, false); len(along) > 0 {
		return along[0]
	}
	return nil
}

// schema judges whether the role may make tables where Synapse's belong.
func (e *entry) schema() {
	path, set := e.path()
	if set && !e.isSound(path) {
		return // that is the fault
	}
	f := doctor.Finding{Code: NoCreateOnSchema, Severity: doctor.Error, Expected: "the privileges USAGE and CREATE"}
	target := e.targetOf(path)
	switch {
	case target == nil:
		f.Object = doctor.Object{Kind: "schema", Name: public}
		f.Summary = fmt.Sprintf("The database %s has no schema in which Synapse could make its tables.", e.name)
		f.Observed = "search_path is " + strings.Join(path, ", ") + ", and none of these schemas is there"
		e.findUnlessMissing(f, "Find out first why the schema public was taken away.", asAdmin(e.name, "CREATE SCHEMA public AUTHORIZATION "+e.acting.Ident))
	case !target.Usage || !target.Create:
		f.Object, f.Fixable = doctor.Object{Kind: "schema", Name: target.Name}, true
		f.Summary = fmt.Sprintf("The role %s may not make tables in the schema %s: Synapse stops where it sets up or updates its tables (permission denied for schema).", e.acting.Name, target.Name)
		f.Observed = "no CREATE"
		if !target.Usage {
			f.Observed = "no USAGE"
		}
		advice, statement := "", e.grantSchema(target, "USAGE, CREATE")
		if !e.database.Owned && target.OwnerUsage && target.OwnerCreate {
			advice = "Since PostgreSQL 15 only the owner of a database may make tables in its schema public, whatever is granted on the database."
			statement = e.takeDatabase()
		}
		e.findUnlessMissing(f, advice, asAdmin(e.name, statement))
	}
}

func (e *entry) grantSchema(s *schema, privileges string) string {
	return fmt.Sprintf("GRANT %s ON SCHEMA %s TO %s", privileges, s.Ident, e.acting.Ident)
}

// mostNames bounds the names that a finding lists.
const mostNames = 10

// owners judges whose Synapse's tables are. What somebody added beside them is told apart by nothing but its name, so
// that only the belongings of the role that also owns the best known tables are Synapse's without a doubt.
func (e *entry) owners() {
	objects := e.inside.objects
	if len(objects) == 0 {
		return
	}
	var names []string
	counts := map[string]int{}
	for i, o := range objects {
		counts[o.Kind]++
		if i < mostNames {
			names = append(names, o.Ident)
		}
	}
	number := fmt.Sprint(len(objects))
	if len(objects) > mostObjects {
		number = fmt.Sprintf("more than %d", mostObjects)
	}
	f := doctor.Finding{
		Code: TablesNotOwned, Severity: doctor.Error, Object: databaseObject(e.name),
		Summary:  fmt.Sprintf("Synapse's tables belong to %s, and not to its role %s: Synapse stops when an update changes them.", objects[0].Owner, e.acting.Name),
		Observed: fmt.Sprintf("%s of another role's: %s", number, strings.Join(names, ", ")),
		Expected: fmt.Sprintf("all of them %s's", e.acting.Name),
		Evidence: map[string]string{},
	}
	for kind, n := range counts {
		f.Evidence[strings.ToLower(kind)+"s"] = fmt.Sprint(n)
	}
	if len(names) < len(objects) {
		f.Observed += ", …"
	}
	const restored = "That is how a restore as another role leaves them. Stop Synapse meanwhile: each table is locked for a moment, and waits for whatever uses it. "
	taken := e.takenObjects()
	switch {
	case len(taken) == 0:
		f.Severity = doctor.Warning
		f.Summary = fmt.Sprintf("Beside Synapse's tables are some that belong to %s: if they are Synapse's, it stops when an update changes them.", objects[0].Owner)
		f.Expected = "nothing of another role's among Synapse's tables"
		e.findUnlessMissing(f, "If they are somebody's own, such as copies, they are better kept in a schema of their own. If they are Synapse's, made by hand as another role, give them to its role.",
			asAdmin(e.name, e.takeAll(objects)...))
	case len(objects) > mostObjects:
		e.findUnlessMissing(f, restored+"They are more than Synapse has, so that the doctor leaves them alone. Not REASSIGN OWNED BY postgres: that fails, for the system's own objects are among them.",
			asAdmin(e.name, e.takeAll(objects[:mostNames])...))
	default:
		f.Fixable = true
		e.findUnlessMissing(f, restored+"REASSIGN OWNED BY postgres is no way: it fails, for the system's own objects are among them.",
			asAdmin(e.name, e.takeAll(taken[:min(len(taken), mostNames)])...)+afterSome(len(taken)))
	}
}

func afterSome(n int) string {
	if n <= mostNames {
		return ""
	}
	return fmt.Sprintf("\n\nand so on for %d more; synapse-doctor fix database prints them all.", n-mostNames)
}

// takenObjects are those that belong to a role which owns one of Synapse's best known tables.
func (e *entry) takenObjects() []object {
	owners := map[string]bool{}
	for _, o := range e.inside.objects {
		owners[o.Owner] = owners[o.Owner] || o.Anchor
	}
	var taken []object
	for _, o := range e.inside.objects {
		if owners[o.Owner] {
			taken = append(taken, o)
		}
	}
	return taken
}

func (e *entry) takeAll(objects []object) []string {
	var statements []string
	for _, o := range objects {
		statements = append(statements, o.give(e.acting.Ident))
	}
	return statements
}

// give is the statement that makes a role, already quoted, the owner.
func (o object) give(to string) string {
	return fmt.Sprintf("ALTER %s %s OWNER TO %s", o.Kind, o.Ident, to)
}
