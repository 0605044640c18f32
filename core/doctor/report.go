package doctor

import "time"

// Report is the outcome of a run of checks. Every list in it has a fixed order.
type Report struct {
	DoctorVersion string
	StartedAt     time.Time
	Duration      time.Duration
	Target        TargetInfo
	Plugins       []PluginInfo  // builtin first, then by name
	Checks        []CheckResult // in the order of the plugins and their descriptions
	Earlier       Earlier       // what the measures are compared with
	Since         *Since        // how it stands against a recorded run; nil when that was not asked for
}

// TargetInfo is what a report says of the target.
type TargetInfo struct {
	ServerName  string
	ConfigFiles []string
	Databases   []DatabaseInfo
}

// DatabaseInfo is what a report says of one database.
type DatabaseInfo struct {
	Label         string
	Engine        Engine
	Host          string // or the socket's directory; empty for SQLite
	Port          int    // 0 for SQLite
	Database      string // or the SQLite file
	ServerVersion string // 15.18; empty when it could not be asked
}

// PluginInfo is what a report says of one plugin.
type PluginInfo struct {
	Name     string
	Version  string
	Protocol int
	Path     string
	Checks   []string
	Status   Status // StatusOK or StatusUnknown
	Reason   string
}

// CheckResult is one check's part of a report.
type CheckResult struct {
	ID       string
	Title    string
	Status   Status
	Reason   string // for skipped and unknown
	Coverage string // how much was examined, in one line; empty when that goes without saying
	Duration time.Duration
	Findings []Finding // worst first, then by code, database and object
	Measures []Measure // in the order in which they were told
	// Asked: it was selected by its name, or by one of its codes.
	Asked bool
	// NeedFailed: skipped because a need failed, and not because it does not apply.
	NeedFailed bool
}

// Summary counts the checks of a report by status.
func (r *Report) Summary() map[Status]int {
	n := map[Status]int{}
	for _, s := range Statuses {
		n[s] = 0
	}
	for _, c := range r.Checks {
		n[c.Status]++
	}
	return n
}

// Since is how a report stands against a recorded run of the same server.
type Since struct {
	Run           string // its id
	At            time.Time
	New           []FindingKey
	Resolved      []FindingKey // found then, examined now, and not found again
	Persisting    int
	NotComparable int // found by checks that did not examine anything then
}

// FixReport is the outcome of planning, and perhaps applying, fixes.
type FixReport struct {
	Applied bool // --apply was given and at least one plan was started
	Plans   []PlanResult
	Before  *Report
	After   *Report // nil when nothing was applied
}

// PlanResult is one plan and what became of it.
type PlanResult struct {
	Plan   Plan
	Chosen bool
	Status PlanStatus
	Reason string
	Steps  []StepResult // as many as Plan.Steps
}

// StepResult is what became of one step.
type StepResult struct {
	Status StepStatus
	Diff   string // of an edit-file step, secrets redacted
	Note   string // what is worth knowing of how it went
}

// PlanStatus is how far a plan has come.
type PlanStatus string

const (
	PlanPlanned PlanStatus = "planned" // not applied: no --apply, or not chosen
	PlanApplied PlanStatus = "applied"
	PlanRefused PlanStatus = "refused" // a gate, a precondition or consent was missing; nothing has changed
	PlanFailed  PlanStatus = "failed"
	PlanManual  PlanStatus = "manual" // a person must do it
)

// StepStatus is how far a step has come.
type StepStatus string

const (
	StepPlanned StepStatus = "planned"
	StepApplied StepStatus = "applied"
	StepFailed  StepStatus = "failed"
	StepUndone  StepStatus = "undone"
	StepSkipped StepStatus = "skipped" // an earlier step failed
	StepManual  StepStatus = "manual"
)
