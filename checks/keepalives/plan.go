package keepalives

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// fault is a finding and what the configuration now wants for it.
type fault struct {
	finding doctor.Finding
	entry   synapse.Entry
	set     []synapse.Setting
}

// plan makes one plan for all entries whose arguments can be edited, because a shallow merge takes them all from the
// same file, and one by hand for each of the others.
func plan(_ context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
	config, err := synapse.Load(t.ConfigFiles...)
	if err != nil {
		return nil, err
	}
	var plans []doctor.Plan
	var editable []fault
	for _, entry := range config.Databases { // in their order, whatever that of the findings
		i := slices.IndexFunc(findings, func(f doctor.Finding) bool { return f.Database == entry.Label })
		if i < 0 {
			continue
		}
		s, err := settings(entry, t)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", entry.File, entry.Line, err)
		}
		v, still := judge(s, limitsOf(t))
		if !still {
			continue
		}
		f := fault{finding: findings[i], entry: entry, set: v.set}
		if why := tryEdit(entry, v.set); why != nil {
			plans = append(plans, byHand(f, why))
		} else {
			editable = append(editable, f)
		}
	}
	if len(editable) == 0 {
		return plans, nil
	}
	p, err := editPlan(editable[0].entry.File, editable)
	if err != nil {
		return nil, err
	}
	return append([]doctor.Plan{p}, plans...), nil
}

// planID is named after the database, or the first of several; each is in one plan only.
func planID(label string) string {
	if label == synapse.MainLabel {
		return "keepalives/set"
	}
	return "keepalives/set-" + label
}

// tryEdit says why the file is not edited.
func tryEdit(entry synapse.Entry, set []synapse.Setting) error {
	content, err := os.ReadFile(entry.File)
	if err != nil {
		return err
	}
	_, err = synapse.EditArgs(content, entry.Label, set)
	return err
}

func editPlan(file string, faults []fault) (doctor.Plan, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return doctor.Plan{}, err
	}
	var splices []synapse.Splice
	p := doctor.Plan{
		ID: planID(faults[0].entry.Label), Title: "Set keepalives in " + file, Risk: doctor.Safe, Expects: doctor.ExpectNone,
		Reversible: true, UndoOnFailure: true,
	}
	for _, f := range faults {
		more, err := synapse.EditArgs(content, f.entry.Label, f.set)
		if err != nil {
			return doctor.Plan{}, err
		}
		splices = append(splices, more...)
		p.Covers = append(p.Covers, f.finding.Key())
	}
	slices.SortStableFunc(splices, func(a, b synapse.Splice) int { return cmp.Compare(a.Offset, b.Offset) })
	if err := proveAll(content, splices, faults); err != nil {
		return doctor.Plan{}, fmt.Errorf("%s: %w", file, err)
	}
	step := &doctor.EditFileStep{Path: file, Before: hash(content), Format: "yaml", Splices: splices}
	p.Steps = []doctor.Step{
		{Title: "Write the keepalive settings into " + file, EditFile: step},
		restart,
	}
	return p, nil
}

// proveAll applies what was planned for each entry on its own together: nothing must be left to do.
func proveAll(content []byte, splices []synapse.Splice, faults []fault) error {
	edited, err := synapse.Apply(content, splices)
	if err != nil {
		return err
	}
	for _, f := range faults {
		if left, err := synapse.EditArgs(edited, f.entry.Label, f.set); err != nil || len(left) > 0 {
			return errors.New("the settings of several databases cannot be written at once")
		}
	}
	return nil
}

func byHand(f fault, why error) doctor.Plan {
	reason, lines := why.Error(), []string(nil)
	if e, ok := errors.AsType[*synapse.EditError](why); ok {
		reason, lines = e.Reason, e.Lines
	} else {
		for _, s := range f.set {
			lines = append(lines, fmt.Sprintf("%s: %v", s.Keyword, s.Value))
		}
	}
	text := fmt.Sprintf("The doctor does not edit %s itself: %s. Below args of the database %s (line %d), write:\n    %s",
		f.entry.File, reason, f.entry.Label, f.entry.Line, strings.Join(lines, "\n    "))
	return doctor.Plan{
		ID: planID(f.entry.Label), Covers: []doctor.FindingKey{f.finding.Key()}, Title: "Set keepalives by hand in " + f.entry.File,
		Risk: doctor.Safe, Expects: doctor.ExpectNone, Reversible: true,
		Steps: []doctor.Step{{Title: "Write the keepalive settings", Manual: &doctor.ManualStep{Text: text}}, restart},
	}
}

var restart = doctor.Step{Title: "Restart Synapse", Manual: &doctor.ManualStep{Text: "Synapse reads its configuration only when it starts. " +
	"Restart the main process and every worker; with Debian's package:\n    systemctl restart matrix-synapse"}}

func hash(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
