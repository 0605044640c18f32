package port

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pghash"
)

// hashAgrees makes sure that the server's hashes are those that are computed here.
func hashAgrees(ctx context.Context, conn *pgx.Conn) error {
	var got int64
	if err := conn.QueryRow(ctx, pghash.Probe).Scan(&got); err != nil {
		return fmt.Errorf("ask the server for the hash of a row: %w", err)
	}
	if got != pghash.Probed() {
		return doctor.Unchanged("the server computes other hashes than this program does, as one on a big-endian machine would: what is copied there could not be verified")
	}
	return nil
}

// MismatchError is a table that does not hold what was read from the file. Its record is gone, so that the next run loads it anew.
type MismatchError struct {
	Table          string
	Rows, Expected int64
}

func (e *MismatchError) Error() string {
	if e.Rows != e.Expected {
		return fmt.Sprintf("the table %s holds %d rows, and %d were stored: somebody else has changed it meanwhile. Run this again: it is loaded anew", e.Table, e.Rows, e.Expected)
	}
	return fmt.Sprintf("the table %s holds %d rows, as many as were stored, but not what was read from the file: somebody else has changed it meanwhile. "+
		"Run this again: it is loaded anew", e.Table, e.Rows)
}

// content is what a table holds: the number of its rows, and the sum of their hashes.
type content struct {
	rows int64
	sum  pghash.Sum
}

// expectedQuery is what was stored of table $1, without what was taken out again for want of a parent.
const expectedQuery = `SELECT c.rows - q.rows, (c.sum - q.sum)::text FROM
  (SELECT coalesce(sum(stored), 0)::int8 AS rows, coalesce(sum(stored_sum), 0) AS sum FROM synapse_doctor.port_chunk WHERE name = $1) c,
  (SELECT count(*) AS rows, coalesce(sum(hash), 0) AS sum FROM synapse_doctor.port_quarantine WHERE name = $1 AND hash IS NOT NULL) q`

// actualQuery reads a table whole.
func (t Table) actualQuery() string {
	return fmt.Sprintf("SELECT count(*), coalesce(sum(%s), 0)::text FROM ONLY %s", t.hash(), t.Ident)
}

func readContent(ctx context.Context, tx pgx.Tx, sql string, args ...any) (c content, err error) {
	var sum string
	if err := tx.QueryRow(ctx, sql, args...).Scan(&c.rows, &sum); err != nil {
		return c, err
	}
	c.sum, err = pghash.ParseSum(sum)
	return c, err
}

// actual is what a table holds now.
func (t Table) actual(ctx context.Context, tx pgx.Tx) (content, error) {
	c, err := readContent(ctx, tx, t.actualQuery())
	if err != nil {
		return c, fmt.Errorf("read the table %s to verify it: %w", t.Name, err)
	}
	return c, nil
}

const verifiedStatement = `INSERT INTO synapse_doctor.port_table AS p (name, whole, rows, sum, verified, activity) VALUES ($1, true, $2, $3::text::numeric, true, $4::text::jsonb)
ON CONFLICT (name) DO UPDATE SET whole = true, rows = excluded.rows, sum = excluded.sum, verified = true, activity = excluded.activity`

// verify makes sure that a table, which is whole, holds the rows that were read from the file, no more and no others, and
// records so. Otherwise the error is a [*MismatchError].
func verify(ctx context.Context, conn *pgx.Conn, t Table) error {
	var wrong *MismatchError
	activity, err := readActivity(ctx, conn, t.OID)
	if err != nil {
		return err
	}
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		expected, err := readContent(ctx, tx, expectedQuery, t.Name)
		if err != nil {
			return fmt.Errorf("read what was stored of the table %s: %w", t.Name, err)
		}
		actual, err := t.actual(ctx, tx)
		if err != nil {
			return err
		}
		if actual != expected {
			wrong = &MismatchError{Table: t.Name, Rows: actual.rows, Expected: expected.rows}
			return forget(ctx, tx, t.Name)
		}
		if _, err := tx.Exec(ctx, verifiedStatement, t.Name, actual.rows, actual.sum.String(), activity); err != nil {
			return fmt.Errorf("record that the table %s is verified: %w", t.Name, err)
		}
		return nil
	})
	if err == nil && wrong != nil {
		return wrong
	}
	return err
}

// forget drops the record of a table, so that it is loaded anew.
func forget(ctx context.Context, tx pgx.Tx, table string) error {
	for _, sql := range []string{
		`DELETE FROM synapse_doctor.port_chunk WHERE name = $1`, `DELETE FROM synapse_doctor.port_quarantine WHERE name = $1`,
		`DELETE FROM synapse_doctor.port_change WHERE name = $1`, `DELETE FROM synapse_doctor.port_table WHERE name = $1`,
	} {
		if _, err := tx.Exec(ctx, sql, table); err != nil {
			return fmt.Errorf("drop the record of the table %s: %w", table, err)
		}
	}
	return nil
}
