package port

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/synapse-doctor/synapse-doctor/core/pghash"
)

// refusal reports whether the server refused a row for what is in it: a value that its type does not take, a constraint, a
// trigger's exception, a limit of the server's. Everything else says nothing of the rows.
func refusal(err error) (*pgconn.PgError, bool) {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return nil, false
	}
	return e, strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "23") || e.Code == "P0001" || e.Code == "54000"
}

const (
	uniqueViolation  = "23505"
	deadlockDetected = "40P01"
)

// errDisorder: a row is there already under its unique key, and which of the two comes first in the file is not known, since
// parts of the table are loaded side by side. The table is then loaded anew, in order.
var errDisorder = errors.New("the rows of a unique key are loaded out of order")

// A batch of rows that are stored apart from one another if need be.
const (
	batchRows  = 1_000
	batchBytes = 1 << 20
)

// isolate stores the chunk, from its first row on, without the rows that the server refuses: they are found by halves.
func (l *loader) isolate(ctx context.Context) error {
	if err := l.r.again(); err != nil {
		return err
	}
	var b batch
	for more := true; more; {
		var err error
		if more, err = l.fill(ctx, &b, batchRows, batchBytes); err != nil {
			return err
		}
		if err := l.storeApart(ctx, &b, 0, len(b.rows)); err != nil {
			return err
		}
	}
	return nil
}

// fill reads rows of the chunk into a batch. It returns false at the chunk's end.
func (l *loader) fill(ctx context.Context, b *batch, rows, bytes int) (bool, error) {
	b.reset()
	for len(b.rows) < rows && len(b.buf) < bytes {
		buf, row, err := l.r.next(ctx, b.buf)
		if err != nil || !row {
			return false, err
		}
		b.buf = buf
		if !l.r.enc.lost {
			b.rows = append(b.rows, batchRow{len(buf), l.r.chunk.last, l.r.enc.hash})
		}
	}
	return true, nil
}

// storeApart stores rows of a batch; those that the server refuses go into quarantine.
func (l *loader) storeApart(ctx context.Context, b *batch, low, high int) error {
	if low == high {
		return nil
	}
	if err := l.exec(ctx, "SAVEPOINT rows"); err != nil {
		return err
	}
	sum, err := l.store(ctx, b, low, high)
	if err == nil {
		l.r.chunk.stored += int64(high - low)
		l.r.chunk.storedSum.AddSum(sum)
		return l.exec(ctx, "RELEASE SAVEPOINT rows")
	}
	e, refused := refusal(err)
	if !refused {
		return err
	}
	if e.Code == uniqueViolation && !l.inOrder {
		return errDisorder
	}
	if err := l.exec(ctx, "ROLLBACK TO SAVEPOINT rows; RELEASE SAVEPOINT rows"); err != nil {
		return err
	}
	if high-low == 1 {
		return l.r.lose(ctx, b.rows[low].rowid, refusalText(e))
	}
	middle := low + (high-low)/2
	if err := l.storeApart(ctx, b, low, middle); err != nil {
		return err
	}
	return l.storeApart(ctx, b, middle, high)
}

// refusalText is the server's sentence. Its detail may quote the row, which goes into the quarantine anyway.
func refusalText(e *pgconn.PgError) string {
	text := e.Message
	if e.ConstraintName != "" && !strings.Contains(text, e.ConstraintName) {
		text += " (" + e.ConstraintName + ")"
	}
	return fmt.Sprintf("the server refused the row: %s (SQLSTATE %s)", text, e.Code)
}

// store stores rows of a batch, and returns the sum of their hashes.
func (l *loader) store(ctx context.Context, b *batch, low, high int) (pghash.Sum, error) {
	if !l.r.enc.binary {
		return castRun(ctx, l.conn, l.r.enc.t, l.statement, b, low, high)
	}
	var sum pghash.Sum
	for _, row := range b.rows[low:high] {
		sum.Add(row.hash)
	}
	data := bytes.NewReader(bytes.Join([][]byte{copyHeader, b.tuples(low, high), copyTrailer}, nil))
	tag, err := l.conn.PgConn().CopyFrom(ctx, data, l.r.enc.t.copyStatement())
	if err != nil {
		return sum, err
	}
	return sum, l.r.enc.t.counted(tag.RowsAffected(), int64(high-low))
}

func (l *loader) exec(ctx context.Context, sql string) error {
	return l.conn.PgConn().Exec(ctx, sql).Close()
}

// record writes the chunk's row, and what is to be said of its rows, in the transaction of the data.
func (l *loader) record(ctx context.Context) error {
	c, t := &l.r.chunk, l.r.enc.t
	var b pgx.Batch
	b.Queue(insertChunk, t.Name, c.first, c.last, c.rows, c.source.String(), c.stored, c.storedSum.String(), c.firstKey, c.lastKey)
	for _, o := range c.changes {
		b.Queue(insertChange, t.Name, o.rowid, o.key, o.column, o.text)
	}
	for _, row := range c.lost {
		b.Queue(insertQuarantine, t.Name, row.key, row.reason, row.rowid, row.row)
	}
	if err := l.conn.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("keep the place in the table %s: %w", t.Name, err)
	}
	return nil
}

const (
	insertChunk = `INSERT INTO synapse_doctor.port_chunk (name, first, last, rows, source_sum, stored, stored_sum, first_key, last_key)
VALUES ($1, $2, $3, $4, $5::text::numeric, $6, $7::text::numeric, $8, $9)`
	insertChange     = `INSERT INTO synapse_doctor.port_change (name, rowid_, key, column_, change) VALUES ($1, $2, $3, $4, $5)`
	insertQuarantine = `INSERT INTO synapse_doctor.port_quarantine (name, key, reason, rowid_, row) VALUES ($1, $2, $3, $4, $5::text::jsonb)`
)
