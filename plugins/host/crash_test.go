package host_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

func TestPanicOfACheckCostsThatCheckOnly(t *testing.T) {
	p := start(t, "good")
	h, err := run(within(t), p, "fine", "panics", "finds-rubbish")
	if err != nil {
		t.Fatal(err)
	}
	if got := h.done["fine"].Status; got != doctor.StatusOK || len(h.found["fine"]) != 1 {
		t.Errorf("the sound check: %v, %v", got, h.found["fine"])
	}
	if o := h.done["panics"]; o.Status != doctor.StatusUnknown || !strings.Contains(o.Reason, "crashed: acme") {
		t.Errorf("the check that panics: %+v", o)
	}
	if o := h.done["finds-rubbish"]; o.Status != doctor.StatusUnknown || !strings.Contains(o.Reason, "finds-rubbish/fault could not be reported") {
		t.Errorf("the check whose finding has no severity: %+v", o)
	}
	if f := h.found["finds-rubbish"]; len(f) != 1 || f[0].Summary != "latin \uFFFD" {
		t.Errorf("its other finding: %+v", f)
	}
	p.Close()
	if !strings.Contains(p.log.String(), "check panics: panic: acme") || !strings.Contains(p.log.String(), "main.go:") {
		t.Error("the trace is not in the debug log")
	}
}

func TestCrashIsToldWithTheEndOfStderrAndThePluginStartedAgain(t *testing.T) {
	for check, parts := range map[string][]string{
		"exits":            {"plugin good crashed (exit status 7): out of cheese"},
		"panics-aside":     {"plugin good crashed (exit status 2): panic: boom aside"},
		"spawns-and-exits": {"plugin good crashed (exit status 9)"},
	} {
		t.Run(check, func(t *testing.T) {
			t.Parallel()
			p := start(t, "good")
			_, err := run(within(t), p, check, "spins")
			says(t, err, parts...)
			crash, ok := errors.AsType[*host.CrashError](err)
			if !ok || !restartable(err) {
				t.Fatalf("%T is not a restartable crash", err)
			}
			if check == "panics-aside" && !strings.Contains(crash.Stderr, "goroutine") {
				t.Errorf("no trace in %q", crash.Stderr)
			}
			// Each alone: the culprit crashes again, the other check is answered all the same.
			_, err = run(within(t), p, check)
			says(t, err, parts...)
			h, err := run(within(t), p, "fine")
			if err != nil || h.done["fine"].Status != doctor.StatusOK {
				t.Errorf("the innocent check: %v, %v", h.done, err)
			}
		})
	}
}

func TestPluginThatKeepsCrashingIsNotStartedForEver(t *testing.T) {
	p := start(t, "good")
	var last error
	for range 5 {
		_, last = run(within(t), p, "exits")
	}
	if restartable(last) {
		t.Error("still restartable")
	}
	says(t, last, "crashed")
	if n := len(p.log.pids()); n != 2 {
		t.Errorf("started %d times, want twice", n)
	}
}

// awaitStopped returns when a process of the group is stopped.
func awaitStopped(t *testing.T, pgid int) {
	stopped := func(_ int, state, group string) bool { return state == "T" && group == fmt.Sprint(pgid) }
	for ctx := within(t); len(processes(stopped)) == 0 && ctx.Err() == nil; {
		runtime.Gosched()
	}
}

// hung runs a check that never ends, and gives up once it is at work.
func hung(t *testing.T, mode, check string) *plugin {
	t.Helper()
	p := start(t, mode)
	ctx, cancel := context.WithCancelCause(within(t))
	cause := errors.New("time is up")
	h := &heard{progress: func(string) {
		if check == "stops" {
			awaitStopped(t, p.log.pids()[0])
		}
		cancel(cause)
	}}
	if err := p.Check(ctx, request(check), h); !errors.Is(err, cause) {
		t.Errorf("got %v, want the context's cause", err)
	}
	return p
}

func TestCallEndsWithItsContextWhateverThePluginDoes(t *testing.T) {
	t.Run("stopped with SIGSTOP", func(t *testing.T) { t.Parallel(); hung(t, "good", "stops") })
	t.Run("spinning", func(t *testing.T) { t.Parallel(); hung(t, "good", "spins") })
	t.Run("ignores the cancellation", func(t *testing.T) { t.Parallel(); hung(t, "lie-ignores-cancel", "honest") })
}

func TestPluginKilledFromOutside(t *testing.T) {
	p := start(t, "good")
	h := &heard{progress: func(string) { _ = syscall.Kill(p.log.pids()[0], syscall.SIGKILL) }}
	err := p.Check(within(t), request("spins"), h)
	says(t, err, "plugin good crashed (signal: killed)")
}

func TestFloodsBlockNothing(t *testing.T) {
	p := start(t, "good")
	h, err := run(within(t), p, "floods", "fine")
	if err != nil {
		t.Fatal(err)
	}
	if h.done["floods"].Status != doctor.StatusOK || h.done["fine"].Status != doctor.StatusOK {
		t.Errorf("done: %v", h.done)
	}
	p.Close()
	if n := len(p.log.String()); n > 1<<16 {
		t.Errorf("%d bytes in the debug log", n)
	}
}

func TestChildrenOfAPluginAreEndedWithIt(t *testing.T) {
	p := start(t, "good") // the cleanup looks for the group
	if _, err := run(within(t), p, "spawns"); err != nil {
		t.Fatal(err)
	}
	if n := len(groupMembers(p.log.pids()[0])); n != 2 {
		t.Fatalf("%d processes in the group, want the plugin and its child", n)
	}
}

func TestShellWrapperWithoutExec(t *testing.T) {
	for _, check := range []string{"fine", "stops", "exits"} {
		t.Run(check, func(t *testing.T) {
			t.Parallel()
			wrapper := filepath.Join(t.TempDir(), "wrapper")
			script := fmt.Sprintf("#!/bin/sh\n%s \"$@\"\necho wrapped\n", program(t, "good"))
			if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			p := startFile(t, wrapper, host.Options{})
			ctx, cancel := context.WithCancel(within(t))
			h := &heard{progress: func(string) {
				awaitStopped(t, p.log.pids()[0])
				cancel()
			}}
			err := p.Check(ctx, request(check), h)
			switch check {
			case "fine":
				if err != nil {
					t.Error(err)
				}
			case "exits":
				says(t, err, "plugin wrapper crashed", "out of cheese")
			case "stops":
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
		})
	}
}

func TestInterruptIsTheHostsBusiness(t *testing.T) {
	p := start(t, "good")
	if _, err := run(within(t), p, "fine"); err != nil {
		t.Fatal(err)
	}
	pid := p.log.pids()[0]
	if pgid, err := syscall.Getpgid(pid); err != nil || pgid != pid {
		t.Errorf("group %d of process %d: %v: a Ctrl-C would reach it", pgid, pid, err)
	}
	_ = syscall.Kill(pid, syscall.SIGINT)
	if _, err := run(within(t), p, "fine"); err != nil {
		t.Error("after SIGINT:", err)
	}
	_ = syscall.Kill(pid, syscall.SIGTERM)
	gone(t, func() []string { return groupMembers(pid) })
}

func TestPluginIsHandedNothingButTheRequest(t *testing.T) {
	t.Setenv("PGPASSWORD", "hunter2")
	t.Setenv("SYNAPSE_SECRET", "hunter2")
	t.Setenv("LANG", "C.UTF-8")
	p := start(t, "good")
	req := request("looks-around")
	req.Target.Databases = []*doctor.Database{{Label: "main", Engine: doctor.Postgres, Settings: map[string]string{"password": "hunter2"}}}
	h := &heard{}
	if err := p.Check(within(t), req, h); err != nil {
		t.Fatal(err)
	}
	seen := h.found["looks-around"][0].Evidence
	if strings.Contains(seen["environ"]+seen["args"]+p.log.String(), "hunter2") || strings.Contains(seen["environ"], "SECRET") {
		t.Errorf("a secret leaked: %v", seen)
	}
	if !strings.Contains(seen["environ"], "LANG=C.UTF-8") || !strings.Contains(seen["environ"], "PATH=") {
		t.Errorf("environment: %q", seen["environ"])
	}
	if strings.Contains(seen["environ"], "SYNAPSE_DOCTOR_PLUGIN=") {
		t.Error("a program that the plugin starts would take itself for a plugin")
	}
	mine, _ := os.Readlink("/proc/self/fd/0")
	if seen["stdin"] == mine || !strings.HasPrefix(seen["stdin"], "pipe:") {
		t.Errorf("stdin is %q, ours is %q", seen["stdin"], mine)
	}
	if seen["socket"] != "gone" {
		t.Errorf("the socket's directory has %s while the plugin works", seen["socket"])
	}
	if cwd, _ := os.Getwd(); seen["cwd"] != cwd {
		t.Errorf("works in %s, not %s", seen["cwd"], cwd)
	}
	if seen["handed"] != "true" {
		t.Error("the settings did not arrive")
	}
	if seen["sid"] != seen["pid"] {
		t.Errorf("pid %s is in the session %s, whose terminal it could ask the user on", seen["pid"], seen["sid"])
	}
	if seen["pgid"] != seen["pid"] || seen["pid"] != strconv.Itoa(p.log.pids()[0]) {
		t.Errorf("pid %s, group %s", seen["pid"], seen["pgid"])
	}
}
