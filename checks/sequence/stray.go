package sequence

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Other programs may keep thousands of sequences beside Synapse's. Those that are behind are told one by one, up to a
// bound; the others together, once they are many.
const (
	maxStraysBehind = 50
	maxStraysTold   = 20
)

func judgeStrays(strays []*state) []doctor.Finding {
	var found []doctor.Finding
	var others []*state
	for _, s := range strays {
		if s.strayBehind() && len(found) < maxStraysBehind {
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

func (s *state) strayBehind() bool { return s.read && greatest(s.tables) > max(s.last(), 0) }

// judgeTogether reports many sequences that Synapse does not make as one finding.
func judgeTogether(strays []*state) doctor.Finding {
	var names []string
	behind, unread := 0, 0
	for _, s := range strays {
		if len(names) < maxStraysTold {
			names = append(names, s.name)
		}
		switch {
		case s.strayBehind():
			behind++
		case !s.read:
			unread++
		}
	}
	f := doctor.Finding{
		Code: Unknown, Severity: doctor.Info, Object: doctor.Object{Kind: "schema", Name: strays[0].at.Schema},
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
func judgeStray(s *state) doctor.Finding {
	f := doctor.Finding{
		Code: Unknown, Severity: doctor.Info, Object: doctor.Object{Kind: "sequence", Name: s.name},
		Summary:  fmt.Sprintf("The sequence %s is none of Synapse's that this version knows, so nothing else was compared with it.", s.name),
		Observed: "no table is known that it numbers",
		Expected: "a sequence of Synapse, or nothing",
		Remedy:   "Nothing needs to be done when it belongs to a module or to another program. If Synapse is newer than this program, get a newer one.",
		Evidence: map[string]string{},
	}
	if !s.read {
		return f
	}
	f.Evidence["last_value"], f.Evidence["is_called"] = fmt.Sprint(s.value), fmt.Sprint(s.called)
	if s.at.OwnerTable == "" {
		return f
	}
	f.Observed = fmt.Sprintf("it numbers %s.%s", s.at.OwnerTable, s.at.OwnerColumn)
	for _, m := range s.tables {
		f.Evidence[m.where] = fmt.Sprint(m.n)
		if m.n > s.last() {
			f.Summary = fmt.Sprintf("The sequence %s, which is not Synapse's, is behind %s: its next numbers are taken.", s.name, m.where)
			f.Observed, f.Expected = fmt.Sprintf("the last number given out is %d", s.last()), fmt.Sprintf("at least %d", m.n)
			f.Remedy = "If the table is still in use, run as its owner, with whatever uses it stopped:\n\n    " +
				strings.ReplaceAll(s.setval(s.lastExpression()), "\n", "\n    ") + ";"
		}
	}
	return f
}
