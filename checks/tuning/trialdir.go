package tuning

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// A trial's directory has a copy of the server's settings, so none may stay: its lock, which ends with the process, tells the
// next trial whether it is in use.

// trialPrefix is none that anything else of the doctor's looks for.
const trialPrefix = "synapse-doctor-trial-"

// makeDir makes the directory, and locks it.
func (r *trial) makeDir(base string) error {
	for {
		dir, err := os.MkdirTemp(base, trialPrefix)
		if err != nil {
			return err
		}
		lock, err := lockDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			os.Remove(dir)
			continue // another trial has taken it for a dead one's, before it was locked
		}
		if err != nil {
			os.Remove(dir)
			return err
		}
		r.dir, r.lock = dir, lock
		return nil
	}
}

func (r *trial) remove() {
	_ = os.RemoveAll(r.dir)
	r.lock.Close()
}

// lockDir locks a directory that must still be there when the lock is held.
func lockDir(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		f.Close()
		return nil, os.ErrNotExist
	}
	locked, err := f.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Lstat(path); err == nil && !os.SameFile(locked, there) {
			err = os.ErrNotExist
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes what trials that were killed have left: private directories of this user, or of the server's, that nobody
// has locked.
func (r *trial) sweep(base string) {
	left, _ := filepath.Glob(filepath.Join(base, trialPrefix+"*"))
	for _, dir := range left {
		if info, err := os.Lstat(dir); err != nil || !r.ours(info) {
			continue
		}
		if lock, err := lockDir(dir); err == nil {
			_ = os.RemoveAll(dir)
			lock.Close()
		}
	}
}

func (r *trial) ours(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.IsDir() && info.Mode().Perm() == 0o700 && (int(stat.Uid) == os.Geteuid() || r.account != nil && stat.Uid == r.account.Uid)
}
