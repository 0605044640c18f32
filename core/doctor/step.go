package doctor

import (
	"context"
	"fmt"

	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// Step is one thing that a plan does. Exactly one of the pointers is set.
type Step struct {
	Title     string
	SQL       *SQLStep
	EditFile  *EditFileStep
	Probe     *ProbeStep
	Operation *OperationStep
	Manual    *ManualStep
}

// Kind is which of the closed set of steps it is.
type Kind string

const (
	KindSQL       Kind = "sql"
	KindEditFile  Kind = "edit-file"
	KindProbe     Kind = "probe"
	KindOperation Kind = "operation"
	KindManual    Kind = "manual"
)

// Kind tells which pointer is set; it is empty for a step that is not valid.
func (s Step) Kind() Kind {
	kind, n := Kind(""), 0
	set := func(is bool, k Kind) {
		if is {
			kind, n = k, n+1
		}
	}
	set(s.SQL != nil, KindSQL)
	set(s.EditFile != nil, KindEditFile)
	set(s.Probe != nil, KindProbe)
	set(s.Operation != nil, KindOperation)
	set(s.Manual != nil, KindManual)
	if n != 1 {
		return ""
	}
	return kind
}

// SQLMode says which transaction a statement runs in.
type SQLMode string

const (
	// ModeAlone: in a transaction of its own.
	ModeAlone SQLMode = "alone"
	// ModeGroup: in one transaction with its neighbours of the same Group; all of them or none.
	ModeGroup SQLMode = "group"
	// ModeNone: outside any transaction, for statements that forbid one.
	ModeNone SQLMode = "none"
)

// ParseSQLMode accepts the three words.
func ParseSQLMode(s string) (SQLMode, error) {
	switch m := SQLMode(s); m {
	case ModeAlone, ModeGroup, ModeNone:
		return m, nil
	}
	return "", fmt.Errorf("%q is not a transaction mode: alone, group or none", s)
}

// SQLStep is one SQL statement, and what makes it safe to run.
type SQLStep struct {
	Database string // label
	// Admin: as the administrator, in the database of the label; without a label, where the administrator logs in to.
	Admin     bool
	Statement string // exactly one statement, as it is printed and run
	Args      []Value
	Mode      SQLMode
	Group     string // names the transaction when Mode is ModeGroup
	// Guard must still hold just before, in the same transaction: what the plan saw is still so.
	Guard *Guard
	// MaxRows is the most rows that the statement may affect or return. One more and it is rolled back.
	MaxRows int64
	// Save is read, and stored in the journal, before the statement runs.
	Save *Save
	// Undo puts the statement's effect back, in order. Empty for what changes nothing (a lock) or can't be put back.
	Undo []UndoSQL
	// Lasting: the effect survives ROLLBACK (a plain setval), and the plan says so.
	Lasting bool
	// Verifier takes the place of the one [Masked] in Statement when it is run, and is printed and kept nowhere.
	Verifier *Verifier
	// Reload: the statement is [ReloadStatement]. It is not run while the server's files have errors, and the step is done
	// when new sessions see that they were loaded. It is put back by reloading once the files are back.
	Reload bool
}

// ReloadStatement makes a server read its configuration files again.
const ReloadStatement = "SELECT pg_reload_conf()"

// Verifier is what the server keeps of a password: SCRAM-SHA-256 of it, computed by the host. The password itself never
// reaches a statement, a log or a plan.
type Verifier struct {
	Password string // label of the database entry whose password it is; see [EditFileStep.Password]
	Salt     []byte // 16 bytes; by them an undo knows that the password was not set again since
}

// Guard is a query that must return exactly one row with the single value true.
type Guard struct {
	Query string
	Args  []Value
	Else  string // the sentence for the administrator when it does not hold
}

// Save selects the rows that a statement will change or delete, each as one column of JSON text.
type Save struct {
	Table string
	Query string // returns one text column: row_to_json(t)::text
	Args  []Value
}

// UndoSQL is one statement that puts something back.
type UndoSQL struct {
	Statement string
	Args      []Value
	// Guard must hold, else the undo is refused: something newer would be lost.
	Guard *Guard
	// ForEachSaved runs the statement once for each saved row, with the row's JSON text as $1 and Args after it.
	ForEachSaved bool
}

// Value is a typed argument: nil, string, int64, bool or []byte.
type Value struct{ V any }

// EditFileStep replaces parts of a file and keeps every other byte, the owner, the mode and the target of a link.
type EditFileStep struct {
	Path    string
	Before  string   // SHA-256, in hexadecimal, of the whole file as it was planned on
	Splices []Splice // by rising offset, not overlapping
	Format  string   // yaml: must still parse as YAML after the edit; empty: no test
	// Server is set for a file of the PostgreSQL server: it is not edited while that is not the administrator's server.
	Server *ServerFile
	// Password is the label of the database entry for which the host makes a password. It takes the place of the one
	// [Masked] in the splices, and from then on is that entry's password.
	Password string
	// Configured is the label of the database entry whose configured password takes the place of the one [Masked] in the
	// splices, which stands between double quotes. Not together with Password.
	Configured string
}

// ServerFile says which server a file belongs to.
type ServerFile struct {
	DataDir  string // holds global/pg_control
	SystemID string // that is in there, and that the administrator's server gives
}

// Splice replaces Old, which must stand at Offset of the file as it was, by New.
type Splice = synapse.Splice

// ProbeStep is an expectation that only reads: a query that must hold, or a login that must work or must fail.
type ProbeStep struct {
	Database string
	Admin    bool // Holds is asked by the administrator, as in [SQLStep.Admin]
	Holds    *Guard
	Login    *Login
}

// Login is an attempt to connect afresh as Synapse does.
type Login struct {
	Address       string // IP address or socket directory; empty for Synapse's own
	WrongPassword bool   // with a password that is certainly wrong
	MustFail      bool
	// Accepted: it is enough that the server accepts the role and its password, whether or not there is such a database
	// and the role may use it.
	Accepted bool
}

// OperationStep is long work that the plugin does under the host's eyes. Its Effects and Statements are what it says of itself,
// for the administrator to agree to: a third party's may not go beyond what its check declares, but what it then does is bounded
// only by what Synapse's role may do. SQL and edit-file steps are carried out by the host, and held to what was declared.
type OperationStep struct {
	Name    string
	Params  map[string]string // never a secret: plans are printed and kept
	Effects Effects
	// Statements are what it runs, in order, as they are printed; one that it repeats is there once.
	Statements []string
	Resumes    string // how it goes on after an interruption
	Stops      bool   // asked to stop, it ends at a point from which it goes on; others are interrupted at once
	Undo       string // name of the operation that puts it back; empty when none can
}

// Effects is all that an operation, or a check's plans, may change.
type Effects struct {
	Databases []string
	Tables    []string
	Files     []string
}

// ManualStep is what a person must do.
type ManualStep struct {
	// Text says what to do; lines indented by four spaces are commands to copy.
	Text string
}

// OperationFunc does the work of an operation step. It honours ctx, and goes on at resume when that is not empty.
type OperationFunc func(ctx context.Context, t *Target, step OperationStep, resume string, h OperationHost) error

// OperationHost is what an operation can ask of the host.
type OperationHost interface {
	Progress(Progress)
	// Save returns when the host has the rows, and the token from which to resume, on disk. Commit only after that.
	// Rows that were saved with the same token before, by an execution that was interrupted, are replaced.
	Save(ctx context.Context, resume string, rows []SavedRow) error
	// Rows hands over the rows that this step has saved, in the order in which they were saved, until each returns an error.
	// The operation that puts the step back reads them.
	Rows(ctx context.Context, each func(SavedRow) error) error
	// Stopping is closed when the administrator asks for the operation to stop where it can go on later. One that goes on
	// in chunks, and says so by [OperationStep.Stops], ends the chunk and returns [Stopped].
	Stopping() <-chan struct{}
	// Document hands over a text for the administrator, Markdown, that the host keeps as a file: what was done, row by row
	// where that matters. Name is a file name. The last text of a name counts.
	Document(name, text string)
}

// SavedRow is one row kept in the journal so that it can be put back.
type SavedRow struct {
	Table string
	JSON  string // the row as row_to_json gives it
}
