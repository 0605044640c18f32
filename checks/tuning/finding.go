package tuning

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

func (a advice) object() doctor.Object {
	kind := a.kind
	if kind == "" {
		kind = "setting"
	}
	return doctor.Object{Kind: kind, Name: a.name}
}

// finding says an advice to the administrator.
func (s *server) finding(a advice) doctor.Finding {
	f := doctor.Finding{Code: a.code, Severity: a.severity, Database: s.db.Label, Object: a.object(), Summary: a.summary,
		Observed: a.observed, Expected: a.expected, Fixable: a.set != "", Evidence: map[string]string{}}
	if a.set != "" && a.set != a.expected {
		f.Expected += "; the plan sets " + a.set
	}
	for i, line := range a.sums {
		if line != "" {
			f.Evidence[fmt.Sprintf("sum %02d", i+1)] = line
		}
	}
	x, isSetting := s.settings[a.name]
	if isSetting {
		f.Evidence["value"] = x.Text
		f.Evidence["source"] = s.where(a.name)
		if x.next != nil {
			f.Evidence["value after a restart"] = x.next.Value
		}
		if f.Observed == "" {
			f.Observed = fmt.Sprintf("%s, from %s", x.text(), s.where(a.name))
			if x.next != nil {
				f.Observed += ", after the next restart"
			}
		}
	}
	f.Remedy = s.remedy(a, x)
	return f
}

// remedy is what to do by hand, with the arithmetic before it.
func (s *server) remedy(a advice, x setting) string {
	var b strings.Builder
	if len(a.sums) > 0 {
		b.WriteString("How it is reckoned:\n")
		for _, line := range a.sums {
			b.WriteString("    " + line + "\n")
		}
		b.WriteString("\n")
	}
	if a.set != "" {
		b.WriteString(s.byHand(x, a.set))
		if a.remedy != "" {
			b.WriteString("\n\n" + a.remedy)
		}
		return b.String()
	}
	b.WriteString(a.remedy)
	return b.String()
}

// byHand is how an administrator sets a value.
func (s *server) byHand(x setting, value string) string {
	if !x.fromFile() {
		return x.elsewhere(s.Name, s.Role, value)
	}
	text := s.asAdmin(advice{name: x.Name, set: value}) + "    " + doctor.ReloadStatement + ";"
	if x.restarts() {
		text += "\nIt counts after a restart of the server:\n" + s.howToRestart()
	}
	return text
}

// asAdmin is how settings get into the server's files; what an administrator does then is to follow.
func (s *server) asAdmin(advices ...advice) string {
	var lines strings.Builder
	for _, a := range advices {
		lines.WriteString("    " + s.line(a.name, a.set) + "\n")
	}
	if s.alterable() {
		return "As an administrator of the server:\n" + lines.String()
	}
	return "The server doesn't allow ALTER SYSTEM (allow_alter_system). In the files that are managed for it:\n" + lines.String() +
		"And as an administrator of the server:\n"
}

func (s *server) line(name, value string) string {
	if s.alterable() {
		return alter(name, value) + ";"
	}
	return fmt.Sprintf("%s = '%s'", name, strings.ReplaceAll(value, "'", "''"))
}

// alterable: from 17 on a server may forbid ALTER SYSTEM, since its files are written by something else.
func (s *server) alterable() bool { return s.get("allow_alter_system").Raw != "off" }

// alter is the statement that writes a setting into postgresql.auto.conf.
func alter(name, value string) string {
	return fmt.Sprintf("ALTER SYSTEM SET %s = '%s'", name, strings.ReplaceAll(value, "'", "''"))
}
