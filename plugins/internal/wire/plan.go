package wire

import (
	"errors"
	"fmt"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

var risks = enum[doctor.Risk, doctorv1.Risk]{"risk", []pair[doctor.Risk, doctorv1.Risk]{
	{doctor.Safe, doctorv1.Risk_RISK_SAFE},
	{doctor.Careful, doctorv1.Risk_RISK_CAREFUL},
	{doctor.Dangerous, doctorv1.Risk_RISK_DANGEROUS},
}}

var expectations = enum[doctor.Expectation, doctorv1.Expectation]{"expectation", []pair[doctor.Expectation, doctorv1.Expectation]{
	{doctor.ExpectSynapse, doctorv1.Expectation_EXPECTATION_SYNAPSE},
	{doctor.ExpectEmpty, doctorv1.Expectation_EXPECTATION_EMPTY},
	{doctor.ExpectAbsent, doctorv1.Expectation_EXPECTATION_ABSENT},
	{doctor.ExpectNone, doctorv1.Expectation_EXPECTATION_NONE},
}}

var requirements = enum[doctor.Requirement, doctorv1.Requirement]{"requirement", []pair[doctor.Requirement, doctorv1.Requirement]{
	{doctor.RequireStopped, doctorv1.Requirement_REQUIREMENT_SYNAPSE_STOPPED},
	{doctor.RequireAdmin, doctorv1.Requirement_REQUIREMENT_ADMIN},
	{doctor.RequireDisk, doctorv1.Requirement_REQUIREMENT_FREE_DISK},
	{doctor.RequireShut, doctorv1.Requirement_REQUIREMENT_DATABASE_SHUT},
}}

// PlanTo converts a plan. What is executed is never mended: text that is not UTF-8 is an error when it is sent.
func PlanTo(p doctor.Plan) (*doctorv1.PlannedFix, error) {
	out, err := planTo(p)
	if err != nil {
		return nil, fmt.Errorf("plan %q: %w", p.ID, err)
	}
	return out, nil
}

func planTo(p doctor.Plan) (*doctorv1.PlannedFix, error) {
	out := &doctorv1.PlannedFix{
		Id: p.ID, Title: p.Title, Database: p.Database,
		Reversible: p.Reversible, Irreversible: p.Irreversible, UndoOnFailure: p.UndoOnFailure,
		Duration: durationTo(p.Duration), DiskBytes: p.DiskBytes, Resumes: p.Resumes, WhenAsked: p.WhenAsked,
	}
	var err error
	if out.Covers, err = each(p.Covers, keyTo); err != nil {
		return nil, err
	}
	if out.Risk, err = risks.to(p.Risk); err != nil {
		return nil, err
	}
	if out.Expects, err = expectations.to(p.Expects); err != nil {
		return nil, err
	}
	if out.Requires, err = each(p.Requires, requirements.to); err != nil {
		return nil, err
	}
	out.Steps, err = each(p.Steps, stepTo)
	return out, err
}

// PlanFrom is the inverse of [PlanTo].
func PlanFrom(p *doctorv1.PlannedFix) (doctor.Plan, error) {
	if p == nil {
		return doctor.Plan{}, errors.New("a plan is missing")
	}
	out, err := planFrom(p)
	if err != nil {
		return doctor.Plan{}, fmt.Errorf("plan %q: %w", p.Id, err)
	}
	return out, nil
}

func planFrom(p *doctorv1.PlannedFix) (doctor.Plan, error) {
	out := doctor.Plan{
		ID: p.Id, Title: p.Title, Database: p.Database,
		Reversible: p.Reversible, Irreversible: p.Irreversible, UndoOnFailure: p.UndoOnFailure,
		DiskBytes: p.DiskBytes, Resumes: p.Resumes, WhenAsked: p.WhenAsked,
	}
	var err error
	if out.Duration, err = durationFrom(p.Duration); err != nil {
		return out, err
	}
	if out.Covers, err = each(p.Covers, keyFrom); err != nil {
		return out, err
	}
	if out.Risk, err = risks.from(p.Risk); err != nil {
		return out, err
	}
	if out.Expects, err = expectations.from(p.Expects); err != nil {
		return out, err
	}
	if out.Requires, err = each(p.Requires, requirements.from); err != nil {
		return out, err
	}
	out.Steps, err = each(p.Steps, stepFrom)
	return out, err
}
