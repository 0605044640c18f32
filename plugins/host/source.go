package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
)

// Source is a plugin as the engine sees it. It starts at the first call, or at Start.
type Source struct {
	name    string
	path    string        // as Description tells it
	terms   *doctor.Terms // of somebody else's code; nil for our own
	open    func() (program, error)
	options Options

	mu       sync.Mutex
	current  *connection
	restarts int
	most     int // checks in one call, ever
	closed   bool
	sweeping sync.WaitGroup
}

var _ doctor.Guest = (*Source)(nil)

// Builtin is this very program, run again. Its main must begin with what sdk.Launched says.
func Builtin(o Options) *Source { return &Source{name: "builtin", open: openSelf, options: o} }

// Dev is a file that is run as it is, whoever wrote it and whatever it contains. It is handed Synapse's login, and its plans
// may be applied: its author is at work.
func Dev(path string, o Options) *Source {
	terms := &doctor.Terms{AllowFix: true, TrustDatabase: true}
	return newFile(pluginName(path), path, terms, o, func() (program, error) { return openFile(path) })
}

// Installed is a file that is run only if its SHA-256, in hexadecimal, is the recorded one and nobody but its owner
// and root can change it. What was hashed is what runs. Name is what the administrator calls it.
func Installed(name, path, sha256 string, terms *doctor.Terms, o Options) *Source {
	return newFile(name, path, terms, o, func() (program, error) {
		p, err := openRecorded(path, sha256)
		if err != nil && terms.Update != "" {
			if _, changed := errors.AsType[*HashError](err); changed {
				err = fmt.Errorf("%w. If that was you, run: %s", err, terms.Update)
			} else if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w. If it is somewhere else now, run: %s FILE", err, terms.Update)
			}
		}
		return p, err
	})
}

// Refused is a plugin that is not run, and why. Every call fails with the reason.
func Refused(name, path string, terms *doctor.Terms, reason error) *Source {
	return newFile(name, path, terms, Options{}, func() (program, error) { return program{}, reason })
}

// Candidate is a file that nobody else can change, and its SHA-256: what somebody is about to trust, and what is asked to
// describe itself, once, is what was hashed. It is handed nothing.
func Candidate(path string, o Options) (s *Source, sum string, err error) {
	p, sum, err := openOwn(path)
	if err != nil {
		return nil, "", err
	}
	opened := false
	s = newFile(pluginName(path), path, &doctor.Terms{}, o, func() (program, error) {
		if opened {
			return program{}, errors.New("it has ended")
		}
		opened = true
		return p, nil
	})
	return s, sum, nil
}

func newFile(name, path string, terms *doctor.Terms, o Options, open func() (program, error)) *Source {
	if abs, err := filepath.Abs(path); err == nil && path != "" {
		path = abs
	}
	return &Source{name: name, path: path, terms: terms, open: open, options: o}
}

// Terms implements doctor.Guest.
func (s *Source) Terms() *doctor.Terms { return s.terms }

// Name implements doctor.Source.
func (s *Source) Name() string { return s.name }

// Start begins to start the plugin and returns at once. When ctx ends before the plugin answers, the start is given up.
func (s *Source) Start(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil && !s.closed {
		s.begin(ctx)
	}
}

func (s *Source) begin(ctx context.Context) {
	c := connect(ctx, s.name, s.open, s.options)
	s.current = c
	s.sweeping.Go(func() {
		<-c.ready // a start must not wait for this
		bases := []string{s.options.SocketDir}
		if s.options.SocketDir == "" {
			bases = defaultBases()
		}
		for _, base := range bases {
			sweep(base)
		}
	})
}

// connection returns the plugin, started, once it answers.
func (s *Source) connection(ctx context.Context) (*connection, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, fmt.Errorf("plugin %s: %w", s.name, errClosed)
	}
	switch {
	case s.current == nil:
		s.begin(context.WithoutCancel(ctx)) // it serves later calls too
	case s.current.crashed() && s.restarts < s.budget():
		s.restarts++
		go s.current.client.Kill() // closes what go-plugin holds
		s.begin(context.WithoutCancel(ctx))
	}
	c := s.current
	s.mu.Unlock()
	select {
	case <-c.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c.err != nil {
		return nil, c.err
	}
	if c.crashed() {
		return nil, s.crash(c)
	}
	return c, nil
}

// budget is how often a plugin that crashes is started again. A crash takes every check of its call with it; each of
// them, asked for alone, may crash it once more, and must not cost the innocent ones.
func (s *Source) budget() int { return max(1, s.most) }

// crashed reports whether the process answered once and has ended since.
func (c *connection) crashed() bool {
	select {
	case <-c.ready:
	default:
		return false
	}
	if c.err != nil {
		return false // it never answered: another attempt would end no better
	}
	select {
	case <-c.process.exited:
		return true
	default:
		return false
	}
}

func (s *Source) crash(c *connection) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("plugin %s: %w", s.name, errClosed)
	}
	return &CrashError{
		Plugin: s.name, State: c.process.state, Stderr: c.process.tail.String(),
		restartable: s.current != c || s.restarts < s.budget(),
	}
}

// afterLoss is how long a process may live on when its connection is lost. It can't be of use any more.
const afterLoss = 500 * time.Millisecond

// call makes one call and finds out why it failed.
func (s *Source) call(ctx context.Context, fn func(*connection) error) error {
	c, err := s.connection(ctx)
	if err != nil {
		return err
	}
	err = fn(c)
	if err == nil || ctx.Err() != nil && !isAbandoned(err) {
		return err
	}
	if isAbandoned(err) {
		c.process.kill() // else it might go on writing
		if !c.gone(afterKill) {
			return fmt.Errorf("%w, and its process %s could not be ended", err, c.process.ID())
		}
		return fmt.Errorf("%w, and its process was ended", err)
	}
	if wire.Lost(err) && !c.gone(afterLoss) {
		c.process.kill()
		c.gone(afterKill)
	}
	if _, remote := errors.AsType[*wire.RemoteError](err); remote && c.crashed() {
		return s.crash(c)
	}
	switch status.Code(err) {
	case codes.Internal, codes.ResourceExhausted, codes.Unimplemented: // gRPC's own words, which name nobody
		return fmt.Errorf("plugin %s does not keep to the protocol: %w", s.name, err)
	}
	return err
}

func isAbandoned(err error) bool {
	_, ok := errors.AsType[*wire.AbandonedError](err)
	return ok
}

// Describe implements doctor.Source. A description that is not valid is an error: see [ValidateDescription]. It needs no
// more time than a start does, and who asks may have no deadline.
func (s *Source) Describe(ctx context.Context) (d doctor.Description, err error) {
	err = s.call(ctx, func(c *connection) error {
		within := s.options.startTimeout()
		ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("plugin %s did not say within %s what it is", s.name, seconds(within)))
		defer cancel()
		if d, err = c.rpc.Describe(ctx); err != nil {
			return err
		}
		d.Protocol, d.Path = c.protocol, s.path
		if err := ValidateDescription(d); err != nil {
			return fmt.Errorf("plugin %s describes itself badly: %w", s.name, inOneLine(err))
		}
		return nil
	})
	if err != nil {
		return doctor.Description{}, err
	}
	return d, nil
}

// inOneLine is the first of many faults, and how many more there are.
func inOneLine(err error) error {
	all, ok := err.(interface{ Unwrap() []error })
	if !ok || len(all.Unwrap()) < 2 {
		return err
	}
	return fmt.Errorf("%w (and %d more: synapse-doctor plugin test FILE tells its author all of them)", all.Unwrap()[0], len(all.Unwrap())-1)
}

// Check implements doctor.Source.
func (s *Source) Check(ctx context.Context, req doctor.CheckRequest, events doctor.Events) error {
	s.mu.Lock()
	s.most = max(s.most, len(req.Checks))
	s.mu.Unlock()
	req.Target = s.handed(req.Target)
	return s.call(ctx, func(c *connection) error { return c.rpc.Check(ctx, req, events) })
}

// handed is the target that a check or a plan gets to see.
func (s *Source) handed(t *doctor.Target) *doctor.Target {
	if s.terms != nil && t != nil {
		return s.terms.Handed(t)
	}
	return t
}

// Plan implements doctor.Source.
func (s *Source) Plan(ctx context.Context, req doctor.PlanRequest) (plans []doctor.Plan, err error) {
	req.Target = s.handed(req.Target)
	err = s.call(ctx, func(c *connection) error {
		plans, err = c.rpc.Plan(ctx, req)
		return err
	})
	return plans, err
}

// Execute implements doctor.Source. When it returns, the operation has ended, if need be with its process.
func (s *Source) Execute(ctx context.Context, req doctor.ExecuteRequest, h doctor.OperationHost) error {
	if s.terms != nil {
		if !s.terms.AllowFix {
			return doctor.Unchanged("the plugin %s may not change anything: %s", s.name, s.terms.HowToAllow())
		}
		req.Target = s.terms.ForOperation(req.Target)
	}
	return s.call(ctx, func(c *connection) error { return c.rpc.Execute(ctx, req, h) })
}

// Close ends the plugin, after at most some three seconds by force. Then there is no process of its group any more.
func (s *Source) Close() error {
	s.mu.Lock()
	s.closed = true
	c := s.current
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	err := c.close()
	s.sweeping.Wait()
	return err
}
