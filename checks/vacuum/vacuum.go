// Package vacuum examines a homeserver's SQLite file: whether it can be copied and ported as it lies there. It never writes a
// byte, neither to the file nor beside it. Its fix makes a consistent snapshot next to the file. It imports core/doctor,
// core/synapse, core/sqlitedb and core/port.
package vacuum

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// The faults. An administrator may rely on each.
const (
	Absent       = "vacuum/absent"
	EmptyFile    = "vacuum/empty-file"
	NotSQLite    = "vacuum/not-sqlite"
	NotSynapse   = "vacuum/not-synapse"
	Truncated    = "vacuum/truncated"
	Corrupt      = "vacuum/corrupt"
	HotJournal   = "vacuum/hot-journal"
	AutoVacuumOn = "vacuum/auto-vacuum-on"
	NotInFile    = "vacuum/wal-not-checkpointed"
	WALMissing   = "vacuum/wal-missing"
	Vacuumed     = "vacuum/vacuumed-between-runs"
	Orphans      = "vacuum/orphaned-rows"
	Scheduled    = "vacuum/scheduled"
	InUse        = "vacuum/in-use"
)

// Check is the check vacuum.
var Check = doctor.Check{
	ID:    "vacuum",
	Title: "The SQLite file can be copied and ported as it is",
	Why: "A copy of a SQLite file that is in use lacks what was written last, and a VACUUM renumbers rows: " +
		"a port that goes by their numbers then loses some and stores others twice.",
	Needs: doctor.NeedsSQLite,
	Codes: []doctor.Code{
		{ID: Absent, Title: "the SQLite file is not there", Severity: doctor.Error},
		{ID: EmptyFile, Title: "the SQLite file is empty", Severity: doctor.Error},
		{ID: NotSQLite, Title: "the file is not a SQLite database", Severity: doctor.Error},
		{ID: NotSynapse, Title: "the file is not this homeserver's database", Severity: doctor.Error},
		{ID: Truncated, Title: "the file ends too early", Severity: doctor.Error},
		{ID: Corrupt, Title: "the file is damaged", Severity: doctor.Error},
		{ID: HotJournal, Title: "a transaction was cut off, and its undo is still to be applied", Severity: doctor.Error},
		{ID: AutoVacuumOn, Title: "auto_vacuum is on", Severity: doctor.Error},
		{ID: NotInFile, Title: "committed rows are only in the -wal", Severity: doctor.Warning},
		{ID: WALMissing, Title: "the -wal may have been left behind", Severity: doctor.Info},
		{ID: Vacuumed, Title: "the file was VACUUMed since it was ported", Severity: doctor.Warning},
		{ID: Orphans, Title: "rows refer to others that are not there", Severity: doctor.Warning},
		{ID: Scheduled, Title: "something VACUUMs the file at set times", Severity: doctor.Warning},
		{ID: InUse, Title: "a process has the file open", Severity: doctor.Info},
	},
	Run:        run,
	Plan:       plan,
	Operations: map[string]doctor.OperationFunc{"snapshot": snapshot, "remove-snapshot": removeSnapshot},
}

func run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	return check{places: scheduled{root: "/"}}.run(ctx, t, r)
}

// check is the check with what a test may replace.
type check struct {
	places scheduled
}

func (c check) run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	var unread []error
	var covered []string
	for _, d := range t.Meeting(doctor.NeedsSQLite) {
		x := &examination{target: t, database: d, Reporter: r}
		if err := x.examine(ctx); err != nil {
			unread = append(unread, err)
		}
		unseen := c.places.examine(x)
		covered = append(covered, x.covered...)
		covered = append(covered, unseen...)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	r.Covered(strings.Join(covered, "; "))
	return errors.Join(unread...)
}

// examination is one file being examined.
type examination struct {
	doctor.Reporter
	target   *doctor.Target
	database *doctor.Database

	state    sqlitedb.State
	snapshot string // the newest snapshot that still stands for the file; empty without one
	covered  []string
}

// examine returns an error when something could not be looked at.
func (x *examination) examine(ctx context.Context) error {
	path := x.database.Path
	s, err := sqlitedb.Look(ctx, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		x.absent()
		return nil
	case err != nil:
		if e, ok := errors.AsType[*sqlitedb.NotSQLiteError](err); ok {
			x.notSQLite(e)
			return nil
		}
		return err
	}
	x.state = s
	x.snapshot = currentSnapshot(s)
	unseen := x.users()
	x.autoVacuum()
	if s.Truncated() {
		x.truncated()
		return unseen
	}
	x.pending()
	return errors.Join(unseen, x.content(ctx), x.vacuumed(ctx))
}

// find reports a finding about the file.
func (x *examination) find(f doctor.Finding) {
	f.Database = x.database.Label
	if f.Object == (doctor.Object{}) {
		f.Object = doctor.Object{Kind: "file", Name: x.database.Path}
	}
	x.Find(f)
}

// findUncopied reports a finding that a snapshot is the answer to. Once there is one, the file is the original of it: what is
// the matter with it stays said, and nothing is left to do about it.
func (x *examination) findUncopied(f doctor.Finding, without string) {
	f.Fixable = x.snapshot == ""
	if f.Fixable {
		f.Remedy = without
	} else {
		f.Object = doctor.Object{Kind: "original", Name: x.database.Path}
		f.Summary += fmt.Sprintf("; %s is a snapshot of it", filepath.Base(x.snapshot))
		f.Remedy = fmt.Sprintf("Read, copy or port its snapshot instead, which has what the file had at %s:\n    %s\n"+
			"The file itself stays as it is. For a newer snapshot, remove this one and run synapse-doctor fix vacuum --apply again.",
			modified(x.snapshot), x.snapshot)
		if f.Evidence == nil {
			f.Evidence = map[string]string{}
		}
		f.Evidence["snapshot"] = x.snapshot
	}
	x.find(f)
}

// name is the file's name in sentences.
func (x *examination) name() string { return filepath.Base(x.database.Path) }
