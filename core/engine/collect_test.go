package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
)

// liar is a source that says whatever its script says.
type liar struct {
	doctor.Local
	run func(ctx context.Context, req doctor.CheckRequest, ev doctor.Events) error
}

func (l *liar) Check(ctx context.Context, req doctor.CheckRequest, ev doctor.Events) error {
	return l.run(ctx, req, ev)
}

func codes(id string) []doctor.Code {
	return []doctor.Code{{ID: id + "/fault", Title: "a fault", Severity: doctor.Warning}}
}

func examine(t *testing.T, sources ...doctor.Source) *doctor.Report {
	t.Helper()
	e := engine.New(engine.Options{Target: &doctor.Target{}, Sources: sources, Timeout: time.Minute,
		Redactor: doctor.NewRedactor([]string{"tops3cret"}, nil)})
	r, err := e.Check(t.Context(), engine.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func result(t *testing.T, r *doctor.Report, id string) doctor.CheckResult {
	t.Helper()
	for _, c := range r.Checks {
		if c.ID == id {
			return c
		}
	}
	t.Fatalf("no result for %s in %+v", id, r.Checks)
	return doctor.CheckResult{}
}

func TestAPluginThatLiesCostsOnlyItsOwnChecks(t *testing.T) {
	fault := func(code string) doctor.Finding {
		return doctor.Finding{Code: code, Severity: doctor.Warning, Summary: "x"}
	}
	ok := doctor.Outcome{Status: doctor.StatusOK}
	for name, lie := range map[string]struct {
		run  func(ctx context.Context, req doctor.CheckRequest, ev doctor.Events) error
		want string
	}{
		"a finding of another's check": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			ev.Found("acme", fault("good/fault"))
			return ev.Done("acme", ok)
		}, "a finding of another check"},
		"a finding for another's check": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			return ev.Found("good", fault("good/fault"))
		}, "was not asked to run"},
		"an undeclared code": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			ev.Found("acme", fault("acme/other"))
			return ev.Done("acme", ok)
		}, "not among the codes"},
		"the same finding twice": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			ev.Found("acme", fault("acme/fault"))
			ev.Found("acme", fault("acme/fault"))
			return ev.Done("acme", ok)
		}, "twice"},
		"endless findings": {func(ctx context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			for i := 0; ; i++ {
				f := fault("acme/fault")
				f.Object.Name = fmt.Sprint(i)
				if err := ev.Found("acme", f); err != nil {
					return err
				}
			}
		}, "more than 1000 findings"},
		"the same finding for ever": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			for {
				if err := ev.Found("acme", fault("acme/fault")); err != nil {
					return err
				}
			}
		}, "twice"},
		"a measure that is no number": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			ev.Measured("acme", doctor.Measure{Name: "size", Value: math.NaN()})
			return ev.Done("acme", ok)
		}, "which is not a number"},
		"the same measure twice": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			ev.Measured("acme", doctor.Measure{Name: "size", Value: 1})
			ev.Measured("acme", doctor.Measure{Name: "size", Value: 2})
			return ev.Done("acme", ok)
		}, "measured size twice"},
		"endless measures": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			for i := 0; ; i++ {
				if err := ev.Measured("acme", doctor.Measure{Name: fmt.Sprint(i)}); err != nil {
					return err
				}
			}
		}, "more than 1000 measures"},
		"a measure of another's check": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			return ev.Measured("good", doctor.Measure{Name: "size"})
		}, "was not asked to run"},
		"a measure of a database that is not there": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			ev.Measured("acme", doctor.Measure{Name: "size", Database: "elsewhere"})
			return ev.Done("acme", ok)
		}, "not configured"},
		"an invalid severity": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			ev.Found("acme", doctor.Finding{Code: "acme/fault", Severity: 9})
			return ev.Done("acme", ok)
		}, "invalid severity"},
		"a database that is not there": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			f := fault("acme/fault")
			f.Database = "elsewhere"
			ev.Found("acme", f)
			return ev.Done("acme", ok)
		}, "not configured"},
		"no end": {func(context.Context, doctor.CheckRequest, doctor.Events) error { return nil }, "did not say how the check ended"},
		"two ends": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			return errors.Join(ev.Done("other", ok), ev.Done("other", ok))
		}, "ended the check"},
		"unknown without a reason": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			return ev.Done("acme", doctor.Outcome{Status: doctor.StatusUnknown})
		}, "gave no reason"},
		"skipped after findings": {func(_ context.Context, _ doctor.CheckRequest, ev doctor.Events) error {
			ev.Found("acme", fault("acme/fault"))
			return ev.Done("acme", doctor.Outcome{Status: doctor.StatusSkipped, Reason: "nothing to see"})
		}, "skipped the check after reporting findings"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := &liar{doctor.Local{PluginName: "acme", Checks: []doctor.Check{{ID: "acme", Codes: codes("acme")}}}, lie.run}
			good := &doctor.Local{PluginName: "good", Checks: []doctor.Check{{ID: "good", Codes: codes("good"),
				Run: func(_ context.Context, _ *doctor.Target, r doctor.Reporter) error {
					r.Find(fault("good/fault"))
					return nil
				}}}}
			r := examine(t, bad, good)
			if c := result(t, r, "acme"); c.Status != doctor.StatusUnknown || !strings.Contains(c.Reason, lie.want) {
				t.Errorf("the liar's check: %s: %s; want unknown with %q", c.Status, c.Reason, lie.want)
			}
			if c := result(t, r, "good"); c.Status != doctor.StatusWarning || len(c.Findings) != 1 {
				t.Errorf("the good check: %s: %s", c.Status, c.Reason)
			}
		})
	}
}

func TestTwoPluginsCantClaimTheSameCheck(t *testing.T) {
	first := &doctor.Local{PluginName: "builtin", Checks: []doctor.Check{{ID: "a", Codes: codes("a"), Run: func(context.Context, *doctor.Target, doctor.Reporter) error { return nil }}}}
	second := &doctor.Local{PluginName: "acme", Checks: first.Checks}
	r := examine(t, first, second)
	if r.Plugins[0].Status != doctor.StatusOK || r.Plugins[1].Status != doctor.StatusUnknown || !strings.Contains(r.Plugins[1].Reason, "builtin provides already") {
		t.Errorf("%+v", r.Plugins)
	}
	if len(r.Checks) != 1 || r.Checks[0].Status != doctor.StatusOK {
		t.Errorf("%+v", r.Checks)
	}
}

func TestWhatAPluginSaysCanHurtNeitherTerminalNorSecret(t *testing.T) {
	c := doctor.Check{ID: "acme", Title: "t\x1b[2J", Codes: codes("acme"), Run: func(_ context.Context, _ *doctor.Target, r doctor.Reporter) error {
		r.Find(doctor.Finding{Code: "acme/fault", Severity: doctor.Error, Summary: "boo\x1b]0;owned\a tops3cret",
			Object: doctor.Object{Name: "x\ny"}, Remedy: "run\n    rm \x1b[1A", Evidence: map[string]string{"k\x00": strings.Repeat("é", 5000)}})
		return errors.New("dial with password=tops3cret\x1b")
	}}
	got := fmt.Sprintf("%#v", examine(t, &doctor.Local{PluginName: "acme", Checks: []doctor.Check{c}}).Checks)
	for _, bad := range []string{"tops3cret", `\x1b[2J"`, "\x1b", `\x00"`} {
		if strings.Contains(got, "\x1b") || strings.Contains(got, "tops3cret") {
			t.Errorf("%q is in %s", bad, got)
		}
	}
	if strings.Count(got, "é") > 1000 {
		t.Errorf("evidence of %d characters was kept", strings.Count(got, "é"))
	}
}

// crashing is a source that dies when it runs a certain check, and can be started again.
type crashing struct {
	doctor.Local
	calls [][]string
}

type crash struct{}

func (crash) Error() string     { return "the plugin crashed" }
func (crash) Restartable() bool { return true }

func (c *crashing) Check(ctx context.Context, req doctor.CheckRequest, ev doctor.Events) error {
	c.calls = append(c.calls, req.Checks)
	for _, id := range req.Checks {
		if id == "bad" {
			return crash{}
		}
		if err := c.Local.Check(ctx, doctor.CheckRequest{Target: req.Target, Checks: []string{id}}, ev); err != nil {
			return err
		}
	}
	return nil
}

func TestAfterACrashOnlyTheCheckThatCrashesIsUnknown(t *testing.T) {
	fine := func(id string) doctor.Check {
		return doctor.Check{ID: id, Codes: codes(id), Run: func(_ context.Context, _ *doctor.Target, r doctor.Reporter) error {
			r.Find(doctor.Finding{Code: id + "/fault", Severity: doctor.Info})
			return nil
		}}
	}
	s := &crashing{Local: doctor.Local{PluginName: "acme", Checks: []doctor.Check{fine("first"), fine("bad"), fine("last")}}}
	r := examine(t, s)
	for id, want := range map[string]doctor.Status{"first": doctor.StatusInfo, "bad": doctor.StatusUnknown, "last": doctor.StatusInfo} {
		if c := result(t, r, id); c.Status != want || want == doctor.StatusInfo && len(c.Findings) != 1 {
			t.Errorf("%s: %s (%s) with %d findings, want %s", id, c.Status, c.Reason, len(c.Findings), want)
		}
	}
	if len(s.calls) != 3 {
		t.Errorf("asked %v", s.calls)
	}
}

func TestAPanickingOrHangingCheckIsUnknownAndHoldsUpNoOther(t *testing.T) {
	run := func(f func(ctx context.Context) error) func(context.Context, *doctor.Target, doctor.Reporter) error {
		return func(ctx context.Context, _ *doctor.Target, _ doctor.Reporter) error { return f(ctx) }
	}
	release := make(chan struct{})
	defer close(release)
	local := &doctor.Local{PluginName: "builtin", Checks: []doctor.Check{
		{ID: "panics", Codes: codes("panics"), Run: run(func(context.Context) error { panic("oh no") })},
		{ID: "hangs", Codes: codes("hangs"), Run: run(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })},
		{ID: "deaf", Codes: codes("deaf"), Run: run(func(context.Context) error { <-release; return nil })},
		{ID: "fine", Codes: codes("fine"), Run: run(func(context.Context) error { return nil })},
		{ID: "skips", Codes: codes("skips"), Run: run(func(context.Context) error { return fmt.Errorf("look: %w", doctor.Skip("no such thing")) })},
	}}
	e := engine.New(engine.Options{Target: &doctor.Target{}, Sources: []doctor.Source{local}, Timeout: 50 * time.Millisecond})
	r, err := e.Check(t.Context(), engine.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"panics": "unknown crashed: oh no", "hangs": "unknown not finished within 50ms", "deaf": "unknown not finished within 50ms",
		"fine": "ok ", "skips": "skipped no such thing"} {
		status, words, _ := strings.Cut(want, " ")
		if c := result(t, r, id); c.Status.String() != status || !strings.Contains(c.Reason, words) {
			t.Errorf("%s: %s: %s, want %s", id, c.Status, c.Reason, want)
		}
	}
}

func TestSelection(t *testing.T) {
	check := func(id string) doctor.Check {
		return doctor.Check{ID: id, Codes: append(codes(id), doctor.Code{ID: id + "/other", Severity: doctor.Error}),
			Run: func(_ context.Context, _ *doctor.Target, r doctor.Reporter) error {
				r.Find(doctor.Finding{Code: id + "/fault", Severity: doctor.Warning})
				r.Find(doctor.Finding{Code: id + "/other", Severity: doctor.Error})
				return nil
			}}
	}
	for _, c := range []struct {
		sel  engine.Selection
		want string
	}{
		{engine.Selection{}, "a=error(2) b=error(2)"},
		{engine.Selection{Wanted: []string{"b"}}, "b=error(2)"},
		{engine.Selection{Wanted: []string{"b/fault"}}, "b=warning(1)"},
		{engine.Selection{Wanted: []string{"b/fault", "b"}}, "b=error(2)"},
		{engine.Selection{Skip: []string{"b"}}, "a=error(2)"},
		{engine.Selection{Wanted: []string{"c"}}, `there is no check or code "c"`},
		{engine.Selection{Wanted: []string{"a/nothing"}}, `there is no check or code "a/nothing"`},
		{engine.Selection{Skip: []string{"c"}}, `there is no check or code "c"`},
	} {
		e := engine.New(engine.Options{Target: &doctor.Target{}, Sources: []doctor.Source{&doctor.Local{PluginName: "p", Checks: []doctor.Check{check("a"), check("b")}}}})
		r, err := e.Check(t.Context(), c.sel)
		var got []string
		if err != nil {
			got = append(got, err.Error())
		} else {
			for _, x := range r.Checks {
				got = append(got, fmt.Sprintf("%s=%s(%d)", x.ID, x.Status, len(x.Findings)))
			}
		}
		if s := strings.Join(got, " "); !strings.HasPrefix(s, c.want) {
			t.Errorf("%+v: %s, want %s", c.sel, s, c.want)
		}
	}
}
