package locale

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// index is one index whose order, or whose contents, depends on how text compares.
type index struct {
	OID    uint32
	Schema string
	Name   string
	Table  string
	// TableOID is the table's, for what is read by table.
	TableOID uint32
	Method   string // btree, gin, …
	Unique   bool   // unique or primary key
	Primary  bool
	Valid    bool // indisvalid: false after a CREATE INDEX or REINDEX CONCURRENTLY that failed
	Ready    bool // indisready: false: new rows are not put into it
	// NullsNotDistinct: two NULLs are the same key (PostgreSQL 15 and later).
	NullsNotDistinct bool
	Pages            int64 // of the index file, 8 KiB each unless the server was built otherwise
	Bytes            int64
	TableBytes       int64
	Rows             int64 // the planner's estimate of the table; -1 when it was never analysed
	// Locales are the distinct collations that its keys, expressions and predicate compare by, C and POSIX left out.
	Locales []string
	// ByDefault: at least one key has the database's own collation.
	ByDefault bool
}

// indexesQuery lists the indexes with a key whose type has a collation. It goes by OID, never by name: 100 in indcollation is
// the database's own collation, whatever is called "default". The pattern operator classes compare bytes, and hash
// indexes compare nothing. Collations named in expressions and predicates are in pg_depend.
const indexesQuery = `WITH keys AS (
  SELECT i.indexrelid, k.collation, k.n
  FROM pg_index i, unnest(i.indcollation::oid[], i.indclass::oid[]) WITH ORDINALITY AS k(collation, class, n)
  JOIN pg_opclass o ON o.oid = k.class JOIN pg_opfamily f ON f.oid = o.opcfamily
  WHERE k.collation <> 0 AND f.opfname NOT LIKE '%pattern_ops'
  UNION ALL
  SELECT d.objid, d.refobjid, 0 FROM pg_depend d
  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_collation'::regclass
), named AS (
  SELECT k.indexrelid, bool_or(k.collation = 100) AS by_default,
    array_agg(DISTINCT l.collname ORDER BY l.collname) FILTER (WHERE k.collation <> 100
      AND NOT (l.collprovider IN ('c', 'b') AND coalesce(l.collcollate, to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale', '') IN ('C', 'POSIX'))) AS locales
  FROM keys k JOIN pg_collation l ON l.oid = k.collation GROUP BY k.indexrelid
)
SELECT c.oid, n.nspname, c.relname, t.relname, t.oid, a.amname, i.indisunique, i.indisprimary, i.indisvalid, i.indisready,
  coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false),
  pg_relation_size(c.oid) / current_setting('block_size')::int, pg_relation_size(c.oid), pg_relation_size(t.oid), t.reltuples::bigint,
  coalesce(m.locales, '{}')::text[], m.by_default
FROM named m JOIN pg_index i USING (indexrelid)
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam
WHERE c.relkind = 'i' AND a.amname <> 'hash' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND c.relpersistence <> 't'
ORDER BY pg_relation_size(c.oid) DESC, n.nspname, c.relname`

// indexes lists every index in which text is compared, largest first, whether or not the present locale is a stable one.
func indexes(ctx context.Context, tx pgx.Tx) ([]index, error) {
	rows, err := tx.Query(ctx, indexesQuery)
	if err != nil {
		return nil, fmt.Errorf("list the indexes that hold text: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[index])
	if err != nil {
		return nil, fmt.Errorf("list the indexes that hold text: %w", err)
	}
	return found, nil
}

// qualified is the index's name as it stands in a statement.
func (x index) qualified() string { return pgx.Identifier{x.Schema, x.Name}.Sanitize() }

// table is the table's name as it stands in a statement.
func (x index) table() string { return pgx.Identifier{x.Schema, x.Table}.Sanitize() }

// definition is how an index is built, in the words of SQL.
type definition struct {
	Keys      []key
	Predicate string // empty for an index over the whole table
}

// key is one key column of an index.
type key struct {
	Expression string // a column or an expression over the table's columns, with its collation
	Less       string // the operator of its operator class that says which of two comes first: OPERATOR(pg_catalog.<)
	Equal      string
	Descending bool
	NullsFirst bool
}

const definitionQuery = `SELECT pg_get_indexdef(i.indexrelid, k.n, true) || CASE WHEN i.indcollation[k.n - 1] <> 0
    THEN (SELECT format(' COLLATE %I.%I', s.nspname, l.collname) FROM pg_collation l JOIN pg_namespace s ON s.oid = l.collnamespace
      WHERE l.oid = i.indcollation[k.n - 1]) ELSE '' END,
  (SELECT format('OPERATOR(%I.%s)', s.nspname, p.oprname) FROM pg_amop a JOIN pg_operator p ON p.oid = a.amopopr JOIN pg_namespace s ON s.oid = p.oprnamespace
    WHERE a.amopfamily = o.opcfamily AND a.amoplefttype = o.opcintype AND a.amoprighttype = o.opcintype AND a.amopstrategy = 1),
  (SELECT format('OPERATOR(%I.%s)', s.nspname, p.oprname) FROM pg_amop a JOIN pg_operator p ON p.oid = a.amopopr JOIN pg_namespace s ON s.oid = p.oprnamespace
    WHERE a.amopfamily = o.opcfamily AND a.amoplefttype = o.opcintype AND a.amoprighttype = o.opcintype AND a.amopstrategy = 3),
  i.indoption[k.n - 1] & 1 <> 0, i.indoption[k.n - 1] & 2 <> 0
FROM pg_index i, generate_series(1, i.indnkeyatts) AS k(n) JOIN pg_opclass o ON true
WHERE i.indexrelid = $1 AND o.oid = i.indclass[k.n - 1] ORDER BY k.n`

// define reads the definition of a btree index.
func define(ctx context.Context, tx pgx.Tx, x index) (definition, error) {
	var d definition
	if err := tx.QueryRow(ctx, `SELECT coalesce(pg_get_expr(indpred, indrelid, true), '') FROM pg_index WHERE indexrelid = $1`, x.OID).Scan(&d.Predicate); err != nil {
		return d, fmt.Errorf("read the definition of index %s: %w", x.Name, err)
	}
	rows, err := tx.Query(ctx, definitionQuery, x.OID)
	if err != nil {
		return d, fmt.Errorf("read the definition of index %s: %w", x.Name, err)
	}
	if d.Keys, err = pgx.CollectRows(rows, pgx.RowToStructByPos[key]); err != nil {
		return d, fmt.Errorf("read the definition of index %s: %w", x.Name, err)
	}
	return d, nil
}
