package doctor

import (
	"context"
	"time"
)

// Source answers for a set of checks: the checks of this process, or a plugin in another.
type Source interface {
	// Name is how messages call it: builtin, or the plugin's file name.
	Name() string
	// Describe says what it is and which checks it has.
	Describe(ctx context.Context) (Description, error)
	// Check runs the checks named in the request at the same time and returns when each has had its Done event,
	// or with an error that says why some have not.
	Check(ctx context.Context, req CheckRequest, events Events) error
	// Plan returns the plans that answer the findings of one check.
	Plan(ctx context.Context, req PlanRequest) ([]Plan, error)
	// Execute performs an operation step of a plan that was approved.
	Execute(ctx context.Context, req ExecuteRequest, host OperationHost) error
	// Close ends it. A plugin's process is gone when Close returns.
	Close() error
}

// Description is what a source says of itself.
type Description struct {
	Name     string
	Version  string
	Protocol int    // the protocol version spoken; 0 in process
	Path     string // the file that runs; empty in process
	Checks   []CheckInfo
}

// CheckInfo is a check as it is described across processes.
type CheckInfo struct {
	ID         string
	Title      string
	Why        string
	Needs      Needs
	Codes      []Code
	Thresholds []Threshold
	Plans      bool     // it has a Plan
	Operations []string // names, sorted
	Changes    Effects  // all that its plans may change, where a third party declares it
}

// CheckRequest asks for checks to be run.
type CheckRequest struct {
	Target   *Target
	Checks   []string
	Deadline time.Duration // for each check; 0 for none
}

// Events is told what happens while checks run. Its methods may be called from several goroutines.
type Events interface {
	// Found passes on one finding. An error says that no more are wanted, and ends the run.
	Found(check string, f Finding) error
	Progress(check string, p Progress)
	// Measured passes on one number, as Found does a finding.
	Measured(check string, m Measure) error
	// Done ends a check; it is called once for each.
	Done(check string, o Outcome) error
}

// Outcome is how a check ended, apart from what it found.
type Outcome struct {
	Status   Status // StatusOK when examined, whatever was found; StatusSkipped; StatusUnknown
	Reason   string // for skipped and unknown
	Duration time.Duration
	Coverage string // how much was examined, in one line; empty when that goes without saying
	// NeedFailed: skipped because something that it needs failed, and not because it does not apply.
	NeedFailed bool
}

// PlanRequest asks what would mend the findings of one check.
type PlanRequest struct {
	Target   *Target
	Check    string
	Findings []Finding
}

// ExecuteRequest asks for an operation to be performed.
type ExecuteRequest struct {
	Target *Target // Writable
	Check  string
	Step   OperationStep
	Resume string // the last token saved by an interrupted execution
}
