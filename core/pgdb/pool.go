package pgdb

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Pool shares a bounded number of sessions that only read.
type Pool struct {
	connect func(context.Context) (*pgx.Conn, error) // holds the settings where printing a Pool does not reach them
	slots   chan struct{}

	mu     sync.Mutex
	idle   []*pgx.Conn
	closed bool
}

// ErrPoolClosed is returned by [Pool.Read] after [Pool.Close].
var ErrPoolClosed = errors.New("the pool is closed")

// NewPool returns a pool that opens sessions as they are needed, at most size of them.
func NewPool(s Settings, o Options, size int) *Pool {
	o.ReadOnly = true
	connect := func(ctx context.Context) (*pgx.Conn, error) { return Connect(ctx, s, o) }
	return &Pool{connect: connect, slots: make(chan struct{}, max(size, 1))}
}

// Behind a pooler a session has no settings of its own, so that each transaction brings them.
const beginRead = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '" + lockTimeout + "'"

// Read calls fn in a REPEATABLE READ READ ONLY transaction, which is rolled back afterwards. It waits for a session when
// all are busy. A failure to connect is a *[ConnectError].
func (p *Pool) Read(ctx context.Context, fn func(pgx.Tx) error) error {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return fmt.Errorf("wait for a session: %w", context.Cause(ctx))
	}
	conn, tx, err := p.begin(ctx)
	if err != nil {
		return err
	}
	defer p.release(conn)
	defer func() { // deferred, so that a panic in fn does not keep the session
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closePatience)
		defer cancel()
		_ = tx.Rollback(ctx) // a session that cannot even do that is not used again
	}()
	return fn(tx)
}

// begin starts a transaction in an idle session or a new one. An idle session may have died meanwhile; then nothing is
// lost by opening another.
func (p *Pool) begin(ctx context.Context) (*pgx.Conn, pgx.Tx, error) {
	for {
		conn, err := p.take()
		if err != nil {
			return nil, nil, err
		}
		reused := conn != nil
		if !reused {
			if conn, err = p.connect(ctx); err != nil {
				return nil, nil, err
			}
		}
		tx, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: beginRead})
		if err == nil {
			return conn, tx, nil
		}
		dead := conn.IsClosed()
		p.release(conn)
		if !reused || !dead || ctx.Err() != nil {
			return nil, nil, fmt.Errorf("begin a read-only transaction: %w", err)
		}
	}
}

func (p *Pool) take() (*pgx.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrPoolClosed
	}
	if len(p.idle) == 0 {
		return nil, nil
	}
	conn := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	return conn, nil
}

// release keeps a sound session for the next reader.
func (p *Pool) release(conn *pgx.Conn) {
	const outsideTransaction = 'I'
	p.mu.Lock()
	keep := !p.closed && !conn.IsClosed() && conn.PgConn().TxStatus() == outsideTransaction
	if keep {
		p.idle = append(p.idle, conn)
	}
	p.mu.Unlock()
	if !keep {
		Close(conn)
	}
}

// Close ends the sessions; one that is still in use ends when its reader does.
func (p *Pool) Close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	var wg sync.WaitGroup // each waits for the server's goodbye
	for _, conn := range idle {
		wg.Go(func() { Close(conn) })
	}
	wg.Wait()
}
