package sequence

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// catalog is what the system catalog says of the sequences, and of the columns that hold their numbers.
type catalog struct {
	sequences map[string]Info
	columns   map[string]ColumnInfo // by table.column
}

// sequencesQuery lists the sequences of the schema that Synapse uses, which is where its role finds schema_version.
// What an extension made is the extension's affair.
const sequencesQuery = `SELECT c.relname, n.nspname, format('%I.%I', n.nspname, c.relname), quote_literal(format('%I.%I', n.nspname, c.relname)), has_sequence_privilege(c.oid, 'SELECT'), has_sequence_privilege(c.oid, 'UPDATE'),
  pg_has_role(c.relowner, 'USAGE'), s.seqmax, coalesce(o.relname, ''), coalesce(a.attname, '')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence s ON s.seqrelid = c.oid
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
  AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
LEFT JOIN pg_class o ON o.oid = d.refobjid
LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('schema_version'))
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
ORDER BY c.relname`

// Info is what the catalog says of a sequence: a row of sequencesQuery.
type Info struct {
	Name                     string
	Schema                   string
	Ident                    string // schema.name, quoted where SQL needs it
	Literal                  string // Ident as a string in SQL, for setval
	MayRead, MaySet, IsOwner bool
	Max                      int64
	OwnerTable, OwnerColumn  string // whose serial or identity sequence it is; empty for most
}

// columnsQuery says how the greatest value of each wanted column, and of every column that owns a sequence, can be had:
// through a whole and valid btree that begins with it, else through one that has it second, group by group, else by reading
// the table. The names of users are wanted in the order of their bytes, which not every locale gives.
const columnsQuery = `SELECT w.tab, w.col, format('%I.%I', n.nspname, w.tab), quote_ident(w.col), a.atttypid = 'int4'::regtype,
  has_column_privilege(c.oid, a.attnum, 'SELECT'), has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE'), pg_relation_size(c.oid),
  coalesce(x.first, false), coalesce(x.grouped_by, ''),
  a.attcollation = '"C"'::regcollation OR a.attcollation = '"default"'::regcollation AND (
    SELECT p.provider = 'b' OR p.provider = 'c' AND d.datcollate IN ('C', 'POSIX')
    FROM pg_database d, coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') AS p(provider) WHERE d.datname = current_database())
FROM (SELECT tab, col FROM unnest($1::text[], $2::text[]) u(tab, col) UNION
  SELECT o.relname, a.attname FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
  JOIN pg_class o ON o.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum = d.refobjsubid
  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0) w
JOIN pg_class c ON c.oid = to_regclass(quote_ident(w.tab)) AND c.relkind IN ('r', 'p')
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = w.col AND NOT a.attisdropped
LEFT JOIN LATERAL (
  SELECT bool_or(i.indkey[0] = a.attnum) AS first,
    min(quote_ident(g.attname)) FILTER (WHERE i.indnkeyatts > 1 AND i.indkey[1] = a.attnum AND i.indoption[0] = 0 AND i.indoption[1] = 0
      AND g.attnotnull AND a.attnotnull) AS grouped_by
  FROM pg_index i JOIN pg_class r ON r.oid = i.indexrelid JOIN pg_am m ON m.oid = r.relam AND m.amname = 'btree'
  LEFT JOIN pg_attribute g ON g.attrelid = c.oid AND g.attnum = i.indkey[0]
  WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL) x ON true`

// ColumnInfo is what the catalog says of a column that holds numbers, and of its table: a row of columnsQuery.
type ColumnInfo struct {
	Table, Column    string
	Ident            string // schema.table, quoted where SQL needs it
	ColumnIdent      string
	Int4             bool
	MayRead, MayLock bool
	Bytes            int64  // of the table
	Indexed          bool   // an index begins with it
	GroupedBy        string // the first key of an index that has it second, quoted where SQL needs it
	ByteOrder        bool   // text is sorted by its bytes
}

// readCatalog asks for everything in one round trip.
func readCatalog(ctx context.Context, tx pgx.Tx, wanted []Column) (*catalog, error) {
	var tables, cols []string
	for _, c := range wanted {
		tables, cols = append(tables, c.Table), append(cols, c.Column)
	}
	c := &catalog{sequences: map[string]Info{}, columns: map[string]ColumnInfo{}}
	var batch pgx.Batch
	batch.Queue(sequencesQuery).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Info])
		for _, s := range found {
			c.sequences[s.Name] = s
		}
		return err
	})
	batch.Queue(columnsQuery, tables, cols).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ColumnInfo])
		for _, i := range found {
			c.columns[i.Table+"."+i.Column] = i
		}
		return err
	})
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("read the catalog of sequences: %w", err)
	}
	return c, nil
}
