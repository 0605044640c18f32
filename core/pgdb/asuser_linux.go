package pgdb

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// dialAs connects to a socket as another user of the operating system, for a server that knows its clients by that (peer).
//
// The kernel notes whose socket it is when connect is called, by the calling thread's effective user; so a thread of its
// own changes that for the length of the call. No program is executed as the other user, and nothing of this process is
// within that user's reach.
func dialAs(ctx context.Context, name, socket string) (net.Conn, error) {
	uid, err := userID(name)
	if err != nil {
		return nil, err
	}
	own := os.Geteuid() // each thread has its own
	if uid == own {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		if err := setEffectiveUser(uid); err != nil {
			runtime.UnlockOSThread()
			done <- result{err: fmt.Errorf("become %s: %w", name, err)}
			return
		}
		conn, err := connectHere(socket)
		if setEffectiveUser(own) == nil {
			runtime.UnlockOSThread()
		} // else the thread ends with this goroutine
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.conn != nil {
				r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

func userID(name string) (int, error) {
	if uid, err := strconv.Atoi(name); err == nil { // a container's user may have no name here
		return uid, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}

// setEffectiveUser acts on this thread alone: package syscall would change all of them.
func setEffectiveUser(uid int) error {
	const unchanged = ^uintptr(0)
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged); errno != 0 {
		return errno
	}
	return nil
}

// connectHere connects on the calling thread. A socket's queue that is full is an error, not a wait.
func connectHere(socket string) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, &net.OpError{Op: "socket", Net: "unix", Err: os.NewSyscallError("socket", err)}
	}
	f := os.NewFile(uintptr(fd), socket)
	defer f.Close() // net.FileConn takes a copy
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return nil, &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", err)}
	}
	return net.FileConn(f)
}
