package main

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
)

// task is something to do over one session, and what can be done after it. The costliest comes first.
type task struct {
	cost int64
	run  func(context.Context, *pgx.Conn) error
	then []task
}

// perform does the tasks, and those after them, over as many sessions as there are streams. It stops at the first error.
func perform(ctx context.Context, dsn string, tasks []task) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q := queue{ready: tasks}
	q.changed = sync.NewCond(&q.mu)
	var workers sync.WaitGroup
	for range streams {
		workers.Go(func() {
			if err := q.work(ctx, dsn); err != nil {
				cancel(err) // the first counts: the others have been interrupted by it
				q.stop()
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

type queue struct {
	mu      sync.Mutex
	changed *sync.Cond
	ready   []task
	running int
	stopped bool
}

func (q *queue) work(ctx context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for {
		t, ok := q.next()
		if !ok {
			return nil
		}
		if err := t.run(ctx, conn); err != nil {
			return err
		}
		q.done(t)
	}
}

// next waits until something can be done. There is nothing any more when all is done, or something has failed.
func (q *queue) next() (task, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.ready) == 0 && q.running > 0 && !q.stopped {
		q.changed.Wait()
	}
	if len(q.ready) == 0 || q.stopped {
		return task{}, false
	}
	most := 0
	for i := range q.ready {
		if q.ready[i].cost > q.ready[most].cost {
			most = i
		}
	}
	t := q.ready[most]
	last := len(q.ready) - 1
	q.ready[most] = q.ready[last]
	q.ready = q.ready[:last]
	q.running++
	return t, true
}

func (q *queue) done(t task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	q.ready = append(q.ready, t.then...)
	q.changed.Broadcast()
}

func (q *queue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.changed.Broadcast()
}
