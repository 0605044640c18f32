package database

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// existence looks for the role and the database themselves. A missing role is said for every database that it is missed
// in: each plan has to reckon with it.
func (e *entry) existence(said map[string]bool) {
	switch {
	case e.login.OID == 0:
		e.roleMissing()
	case !e.login.CanLogin && e.once(said, RoleCannotLogin, e.login.Name):
		e.find(doctor.Finding{
			Code: RoleCannotLogin, Severity: doctor.Error, Object: roleObject(e.login.Name), Fixable: true,
			Summary:  fmt.Sprintf("The role %s may not log in: Synapse does not start.", e.login.Name),
			Observed: "NOLOGIN", Expected: "the attribute LOGIN",
		}, "Find out first whether somebody took the login away on purpose.", asAdmin("", fmt.Sprintf("ALTER ROLE %s LOGIN", e.login.Ident)))
	}
	if e.database == nil {
		e.databaseMissing()
	}
}

func (e *entry) roleMissing() {
	advice := "Look first whether user under database: args: in homeserver.yaml is right; with sudo -u postgres psql -l you see who owns which database."
	if e.database != nil {
		advice = fmt.Sprintf("The database %s is there and belongs to %s. If that is the role which Synapse used, correct user under database: args: in homeserver.yaml and change nothing else.", e.name, e.database.Owner)
	}
	create := "sudo -u postgres createuser --pwprompt " + shell(e.login.Name)
	ask := "it asks for the password that homeserver.yaml has"
	if !e.hasPassword() {
		create, ask = "sudo -u postgres createuser "+shell(e.login.Name), "without a password, since none is configured"
	}
	e.find(doctor.Finding{
		Code: RoleMissing, Severity: doctor.Error, Object: roleObject(e.login.Name), Fixable: true,
		Summary:  fmt.Sprintf("The role %s does not exist: Synapse can't log in.", e.login.Name),
		Observed: "no such role", Expected: "the role with which Synapse logs in",
	}, advice, fmt.Sprintf("By hand, on the server's machine; %s:\n\n    %s", ask, create))
}

// hasPassword: one that stands in a password file for several hosts is not known here.
func (e *entry) hasPassword() bool { return e.db.Settings["password"] != "" }

func (e *entry) databaseMissing() {
	advice := fmt.Sprintf("Look first whether dbname under database: args: in homeserver.yaml is right, and whether this is the right server: an empty database in place of the right one lets Synapse start without any account or message. "+
		"Only for a new homeserver, create %s.", e.name)
	f := doctor.Finding{
		Code: DatabaseMissing, Severity: doctor.Error, Object: databaseObject(e.name), Fixable: true,
		Summary:  fmt.Sprintf("The database %s does not exist: Synapse does not start.", e.name),
		Observed: "no such database", Expected: "Synapse's database",
	}
	if len(e.others) > 0 {
		f.Evidence = map[string]string{"databases of " + e.login.Name: strings.Join(e.others, ", ")}
		advice = fmt.Sprintf("The role %s owns %s. ", e.login.Name, strings.Join(e.others, ", ")) + advice
	}
	e.find(f, advice, asAdmin("", e.createDatabase()))
}

// createDatabase is what Synapse's documentation asks for. From 15 on a new database has the locale provider of its
// template: on a server made with ICU's or the builtin one, C would be no more than a name (seen on 15 to 18).
func (e *entry) createDatabase() string {
	provider := ""
	if e.server.version >= 150000 {
		provider = "LOCALE_PROVIDER libc "
	}
	return fmt.Sprintf("CREATE DATABASE %s ENCODING 'UTF8' %sLC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0 OWNER %s", e.ident, provider, e.acting.Ident)
}
