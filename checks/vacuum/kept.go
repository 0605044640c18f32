package vacuum

import (
	"cmp"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// suffix is what a snapshot's name has after the file's; from the second on, with a number behind it.
const suffix = ".snapshot"

// freshness is how much older than the last change of a file that is in use its snapshot may be. It is written to all the
// time, and the last rows come with the final run of a port.
const freshness = time.Hour

// currentSnapshot is the newest snapshot beside a file that still stands for it: made of what is there now or, while a process
// writes to the file, a short time ago. Empty without one.
func currentSnapshot(s sqlitedb.State) string {
	newest, made := "", time.Time{}
	for n := 1; ; n++ {
		path := snapshotName(s.Path, n)
		info, err := os.Lstat(path)
		if err != nil {
			if n > 1 || !os.IsNotExist(err) {
				break
			}
			continue // the first may have been removed, and a later one be there
		}
		h, err := sqlitedb.ReadHeader(path)
		whole := err == nil && info.Mode().IsRegular() && h.AutoVacuum == sqlitedb.AutoVacuumNone && info.Size() == h.Pages*int64(h.PageSize)
		if whole && info.ModTime().After(made) {
			newest, made = path, info.ModTime()
		}
	}
	allowed := time.Duration(0)
	if s.Users.Any() {
		allowed = freshness
	}
	if newest == "" || s.Changed.Sub(made) > allowed {
		return ""
	}
	return newest
}

// snapshotName is the n-th name for a snapshot of a file.
func snapshotName(path string, n int) string {
	if n == 1 {
		return path + suffix
	}
	return path + suffix + "." + strconv.Itoa(n)
}

// freeName is the first name for a snapshot that is not taken.
func freeName(path string) string {
	for n := 1; ; n++ {
		name := snapshotName(path, n)
		if _, err := os.Lstat(name); err != nil {
			return name
		}
	}
}

// isName reports whether name is one of the names that snapshots of a file have.
func isName(path, name string) bool {
	rest, ok := strings.CutPrefix(name, path+suffix)
	if !ok || filepath.Dir(path) != filepath.Dir(name) {
		return false
	}
	if rest == "" {
		return true
	}
	n, err := strconv.Atoi(cmp.Or(strings.TrimPrefix(rest, "."), "x"))
	return err == nil && n > 1 && rest == "."+strconv.Itoa(n)
}

// modified is when a file was last written, for people.
func modified(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "an unknown time"
	}
	return info.ModTime().Format(time.DateTime)
}
