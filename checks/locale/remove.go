package locale

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// uniqueKey is what a unique index compares, for a search that goes by the table alone.
type uniqueKey struct {
	Expressions []string // each compared with = of its type
	Columns     []string // by name; an expression is empty
	Predicate   string   // empty for an index over the whole table
}

// uniqueKeyQuery reads the keys of an index. A deterministic collation calls only the same bytes equal, so that C, which is
// quick, finds the same rows.
const uniqueKeyQuery = `SELECT pg_get_indexdef(i.indexrelid, k.n, false) AS expression,
  CASE WHEN l.oid IS NULL THEN ''
    WHEN l.collisdeterministic AND o.opcintype IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) THEN ' COLLATE pg_catalog."C"'
    ELSE format(' COLLATE %I.%I', s.nspname, l.collname) END,
  coalesce(a.attname::text, ''), coalesce(pg_get_expr(i.indpred, i.indrelid, false), ''), i.indnkeyatts::int
FROM pg_index i CROSS JOIN generate_series(1, i.indnkeyatts) AS k(n)
JOIN pg_opclass o ON o.oid = i.indclass[k.n - 1]
LEFT JOIN pg_collation l ON l.oid = i.indcollation[k.n - 1] LEFT JOIN pg_namespace s ON s.oid = l.collnamespace
LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n - 1] AND a.attnum > 0
WHERE i.indexrelid = $1 ORDER BY k.n`

func readUniqueKey(ctx context.Context, tx pgx.Tx, x index) (uniqueKey, error) {
	var k uniqueKey
	rows, err := tx.Query(ctx, uniqueKeyQuery, x.OID)
	if err != nil {
		return k, fmt.Errorf("read the definition of index %s: %w", x.Name, err)
	}
	var expression, collate, column string
	var keys int
	_, err = pgx.ForEachRow(rows, []any{&expression, &collate, &column, &k.Predicate, &keys}, func() error {
		k.Expressions = append(k.Expressions, "("+expression+")"+collate)
		k.Columns = append(k.Columns, column)
		return nil
	})
	if err != nil {
		return k, fmt.Errorf("read the definition of index %s: %w", x.Name, err)
	}
	if len(k.Expressions) != keys || keys == 0 {
		return k, fmt.Errorf("read the definition of index %s: %d of its %d keys were found", x.Name, len(k.Expressions), keys)
	}
	return k, nil
}

// storedColumnsQuery lists the columns of a table that hold a value of their own, with their types as they stand in a statement.
const storedColumnsQuery = `SELECT quote_ident(attname), format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum`

type tableColumn struct{ Ident, Type string }

func readColumns(ctx context.Context, tx pgx.Tx, table uint32) ([]tableColumn, error) {
	rows, err := tx.Query(ctx, storedColumnsQuery, table)
	if err != nil {
		return nil, fmt.Errorf("list the columns: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[tableColumn])
}

// rowText is SQL for the row t as JSON, each column as its text.
func rowText(columns []tableColumn) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = fmt.Sprintf("t.%s::text AS %s", c.Ident, c.Ident)
	}
	return "row_to_json((SELECT synapse_doctor_row FROM (SELECT " + strings.Join(parts, ", ") + ") synapse_doctor_row))::text"
}

// byHeap makes a transaction read tables only, never an index: a corrupt one hides rows.
const byHeap = `SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off`

// twin is one of several rows with the same key.
type twin struct {
	group int64
	ctid  string
	row   string // as JSON
	// rank is by what the rule compares; nil when it compares nothing, or NULL.
	rank *int64
}

// duplicatesOf finds the rows that have a key of the index in common, group by group.
func duplicatesOf(ctx context.Context, tx pgx.Tx, table string, x index, k uniqueKey, columns []tableColumn, rule synapse.DuplicateRule, each func([]twin) error) error {
	if _, err := tx.Conn().PgConn().Exec(ctx, byHeap).ReadAll(); err != nil {
		return fmt.Errorf("prepare to read the table alone: %w", err)
	}
	var selected, numbers, joined, where []string
	for n, e := range k.Expressions {
		name := fmt.Sprintf("synapse_doctor_key_%d", n+1)
		selected = append(selected, e+" AS "+name)
		numbers = append(numbers, fmt.Sprint(n+1))
		if x.NullsNotDistinct {
			joined = append(joined, fmt.Sprintf("(t.%[1]s = d.%[1]s OR t.%[1]s IS NULL AND d.%[1]s IS NULL)", name))
			continue
		}
		joined = append(joined, fmt.Sprintf("t.%[1]s = d.%[1]s", name))
		where = append(where, e+" IS NOT NULL")
	}
	if k.Predicate != "" {
		where = append(where, "("+k.Predicate+")")
	}
	if len(where) == 0 {
		where = []string{"true"}
	}
	rank := "NULL"
	if rule.By != "" {
		rank = rule.By
	}
	keys, condition := strings.Join(selected, ", "), strings.Join(where, " AND ")
	// The planner believes that the index is unique, and a join looks for no second row with a key. OFFSET hides from it what
	// the key is made of.
	query := fmt.Sprintf(`WITH d AS MATERIALIZED (
  SELECT g.*, row_number() OVER () AS synapse_doctor_group FROM (SELECT %[1]s FROM ONLY %[2]s t WHERE %[3]s GROUP BY %[4]s HAVING count(*) > 1) g
)
SELECT d.synapse_doctor_group, t.synapse_doctor_ctid::text, (%[5]s)::bigint, %[6]s
FROM (SELECT t.*, t.ctid AS synapse_doctor_ctid, %[1]s FROM ONLY %[2]s t WHERE %[3]s OFFSET 0) t JOIN d ON %[7]s
ORDER BY d.synapse_doctor_group, t.synapse_doctor_ctid`,
		keys, table, condition, strings.Join(numbers, ", "), rank, rowText(columns), strings.Join(joined, " AND "))
	rows, err := tx.Query(ctx, query)
	if err != nil {
		return fmt.Errorf("look for keys of index %s that are there more than once: %w", x.Name, err)
	}
	var group []twin
	var d twin
	_, err = pgx.ForEachRow(rows, []any{&d.group, &d.ctid, &d.rank, &d.row}, func() error {
		if len(group) > 0 && group[0].group != d.group {
			if err := each(group); err != nil {
				return err
			}
			group = nil
		}
		group = append(group, d)
		d = twin{}
		return nil
	})
	if err == nil && len(group) > 0 {
		err = each(group)
	}
	if err != nil {
		return fmt.Errorf("look for keys of index %s that are there more than once: %w", x.Name, err)
	}
	return nil
}

// choose splits the rows with one key into those that go and, when it can't be told which of the rest stays, the rest.
// Of exact copies the first stays.
func choose(rows []twin, rule synapse.DuplicateRule) (gone, undecided []twin) {
	var differing []twin
	seen := map[string]bool{}
	for _, d := range rows {
		if seen[d.row] {
			gone = append(gone, d)
			continue
		}
		seen[d.row] = true
		differing = append(differing, d)
	}
	if len(differing) == 1 {
		return gone, nil
	}
	best := -1
	switch rule.Keep {
	case synapse.KeepAny:
		best = len(differing) - 1
	case synapse.KeepGreatest, synapse.KeepLeast:
		tied := false
		for i, d := range differing {
			switch {
			case d.rank == nil:
			case best < 0 || better(*d.rank, *differing[best].rank, rule.Keep):
				best, tied = i, false
			case *d.rank == *differing[best].rank:
				tied = true
			}
		}
		if tied {
			best = -1
		}
	}
	if best < 0 {
		return gone, differing
	}
	for i, d := range differing {
		if i != best {
			gone = append(gone, d)
		}
	}
	return gone, nil
}

func better(a, b int64, keep synapse.Keep) bool {
	if keep == synapse.KeepLeast {
		return a < b
	}
	return a > b
}

// undecided is rows of which nobody but the administrator can tell which is right.
type undecided struct {
	table string // as it stands in a statement
	index string
	keys  []string
	ctids []string
	why   string
}

func (u *undecided) Error() string {
	why := u.why
	if why == "" {
		why = "none of them may be chosen without you"
	}
	return fmt.Sprintf("The table %s has rows with the same %s (index %s) that are not equal, and %s. See them with\n\n    SELECT ctid, * FROM %s WHERE ctid IN (%s);\n\nDelete or change one of them, and run this again.",
		u.table, strings.Join(u.keys, ", "), u.index, why, u.table, "'"+strings.Join(u.ctids, "', '")+"'")
}

func undecidedOf(table string, x index, k uniqueKey, rows []twin, why string) *undecided {
	u := &undecided{table: table, index: x.Name, why: why}
	for n, c := range k.Columns {
		if c == "" {
			c = k.Expressions[n]
		}
		u.keys = append(u.keys, c)
	}
	for _, d := range rows {
		u.ctids = append(u.ctids, d.ctid)
	}
	return u
}

// removeDuplicates archives and deletes the rows that keep the index from being unique. The table is locked.
func (m *mender) removeDuplicates(ctx context.Context, tx pgx.Tx, j job, x index, a *archive) error {
	m.at("Looking for rows of " + j.Table + " with the same key")
	s, err := m.survey(ctx, tx, j, x, nil)
	if err != nil {
		return err
	}
	if len(s.undecided) > 0 {
		return s.undecided[0]
	}
	if len(s.gone) == 0 {
		return fmt.Errorf("the index %s can't be rebuilt, because a key is there more than once, but no such rows were found", x.Name)
	}
	ctids := make([]string, len(s.gone))
	for i, d := range s.gone {
		ctids[i] = d.ctid
		if err := a.add(ctx, line{Row: json.RawMessage(d.row)}); err != nil {
			return err
		}
	}
	m.at(fmt.Sprintf("Removing %d rows of %s", len(ctids), j.Table))
	for part := range slices.Chunk(ctids, 10000) {
		tag, err := tx.Exec(ctx, "DELETE FROM ONLY "+j.name()+" WHERE ctid = ANY ($1::text[]::tid[])", part)
		if err != nil {
			return fmt.Errorf("remove rows that are there more than once: %w", err)
		}
		if tag.RowsAffected() != int64(len(part)) {
			return fmt.Errorf("%d rows were to be removed, and %d were: rolled back", len(part), tag.RowsAffected())
		}
	}
	// What is removed is with the host before it is gone for anybody.
	return a.flush(ctx)
}

// survey is what there is to do about one unique index.
type survey struct {
	gone      []twin
	undecided []*undecided
}

// survey looks for rows with the same key, and decides about them. Rows in without are taken for gone already.
func (m *mender) survey(ctx context.Context, tx pgx.Tx, j job, x index, without map[string]bool) (*survey, error) {
	k, err := readUniqueKey(ctx, tx, x)
	if err != nil {
		return nil, err
	}
	columns, err := readColumns(ctx, tx, j.OID)
	if err != nil {
		return nil, err
	}
	rule := synapse.DuplicateRule{}
	if j.Schema == m.params.Schema && !slices.Contains(k.Columns, "") {
		rule = synapse.DuplicateRuleOf(j.Schema, j.Table, k.Columns)
	}
	references, err := readReferences(ctx, tx, j.OID)
	if err != nil {
		return nil, err
	}
	s := &survey{}
	var groups [][]twin
	err = duplicatesOf(ctx, tx, j.name(), x, k, columns, rule, func(rows []twin) error {
		if len(rows) < 2 {
			return fmt.Errorf("a key was counted twice, and one row was found")
		}
		if rows = slices.DeleteFunc(rows, func(d twin) bool { return without[d.ctid] }); len(rows) > 1 {
			groups = append(groups, rows)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, rows := range groups {
		gone, left := choose(rows, rule)
		if len(left) > 0 {
			s.undecided = append(s.undecided, undecidedOf(j.name(), x, k, left, ""))
			continue
		}
		why := ""
		for _, d := range gone {
			if len(d.row) > maxLine || !utf8.ValidString(d.row) {
				why = "one is too large, or not valid text, for it to be kept in the doctor's journal"
			}
		}
		if why == "" {
			why, err = orphans(ctx, tx, references, rows, gone)
			if err != nil {
				return nil, err
			}
		}
		if why != "" {
			s.undecided = append(s.undecided, undecidedOf(j.name(), x, k, rows, why))
			continue
		}
		s.gone = append(s.gone, gone...)
	}
	return s, nil
}

// reference is a foreign key that refers to the table.
type reference struct {
	Child   string   // table, as it stands in a statement
	Columns []string // of the child, as they stand in a statement
	Parents []string // of the table, by name
}

const referencesQuery = `SELECT format('%I.%I', n.nspname, c.relname),
  ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.conkey) WITH ORDINALITY u(n, i) JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.i),
  ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(n, i) JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.i)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.confrelid = $1 ORDER BY k.oid`

func readReferences(ctx context.Context, tx pgx.Tx, table uint32) ([]reference, error) {
	rows, err := tx.Query(ctx, referencesQuery, table)
	if err != nil {
		return nil, fmt.Errorf("list the foreign keys that refer to it: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[reference])
}

// orphans says that rows of another table belong to a row that is to go and to none that stays. Nearly always what others refer to is
// the very key that the rows have in common.
func orphans(ctx context.Context, tx pgx.Tx, references []reference, rows, gone []twin) (why string, err error) {
	if len(references) == 0 {
		return "", nil
	}
	values := func(d twin) (map[string]*string, error) {
		columns := map[string]*string{}
		return columns, json.Unmarshal([]byte(d.row), &columns)
	}
	going := map[string]bool{}
	for _, d := range gone {
		going[d.ctid] = true
	}
	var stays map[string]*string
	for _, d := range rows {
		if !going[d.ctid] {
			if stays, err = values(d); err != nil {
				return "", err
			}
		}
	}
	for _, d := range gone {
		columns, err := values(d)
		if err != nil {
			return "", err
		}
		for _, r := range references {
			its := make([]*string, len(r.Parents))
			same := true
			for i, p := range r.Parents {
				its[i] = columns[p]
				same = same && its[i] != nil && stays[p] != nil && *its[i] == *stays[p]
			}
			if same || slices.Contains(its, nil) {
				continue
			}
			var conditions []string
			for i, c := range r.Columns {
				conditions = append(conditions, fmt.Sprintf("%s::text = ($1::text[])[%d]", c, i+1))
			}
			var has bool
			query := fmt.Sprintf("SELECT EXISTS (SELECT FROM %s WHERE %s)", r.Child, strings.Join(conditions, " AND "))
			if err := tx.QueryRow(ctx, query, its).Scan(&has); err != nil {
				return "", fmt.Errorf("look for rows of %s that belong to it: %w", r.Child, err)
			}
			if has {
				return "rows of " + r.Child + " belong to one of them that would go", nil
			}
		}
	}
	return "", nil
}

// surveyTable decides about all unique indexes of a table, in the order in which they are rebuilt.
func (m *mender) surveyTable(ctx context.Context, tx pgx.Tx, j job) (*survey, error) {
	all := &survey{}
	without := map[string]bool{}
	for _, x := range j.Indexes {
		if !x.Unique || m.onlyValid && !x.Valid {
			continue
		}
		s, err := m.survey(ctx, tx, j, x, maps.Clone(without))
		if err != nil {
			return nil, err
		}
		for _, d := range s.gone {
			without[d.ctid] = true
		}
		all.gone = append(all.gone, s.gone...)
		all.undecided = append(all.undecided, s.undecided...)
	}
	return all, nil
}
