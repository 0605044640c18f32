package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// doctor runs the real program in the homeserver's directory.
type doctor struct {
	program string
	dir     string
	admin   string // the administrator's connection; root finds it without help
}

// run shows a command line as an administrator types it, and then whatever the program prints: it has this terminal, so
// its colours and its width are those that an administrator sees. The exit code must be the one that is wanted.
func (d *doctor) run(ctx context.Context, s *screen, want int, args string) error {
	line := "synapse-doctor " + args
	s.command(line)
	cmd := exec.CommandContext(ctx, d.program, strings.Fields(args)...)
	cmd.Dir = d.dir
	cmd.Env = d.environment()
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// In a group of its own, a Ctrl-C at the terminal reaches it once, through us: a second one would end it on the spot.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		return fmt.Errorf("run %s: %w", line, err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		return fmt.Errorf("%s ended with exit code %d, and %d was expected", line, got, want)
	}
	return nil
}

// environment is ours with the journal in the homeserver's directory, and without settings that lead to another server.
func (d *doctor) environment() []string {
	env := []string{"SYNAPSE_DOCTOR_STATE_DIR=" + filepath.Join(d.dir, "state")}
	if os.Geteuid() != 0 {
		env = append(env, "SYNAPSE_DOCTOR_ADMIN_DSN="+d.admin)
	}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "SYNAPSE_DOCTOR_") {
			env = append(env, v)
		}
	}
	return env
}
