package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// A plan is printed whole: what it mends, what must hold first, every statement, every changed line of a file, every
// test. Whoever agrees to it has seen what will happen.

func (t table) Fix(w io.Writer, r *doctor.FixReport) error {
	r = cleaner{t.Redact}.fix(r)
	p := &paper{Options: t.Options}
	if r.Before != nil {
		p.target(r.Before)
	}
	chosen, others := split(r.Plans)
	p.plans(chosen)
	if !r.Applied {
		p.alternatives(others)
	}
	p.comparison(r)
	p.leftOver(r)
	p.gap()
	p.fixSummary(r, chosen)
	return p.deliver(w)
}

// Plans prints plans alone, in the table format, as they are shown before consent is asked for.
func Plans(w io.Writer, plans []doctor.PlanResult, o Options) error {
	p := &paper{Options: o.normal()}
	p.plans(cleaner{o.Redact}.plans(plans))
	return p.deliver(w)
}

func split(plans []doctor.PlanResult) (chosen, others []doctor.PlanResult) {
	for _, r := range plans {
		if r.Chosen {
			chosen = append(chosen, r)
		} else {
			others = append(others, r)
		}
	}
	return chosen, others
}

func (p *paper) plans(plans []doctor.PlanResult) {
	for i, r := range plans {
		title := r.Plan.Title
		if len(plans) > 1 {
			title = fmt.Sprintf("Plan %d of %d: %s", i+1, len(plans), title)
		}
		p.heading(title)
		p.plan(r)
	}
}

const planField = 9

func (p *paper) plan(r doctor.PlanResult) {
	plan := r.Plan
	field := func(name, style, text string) { p.field(0, planField, name, style, text) }
	field("plan", plain, plan.ID)
	if r.Status != doctor.PlanPlanned {
		l := planLook(r.Status)
		field("status", l.style, l.String())
	}
	if r.Reason != "" && !told(r.Status) {
		field("note", plain, r.Reason)
	}
	field("mends", plain, mends(plan))
	if !plan.Manual() && !(r.Status == doctor.PlanApplied && !p.Verbose) {
		field("risk", riskStyle(plan.Risk), riskWords(plan.Risk))
		field("changes", plain, changes(plan))
		for i, q := range plan.Requires {
			name := "needs"
			if i > 0 {
				name = ""
			}
			field(name, plain, requirementWords(q, plan))
		}
		field("undo", plain, undoWords(plan))
		if plan.Duration > 0 {
			field("takes", plain, "about "+durationWords(plan.Duration))
		}
	}
	if r.Status == doctor.PlanRefused && !p.Verbose { // the reason matters now; synapse-doctor fix shows the rest
		p.gap()
		for i, s := range plan.Steps {
			p.field(0, len(fmt.Sprint(len(plan.Steps))), fmt.Sprintf("%d.", i+1), plain, heading(s))
		}
		return
	}
	terse := false
	for i, s := range plan.Steps {
		result := stepResult(r, i)
		wasTerse := terse
		terse = p.terse(result.Status)
		if !(terse && wasTerse) {
			p.gap()
		}
		if terse {
			l := stepLook(result.Status)
			p.item(l, fmt.Sprintf("%d. %s: %s", i+1, heading(s), l.word))
			if result.Note != "" {
				p.prose(2, plain, result.Note)
			}
			continue
		}
		p.step(i, s, result)
	}
}

// terse is true of the steps that are over: they were shown whole when consent was asked for. What failed is shown again.
func (p *paper) terse(s doctor.StepStatus) bool {
	return !p.Verbose && (s == doctor.StepApplied || s == doctor.StepUndone || s == doctor.StepSkipped)
}

// told is true of the outcomes whose reason stands at the end of the report.
func told(s doctor.PlanStatus) bool { return s == doctor.PlanRefused || s == doctor.PlanFailed }

func heading(s doctor.Step) string {
	if s.Title == "" {
		return string(s.Kind())
	}
	return s.Title
}

// stepResult is what became of step i; of a plan that was never started there may be nothing.
func stepResult(r doctor.PlanResult, i int) doctor.StepResult {
	if i < len(r.Steps) && r.Steps[i].Status != "" {
		return r.Steps[i]
	}
	status := doctor.StepPlanned
	if r.Plan.Steps[i].Kind() == doctor.KindManual {
		status = doctor.StepManual
	}
	out := doctor.StepResult{Status: status}
	if i < len(r.Steps) {
		out.Diff, out.Note = r.Steps[i].Diff, r.Steps[i].Note
	}
	return out
}

func mends(plan doctor.Plan) string {
	objects := map[string][]string{}
	for _, k := range plan.Covers {
		name := k.Object.Name
		if name == "" {
			name = k.Object.Kind
		}
		objects[k.Code] = append(objects[k.Code], name)
	}
	var lines []string
	for _, code := range plan.Codes() {
		s := code
		if names := strings.Join(objects[code], ", "); names != "" {
			s += ": " + names
		}
		lines = append(lines, s)
	}
	return strings.Join(lines, "\n")
}

func riskStyle(r doctor.Risk) string {
	switch r {
	case doctor.Safe:
		return green
	case doctor.Careful:
		return magenta
	}
	return redBold
}

func riskWords(r doctor.Risk) string {
	switch r {
	case doctor.Safe:
		return "safe: nothing can be lost"
	case doctor.Careful:
		return "careful: it changes data that Synapse relies on"
	case doctor.Dangerous:
		return "DANGEROUS: it would destroy data if it were wrong; have a backup"
	}
	return r.String()
}

func changes(plan doctor.Plan) string {
	label := plan.Database
	if label == "" {
		label = "main"
	}
	switch plan.Expects {
	case doctor.ExpectSynapse:
		return "the database entry " + label + ", only if it is this homeserver's own"
	case doctor.ExpectEmpty:
		return "the database entry " + label + ", only if it is empty"
	case doctor.ExpectAbsent:
		return "the database entry " + label + ", only if there is no such database yet"
	case doctor.ExpectNone:
		if slices.Contains(plan.Requires, doctor.RequireAdmin) {
			return "the server's files and roles; no database is touched"
		}
		return "files only; no database is touched"
	}
	return string(plan.Expects)
}

func requirementWords(q doctor.Requirement, plan doctor.Plan) string {
	switch q {
	case doctor.RequireStopped:
		return "Synapse and every worker stopped"
	case doctor.RequireAdmin:
		return "an administrator's connection to PostgreSQL (as root its socket, or --admin-dsn)"
	case doctor.RequireDisk:
		return sizeWords(plan.DiskBytes) + " of free disk"
	case doctor.RequireShut:
		return "the database to itself: it lets nobody else in until the plan is finished or undone"
	}
	return string(q)
}

func undoWords(plan doctor.Plan) string {
	s := "no"
	switch {
	case plan.Reversible:
		s = "yes, with synapse-doctor undo"
	case plan.Irreversible != "":
		s = "no: " + plan.Irreversible
	}
	if plan.UndoOnFailure {
		s += "; when a step fails, the ones before it are put back"
	}
	return s
}

func durationWords(d time.Duration) string {
	switch {
	case d < 2*time.Second:
		return "a second"
	case d < 2*time.Minute:
		return plural(int(d.Round(time.Second)/time.Second), "second", "seconds")
	case d < 2*time.Hour:
		return plural(int(d.Round(time.Minute)/time.Minute), "minute", "minutes")
	}
	return plural(int(d.Round(time.Hour)/time.Hour), "hour", "hours")
}

func sizeWords(n int64) string {
	const unit = 1024
	if n < unit {
		return plural(int(n), "byte", "bytes")
	}
	f, names := float64(n)/unit, []string{"kB", "MB", "GB", "TB"}
	i := 0
	for f >= unit && i < len(names)-1 {
		f, i = f/unit, i+1
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + names[i]
}

func (p *paper) step(i int, s doctor.Step, r doctor.StepResult) {
	number := fmt.Sprintf("%d.", i+1)
	indent := len(number) + 1
	p.field(0, len(number)-1, number, bold, heading(s))
	if r.Status != doctor.StepPlanned && s.Manual == nil {
		l := stepLook(r.Status)
		p.prose(indent, l.style, l.String())
	}
	if r.Note != "" {
		p.prose(indent, plain, r.Note)
	}
	switch {
	case s.SQL != nil:
		p.sqlStep(indent, s.SQL)
	case s.EditFile != nil:
		if r.Diff == "" {
			p.prose(indent, plain, "Edits "+s.EditFile.Path+".")
			break
		}
		p.gap()
		p.diff(indent+4, r.Diff)
	case s.Probe != nil:
		p.probe(indent, s.Probe)
	case s.Operation != nil:
		p.operation(indent, s.Operation)
	case s.Manual != nil:
		p.gap()
		p.words(indent, s.Manual.Text)
	}
}

func (p *paper) sqlStep(indent int, q *doctor.SQLStep) {
	p.gap()
	p.sql(indent+4, q.Statement+";")
	var notes []string
	if q.Admin {
		notes = append(notes, "as the server's administrator")
	}
	switch q.Mode {
	case doctor.ModeAlone:
		notes = append(notes, "in a transaction of its own")
	case doctor.ModeGroup:
		notes = append(notes, "in the transaction "+q.Group+", all of it or nothing")
	case doctor.ModeNone:
		notes = append(notes, "outside any transaction")
	}
	if q.MaxRows > 0 {
		notes = append(notes, "rolled back if it concerns more than "+plural(int(q.MaxRows), "row", "rows"))
	}
	if q.Verifier != nil {
		notes = append(notes, "in the place of "+doctor.Masked+" stands the verifier of the password, which itself is not sent to the server")
	}
	if q.Reload {
		notes = append(notes, "only if the server's files have no error; done when a new session sees that they were loaded; an undo loads them once more when they are back")
	}
	if q.Lasting {
		notes = append(notes, "PostgreSQL keeps its effect even when the transaction is rolled back")
	}
	if q.Guard != nil && !p.Verbose {
		notes = append(notes, "only if what the plan rests on is still so")
	}
	if q.Save != nil {
		notes = append(notes, "the rows of "+q.Save.Table+" that it changes are saved first")
	}
	if len(notes) > 0 {
		p.gap()
		p.prose(indent, plain, capital(strings.Join(notes, "; "))+".")
	}
	if !p.Verbose {
		return
	}
	p.query(indent, "Only if this gives true:", q.Guard)
	if q.Save != nil {
		p.prose(indent, plain, "Saved first:")
		p.sql(indent+4, q.Save.Query+";")
	}
	for _, u := range q.Undo {
		head := "Put back by:"
		if u.ForEachSaved {
			head = "Put back by, for each saved row as $1:"
		}
		p.prose(indent, plain, head)
		p.sql(indent+4, u.Statement+";")
		p.query(indent+4, "only if this gives true:", u.Guard)
	}
}

func (p *paper) query(indent int, head string, g *doctor.Guard) {
	if g != nil {
		p.prose(indent, plain, head)
		p.sql(indent+4, g.Query+";")
	}
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (p *paper) probe(indent int, b *doctor.ProbeStep) {
	p.gap()
	if b.Holds != nil {
		p.query(indent, "Must give true (it only reads):", b.Holds)
	}
	if b.Login != nil {
		p.prose(indent, plain, loginWords(b.Login))
	}
}

func loginWords(l *doctor.Login) string {
	s := "Connects afresh as Synapse does"
	if l.Address != "" {
		s += ", to " + l.Address
	}
	if l.WrongPassword {
		s += ", with a wrong password"
	}
	if l.MustFail {
		return s + ": must be turned away."
	}
	return s + ": must be let in."
}

func (p *paper) operation(indent int, o *doctor.OperationStep) {
	p.gap()
	field := func(name, text string) {
		if text != "" {
			p.field(indent, planField, name, plain, text)
		}
	}
	field("operation", o.Name)
	if p.Verbose || len(o.Statements) == 0 { // the statements say it better
		for _, k := range slices.Sorted(maps.Keys(o.Params)) {
			field("with", k+": "+o.Params[k])
		}
	}
	if len(o.Statements) > 0 {
		field("runs", "these statements, in this order:")
		p.gap()
		for _, s := range o.Statements {
			p.sql(indent+4, s+";")
		}
		p.gap()
	}
	field("databases", strings.Join(o.Effects.Databases, ", "))
	field("tables", strings.Join(o.Effects.Tables, ", "))
	field("files", strings.Join(o.Effects.Files, ", "))
	field("resumes", o.Resumes)
	switch {
	case len(o.Effects.Databases)+len(o.Effects.Tables)+len(o.Effects.Files) == 0:
		field("undo", "changes nothing")
	case o.Undo == "":
		field("undo", "cannot be undone")
	default:
		field("undo", o.Undo)
	}
}

func (p *paper) alternatives(others []doctor.PlanResult) {
	if len(others) == 0 {
		return
	}
	var ways, wishes []doctor.PlanResult
	for _, r := range others {
		if r.Plan.WhenAsked {
			wishes = append(wishes, r)
		} else {
			ways = append(ways, r)
		}
	}
	p.notChosen("Other ways, not chosen", ways)
	p.notChosen("Done only when asked for", wishes)
}

func (p *paper) notChosen(heading string, plans []doctor.PlanResult) {
	if len(plans) == 0 {
		return
	}
	p.heading(heading)
	for i, r := range plans {
		if i > 0 {
			p.gap()
		}
		p.prose(0, plain, r.Plan.Title+" (risk: "+r.Plan.Risk.String()+", undo: "+undoShort(r.Plan)+")")
		p.line("    " + p.paint(bold, p.command("fix", r.Plan.Check(), "--plan", r.Plan.ID)))
	}
}

func undoShort(plan doctor.Plan) string {
	if plan.Reversible {
		return "yes"
	}
	return "no"
}

// comparison shows what applying has changed in the state of the checks.
func (p *paper) comparison(r *doctor.FixReport) {
	if r.Before == nil || r.After == nil {
		return
	}
	p.heading("Before and after")
	before := map[string]doctor.CheckResult{}
	for _, c := range r.Before.Checks {
		before[c.ID] = c
	}
	g := grid{header: []string{"Check", "Before", "After", "Now"}}
	for _, c := range r.After.Checks {
		was := cell{text: "not run"}
		if b, ok := before[c.ID]; ok {
			l := statusLook(b.Status)
			was = cell{l.String(), l.style}
		}
		l := statusLook(c.Status)
		g.rows = append(g.rows, []cell{{text: c.ID}, was, {l.String(), l.style}, {text: outcome(c)}})
	}
	p.grid(g)
}

// leftOver is what no plan deals with, and what could not be looked at.
func (p *paper) leftOver(r *doctor.FixReport) {
	now := r.After
	if now == nil {
		now = r.Before
	}
	if now == nil {
		return
	}
	covered := map[doctor.FindingKey]bool{}
	if r.After == nil {
		for _, plan := range r.Plans {
			for _, k := range plan.Plan.Covers {
				covered[k] = true
			}
		}
	}
	var left []doctor.Finding
	for _, f := range alarming(findings(now)) {
		if !covered[f.Key()] {
			left = append(left, f)
		}
	}
	if len(left) > 0 {
		head := "No plan for these"
		if r.After != nil {
			head = "Still there"
		}
		p.heading(head)
		for _, f := range left {
			l := severityLook(f.Severity)
			p.item(l, f.Code+", "+objectWords(now, f)+": "+f.Summary)
		}
	}
	headed := false
	for _, c := range now.Checks {
		if c.Status != doctor.StatusUnknown && !c.NeedFailed {
			continue
		}
		if !headed {
			p.heading("Could not be examined")
			headed = true
		}
		l := statusLook(c.Status)
		p.item(l, c.ID+": "+outcome(c))
	}
	p.plugins(now)
}

func (p *paper) fixSummary(r *doctor.FixReport, chosen []doctor.PlanResult) {
	n := map[doctor.PlanStatus]int{}
	stopped := false
	for _, c := range chosen {
		n[c.Status]++
		stopped = stopped || c.Status == doctor.PlanApplied && slices.Contains(c.Plan.Requires, doctor.RequireStopped)
	}
	now := r.After
	if now == nil {
		now = r.Before
	}
	style, state := plain, ""
	if now != nil {
		style, state = verdict(now)
		state = strings.TrimLeft(state, "✓✗!?- ")
	}
	for _, c := range chosen {
		if told(c.Status) {
			p.whyNot(c)
		}
	}
	suggest := func(head string, commands ...string) {
		p.gap()
		p.line(head)
		for _, c := range commands {
			p.line("  " + p.paint(bold, c))
		}
	}
	switch {
	case len(chosen) == 0:
		p.prose(0, style, "Nothing to apply. "+state)
		if now != nil && len(findings(now)) > 0 {
			suggest("What to do by hand:", p.command("check"))
		}
	case n[doctor.PlanFailed] > 0:
		p.prose(0, redBold, "✗ "+outcomes(n)+". "+state)
		suggest("Next:", "synapse-doctor history", p.command("check"))
	case n[doctor.PlanRefused] > 0:
		p.prose(0, magenta, "! "+outcomes(n)+". "+state)
	case n[doctor.PlanApplied] > 0:
		sign, color := "✓", green
		if r.After == nil || style != green {
			sign, color = "!", style
		}
		p.prose(0, color, sign+" "+capital(outcomes(n))+". "+state)
		if stopped && mayStart(r.After) && !leftToPerson(r.Plans) {
			p.prose(0, plain, "Synapse and its workers can be started again.")
		}
		if slices.ContainsFunc(r.Plans, func(x doctor.PlanResult) bool { return x.Status == doctor.PlanApplied && x.Plan.Reversible }) {
			suggest("To put it back:", p.command("undo"))
		}
	case n[doctor.PlanPlanned] > 0:
		p.prose(0, plain, "Nothing has been changed: "+outcomes(n)+".")
		suggest("To apply (it asks first):", p.command("fix", append(selection(r.Plans), "--apply")...))
	default:
		p.prose(0, plain, "Nothing for the doctor to apply: "+outcomes(n)+".")
		suggest("When it is done:", p.command("check", planned(chosen)...))
	}
}

// leftToPerson reports whether an applied plan has something left that a person must do, such as to point Synapse at another
// database before it is started.
func leftToPerson(plans []doctor.PlanResult) bool {
	return slices.ContainsFunc(plans, func(p doctor.PlanResult) bool {
		return p.Status == doctor.PlanApplied && slices.ContainsFunc(p.Plan.Steps, func(s doctor.Step) bool { return s.Kind() == doctor.KindManual })
	})
}

// mayStart is true when everything was examined and nothing is broken.
func mayStart(after *doctor.Report) bool {
	return after != nil && !slices.ContainsFunc(after.Checks, func(c doctor.CheckResult) bool {
		return c.Status == doctor.StatusError || c.Status == doctor.StatusUnknown || c.NeedFailed
	}) && !slices.ContainsFunc(after.Plugins, func(p doctor.PluginInfo) bool { return p.Status == doctor.StatusUnknown })
}

// whyNot says at the end why a plan was not carried out, and what is the state now.
func (p *paper) whyNot(r doctor.PlanResult) {
	l := planLook(r.Status)
	p.item(l, r.Plan.ID+": "+l.word)
	if r.Reason != "" {
		p.words(2, r.Reason)
	}
	if r.Status == doctor.PlanRefused {
		p.prose(2, plain, "Nothing has changed. Run the same command again when this is settled.")
	}
	p.gap()
}

// selection are the arguments that choose the same plans again. The first plan of those that cover a finding is chosen
// by itself, any other has to be named.
func selection(plans []doctor.PlanResult) []string {
	chosen, _ := split(plans)
	args := named(plans, chosen)
	passed := map[doctor.FindingKey]bool{}
	for _, r := range plans {
		again := false
		for _, k := range r.Plan.Covers {
			again = again || passed[k]
			passed[k] = true
		}
		if r.Chosen && again {
			args = append(args, "--plan", r.Plan.ID)
		}
	}
	return args
}

// named are the checks of the chosen plans, or their codes where the name of the check would choose plans that were not.
func named(plans, chosen []doctor.PlanResult) []string {
	var names []string
	for _, r := range chosen {
		of := []string{r.Plan.Check()}
		if slices.ContainsFunc(plans, func(other doctor.PlanResult) bool {
			return other.Plan.WhenAsked && !other.Chosen && other.Plan.Check() == r.Plan.Check()
		}) {
			of = r.Plan.Codes()
		}
		for _, name := range of {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// planned are the checks that the plans belong to, in order.
func planned(plans []doctor.PlanResult) []string {
	var ids []string
	for _, r := range plans {
		if id := r.Plan.Check(); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func outcomes(n map[doctor.PlanStatus]int) string {
	var parts []string
	for _, s := range []struct {
		status doctor.PlanStatus
		words  string
	}{{doctor.PlanFailed, "failed"}, {doctor.PlanRefused, "refused"}, {doctor.PlanApplied, "applied"},
		{doctor.PlanPlanned, "ready to apply"}, {doctor.PlanManual, "for you to do by hand"}} {
		if n[s.status] > 0 {
			parts = append(parts, plural(n[s.status], "plan", "plans")+" "+s.words)
		}
	}
	return strings.Join(parts, ", ")
}

// effectWords says what an operation may change.
func effectWords(e doctor.Effects) string {
	names := slices.Concat(e.Databases, e.Tables, e.Files)
	if len(names) == 0 {
		return "It changes no row, no file and no setting."
	}
	return "It may change: " + strings.Join(names, ", ") + "."
}
