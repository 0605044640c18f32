package engine

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Bounds on what one check may report. A plugin that goes beyond the first is stopped; longer texts are cut.
const (
	maxFindings = 1000
	maxLine     = 2_000  // bytes of a one-line text
	maxText     = 20_000 // bytes of a remedy
	maxMeasures = 1000
)

// collector receives what a source says while it runs checks, and believes none of it unseen.
type collector struct {
	engine *Engine
	checks map[string]*collected

	mu sync.Mutex
}

type collected struct {
	selected
	findings []doctor.Finding
	seen     map[doctor.FindingKey]bool
	measures []doctor.Measure
	measured map[doctor.MeasureKey]bool
	outcome  *doctor.Outcome // nil until done
	fault    string          // what the plugin did that it must not
	ignored  int             // what it has said since
}

func (e *Engine) newCollector(checks []selected) *collector {
	c := &collector{engine: e, checks: map[string]*collected{}}
	for _, s := range checks {
		c.checks[s.info.ID] = &collected{selected: s, seen: map[doctor.FindingKey]bool{}, measured: map[doctor.MeasureKey]bool{}}
	}
	return c
}

func (c *collector) Found(check string, f doctor.Finding) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	got, ok := c.checks[check]
	if !ok {
		return fmt.Errorf("it reported a finding for the check %q, which it was not asked to run", doctor.Clean(check))
	}
	if got.outcome != nil {
		return fmt.Errorf("it reported a finding for the check %q after it had said that the check was done", check)
	}
	if got.fault != "" {
		return got.ignore()
	}
	if err := c.accept(got, &f); err != nil {
		got.fault = err.Error()
		return nil
	}
	if len(got.findings) >= maxFindings {
		got.fault = fmt.Sprintf("it reported more than %d findings; the first %d are shown", maxFindings, maxFindings)
		return fmt.Errorf("its check %q reported more than %d findings", check, maxFindings)
	}
	if key := f.Key(); got.seen[key] {
		got.fault = fmt.Sprintf("it reported %s twice for the same object %q", f.Code, f.Object.Name)
		return nil
	} else {
		got.seen[key] = true
	}
	got.findings = append(got.findings, f)
	return nil
}

// accept cleans and bounds a finding, and refuses what is not one.
func (c *collector) accept(got *collected, f *doctor.Finding) error {
	if f.Code != "" && doctor.CheckID(f.Code) != got.info.ID {
		return fmt.Errorf("it reported %q, a finding of another check", doctor.Clean(f.Code))
	}
	if !slices.ContainsFunc(got.info.Codes, func(code doctor.Code) bool { return code.ID == f.Code }) {
		return fmt.Errorf("it reported %q, which is not among the codes it declared", doctor.Clean(f.Code))
	}
	if f.Severity < doctor.Info || f.Severity > doctor.Error {
		return fmt.Errorf("it reported %s with an invalid severity", f.Code)
	}
	if f.Database != "" && c.engine.Target.Database(f.Database) == nil {
		return fmt.Errorf("it reported %s for a database %q that is not configured", f.Code, doctor.Clean(f.Database))
	}
	line := func(s string) string { return cut(c.engine.clean(s), maxLine) }
	f.Object.Kind, f.Object.Name = line(f.Object.Kind), line(f.Object.Name)
	f.Summary, f.Observed, f.Expected = line(f.Summary), line(f.Observed), line(f.Expected)
	f.Remedy = cut(doctor.CleanText(c.engine.Redactor.String(f.Remedy)), maxText)
	evidence := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(f.Evidence)) {
		if len(evidence) == doctor.MaxEvidence {
			break
		}
		evidence[line(name)] = line(f.Evidence[name])
	}
	f.Evidence = evidence
	f.Fixable = f.Fixable && got.info.Plans
	return nil
}

// cut shortens a text to at most n bytes, at a character's end, and says so.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "… (cut)"
}

func (c *collector) Progress(check string, p doctor.Progress) {
	p.Text, p.Unit = c.engine.clean(p.Text), c.engine.clean(p.Unit)
	c.engine.Progress(check, p)
}

// ignore passes over what comes after a fault, and ends the run of a plugin that goes on and on.
func (got *collected) ignore() error {
	if got.ignored++; got.ignored > maxFindings {
		return fmt.Errorf("its check %q went on after a fault: %s", got.info.ID, got.fault)
	}
	return nil
}

func (c *collector) Measured(check string, m doctor.Measure) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	got, ok := c.checks[check]
	if !ok || got.outcome != nil {
		return fmt.Errorf("it measured something for the check %q, which it was not asked to run, or after its end", doctor.Clean(check))
	}
	if got.fault != "" {
		return got.ignore()
	}
	line := func(s string) string { return cut(c.engine.clean(s), maxLine) }
	m = doctor.Measure{Check: got.info.ID, Database: m.Database, Object: doctor.Object{Kind: line(m.Object.Kind), Name: line(m.Object.Name)},
		Name: line(m.Name), Value: m.Value, Unit: line(m.Unit)}
	switch {
	case m.Database != "" && c.engine.Target.Database(m.Database) == nil:
		got.fault = fmt.Sprintf("it measured %s of a database %q that is not configured", m.Name, doctor.Clean(m.Database))
	case math.IsNaN(m.Value) || math.IsInf(m.Value, 0):
		got.fault = fmt.Sprintf("it measured %s of %q, which is not a number", m.Name, m.Object.Name)
	case got.measured[m.Key()]:
		got.fault = fmt.Sprintf("it measured %s twice for the same object %q", m.Name, m.Object.Name)
	case len(got.measures) >= maxMeasures:
		got.fault = fmt.Sprintf("it told more than %d measures", maxMeasures)
	default:
		got.measured[m.Key()] = true
		got.measures = append(got.measures, m)
	}
	return nil
}

func (c *collector) Done(check string, o doctor.Outcome) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	got, ok := c.checks[check]
	if !ok {
		return fmt.Errorf("it ended the check %q, which it was not asked to run", doctor.Clean(check))
	}
	if got.outcome != nil {
		return fmt.Errorf("it ended the check %q twice", check)
	}
	got.outcome = &o
	return nil
}

// unfinished lists the checks that have had no Done, in the order of selection.
func (c *collector) unfinished(order []selected) []selected {
	c.mu.Lock()
	defer c.mu.Unlock()
	var left []selected
	for _, s := range order {
		if c.checks[s.info.ID].outcome == nil {
			left = append(left, s)
		}
	}
	return left
}

// forget drops what an unfinished check has reported so far, before it is run again.
func (c *collector) forget(check string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.checks[check]
	got.ignored = 0
	got.findings, got.fault, got.seen = nil, "", map[doctor.FindingKey]bool{}
	got.measures, got.measured = nil, map[doctor.MeasureKey]bool{}
}

// result is a check's part of the report; err is why the source stopped, where it has.
func (c *collector) result(check string, err error) doctor.CheckResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.checks[check]
	r := doctor.CheckResult{ID: got.info.ID, Title: c.engine.clean(got.info.Title), Findings: got.findings, Measures: got.measures}
	switch {
	case got.outcome == nil && err != nil:
		r.Status, r.Reason = doctor.StatusUnknown, c.engine.reason(err)
	case got.outcome == nil:
		r.Status, r.Reason = doctor.StatusUnknown, "the plugin did not say how the check ended"
	default:
		r.Duration, r.Coverage = got.outcome.Duration, cut(c.engine.clean(got.outcome.Coverage), maxLine)
		r.Status, r.Reason = got.outcome.Status, c.engine.clean(got.outcome.Reason)
		r.NeedFailed = r.Status == doctor.StatusSkipped && got.outcome.NeedFailed
		if (r.Status == doctor.StatusSkipped || r.Status == doctor.StatusUnknown) && strings.TrimSpace(r.Reason) == "" {
			r.Status, r.Reason = doctor.StatusUnknown, "the plugin gave no reason"
		}
		if r.Status == doctor.StatusSkipped && len(got.findings) > 0 {
			r.Status, r.Reason = doctor.StatusUnknown, "the plugin skipped the check after reporting findings: "+r.Reason
		}
		if r.Status != doctor.StatusSkipped && r.Status != doctor.StatusUnknown {
			r.Status, r.Reason = doctor.Worst(got.findings), ""
		}
	}
	if got.fault != "" {
		r.Status, r.Reason = doctor.StatusUnknown, "the plugin broke the protocol: "+got.fault
	}
	r.Reason = cut(r.Reason, maxLine)
	slices.SortStableFunc(r.Findings, byWeight)
	return r
}

// byWeight orders findings worst first, then by what they are about, so that the same faults always read the same.
func byWeight(a, b doctor.Finding) int {
	return cmp.Or(
		cmp.Compare(b.Severity, a.Severity),
		cmp.Compare(a.Code, b.Code),
		cmp.Compare(a.Database, b.Database),
		cmp.Compare(a.Object.Kind, b.Object.Kind),
		cmp.Compare(a.Object.Name, b.Object.Name),
	)
}
