package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// scratch is where a file's new content is prepared. Its name does not end in .yaml, so that Synapse, which reads every
// *.yaml of a directory, never takes it for configuration; and the next run finds it.
func scratch(path, run string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".synapse-doctor-"+run)
}

// inPlace is the note of a step that had to write into the file itself. A kill meanwhile leaves it torn, and the next
// run must know that it may put the backup back.
const inPlace = "written in place: the file can't be replaced, or it has other names (hard links)"

// replaceFile gives a file new content and keeps its owner, mode and extended attributes (ACLs among them). The old
// content must be the expected one to the last moment; whoever else saves the file meanwhile does not lose anything.
// Where the directory or a bind mount forbids replacing the file, or it has several names, it is written in place, after
// recordInPlace.
func (e *Engine) replaceFile(path, expected string, content []byte, run string, recordInPlace func() error) (note string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", cause(err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || owner.Nlink == 1 {
		temp := scratch(path, run)
		err := writeLike(path, temp, content)
		if err == nil {
			e.Trace("before-rename")
			err = exchange(temp, path, expected)
		}
		os.Remove(temp)
		if err == nil {
			// The file has its new content. That its directory could not be flushed is no reason to call that a failure.
			if err := syncDir(filepath.Dir(path)); err != nil {
				note = "its directory could not be flushed to disk: " + cause(err).Error()
			}
			return note, nil
		}
		if !errors.Is(err, syscall.EBUSY) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EXDEV) {
			return "", cause(err)
		}
	}
	if err := recordInPlace(); err != nil {
		return "", err
	}
	if err := stillIs(path, expected); err != nil {
		return "", err
	}
	return inPlace, cause(writeInPlace(path, content))
}

// exchange puts temp in the place of path, and looks at what it got for it: if that is not what was expected, somebody
// has just saved the file, and gets it back.
func exchange(temp, path, expected string) error {
	if err := stillIs(path, expected); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) { // a file system that can't
		return os.Rename(temp, path)
	}
	if err != nil {
		return err
	}
	if changed := stillIs(temp, expected); changed != nil {
		return errors.Join(changed, unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE))
	}
	return nil
}

func stillIs(path, expected string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if sum(content) != expected {
		return refuse("it has been changed just now; run the command again")
	}
	return nil
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
