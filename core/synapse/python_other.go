//go:build !linux

package synapse

import "syscall"

func alone() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
