package report

import (
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// The table format is for a person at a terminal, perhaps at night. It says what was examined, then the state of every
// check, then what is wrong, then for each fault what to do, and ends with one line of summary and the next command:
// the end is what stands on the screen when the report has scrolled by. Nothing is said twice, the worst comes first,
// and no line is wider than the terminal, except commands, file lines and names that would no longer work when broken.
type table struct{ Options }

func (t table) Check(w io.Writer, r *doctor.Report) error {
	r = cleaner{t.Redact}.report(r)
	p := &paper{Options: t.Options}
	p.target(r)
	p.gap()
	p.checks(r)
	p.plugins(r)
	found := findings(r)
	p.findings(r, found)
	p.measures(r)
	p.since(r)
	found = alarming(found)
	p.whatToDo(r, found)
	p.gap()
	p.summary(r)
	p.next(r, found)
	return p.deliver(w)
}

// target says in a line or two what was examined.
func (p *paper) target(r *doctor.Report) {
	name := r.Target.ServerName
	if name == "" {
		name = "a homeserver without a configuration"
	}
	p.prose(0, bold, strings.TrimSpace("synapse-doctor "+r.DoctorVersion)+" · "+name)
	for _, d := range r.Target.Databases {
		label := ""
		if len(r.Target.Databases) > 1 {
			label = d.Label + ": "
		}
		p.prose(0, plain, label+databaseWords(d))
	}
	if p.Verbose {
		for _, f := range r.Target.ConfigFiles {
			p.prose(0, plain, "configuration "+f)
		}
	}
}

func databaseWords(d doctor.DatabaseInfo) string {
	version := d.ServerVersion
	if version == "" {
		version = "(version not known)"
	}
	if d.Engine == doctor.SQLite {
		return "SQLite " + version + ", " + d.Database
	}
	where := ""
	switch {
	case d.Host == "":
	case strings.HasPrefix(d.Host, "/"):
		where = fmt.Sprintf(" at the socket in %s, port %d", d.Host, d.Port)
	case strings.Contains(d.Host, ","):
		where = " at " + d.Host
	default:
		where = " at " + net.JoinHostPort(d.Host, strconv.Itoa(d.Port))
	}
	return fmt.Sprintf("PostgreSQL %s, database %s%s", version, d.Database, where)
}

func (p *paper) checks(r *doctor.Report) {
	if len(r.Checks) == 0 {
		p.line("No check was run.")
		return
	}
	checks := slices.Clone(r.Checks)
	slices.SortStableFunc(checks, func(a, b doctor.CheckResult) int { return rank(a.Status) - rank(b.Status) })
	g := grid{header: []string{"Check", "Status", "What was found"}}
	for _, c := range checks {
		l := statusLook(c.Status)
		g.rows = append(g.rows, []cell{{text: c.ID}, {l.String(), l.style}, {text: outcome(c)}})
	}
	p.grid(g)
}

// outcome is a check's result in a few words, and how much it has examined.
func outcome(c doctor.CheckResult) string {
	s := result(c)
	if c.Coverage != "" {
		s += "; " + c.Coverage
	}
	return s
}

func result(c doctor.CheckResult) string {
	n := counts(c.Findings)
	switch c.Status {
	case doctor.StatusOK:
		if n != "" {
			return c.Title + "; " + n
		}
		return c.Title
	case doctor.StatusSkipped, doctor.StatusUnknown:
		s := c.Reason
		if s == "" {
			s = "no reason was given"
		}
		if n != "" {
			s += "; found until then: " + n
		}
		return s
	}
	return n
}

func counts(all []doctor.Finding) string {
	n, ignored := map[doctor.Severity]int{}, 0
	for _, f := range all {
		if f.Ignored != nil {
			ignored++
			continue
		}
		n[f.Severity]++
	}
	var parts []string
	for _, s := range []struct {
		severity  doctor.Severity
		one, many string
	}{{doctor.Error, "error", "errors"}, {doctor.Warning, "warning", "warnings"}, {doctor.Info, "note", "notes"}} {
		if n[s.severity] > 0 {
			parts = append(parts, plural(n[s.severity], s.one, s.many))
		}
	}
	if ignored > 0 {
		parts = append(parts, fmt.Sprintf("%d ignored", ignored))
	}
	return strings.Join(parts, ", ")
}

// plugins mentions those that could not be asked: their checks are missing from the table.
func (p *paper) plugins(r *doctor.Report) {
	for _, g := range r.Plugins {
		if g.Status == doctor.StatusUnknown {
			p.gap()
			p.item(statusLook(g.Status), "The plugin "+g.Name+" could not be asked: "+g.Reason)
		}
	}
}

// findings are all of a report, worst first, otherwise in its order; ignored ones come last.
func findings(r *doctor.Report) []doctor.Finding {
	var all []doctor.Finding
	for _, c := range r.Checks {
		all = append(all, c.Findings...)
	}
	slices.SortStableFunc(all, func(a, b doctor.Finding) int { return weight(b) - weight(a) })
	return all
}

func weight(f doctor.Finding) int {
	if f.Ignored != nil {
		return 0
	}
	return int(f.Severity)
}

func objectWords(r *doctor.Report, f doctor.Finding) string {
	s := strings.TrimSpace(f.Object.Kind + " " + f.Object.Name)
	if f.Database != "" && len(r.Target.Databases) > 1 {
		s += " (" + f.Database + ")"
	}
	return s
}

func (p *paper) findings(r *doctor.Report, found []doctor.Finding) {
	if len(found) == 0 {
		return
	}
	p.heading("Findings")
	g := grid{header: []string{"#", "Severity", "Where", "What is wrong"}}
	for i, f := range found {
		l := findingLook(f)
		g.rows = append(g.rows, []cell{
			{text: strconv.Itoa(i + 1)}, {l.String(), l.style}, {text: objectWords(r, f)}, {text: wrong(f)}})
	}
	p.grid(g)
}

// wrong is what is wrong, and why that is lived with.
func wrong(f doctor.Finding) string {
	if f.Ignored == nil {
		return f.Summary
	}
	return f.Summary + " (" + f.Code + ", " + f.Ignored.Words() + ")"
}

// alarming are the findings that are not ignored. As the ignored ones come last, numbers stay what they are.
func alarming(found []doctor.Finding) []doctor.Finding {
	return slices.DeleteFunc(slices.Clone(found), func(f doctor.Finding) bool { return f.Ignored != nil })
}

// group is findings of one code that have the same remedy, which is then said once.
type group struct {
	numbers []int // as in the table of findings
	all     []doctor.Finding
}

func groups(found []doctor.Finding) []*group {
	type key struct{ code, remedy string }
	byKey := map[key]*group{}
	var order []*group
	for i, f := range found {
		k := key{f.Code, f.Remedy}
		g := byKey[k]
		if g == nil {
			g = &group{}
			byKey[k] = g
			order = append(order, g)
		}
		g.numbers, g.all = append(g.numbers, i+1), append(g.all, f)
	}
	return order
}

func (p *paper) whatToDo(r *doctor.Report, found []doctor.Finding) {
	if len(found) == 0 {
		return
	}
	p.heading("What to do")
	for i, g := range groups(found) {
		if i > 0 {
			p.gap()
		}
		f := g.all[0]
		var numbers []string
		for _, n := range g.numbers {
			numbers = append(numbers, strconv.Itoa(n))
		}
		number := strings.Join(numbers, ", ")
		indent := min(width(number)+2, 6)
		if len(g.all) > 1 || width(number) > 4 {
			p.prose(0, bold, number+"  "+f.Code)
		} else {
			p.field(0, indent-2, number, bold, f.Code+" · "+objectWords(r, f))
		}
		for _, f := range g.all {
			if len(g.all) > 1 {
				p.prose(indent, plain, objectWords(r, f))
			}
			if f.Observed != "" {
				p.field(indent, 8, "found", plain, f.Observed)
			}
			if f.Expected != "" {
				p.field(indent, 8, "expected", plain, f.Expected)
			}
			if p.Verbose {
				for _, k := range slices.Sorted(maps.Keys(f.Evidence)) {
					p.field(indent, 8, "evidence", plain, k+": "+f.Evidence[k])
				}
			}
		}
		if f.Fixable {
			p.buf.WriteString(strings.Repeat(" ", indent) + "mend" + strings.Repeat(" ", 6))
			p.line(p.paint(bold, p.command("fix", doctor.CheckID(f.Code))))
		}
		if f.Remedy != "" {
			p.gap()
			p.words(indent, f.Remedy)
		}
	}
}

func (p *paper) summary(r *doctor.Report) {
	style, s := verdict(r)
	p.prose(0, style, s)
}

// verdict is the summary of a report in one sentence. Nothing that was not looked at is called well.
func verdict(r *doctor.Report) (style, words string) {
	n := r.Summary()
	unasked := 0
	for _, p := range r.Plugins {
		if p.Status == doctor.StatusUnknown {
			unasked++
		}
	}
	var tail []string
	for _, s := range []struct {
		status doctor.Status
		words  string
	}{{doctor.StatusError, "error"}, {doctor.StatusWarning, "warning"}, {doctor.StatusInfo, "info"},
		{doctor.StatusOK, "ok"}, {doctor.StatusSkipped, "skipped"}, {doctor.StatusUnknown, "unknown"}} {
		if n[s.status] > 0 {
			tail = append(tail, fmt.Sprintf("%d %s", n[s.status], s.words))
		}
	}
	detail := plural(len(r.Checks), "check", "checks")
	if len(tail) > 0 {
		detail += ": " + strings.Join(tail, ", ")
	}
	if unasked > 0 {
		detail += "; " + plural(unasked, "plugin", "plugins") + " not asked"
	}
	found := counts(findings(r))
	switch {
	case n[doctor.StatusUnknown]+unasked > 0 && found != "":
		return redBold, "✗ " + found + ", and not everything could be examined. " + detail + "."
	case n[doctor.StatusUnknown]+unasked > 0:
		return redBold, "? Not everything could be examined. " + detail + "."
	case n[doctor.StatusError] > 0:
		return redBold, "✗ " + found + ". " + detail + "."
	case n[doctor.StatusWarning] > 0:
		return magenta, "! " + found + ". " + detail + "."
	case n[doctor.StatusInfo] > 0:
		return green, "✓ Nothing is broken; " + found + ". " + detail + "."
	case n[doctor.StatusOK] == 0:
		return plain, "- Nothing was examined. " + detail + "."
	}
	return green, "✓ Nothing wrong was found. " + detail + "."
}

// askedFor are the checks to name again in a command that looks at the same ones; none where all were run.
func askedFor(r *doctor.Report) []string {
	var ids []string
	for _, c := range r.Checks {
		if c.Asked {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func (p *paper) next(r *doctor.Report, found []doctor.Finding) {
	if len(found) == 0 {
		return
	}
	p.gap()
	p.line("Next:")
	type suggestion struct{ command, what string }
	var all []suggestion
	if slices.ContainsFunc(found, func(f doctor.Finding) bool { return f.Fixable }) {
		all = append(all, suggestion{p.command("fix", askedFor(r)...), "shows what it would change; changes nothing"})
	}
	all = append(all, suggestion{p.commandWith(p.PluginFlags, "explain", found[0].Code), "what the first finding means"})
	n := 0
	for _, s := range all {
		n = max(n, width(s.command))
	}
	for _, s := range all {
		if 2+n+3+width(s.what) > p.Width {
			p.line("  " + p.paint(bold, s.command))
			p.prose(6, plain, s.what)
			continue
		}
		p.line("  " + p.paint(bold, s.command) + strings.Repeat(" ", n-width(s.command)+3) + s.what)
	}
}
