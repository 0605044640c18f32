//go:build unix

package owned

import (
	"os"
	"syscall"
)

// ByUser reports whether a file belongs to the user who runs this program.
func ByUser(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

func byRoot(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == 0
}
