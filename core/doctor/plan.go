package doctor

import (
	"fmt"
	"time"
)

// Plan is what would mend one or more findings: steps that the host executes in order, and what must hold first.
type Plan struct {
	// ID is check/what-it-does, unique in a report and the same for the same findings: --plan names it.
	ID       string
	Covers   []FindingKey // the findings it mends; plans that share one are alternatives
	Title    string       // what it does, in one sentence
	Risk     Risk
	Expects  Expectation
	Database string // label of the database that it changes; empty when it changes none
	Requires []Requirement
	Steps    []Step

	// Reversible is true when every step that changes something can be put back; otherwise Irreversible says why not.
	Reversible   bool
	Irreversible string
	// UndoOnFailure puts the earlier steps back when a step fails.
	UndoOnFailure bool
	// Resumes: a plan that was interrupted, or failed, half-way is gone on with by the next run, not put back. Until then, or
	// until it is undone, it is unsettled.
	Resumes bool
	// WhenAsked: it answers advice, or only helps; it is chosen only where its check, or the plan itself, was asked for by name.
	WhenAsked bool

	Duration  time.Duration // estimate; 0 when it is a moment
	DiskBytes int64         // estimate of disk needed while it runs

	bounds *Effects // of a third party's: see Bounds
}

// Codes are the codes that the plan covers, each once, in the order of Covers.
func (p Plan) Codes() []string {
	var codes []string
	seen := map[string]bool{}
	for _, k := range p.Covers {
		if !seen[k.Code] {
			seen[k.Code] = true
			codes = append(codes, k.Code)
		}
	}
	return codes
}

// Check is the id of the check whose findings the plan mends.
func (p Plan) Check() string { return CheckID(p.ID) }

// Manual reports whether the plan has only steps that a person must do.
func (p Plan) Manual() bool {
	for _, s := range p.Steps {
		if s.Kind() != KindManual {
			return false
		}
	}
	return true
}

// Risk is what consent is asked for.
type Risk int

const (
	// Safe plans can't lose anything and are undone by putting a file or a setting back.
	Safe Risk = iota + 1
	// Careful plans change data that Synapse relies on.
	Careful
	// Dangerous plans would destroy data if they were wrong.
	Dangerous
)

// String is the word used in reports: safe, careful or dangerous.
func (r Risk) String() string {
	switch r {
	case Safe:
		return "safe"
	case Careful:
		return "careful"
	case Dangerous:
		return "dangerous"
	}
	return fmt.Sprintf("risk(%d)", int(r))
}

// ParseRisk is the inverse of [Risk.String].
func ParseRisk(s string) (Risk, error) {
	for _, v := range []Risk{Safe, Careful, Dangerous} {
		if v.String() == s {
			return v, nil
		}
	}
	return 0, fmt.Errorf("%q is not a risk: safe, careful or dangerous", s)
}

// Expectation is what the plan's database must be before anything is changed.
type Expectation string

const (
	// ExpectSynapse: Synapse's schema, users of this server_name, not empty.
	ExpectSynapse Expectation = "synapse"
	// ExpectEmpty: it exists, and holds nothing of a homeserver: no table, or Synapse's schema without a user, or what a port
	// has put there. Whether that was worked with since is for the port itself to see.
	ExpectEmpty Expectation = "empty"
	// ExpectAbsent: no such database.
	ExpectAbsent Expectation = "absent"
	// ExpectNone: only files are changed; nothing is connected to.
	ExpectNone Expectation = "none"
)

// ParseExpectation accepts the four words.
func ParseExpectation(s string) (Expectation, error) {
	switch e := Expectation(s); e {
	case ExpectSynapse, ExpectEmpty, ExpectAbsent, ExpectNone:
		return e, nil
	}
	return "", fmt.Errorf("%q is not what a plan can expect: synapse, empty, absent or none", s)
}

// Requirement is what must hold before a plan is applied.
type Requirement string

const (
	// RequireStopped: Synapse and every worker are stopped.
	RequireStopped Requirement = "synapse-stopped"
	// RequireAdmin: an administrator's connection.
	RequireAdmin Requirement = "admin"
	// RequireDisk: Plan.DiskBytes are free.
	RequireDisk Requirement = "free-disk"
	// RequireShut: the database accepts nobody else until the plan is finished or undone.
	RequireShut Requirement = "database-shut"
)

// ParseRequirement accepts the known words.
func ParseRequirement(s string) (Requirement, error) {
	switch r := Requirement(s); r {
	case RequireStopped, RequireAdmin, RequireDisk, RequireShut:
		return r, nil
	}
	return "", fmt.Errorf("%q is not a requirement that this version knows", s)
}
