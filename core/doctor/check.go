package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Check is one concern that can be examined, and, where Plan is set, mended.
type Check struct {
	ID    string // lower-case words joined by hyphens, unique among all loaded plugins
	Title string // what is sound when the check is ok, in at most 60 characters
	Why   string // what an administrator loses when it is not, in one or two sentences
	Needs Needs  // what must be there before Run is called
	Codes []Code // every code that Run may report, in the order of documentation

	// Thresholds are the numbers that [Target.Threshold] may be asked for.
	Thresholds []Threshold

	// Run examines t and reports each fault as soon as it is known. It only reads.
	// An error makes the check's status unknown and keeps what was found so far; [Skip] makes it skipped.
	Run func(ctx context.Context, t *Target, r Reporter) error

	// Plan answers the check's own findings with what would mend them; it only reads.
	// Plans that cover the same finding are alternatives, the preferred one first. Nil when nothing can be done.
	Plan func(ctx context.Context, t *Target, findings []Finding) ([]Plan, error)

	// Operations are the long steps that Plan may ask for, by name.
	Operations map[string]OperationFunc

	// Changes is all that the plans may change. It must be complete in a third party's check: a plan, or a step, that goes
	// beyond it is refused. Tables are named as in the schema public, or with their schema; files by their absolute path.
	// Built-in checks leave it empty.
	Changes Effects
}

// Code is one fault that a check can find.
type Code struct {
	ID       string   // check/kebab-fault; stable for ever
	Title    string   // the fault in a few words
	Severity Severity // the usual severity; a finding may differ where circumstances do
}

// Needs says what a check needs before it can run. The engine decides it once, before any check runs.
type Needs uint32

const (
	// NeedsConfig: a homeserver.yaml was found and read.
	NeedsConfig Needs = 1 << iota
	// NeedsPostgresEntry: a configured database is PostgreSQL, whether or not it answers.
	NeedsPostgresEntry
	// NeedsPostgres: Synapse's login works on a configured PostgreSQL database.
	NeedsPostgres
	// NeedsSynapse: that database holds Synapse's schema and this server_name's users.
	NeedsSynapse
	// NeedsSQLite: a SQLite file is configured or was given.
	NeedsSQLite
	// NeedsAdmin: an administrator's connection to the PostgreSQL server, proved to be the one behind the database's entry.
	NeedsAdmin
)

// Has reports whether n includes all of m.
func (n Needs) Has(m Needs) bool { return n&m == m }

// AllNeeds is every need this version knows; a plugin that asks for more needs a newer host.
const AllNeeds = NeedsConfig | NeedsPostgresEntry | NeedsPostgres | NeedsSynapse | NeedsSQLite | NeedsAdmin

var needNames = []string{"configuration", "postgres-entry", "postgres", "synapse", "sqlite", "admin"}

// String lists the needs by name, separated by commas.
func (n Needs) String() string {
	var names []string
	for i, name := range needNames {
		if n&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// Reporter receives what a running check finds. Its methods may be called from several goroutines.
type Reporter interface {
	// Find reports one fault. Check, and Database where the target has just one, are filled in when empty.
	Find(Finding)
	// Progress says how far a long examination is.
	Progress(Progress)
	// Covered says, in one line, how much of what there was has been examined. The last call counts. What was left out for
	// another reason than the administrator's own is an error of Run as well.
	Covered(text string)
	// Measure tells a number that was taken. The same one, by its key, may be told once.
	Measure(Measure)
}

// Progress is how far something long has come.
type Progress struct {
	Text  string // what is being done, a few words
	Done  int64  // of Total, in Unit; 0 when not known
	Total int64  // 0 when not known
	Unit  string // pages, rows, bytes, tables; may be empty

	// Rows is how many rows have been dealt with since it began, where Unit is something else; 0 when not counted.
	Rows int64
	// Parts are what is being worked on at this moment: a few tables or indexes, each with its own progress.
	Parts []Part
	// Note is something worth telling at once, in one sentence: a warning that the report will have too. It is told once.
	Note string
}

// Part is a table, an index or the like that is being worked on. At most [MaxParts] are told of.
type Part struct {
	Name  string
	Done  int64 // of Total, in the progress's Unit
	Total int64 // 0 when not known
}

// MaxParts is the most parts of one progress that are passed on.
const MaxParts = 16

// SkipError says that a check does not apply, and why.
type SkipError struct {
	Reason string
	// NeedFailed: what the check needs is there and does not work, as opposed to not applying here. Such a skip must not
	// read as healthy: a check that was asked for by name has then not been completed.
	NeedFailed bool
}

func (e *SkipError) Error() string { return e.Reason }

// Skip makes the error with which Run says that the check does not apply to this target.
func Skip(format string, args ...any) error { return &SkipError{Reason: fmt.Sprintf(format, args...)} }

// SkipFailed is [Skip] for a need that failed: no connection, say.
func SkipFailed(format string, args ...any) error {
	return &SkipError{Reason: fmt.Sprintf(format, args...), NeedFailed: true}
}

// SkipReason returns the reason when err is or wraps a [SkipError].
func SkipReason(err error) (string, bool) {
	if s, ok := errors.AsType[*SkipError](err); ok {
		return s.Reason, true
	}
	return "", false
}

// UnchangedError is how an operation ends that has had no effect at all, because something does not hold. The plan is then
// refused, not failed half-way.
type UnchangedError struct{ Reason string }

func (e *UnchangedError) Error() string { return e.Reason }

// StoppedError is how an operation ends that was asked to stop ([OperationHost.Stopping]) and did, at a point from which
// it goes on.
type StoppedError struct{ Hint string }

func (e *StoppedError) Error() string { return "stopped, as it was asked to. " + e.Hint }

// Stopped makes the error of an operation that stopped when it was asked to; the hint says, in a sentence, how to go on.
func Stopped(format string, args ...any) error {
	return &StoppedError{Hint: fmt.Sprintf(format, args...)}
}

// Unchanged makes the error of an operation that has changed nothing.
func Unchanged(format string, args ...any) error {
	return &UnchangedError{Reason: fmt.Sprintf(format, args...)}
}
