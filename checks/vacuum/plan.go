package vacuum

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// copySpeed is an estimate: bytes a second, reading and writing on the same disk, with everything counted after.
const copySpeed = 120 << 20

// plan makes one plan for each file of which a snapshot helps.
func plan(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
	var plans []doctor.Plan
	for _, d := range t.Meeting(doctor.NeedsSQLite) {
		var covers []doctor.FindingKey
		alarming := false
		for _, f := range findings {
			if f.Fixable && f.Database == d.Label {
				covers = append(covers, f.Key())
				alarming = alarming || f.Severity > doctor.Info
			}
		}
		if len(covers) == 0 {
			continue
		}
		path, err := filepath.Abs(d.Path)
		if err != nil {
			return nil, err
		}
		s, err := sqlitedb.Look(ctx, path)
		if err != nil {
			return nil, err
		}
		p := snapshotPlan(s, freeName(path))
		p.Covers, p.WhenAsked = covers, !alarming
		if len(t.Databases) > 1 && d.Label != "main" && d.Label != "sqlite" {
			p.ID += "-" + d.Label
		}
		plans = append(plans, p)
	}
	return plans, nil
}

func snapshotPlan(s sqlitedb.State, to string) doctor.Plan {
	w := wayOf(s)
	statements, how := w.describe(s, to)
	size := s.Size + s.WAL.Size
	return doctor.Plan{
		ID:            "vacuum/snapshot",
		Title:         fmt.Sprintf("Make a consistent snapshot of %s beside it: %s", s.Path, filepath.Base(to)),
		Risk:          doctor.Safe,
		Expects:       doctor.ExpectNone,
		Reversible:    true,
		UndoOnFailure: true,
		Duration:      time.Duration(float64(size) / copySpeed * float64(time.Second)).Round(time.Second),
		DiskBytes:     w.disk(s),
		Steps: []doctor.Step{{
			Title: how,
			Operation: &doctor.OperationStep{
				Name:       "snapshot",
				Params:     map[string]string{"file": s.Path, "snapshot": to},
				Effects:    doctor.Effects{Files: []string{to}},
				Statements: statements,
				Resumes:    "What was begun is removed, and the snapshot is made anew.",
				Undo:       "remove-snapshot",
			},
		}},
	}
}

// way is how a snapshot is made.
type way int

const (
	// plain: nobody uses the file and nothing waits beside it: it is copied.
	plain way = iota
	// vacuumed: the same, and auto_vacuum is on: it is written anew without.
	vacuumed
	// recovered: something waits beside it. Copies of both are made, and SQLite applies it there.
	recovered
	// shared: somebody uses it, or may: it is read by SQLite's own protocol, in one transaction.
	shared
)

func wayOf(s sqlitedb.State) way {
	// Who uses a file with a -wal has a -shm beside it too; where there is none, opening it by the protocol would make one.
	unknown := s.Users.Unseen != 0 && (!s.Header.WAL || s.Index.Exists)
	switch {
	case s.Users.Any() || unknown && !s.Journal.Valid:
		return shared
	case s.Pending():
		return recovered
	case s.Header.AutoVacuum != sqlitedb.AutoVacuumNone:
		return vacuumed
	}
	return plain
}

// describe gives the statements that are run, and the title of the step.
func (w way) describe(s sqlitedb.State, to string) (statements []string, title string) {
	name := filepath.Base(s.Path)
	var off []string
	without := ""
	if s.Header.AutoVacuum != sqlitedb.AutoVacuumNone {
		off = []string{"PRAGMA auto_vacuum = 0", "VACUUM INTO " + literal(to+".partial")}
		without = ", with auto_vacuum off"
	}
	switch w {
	case shared:
		return append([]string{"BEGIN", "-- all pages, by SQLite's backup interface, while others go on reading and writing", "COMMIT"}, off...),
			fmt.Sprintf("Copy %s in one read transaction%s; the processes that use it go on", name, without)
	case recovered:
		return append([]string{"-- in private copies of the file and what is beside it", "PRAGMA journal_mode = DELETE"}, off...),
			fmt.Sprintf("Copy %s and what is beside it, and have SQLite apply it to the copy%s", name, without)
	case vacuumed:
		return off, fmt.Sprintf("Write %s anew%s", name, without)
	}
	return nil, fmt.Sprintf("Copy %s", name)
}

// disk is how many bytes are needed at most.
func (w way) disk(s sqlitedb.State) int64 {
	need := s.Size + s.WAL.Size
	if w == vacuumed {
		return s.Size
	}
	if w == recovered {
		need += s.WAL.Size + s.Journal.Size
	}
	if s.Header.AutoVacuum != sqlitedb.AutoVacuumNone {
		need += s.Size + s.WAL.Size
	}
	return need
}
