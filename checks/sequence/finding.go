package sequence

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sequence"
)

// judge says what is wrong with a sequence, if anything is: one finding, for the gravest reason there is. The others are
// in its evidence.
//
// A sequence that was never called (is_called false, as ALTER SEQUENCE … RESTART and Synapse's port script leave it)
// gives out last_value next. Synapse takes last_value for its position all the same, so that after a start its readers
// stand at the number that comes next. That is how every ported server looks, and no fault of theirs until they stand
// beyond it; that the one row with this number will escape them is said as information.
func judge(s *sequence.State) (doctor.Finding, bool) {
	f := doctor.Finding{Severity: doctor.Error, Object: doctor.Object{Kind: "sequence", Name: s.Name}}
	tables, positions, readers := sequence.Greatest(s.Tables), sequence.Greatest(s.Positions), sequence.Greatest(s.ReadersAt)
	switch {
	case tables > s.Last():
		f.Code = BehindTable
		f.Summary = fmt.Sprintf("The sequence %s is behind %s: it would give out numbers that are taken.", s.Name, ahead(s, s.Tables, s.Last()))
		if s.Localparts {
			f.Severity = doctor.Warning
			f.Summary = fmt.Sprintf("The sequence %s is behind the user names that are numbers: guests would be given names that are taken.", s.Name)
		}
	case convertedAhead(s):
		f.Code = BehindTable
		f.Summary = fmt.Sprintf("The sequence %s is behind %s: device list changes with the numbers between would never be sent.", s.Name, sequence.Converted.Table)
	case positions > s.Last():
		f.Code = BehindStreamPosition
		f.Summary = fmt.Sprintf("The sequence %s is behind the position recorded for the stream %q: Synapse refuses to start.", s.Name, s.Stream)
		if s.Down {
			f.Severity = doctor.Warning
			f.Summary = fmt.Sprintf("The sequence %s is behind the position recorded for the stream %q: it would give out numbers that were used before.", s.Name, s.Stream)
		}
	case readers > s.Value:
		f.Code, f.Severity = BehindStreamPosition, doctor.Warning
		f.Summary = fmt.Sprintf("The sequence %s is behind %s: what gets the numbers between would be passed over.", s.Name, ahead(s, s.ReadersAt, s.Value))
	case readers > s.Last() && s.Stream != "":
		f.Code, f.Severity = NotCalled, doctor.Info
		f.Summary = fmt.Sprintf("The number that the sequence %s gives next has already been passed by %s: what gets it would be passed over.", s.Name, ahead(s, s.ReadersAt, s.Last()))
	default:
		return f, false
	}
	f.Observed = fmt.Sprintf("the last number given out is %d", s.Last())
	f.Expected = fmt.Sprintf("at least %d", s.Needed())
	f.Evidence = evidence(s)
	f.Fixable = s.Fits() // by hand, where the role may not change the sequence
	f.Remedy = remedy(s)
	return f, true
}

// convertedAhead: Synapse counts this reader among the tables of the sequence.
func convertedAhead(s *sequence.State) bool {
	for _, m := range s.ReadersAt {
		if m.Where == sequence.Converted.String() && m.N > s.Value {
			return true
		}
	}
	return false
}

// ahead names the places that are beyond n.
func ahead(s *sequence.State, marks []sequence.Mark, n int64) string {
	var names []string
	for _, m := range marks {
		if m.N > n {
			names = append(names, m.Where)
		}
	}
	return strings.Join(names, ", ")
}

// maxWriters bounds the writers listed as evidence: rows of writers that are long gone stay until the next start.
const maxWriters = 8

func evidence(s *sequence.State) map[string]string {
	e := map[string]string{"last_value": fmt.Sprint(s.Value), "is_called": fmt.Sprint(s.Called)}
	sign := int64(1)
	if s.Down {
		sign = -1
	}
	for _, m := range s.Tables {
		e[m.Where] = fmt.Sprint(sign * m.N)
	}
	for _, m := range s.ReadersAt {
		e[m.Where] = fmt.Sprint(m.N)
	}
	for i, m := range s.Positions {
		if i < maxWriters || m.N == sequence.Greatest(s.Positions) {
			e[m.Where] = fmt.Sprint(sign * m.N)
		}
	}
	if s.Outsized > 0 {
		e["users.name of 19 digits or more"] = fmt.Sprint(s.Outsized)
	}
	return e
}

func remedy(s *sequence.State) string {
	if !s.Fits() {
		return fmt.Sprintf("The sequence can't be moved to %d: it, or a column that it numbers, holds numbers up to %d. Find out which of "+
			"the numbers given as evidence is wrong, and how it came there, before anything is changed.", s.Needed(), s.Limit())
	}
	how := "Stop Synapse and all its workers, and let the doctor move the sequence forward:\n\n    synapse-doctor fix sequence --apply\n\nor do it yourself:"
	if !s.At.IsOwner && !s.At.MaySet {
		how = "Synapse's role may not change the sequence. Stop Synapse and all its workers, and run this as its owner:"
	}
	return how + "\n\n    " + strings.ReplaceAll(s.Setval(s.LastExpression()), "\n", "\n    ") + ";"
}
