//go:build unix

package port

import (
	"io/fs"
	"syscall"
)

func inode(info fs.FileInfo) (device, number uint64) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Dev), uint64(s.Ino)
	}
	return 0, 0
}
