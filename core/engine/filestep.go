package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
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
	after, err := splice(before, s.Splices)
	if err != nil {
		return edit{}, fmt.Errorf("edit %s: %w", s.Path, err)
	}
	if s.Format == "yaml" {
		var any yaml.Node
		if err := yaml.Unmarshal(after, &any); err != nil {
			return edit{}, fmt.Errorf("edit %s: it would no longer be valid YAML", s.Path)
		}
	}
	return edit{path, before, after}, nil
}

// splice applies replacements by rising offset; every other byte is kept.
func splice(content []byte, splices []doctor.Splice) ([]byte, error) {
	var out []byte
	at := int64(0)
	for _, s := range splices {
		end := s.Offset + int64(len(s.Old))
		if s.Offset < at || end > int64(len(content)) || !bytes.Equal(content[s.Offset:end], s.Old) {
			return nil, fmt.Errorf("what is to be replaced at byte %d is not there", s.Offset)
		}
		out = append(out, content[at:s.Offset]...)
		out = append(out, s.New...)
		at = end
	}
	return append(out, content[at:]...), nil
}

func sum(content []byte) string {
	h := sha256.Sum256(content)
	return hex.EncodeToString(h[:])
}

// inPlace is the note of a step that had to write into the file itself. A kill meanwhile leaves it torn, and the next
// run must know that it may put the backup back.
const inPlace = "written in place, since the file can't be replaced"

// runFile carries out an edit-file step.
func (a *application) runFile(ctx context.Context, i int) error {
	step := a.steps[i].EditFile
	ed, err := readEdit(step)
	if err != nil {
		return a.failed(ctx, span(i, i+1), err)
	}
	record := journal.File{Path: ed.path, Before: sum(ed.before), After: sum(ed.after)}
	if err := a.engine.journal.SaveFile(ctx, a.record, i, record, ed.before); err != nil {
		return err
	}
	if err := a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepStarted}); err != nil {
		return err
	}
	a.point("before-edit", i)
	note, err := a.engine.replaceFile(ed.path, ed.after, a.record.Run, func() error {
		return a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepStarted, Note: inPlace})
	})
	if err != nil {
		return a.failed(ctx, span(i, i+1), fmt.Errorf("write %s: %w", step.Path, err))
	}
	a.results[i].Note = note
	a.point("after-edit", i)
	return a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepApplied, Note: note})
}

// scratch is where a file's new content is prepared. Its name does not end in .yaml, so that Synapse, which reads every
// *.yaml of a directory, never takes it for configuration; and the next run finds it.
func scratch(path, run string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".synapse-doctor-"+run)
}

// replaceFile gives a file new content and keeps its owner, mode and extended attributes (ACLs among them).
// Where the directory or a bind mount forbids replacing it, it writes in place, after inPlace has been recorded.
func (e *Engine) replaceFile(path string, content []byte, run string, recordInPlace func() error) (note string, err error) {
	temp := scratch(path, run)
	err = writeLike(path, temp, content)
	if err == nil {
		e.Trace("before-rename")
		if err = os.Rename(temp, path); err == nil {
			return "", syncDir(filepath.Dir(path))
		}
	}
	os.Remove(temp)
	if !errors.Is(err, syscall.EBUSY) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EXDEV) {
		return "", cause(err)
	}
	if err := recordInPlace(); err != nil {
		return "", err
	}
	return inPlace, cause(writeInPlace(path, content))
}

func writeLike(path, temp string, content []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	if err := copyAttributes(path, temp); err != nil {
		return err
	}
	if err := f.Chmod(info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)); err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

// copyAttributes copies the extended attributes: POSIX ACLs and the security label are kept there.
func copyAttributes(from, to string) error {
	size, err := unix.Llistxattr(from, nil)
	if err != nil || size == 0 {
		return nil // the file system has none
	}
	names := make([]byte, size)
	if size, err = unix.Llistxattr(from, names); err != nil {
		return fmt.Errorf("read its extended attributes: %w", err)
	}
	for name := range bytes.SplitSeq(bytes.TrimRight(names[:size], "\x00"), []byte{0}) {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(from, string(name), value)
		if err != nil {
			return fmt.Errorf("read its attribute %s: %w", name, err)
		}
		if err := unix.Lsetxattr(to, string(name), value[:n], 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("keep its attribute %s: %w", name, err)
		}
	}
	return nil
}

// writeInPlace reserves the room first, so that a full disk changes nothing, and truncates last, so that a kill leaves
// the new content's beginning followed by the old content's rest: see torn.
func writeInPlace(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(len(content))); err != nil && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	if _, err := f.WriteAt(content, 0); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(content))); err != nil {
		return err
	}
	return f.Sync()
}

// torn reports whether content is what an interrupted writeInPlace of next over last leaves.
func torn(content, last, next []byte) bool {
	k := 0
	for k < len(content) && k < len(next) && content[k] == next[k] {
		k++
	}
	rest := content[k:]
	if k < len(last) {
		kept := min(len(rest), len(last)-k)
		if !bytes.Equal(rest[:kept], last[k:k+kept]) {
			return false
		}
		rest = rest[kept:]
	}
	return len(bytes.Trim(rest, "\x00")) == 0
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// fileState tells where a file stands between an edit's before and after.
type fileState int

const (
	fileBefore fileState = iota
	fileAfter
	fileTorn  // an interrupted write in place
	fileOther // somebody else has changed it
)

func stateOf(f journal.File, step *doctor.EditFileStep, note string) (fileState, error) {
	content, err := os.ReadFile(f.Path)
	if err != nil {
		return fileOther, fmt.Errorf("read %s: %w", f.Path, cause(err))
	}
	switch sum(content) {
	case f.Before:
		return fileBefore, nil
	case f.After:
		return fileAfter, nil
	}
	if note == inPlace {
		before, err := os.ReadFile(f.Backup)
		if err != nil {
			return fileOther, fmt.Errorf("read the backup of %s: %w", f.Path, cause(err))
		}
		after, err := splice(before, step.Splices)
		if err == nil && (torn(content, before, after) || torn(content, after, before)) {
			return fileTorn, nil
		}
	}
	return fileOther, nil
}

// restoreFile puts the backup of an edited file back.
func (e *Engine) restoreFile(f journal.File, run string, recordInPlace func() error) error {
	content, err := os.ReadFile(f.Backup)
	if err != nil {
		return fmt.Errorf("read the backup of %s: %w", f.Path, cause(err))
	}
	if sum(content) != f.Before {
		return fmt.Errorf("the backup of %s is damaged: %s", f.Path, f.Backup)
	}
	if _, err := e.replaceFile(f.Path, content, run, recordInPlace); err != nil {
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
