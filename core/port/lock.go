package port

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// lockTables keeps everybody else from the tables until the transaction ends.
func lockTables(ctx context.Context, tx pgx.Tx, tables []string) error {
	if err := setLocal(ctx, tx, "lock_timeout", fmt.Sprint(lockPatience.Milliseconds())); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "LOCK TABLE "+strings.Join(tables, ", ")+" IN ACCESS EXCLUSIVE MODE")
	return err
}

const holdersQuery = `SELECT coalesce(string_agg(DISTINCT format('%s, process %s%s', coalesce(a.usename, 'the server itself'), l.pid, ' as ' || nullif(a.application_name, '')), '; '), '')
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid() AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation IN (SELECT to_regclass(n) FROM unnest($1::text[]) n)`

// lockError says who has the tables, where err is that they could not be locked in time.
func lockError(ctx context.Context, conn *pgx.Conn, tables []string, err error) error {
	if sqlState(err) != lockNotAvailable {
		return err
	}
	var who string
	if asked := conn.QueryRow(ctx, holdersQuery, tables).Scan(&who); asked != nil || who == "" {
		return fmt.Errorf("the tables were in use by somebody who is gone by now: run this again (%w)", err)
	}
	return fmt.Errorf("the tables are in use by %s. End that, then run this again (%w)", who, err)
}
