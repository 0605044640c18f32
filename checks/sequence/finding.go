package sequence

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// judge says what is wrong with a sequence, if anything is: one finding, for the gravest reason there is. The others are
// in its evidence.
//
// A sequence that was never called (is_called false, as ALTER SEQUENCE … RESTART and Synapse's port script leave it)
// gives out last_value next. Synapse takes last_value for its position all the same, so that after a start its readers
// stand at the number that comes next. That is how every ported server looks, and no fault of theirs until they stand
// beyond it; that the one row with this number will escape them is said as information.
func judge(s *state) (doctor.Finding, bool) {
	f := doctor.Finding{Severity: doctor.Error, Object: doctor.Object{Kind: "sequence", Name: s.name}}
	tables, positions, readers := greatest(s.tables), greatest(s.positions), greatest(s.readers)
	switch {
	case tables > s.last():
		f.Code = BehindTable
		f.Summary = fmt.Sprintf("The sequence %s is behind %s: it would give out numbers that are taken.", s.name, s.ahead(s.tables, s.last()))
		if s.localparts {
			f.Severity = doctor.Warning
			f.Summary = fmt.Sprintf("The sequence %s is behind the user names that are numbers: guests would be given names that are taken.", s.name)
		}
	case s.convertedAhead():
		f.Code = BehindTable
		f.Summary = fmt.Sprintf("The sequence %s is behind %s: device list changes with the numbers between would never be sent.", s.name, converted.table)
	case positions > s.last():
		f.Code = BehindStreamPosition
		f.Summary = fmt.Sprintf("The sequence %s is behind the position recorded for the stream %q: Synapse refuses to start.", s.name, s.stream)
		if s.down {
			f.Severity = doctor.Warning
			f.Summary = fmt.Sprintf("The sequence %s is behind the position recorded for the stream %q: it would give out numbers that were used before.", s.name, s.stream)
		}
	case readers > s.value:
		f.Code, f.Severity = BehindStreamPosition, doctor.Warning
		f.Summary = fmt.Sprintf("The sequence %s is behind %s: what gets the numbers between would be passed over.", s.name, s.ahead(s.readers, s.value))
	case readers > s.last() && s.stream != "":
		f.Code, f.Severity = NotCalled, doctor.Info
		f.Summary = fmt.Sprintf("The number that the sequence %s gives next has already been passed by %s: what gets it would be passed over.", s.name, s.ahead(s.readers, s.last()))
	default:
		return f, false
	}
	f.Observed = fmt.Sprintf("the last number given out is %d", s.last())
	f.Expected = fmt.Sprintf("at least %d", s.needed())
	f.Evidence = s.evidence()
	f.Fixable = s.fits() // by hand, where the role may not change the sequence
	f.Remedy = s.remedy()
	return f, true
}

// convertedAhead: Synapse counts this reader among the tables of the sequence.
func (s *state) convertedAhead() bool {
	for _, m := range s.readers {
		if m.where == converted.String() && m.n > s.value {
			return true
		}
	}
	return false
}

// ahead names the places that are beyond n.
func (s *state) ahead(marks []mark, n int64) string {
	var names []string
	for _, m := range marks {
		if m.n > n {
			names = append(names, m.where)
		}
	}
	return strings.Join(names, ", ")
}

// fits is whether there is a number left to give out after the one that is needed.
func (s *state) fits() bool { return s.needed() < s.limit() }

// maxWriters bounds the writers listed as evidence: rows of writers that are long gone stay until the next start.
const maxWriters = 8

func (s *state) evidence() map[string]string {
	e := map[string]string{"last_value": fmt.Sprint(s.value), "is_called": fmt.Sprint(s.called)}
	sign := int64(1)
	if s.down {
		sign = -1
	}
	for _, m := range s.tables {
		e[m.where] = fmt.Sprint(sign * m.n)
	}
	for _, m := range s.readers {
		e[m.where] = fmt.Sprint(m.n)
	}
	for i, m := range s.positions {
		if i < maxWriters || m.n == greatest(s.positions) {
			e[m.where] = fmt.Sprint(sign * m.n)
		}
	}
	if s.outsized > 0 {
		e["users.name of 19 digits or more"] = fmt.Sprint(s.outsized)
	}
	return e
}

func (s *state) remedy() string {
	if !s.fits() {
		return fmt.Sprintf("The sequence can't be moved to %d: it, or a column that it numbers, holds numbers up to %d. Find out which of "+
			"the numbers given as evidence is wrong, and how it came there, before anything is changed.", s.needed(), s.limit())
	}
	how := "Stop Synapse and all its workers, and let the doctor move the sequence forward:\n\n    synapse-doctor fix sequence --apply\n\nor do it yourself:"
	if !s.at.IsOwner && !s.at.MaySet {
		how = "Synapse's role may not change the sequence. Stop Synapse and all its workers, and run this as its owner:"
	}
	return how + "\n\n    " + strings.ReplaceAll(s.setval(s.lastExpression()), "\n", "\n    ") + ";"
}

// setval is the statement that moves the sequence to the greatest number in use. last is what it had given out before.
func (s *state) setval(last string) string {
	return fmt.Sprintf("SELECT setval(%s, %s, true)", s.at.Literal, s.greatestExpression(last))
}

// greatestExpression is what needed computes, for the server to compute.
func (s *state) greatestExpression(last string) string {
	terms := []string{"1", last}
	for _, marks := range [][]mark{s.tables, s.positions, s.readers} {
		for i, m := range marks {
			if i == 0 || m.from != marks[i-1].from {
				terms = append(terms, m.from)
			}
		}
	}
	return "GREATEST(" + strings.Join(terms, ",\n  ") + ")"
}

func (s *state) lastExpression() string {
	return fmt.Sprintf("(SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END FROM %s)", s.at.Ident)
}
