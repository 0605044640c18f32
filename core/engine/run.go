package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Check runs the selected checks and reports. Its error is a usage error ([SelectionError]) or the end of ctx;
// everything else that goes wrong is in the report.
func (e *Engine) Check(ctx context.Context, sel Selection) (*doctor.Report, error) {
	defer e.Target.Close()
	return e.check(ctx, sel)
}

func (e *Engine) check(ctx context.Context, sel Selection) (*doctor.Report, error) {
	started := time.Now()
	e.examined = nil // what held before a fix may not hold after it
	e.prepare(ctx)
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := e.Accept(e.checkInfos()); err != nil {
		return nil, err
	}
	checks, err := e.selectChecks(sel)
	if err != nil {
		return nil, err
	}
	results := e.run(ctx, checks)
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return &doctor.Report{
		DoctorVersion: e.Version,
		StartedAt:     started,
		Duration:      time.Since(started),
		Target:        e.targetInfo(),
		Plugins:       e.plugins(),
		Checks:        results,
		Earlier:       e.Target.Earlier,
	}, nil
}

func (e *Engine) run(ctx context.Context, checks []selected) []doctor.CheckResult {
	results := make([]doctor.CheckResult, len(checks))
	gates := make([]gate, len(checks))
	bySource := map[*described][]selected{}
	for i, s := range checks {
		if err := s.source.err; err != nil { // it was asked for by the ids that were recorded of it
			results[i] = doctor.CheckResult{ID: s.info.ID, Title: e.clean(s.info.Title), Status: doctor.StatusUnknown, Reason: e.reason(err)}
			continue
		}
		if gates[i] = e.gate(s.info.Needs); gates[i].skip == "" {
			theirs := e.admit(s)
			theirs.partly = append(gates[i].partly, theirs.partly...)
			gates[i] = theirs
		}
		if g := gates[i]; g.unknown != "" {
			results[i] = doctor.CheckResult{ID: s.info.ID, Title: e.clean(s.info.Title), Status: doctor.StatusUnknown, Reason: e.clean(g.unknown)}
			continue
		}
		if g := gates[i]; g.skip != "" {
			results[i] = doctor.CheckResult{ID: s.info.ID, Title: e.clean(s.info.Title), Status: doctor.StatusSkipped, Reason: e.clean(g.skip), NeedFailed: g.failed}
			continue
		}
		bySource[s.source] = append(bySource[s.source], s)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for source, group := range bySource {
		wg.Go(func() {
			for _, r := range e.runSource(ctx, source.source, group) {
				mu.Lock()
				i := slices.IndexFunc(checks, func(s selected) bool { return s.info.ID == r.ID })
				results[i] = r
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	e.explainSkips(checks, results)
	for i, s := range checks {
		r := &results[i]
		r.Asked = s.asked
		if partly := gates[i].partly; len(partly) > 0 && r.Status != doctor.StatusUnknown {
			r.Status, r.Reason = doctor.StatusUnknown, e.clean("not wholly examined: "+partly[0])
		}
		r.Findings = slices.DeleteFunc(r.Findings, func(f doctor.Finding) bool { return !s.wants(f.Code) })
		for j, f := range r.Findings {
			r.Findings[j].Ignored = e.Ignored(f)
		}
		if r.Status != doctor.StatusSkipped && r.Status != doctor.StatusUnknown {
			r.Status = doctor.Worst(r.Findings)
		}
	}
	return results
}

// runSource runs a source's checks together. After a crash each one that was lost is tried once more, alone, so that only
// the one that crashes is unknown.
func (e *Engine) runSource(ctx context.Context, source doctor.Source, checks []selected) []doctor.CheckResult {
	c := e.newCollector(checks)
	errs := map[string]error{}
	err := e.ask(ctx, source, checks, c)
	if left := c.unfinished(checks); err != nil && len(left) > 0 {
		for _, s := range left {
			errs[s.info.ID] = err
		}
		if crashed(err) {
			for _, s := range left {
				c.forget(s.info.ID)
				errs[s.info.ID] = e.ask(ctx, source, []selected{s}, c)
			}
		}
	}
	results := make([]doctor.CheckResult, 0, len(checks))
	for _, s := range checks {
		results = append(results, c.result(s.info.ID, errs[s.info.ID]))
	}
	return results
}

// crashed reports whether a source's process has ended and can be started again.
func crashed(err error) bool {
	var lost interface{ Restartable() bool }
	return errors.As(err, &lost) && lost.Restartable()
}

func (e *Engine) ask(ctx context.Context, source doctor.Source, checks []selected, c *collector) error {
	ctx, cancel := e.limit(ctx)
	defer cancel()
	req := doctor.CheckRequest{Deadline: e.Timeout}
	for _, s := range checks {
		req.Checks = append(req.Checks, s.info.ID)
	}
	target := *e.Target
	target.Earlier = target.Earlier.Of(req.Checks...) // what others measured is not theirs
	req.Target = &target
	err := source.Check(ctx, req, c)
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		e.Log.Debug("source stopped", "source", source.Name(), "error", e.Redactor.String(err.Error()))
	}
	return err
}

// reportsConnections is the check that explains why a database could not be used.
const reportsConnections = "connection"

// explainSkips turns a skip whose failed need no finding explains into unknown: a report in which the connection check
// says ok and the others were skipped for want of a connection would read as healthy.
func (e *Engine) explainSkips(checks []selected, results []doctor.CheckResult) {
	i := slices.IndexFunc(checks, func(s selected) bool { return s.info.ID == reportsConnections })
	if i < 0 {
		return
	}
	explained := results[i].Status == doctor.StatusUnknown || doctor.Worst(results[i].Findings) >= doctor.StatusWarning
	for j := range results {
		r := &results[j]
		if !r.NeedFailed || r.Status != doctor.StatusSkipped {
			continue
		}
		if explained {
			r.Reason += fmt.Sprintf(": see %s", reportsConnections)
			continue
		}
		r.Status = doctor.StatusUnknown
		if cause := e.firstFailure(); cause != nil {
			r.Reason = e.clean(fmt.Sprintf("%s: %v", r.Reason, cause))
		}
	}
}

func (e *Engine) firstFailure() error {
	for _, x := range e.examined {
		if x.err != nil {
			return x.err
		}
	}
	return nil
}
