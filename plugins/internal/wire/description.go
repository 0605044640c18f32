package wire

import (
	"errors"
	"fmt"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

// DescriptionTo converts what a plugin says of itself. Protocol and Path are the host's to know.
func DescriptionTo(d doctor.Description) (*doctorv1.DescribeResponse, error) {
	checks, err := each(d.Checks, checkTo)
	if err != nil {
		return nil, err
	}
	return &doctorv1.DescribeResponse{Name: d.Name, Version: d.Version, Checks: checks}, nil
}

// DescriptionFrom is the inverse of [DescriptionTo].
func DescriptionFrom(d *doctorv1.DescribeResponse) (doctor.Description, error) {
	checks, err := each(d.GetChecks(), checkFrom)
	if err != nil {
		return doctor.Description{}, err
	}
	return doctor.Description{Name: d.GetName(), Version: d.GetVersion(), Checks: checks}, nil
}

func checkTo(c doctor.CheckInfo) (*doctorv1.CheckInfo, error) {
	needs, err := needsTo(c.Needs)
	if err != nil {
		return nil, fmt.Errorf("check %q: %w", c.ID, err)
	}
	codes, err := each(c.Codes, codeTo)
	if err != nil {
		return nil, fmt.Errorf("check %q: %w", c.ID, err)
	}
	return &doctorv1.CheckInfo{
		Id: c.ID, Title: c.Title, Why: c.Why, Needs: needs, Codes: codes, Plans: c.Plans, Operations: c.Operations,
		Changes: effectsTo(c.Changes), Thresholds: thresholdsTo(c.Thresholds),
	}, nil
}

func checkFrom(c *doctorv1.CheckInfo) (doctor.CheckInfo, error) {
	if c == nil {
		return doctor.CheckInfo{}, errors.New("a check is missing")
	}
	needs, err := needsFrom(c.Needs)
	if err != nil {
		return doctor.CheckInfo{}, fmt.Errorf("check %q: %w", c.Id, err)
	}
	codes, err := each(c.Codes, codeFrom)
	if err != nil {
		return doctor.CheckInfo{}, fmt.Errorf("check %q: %w", c.Id, err)
	}
	return doctor.CheckInfo{
		ID: c.Id, Title: c.Title, Why: c.Why, Needs: needs, Codes: codes, Plans: c.Plans, Operations: c.Operations,
		Changes: effectsFrom(c.Changes), Thresholds: thresholdsFrom(c.Thresholds),
	}, nil
}

func codeTo(c doctor.Code) (*doctorv1.Code, error) {
	severity, err := severities.to(c.Severity)
	if err != nil {
		return nil, fmt.Errorf("code %q: %w", c.ID, err)
	}
	return &doctorv1.Code{Id: c.ID, Title: c.Title, Severity: severity}, nil
}

func codeFrom(c *doctorv1.Code) (doctor.Code, error) {
	if c == nil {
		return doctor.Code{}, errors.New("a code is missing")
	}
	severity, err := severities.from(c.Severity)
	if err != nil {
		return doctor.Code{}, fmt.Errorf("code %q: %w", c.Id, err)
	}
	return doctor.Code{ID: c.Id, Title: c.Title, Severity: severity}, nil
}
