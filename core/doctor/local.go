package doctor

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// Local is the [Source] made of the checks of this process. A plugin's server wraps one; so does --in-process.
type Local struct {
	PluginName string
	Version    string
	Checks     []Check
}

var _ Source = (*Local)(nil)

// ErrNotFound is returned for a check or an operation that a source does not have.
var ErrNotFound = errors.New("not found")

func (l *Local) Name() string { return l.PluginName }

func (l *Local) Close() error { return nil }

func (l *Local) Describe(context.Context) (Description, error) {
	d := Description{Name: l.PluginName, Version: l.Version}
	for _, c := range l.Checks {
		info := CheckInfo{ID: c.ID, Title: c.Title, Why: c.Why, Needs: c.Needs, Codes: c.Codes, Thresholds: c.Thresholds, Plans: c.Plan != nil, Changes: c.Changes}
		for name := range c.Operations {
			info.Operations = append(info.Operations, name)
		}
		slices.Sort(info.Operations)
		d.Checks = append(d.Checks, info)
	}
	return d, nil
}

func (l *Local) find(id string) (Check, error) {
	for _, c := range l.Checks {
		if c.ID == id {
			return c, nil
		}
	}
	return Check{}, fmt.Errorf("check %q: %w", id, ErrNotFound)
}

// Check runs the checks at the same time, each under its own deadline. A check that ignores its deadline, or that
// panics, ends as unknown; it holds up no other.
func (l *Local) Check(ctx context.Context, req CheckRequest, events Events) error {
	checks := make([]Check, 0, len(req.Checks))
	for _, id := range req.Checks {
		c, err := l.find(id)
		if err != nil {
			return err
		}
		checks = append(checks, c)
	}
	req.Target.Bind()
	defer req.Target.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, c := range checks {
		wg.Go(func() {
			if err := runOne(ctx, c, req, events, cancel); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// abandonAfter is how long a check may go on after its context has ended before it is left to itself.
const abandonAfter = 500 * time.Millisecond

func runOne(ctx context.Context, c Check, req CheckRequest, events Events, fail context.CancelCauseFunc) error {
	start := time.Now()
	if req.Deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, req.Deadline, fmt.Errorf("not finished within %s", req.Deadline))
		defer cancel()
	}
	r := &reporter{check: c.ID, target: req.Target, events: events, fail: fail}
	ended := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				ended <- &PanicError{Value: fmt.Sprint(p), Stack: string(debug.Stack())}
			}
		}()
		ended <- c.Run(ctx, req.Target, r)
	}()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		select {
		case err = <-ended:
		case <-time.After(abandonAfter):
			err = context.Cause(ctx)
		}
	}
	r.close()
	o := outcome(ctx, err, time.Since(start))
	o.Coverage = r.coverage
	return events.Done(c.ID, o)
}

func outcome(ctx context.Context, err error, took time.Duration) Outcome {
	if err == nil {
		return Outcome{Status: StatusOK, Duration: took}
	}
	if reason, ok := SkipReason(err); ok {
		s, _ := errors.AsType[*SkipError](err)
		return Outcome{Status: StatusSkipped, Reason: reason, Duration: took, NeedFailed: s.NeedFailed}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
	}
	return Outcome{Status: StatusUnknown, Reason: err.Error(), Duration: took}
}

// PanicError is a check that panicked.
type PanicError struct {
	Value string
	Stack string // for the debug log only
}

func (e *PanicError) Error() string { return "the check crashed: " + e.Value }

// reporter hands a check's findings on until the check has ended.
type reporter struct {
	check  string
	target *Target
	events Events
	fail   context.CancelCauseFunc

	mu       sync.Mutex
	closed   bool
	coverage string
}

func (r *reporter) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
}

func (r *reporter) Find(f Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if f.Database == "" && len(r.target.Databases) == 1 {
		f.Database = r.target.Databases[0].Label
	}
	if err := r.events.Found(r.check, f); err != nil {
		r.fail(err)
	}
}

func (r *reporter) Progress(p Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.events.Progress(r.check, p)
	}
}

func (r *reporter) Covered(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.coverage = text
	}
}

func (r *reporter) Measure(m Measure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	m.Check = r.check
	if m.Database == "" && len(r.target.Databases) == 1 {
		m.Database = r.target.Databases[0].Label
	}
	if err := r.events.Measured(r.check, m); err != nil {
		r.fail(err)
	}
}

func (l *Local) Plan(ctx context.Context, req PlanRequest) (plans []Plan, err error) {
	c, err := l.find(req.Check)
	if err != nil {
		return nil, err
	}
	if c.Plan == nil {
		return nil, nil
	}
	defer recovered(&err)
	req.Target.Bind()
	defer req.Target.Close()
	return c.Plan(ctx, req.Target, req.Findings)
}

func (l *Local) Execute(ctx context.Context, req ExecuteRequest, host OperationHost) (err error) {
	c, err := l.find(req.Check)
	if err != nil {
		return err
	}
	op, ok := c.Operations[req.Step.Name]
	if !ok {
		return fmt.Errorf("operation %q of check %q: %w", req.Step.Name, req.Check, ErrNotFound)
	}
	defer recovered(&err)
	req.Target.Bind()
	defer req.Target.Close()
	return op(ctx, req.Target, req.Step, req.Resume, host)
}

func recovered(err *error) {
	if p := recover(); p != nil {
		*err = &PanicError{Value: fmt.Sprint(p), Stack: string(debug.Stack())}
	}
}
