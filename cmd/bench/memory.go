package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// memory is what a check's processes held at most, in bytes; nothing where there is no /proc.
type memory struct{ host, plugin int64 }

func (m memory) total() int64 { return m.host + m.plugin }

const memoryRuns = 5

// peakMemory runs the command some times more, untimed, and returns the run that held most.
//
// It reads VmHWM, the kernel's own high-water mark of a process, of the host and of its child every half millisecond.
// What wait4 says at the end can't be used: of a process and its children it tells the greatest, not the sum. The sum of
// the two marks is on the safe side: they need not be reached at the same time, and pages that both share, such as the
// program itself, count twice. What is allocated in the last half millisecond before a process ends is missed.
func peakMemory(ctx context.Context, c command) (memory, error) {
	var most memory
	if _, err := os.Stat("/proc/self/status"); err != nil {
		return most, nil
	}
	for range memoryRuns {
		m, err := sample(ctx, c)
		if err != nil {
			return most, err
		}
		if m.total() > most.total() {
			most = m
		}
	}
	if most.plugin == 0 {
		return most, errors.New("the plugin's process was not seen")
	}
	return most, nil
}

func sample(ctx context.Context, c command) (memory, error) {
	cmd := c.prepare(ctx)
	if err := cmd.Start(); err != nil {
		return memory{}, err
	}
	host := cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var m memory
	for {
		select {
		case err := <-ended:
			return m, err
		case <-time.After(500 * time.Microsecond):
		}
		m.host = max(m.host, highWater(host))
		for _, pid := range children(host) {
			if !sameProgram(pid, host) {
				m.plugin = max(m.plugin, highWater(pid))
			}
		}
	}
}

// sameProgram reports whether both have the same arguments. A child that has not executed its program yet still has its
// parent's, and its parent's memory with it.
func sameProgram(a, b int) bool {
	x, errX := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", a))
	y, errY := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", b))
	return errX != nil || errY != nil || bytes.Equal(x, y)
}

// children are the processes that any thread of the process has started.
func children(pid int) []int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // a process that has ended has none
	var pids []int
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// highWater is VmHWM, in bytes; 0 when the process has ended.
func highWater(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64) // written by the kernel
			return kib << 10
		}
	}
	return 0
}
