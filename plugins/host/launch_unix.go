//go:build unix && !linux

package host

import (
	"os"
	"os/exec"
	"syscall"
)

func selfPath() (string, error) { return os.Executable() }

// openedPath is the path itself where the descriptor can't be executed.
func openedPath(path string) string { return path }

// Where there is no parent-death signal, the end of stdin alone tells a plugin that its host is no more.
func processAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// awaitExit reaps the process, where it can't be told otherwise that it has ended.
func awaitExit(cmd *exec.Cmd) { _ = cmd.Wait() }
