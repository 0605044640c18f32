package engine

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// planned is a plan with who made it.
type planned struct {
	doctor.PlanResult
	source *described
	info   doctor.CheckInfo
	asked  bool // its check was asked for by name
}

// plan asks the sources what would mend the findings of a report, and chooses among alternatives.
// preferred are ids of plans to choose instead of the first; one that does not exist is an error.
func (e *Engine) plan(ctx context.Context, checks []selected, report *doctor.Report, preferred []string) ([]planned, error) {
	var all []planned
	for i, s := range checks {
		r := &report.Checks[i]
		findings := s.toMend(r.Findings)
		if !s.info.Plans || !slices.ContainsFunc(findings, func(f doctor.Finding) bool { return f.Fixable }) {
			continue
		}
		plans, err := e.askPlans(ctx, s, findings)
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		if err != nil {
			r.Status, r.Reason = doctor.StatusUnknown, cut(e.clean(fmt.Sprintf("no plan could be made: %v", err)), maxLine)
			continue
		}
		for _, p := range plans {
			all = append(all, e.newPlanned(s, p))
		}
	}
	// The same command again finishes what it was interrupted in, and is no mistake when nothing is left to plan. Nor is it
	// one where the check could not be made, which the report tells.
	preferred = slices.DeleteFunc(slices.Clone(preferred), func(id string) bool {
		unexamined := slices.ContainsFunc(report.Checks, func(c doctor.CheckResult) bool {
			return c.ID == doctor.CheckID(id) && (c.Status == doctor.StatusUnknown || c.Status == doctor.StatusSkipped)
		})
		return (unexamined || slices.Contains(e.settled, id)) && !slices.ContainsFunc(all, func(p planned) bool { return p.Plan.ID == id })
	})
	return all, choose(all, preferred)
}

// toMend are the findings that a plan is wanted for: one that is ignored only where its code was asked for.
func (s selected) toMend(findings []doctor.Finding) []doctor.Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f doctor.Finding) bool {
		return f.Ignored != nil && !slices.Contains(s.codes, f.Code)
	})
}

func (e *Engine) askPlans(ctx context.Context, s selected, findings []doctor.Finding) ([]doctor.Plan, error) {
	ctx, cancel := e.limit(ctx)
	defer cancel()
	plans, err := s.source.source.Plan(ctx, doctor.PlanRequest{Target: e.Target, Check: s.info.ID, Findings: findings})
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	ids := map[string]bool{}
	for i := range plans {
		if err := e.validate(s, plans[i], findings); err != nil {
			return nil, fmt.Errorf("the plugin broke the protocol: plan %q %w", doctor.Clean(plans[i].ID), err)
		}
		if ids[plans[i].ID] {
			return nil, fmt.Errorf("the plugin broke the protocol: two plans have the id %q", plans[i].ID)
		}
		ids[plans[i].ID] = true
		e.cleanPlan(&plans[i])
	}
	if err := e.bindGuest(ctx, s, plans); err != nil {
		return nil, fmt.Errorf("the plugin broke the protocol: %w", err)
	}
	return plans, nil
}

// newPlanned gives a plan its first statuses, and an edit its diff.
func (e *Engine) newPlanned(s selected, p doctor.Plan) planned {
	out := planned{source: s.source, info: s.info, asked: s.asked}
	out.Plan = p
	out.Status = doctor.PlanPlanned
	if p.Manual() {
		out.Status = doctor.PlanManual
	}
	for _, step := range p.Steps {
		r := doctor.StepResult{Status: doctor.StepPlanned}
		if step.Manual != nil {
			r.Status = doctor.StepManual
		}
		if edit := step.EditFile; edit != nil {
			if f, err := readEdit(edit); err != nil {
				r.Note = e.reason(err)
			} else {
				r.Diff = doctor.Diff(edit.Path, f.before, f.after, e.Redactor.String)
			}
		}
		out.Steps = append(out.Steps, r)
	}
	return out
}

// choose marks, of the plans that share a finding, the first one, or the one that was asked for.
func choose(plans []planned, preferred []string) error {
	for _, id := range preferred {
		if !slices.ContainsFunc(plans, func(p planned) bool { return p.Plan.ID == id }) {
			var ids []string
			for _, p := range plans {
				ids = append(ids, p.Plan.ID)
			}
			if len(ids) == 0 {
				return fmt.Errorf("there is no plan %q: nothing was found that a plan would mend", id)
			}
			return fmt.Errorf("there is no plan %q for what was found: the plans are %s", id, strings.Join(ids, ", "))
		}
	}
	covered := map[doctor.FindingKey]string{}
	take := func(p *planned) {
		for _, k := range p.Plan.Covers {
			if covered[k] != "" {
				return
			}
		}
		for _, k := range p.Plan.Covers {
			covered[k] = p.Plan.ID
		}
		p.Chosen = true
	}
	for i := range plans {
		if slices.Contains(preferred, plans[i].Plan.ID) {
			take(&plans[i])
			if !plans[i].Chosen {
				return fmt.Errorf("plan %s can't be chosen together with the other plans that were asked for: they mend the same finding", plans[i].Plan.ID)
			}
		}
	}
	for i := range plans {
		if !plans[i].Chosen && (plans[i].asked || !plans[i].Plan.WhenAsked) {
			take(&plans[i])
		}
	}
	return nil
}

// validate refuses a plan that the engine could not carry out as it is meant.
func (e *Engine) validate(s selected, p doctor.Plan, findings []doctor.Finding) error {
	if p.Check() != s.info.ID || p.ID == s.info.ID {
		return fmt.Errorf("does not begin with %s/", s.info.ID)
	}
	if len(p.Covers) == 0 {
		return fmt.Errorf("mends no finding")
	}
	for _, k := range p.Covers {
		if !slices.ContainsFunc(findings, func(f doctor.Finding) bool { return f.Key() == k }) {
			return fmt.Errorf("mends %s of %q, which was not found", doctor.Clean(k.Code), doctor.Clean(k.Object.Name))
		}
	}
	if p.Risk < doctor.Safe || p.Risk > doctor.Dangerous {
		return fmt.Errorf("has no risk")
	}
	if _, err := doctor.ParseExpectation(string(p.Expects)); err != nil {
		return err
	}
	for _, r := range p.Requires {
		if _, err := doctor.ParseRequirement(string(r)); err != nil {
			return err
		}
	}
	if p.Database != "" && e.Target.Database(p.Database) == nil {
		return fmt.Errorf("changes the database %q, which is not configured", doctor.Clean(p.Database))
	}
	if p.Database == "" && p.Expects != doctor.ExpectNone {
		return fmt.Errorf("expects a database and names none")
	}
	if len(p.Steps) == 0 {
		return fmt.Errorf("has no steps")
	}
	if err := e.validateShut(p); err != nil {
		return err
	}
	ended := map[string]bool{}
	group := ""
	for i, step := range p.Steps {
		if err := e.validateStep(s, p, step); err != nil {
			return fmt.Errorf("step %d %w", i+1, err)
		}
		next := ""
		if step.SQL != nil && step.SQL.Mode == doctor.ModeGroup {
			next = step.SQL.Group
		}
		if next != group {
			ended[group] = true
			if next != "" && ended[next] {
				return fmt.Errorf("step %d goes on with the transaction %q, which has ended", i+1, doctor.Clean(next))
			}
			group = next
		}
	}
	return nil
}

func (e *Engine) validateStep(s selected, p doctor.Plan, step doctor.Step) error {
	switch step.Kind() {
	case doctor.KindSQL:
		q := step.SQL
		admin := q.Admin && needsAdmin(p)
		if q.Database != p.Database && !(admin && q.Database == "") || q.Database == "" && !admin {
			return fmt.Errorf("changes another database than its plan names")
		}
		if q.Admin != needsAdmin(p) {
			return fmt.Errorf("is not the administrator's, or its plan does not require one")
		}
		if q.Reload && (q.Statement != doctor.ReloadStatement || q.Mode != doctor.ModeNone || !q.Admin || len(q.Undo) > 0) {
			return fmt.Errorf("reloads in another way than the one that can be watched")
		}
		if _, err := doctor.ParseSQLMode(string(q.Mode)); err != nil {
			return err
		}
		if (q.Mode == doctor.ModeGroup) != (q.Group != "") {
			return fmt.Errorf("has a transaction group without the mode for it, or the reverse")
		}
		if strings.TrimSpace(q.Statement) == "" || q.MaxRows < 0 {
			return fmt.Errorf("has no statement, or a negative bound of rows")
		}
		if p.Expects == doctor.ExpectNone && !q.Admin {
			return fmt.Errorf("runs SQL in a plan that expects no database")
		}
	case doctor.KindEditFile:
		f := step.EditFile
		if !filepath.IsAbs(f.Path) || len(f.Splices) == 0 {
			return fmt.Errorf("edits a file without an absolute path, or without a change")
		}
		if f.Format != "" && f.Format != "yaml" {
			return fmt.Errorf("edits a file of the unknown format %q", doctor.Clean(f.Format))
		}
	case doctor.KindProbe:
		if (step.Probe.Holds == nil) == (step.Probe.Login == nil) {
			return fmt.Errorf("probes neither a query nor a login, or both")
		}
		if step.Probe.Admin && !needsAdmin(p) {
			return fmt.Errorf("asks as the administrator in a plan that does not require one")
		}
		if e.Target.Database(step.Probe.Database) == nil && !(step.Probe.Admin && step.Probe.Database == "" && step.Probe.Holds != nil) {
			return fmt.Errorf("probes the database %q, which is not configured", doctor.Clean(step.Probe.Database))
		}
	case doctor.KindOperation:
		if !slices.Contains(s.info.Operations, step.Operation.Name) {
			return fmt.Errorf("asks for the operation %q, which the check did not declare", doctor.Clean(step.Operation.Name))
		}
		if undo := step.Operation.Undo; undo != "" && !slices.Contains(s.info.Operations, undo) {
			return fmt.Errorf("is put back by the operation %q, which the check did not declare", doctor.Clean(undo))
		}
	case doctor.KindManual:
		if strings.TrimSpace(step.Manual.Text) == "" {
			return fmt.Errorf("says nothing")
		}
	default:
		return fmt.Errorf("is of no kind, or of several")
	}
	return validateSecrets(step)
}

// cleanPlan makes the words of a plan fit to be printed. Statements are left as they will run: what a terminal would
// act on is made visible where they are printed.
func (e *Engine) cleanPlan(p *doctor.Plan) {
	p.Title, p.Irreversible = cut(e.clean(p.Title), maxLine), cut(e.clean(p.Irreversible), maxLine)
	for i := range p.Steps {
		s := &p.Steps[i]
		s.Title = cut(e.clean(s.Title), maxLine)
		if s.Manual != nil {
			s.Manual = &doctor.ManualStep{Text: cut(doctor.CleanText(e.Redactor.String(s.Manual.Text)), maxText)}
		}
	}
}
