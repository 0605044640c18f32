package port

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// left are tables that are not copied, though both sides may have them.
var left = map[string]string{
	"schema_version":               "it says which schema the target has",
	"schema_compat_version":        "it says which schema the target has",
	"applied_schema_deltas":        "it says which schema the target has",
	"background_updates":           "nothing may be pending on either side",
	"user_directory_search":        "Synapse makes it anew from the rest",
	"user_directory_stream_pos":    "it is set so that Synapse makes the user directory's search anew",
	"worker_read_write_locks":      "it holds locks of processes that are gone",
	"worker_read_write_locks_mode": "it holds locks of processes that are gone",
	"port_from_sqlite3":            "it is the record of Synapse's own script",
}

const (
	searchTable  = "event_search"
	searchSource = "event_search_content"
)

// search reports whether the table is that of the search rows, of which the file keeps the texts in another.
func (t Table) search() bool { return t.Source == searchSource }

// targetColumn is a column as the target's catalog has it.
type targetColumn struct {
	Ident, Table        string
	OID                 uint32
	Rows                int64
	Name                string
	Type                uint32
	TypeName, Cast      string
	NotNull, HasDefault bool
	Generated, Hashable bool
	MaxChars            int
	Triggered           bool
	Key                 []string
}

const columnsQuery = `SELECT format('%I.%I', n.nspname, c.relname), c.relname::text, c.oid, greatest(c.reltuples, 0)::int8, a.attname::text,
  a.atttypid, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1),
  a.attnotnull, a.atthasdef OR a.attidentity <> '', a.attgenerated <> '',
  t.typtype = 'b' AND t.typelem = 0 AND EXISTS (SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname = 'hash'
    JOIN pg_amproc p ON p.amprocfamily = o.opcfamily AND p.amproclefttype = o.opcintype AND p.amprocnum = 2
    WHERE o.opcdefault AND (o.opcintype = t.oid OR t.oid = 'varchar'::regtype AND o.opcintype = 'text'::regtype)),
  CASE WHEN a.atttypid = 'varchar'::regtype AND a.atttypmod > 4 THEN a.atttypmod - 4 ELSE 0 END,
  EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND g.tgtype & 4 <> 0),
  coalesce((SELECT array_agg(k.attname::text ORDER BY u.n) FROM (SELECT i.indkey FROM pg_index i
      WHERE i.indrelid = c.oid AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL ORDER BY NOT i.indisprimary, i.indexrelid LIMIT 1) i
    CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY u (attnum, n) JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = u.attnum), '{}')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relkind = 'r' AND pg_table_is_visible(c.oid) AND n.nspname NOT IN ('pg_catalog', 'information_schema', '` + stateSchema + `') AND n.nspname !~ '^pg_temp'
ORDER BY c.relname, a.attname`

// ReadMatch compares the catalogs of the two sides. It reads no rows, but for columns and tables that only the file has, of
// which it looks whether they hold anything.
func ReadMatch(ctx context.Context, tx pgx.Tx, file *sqlitedb.DB) (*Match, error) {
	rows, err := tx.Query(ctx, columnsQuery)
	if err != nil {
		return nil, fmt.Errorf("read the target's catalog: %w", err)
	}
	columns, err := pgx.CollectRows(rows, pgx.RowToStructByPos[targetColumn])
	if err != nil {
		return nil, fmt.Errorf("read the target's catalog: %w", err)
	}
	sources, err := listSources(ctx, file)
	if err != nil {
		return nil, err
	}
	m := &Match{Left: map[string]string{}}
	seen := map[string]bool{} // tables of the file that have a place, or need none
	for len(columns) > 0 {
		name := columns[0].Table
		n := 1
		for n < len(columns) && columns[n].Table == name {
			n++
		}
		if err := m.match(ctx, file, sources, seen, columns[:n]); err != nil {
			return nil, err
		}
		columns = columns[n:]
	}
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		s := sources[name]
		if seen[name] || s.internal {
			continue
		}
		if reason, ok := left[s.name]; ok {
			m.Left[s.name] = reason
			continue
		}
		holds, err := hasRow(ctx, file, "SELECT 1 FROM "+quoteSQLite(s.name)+" LIMIT 1")
		if err != nil {
			return nil, err
		}
		if holds {
			m.OnlySource = append(m.OnlySource, s.name)
		}
	}
	if m.keys, err = readForeignKeys(ctx, tx); err != nil {
		return nil, err
	}
	return m, nil
}

// foreignKey is one that holds for every row of the target.
type foreignKey struct {
	Name          string
	Child, Parent uint32
	Columns       []string
	Refers        []string
}

func readForeignKeys(ctx context.Context, tx pgx.Tx) ([]foreignKey, error) {
	rows, err := tx.Query(ctx, `SELECT k.conname::text, k.conrelid, k.confrelid,
  (SELECT array_agg(a.attname::text ORDER BY u.n) FROM unnest(k.conkey) WITH ORDINALITY u (attnum, n) JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum),
  (SELECT array_agg(a.attname::text ORDER BY u.n) FROM unnest(k.confkey) WITH ORDINALITY u (attnum, n) JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum)
FROM pg_constraint k WHERE k.contype = 'f' AND k.convalidated ORDER BY k.conname`)
	if err != nil {
		return nil, fmt.Errorf("read the target's foreign keys: %w", err)
	}
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByPos[foreignKey])
	if err != nil {
		return nil, fmt.Errorf("read the target's foreign keys: %w", err)
	}
	return keys, nil
}

// match finds the table of the file that belongs to a table of the target.
func (m *Match) match(ctx context.Context, file *sqlitedb.DB, sources map[string]*sourceTable, seen map[string]bool, columns []targetColumn) error {
	first := columns[0]
	lower := strings.ToLower(first.Table)
	source := sources[lower]
	if reason, ok := left[first.Table]; ok {
		if source != nil {
			m.Left[first.Table] = reason
		}
		seen[lower] = true
		return nil
	}
	t := Table{Name: first.Table, Ident: first.Ident, OID: first.OID, Rows: first.Rows, triggered: first.Triggered}
	if t.Name == searchTable && sources[searchSource] != nil && (source == nil || source.virtual) {
		t.Source, t.rowid = searchSource, "c.docid"
		seen[searchSource], seen[lower] = true, true
		for _, c := range columns {
			if from, ok := searchColumns[c.Name]; ok {
				t.Columns = append(t.Columns, c.column(from))
			} else {
				m.Unequal = append(m.Unequal, fmt.Sprintf("the column %s of the table %s of the target is not known to this version of the doctor", c.Name, t.Name))
			}
		}
		t.finish(first.Key)
		m.Tables = append(m.Tables, t)
		return nil
	}
	if source == nil || source.virtual {
		m.OnlyTarget = append(m.OnlyTarget, t.Name)
		return nil
	}
	seen[lower] = true
	t.Source, t.rowid, t.order = source.name, source.rowid, source.order
	there := map[string]bool{}
	for _, c := range columns {
		from, ok := source.columns[strings.ToLower(c.Name)]
		there[strings.ToLower(c.Name)] = true
		switch {
		case c.Generated:
		case ok:
			t.Columns = append(t.Columns, c.column(from))
		case c.NotNull && !c.HasDefault:
			m.Unequal = append(m.Unequal, fmt.Sprintf("the table %s of the file has no column %s, which the target needs", t.Source, c.Name))
		}
	}
	for _, lower := range slices.Sorted(maps.Keys(source.columns)) {
		if there[lower] || source.computed[lower] {
			continue
		}
		name := source.columns[lower]
		holds, err := hasRow(ctx, file, fmt.Sprintf("SELECT 1 FROM %s WHERE %s IS NOT NULL LIMIT 1", quoteSQLite(source.name), quoteSQLite(name)))
		if err != nil {
			return err
		}
		if holds {
			m.Unequal = append(m.Unequal, fmt.Sprintf("the column %s of the table %s of the file has no place in the target", name, source.name))
		}
	}
	if len(t.Columns) == 0 {
		m.OnlyTarget = append(m.OnlyTarget, t.Name)
		return nil
	}
	t.finish(first.Key)
	m.Tables = append(m.Tables, t)
	return nil
}

// searchColumns are where the columns of event_search come from: the file keeps its texts in a table of its own, and what
// else the target has in events.
var searchColumns = map[string]string{
	"event_id": "c.c0event_id", "room_id": "c.c1room_id", "sender": "c.c2sender", "key": "c.c3key", "vector": "c.c4value",
	"origin_server_ts": "e.origin_server_ts", "stream_ordering": "e.stream_ordering",
}

func (c targetColumn) column(source string) Column {
	out := Column{Name: c.Name, Source: source, Type: c.Type, TypeName: c.TypeName, NotNull: c.NotNull, MaxChars: c.MaxChars, cast: c.Cast}
	name := quote(c.Name)
	switch {
	case kindOf(c.Type) == kindVector:
		out.Hashed = "tsvectorsend(" + name + ")"
	case c.Hashable:
		out.Hashed = name
	default:
		out.Hashed = name + "::text"
	}
	return out
}

// finish puts the columns in order, and keeps a key that is copied whole.
func (t *Table) finish(key []string) {
	slices.SortFunc(t.Columns, func(a, b Column) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
	for _, name := range key {
		if t.column(name) < 0 {
			return
		}
	}
	t.Key = key
}

// column is the place of a column among those that are copied, or -1.
func (t Table) column(name string) int {
	return slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name })
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

func quoteSQLite(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
