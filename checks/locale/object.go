package locale

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// column is one that has a collation of its own.
type column struct {
	Schema, Table, Name string
	Kind                string // r: table, p: partitioned table, m: materialized view
	Type                string // with its length
	Collation           string // as a statement has it
	CollationName       string
	Provider, Locale    string
	OfPartition         bool // it has the collation of the partitioned table's
}

// columnsQuery lists the columns with another collation than the database's own (100) and those that are C by libc or the
// builtin provider.
const columnsQuery = `SELECT n.nspname::text, t.relname::text, a.attname::text, t.relkind::text, format_type(a.atttypid, a.atttypmod),
  format('%I.%I', s.nspname, l.collname), l.collname::text, l.collprovider::text, v.locale, t.relispartition
FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_collation l ON l.oid = a.attcollation JOIN pg_namespace s ON s.oid = l.collnamespace,
LATERAL (SELECT coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale', l.collcollate::text, '')) AS v(locale)
WHERE a.attcollation NOT IN (0, 100) AND a.attnum > 0 AND NOT a.attisdropped AND t.relkind IN ('r', 'p', 'm')
  AND t.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND NOT (l.collprovider IN ('c', 'b') AND v.locale IN ('C', 'POSIX'))
ORDER BY 1, 2, a.attnum`

func columnsNotC(ctx context.Context, tx pgx.Tx) ([]column, error) {
	rows, err := tx.Query(ctx, columnsQuery)
	if err != nil {
		return nil, fmt.Errorf("list the columns with a collation of their own: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	if err != nil {
		return nil, fmt.Errorf("list the columns with a collation of their own: %w", err)
	}
	return found, nil
}

// judgeObjects judges columns and indexes with a collation of their own. An index that has it from its column is said with
// the column: it is rebuilt when the column is changed.
func (c *catalog) judgeObjects() []doctor.Finding {
	var found []doctor.Finding
	for _, x := range c.columns {
		if !x.OfPartition {
			found = append(found, c.columnNotC(x))
		}
	}
	for _, x := range c.indexes {
		own := slices.DeleteFunc(slices.Clone(x.Locales), func(locale string) bool {
			return slices.ContainsFunc(c.columns, func(col column) bool {
				return col.Schema == x.Schema && col.Table == x.Table && col.CollationName == locale
			})
		})
		if len(own) > 0 {
			found = append(found, c.indexNotC(x, own))
		}
	}
	return found
}

func (c *catalog) columnNotC(x column) doctor.Finding {
	name := x.Table + "." + x.Name
	if x.Schema != "public" {
		name = x.Schema + "." + name
	}
	f := doctor.Finding{
		Code: ObjectNotC, Severity: doctor.Warning, Object: doctor.Object{Kind: "column", Name: name},
		Summary:  fmt.Sprintf("The column %s has the collation %s of its own: its order depends on a library, whatever the database's locale is.", name, x.CollationName),
		Observed: fmt.Sprintf("COLLATE %s, provider %s with the locale %s", x.Collation, providerName(x.Provider), x.Locale), Expected: "the database's own collation, C",
		Evidence: map[string]string{},
	}
	var indexes []index
	for _, i := range c.indexes {
		if i.Schema == x.Schema && i.Table == x.Table && slices.Contains(i.Locales, x.CollationName) {
			indexes = append(indexes, i)
		}
	}
	affectedEvidence(f.Evidence, indexes)
	if x.Provider == "b" { // compares bytes
		f.Severity = doctor.Info
		f.Summary = fmt.Sprintf("The column %s has the collation %s of its own: in the same order as C, and with upper and lower case as PostgreSQL's version has them.", name, x.CollationName)
	}
	f.Remedy = "Synapse makes no such column: find out who did, and why. "
	if x.Kind == "m" {
		f.Remedy += "It is a materialized view's: make the view anew with COLLATE \"C\" in its query."
		return f
	}
	to := `"C"`
	if c.own.sound() {
		to = `"default"` // what Synapse's own columns have
	}
	f.Remedy += stopSynapse + " Then, as the table's owner; nobody can use the table while its indexes are rebuilt:\n\n    " +
		fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s TYPE %s COLLATE %s;", identifier(x.Schema, x.Table), identifier(x.Name), x.Type, to) +
		"\n\nIf it ends with SQLSTATE 23505, a key is there twice, and nothing has changed: synapse-doctor check locale --deep finds the rows."
	return f
}

func (c *catalog) indexNotC(x index, locales []string) doctor.Finding {
	f := doctor.Finding{
		Code: ObjectNotC, Severity: doctor.Warning, Object: doctor.Object{Kind: "index", Name: x.Name},
		Summary: fmt.Sprintf("The index %s of %s compares by the collation %s: its order depends on a library, whatever the database's locale is.",
			x.shown(), x.Table, strings.Join(locales, " and ")),
		Observed: "collation " + strings.Join(locales, ", "), Expected: "the database's own collation, C",
		Evidence: map[string]string{},
	}
	affectedEvidence(f.Evidence, []index{x})
	f.Remedy = "Synapse makes no such index: find out who did, and why. Without need of it, as its owner, while Synapse is up:\n\n    DROP INDEX CONCURRENTLY " + x.qualified() +
		";\n\nOr see how it is built, and build it anew without that collation:\n\n    SELECT pg_get_indexdef(" + textLiteral(x.qualified()) + "::regclass);"
	return f
}
