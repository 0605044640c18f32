package database

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// searchPath judges the settings of search_path that count.
func (e *entry) searchPath(said map[string]bool) {
	if value, ok := option(e.db.Settings["options"], "search_path"); ok {
		if path := splitPath(value); !e.isSound(path) {
			f := e.leads(path, value)
			f.Object, f.Fixable = doctor.Object{Kind: "setting", Name: "search_path"}, false
			e.findUnlessMissing(f, "Correct options under database: args: in homeserver.yaml, or PGOPTIONS in the environment, and restart Synapse.", "")
		}
		return
	}
	for _, s := range e.astray() {
		if !e.once(said, SearchPathSet, fmt.Sprint(e.objectOf(s)), e.ofDatabase(s)) {
			continue
		}
		f := e.leads(splitPath(s.Value), s.Value)
		f.Object, f.Fixable = e.objectOf(s), e.resettable(s)
		e.findUnlessMissing(f, "Restart Synapse afterwards: sessions that are open keep their search_path.", asAdmin("", e.reset(s)))
	}
}

// leads says where a search_path leads.
func (e *entry) leads(path []string, value string) doctor.Finding {
	f := doctor.Finding{Code: SearchPathSet, Severity: doctor.Warning, Observed: "search_path is " + value}
	in := e.makesIn(path)
	switch {
	case in == nil:
		f.Severity = doctor.Error
		f.Summary = fmt.Sprintf("A setting of search_path leads %s to no schema that it may use: it finds and makes no tables.", e.acting.Name)
	case e.inside.hasSynapse() && !e.sees(path):
		f.Severity = doctor.Error
		f.Summary = fmt.Sprintf("A setting of search_path leads %s to the schema %s, where Synapse's tables are not: it would set up an empty homeserver there.", e.acting.Name, in.Name)
	case !in.Create:
		f.Severity = doctor.Error
		f.Summary = fmt.Sprintf("A setting of search_path has %s make tables in the schema %s, where it may not.", e.acting.Name, in.Name)
	default:
		f.Summary = fmt.Sprintf("A setting of search_path has %s make new tables in the schema %s.", e.acting.Name, in.Name)
	}
	f.Expected = "no setting, so that tables are made in public"
	if e.inside.hasSynapse() {
		f.Expected = "the schema of Synapse's tables first: " + strings.Join(e.synapseSchemas(), ", ")
	}
	return f
}

func (e *entry) synapseSchemas() []string {
	var names []string
	for _, s := range e.inside.schemas {
		if s.Synapse {
			names = append(names, s.Name)
		}
	}
	return names
}

// clientEncoding judges the settings of client_encoding where the check encoding can't: it needs Synapse's login.
func (e *entry) clientEncoding(said map[string]bool) {
	if e.db.Meets.Has(doctor.NeedsPostgres) {
		return
	}
	if _, ok := option(e.db.Settings["options"], "client_encoding"); ok {
		return
	}
	for _, s := range e.encodings() {
		if !e.once(said, ClientEncodingSet, fmt.Sprint(e.objectOf(s)), e.ofDatabase(s)) {
			continue
		}
		e.findUnlessMissing(doctor.Finding{
			Code: ClientEncodingSet, Severity: doctor.Warning, Object: e.objectOf(s), Fixable: e.resettable(s),
			Summary:  fmt.Sprintf("Sessions of Synapse start with client_encoding %s: text that it can't express is refused or comes out mangled.", s.Value),
			Observed: s.Value, Expected: "no setting, or UTF8",
		}, "", asAdmin("", e.reset(s)))
	}
}

// encodings are the settings of client_encoding that count. One that sets UTF8 hides everything less particular.
func (e *entry) encodings() []setting {
	var wrong []setting
	for _, s := range e.settings {
		if s.Name != "client_encoding" {
			continue
		}
		if s.UTF8 {
			break
		}
		wrong = append(wrong, s)
	}
	return wrong
}

// objectOf is what the setting hangs on.
func (e *entry) objectOf(s setting) doctor.Object {
	switch {
	case s.OfRole:
		return roleObject(e.login.Name)
	case s.OfDatabase:
		return databaseObject(e.name)
	}
	return doctor.Object{Kind: "setting", Name: s.Name} // ALTER ROLE ALL
}

// ofDatabase tells the settings of one role in two databases apart.
func (e *entry) ofDatabase(s setting) string {
	if s.OfDatabase {
		return e.name
	}
	return ""
}

// resettable: what is set for every role of the server is not Synapse's to change.
func (e *entry) resettable(s setting) bool { return s.OfRole || s.OfDatabase }

func (e *entry) alter(s setting) string {
	switch {
	case s.OfRole && s.OfDatabase:
		return fmt.Sprintf("ALTER ROLE %s IN DATABASE %s", e.login.Ident, e.ident)
	case s.OfRole:
		return "ALTER ROLE " + e.login.Ident
	case s.OfDatabase:
		return "ALTER DATABASE " + e.ident
	}
	return "ALTER ROLE ALL"
}

func (e *entry) reset(s setting) string { return e.alter(s) + " RESET " + s.Name }

// set is the statement that makes the setting again as it was.
func (e *entry) set(s setting) string {
	value := literal(s.Value)
	if s.Name == "search_path" {
		var names []string
		for _, name := range splitPath(s.Value) { // one literal for each: 'a, b' would be one schema of that name
			names = append(names, literal(name))
		}
		if len(names) > 0 {
			value = strings.Join(names, ", ")
		}
	}
	return fmt.Sprintf("%s SET %s TO %s", e.alter(s), s.Name, value)
}
