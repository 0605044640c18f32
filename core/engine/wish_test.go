package engine_test

import (
	"context"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
)

// Advice is followed by who asks for it, not by a fix of everything.
func TestAPlanThatWantsToBeAskedForIsNotChosenWithEverything(t *testing.T) {
	check := func(id string, whenAsked bool) doctor.Check {
		return doctor.Check{ID: id, Title: "T", Why: "W", Codes: []doctor.Code{{ID: id + "/fault", Severity: doctor.Info}},
			Run: func(_ context.Context, _ *doctor.Target, r doctor.Reporter) error {
				r.Find(doctor.Finding{Code: id + "/fault", Severity: doctor.Info, Fixable: true})
				return nil
			},
			Plan: func(_ context.Context, _ *doctor.Target, fs []doctor.Finding) ([]doctor.Plan, error) {
				return []doctor.Plan{{ID: id + "/mend", Covers: []doctor.FindingKey{fs[0].Key()}, Title: "T", Risk: doctor.Safe, Expects: doctor.ExpectNone,
					WhenAsked: whenAsked, Steps: []doctor.Step{{Title: "S", Manual: &doctor.ManualStep{Text: "do it"}}}}}, nil
			}}
	}
	source := &doctor.Local{PluginName: "p", Checks: []doctor.Check{check("fault", false), check("advice", true)}}
	for _, c := range []struct {
		name string
		o    engine.FixOptions
		want map[string]bool
	}{
		{"everything", engine.FixOptions{}, map[string]bool{"fault/mend": true, "advice/mend": false}},
		{"the check", engine.FixOptions{Selection: engine.Selection{Wanted: []string{"advice"}}}, map[string]bool{"advice/mend": true}},
		{"the code", engine.FixOptions{Selection: engine.Selection{Wanted: []string{"advice/fault"}}}, map[string]bool{"advice/mend": true}},
		{"the plan", engine.FixOptions{Preferred: []string{"advice/mend"}}, map[string]bool{"fault/mend": true, "advice/mend": true}},
	} {
		r, err := engine.New(engine.Options{Target: &doctor.Target{}, Sources: []doctor.Source{source}}).Fix(t.Context(), c.o)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Plans) != len(c.want) {
			t.Errorf("%s: %d plans", c.name, len(r.Plans))
		}
		for _, p := range r.Plans {
			if p.Chosen != c.want[p.Plan.ID] {
				t.Errorf("%s: %s chosen %t", c.name, p.Plan.ID, p.Chosen)
			}
		}
	}
}
