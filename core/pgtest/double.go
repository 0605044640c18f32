package pgtest

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// doubleQuery writes, for each table with rows, the statement that doubles them for the $1-th time: what is in a unique key or a
// foreign key gets values of its own, text after its first character, which says what kind of identifier it is. Tables
// that hold one row for ever have a column lock.
const doubleQuery = `WITH own AS (
  SELECT i.indrelid AS relid, unnest(i.indkey::int2[]) AS attnum FROM pg_index i WHERE i.indisunique
  UNION SELECT conrelid, unnest(conkey) FROM pg_constraint WHERE contype = 'f'
  UNION SELECT confrelid, unnest(confkey) FROM pg_constraint WHERE contype = 'f'
)
SELECT format('INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s', c.oid::regclass,
  string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),
  string_agg(CASE
    WHEN o.attnum IS NULL THEN quote_ident(a.attname)
    WHEN a.atttypid IN ('text'::regtype, 'varchar'::regtype) THEN format('left(%1$I, 1) || %2$L || substr(%1$I, 2)', a.attname, $1::text || '~')
    WHEN a.atttypid = 'bigint'::regtype THEN format('%1$I + CASE WHEN %1$I < 0 THEN -1 ELSE 1 END * %2$s', a.attname, $2::bigint * 1000000000)
    WHEN a.atttypid = 'int4'::regtype THEN format('%I + %s', a.attname, $2::bigint * 1000000)
    ELSE quote_ident(a.attname) END, ', ' ORDER BY a.attnum), c.oid::regclass)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
LEFT JOIN own o ON o.relid = c.oid AND o.attnum = a.attnum
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_attribute l WHERE l.attrelid = c.oid AND l.attname = 'lock')
  AND c.relname NOT IN ('schema_version', 'schema_compat_version', 'applied_schema_deltas', 'background_updates', 'stream_positions')
GROUP BY c.oid`

// Double doubles what is in the database, times times, by copies with identifiers of their own; foreign keys stay sound.
func (db *DB) Double(ctx context.Context, times int) error {
	conn, err := pgx.Connect(ctx, db.AdminDSN())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	// Triggers that compare rows of several tables would see them half-way.
	if _, err := conn.Exec(ctx, `SET session_replication_role = replica`); err != nil {
		return err
	}
	for n := range times {
		rows, err := conn.Query(ctx, doubleQuery, fmt.Sprint(n+1), int64(1)<<n)
		if err != nil {
			return fmt.Errorf("double %s: %w", db.Name, err)
		}
		statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("double %s: %w", db.Name, err)
		}
		for _, s := range statements {
			if _, err := conn.Exec(ctx, s); err != nil {
				return fmt.Errorf("double %s: %s: %w", db.Name, s, err)
			}
		}
	}
	_, err = conn.Exec(ctx, `VACUUM ANALYZE`)
	return err
}
