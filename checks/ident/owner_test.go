package ident_test

import (
	"io/fs"
	"syscall"
)

// owner is whose a file is.
func owner(info fs.FileInfo) [2]uint32 {
	stat := info.Sys().(*syscall.Stat_t)
	return [2]uint32{stat.Uid, stat.Gid}
}
