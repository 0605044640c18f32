package synapse

import "syscall"

// alone keeps a process from outliving this one, and lets its children be ended with it.
func alone() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
