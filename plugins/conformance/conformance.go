// Package conformance tries a plugin's file, point by point, for what every host relies on: the kit behind synapse-doctor
// plugin test. It imports core/doctor, core/pgdb, core/pgtest, plugins/host and the wire.
//
//	results, err := conformance.Run(ctx, "./synapse-doctor-plugin-acme", conformance.Options{}, nil)
//	for _, r := range results {
//		fmt.Println(r.Number, r.Status, r.Title, r.Reason)
//	}
//
// The points are apart from one another: each starts the plugin anew, and goes round what another point finds fault with,
// so that an author sees everything at once. No process is left when Run returns, whatever the plugin does.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

// Status is how a point ended.
type Status string

const (
	Pass    Status = "pass"
	Fail    Status = "fail"
	Skipped Status = "skipped" // could not be tried, with a reason
)

// Result is one point, tried.
type Result struct {
	Number   int    // from 1
	ID       string // lower-case words joined by hyphens, stable for ever
	Title    string // what holds when it passes
	Status   Status
	Reason   string // what was seen, or why it was skipped; when it passed, what its author should know all the same, if anything
	Hint     string // what its author can do; only when it failed
	Duration time.Duration
}

// Options are what the plugin is tried with. The zero value is good.
type Options struct {
	// DSN is a PostgreSQL database for tests, on a server that nobody else uses meanwhile. Nil: a server is made for
	// the occasion, with a small homeserver's database, where PostgreSQL's server programs are installed.
	DSN pgdb.Settings
	// NoServer makes no server. What needs one is skipped.
	NoServer bool

	slack int // multiplies every limit; 0 for 1
}

// point is one thing that is tried: nil when it holds, a *skip when it could not be tried.
type point struct {
	id, title, hint string
	try             func(ctx context.Context, k *kit) error
}

// skip is why a point could not be tried.
type skip struct{ reason string }

func (s *skip) Error() string { return s.reason }

// note is what is said of a point that passes.
type note struct{ text string }

func (n *note) Error() string { return n.text }

func skipped(format string, args ...any) error { return &skip{fmt.Sprintf(format, args...)} }

// kit is what one run knows.
type kit struct {
	file    string
	name    string
	options Options

	mute  error                    // why nothing can be asked of the plugin
	sound map[string]doctor.Status // the checks that end as they ought to when they run alone, and how
	stand *stand                   // nil for a plugin that is mute
}

// mostTime bounds a point, so that a plugin that hangs costs a point and not an evening.
const mostTime = 2 * time.Minute

// Run tries every point and passes each result to tell, when that is not nil, as soon as it is known. Its error is why the
// plugin could not be tried at all: no such file, another protocol, or the end of ctx.
func Run(ctx context.Context, file string, o Options, tell func(Result)) (_ []Result, err error) {
	k := &kit{file: file, name: strings.TrimPrefix(filepath.Base(file), host.FilePrefix), options: o, sound: map[string]doctor.Status{}}
	if err := k.canBeTried(ctx); err != nil {
		return nil, err
	}
	if k.mute == nil {
		if k.stand, err = newStand(ctx, o); err != nil {
			return nil, err
		}
		defer k.stand.close()
	}
	var results []Result
	for i, p := range points {
		r := k.result(ctx, p)
		if ctx.Err() != nil {
			return results, context.Cause(ctx)
		}
		r.Number = i + 1
		results = append(results, r)
		if tell != nil {
			tell(r)
		}
	}
	return results, nil
}

// result tries one point.
func (k *kit) result(ctx context.Context, p point) Result {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, k.limit(mostTime), fmt.Errorf("it was not through within %s", k.limit(mostTime)))
	defer cancel()
	err := p.try(ctx, k)
	r := Result{ID: p.id, Title: p.title, Status: Pass, Duration: time.Since(began)}
	if err != nil {
		r.Status, r.Reason, r.Hint = Fail, k.stand.clean(err.Error()), p.hint
		if _, ok := errors.AsType[*skip](err); ok {
			r.Status, r.Hint = Skipped, ""
		}
		if _, ok := err.(*note); ok { // alone: joined with an error it is none
			r.Status, r.Hint = Pass, ""
		}
	}
	return r
}

// limit is a limit of the protocol, stretched where the machine is known to be slow.
func (k *kit) limit(d time.Duration) time.Duration { return d * time.Duration(max(1, k.options.slack)) }

// canBeTried starts the plugin once. What it does wrong is for the points to say; but a file that can't be executed, or a
// plugin of another time, is not tried.
func (k *kit) canBeTried(ctx context.Context) error {
	t, err := host.Try(k.file, host.TrialOptions{Env: host.Environ()})
	if err != nil {
		return fmt.Errorf("%s can't be tried: %w", k.file, err)
	}
	defer t.Close()
	g, err := k.greeting(ctx, t, k.limit(2*startWithin))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		k.mute = err
		return nil
	}
	if g.Name != "" {
		k.name = g.Name
	}
	return g.Spoken(k.name)
}

// clean is text without terminal escapes and without what was planted.
func (s *stand) clean(text string) string {
	if s != nil {
		text = s.secrets.String(text)
	}
	return doctor.CleanText(text)
}
