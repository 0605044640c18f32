package schema

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// owners are programs that are known to keep tables in Synapse's own database, by the beginning of the tables' names.
var owners = []struct{ prefix, program string }{
	{"state_compressor_", "rust-synapse-compress-state"},
	{"syncv3_", "the sliding sync proxy"},
	{"email_account_validity", "the module synapse-email-account-validity"},
	{"email_status_account_validity", "the module synapse-email-account-validity"},
	{"mx_", "a bridge of mautrix"}, {"crypto_", "a bridge of mautrix"},
	{"pgbench_", "pgbench"}, {"hdb_", "Hasura"}, {"spock_", "spock"}, {"pglogical", "pglogical"},
}

func ownerOf(table string) string {
	for _, o := range owners {
		if strings.HasPrefix(table, o.prefix) {
			return o.program
		}
	}
	return ""
}

// kindred gathers what is of one kind and none of Synapse's.
type kindred struct {
	kind    string // foreign indexes
	one     string // index
	what    string // what it may mean
	names   []string
	refuses []string // those that may refuse Synapse's rows
}

const (
	maxNamed = 60 // in evidence
	maxShown = 20 // in what was observed
)

// foreign tells what is none of Synapse's: one finding for each kind, since an administrator who keeps such things wants to
// see at a glance whether there are more than he knows of.
func foreign(have *live, want wanted) []doctor.Finding {
	if !want.Exact {
		return nil // between two releases there may be what neither of them has
	}
	var found []doctor.Finding
	if f, is := foreignTables(have); is {
		found = append(found, f)
	}
	columns := kindred{kind: "foreign columns", one: "column", what: "A release of Synapse that adds a column of the same name " +
		"could not be upgraded to."}
	indexes := kindred{kind: "foreign indexes", one: "index", what: "Each costs disk, and time whenever a row is stored."}
	constraints := kindred{kind: "foreign constraints", one: "constraint", what: "A row that Synapse means to store can be refused by it."}
	triggers := kindred{kind: "foreign triggers", one: "trigger", what: "It runs within Synapse's own transactions."}
	for _, name := range slices.Sorted(maps.Keys(want.Tables)) {
		h, w := have.Tables[name], want.Tables[name]
		if h == nil {
			continue
		}
		for _, c := range h.Columns {
			if w.column(c.Name) == nil && !(c.NotNull && c.fills() == "") {
				columns.names = append(columns.names, name+"."+c.Name)
			}
		}
		for _, i := range h.Indexes {
			known := slices.ContainsFunc(w.Indexes, func(o Index) bool { return o.Def == i.Def && (o.Unique || !i.Unique) })
			if known || formerIndexes[i.Name] || i.Invalid || i.NotReady { // the check locale tells of those
				continue
			}
			indexes.names = append(indexes.names, i.Name+" of "+name)
			if i.Unique {
				indexes.refuses = append(indexes.refuses, i.Name+" of "+name)
			}
		}
		for _, k := range h.Constraints {
			if !slices.ContainsFunc(w.Constraints, func(o Constraint) bool { return o.Def == k.Def || o.Name == k.Name }) {
				constraints.names = append(constraints.names, k.Name+" of "+name)
			}
		}
		for _, g := range h.Triggers {
			if !slices.ContainsFunc(w.Triggers, func(o Trigger) bool { return o.Function == g.Function }) {
				triggers.names = append(triggers.names, g.Name+" of "+name)
			}
		}
	}
	for _, k := range []kindred{columns, indexes, constraints, triggers} {
		if len(k.names) > 0 {
			found = append(found, k.finding(want))
		}
	}
	return found
}

func (k kindred) finding(want wanted) doctor.Finding {
	f := doctor.Finding{
		Code: ForeignObject, Severity: doctor.Info, Object: doctor.Object{Kind: k.kind, Name: "of Synapse's tables"},
		Summary:  fmt.Sprintf("Synapse's tables have %s that Synapse did not make: %s.", count(len(k.names), k.one), few(k.names, 3)),
		Observed: few(k.names, maxShown), Expected: "those of " + want.Label + ", or what you know of",
		Remedy: k.what + " Nothing needs to be done when you, or a program of yours, made it on purpose. Keep a note of it: it is " +
			"not in a schema that Synapse makes anew.",
		Evidence: map[string]string{
			"names": few(k.names, maxNamed),
		},
	}
	if len(k.refuses) > 0 {
		f.Evidence["unique, and so may refuse Synapse's rows"] = few(k.refuses, maxNamed)
	}
	return f
}

func count(n int, one string) string {
	switch {
	case n == 1:
		return "1 " + one
	case one == "index":
		return fmt.Sprintf("%d indexes", n)
	}
	return fmt.Sprintf("%d %ss", n, one)
}

func foreignTables(have *live) (doctor.Finding, bool) {
	n := have.Others.Count
	var names []string
	by := map[string][]string{}
	for _, t := range have.Others.Tables {
		if Passing(t) || formerTables[t] {
			n--
			continue
		}
		names = append(names, t)
		if o := ownerOf(t); o != "" {
			by[o] = append(by[o], t)
		}
	}
	if n == 0 {
		return doctor.Finding{}, false
	}
	f := doctor.Finding{
		Code: ForeignObject, Severity: doctor.Info, Object: doctor.Object{Kind: "foreign tables", Name: "beside Synapse's"},
		Summary:  fmt.Sprintf("Beside Synapse's tables there %s none of Synapse's: %s.", isAre(n, "table"), few(names, 3)),
		Observed: few(names, maxShown), Expected: "Synapse's tables, or what you know of",
		Remedy: "Nothing needs to be done for Synapse's sake, as long as no name is one that a release of Synapse wants. Another " +
			"program is better off, and easier to back up, in a database of its own.",
		Evidence: map[string]string{
			"names": few(names, maxNamed),
		},
	}
	for o, tables := range by {
		f.Evidence["of "+o] = few(tables, 10)
	}
	return f, true
}

func isAre(n int, one string) string {
	if n == 1 {
		return "is 1 " + one + " that is"
	}
	return fmt.Sprintf("are %d %ss that are", n, one)
}
