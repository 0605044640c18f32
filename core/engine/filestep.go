package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// edit is a file's content before and after an edit-file step.
type edit struct {
	path          string // links resolved
	before, after []byte
}

// readEdit reads the file of a step and makes its new content. It refuses when the file is not the one planned on.
func readEdit(s *doctor.EditFileStep) (edit, error) {
	path, err := filepath.EvalSymlinks(s.Path)
	if err != nil {
		return edit{}, fmt.Errorf("read %s: %w", s.Path, cause(err))
	}
	before, err := os.ReadFile(path)
	if err != nil {
		return edit{}, fmt.Errorf("read %s: %w", s.Path, cause(err))
	}
	if sum(before) != s.Before {
		return edit{}, refuse("%s has changed since the plan was made; run synapse-doctor fix again", s.Path)
	}
	after, err := synapse.Apply(before, s.Splices)
	if err != nil {
		return edit{}, fmt.Errorf("edit %s: %w", s.Path, err)
	}
	if s.Format == "yaml" {
		var parsed yaml.Node
		if err := yaml.Unmarshal(after, &parsed); err != nil {
			return edit{}, fmt.Errorf("edit %s: it would no longer be valid YAML", s.Path)
		}
	}
	return edit{path, before, after}, nil
}

func sum(content []byte) string {
	h := sha256.Sum256(content)
	return hex.EncodeToString(h[:])
}

// runFile carries out an edit-file step.
func (a *application) runFile(ctx context.Context, i int) error {
	step, err := a.withPassword(a.steps[i].EditFile)
	if err != nil {
		return a.failed(ctx, span(i, i+1), err)
	}
	if err := a.belongs(ctx, step); err != nil {
		return a.failed(ctx, span(i, i+1), err)
	}
	ed, err := readEdit(step)
	if err != nil {
		return a.failed(ctx, span(i, i+1), err)
	}
	if err := a.engine.mayEdit(a.plan.Bounds(), step.Path, ed.path); err != nil {
		return a.failed(ctx, span(i, i+1), refuse("it %v", err))
	}
	record := journal.File{Path: ed.path, Before: sum(ed.before), After: sum(ed.after)}
	if err := a.engine.journal.SaveFile(ctx, a.record, i, record, ed.before); err != nil {
		return err
	}
	if step.Server != nil {
		if err := a.keepTime(ctx, i); err != nil {
			return a.failed(ctx, span(i, i+1), err)
		}
	}
	if err := a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepStarted}); err != nil {
		return err
	}
	a.point("before-edit", i)
	note, err := a.engine.replaceFile(ed.path, record.Before, ed.after, a.record.Run, func() error {
		return a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepStarted, Note: inPlace})
	})
	if err != nil {
		return a.failed(ctx, span(i, i+1), fmt.Errorf("write %s: %w", step.Path, err))
	}
	a.results[i].Note = note
	a.usePassword(step.Password, true)
	a.point("after-edit", i)
	return a.done(ctx, span(i, i+1), journal.Step{Status: journal.StepApplied, Note: note})
}

// belongs makes sure that a server's file is the one of the administrator's server, just before it is edited.
func (a *application) belongs(ctx context.Context, s *doctor.EditFileStep) error {
	if s.Server == nil {
		return nil
	}
	here, err := pgdb.SystemID(s.Server.DataDir)
	if err != nil {
		return refuse("whose file %s is could not be seen: %v", s.Path, err)
	}
	var theirs, lock string
	if a.engine.Target.Admin == nil {
		return refuse("whose file %s is can't be asked: there is no administrator's connection", s.Path)
	}
	err = a.engine.Target.Admin.Read(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT system_identifier::text, pg_read_file('postmaster.pid') FROM pg_control_system()`).Scan(&theirs, &lock)
	})
	if err != nil {
		return refuse("whose file %s is could not be asked: %v", s.Path, err)
	}
	// A standby or a base backup has the same identifier, but no process of this number and start.
	if text, err := os.ReadFile(filepath.Join(s.Server.DataDir, "postmaster.pid")); err != nil || string(text) != lock {
		return refuse("%s lies beside the data of a server that does not run, or another one than the administrator's connection leads to", s.Path)
	}
	if here != s.Server.SystemID || theirs != s.Server.SystemID {
		return refuse("%s belongs to another server than the one that the plan was made for (system identifier %s, %s here, and %s of the administrator's connection)",
			s.Path, s.Server.SystemID, here, theirs)
	}
	return nil
}

// fileState tells where a file stands between an edit's before and after.
type fileState int

const (
	fileBefore fileState = iota
	fileAfter
	fileTorn  // an interrupted write in place
	fileOther // somebody else has changed it
)

func stateOf(f journal.File, step *doctor.EditFileStep, note string) (state fileState, is string, err error) {
	content, err := os.ReadFile(f.Path)
	if err != nil {
		return fileOther, "", fmt.Errorf("read %s: %w", f.Path, cause(err))
	}
	is = sum(content)
	switch is {
	case f.Before:
		return fileBefore, is, nil
	case f.After:
		return fileAfter, is, nil
	}
	if note == inPlace {
		before, err := os.ReadFile(f.Backup)
		if err != nil {
			return fileOther, is, fmt.Errorf("read the backup of %s: %w", f.Path, cause(err))
		}
		after, err := synapse.Apply(before, step.Splices)
		if err == nil && (torn(content, before, after) || torn(content, after, before)) {
			return fileTorn, is, nil
		}
	}
	return fileOther, is, nil
}

// keepTime gives the copy of a server's file the file's own time: put back, the file must not look changed since it was
// loaded, for it is what was loaded.
func (a *application) keepTime(ctx context.Context, i int) error {
	f, ok, err := a.engine.journal.SavedFile(ctx, a.record.ID, i)
	if err != nil || !ok {
		return err
	}
	info, err := os.Stat(f.Path)
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Path, cause(err))
	}
	return os.Chtimes(f.Backup, info.ModTime(), info.ModTime())
}

// restoreTime is the other half of keepTime.
func restoreTime(f journal.File) error {
	info, err := os.Stat(f.Backup)
	if err != nil {
		return fmt.Errorf("read the backup of %s: %w", f.Path, cause(err))
	}
	return os.Chtimes(f.Path, info.ModTime(), info.ModTime())
}

// restoreFile puts the backup of an edited file, whose content is the expected one, back.
func (e *Engine) restoreFile(f journal.File, expected, run string, recordInPlace func() error) error {
	content, err := os.ReadFile(f.Backup)
	if err != nil {
		return fmt.Errorf("read the backup of %s: %w", f.Path, cause(err))
	}
	if sum(content) != f.Before {
		return fmt.Errorf("the backup of %s is damaged: %s", f.Path, f.Backup)
	}
	if _, err := e.replaceFile(f.Path, expected, content, run, recordInPlace); err != nil {
		return fmt.Errorf("put %s back: %w", f.Path, err)
	}
	return nil
}

// cause strips the path that the os package puts into its errors, where the sentence names it already.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	if l, ok := errors.AsType[*os.LinkError](err); ok {
		return l.Err
	}
	return err
}
