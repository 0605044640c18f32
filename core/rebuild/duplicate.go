package rebuild

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// uniqueIndex is an index that the new database could not have while a key is there twice.
type uniqueIndex struct {
	Schema, Table, Name string
	Keys                []string // expressions
	Predicate           string
	NullsNotDistinct    bool
}

// uniqueQuery lists the unique indexes over text, in which an order that has changed lets a key in twice. Over anything else
// they are as sound as PostgreSQL is. The largest tables come first.
const uniqueQuery = `SELECT n.nspname::text, t.relname::text, c.relname::text,
  (SELECT array_agg(pg_get_indexdef(i.indexrelid, k, true) ORDER BY k) FROM generate_series(1, i.indnkeyatts) k),
  coalesce(pg_get_expr(i.indpred, i.indrelid, true), ''), coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE i.indisunique AND i.indisvalid AND i.indisready AND t.relkind = 'r' AND t.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND (0 <> ANY (i.indcollation::oid[]) OR i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
ORDER BY pg_table_size(t.oid) DESC, c.relname`

// findDuplicates looks for keys that are there twice in the tables themselves, never through an index that hides them.
func (k *task) findDuplicates(ctx context.Context, old *pgx.Conn) error {
	rows, err := old.Query(ctx, uniqueQuery)
	if err != nil {
		return fmt.Errorf("list the unique indexes: %w", err)
	}
	indexes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[uniqueIndex])
	if err != nil {
		return fmt.Errorf("list the unique indexes: %w", err)
	}
	found := make([]string, len(indexes))
	next := make(chan int, len(indexes))
	for i := range indexes {
		next <- i
	}
	close(next)
	err = inParallel(ctx, workers, func(ctx context.Context, _ int) error {
		conn, err := k.session(ctx, k.p.database)
		if err != nil {
			return err
		}
		defer closeConn(conn)
		if _, err := conn.Exec(ctx, "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; SET work_mem = '128MB'"); err != nil {
			return fmt.Errorf("prepare to look for duplicates: %w", err)
		}
		for i := range next {
			x := indexes[i]
			k.say(doctor.Progress{Text: "look for duplicate keys of " + qualified(x.Schema, x.Name), Done: int64(i), Total: int64(len(indexes)), Unit: "indexes"})
			var keys, surplus int64
			if err := conn.QueryRow(ctx, x.duplicatesQuery(reading{without: k.left}.where(table{Schema: x.Schema, Name: x.Table}))).Scan(&keys, &surplus); err != nil {
				return fmt.Errorf("look for duplicate keys of %s: %w", qualified(x.Schema, x.Name), err)
			}
			if keys > 0 {
				found[i] = fmt.Sprintf("%s of table %s (%d keys, %d rows too many)", x.Name, qualified(x.Schema, x.Table), keys, surplus)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var named []string
	for _, text := range found {
		if text != "" {
			named = append(named, text)
		}
	}
	if len(named) > 0 {
		return doctor.Unchanged("keys that must be unique are there more than once, so that these indexes could not be built: %s. synapse-doctor check locale --deep names the rows", strings.Join(named, "; "))
	}
	return nil
}

// duplicatesQuery counts the keys that are there more than once, and the rows that are too many.
func (x uniqueIndex) duplicatesQuery(where string) string {
	var conditions []string
	if x.Predicate != "" {
		conditions = append(conditions, "("+x.Predicate+")")
	}
	if !x.NullsNotDistinct {
		for _, key := range x.Keys {
			conditions = append(conditions, "("+key+") IS NOT NULL")
		}
	}
	if len(conditions) > 0 {
		if where == "" {
			where = " WHERE true"
		}
		where += " AND " + strings.Join(conditions, " AND ")
	}
	return fmt.Sprintf("SELECT count(*), coalesce(sum(n - 1), 0)::int8 FROM (SELECT count(*) AS n FROM ONLY %s%s GROUP BY %s HAVING count(*) > 1) d",
		qualified(x.Schema, x.Table), where, strings.Join(x.Keys, ", "))
}
