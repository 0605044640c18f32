package host_test

import (
	"errors"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

func TestDescriptionThatLies(t *testing.T) {
	for mode, part := range map[string]string{
		"lie-duplicate-ids":    `check "honest" is there twice`,
		"lie-foreign-code":     `its code "sequence/behind-table" is another check's`,
		"lie-describe-escapes": "control characters",
		"lie-describe-enum":    "need 99 is not known to this version",
		"lie-describe-much":    `check "honest" declares that it changes 100000 tables`,
		"lie-describe-utf8":    "UTF-8",
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			_, err := start(t, mode).Describe(within(t))
			says(t, err, "plugin "+mode, part)
		})
	}
}

// Who asks may have no deadline.
func TestDescriptionThatNeverComes(t *testing.T) {
	_, err := impatient(t, "lie-describe-hangs").Describe(t.Context())
	says(t, err, "plugin lie-describe-hangs did not say within 0.3 seconds what it is")
}

func TestAnswersThatLie(t *testing.T) {
	for mode, part := range map[string]string{
		"lie-foreign-finding": `it answered for check "sequence", which it was not asked for`,
		"lie-escapes":         `\x1b[2Jeverything\x1b[31m is fine\x07`,
		"lie-severity":        "severity 17 is not known to this version",
		"lie-empty-event":     "an event that is empty",
		"lie-status":          "status 42 is not known to this version",
		"lie-no-reason":       "status unknown has no reason",
		"lie-no-done":         `it never said that check "honest" is done`,
		"lie-done-twice":      "after it had said that it is done",
		"lie-after-done":      "after it had said that it is done",
		"lie-huge":            "larger than max",
		"lie-utf8":            "UTF-8",
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p := start(t, mode)
			_, err := run(within(t), p, "honest")
			says(t, err, part)
			if restartable(err) {
				t.Error("a lie is not a crash")
			}
			if _, err := p.Describe(within(t)); err != nil {
				t.Error("afterwards:", err)
			}
		})
	}
}

func TestEndlessFindingsEndWhenNoMoreAreWanted(t *testing.T) {
	enough := errors.New("enough")
	h := &heard{refuse: func(n int) error {
		if n == 1000 {
			return enough
		}
		return nil
	}}
	if err := start(t, "lie-endless").Check(within(t), request("honest"), h); !errors.Is(err, enough) {
		t.Error(err)
	}
	if n := len(h.found["honest"]); n != 1000 {
		t.Errorf("%d findings", n)
	}
}

func TestPlansThatLie(t *testing.T) {
	for mode, part := range map[string]string{
		"lie-foreign-plan":  `it was asked for plans of check "honest" and sent "sequence/do"`,
		"lie-risk":          "risk 9 is not known to this version",
		"lie-no-plan":       "a plan is missing",
		"lie-endless-plans": "more than 1000 plans",
		"lie-step":          `step "x": nothing to do`,
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			_, err := start(t, mode).Plan(within(t), doctor.PlanRequest{Target: &doctor.Target{}, Check: "honest"})
			says(t, err, "does not keep to the protocol", part)
		})
	}
}
