package host

import (
	"errors"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// selfPath is the running program, even when its file was replaced or removed meanwhile by an upgrade.
func selfPath() (string, error) { return "/proc/self/exe", nil }

// openedPath names the file that is the child's first extra descriptor: what is executed is what was opened and hashed.
func openedPath(string) string { return "/proc/self/fd/3" }

// A session of its own is a process group of its own too, and has no terminal: what a plugin starts can neither ask the user
// nor answer in the user's place.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}

// awaitExit returns when the process has ended, and leaves it to be reaped.
func awaitExit(cmd *exec.Cmd) {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
