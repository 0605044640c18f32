package locale

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// Of a damaged index, and of keys that are there twice, a finding shows only the first few.
const (
	placesShown     = 3
	duplicatesShown = 5
	ctidsShown      = 8
	longestKey      = 120 // in runes
)

// disorder is an index whose entries are not where its present order wants them.
type disorder struct {
	Method     string  // how it was seen: amcheck, or SQL
	Message    string  // the server's words, amcheck's mostly
	Inversions int64   // seen by SQL
	Places     []place // the first of them
}

func (e *examination) outOfOrder(x index, o disorder) doctor.Finding {
	f := e.corrupt(x, o.Method)
	f.Summary = fmt.Sprintf("The index %s of table %s is not in order: rows that exist are not found through it.", x.Name, x.Table)
	f.Expected = "every entry in the order in which this server compares text today"
	if o.Message != "" {
		f.Observed = "the server says: " + doctor.Clean(o.Message)
		return f
	}
	f.Observed = fmt.Sprintf("%d entries stand after a greater one", o.Inversions)
	f.Evidence["inversions"] = fmt.Sprint(o.Inversions)
	for i, p := range o.Places {
		if !synapse.KeepsSecrets(x.Table) {
			f.Evidence[fmt.Sprintf("place %d", i+1)] = fmt.Sprintf("%s stands before %s", shown(p.First), shown(p.Second))
		}
	}
	return f
}

// incomplete is the finding that an index does not hold the keys of its table.
func (e *examination) incomplete(x index, method string, has, ought content) doctor.Finding {
	f := e.corrupt(x, method)
	f.Summary = fmt.Sprintf("The index %s does not hold what its table %s holds: rows that exist are not found through it.", x.Name, x.Table)
	f.Observed = fmt.Sprintf("%d entries", has.Rows)
	f.Expected = fmt.Sprintf("%d, as many as there are rows", ought.Rows)
	if has.Rows == ought.Rows {
		f.Observed += ", with other keys than the rows"
		f.Expected = "the keys of the rows"
	}
	return f
}

func (e *examination) corrupt(x index, method string) doctor.Finding {
	unique := "no"
	remedy := []string{
		"Stop Synapse and all its workers, and see what the doctor can do about it:",
		"    synapse-doctor fix locale",
	}
	if x.Unique {
		unique = "yes"
		remedy = append(remedy, "A REINDEX alone may fail: keys that this index no longer found may have been stored again, and those duplicates must go first.")
	} else {
		remedy = append(remedy, "Or rebuild it yourself, as its owner, while Synapse is stopped:", "    REINDEX INDEX "+x.qualified()+";")
	}
	return doctor.Finding{
		Code: IndexCorrupt, Severity: doctor.Error, Database: e.label, Object: doctor.Object{Kind: "index", Name: x.Name},
		Remedy: strings.Join(remedy, "\n\n"), Fixable: true,
		Evidence: map[string]string{"table": x.Table, "unique": unique, "method": method},
	}
}

// duplicated is the finding that keys of a unique index are there more than once.
func (e *examination) duplicated(x index, d definition, groups []duplicate, keys, rows int64) doctor.Finding {
	f := doctor.Finding{
		Code: DuplicateKeys, Severity: doctor.Error, Database: e.label, Object: doctor.Object{Kind: "index", Name: x.Name}, Fixable: true,
		Summary: fmt.Sprintf("Table %s holds keys more than once that its unique index %s should have kept apart: %s, %s too many.",
			x.Table, x.Name, number(keys, "key"), number(rows, "row")),
		Observed: fmt.Sprintf("%s more than once, %s too many", number(keys, "key"), number(rows, "row")), Expected: "each key once",
		Evidence: map[string]string{"table": x.Table, "columns": d.columns(), "keys": fmt.Sprint(keys), "surplus rows": fmt.Sprint(rows)},
	}
	secret := synapse.KeepsSecrets(x.Table)
	for i, g := range groups {
		ctids := strings.Join(g.CTIDs[:min(len(g.CTIDs), ctidsShown)], ", ")
		if len(g.CTIDs) > ctidsShown {
			ctids += fmt.Sprintf(" and %d more", len(g.CTIDs)-ctidsShown)
		}
		if !secret {
			ctids = shown(g.Keys) + " at " + ctids
		}
		f.Evidence[fmt.Sprintf("duplicate %d", i+1)] = ctids
	}
	f.Remedy = strings.Join([]string{
		"Stop Synapse and all its workers, and see what the doctor can do about it; it keeps what it removes:",
		"    synapse-doctor fix locale",
		"Through an index that is out of order, a query may show only one row of each. This shows where they are, whatever the indexes are like:",
		"    " + strings.ReplaceAll(d.showDuplicates(x, secret), "\n", "\n    "),
	}, "\n\n")
	return f
}

// showDuplicates is for people to run.
func (d definition) showDuplicates(x index, secret bool) string {
	var values []string
	for _, k := range d.Keys {
		values = append(values, k.Expression)
	}
	keys := strings.Join(values, ", ")
	first := keys + ", "
	if secret {
		first = ""
	}
	where := d.duplicatesWhere(x)
	if where != "" {
		where = "\n " + where
	}
	return fmt.Sprintf("BEGIN;\nSET LOCAL enable_indexscan = off;\nSET LOCAL enable_indexonlyscan = off;\nSET LOCAL enable_bitmapscan = off;\n"+
		"SELECT %scount(*), array_agg(ctid)\n  FROM ONLY %s%s\n  GROUP BY %s\n  HAVING count(*) > 1;\nROLLBACK;", first, x.table(), where, keys)
}

// columns are the keys as people name them: without collations.
func (d definition) columns() string {
	names := make([]string, len(d.Keys))
	for i, k := range d.Keys {
		names[i], _, _ = strings.Cut(k.Expression, " COLLATE ")
	}
	return strings.Join(names, ", ")
}

// shown is a key for a line of text: strangers choose what is in it, and how long it is.
func shown(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		if r := []rune(v); len(r) > longestKey {
			v = string(r[:longestKey]) + "…"
		}
		quoted[i] = `"` + doctor.Clean(v) + `"`
	}
	return "(" + strings.Join(quoted, ", ") + ")"
}

func number(n int64, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}
