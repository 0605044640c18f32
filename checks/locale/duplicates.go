package locale

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// duplicate is a key of a unique index that several rows have.
type duplicate struct {
	Keys  []string // a value for each key column, as text; NULL for none
	CTIDs []string // where the rows are: (page,number)
}

// heapSettings leave the server no index to read: through one that is out of order, rows are not seen.
var heapSettings = settings{
	"enable_seqscan": "on", "enable_indexscan": "off", "enable_indexonlyscan": "off", "enable_bitmapscan": "off", "enable_tidscan": "off",
	"enable_sort": "on", "enable_incremental_sort": "on", "enable_hashagg": "on", "work_mem": "64MB",
}

// findDuplicates looks in the table itself for keys that the unique index x should have kept from being there twice. It
// returns the first groups, at most limit, the number of keys that are there more than once, and of rows beyond the first of each.
//
// The table is read twice. The first time, only 64 bits of each key are kept and compared; the second time, the keys
// themselves of the few rows whose bits occurred again.
func findDuplicates(ctx context.Context, tx pgx.Tx, x index, d definition, limit int) (groups []duplicate, keys, rows int64, err error) {
	statement, err := d.duplicatesStatement(x, limit)
	if err != nil {
		return nil, 0, 0, err
	}
	err = within(ctx, tx, heapSettings, nil, func(tx pgx.Tx) error {
		n, err := explained(ctx, tx, statement)
		if err != nil {
			return err
		}
		if !n.avoidsIndexes() {
			return &notExamined{"the server would read an index to look for duplicates, which can hide them"}
		}
		found, err := tx.Query(ctx, statement, pgx.QueryExecModeExec)
		if err != nil {
			return err
		}
		defer found.Close()
		for found.Next() {
			var g duplicate
			if err := found.Scan(&keys, &rows, &g.Keys, &g.CTIDs); err != nil {
				return err
			}
			if len(g.CTIDs) > 0 {
				groups = append(groups, g)
			}
		}
		return found.Err()
	})
	return groups, keys, rows, err
}

func (d definition) duplicatesStatement(x index, limit int) (string, error) {
	var values, named, texts []string
	for i, k := range d.Keys {
		if k.Hash == "" {
			return "", &notExamined{fmt.Sprintf("its key %s has an equality of its own, so that duplicates can't be looked for", k.Expression)}
		}
		values = append(values, k.Expression)
		named = append(named, fmt.Sprintf("%s AS k%d", k.Expression, i+1))
		texts = append(texts, fmt.Sprintf("coalesce(k%d::text, 'NULL')", i+1))
	}
	where := d.duplicatesWhere(x)
	hash := d.hash(values)
	names := strings.Join(d.names(), ", ")
	and := " AND "
	if where == "" {
		and = " WHERE "
	}
	return fmt.Sprintf(`WITH again AS MATERIALIZED (SELECT h FROM (SELECT %[1]s AS h FROM ONLY %[2]s%[3]s) q GROUP BY h HAVING count(*) > 1),
g AS MATERIALIZED (SELECT %[6]s, count(*) AS n, array_agg(ctid ORDER BY ctid) AS ctids
  FROM (SELECT %[5]s, ctid FROM ONLY %[2]s%[3]s%[4]s(%[1]s) IN (SELECT h FROM again)) q GROUP BY %[6]s HAVING count(*) > 1),
total AS (SELECT count(*) AS keys, coalesce(sum(n - 1), 0)::bigint AS rows FROM g)
SELECT total.keys, total.rows, f.keys, f.ctids
FROM total LEFT JOIN (SELECT ARRAY[%[7]s] AS keys, ctids::text[] AS ctids FROM g ORDER BY g.ctids[1] LIMIT %[8]d) f ON true`,
		hash, x.table(), where, and, strings.Join(named, ", "), names, strings.Join(texts, ", "), limit), nil
}

// duplicatesWhere leaves out the rows that the index holds apart: in most, a key with a NULL in it is equal to no other.
func (d definition) duplicatesWhere(x index) string {
	if x.NullsNotDistinct {
		return d.where()
	}
	var values []string
	for _, k := range d.Keys {
		values = append(values, k.Expression)
	}
	return d.where(d.notNull(values)...)
}

// contents reads a table once, whole, and returns what ought to be in each of its indexes.
func contents(ctx context.Context, tx pgx.Tx, x index, definitions []definition) ([]content, error) {
	var columns []string
	for _, d := range definitions {
		var values []string
		for _, k := range d.Keys {
			values = append(values, k.Expression)
		}
		filter := ""
		if d.Predicate != "" {
			filter = " FILTER" + strings.Replace(d.where(), " WHERE ", " (WHERE ", 1) + ")"
		}
		columns = append(columns, "count(*)"+filter, "coalesce(sum("+d.hash(values)+")"+filter+", 0)::text")
	}
	statement := fmt.Sprintf("SELECT %s FROM ONLY %s", strings.Join(columns, ", "), x.table())
	found := make([]content, len(definitions))
	err := within(ctx, tx, heapSettings, nil, func(tx pgx.Tx) error {
		n, err := explained(ctx, tx, statement)
		if err != nil {
			return err
		}
		if !n.avoidsIndexes() {
			return &notExamined{"the server would read an index in place of the table"}
		}
		into := make([]any, 0, 2*len(found))
		for i := range found {
			into = append(into, &found[i].Rows, &found[i].Fingerprint)
		}
		return tx.QueryRow(ctx, statement, pgx.QueryExecModeExec).Scan(into...)
	})
	return found, err
}
