package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// command is a program with its arguments and environment.
type command struct {
	args, env []string
	mayExit   int // a code other than 0 that is no failure
}

// spent is what one run took: by the clock, and of the processors, its plugin included but not the server.
type spent struct{ wall, cpu time.Duration }

// run runs it to its end. What it prints goes nowhere, unless it fails.
func (c command) run(ctx context.Context) (spent, error) {
	cmd := c.prepare(ctx)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if err != nil && (c.mayExit == 0 || cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != c.mayExit) {
		if ctx.Err() != nil {
			return spent{}, ctx.Err()
		}
		return spent{}, fmt.Errorf("%s: %w\n%s", strings.Join(c.args, " "), err, stderr.String())
	}
	return spent{took, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}

func (c command) prepare(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Env = c.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C at the terminal reaches it once, through us
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// findPsql finds the real psql. Debian's /usr/bin/psql is a Perl script that looks for it first, which would flatter us.
func findPsql(server *pgtest.Server) (string, error) {
	path := filepath.Join(server.BinDir, "psql")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	path, err := exec.LookPath("psql")
	if err != nil {
		return "", errors.New("psql was not found, beside the server's programs or in PATH: install it (Debian: postgresql-client), there is nothing to compare with otherwise")
	}
	return path, nil
}

// psql sends the script. It is one process with one connection, as an administrator would ask: neither the doctor's
// several sessions nor its readings of homeserver.yaml are put on psql's bill. It logs in by TCP with a password, as the
// doctor does, prints to nowhere, and stops at an error, so that no statement is fast because it failed.
func (s script) psql(program string, h homeserver) (command, error) {
	file := filepath.Join(h.dir, "statements.sql")
	if err := os.WriteFile(file, []byte(s.text), 0o600); err != nil {
		return command{}, err
	}
	return command{
		args: []string{program, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=" + file,
			fmt.Sprintf("host=%s port=%d user=%s dbname=%s", h.db.Host, h.db.Port, h.db.User, h.db.Name)},
		env: append(environment(), "PGPASSWORD="+h.db.Password),
	}, nil
}

// times are those of one way to check.
type times struct{ wall, cpu []time.Duration } // sorted

func (t *times) add(s spent) {
	t.wall, t.cpu = append(t.wall, s.wall), append(t.cpu, s.cpu)
	slices.Sort(t.wall)
	slices.Sort(t.cpu)
}

func median(sorted []time.Duration) time.Duration {
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// timings are what was measured.
type timings struct{ plugins, inProcess, psql times }

// measure times the three in rounds, each round in another order, so that nobody always comes first. A round before the
// first one warms the caches and is not counted.
func measure(ctx context.Context, program, psql string, h homeserver, s script, rounds int) (timings, error) {
	var t timings
	send, err := s.psql(psql, h)
	if err != nil {
		return t, err
	}
	ways := []struct {
		command command
		times   *times
	}{
		{h.check(program), &t.plugins},
		{h.check(program, "--in-process"), &t.inProcess},
		{send, &t.psql},
	}
	for round := range rounds + 1 {
		for i := range ways {
			way := ways[(round+i)%len(ways)]
			took, err := way.command.run(ctx)
			if err != nil {
				return t, err
			}
			if round > 0 {
				way.times.add(took)
			}
		}
	}
	return t, nil
}
