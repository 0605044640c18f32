package host

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
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
	f, err := os.Open(path)
	if err != nil {
		return program{}, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a file", path)
	case info.Mode().Perm()&0o111 == 0:
		err = fmt.Errorf("%s is not executable", path)
	}
	if err != nil {
		f.Close()
		return program{}, err
	}
	return program{path: openedPath(path), args: []string{path}, file: f}, nil
}

// openRecorded opens a file that must be the one that the administrator has recorded, and that nobody else can change.
func openRecorded(path, sum string) (program, error) {
	p, err := openFile(path)
	if err != nil {
		return program{}, err
	}
	if err = onlyOwners(p); err == nil {
		err = sameSum(p, sum)
	}
	if err != nil {
		p.close()
		return program{}, err
	}
	return p, nil
}

// HashError is a plugin's file that is not the one that was recorded.
type HashError struct{ Path, Recorded, Is string }

func (e *HashError) Error() string {
	return fmt.Sprintf("%s has changed: its SHA-256 is %s, and %s was recorded", e.Path, e.Is, e.Recorded)
}

func sameSum(p program, recorded string) error {
	h := sha256.New()
	if _, err := io.Copy(h, p.file); err != nil {
		return fmt.Errorf("read %s: %w", p.args[0], err)
	}
	if is := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(is, recorded) {
		return &HashError{Path: p.args[0], Recorded: recorded, Is: is}
	}
	return nil
}

// onlyOwners refuses a file that someone other than root and this user could change or replace: through the file's own
// mode or through that of a directory above it (one with the sticky bit lets nobody replace another's file).
func onlyOwners(p program) error {
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	path, err := filepath.EvalSymlinks(p.args[0])
	if err != nil {
		return err
	}
	for {
		if !ownedByUs(info) && !ownedByRoot(info) {
			return fmt.Errorf("%s belongs to neither root nor this user", path)
		}
		if info.Mode().Perm()&0o022 != 0 && !(info.IsDir() && info.Mode()&os.ModeSticky != 0) {
			return fmt.Errorf("%s can be changed by others than its owner: chmod go-w %s", path, path)
		}
		parent := filepath.Dir(path)
		if parent == path {
			return nil
		}
		path = parent
		if info, err = os.Stat(path); err != nil {
			return err
		}
	}
}
