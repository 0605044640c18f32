package wire

import (
	"errors"
	"fmt"
	"maps"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

var severities = enum[doctor.Severity, doctorv1.Severity]{"severity", []pair[doctor.Severity, doctorv1.Severity]{
	{doctor.Info, doctorv1.Severity_SEVERITY_INFO},
	{doctor.Warning, doctorv1.Severity_SEVERITY_WARNING},
	{doctor.Error, doctorv1.Severity_SEVERITY_ERROR},
}}

// A check's own status is one of three; the worst severity is the host's to say.
var statuses = enum[doctor.Status, doctorv1.Status]{"status", []pair[doctor.Status, doctorv1.Status]{
	{doctor.StatusOK, doctorv1.Status_STATUS_OK},
	{doctor.StatusSkipped, doctorv1.Status_STATUS_SKIPPED},
	{doctor.StatusUnknown, doctorv1.Status_STATUS_UNKNOWN},
}}

// FindingTo converts a finding. Text that is not UTF-8 is mended: a finding is made of words for people.
func FindingTo(f doctor.Finding) (*doctorv1.Finding, error) {
	severity, err := severities.to(f.Severity)
	if err != nil {
		return nil, fmt.Errorf("finding %q: %w", f.Code, err)
	}
	out := &doctorv1.Finding{
		Code: words(f.Code), Severity: severity, Database: words(f.Database), Object: objectTo(f.Object),
		Summary: words(f.Summary), Observed: words(f.Observed), Expected: words(f.Expected), Remedy: words(f.Remedy),
		Fixable: f.Fixable,
	}
	if len(f.Evidence) > 0 {
		out.Evidence = make(map[string]string, len(f.Evidence))
		for k, v := range f.Evidence {
			out.Evidence[words(k)] = words(v)
		}
	}
	return out, nil
}

// FindingFrom is the inverse of [FindingTo].
func FindingFrom(f *doctorv1.Finding) (doctor.Finding, error) {
	if f == nil {
		return doctor.Finding{}, errors.New("a finding is missing")
	}
	severity, err := severities.from(f.Severity)
	if err != nil {
		return doctor.Finding{}, fmt.Errorf("finding %q: %w", f.Code, err)
	}
	out := doctor.Finding{
		Code: f.Code, Severity: severity, Database: f.Database, Object: objectFrom(f.Object),
		Summary: f.Summary, Observed: f.Observed, Expected: f.Expected, Remedy: f.Remedy, Fixable: f.Fixable,
	}
	if len(f.Evidence) > 0 {
		out.Evidence = maps.Clone(f.Evidence)
	}
	return out, nil
}

func objectTo(o doctor.Object) *doctorv1.Object {
	if o == (doctor.Object{}) {
		return nil
	}
	return &doctorv1.Object{Kind: words(o.Kind), Name: words(o.Name)}
}

func objectFrom(o *doctorv1.Object) doctor.Object {
	return doctor.Object{Kind: o.GetKind(), Name: o.GetName()}
}

func keyTo(k doctor.FindingKey) (*doctorv1.FindingKey, error) {
	return &doctorv1.FindingKey{Code: k.Code, Database: k.Database, Object: objectTo(k.Object)}, nil
}

func keyFrom(k *doctorv1.FindingKey) (doctor.FindingKey, error) {
	if k == nil {
		return doctor.FindingKey{}, errors.New("the key of a finding is missing")
	}
	return doctor.FindingKey{Code: k.Code, Database: k.Database, Object: objectFrom(k.Object)}, nil
}

func progressTo(p doctor.Progress) *doctorv1.Progress {
	out := &doctorv1.Progress{Text: words(p.Text), Done: p.Done, Total: p.Total, Unit: words(p.Unit), Rows: p.Rows, Note: clip(p.Note, maxErrorText)}
	for _, part := range p.Parts[:min(len(p.Parts), doctor.MaxParts)] {
		out.Parts = append(out.Parts, &doctorv1.Part{Name: words(part.Name), Done: part.Done, Total: part.Total})
	}
	return out
}

func progressFrom(p *doctorv1.Progress) doctor.Progress {
	out := doctor.Progress{Text: p.GetText(), Done: p.GetDone(), Total: p.GetTotal(), Unit: p.GetUnit(), Rows: p.GetRows(), Note: p.GetNote()}
	for _, part := range p.GetParts()[:min(len(p.GetParts()), doctor.MaxParts)] {
		out.Parts = append(out.Parts, doctor.Part{Name: part.GetName(), Done: part.GetDone(), Total: part.GetTotal()})
	}
	return out
}

func outcomeTo(o doctor.Outcome) (*doctorv1.Done, error) {
	status, err := statuses.to(o.Status)
	if err != nil {
		return nil, err
	}
	return &doctorv1.Done{Status: status, Reason: words(o.Reason), Duration: durationTo(o.Duration), NeedFailed: o.NeedFailed, Coverage: words(o.Coverage)}, nil
}

func outcomeFrom(d *doctorv1.Done) (doctor.Outcome, error) {
	status, err := statuses.from(d.GetStatus())
	if err != nil {
		return doctor.Outcome{}, err
	}
	took, err := durationFrom(d.GetDuration())
	if err != nil {
		return doctor.Outcome{}, err
	}
	if status != doctor.StatusOK && d.GetReason() == "" {
		return doctor.Outcome{}, fmt.Errorf("status %s has no reason", status)
	}
	return doctor.Outcome{Status: status, Reason: d.GetReason(), Duration: took, NeedFailed: d.GetNeedFailed(), Coverage: d.GetCoverage()}, nil
}
