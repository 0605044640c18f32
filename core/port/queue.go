package port

import (
	"context"
	"slices"
	"sync"
)

// job is a piece of work for one session.
type job struct {
	name string
	cost int64 // what costs most is begun first
	// A job that has a table alone waits for those that share it, and they for it: the server would make one wait for the
	// other, and with it a worker.
	shared, alone []string
	run           func(ctx context.Context, w *worker) error
}

// queue hands jobs to workers. It ends when there are none, and none is running that could add one, or with the first error.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond
	jobs    []*job
	running []*job
	err     error
}

func newQueue() *queue {
	q := &queue{}
	q.changed.L = &q.mu
	return q
}

func (q *queue) add(jobs ...*job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.jobs = append(q.jobs, jobs...)
	slices.SortStableFunc(q.jobs, func(a, b *job) int {
		switch {
		case a.cost > b.cost:
			return -1
		case a.cost < b.cost:
			return 1
		}
		return 0
	})
	q.changed.Broadcast()
}

// take waits for a job that none of those running is in the way of. Nil: there is nothing left to do.
func (q *queue) take(ctx context.Context) *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if ctx.Err() != nil {
			q.err = firstError(q.err, context.Cause(ctx))
		}
		if q.err != nil || len(q.jobs) == 0 && len(q.running) == 0 {
			return nil
		}
		if i := slices.IndexFunc(q.jobs, q.free); i >= 0 {
			j := q.jobs[i]
			q.jobs = slices.Delete(q.jobs, i, i+1)
			q.running = append(q.running, j)
			return j
		}
		q.changed.Wait()
	}
}

// busy reports whether there is more to do than one job.
func (q *queue) busy() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.jobs)+len(q.running) > 1
}

func (q *queue) free(j *job) bool {
	return !slices.ContainsFunc(q.running, func(r *job) bool {
		return overlap(j.alone, r.alone) || overlap(j.alone, r.shared) || overlap(j.shared, r.alone)
	})
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

func (q *queue) done(j *job, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running = slices.DeleteFunc(q.running, func(r *job) bool { return r == j })
	q.err = firstError(q.err, err)
	q.changed.Broadcast()
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// work has the workers of a run do all jobs. The first error ends the run's context, and with it the other jobs. A context of
// its own would end here too, and interrupt what the workers do next.
func (p *porting) work(q *queue) error {
	ctx := p.ctx
	defer context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.changed.Broadcast()
	})()
	for _, w := range p.workers {
		if err := w.file.Map(sizeOf(p.path)); err != nil {
			return err
		}
		defer w.file.Map(0)
	}
	var wg sync.WaitGroup
	for _, w := range p.workers {
		wg.Go(func() {
			for j := q.take(ctx); j != nil; j = q.take(ctx) {
				err := w.file.Shield(func() error { return j.run(ctx, w) })
				switch {
				case err != nil && ctx.Err() != nil:
					err = context.Cause(ctx)
				case err != nil:
					// What is read of a file that changes may be anything.
					err = firstError(p.guard.check(), err)
				}
				q.done(j, err)
				if err != nil {
					p.cancel()
				}
			}
		})
	}
	wg.Wait()
	return q.err
}
