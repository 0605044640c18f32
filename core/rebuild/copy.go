package rebuild

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// queue hands each table to one of several callers.
func queue(tables []table) func() (table, bool) {
	var mu sync.Mutex
	return func() (table, bool) {
		mu.Lock()
		defer mu.Unlock()
		if len(tables) == 0 {
			return table{}, false
		}
		t := tables[0]
		tables = tables[1:]
		return t, true
	}
}

// inParallel calls fn n times at once, and ends the others when one fails. It returns the first error.
func inParallel(ctx context.Context, n int, fn func(ctx context.Context, part int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for part := range n {
		wg.Go(func() {
			if err := fn(ctx, part); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// copy carries the rows of all tables, the largest first, and adds both sides up as soon as a table is there.
func (f *filling) copy(ctx context.Context) error {
	next := queue(f.tables)
	var mu sync.Mutex
	return inParallel(ctx, workers, func(ctx context.Context, _ int) error {
		old, err := f.reader(ctx)
		if err != nil {
			return err
		}
		defer closeConn(old)
		fresh, err := f.session(ctx, f.p.fresh)
		if err != nil {
			return err
		}
		defer closeConn(fresh)
		if err := f.translate(ctx, old, fresh); err != nil {
			return err
		}
		for t, ok := next(); ok; t, ok = next() {
			source, err := f.copyTable(ctx, old, fresh, t)
			if err != nil {
				return err
			}
			mu.Lock()
			f.sums[t.qualified()] = source
			mu.Unlock()
			f.w.point("copied")
		}
		return nil
	})
}

// translate prepares two sessions for the rows. Both speak UTF8, which the sending and the receiving side make sure of; where
// all bytes are taken to be something else they are read as they are, and the new database converts them.
func (f *filling) translate(ctx context.Context, old, fresh *pgx.Conn) error {
	statements := []string{"SET synchronous_commit = off"}
	if f.p.sourceEncoding != "" {
		statements = append(statements, "SET client_encoding = "+literal(f.p.sourceEncoding))
		if _, err := old.Exec(ctx, "SET client_encoding = 'SQL_ASCII'"); err != nil {
			return fmt.Errorf("prepare to read: %w", err)
		}
	}
	for _, statement := range statements {
		if _, err := fresh.Exec(ctx, statement); err != nil {
			return fmt.Errorf("prepare to write: %w", err)
		}
	}
	return nil
}

// reader opens a session that reads the old database in the snapshot.
func (f *filling) reader(ctx context.Context) (*pgx.Conn, error) {
	conn, err := f.session(ctx, f.p.database)
	if err != nil {
		return nil, err
	}
	for _, statement := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SET TRANSACTION SNAPSHOT " + literal(f.snapshot)} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			closeConn(conn)
			return nil, fmt.Errorf("begin to read the database %s: %w", f.p.database, err)
		}
	}
	return conn, nil
}

// copyTable carries the rows of one table and compares the two.
func (f *filling) copyTable(ctx context.Context, old, fresh *pgx.Conn, t table) (sum, error) {
	if t.Heap > 0 && len(t.Columns) > 0 {
		if err := f.pipe(ctx, old, fresh, t); err != nil {
			return sum{}, fmt.Errorf("copy the table %s: %w", t.qualified(), err)
		}
	}
	var sums [2]sum
	conns := [2]querier{old, fresh}
	err := inParallel(ctx, 2, func(ctx context.Context, i int) (err error) {
		sums[i], err = f.reads[i].sumOf(ctx, conns[i], t)
		return err
	})
	if err != nil {
		return sum{}, err
	}
	if sums[0] != sums[1] {
		return sum{}, mismatch("the table %s is not the same in the new database: %s there, %s in the old one", t.qualified(), sums[1], sums[0])
	}
	return sums[0], nil
}

// pipeBuffer gathers rows: one write of a row each would wake the other side each time.
const pipeBuffer = 256 << 10

// pipe streams the rows in PostgreSQL's binary format, in one transaction that makes the table anew: rows that are frozen
// from the start are written once.
func (f *filling) pipe(ctx context.Context, old, fresh *pgx.Conn, t table) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	read := make(chan error, 1)
	go func() {
		count := &counter{Writer: w, f: f, left: t.Bytes}
		buffered := bufio.NewWriterSize(count, pipeBuffer)
		_, err := old.PgConn().CopyTo(ctx, buffered, fmt.Sprintf("COPY (SELECT %s FROM ONLY %s%s) TO STDOUT (FORMAT binary)", t.columnList(), t.qualified(), f.reads[0].where(t)))
		if err == nil {
			err = buffered.Flush()
		}
		count.advance(t.Bytes)
		w.CloseWithError(err) // nil: the end
		read <- err
	}()
	err := pgx.BeginFunc(ctx, fresh, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "TRUNCATE ONLY "+t.qualified()); err != nil {
			return err
		}
		_, err := fresh.PgConn().CopyFrom(ctx, r, fmt.Sprintf("COPY %s (%s) FROM STDIN (FORMAT binary, FREEZE)", t.qualified(), t.columnList()))
		return err
	})
	if err != nil {
		cancel()
	}
	r.CloseWithError(errReaderGone)
	if readErr := <-read; readErr != nil && !errors.Is(readErr, errReaderGone) && (err == nil || ctx.Err() == nil || sqlState(readErr) != "") {
		return readErr // the cause: the writing side only says that its input has ended
	}
	return err
}

var errReaderGone = errors.New("the writing side has ended")

// counter counts what goes through a pipe as parts of the table's size on disk.
type counter struct {
	io.Writer
	f     *filling
	left  int64 // of the table's size
	shown time.Time
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.advance(int64(n))
	if now := time.Now(); now.Sub(c.shown) > progressEvery {
		c.shown = now
		c.f.say(copying)
	}
	return n, err
}

const (
	copying       = "copy the rows"
	progressEvery = 200 * time.Millisecond
)

func (c *counter) advance(n int64) {
	n = min(n, c.left)
	c.left -= n
	c.f.done.Add(n)
}
