package port

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// An object is an index or a key that is not there while a table is filled: it is cheaper to make at once than row by row. Its definition is in port_object from the transaction that drops it until the one that has made it again.
type object struct {
	kind       string // unique, index, constraint
	relation   string // its table, as a statement names it
	name       string
	definition string
	parent     string // the table that a foreign key points at, as a statement names it
	validate   bool   // a foreign key is to be valid; its definition makes one that is not
	holds      bool   // a unique index that a primary key or a unique constraint of its name rests on

	table, parentTable uint32 // OIDs of the two, where the object is pending
	cost               int64  // by which they are put in order: bytes of the table, by a factor
}

const (
	kindUnique     = "unique" // an index, and the constraint that rests on it
	kindIndex      = "index"
	kindConstraint = "constraint"
)

// String names it for people.
func (o object) String() string {
	if o.kind == kindConstraint {
		return fmt.Sprintf("the foreign key %s of %s", o.name, o.relation)
	}
	return fmt.Sprintf("the index %s of %s", o.name, o.relation)
}

// indexes lists indexes with the statements that make them as they are. pg_get_indexdef leaves out the tablespace, the
// targets of ANALYZE, the constraint that rests on it, the mark that CLUSTER left, and the comments.
const indexes = `SELECT CASE WHEN i.indisunique THEN 'unique' ELSE 'index' END, format('%I.%I', n.nspname, c.relname), x.relname::text, concat_ws(E';\n',
  format('SET LOCAL default_tablespace = %L', coalesce(ts.spcname, '')),
  pg_get_indexdef(i.indexrelid),
  (SELECT string_agg(format('ALTER INDEX %I.%I ALTER COLUMN %s SET STATISTICS %s', n.nspname, x.relname, a.attnum, a.attstattarget), E';\n' ORDER BY a.attnum)
   FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0),
  CASE WHEN k.oid IS NOT NULL THEN format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s USING INDEX %I%s%s', n.nspname, c.relname, k.conname, CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, x.relname,
    CASE WHEN k.condeferrable THEN ' DEFERRABLE' END, CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' END) END,
  CASE WHEN k.oid IS NOT NULL THEN 'COMMENT ON CONSTRAINT ' || format('%I ON %I.%I', k.conname, n.nspname, c.relname) || ' IS ' || quote_literal(obj_description(k.oid, 'pg_constraint')) END,
  CASE WHEN i.indisclustered THEN format('ALTER TABLE %I.%I CLUSTER ON %I', n.nspname, c.relname, x.relname) END,
  'COMMENT ON INDEX ' || format('%I.%I', n.nspname, x.relname) || ' IS ' || quote_literal(obj_description(i.indexrelid, 'pg_class'))), '', false, k.oid IS NOT NULL
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_tablespace ts ON ts.oid = x.reltablespace LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u') `

// droppable are indexes that the replication of the table does not go by, and that belong to no extension. What is not
// valid, or could not be made again, stays as it is.
const droppable = `
WHERE i.indrelid = ANY ($1) AND c.relkind = 'r' AND NOT x.relispartition AND NOT i.indisexclusion AND NOT i.indisreplident
  AND i.indisvalid AND i.indisready AND i.indislive
  AND has_schema_privilege(n.oid, 'CREATE') AND (x.reltablespace = 0 OR has_tablespace_privilege(x.reltablespace, 'CREATE'))
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.deptype IN ('e', 'x')) `

// droppableIndexes are those of the tables $1, without the names $2, that keep nothing unique.
const droppableIndexes = indexes + droppable + `AND NOT i.indisunique AND x.relname <> ALL ($2::text[]) ORDER BY 2, 3`

// droppableUnique are those of the tables $1 that keep a key unique, where nothing rests on them but the constraint of the
// same key, and foreign keys, which are dropped before. A constraint has its index's name.
const droppableUnique = indexes + droppable + `AND i.indisunique AND (k.oid IS NULL OR k.conname = x.relname)
  AND NOT EXISTS (SELECT FROM pg_depend d LEFT JOIN pg_constraint f ON d.classid = 'pg_constraint'::regclass AND f.oid = d.objid AND f.contype = 'f' AND f.conparentid = 0
    WHERE d.deptype = 'n' AND f.oid IS NULL AND (d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indexrelid OR d.refclassid = 'pg_constraint'::regclass AND d.refobjid = k.oid))
ORDER BY 2, 3`

const indexNamed = indexes + `WHERE format('%I.%I', n.nspname, c.relname) = $1 AND x.relname = $2 AND i.indisvalid`

// keys lists foreign keys with the statements that make them, NOT VALID at first: that takes no time, and holds no lock while
// the rows are looked at. What is not enforced (PostgreSQL 18) can't be NOT VALID as well.
const keys = `SELECT 'constraint', format('%I.%I', n.nspname, c.relname), k.conname::text, concat_ws(E';\n',
  format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s', n.nspname, c.relname, k.conname,
    CASE WHEN pg_get_constraintdef(k.oid) ~ ' NOT ENFORCED$' THEN pg_get_constraintdef(k.oid) ELSE regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', '') || ' NOT VALID' END),
  'COMMENT ON CONSTRAINT ' || format('%I ON %I.%I', k.conname, n.nspname, c.relname) || ' IS ' || quote_literal(obj_description(k.oid, 'pg_constraint'))),
  format('%I.%I', pn.nspname, p.relname), k.convalidated, false
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND c.relkind = 'r' AND p.relkind = 'r' `

const (
	keysOfTables = keys + `AND (k.conrelid = ANY ($1) OR k.confrelid = ANY ($1)) ORDER BY 2, 3`
	keyNamed     = keys + `AND format('%I.%I', n.nspname, c.relname) = $1 AND k.conname = $2`
)

func scanObject(row pgx.CollectableRow) (o object, err error) {
	err = row.Scan(&o.kind, &o.relation, &o.name, &o.definition, &o.parent, &o.validate, &o.holds)
	return o, err
}

// lockPatience is how long a lock on a table is waited for. An automatic VACUUM gives way after deadlock_timeout, a second.
const lockPatience = 5 * time.Second

// dropObjects drops the indexes and foreign keys of the tables, but for the indexes named in keep, once their definitions are
// saved: in one transaction, so that after a kill either all are there or all are saved. Of the tables in bare, which are some
// of them, it also drops what keeps their keys unique. more is done in the same transaction; it may be nil.
func dropObjects(ctx context.Context, conn *pgx.Conn, tables []Table, keep map[string]bool, bare []Table, more func(pgx.Tx) error) error {
	oids, kept := oidsOf(tables), []string{}
	for name, is := range keep {
		if is {
			kept = append(kept, name)
		}
	}
	list := func(tx pgx.Tx) ([]object, error) {
		found, err := collectObjects(ctx, tx, keysOfTables, oids)
		if err != nil {
			return nil, err
		}
		indexes, err := collectObjects(ctx, tx, droppableIndexes, oids, kept)
		if err != nil {
			return nil, err
		}
		unique, err := collectObjects(ctx, tx, droppableUnique, oidsOf(bare))
		return slices.Concat(found, indexes, unique), err
	}
	_, err := saveAndDrop(ctx, conn, list, more)
	if err != nil {
		return fmt.Errorf("drop indexes and foreign keys for the time of the copy: %w", err)
	}
	return nil
}

func oidsOf(tables []Table) []uint32 {
	oids := make([]uint32, len(tables))
	for i, t := range tables {
		oids[i] = t.OID
	}
	return oids
}

// saveAndDrop locks the tables of what list finds, saves and drops it, and does more in the same transaction.
func saveAndDrop(ctx context.Context, conn *pgx.Conn, list func(pgx.Tx) ([]object, error), more func(pgx.Tx) error) (found []object, err error) {
	var locked []string
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// With an empty search_path every name in a definition has its schema.
		if err := setLocal(ctx, tx, "search_path", ""); err != nil {
			return err
		}
		// What is listed without a lock may be changed meanwhile, by another session that has just made it valid, say.
		for {
			if found, err = list(tx); err != nil {
				return err
			}
			more := slices.DeleteFunc(relations(found), func(name string) bool { return slices.Contains(locked, name) })
			if len(more) == 0 {
				break
			}
			locked = append(locked, more...)
			if err := lockTables(ctx, tx, more); err != nil {
				return err
			}
		}
		var batch pgx.Batch
		for _, o := range found {
			batch.Queue(saveObject, o.kind, o.relation, o.name, o.definition, o.parent, o.validate)
			batch.Queue(o.drop())
		}
		if err := tx.SendBatch(ctx, &batch).Close(); err != nil || more == nil {
			return err
		}
		return more(tx)
	})
	return found, lockError(ctx, conn, locked, err)
}

// A key that was only half made again when the doctor was killed is to become valid still.
const saveObject = `INSERT INTO synapse_doctor.port_object AS o (kind, relation, name, definition, parent, validate) VALUES ($1, $2, $3, $4, nullif($5, ''), $6)
ON CONFLICT (kind, relation, name) DO UPDATE SET definition = excluded.definition, parent = excluded.parent, validate = o.validate OR excluded.validate`

func (o object) drop() string {
	if o.kind == kindConstraint || o.holds {
		return fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s", o.relation, quote(o.name))
	}
	// An index is in its table's schema.
	return fmt.Sprintf("DROP INDEX %s", schemaOf(o.relation)+quote(o.name))
}

// schemaOf is the schema of a quoted name, with its dot.
func schemaOf(ident string) string {
	quoted := false
	for i, c := range ident {
		switch {
		case c == '"':
			quoted = !quoted
		case c == '.' && !quoted:
			return ident[:i+1]
		}
	}
	return ""
}

func collectObjects(ctx context.Context, tx pgx.Tx, sql string, args ...any) ([]object, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("list them: %w", err)
	}
	found, err := pgx.CollectRows(rows, scanObject)
	if err != nil {
		return nil, fmt.Errorf("list them: %w", err)
	}
	return found, nil
}

// relations are the tables that the objects touch, in an order that is always the same.
func relations(objects []object) []string {
	var names []string
	for _, o := range objects {
		names = append(names, o.relation)
		if o.parent != "" {
			names = append(names, o.parent)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

const pendingQuery = `SELECT o.kind, o.relation, o.name, o.definition, coalesce(o.parent, ''), o.validate, coalesce(to_regclass(o.relation)::oid, 0), coalesce(to_regclass(o.parent)::oid, 0),
  coalesce(pg_table_size(to_regclass(o.relation)), 0) * CASE WHEN o.kind <> 'constraint' AND o.definition !~ ' USING btree ' THEN 4 ELSE 1 END AS cost
FROM synapse_doctor.port_object o ORDER BY o.kind DESC, cost DESC, o.relation, o.name`

// pendingObjects are those that have to be made again: unique indexes first, then the other ones, and what costs most before what costs less.
func pendingObjects(ctx context.Context, conn *pgx.Conn) ([]object, error) {
	rows, err := conn.Query(ctx, pendingQuery)
	if err != nil {
		return nil, fmt.Errorf("list the indexes and foreign keys that were dropped: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o object, err error) {
		err = row.Scan(&o.kind, &o.relation, &o.name, &o.definition, &o.parent, &o.validate, &o.table, &o.parentTable, &o.cost)
		return o, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the indexes and foreign keys that were dropped: %w", err)
	}
	return found, nil
}

// The states of the server that are told apart, by SQLSTATE.
const (
	foreignKeyViolation = "23503"
	lockNotAvailable    = "55P03"
	undefinedObject     = "42704"
	duplicateObject     = "42710"
	duplicateTable      = "42P07"
)

func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// attempts bounds how often something is tried again that another session of the doctor was in the way of.
const attempts = 20

// restore makes the object again, unless another session has. memory is maintenance_work_mem; empty: the server's own. A row
// that has no parent goes into quarantine before its foreign key is made valid; how many did is returned.
func (o object) restore(ctx context.Context, conn *pgx.Conn, memory string, m *Match) (orphans int64, err error) {
	for left := attempts; left > 0; left-- {
		done, err := o.make(ctx, conn, memory)
		switch state := sqlState(err); {
		case done:
			return orphans, nil
		case err == nil, state == deadlockDetected, state == undefinedObject, state == duplicateObject, state == duplicateTable:
		case state == foreignKeyViolation:
			n, again, err := o.quarantine(ctx, conn, m)
			if sqlState(err) == deadlockDetected {
				continue
			}
			if err != nil {
				return orphans, fmt.Errorf("put the rows that %s does not allow into quarantine: %w", o, err)
			}
			orphans += n
			if n > 0 {
				left = attempts
			}
			for _, other := range again {
				if other.relation == o.relation && other.name == o.name {
					continue
				}
				n, err := other.restore(ctx, conn, memory, m)
				orphans += n
				if err != nil {
					return orphans, err
				}
			}
		default:
			return orphans, fmt.Errorf("make %s again: %w", o, err)
		}
		if ctx.Err() != nil {
			return orphans, context.Cause(ctx)
		}
	}
	return orphans, fmt.Errorf("make %s again: other sessions were in the way %d times: run this again", o, attempts)
}

// begin takes the first step of what takes two, unless another session is in the way, or a run that was cut off has taken it
// and a row has no parent: then restore goes on.
func (o object) begin(ctx context.Context, conn *pgx.Conn) error {
	_, err := o.make(ctx, conn, "")
	switch sqlState(err) {
	case deadlockDetected, undefinedObject, duplicateObject, foreignKeyViolation:
		return nil
	}
	if err != nil {
		return fmt.Errorf("make %s again: %w", o, err)
	}
	return nil
}

// make takes one step: an index is made, a foreign key is added, or made valid. The row of port_object is locked meanwhile.
func (o object) make(ctx context.Context, conn *pgx.Conn, memory string) (done bool, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// What the record says counts: another session may have found the key half made, and so not valid.
		err := tx.QueryRow(ctx, `SELECT definition, validate FROM synapse_doctor.port_object WHERE kind = $1 AND relation = $2 AND name = $3 FOR UPDATE`,
			o.kind, o.relation, o.name).Scan(&o.definition, &o.validate)
		if done = errors.Is(err, pgx.ErrNoRows); done {
			return nil
		}
		if err != nil {
			return err
		}
		for _, s := range [][2]string{{"search_path", ""}, {"statement_timeout", "0"}, {"lock_timeout", "0"}, {"maintenance_work_mem", memory}} {
			if s[0] == "maintenance_work_mem" && memory == "" {
				continue
			}
			if err := setLocal(ctx, tx, s[0], s[1]); err != nil {
				return err
			}
		}
		there, err := o.find(ctx, tx)
		if err != nil {
			return err
		}
		switch {
		case there == nil:
			if _, err := tx.Conn().PgConn().Exec(ctx, o.definition).ReadAll(); err != nil {
				return err
			}
			done = !o.validate
		case there.validate || !o.validate:
			done = true
		default:
			if _, err := tx.Exec(ctx, fmt.Sprintf("ALTER TABLE %s VALIDATE CONSTRAINT %s", o.relation, quote(o.name))); err != nil {
				return err
			}
			done = true
		}
		if !done {
			return nil
		}
		_, err = tx.Exec(ctx, `DELETE FROM synapse_doctor.port_object WHERE kind = $1 AND relation = $2 AND name = $3`, o.kind, o.relation, o.name)
		return err
	})
	return done && err == nil, err
}

// find is the object as it stands, or nil. One of the same name that is another is an error.
func (o object) find(ctx context.Context, tx pgx.Tx) (*object, error) {
	query := indexNamed
	if o.kind == kindConstraint {
		query = keyNamed
	}
	found, err := collectObjects(ctx, tx, query, o.relation, o.name)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	if found[0].definition != o.definition {
		return nil, fmt.Errorf("there is one of that name already, which is another: %s, where the port had saved %s. Drop it, then run this again", found[0].definition, o.definition)
	}
	return &found[0], nil
}

func setLocal(ctx context.Context, tx pgx.Tx, name, value string) error {
	if _, err := tx.Exec(ctx, `SELECT set_config($1, $2, true)`, name, value); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}
