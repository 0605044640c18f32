package doctor

import (
	"fmt"
	"strings"
	"time"
)

// Severity is how bad a finding is. The zero value is not a severity.
type Severity int

const (
	// Info is advice, or a fact worth knowing.
	Info Severity = iota + 1
	// Warning is what may hurt.
	Warning
	// Error is what is broken.
	Error
)

// String is the word used in reports: info, warning or error.
func (s Severity) String() string {
	switch s {
	case Info:
		return "info"
	case Warning:
		return "warning"
	case Error:
		return "error"
	}
	return fmt.Sprintf("severity(%d)", int(s))
}

// ParseSeverity is the inverse of [Severity.String].
func ParseSeverity(s string) (Severity, error) {
	for _, v := range []Severity{Info, Warning, Error} {
		if v.String() == s {
			return v, nil
		}
	}
	return 0, fmt.Errorf("%q is not a severity: info, warning or error", s)
}

// Finding is one fault that a check found.
type Finding struct {
	Code     string // check/kebab-fault
	Severity Severity
	Database string // label of the database entry; empty when it concerns none
	Object   Object

	Summary  string // the fault in one sentence
	Observed string // what is there
	Expected string // what ought to be there
	// Remedy says what to do. Lines indented by four spaces are commands or SQL to copy and are printed verbatim.
	Remedy string
	// Fixable is true when the check's Plan can do something about it.
	Fixable bool
	// Evidence is what the finding rests on, by name; bounded by [MaxEvidence] entries.
	Evidence map[string]string

	// Ignored is set where the administrator lives with it. It is shown all the same, and changes no status and no exit code.
	Ignored *Ignored
}

// Ignored is why a finding is lived with.
type Ignored struct {
	Why   string
	Until time.Time // the last day; zero: for good
}

// Words says it in a few words.
func (i Ignored) Words() string {
	if i.Until.IsZero() {
		return "ignored: " + i.Why
	}
	return "ignored until " + i.Until.Format(time.DateOnly) + ": " + i.Why
}

// MaxEvidence is the most entries of evidence that are kept of a finding.
const MaxEvidence = 64

// Object is what a finding is about.
type Object struct {
	Kind string // sequence, index, table, database, role, file, setting, address, …
	Name string // the bare name; a file's path with the line: pg_hba.conf:91
}

// CheckID is the part of a code before the slash.
func CheckID(code string) string {
	id, _, _ := strings.Cut(code, "/")
	return id
}

// Key identifies a finding within a report: the same fault of the same object has the same key in every run.
func (f Finding) Key() FindingKey { return FindingKey{f.Code, f.Database, f.Object} }

// FindingKey is what makes two findings the same fault.
type FindingKey struct {
	Code     string
	Database string
	Object   Object
}

// Status is the outcome of a check: the worst severity among its findings, or why there is none.
type Status int

const (
	// StatusOK: examined, and nothing was found.
	StatusOK Status = iota + 1
	// StatusInfo, StatusWarning and StatusError: the worst finding has this severity.
	StatusInfo
	StatusWarning
	StatusError
	// StatusSkipped: does not apply, or needs something that is absent. Always with a reason.
	StatusSkipped
	// StatusUnknown: could not be examined, or not wholly. Always with a reason; never healthy.
	StatusUnknown
)

// Statuses are all of them, in the order of a report's summary.
var Statuses = []Status{StatusOK, StatusInfo, StatusWarning, StatusError, StatusSkipped, StatusUnknown}

// String is the word used in reports.
func (s Status) String() string {
	switch s {
	case StatusOK:
		return "ok"
	case StatusInfo:
		return "info"
	case StatusWarning:
		return "warning"
	case StatusError:
		return "error"
	case StatusSkipped:
		return "skipped"
	case StatusUnknown:
		return "unknown"
	}
	return fmt.Sprintf("status(%d)", int(s))
}

// ParseStatus is the inverse of [Status.String].
func ParseStatus(s string) (Status, error) {
	for _, v := range Statuses {
		if v.String() == s {
			return v, nil
		}
	}
	return 0, fmt.Errorf("%q is not a status", s)
}

// Worst is the status that findings give a check that was wholly examined. Ignored ones count for nothing.
func Worst(findings []Finding) Status {
	worst := StatusOK
	for _, f := range findings {
		if f.Ignored != nil {
			continue
		}
		switch f.Severity {
		case Info:
			worst = max(worst, StatusInfo)
		case Warning:
			worst = max(worst, StatusWarning)
		case Error:
			worst = max(worst, StatusError)
		}
	}
	return worst
}
