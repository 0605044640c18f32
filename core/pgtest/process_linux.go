package pgtest

import "syscall"

// dieWithParent makes the kernel end the server when this process ends, however that happens.
// SIGQUIT is PostgreSQL's immediate shutdown: its children and its shared memory go with it.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }
