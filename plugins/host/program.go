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
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a file", path)
	case info.Mode().Perm()&0o111 == 0:
		err = fmt.Errorf("%s is not executable: chmod +x %s", path, path)
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

// sealed returns the program as it is executed, and its SHA-256. Where the system can, that is a copy in memory which nobody
// can change any more: a file is the same after it was hashed only if nobody had it open for writing.
func sealed(p program) (program, string, error) {
	h := sha256.New()
	if memory := newMemory(filepath.Base(p.args[0])); memory != nil {
		_, err := io.Copy(io.MultiWriter(h, memory), p.file)
		if err == nil {
			err = seal(memory)
		}
		if err != nil {
			memory.Close()
			return p, "", fmt.Errorf("read %s: %w", p.args[0], err)
		}
		p.close()
		p.file = memory
	} else if _, err := io.Copy(h, p.file); err != nil {
		return p, "", fmt.Errorf("read %s: %w", p.args[0], err)
	}
	return p, hex.EncodeToString(h.Sum(nil)), nil
}

// onlyOwners refuses a file that someone other than root and this user could change or replace: through the file's own
// mode, or through that of any directory on the way to it, the places of symbolic links included. A directory with the
// sticky bit lets nobody replace another's file. It refuses one that changes its user as well: what a plugin may do is what
// the user who runs the doctor may.
func onlyOwners(p program) error {
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	path, dirs, err := way(p.args[0])
	if err != nil {
		return err
	}
	now, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !os.SameFile(info, now) {
		return fmt.Errorf("%s was replaced while it was looked at: run the command again", p.args[0])
	}
	if info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
		return fmt.Errorf("%s runs as another user or group than the one who starts it: chmod ug-s %s", path, path)
	}
	if err := onlyOwner(path, info); err != nil {
		return err
	}
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil {
			return err
		}
		if err := onlyOwner(dir, info); err != nil {
			return err
		}
	}
	return nil
}

func onlyOwner(path string, info os.FileInfo) error {
	if !ownedByUs(info) && !ownedByRoot(info) {
		return fmt.Errorf("%s belongs to neither root nor this user: chown root %s", path, path)
	}
	if info.Mode().Perm()&0o022 != 0 && !(info.IsDir() && info.Mode()&os.ModeSticky != 0) {
		return fmt.Errorf("%s can be changed by others than its owner: chmod go-w %s", path, path)
	}
	return nil
}

// mostLinks is how many symbolic links a path may lead through, as in Linux.
const mostLinks = 40

// way follows a path as the system does. It returns where the path ends, and every directory on the way.
func way(path string) (end string, dirs []string, err error) {
	links := 0
	at, rest := "/", strings.Split(path, "/")
	seen := map[string]bool{}
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		if !seen[at] {
			seen[at] = true
			dirs = append(dirs, at)
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		if err != nil {
			return "", nil, err
		}
		if info.Mode()&os.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > mostLinks {
			return "", nil, fmt.Errorf("%s leads through too many symbolic links", path)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", nil, err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, dirs, nil
}
