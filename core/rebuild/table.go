package rebuild

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// table is one table whose rows are carried.
type table struct {
	OID    uint32
	Schema string
	Name   string
	Bytes  int64 // of the heap and what is stored out of line
	Heap   int64 // of the heap; 0: there is no row
	// Columns are those that hold data: dropped ones have none, and generated ones are computed again.
	Columns []column
}

// column is one column of a table.
type column struct {
	Name string
	Type uint32 // of a domain, the type beneath
	// Element is the type of an array's elements; 0 for what is no array.
	Element uint32
}

// tablesQuery lists the ordinary tables with rows of their own, largest first. Those of an extension are its own affair
// (the examination refuses them), the doctor's mark of an earlier rebuild is made anew.
const tablesQuery = `WITH RECURSIVE base AS (
  SELECT oid, oid AS domain, typtype, typbasetype, typelem, typsubscript::text AS subscript FROM pg_type
  UNION ALL
  SELECT t.oid, b.domain, t.typtype, t.typbasetype, t.typelem, t.typsubscript::text FROM base b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
)
SELECT c.oid, n.nspname::text, c.relname::text, pg_table_size(c.oid), pg_relation_size(c.oid),
  coalesce(array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attnum IS NOT NULL), '{}'),
  coalesce(array_agg(b.oid ORDER BY a.attnum) FILTER (WHERE a.attnum IS NOT NULL), '{}'),
  coalesce(array_agg(CASE WHEN b.subscript = 'array_subscript_handler' THEN b.typelem ELSE 0 END ORDER BY a.attnum) FILTER (WHERE a.attnum IS NOT NULL), '{}')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
LEFT JOIN base b ON b.domain = a.atttypid AND b.typtype <> 'd'
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  AND (n.nspname, c.relname) <> ('synapse_doctor', 'rebuild')
GROUP BY c.oid, n.nspname, c.relname
ORDER BY pg_table_size(c.oid) DESC, n.nspname, c.relname`

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// listTables reads the tables of the database of this session.
func listTables(ctx context.Context, conn querier) ([]table, error) {
	rows, err := conn.Query(ctx, tablesQuery)
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	var tables []table
	var t table
	var names []string
	var types, elements []uint32
	_, err = pgx.ForEachRow(rows, []any{&t.OID, &t.Schema, &t.Name, &t.Bytes, &t.Heap, &names, &types, &elements}, func() error {
		t.Columns = nil
		for i, name := range names {
			t.Columns = append(t.Columns, column{Name: name, Type: types[i], Element: elements[i]})
		}
		tables = append(tables, t)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	return tables, nil
}

func (t table) qualified() string { return qualified(t.Schema, t.Name) }

// columnList names the columns as they stand in a statement.
func (t table) columnList() string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = ident(c.Name)
	}
	return strings.Join(names, ", ")
}

// The types of PostgreSQL whose values are written in ASCII whatever the encoding, by OID (pg_type.dat; fixed for ever).
var plainTypes = []uint32{
	16 /* bool */, 17 /* bytea */, 20 /* int8 */, 21 /* int2 */, 23 /* int4 */, 26 /* oid */, 27 /* tid */, 28 /* xid */, 29, /* cid */
	600, 601, 602, 603, 604, 628, 718 /* points to circles */, 700 /* float4 */, 701 /* float8 */, 790 /* money */, 829, 869, 650, 774, /* addresses */
	1082 /* date */, 1083, 1114, 1184, 1186, 1266 /* times */, 1560, 1562 /* bits */, 1700 /* numeric */, 2950 /* uuid */, 3220 /* pg_lsn */, 5069, /* xid8 */
}

// plain reports whether the encoding has no part in the column's values.
func (c column) plain() bool {
	return slices.Contains(plainTypes, c.Type) || c.Element != 0 && slices.Contains(plainTypes, c.Element)
}

// The types with a hash in which equal means the very same bytes. Others (numeric: 1.0 and 1.00; float: 0 and -0; char: blanks)
// are compared as text, and so is what has no hash (json, tsvector).
var hashedTypes = []uint32{16, 17, 20, 21, 23, 25 /* text */, 26, 1043 /* varchar */, 1082, 1114, 1184, 2950}

func (c column) hashed() bool {
	return slices.Contains(hashedTypes, c.Type) || c.Element != 0 && slices.Contains(hashedTypes, c.Element)
}

// ordered are the types whose text depends on how the bytes of its parts sort: jsonb and tsvector.
func (c column) ordered() bool { return c.Type == 3802 || c.Type == 3614 }
