package sequence

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sequence"
)

// plan answers the findings of each database with one transaction that moves its sequences forward, and names what only
// their owner can move.
func plan(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
	var plans []doctor.Plan
	for _, db := range t.Meeting(doctor.NeedsSynapse) {
		wanted := map[string]doctor.Finding{}
		for _, f := range findings {
			if f.Database == db.Label && f.Code != Unknown {
				wanted[f.Object.Name] = f
			}
		}
		if len(wanted) == 0 {
			continue
		}
		e, err := look(ctx, t, db)
		if err != nil {
			return nil, err
		}
		var move, ask []*sequence.State
		for _, s := range e.Sequences {
			_, stillWrong := judge(s)
			_, asked := wanted[s.Name]
			switch {
			case !asked || !stillWrong || !s.Fits():
			case s.At.IsOwner || s.At.MaySet:
				move = append(move, s)
			default:
				ask = append(ask, s)
			}
		}
		covers := func(states []*sequence.State) (keys []doctor.FindingKey) {
			for _, s := range states {
				keys = append(keys, wanted[s.Name].Key())
			}
			return keys
		}
		if len(move) > 0 {
			p := resync(db.Label, move)
			p.Covers = covers(move)
			plans = append(plans, p)
		}
		if len(ask) > 0 {
			p := byOwner(db.Label, ask)
			p.Covers = covers(ask)
			plans = append(plans, p)
		}
	}
	return plans, nil
}

// planID is the same for the same database in every run.
func planID(what, label string) string {
	if label == "main" {
		return "sequence/" + what
	}
	return "sequence/" + what + "-" + label
}

// group names the one transaction of the plan.
const group = "resync"

func resync(label string, states []*sequence.State) doctor.Plan {
	p := doctor.Plan{
		ID: planID("resync", label), Title: fmt.Sprintf("Move %s forward to the greatest number in use", count(states)),
		Risk: doctor.Careful, Expects: doctor.ExpectSynapse, Database: label,
		Requires: []doctor.Requirement{doctor.RequireStopped}, Reversible: true, UndoOnFailure: true,
	}
	if lock := lockStep(label, states); lock != nil {
		p.Steps = append(p.Steps, *lock)
	}
	for _, s := range states {
		if s.At.IsOwner {
			p.Steps = append(p.Steps, holdStep(label, s))
		}
	}
	// What ROLLBACK does not put back comes last: when anything before it fails, it has not happened.
	for _, s := range states {
		if s.At.IsOwner {
			p.Steps = append(p.Steps, restart(label, s), setCalled(label, s))
		}
	}
	var stands []string
	for _, s := range states {
		if !s.At.IsOwner {
			p.Steps = append(p.Steps, setOnly(label, s))
		}
		stands = append(stands, standsAt(s, s.Needed(), true))
	}
	p.Steps = append(p.Steps, doctor.Step{Title: "See that every sequence is where it should be", Probe: &doctor.ProbeStep{
		Database: label,
		Holds: &doctor.Guard{Query: "SELECT " + strings.Join(stands, "\n  AND "),
			Else: "A sequence is not where the plan put it: something else has used it. Make sure that Synapse and all its workers are stopped, and run the fix again."},
	}})
	return p
}

func count(states []*sequence.State) string {
	if len(states) == 1 {
		return "the sequence " + states[0].Name
	}
	return fmt.Sprintf("%d sequences", len(states))
}

// lockStep keeps writers away from everything that the numbers are taken from. Nil where the role may lock nothing.
func lockStep(label string, states []*sequence.State) *doctor.Step {
	var tables []string
	for _, s := range states {
		for _, m := range slices.Concat(s.Tables, s.Positions, s.ReadersAt) {
			if m.Table.MayLock {
				tables = append(tables, m.Table.Ident)
			}
		}
	}
	if len(tables) == 0 {
		return nil
	}
	slices.Sort(tables)
	tables = slices.Compact(tables)
	return &doctor.Step{Title: "Keep writers away from the tables that the sequences number", SQL: &doctor.SQLStep{
		Database: label, Mode: doctor.ModeGroup, Group: group,
		Statement: "LOCK TABLE " + strings.Join(tables, ",\n  ") + "\nIN SHARE MODE NOWAIT",
	}}
}

// hold sets the sequence's limit to what it is. That takes the lock that everybody else's nextval waits for until the end
// of the transaction (ShareRowExclusive; LOCK TABLE takes no sequence), so that what a guard sees after it is still so when
// the sequence is moved. All else stays as it was, but that the next number drawn is written to the log anew (log_cnt 0).
// Only the owner can do it.
func hold(s *sequence.State) string {
	return fmt.Sprintf("ALTER SEQUENCE %s MAXVALUE %d", s.At.Ident, s.At.Max)
}

func holdStep(label string, s *sequence.State) doctor.Step {
	return doctor.Step{Title: fmt.Sprintf("Keep others from drawing from %s until the end of the transaction", s.Name), SQL: &doctor.SQLStep{
		Database: label, Mode: doctor.ModeGroup, Group: group, Statement: hold(s),
	}}
}

// A plain setval takes effect at once and survives ROLLBACK. After ALTER SEQUENCE … RESTART in the same transaction it
// does not. Hence two steps for one sequence. Each puts back what it did itself. Undone, the second comes first, and so
// it holds the sequence for both.

func restart(label string, s *sequence.State) doctor.Step {
	undo := []doctor.UndoSQL{{Statement: fmt.Sprintf("ALTER SEQUENCE %s RESTART WITH %d", s.At.Ident, s.Value), Guard: undrawn(s, s.Needed(), false)}}
	if s.Called {
		undo = append(undo, doctor.UndoSQL{Statement: fmt.Sprintf("SELECT setval(%s, %d, true)", s.At.Literal, s.Value), Guard: undrawn(s, s.Value, false)})
	}
	return doctor.Step{Title: fmt.Sprintf("Restart %s so that ROLLBACK still puts it back", s.Name), SQL: &doctor.SQLStep{
		Database: label, Mode: doctor.ModeGroup, Group: group,
		Statement: fmt.Sprintf("ALTER SEQUENCE %s RESTART WITH %d", s.At.Ident, s.Needed()),
		Guard:     unchanged(s), Undo: undo,
	}}
}

func setCalled(label string, s *sequence.State) doctor.Step {
	return doctor.Step{Title: fmt.Sprintf("Move %s from %d to %d", s.Name, s.Last(), s.Needed()), SQL: &doctor.SQLStep{
		Database: label, Mode: doctor.ModeGroup, Group: group, MaxRows: 1,
		Statement: s.Setval(fmt.Sprint(max(s.Last(), 0))),
		Undo: []doctor.UndoSQL{{Statement: hold(s)}, {Statement: fmt.Sprintf("ALTER SEQUENCE %s RESTART WITH %d", s.At.Ident, s.Needed()),
			Guard: undrawn(s, s.Needed(), true)}},
	}}
}

func setOnly(label string, s *sequence.State) doctor.Step {
	return doctor.Step{Title: fmt.Sprintf("Move %s from %d to %d, at once: it is not this role's own, so ROLLBACK would not put it back, "+
		"and nobody is kept from drawing from it: Synapse and all its workers have to stay stopped meanwhile", s.Name, s.Last(), s.Needed()),
		SQL: &doctor.SQLStep{
			Database: label, Mode: doctor.ModeGroup, Group: group, MaxRows: 1, Lasting: true,
			Statement: s.Setval(s.LastExpression()), Guard: unchanged(s),
			Undo: []doctor.UndoSQL{{Statement: fmt.Sprintf("SELECT setval(%s, %d, %t)", s.At.Literal, s.Value, s.Called), Guard: undrawn(s, s.Needed(), true)}},
		}}
}

// standsAt is the condition that the sequence is exactly there.
func standsAt(s *sequence.State, value int64, called bool) string {
	return fmt.Sprintf("(SELECT last_value = %d AND is_called = %t FROM %s)", value, called, s.At.Ident)
}

// unchanged holds while the sequence, and all that uses its numbers, are as the plan saw them.
func unchanged(s *sequence.State) *doctor.Guard {
	return &doctor.Guard{
		Query: fmt.Sprintf("SELECT %s\n  AND %s = %d", standsAt(s, s.Value, s.Called), s.GreatestExpression(fmt.Sprint(max(s.Last(), 0))), s.Needed()),
		Else:  fmt.Sprintf("The sequence %s, or what it numbers, has changed since the plan was made. Make sure that Synapse and all its workers are stopped, and run the fix again.", s.Name),
	}
}

func undrawn(s *sequence.State, value int64, called bool) *doctor.Guard {
	return &doctor.Guard{
		Query: "SELECT " + standsAt(s, value, called),
		Else:  fmt.Sprintf("Numbers were drawn from the sequence %s since: putting it back would give them out again.", s.Name),
	}
}

func byOwner(label string, states []*sequence.State) doctor.Plan {
	var text strings.Builder
	text.WriteString("Synapse's role may not change these sequences. Stop Synapse and all its workers, and run this as their owner or as an administrator of the database server:\n")
	for _, s := range states {
		text.WriteString("\n    " + strings.ReplaceAll(s.Setval(s.LastExpression()), "\n", "\n    ") + ";\n")
	}
	return doctor.Plan{
		ID: planID("by-owner", label), Title: fmt.Sprintf("Have %s moved by the owner", count(states)),
		Risk: doctor.Careful, Expects: doctor.ExpectSynapse, Database: label, Requires: []doctor.Requirement{doctor.RequireStopped},
		Irreversible: "the statements are run by hand",
		Steps:        []doctor.Step{{Title: "Run the statements as the owner of the sequences", Manual: &doctor.ManualStep{Text: text.String()}}},
	}
}
