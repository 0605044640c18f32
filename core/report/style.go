package report

import "github.com/synapse-doctor/synapse-doctor/core/doctor"

// Colour is decoration: every state also has a word and a sign, so that nothing is lost without it. Only colours of
// the 16 that every terminal has, and of those the ones that read on a light and on a dark ground (no yellow, no blue).
const (
	plain   = ""
	bold    = "1"
	red     = "31"
	redBold = "1;31"
	green   = "32"
	magenta = "35"
	cyan    = "36"
)

func (o Options) paint(style, s string) string {
	if !o.Color || style == plain || s == "" {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}

// look is how a state is shown.
type look struct {
	sign, word, style string
}

func (l look) String() string { return l.sign + " " + l.word }

func statusLook(s doctor.Status) look {
	switch s {
	case doctor.StatusOK:
		return look{"✓", "ok", green}
	case doctor.StatusInfo:
		return look{"i", "info", cyan}
	case doctor.StatusWarning:
		return look{"!", "warning", magenta}
	case doctor.StatusError:
		return look{"✗", "ERROR", redBold}
	case doctor.StatusSkipped:
		return look{"-", "skipped", plain}
	}
	return look{"?", s.String(), red}
}

// findingLook is a finding's severity, unless it is ignored.
func findingLook(f doctor.Finding) look {
	if f.Ignored != nil {
		return look{"-", "ignored", plain}
	}
	return severityLook(f.Severity)
}

func severityLook(s doctor.Severity) look {
	switch s {
	case doctor.Info:
		return statusLook(doctor.StatusInfo)
	case doctor.Warning:
		return statusLook(doctor.StatusWarning)
	case doctor.Error:
		return statusLook(doctor.StatusError)
	}
	return look{"?", s.String(), red}
}

func planLook(s doctor.PlanStatus) look {
	switch s {
	case doctor.PlanApplied:
		return look{"✓", "applied", green}
	case doctor.PlanFailed:
		return look{"✗", "FAILED", redBold}
	case doctor.PlanRefused:
		return look{"!", "refused", magenta}
	case doctor.PlanManual:
		return look{"i", "yours to do", cyan}
	case doctor.PlanPlanned:
		return look{"-", "planned", plain}
	}
	return look{"?", string(s), red}
}

func stepLook(s doctor.StepStatus) look {
	switch s {
	case doctor.StepApplied:
		return look{"✓", "done", green}
	case doctor.StepFailed:
		return look{"✗", "FAILED", redBold}
	case doctor.StepUndone:
		return look{"-", "put back", magenta}
	case doctor.StepSkipped:
		return look{"-", "not reached", plain}
	case doctor.StepManual:
		return look{"i", "yours to do", cyan}
	}
	return look{"-", string(s), plain}
}

// rank orders statuses for reading: what is broken, what could not be looked at, then the rest.
func rank(s doctor.Status) int {
	switch s {
	case doctor.StatusError:
		return 0
	case doctor.StatusWarning:
		return 2
	case doctor.StatusInfo:
		return 3
	case doctor.StatusOK:
		return 4
	case doctor.StatusSkipped:
		return 5
	}
	return 1
}
