package port

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// loader stores the rows of one span of a table, chunk by chunk.
type loader struct {
	conn      *pgx.Conn
	r         *reader
	statement string       // of a table whose values are cast
	inOrder   bool         // nothing that comes before these rows in the file is stored after them, so that of equal keys the first stays
	inside    bool         // the caller's transaction holds everything; otherwise each chunk has one of its own
	check     func() error // that the file has not changed; asked before a chunk is kept
	buf       []byte
	b         batch
}

func newLoader(conn *pgx.Conn, file *sqlitedb.DB, t Table, at span) (*loader, error) {
	r, err := newReader(file, t, at)
	if err != nil {
		return nil, err
	}
	l := &loader{conn: conn, r: r}
	if !r.enc.binary {
		l.statement = t.castStatement()
	}
	return l, nil
}

func (l *loader) Close() { l.r.Close() }

// limit bounds the rows of a chunk.
func (l *loader) limit(rows int64) {
	if l.r.enc.t.ordered() {
		l.r.rows = min(l.r.rows, rows)
	}
}

// The parts of a chunk's transaction, which is one of its own or a part of the table's.
func (l *loader) enter(ctx context.Context) error {
	if l.inside {
		return l.exec(ctx, "SAVEPOINT chunk")
	}
	return l.exec(ctx, "BEGIN")
}

func (l *loader) leave(ctx context.Context) error {
	if l.inside {
		return l.exec(ctx, "RELEASE SAVEPOINT chunk")
	}
	return l.exec(ctx, "COMMIT")
}

func (l *loader) back(ctx context.Context) error {
	if l.conn.IsClosed() {
		return nil
	}
	if l.inside {
		return l.exec(ctx, "ROLLBACK TO SAVEPOINT chunk")
	}
	return l.exec(ctx, "ROLLBACK")
}

// next stores the next chunk, and its row in port_chunk. It returns false when there is nothing after it.
func (l *loader) next(ctx context.Context) (more bool, err error) {
	l.r.begin()
	if err := l.enter(ctx); err != nil {
		return false, err
	}
	err = l.fetch(ctx)
	if e, refused := refusal(err); refused {
		if e.Code == uniqueViolation && !l.inOrder {
			err = errDisorder
		} else if err = l.back(ctx); err == nil {
			if !l.inside {
				err = l.enter(ctx)
			}
			if err == nil {
				err = l.isolate(ctx)
			}
		}
	}
	if err == nil && l.r.chunk.rows > 0 {
		if err = l.r.finish(ctx); err == nil {
			err = l.check()
		}
		if err == nil {
			err = l.record(ctx)
		}
	}
	if err != nil {
		_ = l.back(context.WithoutCancel(ctx)) // the error that led here is the one to tell
		return false, err
	}
	return !l.r.ended, l.leave(ctx)
}

// fetch stores the chunk's rows at once.
func (l *loader) fetch(ctx context.Context) error {
	if l.r.enc.binary {
		return copyChunk(ctx, l.conn, l.r, &l.buf)
	}
	if _, err := l.fill(ctx, &l.b, castRows, castBytes); err != nil {
		return err
	}
	sum, err := castRun(ctx, l.conn, l.r.enc.t, l.statement, &l.b, 0, len(l.b.rows))
	if err != nil {
		return err
	}
	l.r.chunk.stored += int64(len(l.b.rows))
	l.r.chunk.storedSum.AddSum(sum)
	return nil
}
