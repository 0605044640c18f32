package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// settles is how long a check may take to begin with what it waits for. One that has come to an end by then can't be cancelled.
const settles = 700 * time.Millisecond

var errGivenUp = errors.New("given up")

// cancels has each check meet a server that lets it in and then never answers, and gives up.
func cancels(ctx context.Context, k *kit) error {
	return k.with(ctx, func(ctx context.Context, k *kit, p *plugin) error {
		checks, err := p.describe(ctx)
		if err != nil {
			return err
		}
		for _, c := range checks {
			if err := p.cancelled(ctx, k, c.ID, checks); err != nil {
				return fmt.Errorf("check %q: %w", c.ID, err)
			}
		}
		return nil
	})
}

func (p *plugin) cancelled(ctx context.Context, k *kit, id string, checks []doctor.CheckInfo) error {
	server, err := newStuckServer()
	if err != nil {
		return err
	}
	defer server.close()
	target := func() *doctor.Target { return k.stand.targetAt(k.stand.login(server.address()), true, checks) }

	call, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = p.check(call, target(), 0, id)
	}()
	if !server.awaits(ctx, ended, k.limit(settles)) {
		return nil // it has ended
	}
	cancel(errGivenUp)
	<-ended
	if left := server.drains(ctx, k.limit(stopWithin)); left > 0 {
		return fmt.Errorf("it was given up, and still had %d session(s) of the database %s later", left, k.limit(stopWithin))
	}
	if busy := p.spins(); busy {
		return fmt.Errorf("it was given up, and still kept a processor busy %s later", k.limit(stopWithin))
	}

	// What hears the end of a call hears its deadline too; what hears neither would be waited for by every host.
	const deadline = 200 * time.Millisecond
	call, stop := context.WithTimeoutCause(ctx, k.limit(deadline+stopWithin), errors.New("it was given a deadline, and did not end within a second of it"))
	defer stop()
	if _, err := p.check(call, target(), deadline, id); err != nil && call.Err() != nil {
		return context.Cause(call)
	}
	return nil
}

// awaits returns true when somebody waits for the server, or nothing has come to an end by then.
func (s *stuckServer) awaits(ctx context.Context, ended <-chan struct{}, most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		_, ever, changed := s.connected()
		if ever > 0 {
			// It has logged in; that it asks something is a matter of microseconds.
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ended:
				return false
			}
			return true
		}
		select {
		case <-changed:
		case <-ended:
			return false
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// drains waits for all sessions to end, and returns how many have not.
func (s *stuckServer) drains(ctx context.Context, most time.Duration) int {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		now, _, changed := s.connected()
		if now == 0 {
			return 0
		}
		select {
		case <-changed:
		case <-timer.C:
			now, _, _ := s.connected()
			return now
		case <-ctx.Done():
			return 0
		}
	}
}

// spins reports whether the process keeps a processor busy; on a machine with much else to do, as much as it gets of one.
func (p *plugin) spins() bool {
	const sample = 300 * time.Millisecond
	before, ok := processorTime(p.PID())
	if !ok {
		return false
	}
	// Garbage collection and the end of the call may take a moment; only what lasts counts.
	for range 3 {
		time.Sleep(sample)
		after, ok := processorTime(p.PID())
		if !ok || after-before < sample/5 {
			return false
		}
		before = after
	}
	return true
}
