package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/synapse-doctor/synapse-doctor/core/owned"
)

// socketDir is the private directory in which one plugin makes its socket. It is there only until the host has connected;
// its lock tells the next host that finds it whether its owner still lives.
type socketDir struct {
	path string
	lock *os.File
}

const socketDirPrefix = "synapse-doctor-"

// longestSocket is what go-plugin adds on both sides: /plugin-dirN/pluginN, N of up to 10 digits.
const longestSocket = len("/plugin-dir4294967295/plugin4294967295")

// maxSocketPath is what fits into sun_path everywhere, with its final zero (104 on the BSDs, 108 on Linux).
const maxSocketPath = 103

func newSocketDir(base string) (*socketDir, error) {
	bases := []string{base}
	if base == "" {
		bases = defaultBases()
	}
	var failures []error
	for _, b := range bases {
		d, err := makeSocketDir(b)
		if err == nil {
			return d, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// defaultBases are tried in turn. XDG_RUNTIME_DIR is another user's after sudo, and may be stale in a container.
func defaultBases() []string {
	var bases []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() && owned.ByUser(info) {
			bases = append(bases, dir)
		}
	}
	return append(bases, os.TempDir(), "/tmp")
}

func makeSocketDir(base string) (*socketDir, error) {
	base, err := filepath.Abs(base)
	if err != nil {
		return nil, err
	}
	if n := len(base) + len("/"+socketDirPrefix+"4294967295") + longestSocket; n > maxSocketPath {
		return nil, fmt.Errorf("make a directory for the plugin's socket: the path of %s is too long by %d bytes for a Unix socket", base, n-maxSocketPath)
	}
	for {
		path, err := os.MkdirTemp(base, socketDirPrefix)
		if err != nil {
			return nil, fmt.Errorf("make a directory for the plugin's socket: %w", err)
		}
		d, err := lockDir(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // another host has taken it for a dead one's, before it was locked
		}
		return d, err
	}
}

// lockDir locks a directory that must still be there when the lock is held.
func lockDir(path string) (*socketDir, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, os.ErrNotExist
	}
	mine, err := f.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Lstat(path); err == nil && !os.SameFile(mine, there) {
			err = os.ErrNotExist
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &socketDir{path: path, lock: f}, nil
}

// remove may be called more than once.
func (d *socketDir) remove() {
	_ = os.RemoveAll(d.path)
	d.lock.Close()
}

// sweep removes what hosts that were killed have left in base: private directories of this user that nobody has locked.
func sweep(base string) {
	dir, err := os.Open(base)
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		digits, ours := strings.CutPrefix(name, socketDirPrefix)
		if !ours || digits == "" || strings.Trim(digits, "0123456789") != "" {
			continue
		}
		path := filepath.Join(base, name)
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 || !owned.ByUser(info) {
			continue
		}
		d, err := lockDir(path)
		if err != nil {
			continue
		}
		if onlySockets(path) {
			d.remove()
		} else {
			d.lock.Close() // somebody else's, who chose such a name
		}
	}
}

// onlySockets reports whether there is nothing in a directory that could be missed: sockets, and the empty file that stands
// for one while a plugin chooses its name.
func onlySockets(path string) bool {
	return filepath.WalkDir(path, func(_ string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Type() == os.ModeSocket {
			return err
		}
		if info, err := entry.Info(); err != nil || !info.Mode().IsRegular() || info.Size() > 0 {
			return os.ErrExist
		}
		return nil
	}) == nil
}
