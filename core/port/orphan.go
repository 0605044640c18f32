package port

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// quarantine moves the rows that the foreign key does not allow into quarantine, whole. The foreign keys that point at their
// table are dropped first, or a row's children would keep it, or go with it (ON DELETE CASCADE) unseen; they are returned, and
// are to be made again. Each may find orphans of its own then. Those that were never valid let their rows be.
func (o object) quarantine(ctx context.Context, conn *pgx.Conn, m *Match) (orphans int64, again []object, err error) {
	var k key
	var columns []typed
	gone := false // the key itself: another session has dropped it
	again, err = saveAndDrop(ctx, conn, func(tx pgx.Tx) ([]object, error) {
		k, err = readKey(ctx, tx, o)
		if gone = errors.Is(err, pgx.ErrNoRows); gone {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if columns, err = k.types(ctx, tx); err != nil {
			return nil, err
		}
		return collectObjects(ctx, tx, keysTo, o.relation)
	}, func(tx pgx.Tx) error {
		if gone {
			return nil
		}
		tag, err := tx.Exec(ctx, k.statement(m, columns), k.table)
		orphans = tag.RowsAffected()
		return err
	})
	return orphans, again, err
}

const keysTo = keys + `AND format('%I.%I', pn.nspname, p.relname) = $1 ORDER BY 2, 3`

// A key is what the catalog says of a foreign key.
type key struct {
	name, relation, parent string // as a statement names the tables
	table, parentName      string // their bare names
	tableOID               uint32
	full                   bool // MATCH FULL: a row has all of the columns, or none
	columns, refers        []string
	integers               []bool // the columns that hold whole numbers
}

const keyQuery = `SELECT k.conname::text, format('%I.%I', n.nspname, c.relname), format('%I.%I', pn.nspname, p.relname), c.relname::text, p.relname::text, c.oid, k.confmatchtype = 'f',
  array_agg(a.attname::text ORDER BY u.i), array_agg(b.attname::text ORDER BY u.i), array_agg(a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) ORDER BY u.i)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
CROSS JOIN unnest(k.conkey, k.confkey) WITH ORDINALITY u(n, r, i)
JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = u.r
WHERE k.contype = 'f' AND format('%I.%I', n.nspname, c.relname) = $1 AND k.conname = $2
GROUP BY k.oid, c.oid, p.oid, n.oid, pn.oid`

func readKey(ctx context.Context, tx pgx.Tx, o object) (k key, err error) {
	err = tx.QueryRow(ctx, keyQuery, o.relation, o.name).Scan(&k.name, &k.relation, &k.parent, &k.table, &k.parentName, &k.tableOID, &k.full,
		&k.columns, &k.refers, &k.integers)
	if err != nil {
		return k, fmt.Errorf("read what the catalog says of %s: %w", o, err)
	}
	return k, nil
}

// typesQuery lists the columns of a table that hold data, with the storage class that SQLite would keep them in.
const typesQuery = `SELECT a.attname::text, CASE WHEN a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'bool'::regtype) THEN 'integer'
  WHEN a.atttypid IN ('float4'::regtype, 'float8'::regtype) THEN 'real' WHEN a.atttypid = 'bytea'::regtype THEN 'blob' ELSE 'text' END, a.atttypid = 'bool'::regtype
FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum`

type typed struct {
	Name, Class string
	Bool        bool
}

func (k key) types(ctx context.Context, tx pgx.Tx) ([]typed, error) {
	rows, err := tx.Query(ctx, typesQuery, k.tableOID)
	if err != nil {
		return nil, fmt.Errorf("list the columns of %s: %w", k.relation, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[typed])
	if err != nil {
		return nil, fmt.Errorf("list the columns of %s: %w", k.relation, err)
	}
	return found, nil
}

// statement moves the orphans; $1 is the table's name. Where a table points at itself, whatever points at an orphan, directly
// or not, is one too.
func (k key) statement(m *Match, columns []typed) string {
	hash, row := "NULL::bigint", k.tellColumns()
	if t, ok := m.withOID(k.tableOID); ok {
		hash = t.hash()
		if len(t.Key) > 0 && !synapse.KeepsSecrets(t.Name) {
			row = concat(t.Key, nil)
		}
	}
	orphans, from := k.orphaned(), ""
	if k.relation == k.parent {
		var refers, joined []string
		for i, c := range k.columns {
			refers = append(refers, "x."+quote(k.refers[i]))
			joined = append(joined, fmt.Sprintf("x.%s = l.k%d", quote(c), i))
		}
		names := make([]string, len(k.columns))
		for i := range names {
			names[i] = fmt.Sprintf("k%d", i)
		}
		from = fmt.Sprintf("lost (id, %[1]s) AS (SELECT x.ctid, %[2]s FROM ONLY %[3]s x WHERE %[4]s\n  UNION SELECT x.ctid, %[2]s FROM ONLY %[3]s x JOIN lost l ON %[5]s), ",
			strings.Join(names, ", "), strings.Join(refers, ", "), k.relation, orphans, strings.Join(joined, " AND "))
		orphans = "x.ctid IN (SELECT id FROM lost)"
	}
	return fmt.Sprintf(`WITH RECURSIVE %sgone (key, reason, hash, row) AS (DELETE FROM ONLY %s x WHERE %s
  RETURNING left(%s, 200), %s || %s, %s, %s)
INSERT INTO synapse_doctor.port_quarantine (name, key, reason, hash, row) SELECT $1, key, reason, hash, row FROM gone`,
		from, k.relation, orphans, row, literalSQL(fmt.Sprintf("the foreign key %s: the table %s has no row with ", k.name, k.parentName)), k.refersTo(), hash, rowSQL(columns))
}

// orphaned is the condition that a row of the key's table, called x, has no parent.
func (k key) orphaned() string {
	var set, unset, same []string
	for i, c := range k.columns {
		set = append(set, "x."+quote(c)+" IS NOT NULL")
		unset = append(unset, "x."+quote(c)+" IS NULL")
		same = append(same, fmt.Sprintf("p.%s = x.%s", quote(k.refers[i]), quote(c)))
	}
	missing := fmt.Sprintf("NOT EXISTS (SELECT FROM ONLY %s p WHERE %s)", k.parent, strings.Join(same, " AND "))
	if k.full {
		return fmt.Sprintf("NOT (%s) AND (%s OR %s)", strings.Join(unset, " AND "), strings.Join(unset, " OR "), missing)
	}
	return strings.Join(set, " AND ") + " AND " + missing
}

// tellColumns tells a row from others by the key's own columns. Of a table that keeps secrets only numbers are told.
func (k key) tellColumns() string { return concat(k.columns, k.shown()) }

// refersTo tells the parent that is missing.
func (k key) refersTo() string {
	var parts []string
	for i, c := range k.columns {
		parts = append(parts, tell(k.refers[i], c, k.shown()[i]))
	}
	return strings.Join(parts, " || ' ' || ")
}

func (k key) shown() []bool {
	shown := make([]bool, len(k.columns))
	for i := range shown {
		shown[i] = k.integers[i] || !synapse.KeepsSecrets(k.table) && !synapse.KeepsSecrets(k.parentName)
	}
	return shown
}

// concat tells columns by name and value, for people; shown may be nil, for all.
func concat(columns []string, shown []bool) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = tell(c, c, shown == nil || shown[i])
	}
	return strings.Join(parts, " || ' ' || ")
}

func tell(name, column string, shown bool) string {
	if !shown {
		return literalSQL(name + "=…")
	}
	return fmt.Sprintf("%s || coalesce(to_json(x.%s)::text, 'NULL')", literalSQL(name+"="), quote(column))
}

// rowSQL is a row as port_quarantine keeps it: see [rowJSON]. A function takes at most a hundred arguments.
func rowSQL(columns []typed) string {
	var parts []string
	for _, c := range columns {
		name := "x." + quote(c.Name)
		value := name
		switch {
		case c.Bool:
			value = name + "::int"
		case c.Class == "blob":
			value = "replace(encode(" + name + ", 'base64'), E'\\n', '')"
		case c.Class != "integer":
			value = name + "::text"
		}
		parts = append(parts, fmt.Sprintf("jsonb_build_object(%s, CASE WHEN %s IS NULL THEN '[\"null\", null]'::jsonb ELSE jsonb_build_array('%s', %s) END)",
			literalSQL(c.Name), name, c.Class, value))
	}
	return strings.Join(parts, " || ")
}

// orphanedTables are the tables of which rows are in quarantine for want of a parent. When the file has changed it may be
// there, so that they are loaded anew.
func orphanedTables(ctx context.Context, conn *pgx.Conn) (map[string]bool, error) {
	rows, err := conn.Query(ctx, `SELECT DISTINCT name FROM synapse_doctor.port_quarantine WHERE hash IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("list the tables with orphans: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list the tables with orphans: %w", err)
	}
	found := map[string]bool{}
	for _, name := range names {
		found[name] = true
	}
	return found, nil
}

// withOID is the table of the target with this OID.
func (m *Match) withOID(oid uint32) (Table, bool) {
	for _, t := range m.Tables {
		if t.OID == oid {
			return t, true
		}
	}
	return Table{}, false
}

func literalSQL(text string) string {
	text = strings.ReplaceAll(text, "'", "''")
	if strings.ContainsRune(text, '\\') {
		return " E'" + strings.ReplaceAll(text, `\`, `\\`) + "'"
	}
	return "'" + text + "'"
}
