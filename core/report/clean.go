package report

import (
	"slices"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Everything that is printed passes here: known secrets are masked, then control characters are spelled out. Redaction
// comes first, because a secret that holds such a character would no longer be recognised.

type cleaner struct{ redact *doctor.Redactor }

func (c cleaner) line(s string) string { return doctor.Clean(c.redact.String(s)) }
func (c cleaner) text(s string) string { return doctor.CleanText(c.redact.String(s)) }

func (c cleaner) list(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = c.line(s)
	}
	return out
}

func (c cleaner) mapping(in map[string]string) map[string]string {
	out := make(map[string]string, len(in))
	for k, v := range in {
		out[c.line(k)] = c.text(v)
	}
	return out
}

func (c cleaner) report(r *doctor.Report) *doctor.Report {
	if r == nil {
		return nil
	}
	out := *r
	out.DoctorVersion = c.line(r.DoctorVersion)
	out.Target.ServerName = c.line(r.Target.ServerName)
	out.Target.ConfigFiles = c.list(r.Target.ConfigFiles)
	out.Target.Databases = slices.Clone(r.Target.Databases)
	for i := range out.Target.Databases {
		d := &out.Target.Databases[i]
		d.Label, d.Engine = c.line(d.Label), doctor.Engine(c.line(string(d.Engine)))
		d.Host, d.Database, d.ServerVersion = c.line(d.Host), c.line(d.Database), c.line(d.ServerVersion)
	}
	out.Plugins = slices.Clone(r.Plugins)
	for i := range out.Plugins {
		p := &out.Plugins[i]
		p.Name, p.Version, p.Path = c.line(p.Name), c.line(p.Version), c.line(p.Path)
		p.Checks, p.Reason = c.list(p.Checks), c.text(p.Reason)
	}
	out.Checks = slices.Clone(r.Checks)
	for i := range out.Checks {
		k := &out.Checks[i]
		k.ID, k.Title, k.Reason, k.Coverage = c.line(k.ID), c.line(k.Title), c.text(k.Reason), c.line(k.Coverage)
		k.Findings = slices.Clone(k.Findings)
		for j, f := range k.Findings {
			k.Findings[j] = c.finding(f)
		}
		k.Measures = c.measures(k.Measures)
	}
	out.Earlier = doctor.NewEarlier(c.measures(r.Earlier.Measures))
	if r.Since != nil {
		since := *r.Since
		since.Run, since.New, since.Resolved = c.line(since.Run), c.keys(since.New), c.keys(since.Resolved)
		out.Since = &since
	}
	return &out
}

func (c cleaner) measures(in []doctor.Measure) []doctor.Measure {
	out := slices.Clone(in)
	for i := range out {
		m := &out[i]
		m.Check, m.Database, m.Object, m.Name, m.Unit = c.line(m.Check), c.line(m.Database), c.object(m.Object), c.line(m.Name), c.line(m.Unit)
	}
	return out
}

func (c cleaner) keys(in []doctor.FindingKey) []doctor.FindingKey {
	out := slices.Clone(in)
	for i, k := range out {
		out[i] = doctor.FindingKey{Code: c.line(k.Code), Database: c.line(k.Database), Object: c.object(k.Object)}
	}
	return out
}

func (c cleaner) finding(f doctor.Finding) doctor.Finding {
	f.Code, f.Database, f.Object = c.line(f.Code), c.line(f.Database), c.object(f.Object)
	f.Summary, f.Observed, f.Expected = c.text(f.Summary), c.text(f.Observed), c.text(f.Expected)
	f.Remedy, f.Evidence = c.text(f.Remedy), c.mapping(f.Evidence)
	if f.Ignored != nil {
		f.Ignored = &doctor.Ignored{Why: c.line(f.Ignored.Why), Until: f.Ignored.Until}
	}
	return f
}

func (c cleaner) object(o doctor.Object) doctor.Object {
	return doctor.Object{Kind: c.line(o.Kind), Name: c.line(o.Name)}
}

func (c cleaner) fix(r *doctor.FixReport) *doctor.FixReport {
	if r == nil {
		return nil
	}
	out := *r
	out.Plans = c.plans(r.Plans)
	out.Before, out.After = c.report(r.Before), c.report(r.After)
	return &out
}

func (c cleaner) plans(in []doctor.PlanResult) []doctor.PlanResult {
	out := slices.Clone(in)
	for i := range out {
		p := &out[i]
		p.Reason = c.text(p.Reason)
		p.Plan = c.plan(p.Plan)
		p.Steps = slices.Clone(p.Steps)
		for j := range p.Steps {
			s := &p.Steps[j]
			s.Diff, s.Note = c.text(s.Diff), c.text(s.Note)
		}
	}
	return out
}

// plan cleans what is shown of a plan and puts each statement's arguments into its text, for the statement is copied
// by people and has to be masked as a whole. The splices of files are not shown: a step's diff is.
func (c cleaner) plan(p doctor.Plan) doctor.Plan {
	p.ID, p.Title, p.Database = c.line(p.ID), c.line(p.Title), c.line(p.Database)
	p.Irreversible = c.text(p.Irreversible)
	p.Covers = c.keys(p.Covers)
	p.Requires = slices.Clone(p.Requires)
	for i, r := range p.Requires {
		p.Requires[i] = doctor.Requirement(c.line(string(r)))
	}
	p.Expects = doctor.Expectation(c.line(string(p.Expects)))
	p.Steps = slices.Clone(p.Steps)
	for i, s := range p.Steps {
		p.Steps[i] = c.step(s)
	}
	return p
}

func (c cleaner) statement(sql string, args []doctor.Value) string { return c.text(inline(sql, args)) }

func (c cleaner) guard(g *doctor.Guard) *doctor.Guard {
	if g == nil {
		return nil
	}
	return &doctor.Guard{Query: c.statement(g.Query, g.Args), Else: c.text(g.Else)}
}

func (c cleaner) step(s doctor.Step) doctor.Step {
	out := doctor.Step{Title: c.line(s.Title)}
	if q := s.SQL; q != nil {
		to := *q
		to.Database, to.Group = c.line(q.Database), c.line(q.Group)
		to.Statement, to.Args = c.statement(q.Statement, q.Args), nil
		to.Guard = c.guard(q.Guard)
		if q.Save != nil {
			to.Save = &doctor.Save{Table: c.line(q.Save.Table), Query: c.statement(q.Save.Query, q.Save.Args)}
		}
		to.Undo = nil
		for _, u := range q.Undo {
			args := u.Args
			if u.ForEachSaved {
				args = nil // $1 is a row that is not known yet, and moves the others
			}
			to.Undo = append(to.Undo, doctor.UndoSQL{
				Statement: c.statement(u.Statement, args), Guard: c.guard(u.Guard), ForEachSaved: u.ForEachSaved})
		}
		out.SQL = &to
	}
	if e := s.EditFile; e != nil {
		out.EditFile = &doctor.EditFileStep{Path: c.line(e.Path)}
	}
	if p := s.Probe; p != nil {
		to := doctor.ProbeStep{Database: c.line(p.Database), Holds: c.guard(p.Holds)}
		if p.Login != nil {
			login := *p.Login
			login.Address = c.line(login.Address)
			to.Login = &login
		}
		out.Probe = &to
	}
	if o := s.Operation; o != nil {
		out.Operation = &doctor.OperationStep{
			Name: c.line(o.Name), Params: c.mapping(o.Params), Statements: c.list(o.Statements), Resumes: c.text(o.Resumes), Undo: c.line(o.Undo),
			Effects: doctor.Effects{
				Databases: c.list(o.Effects.Databases), Tables: c.list(o.Effects.Tables), Files: c.list(o.Effects.Files)},
		}
	}
	if m := s.Manual; m != nil {
		out.Manual = &doctor.ManualStep{Text: c.text(m.Text)}
	}
	return out
}
