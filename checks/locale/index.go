package locale

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

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
  SELECT i.indexrelid, k.coll, k.n
  FROM pg_index i, unnest(i.indcollation::oid[], i.indclass::oid[]) WITH ORDINALITY AS k(coll, class, n)
  JOIN pg_opclass o ON o.oid = k.class JOIN pg_opfamily f ON f.oid = o.opcfamily
  WHERE k.coll <> 0 AND f.opfname NOT LIKE '%pattern_ops'
  UNION ALL
  SELECT d.objid, d.refobjid, 0 FROM pg_depend d
  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_collation'::regclass
), named AS (
  SELECT k.indexrelid, bool_or(k.coll = 100) AS by_default,
    array_agg(DISTINCT l.collname ORDER BY l.collname) FILTER (WHERE k.coll <> 100
      AND NOT (l.collprovider IN ('c', 'b') AND coalesce(l.collcollate, to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale', '') IN ('C', 'POSIX'))) AS locales
  FROM keys k JOIN pg_collation l ON l.oid = k.coll GROUP BY k.indexrelid
), held AS MATERIALIZED (` + heldQuery + `)
SELECT c.oid, n.nspname, c.relname, t.relname, t.oid, a.amname, i.indisunique, i.indisprimary, i.indisvalid, i.indisready,
  coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false),
  z.bytes / current_setting('block_size')::int, z.bytes, z.table_bytes, t.reltuples::bigint,
  coalesce(m.locales, '{}')::text[], m.by_default
FROM named m JOIN pg_index i USING (indexrelid)
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam, LATERAL (SELECT
  CASE WHEN c.oid IN (SELECT relation FROM held) THEN c.relpages::bigint * current_setting('block_size')::int ELSE coalesce(pg_relation_size(c.oid), 0) END AS bytes,
  CASE WHEN t.oid IN (SELECT relation FROM held) THEN t.relpages::bigint * current_setting('block_size')::int ELSE coalesce(pg_relation_size(t.oid), 0) END AS table_bytes) z
WHERE c.relkind = 'i' AND a.amname <> 'hash' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND c.relpersistence <> 't'
ORDER BY z.bytes DESC, n.nspname, c.relname`

// heldQuery lists what another session has, or waits to have, to itself: to ask for its size is to wait for that session, so that
// what the last ANALYZE saw has to do.
const heldQuery = `SELECT relation FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND pid <> pg_backend_pid()
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`

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
	// Greater is the operator of the reverse order.
	Greater string
	// Compare is the function by which the index itself finds its way: negative, 0 or positive, strict.
	Compare string
	// Usual: that is the order, and the equality, that the key's type has everywhere else in SQL.
	Usual bool
	// Hash is a function of a value and a seed that gives equal values the same 64 bits; empty when there is none.
	Hash string
	// HashAs is what is put after the value for it: a cast, where the function is one borrowed from another type.
	HashAs  string
	NotNull bool // by a constraint on the column; never of an expression
}

// definitionQuery asks for each key what the planner (the operators) and the index itself (the support function) compare by.
// The hash function is one that goes with the same operator for equality, as the planner wants it for a hash join. Some types,
// boolean among them, share the function of another with the same bytes; then it is the text that is hashed.
const definitionQuery = `WITH keys AS MATERIALIZED (
  SELECT i.indexrelid, i.indrelid, k.n::int, i.indkey[k.n - 1] AS attnum, i.indoption[k.n - 1] AS option, k.coll, k.class
  FROM pg_index i, unnest(i.indcollation::oid[], i.indclass::oid[]) WITH ORDINALITY AS k(coll, class, n) WHERE i.indexrelid = ANY($1)
), classes AS MATERIALIZED (
  SELECT o.oid, o.opcdefault, less.name AS less, equal.name AS equal, greater.name AS greater, compare.name AS compare, hash.name AS hash, hash.cast AS hash_as
  FROM pg_opclass o
  LEFT JOIN LATERAL (` + operatorQuery + `1) less ON true
  LEFT JOIN LATERAL (` + operatorQuery + `3) equal ON true
  LEFT JOIN LATERAL (` + operatorQuery + `5) greater ON true
  LEFT JOIN LATERAL (SELECT format('%I.%I', s.nspname, p.proname) AS name
    FROM pg_amproc a JOIN pg_proc p ON p.oid = a.amproc JOIN pg_namespace s ON s.oid = p.pronamespace
    WHERE a.amprocfamily = o.opcfamily AND a.amproclefttype = o.opcintype AND a.amprocrighttype = o.opcintype AND a.amprocnum = 1) compare ON true
  LEFT JOIN LATERAL (SELECT CASE WHEN own THEN format('%I.%I', s.nspname, p.proname) ELSE 'pg_catalog.hashtextextended' END AS name,
      CASE WHEN own THEN '' ELSE '::text COLLATE pg_catalog."C"' END AS cast
    FROM pg_amop h JOIN pg_am m ON m.oid = h.amopmethod AND m.amname = 'hash'
    JOIN pg_amproc a ON a.amprocfamily = h.amopfamily AND a.amproclefttype = h.amoplefttype AND a.amprocrighttype = h.amoprighttype AND a.amprocnum = 2
    JOIN pg_proc p ON p.oid = a.amproc JOIN pg_namespace s ON s.oid = p.pronamespace, LATERAL (SELECT p.proargtypes[0] = o.opcintype AS own) w
    WHERE h.amopopr = equal.oid AND h.amoplefttype = o.opcintype AND h.amoprighttype = o.opcintype AND EXISTS (
      SELECT FROM pg_opclass u JOIN pg_amop e ON e.amopfamily = u.opcfamily AND e.amopopr = equal.oid AND e.amopstrategy = 3
      WHERE u.opcmethod = o.opcmethod AND u.opcintype = o.opcintype AND u.opcdefault)
    ORDER BY h.amopfamily LIMIT 1) hash ON true
  WHERE o.oid IN (SELECT class FROM keys)
)
SELECT k.indexrelid, coalesce(pg_get_indexdef(k.indexrelid, k.n, true), '') || CASE WHEN k.coll <> 0
    THEN (SELECT format(' COLLATE %I.%I', s.nspname, l.collname) FROM pg_collation l JOIN pg_namespace s ON s.oid = l.collnamespace
      WHERE l.oid = k.coll) ELSE '' END,
  o.less, o.equal, k.option & 1 <> 0, k.option & 2 <> 0, o.greater, o.compare, o.opcdefault, coalesce(o.hash, ''), coalesce(o.hash_as, ''),
  coalesce((SELECT t.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = t.attrelid AND c.contype = 'n'
      AND NOT c.convalidated AND c.conkey = ARRAY[t.attnum]) FROM pg_attribute t
    WHERE t.attrelid = k.indrelid AND t.attnum = nullif(k.attnum, 0)), false)
FROM keys k JOIN classes o ON o.oid = k.class ORDER BY k.indexrelid, k.n`

const operatorQuery = `SELECT p.oid, format('OPERATOR(%I.%s)', s.nspname, p.oprname) AS name
    FROM pg_amop a JOIN pg_operator p ON p.oid = a.amopopr JOIN pg_namespace s ON s.oid = p.oprnamespace
    WHERE a.amopfamily = o.opcfamily AND a.amoplefttype = o.opcintype AND a.amoprighttype = o.opcintype AND a.amopstrategy = `

// define reads the definition of a btree index.
func define(ctx context.Context, tx pgx.Tx, x index) (definition, error) {
	found, err := definitions(ctx, tx, []index{x})
	if err != nil {
		return definition{}, fmt.Errorf("read the definition of index %s: %w", x.Name, err)
	}
	d, ok := found[x.OID]
	if !ok {
		return d, fmt.Errorf("read the definition of index %s: %w", x.Name, pgx.ErrNoRows)
	}
	return d, nil
}

// definitions reads those of several btree indexes, by OID. One that was dropped is not among them.
func definitions(ctx context.Context, tx pgx.Tx, list []index) (map[uint32]definition, error) {
	oids := make([]uint32, len(list))
	for i, x := range list {
		oids[i] = x.OID
	}
	found := map[uint32]definition{}
	rows, err := tx.Query(ctx, definitionQuery, oids)
	if err != nil {
		return nil, err
	}
	var oid uint32
	var k key
	columns := []any{&oid, &k.Expression, &k.Less, &k.Equal, &k.Descending, &k.NullsFirst, &k.Greater, &k.Compare, &k.Usual, &k.Hash, &k.HashAs, &k.NotNull}
	if _, err := pgx.ForEachRow(rows, columns, func() error {
		d := found[oid]
		d.Keys = append(d.Keys, k)
		found[oid] = d
		return nil
	}); err != nil {
		return nil, err
	}
	// One that was dropped is still in the transaction's snapshot, but its definition can't be had any more.
	maps.DeleteFunc(found, func(_ uint32, d definition) bool {
		return slices.ContainsFunc(d.Keys, func(k key) bool { return k.Expression == "" || strings.HasPrefix(k.Expression, " COLLATE ") })
	})
	rows, err = tx.Query(ctx, `SELECT indexrelid, coalesce(pg_get_expr(indpred, indrelid, true), '') FROM pg_index WHERE indexrelid = ANY($1) AND indpred IS NOT NULL`, oids)
	if err != nil {
		return nil, err
	}
	var predicate string
	if _, err := pgx.ForEachRow(rows, []any{&oid, &predicate}, func() error {
		if d, ok := found[oid]; ok {
			d.Predicate = predicate
			found[oid] = d
		}
		return nil
	}); err != nil {
		return nil, err
	}
	return found, nil
}
