package host_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

// helperHost is a host in a process of its own.
type helperHost struct {
	*exec.Cmd
	in  *os.File
	out *bufio.Scanner
	dir string
}

func startHelper(t *testing.T, program, plugin, check string) *helperHost {
	t.Helper()
	h := &helperHost{dir: socketBase(t)}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h.in = w
	h.Cmd = exec.Command(program, plugin, check, h.dir)
	h.Stdin, h.Stderr = r, os.Stderr
	out, err := h.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	h.out = bufio.NewScanner(out)
	t.Cleanup(func() { _ = h.Process.Kill(); _ = h.Wait(); w.Close() })
	return h
}

// children are the living children of a process.
func children(pid int) []int {
	var found []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, _ := os.ReadFile(path)
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 2 && f[0] != "Z" && f[1] == fmt.Sprint(pid) {
			var child int
			fmt.Sscan(string(b), &child)
			found = append(found, child)
		}
	}
	return found
}

func TestPluginDoesNotOutliveAHostThatIsKilled(t *testing.T) {
	for _, check := range []string{"spins", "stops"} {
		t.Run(check, func(t *testing.T) {
			t.Parallel()
			h := startHelper(t, program(t, "host"), program(t, "good"), check)
			if !h.out.Scan() || !strings.HasPrefix(h.out.Text(), "progress") {
				t.Fatalf("the helper said %q", h.out.Text())
			}
			plugins := children(h.Process.Pid)
			if len(plugins) != 1 {
				t.Fatalf("children of the host: %v", plugins)
			}
			_ = h.Process.Signal(syscall.SIGKILL)
			_ = h.Wait()
			gone(t, func() []string { return groupMembers(plugins[0]) })
			if left, _ := os.ReadDir(h.dir); len(left) != 0 {
				t.Errorf("left in the socket directory: %v", left)
			}
		})
	}
}

// A host that is killed before the plugin has announced itself leaves a directory; the next host removes it, and
// nothing else.
func TestNextHostRemovesWhatAKilledHostLeft(t *testing.T) {
	h := startHelper(t, program(t, "host"), program(t, "hang-before-handshake"), "x")
	base := h.dir
	var entries []os.DirEntry
	for len(entries) == 0 { // the test's own deadline bounds this
		entries, _ = os.ReadDir(base)
		runtime.Gosched()
	}
	var deaf []int // this plugin hears neither the end of its stdin nor the stop of its group
	for len(deaf) == 0 {
		deaf = children(h.Process.Pid)
		runtime.Gosched()
	}
	_ = h.Process.Signal(syscall.SIGKILL)
	_ = h.Wait()
	gone(t, func() []string { return groupMembers(deaf[0]) })
	keep := []string{"synapse-doctor-notes", "synapse-doctor-123"}
	for _, name := range keep {
		if err := os.Mkdir(filepath.Join(base, name), 0o755); err != nil { // the mode of a stranger's directory
			t.Fatal(err)
		}
	}
	s := host.Dev(program(t, "good"), host.Options{SocketDir: base})
	if _, err := s.Describe(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(base)
	var names []string
	for _, e := range left {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "synapse-doctor-123 synapse-doctor-notes" {
		t.Errorf("in the socket directory: %s", got)
	}
}

func TestSweepSparesTheDirectoryOfALivingHost(t *testing.T) {
	living := startHelper(t, program(t, "host"), program(t, "hang-before-handshake"), "x")
	var entries []os.DirEntry
	for len(entries) == 0 {
		entries, _ = os.ReadDir(living.dir)
		runtime.Gosched()
	}
	for len(children(living.Process.Pid)) == 0 { // by then the directory is locked
		runtime.Gosched()
	}
	s := host.Dev(program(t, "good"), host.Options{SocketDir: living.dir})
	if _, err := s.Describe(within(t)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if left, _ := os.ReadDir(living.dir); len(left) != 1 {
		t.Errorf("in the socket directory: %v", left)
	}
}

// An upgrade may replace the program's file while it runs.
func TestBuiltinIsTheRunningProgramThoughItsFileWasReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host")
	b, err := os.ReadFile(misbehave)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	h := startHelper(t, path, "self", "self")
	if !h.out.Scan() || h.out.Text() != "waiting" {
		t.Fatalf("the helper said %q", h.out.Text())
	}
	other := path + ".new"
	if err := os.WriteFile(other, []byte("#!/bin/sh\necho another program\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(h.in)
	var said []string
	for h.out.Scan() {
		said = append(said, h.out.Text())
	}
	if got := strings.Join(said, "; "); !strings.Contains(got, "done self ok; ended: <nil>") {
		t.Errorf("the helper said %q", got)
	}
}

func TestBuiltinOfATestBinary(t *testing.T) {
	p := startSource(t, host.Options{}, host.Builtin)
	d, err := p.Describe(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != "builtin" || d.Protocol != 1 || d.Path != "" || len(d.Checks) != 10 {
		t.Errorf("%+v", d)
	}
}
