package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// portCost is what one run took.
type portCost struct {
	wall, client, server time.Duration // client and server: of the processors
	memory               int64         // of the client's processes together, in bytes, without mapped pages; 0: not measured
	parts                map[string]time.Duration
}

// watch runs a command to its end and sees what it and the server take.
func (b *portBench) watch(ctx context.Context, c command) (portCost, error) {
	var cost portCost
	before, err := b.serverTime()
	if err != nil {
		return cost, err
	}
	cmd := c.prepare(ctx)
	output, err := os.CreateTemp(b.dir, "output-")
	if err != nil {
		return cost, err
	}
	defer os.Remove(output.Name())
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return cost, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-time.After(sampleEvery):
			cost.memory = max(cost.memory, ownPages(cmd.Process.Pid))
		}
	}
	cost.wall = time.Since(start)
	if err != nil {
		if ctx.Err() != nil {
			return cost, ctx.Err()
		}
		said, _ := os.ReadFile(output.Name()) // without it the error is told all the same
		return cost, fmt.Errorf("%s: %w\n%s", strings.Join(c.args, " "), err, lastOf(string(said), 4000))
	}
	cost.client = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	after, err := b.serverTime()
	cost.server = after - before
	return cost, err
}

func lastOf(s string, bytes int) string { return s[max(0, len(s)-bytes):] }

// sampleEvery is how often memory is looked at: rarely enough to take less than a hundredth of a processor.
const sampleEvery = 20 * time.Millisecond

// ownPages is what a process and all that it has started hold now, without pages of files: RssAnon, in bytes.
func ownPages(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0 // it has ended
	}
	sum := kibibytes(string(text), "RssAnon:")
	for _, child := range children(pid) {
		sum += ownPages(child)
	}
	return sum
}

// kibibytes is a line's value in a file of /proc, in bytes; 0 when there is none.
func kibibytes(text, name string) int64 {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64) // written by the kernel
			return kib << 10
		}
	}
	return 0
}

// serverTime is the time of the processors that the server has taken since it was started: its processes', and that of those
// that have ended, which the kernel adds to their parent's. 0 where there is no /proc.
func (b *portBench) serverTime() (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(b.server.DataDir, "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	postmaster, err := strconv.Atoi(line)
	if err != nil {
		return 0, fmt.Errorf("postmaster.pid begins with %q", line)
	}
	if _, err := os.Stat("/proc/self/stat"); errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	ticks := timeOf(postmaster, true)
	for _, child := range children(postmaster) {
		ticks += timeOf(child, false) // a backend has no children of its own: parallel workers are the postmaster's
	}
	return time.Duration(ticks) * (time.Second / ticksPerSecond), nil
}

// Of the kernel's interface, on every architecture that Linux has today.
const ticksPerSecond = 100

// timeOf is a process's time, in ticks, with or without that of its children that have ended; 0 when it has ended itself.
func timeOf(pid int, children bool) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold anything. After it come the state and, from the 12th field on, utime, stime, cutime, cstime.
	fields := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
	last := 13
	if children {
		last = 15
	}
	if len(fields) < last {
		return 0
	}
	var sum int64
	for _, field := range fields[11:last] {
		ticks, _ := strconv.ParseInt(field, 10, 64) // written by the kernel
		sum += ticks
	}
	return sum
}

// ownTime is this process's own time of the processors.
func ownTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
