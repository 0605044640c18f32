package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// page is the html format: one file that loads nothing and runs nothing, for a browser, a mail, or paper.
type page struct{ Options }

//go:embed report.html.tmpl
var pageText string

var pageTemplate = template.Must(template.New("report").Parse(pageText))

// htmlWidth is where long SQL is broken into lines.
const htmlWidth = 100

type htmlPage struct {
	Title   string
	Intro   string
	Plans   []htmlPlan
	Reports []htmlReport
}

type htmlLook struct{ Class, Text string }

type htmlReport struct {
	Heading  string // Before, After; empty for a check
	Facts    []string
	Verdict  htmlLook
	Checks   []htmlCheck
	Findings []htmlFinding
	Measured []htmlTable
	Since    []string
	SinceOf  string
}

type htmlCheck struct {
	ID, Text string
	Look     htmlLook
}

type htmlFinding struct {
	Look                             htmlLook
	Code, Where, Summary, Why        string
	Observed, Expected, Mend, Anchor string
	Remedy                           []htmlBlock
	Evidence                         []htmlPair
}

type htmlBlock struct {
	Code bool
	Text string
}

type htmlPair struct{ Name, Value string }

type htmlTable struct {
	Title  string
	Header []string
	Rows   [][]string
}

type htmlPlan struct {
	Title string
	Look  htmlLook
	Pairs []htmlPair
	Steps []htmlStep
}

type htmlStep struct {
	Title, Note string
	Look        htmlLook // empty Text when only planned
	Blocks      []htmlBlock
	Diff        []htmlLine
}

type htmlLine struct{ Class, Text string }

func (f page) Check(w io.Writer, r *doctor.Report) error {
	r = cleaner{f.Redact}.report(r)
	report := f.report("", r)
	return f.write(w, htmlPage{Title: pageTitle(r), Reports: []htmlReport{report}})
}

func (f page) Fix(w io.Writer, r *doctor.FixReport) error {
	r = cleaner{f.Redact}.fix(r)
	out := htmlPage{Title: "synapse-doctor fix"}
	if !r.Applied {
		out.Intro = "Nothing has been changed."
	}
	if len(r.Plans) == 0 {
		out.Intro = strings.TrimSpace(out.Intro + " There is no plan.")
	}
	for _, p := range r.Plans {
		out.Plans = append(out.Plans, f.plan(p))
	}
	if r.Before != nil {
		out.Title = pageTitle(r.Before) + " · fix"
		out.Reports = append(out.Reports, f.report("Before", r.Before))
	}
	if r.After != nil {
		out.Reports = append(out.Reports, f.report("After", r.After))
	}
	return f.write(w, out)
}

func (f page) write(w io.Writer, p htmlPage) error {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

func pageTitle(r *doctor.Report) string {
	name := r.Target.ServerName
	if name == "" {
		name = "no configuration"
	}
	return strings.TrimSpace("synapse-doctor "+r.DoctorVersion) + " · " + name
}

// classOf names what a style of the terminal means, for the style sheet.
func classOf(style string) string {
	switch style {
	case green:
		return "good"
	case magenta:
		return "warn"
	case red, redBold:
		return "bad"
	case cyan:
		return "note"
	}
	return "plain"
}

func htmlLookOf(l look) htmlLook { return htmlLook{classOf(l.style), l.String()} }

func (f page) report(heading string, r *doctor.Report) htmlReport {
	style, words := verdict(r)
	out := htmlReport{Heading: heading, Verdict: htmlLook{classOf(style), words}}
	out.Facts = append(out.Facts, moment(r.StartedAt))
	for _, d := range r.Target.Databases {
		out.Facts = append(out.Facts, d.Label+": "+databaseWords(d))
	}
	for _, file := range r.Target.ConfigFiles {
		out.Facts = append(out.Facts, "configuration "+file)
	}
	for _, g := range r.Plugins {
		if g.Status == doctor.StatusUnknown {
			out.Facts = append(out.Facts, "plugin "+g.Name+" could not be asked: "+g.Reason)
		}
	}
	checks := slices.Clone(r.Checks)
	slices.SortStableFunc(checks, func(a, b doctor.CheckResult) int { return rank(a.Status) - rank(b.Status) })
	for _, c := range checks {
		out.Checks = append(out.Checks, htmlCheck{ID: c.ID, Text: outcome(c), Look: htmlLookOf(statusLook(c.Status))})
	}
	for i, finding := range findings(r) {
		out.Findings = append(out.Findings, f.finding(r, i, finding))
	}
	for _, m := range measures(r, true) {
		out.Measured = append(out.Measured, htmlTable{m.title(), capitals(m.header), m.rows})
	}
	if s := r.Since; s != nil {
		out.SinceOf = "Since " + moment(s.At) + ", run " + s.Run
		for _, k := range s.New {
			out.Since = append(out.Since, "new: "+keyWords(k))
		}
		for _, k := range s.Resolved {
			out.Since = append(out.Since, "resolved: "+keyWords(k))
		}
		out.Since = append(out.Since, sinceSummary(s))
	}
	return out
}

func (f page) finding(r *doctor.Report, i int, in doctor.Finding) htmlFinding {
	out := htmlFinding{Look: htmlLookOf(findingLook(in)), Code: in.Code, Where: objectWords(r, in), Summary: in.Summary,
		Observed: in.Observed, Expected: in.Expected, Anchor: fmt.Sprintf("finding-%d", i+1)}
	if in.Ignored != nil {
		out.Why = in.Ignored.Words()
		return out
	}
	if in.Fixable {
		out.Mend = f.command("fix", doctor.CheckID(in.Code))
	}
	out.Remedy = htmlBlocks(in.Remedy)
	for _, k := range slices.Sorted(maps.Keys(in.Evidence)) {
		out.Evidence = append(out.Evidence, htmlPair{k, in.Evidence[k]})
	}
	return out
}

// htmlBlocks are the paragraphs of a text, and the lines of it that are to be copied.
func htmlBlocks(s string) []htmlBlock {
	var out []htmlBlock
	for _, b := range blocks(s) {
		switch {
		case b.verbatim:
			out = append(out, htmlBlock{true, strings.Join(copyable(b.text, htmlWidth), "\n")})
		case b.text != "":
			out = append(out, htmlBlock{false, b.text})
		}
	}
	return out
}

func (f page) plan(r doctor.PlanResult) htmlPlan {
	plan := r.Plan
	out := htmlPlan{Title: plan.Title, Look: htmlLookOf(planLook(r.Status))}
	pair := func(name, value string) {
		if value != "" {
			out.Pairs = append(out.Pairs, htmlPair{name, value})
		}
	}
	pair("plan", plan.ID)
	if !r.Chosen {
		out.Look = htmlLook{"plain", "not chosen"}
		pair("chosen by", "--plan "+plan.ID)
	}
	pair("note", r.Reason)
	pair("mends", mends(plan))
	if !plan.Manual() {
		pair("risk", riskWords(plan.Risk))
		pair("changes", changes(plan))
		for _, q := range plan.Requires {
			pair("needs", requirementWords(q, plan))
		}
		pair("undo", undoWords(plan))
		if plan.Duration > 0 {
			pair("takes", "about "+durationWords(plan.Duration))
		}
	}
	if !r.Chosen {
		return out
	}
	for i, s := range plan.Steps {
		out.Steps = append(out.Steps, f.step(s, stepResult(r, i)))
	}
	return out
}

func (f page) step(s doctor.Step, r doctor.StepResult) htmlStep {
	out := htmlStep{Title: heading(s), Note: r.Note}
	if r.Status != doctor.StepPlanned {
		out.Look = htmlLookOf(stepLook(r.Status))
	}
	text := func(t string) { out.Blocks = append(out.Blocks, htmlBlock{false, t}) }
	sql := func(t string) {
		out.Blocks = append(out.Blocks, htmlBlock{true, strings.Join(layoutSQL(t+";", htmlWidth), "\n")})
	}
	switch {
	case s.SQL != nil:
		sql(s.SQL.Statement)
	case s.EditFile != nil && r.Diff == "":
		text("Edits " + s.EditFile.Path + ".")
	case s.EditFile != nil:
		for line := range strings.SplitSeq(strings.TrimRight(r.Diff, "\n"), "\n") {
			class := ""
			switch {
			case strings.HasPrefix(line, "+"):
				class = "added"
			case strings.HasPrefix(line, "-"):
				class = "removed"
			}
			out.Diff = append(out.Diff, htmlLine{class, line})
		}
	case s.Probe != nil:
		if s.Probe.Holds != nil {
			text("Must give true (it only reads):")
			sql(s.Probe.Holds.Query)
		}
		if s.Probe.Login != nil {
			text(loginWords(s.Probe.Login))
		}
	case s.Operation != nil:
		o := s.Operation
		var params []string
		for _, k := range slices.Sorted(maps.Keys(o.Params)) {
			params = append(params, k+": "+o.Params[k])
		}
		text(strings.Join(append([]string{"Operation " + o.Name}, params...), ", ") + ". " + effectWords(o.Effects))
		for _, statement := range o.Statements {
			sql(statement)
		}
	case s.Manual != nil:
		out.Blocks = append(out.Blocks, htmlBlocks(s.Manual.Text)...)
	}
	return out
}
