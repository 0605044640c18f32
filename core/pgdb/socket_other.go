//go:build !linux

package pgdb

import (
	"errors"
	"io/fs"
	"net"
	"syscall"
)

// userTimeout does nothing: like libpq, only Linux has TCP_USER_TIMEOUT.
func userTimeout(int) func(network, address string, c syscall.RawConn) error { return nil }

func checkPeer(_ *net.UnixConn, want string) error {
	if want == "" {
		return nil
	}
	return errors.New("requirepeer works on Linux only")
}

func forbiddenBits(fs.FileInfo) fs.FileMode { return 0o077 }
