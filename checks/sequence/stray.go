package sequence

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sequence"
)

// Other programs may keep thousands of sequences beside Synapse's. Those that are behind are told one by one, up to a
// bound; the others together, once they are many.
const (
	maxStraysBehind = 50
	maxStraysTold   = 20
)

func judgeStrays(strays []*sequence.State) []doctor.Finding {
	var found []doctor.Finding
	var others []*sequence.State
	for _, s := range strays {
		if strayBehind(s) && len(found) < maxStraysBehind {
			found = append(found, judgeStray(s))
		} else {
			others = append(others, s)
		}
	}
	if len(others) > maxStraysTold {
		return append(found, judgeTogether(others))
	}
	for _, s := range others {
		found = append(found, judgeStray(s))
	}
	return found
}

func strayBehind(s *sequence.State) bool {
	return s.Read && sequence.Greatest(s.Tables) > max(s.Last(), 0)
}

// judgeTogether reports many sequences that Synapse does not make as one finding.
func judgeTogether(strays []*sequence.State) doctor.Finding {
	var names []string
	behind, unread := 0, 0
	for _, s := range strays {
		if len(names) < maxStraysTold {
			names = append(names, s.Name)
		}
		switch {
		case strayBehind(s):
			behind++
		case !s.Read:
			unread++
		}
	}
	f := doctor.Finding{
		Code: Unknown, Severity: doctor.Info, Object: doctor.Object{Kind: "schema", Name: strays[0].At.Schema},
		Summary:  fmt.Sprintf("%d sequences are none of Synapse's that this version knows: another program keeps its tables here.", len(strays)),
		Observed: fmt.Sprintf("%d sequences beside Synapse's", len(strays)),
		Expected: "sequences of Synapse, or none",
		Remedy: "Nothing needs to be done for Synapse's sake, as long as no name is one that a release of Synapse wants. A database of its own " +
			"for the other program is safer. If Synapse is newer than this program, get a newer one.",
		Evidence: map[string]string{"sequences": fmt.Sprint(len(strays)), "the first": strings.Join(names, ", ")},
	}
	if behind > 0 {
		f.Evidence["behind their columns too"] = fmt.Sprint(behind)
	}
	if unread > 0 {
		f.Evidence["not compared with their columns"] = fmt.Sprint(unread)
	}
	return f
}

// judgeStray reports a sequence that Synapse does not make: a module's, or one of a Synapse newer than this program.
func judgeStray(s *sequence.State) doctor.Finding {
	f := doctor.Finding{
		Code: Unknown, Severity: doctor.Info, Object: doctor.Object{Kind: "sequence", Name: s.Name},
		Summary:  fmt.Sprintf("The sequence %s is none of Synapse's that this version knows, so nothing else was compared with it.", s.Name),
		Observed: "no table is known that it numbers",
		Expected: "a sequence of Synapse, or nothing",
		Remedy:   "Nothing needs to be done when it belongs to a module or to another program. If Synapse is newer than this program, get a newer one.",
		Evidence: map[string]string{},
	}
	if !s.Read {
		return f
	}
	f.Evidence["last_value"], f.Evidence["is_called"] = fmt.Sprint(s.Value), fmt.Sprint(s.Called)
	if s.At.OwnerTable == "" {
		return f
	}
	f.Observed = fmt.Sprintf("it numbers %s.%s", s.At.OwnerTable, s.At.OwnerColumn)
	for _, m := range s.Tables {
		f.Evidence[m.Where] = fmt.Sprint(m.N)
		if m.N > s.Last() {
			f.Summary = fmt.Sprintf("The sequence %s, which is not Synapse's, is behind %s: its next numbers are taken.", s.Name, m.Where)
			f.Observed, f.Expected = fmt.Sprintf("the last number given out is %d", s.Last()), fmt.Sprintf("at least %d", m.N)
			f.Remedy = "If the table is still in use, run as its owner, with whatever uses it stopped:\n\n    " +
				strings.ReplaceAll(s.Setval(s.LastExpression()), "\n", "\n    ") + ";"
		}
	}
	return f
}
