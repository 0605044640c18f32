package pgdb

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// userTimeout sets TCP_USER_TIMEOUT on a socket before it connects; nil when it is left to the system.
func userTimeout(milliseconds int) func(network, address string, c syscall.RawConn) error {
	if milliseconds <= 0 {
		return nil
	}
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, milliseconds)
		})
		return errors.Join(err, failed)
	}
}

// checkPeer is libpq's requirepeer: the operating system's user behind the socket.
func checkPeer(conn *net.UnixConn, want string) error {
	if want == "" {
		return nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("requirepeer: %w", err)
	}
	u, err := user.LookupId(strconv.Itoa(int(cred.Uid)))
	if err != nil {
		return fmt.Errorf("requirepeer: %w", err)
	}
	if u.Username != want {
		return fmt.Errorf("requirepeer wants the server to run as %q, but it runs as %q", want, u.Username)
	}
	return nil
}

// forbiddenBits are those that libpq does not want on a private key: a key of root's may be readable by its group.
func forbiddenBits(info fs.FileInfo) fs.FileMode {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == 0 {
		return 0o037
	}
	return 0o077
}
