package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/owned"
)

// program is what is executed. The file is opened once: what was looked at is what runs, whatever happens to its path.
type program struct {
	path string
	args []string
	file *os.File // nil for this very program
}

func (p program) close() {
	if p.file != nil {
		p.file.Close()
	}
}

// FilePrefix begins the name of every plugin's file.
const FilePrefix = "synapse-doctor-plugin-"

// pluginName is what messages call a plugin before it has said its own name.
func pluginName(path string) string { return strings.TrimPrefix(filepath.Base(path), FilePrefix) }

func openSelf() (program, error) {
	path, err := selfPath()
	return program{path: path, args: []string{filepath.Base(os.Args[0]) + ": built-in checks"}}, err
}

func openFile(path string) (program, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return program{}, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlocking, 0) // a named pipe would keep us waiting
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return program{}, fmt.Errorf("%s can't be read: %w", path, e.Err)
	}
	if err != nil {
		return program{}, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = fmt.Errorf("%s is a directory, not a file", path)
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a file that could be a program", path)
	case info.Mode().Perm()&0o111 == 0:
		err = fmt.Errorf("%s is not executable: chmod +x %s", path, owned.ShellWord(path))
	}
	if err != nil {
		f.Close()
		return program{}, err
	}
	return program{path: openedPath(path), args: []string{path}, file: f}, nil
}

// openRecorded opens a file that must be the one that the administrator has recorded, and that nobody else can change.
func openRecorded(path, sum string) (program, error) {
	p, is, err := openOwn(path)
	if err != nil {
		return program{}, err
	}
	if !strings.EqualFold(is, sum) {
		p.close()
		return program{}, &HashError{Path: p.args[0], Recorded: sum, Is: is}
	}
	return p, nil
}

// openOwn opens a file that nobody else can change, and returns its SHA-256 as well.
func openOwn(path string) (_ program, sum string, err error) {
	p, err := openFile(path)
	if err != nil {
		return program{}, "", err
	}
	if err = onlyOwners(p); err == nil {
		p, sum, err = sealed(p)
	}
	if err != nil {
		p.close()
		return program{}, "", err
	}
	return p, sum, nil
}

// HashError is a plugin's file that is not the one that was recorded.
type HashError struct{ Path, Recorded, Is string }

func (e *HashError) Error() string {
	return fmt.Sprintf("%s has changed: its SHA-256 is %s, and %s was recorded", e.Path, e.Is, e.Recorded)
}

// maxProgram is the largest file that is taken for a program. It is read into memory.
const maxProgram = 512 << 20

// sealed returns the program as it is executed, and its SHA-256. Where the system can, that is a copy in memory which nobody
// can change any more: a file is the same after it was hashed only if nobody had it open for writing.
func sealed(p program) (program, string, error) {
	h := sha256.New()
	if memory := newMemory(filepath.Base(p.args[0])); memory != nil {
		err := copyProgram(io.MultiWriter(h, memory), p)
		if err == nil {
			err = seal(memory)
		}
		if err != nil {
			memory.Close()
			return p, "", err
		}
		p.close()
		p.file = memory
	} else if err := copyProgram(h, p); err != nil {
		return p, "", err
	}
	return p, hex.EncodeToString(h.Sum(nil)), nil
}

// copyProgram copies the file, unless that is larger than a program, or grows so large meanwhile.
func copyProgram(to io.Writer, p program) error {
	info, err := p.file.Stat()
	n := int64(0)
	if err == nil && info.Size() <= maxProgram {
		n, err = io.Copy(to, io.LimitReader(p.file, maxProgram+1))
	}
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", p.args[0], err)
	case info.Size() > maxProgram || n > maxProgram:
		return fmt.Errorf("%s is larger than %d MiB, and no plugin is", p.args[0], maxProgram>>20)
	}
	return nil
}

// onlyOwners refuses a file that someone other than root and this user could change or replace, and one that changes its user:
// what a plugin may do is what the user who runs the doctor may.
func onlyOwners(p program) error {
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	end, err := owned.Only(p.args[0], info)
	if err != nil {
		return err
	}
	if info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
		return fmt.Errorf("%s runs as another user or group than the one who starts it: chmod ug-s %s", end, owned.ShellWord(end))
	}
	return nil
}
