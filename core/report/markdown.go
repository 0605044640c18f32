package report

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// The markdown format is for pasting into a support room or an issue: what the helpers ask for, evidence too, and
// nothing secret. What came from the database is escaped, so that it can neither mention anybody nor load a picture.
type markdown struct{ Options }

func (m markdown) Check(w io.Writer, r *doctor.Report) error {
	p := &sheet{Options: m.Options}
	p.report(cleaner{m.Redact}.report(r))
	return p.deliver(w)
}

func (m markdown) Fix(w io.Writer, r *doctor.FixReport) error {
	r = cleaner{m.Redact}.fix(r)
	p := &sheet{Options: m.Options}
	p.heading(1, "synapse-doctor fix")
	if !r.Applied {
		p.printf("Nothing has been changed.\n")
	}
	if len(r.Plans) == 0 {
		p.printf("\nThere is no plan.\n")
	}
	for _, plan := range r.Plans {
		p.plan(plan)
	}
	if r.Before != nil {
		p.heading(1, "Before")
		p.report(r.Before)
	}
	if r.After != nil {
		p.heading(1, "After")
		p.report(r.After)
	}
	return p.deliver(w)
}

// sheet is what markdown is written on.
type sheet struct {
	Options
	buf bytes.Buffer
}

func (p *sheet) deliver(w io.Writer) error {
	_, err := w.Write(p.buf.Bytes())
	return err
}

func (p *sheet) printf(format string, args ...any) { fmt.Fprintf(&p.buf, format, args...) }

func (p *sheet) heading(level int, s string) {
	if p.buf.Len() > 0 {
		p.printf("\n")
	}
	p.printf("%s %s\n\n", strings.Repeat("#", level), s)
}

func (p *sheet) row(cells ...string) {
	for i, c := range cells {
		cells[i] = strings.ReplaceAll(strings.ReplaceAll(c, "|", `\|`), "\n", "<br>")
	}
	p.printf("| %s |\n", strings.Join(cells, " | "))
}

func (p *sheet) header(cells ...string) {
	p.row(cells...)
	p.printf("|%s\n", strings.Repeat(" --- |", len(cells)))
}

func (p *sheet) fence(language, s string) {
	fence := "```"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	p.printf("%s%s\n%s\n%s\n", fence, language, strings.TrimRight(s, "\n"), fence)
}

var escapes = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "<", "&lt;",
	">", "&gt;", "&", "&amp;", "#", `\#`, "~", `\~`, "@", "&#64;", "://", "&#58;//")

// escape makes s plain text. A pipe is escaped by row.
func escape(s string) string { return escapes.Replace(s) }

// code is s as a code span.
func code(s string) string {
	if s == "" {
		return ""
	}
	if !strings.Contains(s, "`") {
		return "`" + s + "`"
	}
	return "`` " + strings.ReplaceAll(s, "``", "` `") + " ``"
}

func (p *sheet) report(r *doctor.Report) {
	name := r.Target.ServerName
	if name == "" {
		name = "no configuration"
	}
	p.heading(2, strings.TrimSpace("synapse-doctor "+escape(r.DoctorVersion))+" · "+escape(name))
	for _, d := range r.Target.Databases {
		p.printf("- %s: %s\n", escape(d.Label), escape(databaseWords(d)))
	}
	for _, f := range r.Target.ConfigFiles {
		p.printf("- configuration %s\n", code(f))
	}
	for _, g := range r.Plugins {
		if g.Status == doctor.StatusUnknown {
			p.printf("- plugin %s could not be asked: %s\n", code(g.Name), escape(strings.ReplaceAll(g.Reason, "\n", " ")))
		}
	}
	_, verdict := verdict(r)
	p.printf("\n%s\n\n", escape(verdict))
	p.header("Check", "Status", "What was found")
	checks := slices.Clone(r.Checks)
	slices.SortStableFunc(checks, func(a, b doctor.CheckResult) int { return rank(a.Status) - rank(b.Status) })
	for _, c := range checks {
		p.row(code(c.ID), statusLook(c.Status).String(), escape(outcome(c)))
	}
	p.measures(r)
	p.since(r)
	found := findings(r)
	if len(found) == 0 {
		return
	}
	p.heading(3, "Findings")
	p.header("#", "Severity", "Code", "Where", "What is wrong", "Found", "Expected")
	for i, f := range found {
		p.row(strconv.Itoa(i+1), findingLook(f).String(), code(f.Code), escape(objectWords(r, f)),
			escape(wrong(f)), escape(f.Observed), escape(f.Expected))
	}
	for _, g := range groups(alarming(found)) {
		p.remedy(g)
	}
}

func (p *sheet) remedy(g *group) {
	var numbers []string
	for _, n := range g.numbers {
		numbers = append(numbers, strconv.Itoa(n))
	}
	f := g.all[0]
	p.heading(4, strings.Join(numbers, ", ")+" · "+code(f.Code))
	if f.Fixable {
		p.printf("%s shows what the doctor would do.\n\n", code(p.command("fix", doctor.CheckID(f.Code))))
	}
	p.words(f.Remedy)
	for i, f := range g.all {
		for j, k := range slices.Sorted(maps.Keys(f.Evidence)) {
			if j == 0 {
				p.printf("\nEvidence for %s:\n\n", numbers[i])
			}
			p.printf("- %s: %s\n", escape(k), escape(strings.ReplaceAll(f.Evidence[k], "\n", " ")))
		}
	}
}

// words writes a text of prose and verbatim lines.
func (p *sheet) words(s string) {
	for i, b := range blocks(s) {
		if i > 0 {
			p.printf("\n")
		}
		switch {
		case b.verbatim && looksLikeSQL(b.text):
			p.fence("sql", strings.Join(copyable(b.text, markdownSQLWidth), "\n"))
		case b.verbatim:
			p.fence("", b.text)
		case b.text != "":
			p.printf("%s\n", escape(b.text))
		}
	}
}

// markdownSQLWidth keeps statements readable where a page shows code without wrapping it.
const markdownSQLWidth = 100

func (p *sheet) sql(s string) {
	p.printf("\n")
	p.fence("sql", strings.Join(layoutSQL(s+";", markdownSQLWidth), "\n"))
}

func (p *sheet) plan(r doctor.PlanResult) {
	plan := r.Plan
	p.heading(2, escape(plan.Title))
	p.header("", "")
	p.row("plan", code(plan.ID))
	status := planLook(r.Status).String()
	if !r.Chosen {
		status = "not chosen; " + code("--plan "+plan.ID)
	}
	if r.Reason != "" {
		status += ": " + escape(r.Reason)
	}
	p.row("status", status)
	p.row("mends", escape(mends(plan)))
	if !plan.Manual() {
		p.row("risk", escape(riskWords(plan.Risk)))
		p.row("changes", escape(changes(plan)))
		for _, q := range plan.Requires {
			p.row("needs", escape(requirementWords(q, plan)))
		}
		p.row("undo", escape(undoWords(plan)))
	}
	if !r.Chosen {
		return
	}
	for i, s := range plan.Steps {
		p.step(i, s, stepResult(r, i))
	}
}

func (p *sheet) step(i int, s doctor.Step, r doctor.StepResult) {
	p.printf("\n**%d. %s**", i+1, escape(heading(s)))
	if r.Status != doctor.StepPlanned {
		p.printf(" (%s)", escape(stepLook(r.Status).word))
	}
	p.printf("\n")
	if r.Note != "" {
		p.printf("\n%s\n", escape(r.Note))
	}
	switch {
	case s.SQL != nil:
		p.sql(s.SQL.Statement)
	case s.EditFile != nil && r.Diff != "":
		p.printf("\n")
		p.fence("diff", r.Diff)
	case s.EditFile != nil:
		p.printf("\nEdits %s.\n", code(s.EditFile.Path))
	case s.Probe != nil:
		if s.Probe.Holds != nil {
			p.printf("\nMust give true (it only reads):\n")
			p.sql(s.Probe.Holds.Query)
		}
		if s.Probe.Login != nil {
			p.printf("\n%s\n", escape(loginWords(s.Probe.Login)))
		}
	case s.Operation != nil:
		o := s.Operation
		p.printf("\nOperation %s", code(o.Name))
		for _, k := range slices.Sorted(maps.Keys(o.Params)) {
			p.printf(", %s %s", escape(k), code(strings.ReplaceAll(o.Params[k], "\n", " ")))
		}
		p.printf(". %s\n", escape(effectWords(o.Effects)))
		if len(o.Statements) > 0 {
			p.printf("\nIt runs:\n")
			p.sql(strings.Join(o.Statements, ";\n"))
		}
	case s.Manual != nil:
		p.printf("\n")
		p.words(s.Manual.Text)
	}
}
