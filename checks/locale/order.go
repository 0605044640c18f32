package locale

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A walk reads an index from its first entry to its last, as the rows of a SELECT that the server can only answer in
// order by reading that index. It compares what follows each other there: what SQL alone, with no more than the right to
// SELECT, can say of the order. Where the table's pages are known to be visible it reads the index's file and no other,
// and the keys are those that are in the index.

// walkSettings leave the server no other way to an order than an index.
var walkSettings = settings{
	"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_tidscan": "off", "enable_sort": "off", "enable_incremental_sort": "off",
	"enable_hashagg": "off", "enable_indexscan": "on", "enable_indexonlyscan": "on",
}

// walkTricks are tried in turn when the server would rather read another index that has the same keys first.
var walkTricks = []settings{
	{},
	{"random_page_cost": "0", "seq_page_cost": "0"},
	{"random_page_cost": "1000"},
	{"enable_indexonlyscan": "off"},
	{"enable_indexonlyscan": "off", "random_page_cost": "0", "seq_page_cost": "0"},
	{"enable_indexonlyscan": "off", "random_page_cost": "1000"},
}

// settings are parameters of the server for the rest of a transaction.
type settings map[string]string

// set sets those that the server knows.
func (s settings) set(ctx context.Context, tx pgx.Tx) error {
	var names, values []string
	for name, value := range s {
		names, values = append(names, name), append(values, value)
	}
	_, err := tx.Exec(ctx, `SELECT set_config(n, v, true) FROM unnest($1::text[], $2::text[]) AS u(n, v) WHERE current_setting(n, true) IS NOT NULL`, names, values)
	return err
}

// walkKind is what a walk looks at.
type walkKind int

const (
	counted  walkKind = iota // how many entries, and which
	distinct                 // how many keys that differ from the one before, and which
	compared                 // how many, which, and how each compares with the one before
)

// walked is what a walk saw.
type walked struct {
	content
	Inversions int64 // entries before which a greater one stands
	Repeated   int64 // entries before which an equal one stands, where that makes them duplicates of a unique index
}

// content is what is in an index, or ought to be in it: the number of its entries, and a sum over them in which 64 bits of
// each count, wherever it stands. Equal contents are, but for a chance of one in 2^64, the same keys as often.
type content struct {
	Rows        int64
	Fingerprint string
}

// notExamined says why an index could not be examined.
type notExamined struct{ reason string }

func (e *notExamined) Error() string { return e.reason }

// walk reads the index x in its order. indexOnly wants it done without a look at the table.
func walk(ctx context.Context, tx pgx.Tx, x index, d definition, kind walkKind, indexOnly bool) (w walked, err error) {
	err = prepared(ctx, tx, x, d.walkStatement(x, kind), indexOnly, func(tx pgx.Tx) error {
		row := tx.QueryRow(ctx, d.walkStatement(x, kind), pgx.QueryExecModeExec)
		return row.Scan(&w.Rows, &w.Fingerprint, &w.Inversions, &w.Repeated)
	})
	return w, err
}

// place is where an index is out of order: two entries, the first of which stands before the second.
type place struct{ First, Second []string }

// places finds the first few.
func places(ctx context.Context, tx pgx.Tx, x index, d definition, limit int) (found []place, err error) {
	statement := d.placesStatement(x, limit)
	err = prepared(ctx, tx, x, statement, false, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, statement, pgx.QueryExecModeExec)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[place])
		return err
	})
	return found, err
}

// prepared calls run under the settings with which the server is proved to answer the statement by reading the index in
// order. It fails with *notExamined when it can't be brought to that.
func prepared(ctx context.Context, tx pgx.Tx, x index, statement string, indexOnly bool, run func(pgx.Tx) error) error {
	why := ""
	for _, trick := range walkTricks {
		if indexOnly && trick["enable_indexonlyscan"] == "off" {
			continue
		}
		proved := false
		err := within(ctx, tx, walkSettings, trick, func(tx pgx.Tx) error {
			n, err := explained(ctx, tx, statement)
			if err != nil {
				return err
			}
			only, reason := n.inOrderOf(x)
			switch {
			case reason != "":
				why = reason
			case indexOnly && !only:
				why = "the server does not read it without the table"
			default:
				proved = true
				return run(tx)
			}
			return nil
		})
		if err != nil || proved {
			return err
		}
	}
	return &notExamined{why}
}

// within calls fn in a savepoint, under settings that end with it.
func within(ctx context.Context, tx pgx.Tx, base, more settings, fn func(pgx.Tx) error) error {
	inner, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	all := settings{}
	for _, s := range []settings{base, more} {
		for name, value := range s {
			all[name] = value
		}
	}
	err = all.set(ctx, inner)
	if err == nil {
		err = fn(inner)
	}
	if back := inner.Rollback(ctx); err == nil {
		err = back
	}
	return err
}

// inner selects the keys, as k1, k2, …, in the order of the index.
func (d definition) inner(x index, distinct string) string {
	var keys, order []string
	for i, k := range d.Keys {
		operator, nulls := k.Less, "LAST"
		if k.Descending {
			operator = k.Greater
		}
		if k.NullsFirst {
			nulls = "FIRST"
		}
		keys = append(keys, fmt.Sprintf("%s AS k%d", k.Expression, i+1))
		order = append(order, fmt.Sprintf("k%d USING %s NULLS %s", i+1, operator, nulls))
	}
	return fmt.Sprintf("SELECT %s%s FROM ONLY %s%s ORDER BY %s", distinct, strings.Join(keys, ", "), x.table(), d.where(), strings.Join(order, ", "))
}

// where is the index's predicate as a WHERE, with what else must hold.
func (d definition) where(conditions ...string) string {
	if d.Predicate != "" {
		conditions = append([]string{"(" + d.Predicate + ")"}, conditions...)
	}
	if len(conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(conditions, " AND ")
}

func (d definition) walkStatement(x index, kind walkKind) string {
	fingerprint := "coalesce(sum(" + d.hash(d.names()) + "), 0)::text"
	switch kind {
	case counted:
		return fmt.Sprintf("SELECT count(*), %s, 0, 0 FROM (%s) w", fingerprint, d.inner(x, ""))
	case distinct:
		return fmt.Sprintf("SELECT count(*), %s, 0, 0 FROM (%s) w", fingerprint, d.inner(x, "DISTINCT "))
	}
	repeated := "c = 0"
	if !x.NullsNotDistinct {
		repeated = strings.Join(append([]string{repeated}, d.notNull(d.names())...), " AND ")
	}
	return fmt.Sprintf("SELECT count(*), %s, count(*) FILTER (WHERE c > 0), count(*) FILTER (WHERE %s) FROM (SELECT *, %s AS c FROM (%s) w) w",
		fingerprint, repeated, d.comparison(), d.inner(x, ""))
}

func (d definition) placesStatement(x index, limit int) string {
	before, after := make([]string, len(d.Keys)), make([]string, len(d.Keys))
	for i := range d.Keys {
		before[i], after[i] = fmt.Sprintf("coalesce(p%d::text, 'NULL')", i+1), fmt.Sprintf("coalesce(k%d::text, 'NULL')", i+1)
	}
	lags := make([]string, len(d.Keys))
	for i := range d.Keys {
		lags[i] = fmt.Sprintf("lag(k%[1]d) OVER () AS p%[1]d", i+1)
	}
	return fmt.Sprintf("SELECT ARRAY[%s], ARRAY[%s] FROM (SELECT *, %s, %s AS c FROM (%s) w) w WHERE c > 0 LIMIT %d",
		strings.Join(before, ", "), strings.Join(after, ", "), strings.Join(lags, ", "), d.comparison(), d.inner(x, ""), limit)
}

// names are the keys as a walk's inner SELECT names them.
func (d definition) names() []string {
	names := make([]string, len(d.Keys))
	for i := range d.Keys {
		names[i] = fmt.Sprintf("k%d", i+1)
	}
	return names
}

// notNull are the conditions that none of the values, one for each key, is NULL.
func (d definition) notNull(values []string) []string {
	var conditions []string
	for i, k := range d.Keys {
		if !k.NotNull {
			conditions = append(conditions, values[i]+" IS NOT NULL")
		}
	}
	return conditions
}

// hash is an expression for 64 bits of an entry, given an expression for each key. Where a key has no hash function, it
// does not count.
func (d definition) hash(values []string) string {
	var terms []string
	for i, k := range d.Keys {
		if k.Hash != "" {
			terms = append(terms, fmt.Sprintf("coalesce(%s(%s%s, %d), %d)", k.Hash, values[i], k.HashAs, i+1, i+1))
		}
	}
	if len(terms) == 0 {
		return "0::bigint"
	}
	return strings.Join(terms, " # ")
}

// comparison is an expression that is positive where the entry before is greater, 0 where it is equal, and NULL for the
// first. It compares as the index itself does, by the support function of its operator class.
func (d definition) comparison() string {
	if k := d.Keys[0]; len(d.Keys) == 1 && k.NotNull && !k.Descending {
		return fmt.Sprintf("%s(lag(k1) OVER (), k1)", k.Compare)
	}
	if d.usual() {
		row := "ROW(" + strings.Join(d.names(), ", ") + ")"
		return fmt.Sprintf("pg_catalog.btrecordcmp(lag(%s) OVER (), %s)", row, row)
	}
	var terms []string
	for i, k := range d.Keys {
		before, after := fmt.Sprintf("lag(k%d) OVER ()", i+1), fmt.Sprintf("k%d", i+1)
		compare := fmt.Sprintf("%s(%s, %s)", k.Compare, before, after)
		if k.Descending {
			compare = fmt.Sprintf("%s(%s, %s)", k.Compare, after, before)
		}
		first, last := -1, 1 // what a NULL before a value means: it is less, or greater
		if !k.NullsFirst {
			first, last = 1, -1
		}
		terms = append(terms, fmt.Sprintf("nullif(CASE WHEN %[1]s IS NULL AND %[2]s IS NULL THEN 0 WHEN %[1]s IS NULL THEN %[4]d WHEN %[2]s IS NULL THEN %[5]d ELSE %[3]s END, 0)",
			before, after, compare, first, last))
	}
	return "CASE WHEN lag(true) OVER () THEN coalesce(" + strings.Join(terms, ", ") + ", 0) END"
}

// usual: rows of the keys compare, as rows do in SQL, in the order of the index.
func (d definition) usual() bool {
	for _, k := range d.Keys {
		if !k.Usual || k.Descending || k.NullsFirst {
			return false
		}
	}
	return true
}
