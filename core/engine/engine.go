package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
)

// Options are what an engine works with.
type Options struct {
	Version  string
	Target   *doctor.Target
	Sources  []doctor.Source // the built-in one first
	PIDFiles []string        // of Synapse and its workers
	// FindAdmin: where the target has no administrator's connection, the server's own socket is tried as the server's user.
	FindAdmin bool
	StateDir  string
	Timeout   time.Duration    // for each check; 0 for none
	Redactor  *doctor.Redactor // applied to everything that comes from a plugin or a library
	Log       *slog.Logger     // nil: silent
	// Stopper asks the operation that is being carried out to stop where it can go on; nil: nothing ever does.
	Stopper *Stopper
	// Progress is told how far a check, or a step, has come. It may be called from several goroutines.
	Progress func(what string, p doctor.Progress)
	// SourceOf finds a source that is not among Sources, for a plan of an earlier run that has to be settled or undone; nil:
	// there is none.
	SourceOf func(check string) doctor.Source
	// Ignored says which findings the administrator lives with; nil for all others.
	Ignored func(doctor.Finding) *doctor.Ignored
	// Accept is shown what the sources have, before any check runs; its error ends the run. Nil: anything is fine.
	Accept func([]doctor.CheckInfo) error
	// Notice is told what the administrator ought to know beside the report, in one sentence.
	Notice func(string)
	// Trace is told of every point at which a killed doctor would leave something to settle. Nil outside tests.
	Trace func(point string)
}

// Engine runs checks and fixes on one target. Its methods are not for use at the same time.
type Engine struct {
	Options
	examined  []*examined       // as many as Target.Databases; nil until prepared
	described []described       // as many as Sources; nil until prepared
	journal   *journal.Journal  // open while something is applied
	begun     bool              // the run is in the journal
	ended     journal.RunStatus // how, where the plans in the journal don't tell
	unsettled map[string]error  // by lock key: what a killed run left and could not be settled
	settled   []string          // ids of plans of killed runs that were finished, or put back, by this one
	noted     string            // the other roles that the administrator has been told of

	foundAdmin bool // the target's administrator's connection was found, not given
}

// New returns an engine. It starts nothing.
func New(o Options) *Engine {
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.Progress == nil {
		o.Progress = func(string, doctor.Progress) {}
	}
	if o.Ignored == nil {
		o.Ignored = func(doctor.Finding) *doctor.Ignored { return nil }
	}
	if o.Accept == nil {
		o.Accept = func([]doctor.CheckInfo) error { return nil }
	}
	if o.SourceOf == nil {
		o.SourceOf = func(string) doctor.Source { return nil }
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if o.Stopper == nil {
		o.Stopper = &Stopper{}
	}
	if o.Trace == nil {
		o.Trace = func(string) {}
	}
	if o.Target.RunID == "" {
		o.Target.RunID = NewRunID(time.Now())
	}
	o.Target.Bind()
	return &Engine{Options: o}
}

// NewRunID makes the id of a run: its second in UTC, and something to tell two of the same second apart.
func NewRunID(now time.Time) string {
	var b [3]byte
	rand.Read(b[:])
	return now.UTC().Format("20060102-150405-") + hex.EncodeToString(b[:])
}

// described is what a source said of itself, or why it could not.
type described struct {
	source doctor.Source
	doctor.Description
	err       error
	readerErr error // why a third party's own login is not used
}

// prepare asks every source what it has while the databases are being connected to.
func (e *Engine) prepare(ctx context.Context) {
	var wg sync.WaitGroup
	if e.examined == nil {
		wg.Go(func() { e.examine(ctx) })
	}
	e.describe(ctx)
	wg.Wait()
	e.admitReaders(ctx)
}

func (e *Engine) describe(ctx context.Context) {
	if e.described != nil {
		return
	}
	e.described = make([]described, len(e.Sources))
	var wg sync.WaitGroup
	for i, s := range e.Sources {
		wg.Go(func() {
			ctx, cancel := e.limit(ctx)
			defer cancel()
			d, err := s.Describe(ctx)
			if crashed(err) {
				d, err = s.Describe(ctx)
			}
			if err == nil {
				err = asRecorded(doctor.TermsOf(s), d)
			}
			e.described[i] = described{source: s, Description: d, err: err}
		})
	}
	wg.Wait()
	e.refuseDuplicates()
}

// refuseDuplicates sets aside a source that claims a check another one has already.
func (e *Engine) refuseDuplicates() {
	owner := map[string]string{}
	for i := range e.described {
		d := &e.described[i]
		if d.err != nil {
			continue
		}
		for _, c := range d.Checks {
			if first, taken := owner[c.ID]; taken {
				d.err = fmt.Errorf("it claims the check %q, which %s provides already", c.ID, first)
				break
			}
		}
		if d.err == nil {
			for _, c := range d.Checks {
				owner[c.ID] = d.source.Name()
			}
		}
	}
}

// grace is how much longer than the deadline that a check is told, the engine waits for its answer.
const grace = 2 * time.Second

func (e *Engine) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if e.Timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, e.Timeout+grace, fmt.Errorf("no answer within %s", e.Timeout+grace))
}

// Catalogue lists every check of every source that could be asked, for list and explain.
func (e *Engine) Catalogue(ctx context.Context) ([]doctor.PluginInfo, []doctor.CheckInfo) {
	e.describe(ctx)
	return e.plugins(), e.checkInfos()
}

func (e *Engine) checkInfos() []doctor.CheckInfo {
	var checks []doctor.CheckInfo
	for _, d := range e.described {
		if d.err == nil {
			checks = append(checks, d.Checks...)
		}
	}
	return checks
}

func (e *Engine) plugins() []doctor.PluginInfo {
	var infos []doctor.PluginInfo
	for _, d := range e.described {
		info := doctor.PluginInfo{Name: d.source.Name(), Version: e.clean(d.Version), Protocol: d.Protocol, Path: d.Path, Status: doctor.StatusOK}
		for _, c := range d.Checks {
			info.Checks = append(info.Checks, e.clean(c.ID))
		}
		if d.err != nil {
			info.Status, info.Reason = doctor.StatusUnknown, e.reason(d.err)
		}
		infos = append(infos, info)
	}
	return infos
}

// clean makes a short text from outside fit to be printed.
func (e *Engine) clean(s string) string { return doctor.Clean(e.Redactor.String(s)) }

// reason is an error as it is printed: one line, without secrets.
func (e *Engine) reason(err error) string { return e.clean(err.Error()) }
