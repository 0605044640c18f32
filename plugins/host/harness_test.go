package host_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
	"github.com/synapse-doctor/synapse-doctor/plugins/sdk"
)

// The program in testdata/misbehave, built once.
var misbehave string

func TestMain(m *testing.M) {
	if sdk.Launched() {
		sdk.Serve(sdk.Plugin{Name: "builtin", Version: "1", Checks: tenChecks()})
	}
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		panic(err)
	}
	misbehave = filepath.Join(dir, "misbehave")
	if out, err := exec.Command("go", "build", "-o", misbehave, "./testdata/misbehave").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build testdata/misbehave: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	pgtest.Stop()
	os.RemoveAll(dir)
	os.Exit(code)
}

func tenChecks() []doctor.Check {
	var checks []doctor.Check
	for i := range 10 {
		checks = append(checks, doctor.Check{
			ID: fmt.Sprintf("empty-%d", i), Title: "T", Why: "W",
			Run: func(context.Context, *doctor.Target, doctor.Reporter) error { return nil },
		})
	}
	return checks
}

// patience is how long a test waits for what it knows must happen. Only a failing test takes that long.
const patience = 30 * time.Second

// plugin is one misbehaving plugin under test. When the test ends it is closed, and must have left nothing.
type plugin struct {
	*host.Source
	log *logBook
	dir string
}

// program makes a file of the given name that is the misbehaving program: the name tells it what to do.
func program(t testing.TB, mode string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), mode)
	if err := os.Symlink(misbehave, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// socketBase is a short directory for sockets.
func socketBase(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func start(t *testing.T, mode string) *plugin { return startFile(t, program(t, mode), host.Options{}) }

// impatient starts a plugin that is known never to answer.
func impatient(t *testing.T, mode string) *plugin {
	return startFile(t, program(t, mode), host.Options{StartTimeout: 300 * time.Millisecond})
}

func startFile(t *testing.T, path string, o host.Options) *plugin {
	return startSource(t, o, func(o host.Options) *host.Source { return host.Dev(path, o) })
}

func startSource(t *testing.T, o host.Options, make func(host.Options) *host.Source) *plugin {
	t.Helper()
	p := &plugin{log: &logBook{}, dir: socketBase(t)}
	o.Log, o.SocketDir = slog.New(p.log), p.dir
	p.Source = make(o)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error("close:", err)
		}
		p.leavesNothing(t)
		if t.Failed() {
			t.Log("debug log:\n" + p.log.String())
		}
	})
	p.Start(t.Context())
	return p
}

// leavesNothing fails when a process of the plugin's group, or anything in the socket directory, is still there.
func (p *plugin) leavesNothing(t *testing.T) {
	t.Helper()
	for _, pid := range p.log.pids() {
		gone(t, func() []string { return groupMembers(pid) })
	}
	if names, _ := os.ReadDir(p.dir); len(names) != 0 {
		t.Errorf("left in the socket directory: %v", names)
	}
}

// gone waits until list is empty: who was killed needs a moment to die.
func gone(t *testing.T, list func() []string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		left := list()
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("still there: %v", left)
			return
		}
	}
}

// groupMembers are the living processes of a process group.
func groupMembers(pgid int) []string {
	return processes(func(_ int, _, group string) bool { return group == fmt.Sprint(pgid) })
}

func processes(match func(pid int, state, group string) bool) []string {
	var found []string
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var pid int
		fmt.Sscan(string(b), &pid)
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 3 && f[0] != "Z" && f[0] != "X" && match(pid, f[0], f[2]) {
			found = append(found, strings.TrimSpace(string(b[:min(len(b), 60)])))
		}
	}
	return found
}

// within is a context that a test that does not fail never sees end.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// heard collects the events of a call to Check.
type heard struct {
	mu       sync.Mutex
	found    map[string][]doctor.Finding
	done     map[string]doctor.Outcome
	progress func(string)
	refuse   func(n int) error
}

func (h *heard) Found(check string, f doctor.Finding) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.found == nil {
		h.found = map[string][]doctor.Finding{}
	}
	h.found[check] = append(h.found[check], f)
	if h.refuse != nil {
		return h.refuse(len(h.found[check]))
	}
	return nil
}

func (h *heard) Measured(string, doctor.Measure) error { return nil }

func (h *heard) Progress(check string, _ doctor.Progress) {
	if h.progress != nil {
		h.progress(check)
	}
}

func (h *heard) Done(check string, o doctor.Outcome) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done == nil {
		h.done = map[string]doctor.Outcome{}
	}
	h.done[check] = o
	return nil
}

func request(checks ...string) doctor.CheckRequest {
	return doctor.CheckRequest{Target: &doctor.Target{ServerName: "example.org"}, Checks: checks}
}

func run(ctx context.Context, p doctor.Source, checks ...string) (*heard, error) {
	h := &heard{}
	return h, p.Check(ctx, request(checks...), h)
}

// says fails unless err's text has every part.
func says(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one that says %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if strings.ContainsAny(err.Error(), "\x1b\x07") {
		t.Errorf("error %q has terminal escapes", err)
	}
}

func restartable(err error) bool {
	r, ok := errors.AsType[interface {
		error
		Restartable() bool
	}](err)
	return ok && r.Restartable()
}

// logBook keeps the debug log.
type logBook struct {
	mu      sync.Mutex
	records []slog.Record
}

func (l *logBook) Enabled(context.Context, slog.Level) bool { return true }
func (l *logBook) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logBook) WithGroup(string) slog.Handler            { return l }

func (l *logBook) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r.Clone())
	return nil
}

func (l *logBook) pids() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	var pids []int
	for _, r := range l.records {
		if r.Message == "started" {
			r.Attrs(func(a slog.Attr) bool {
				pids = append(pids, int(a.Value.Int64()))
				return false
			})
		}
	}
	return pids
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, r := range l.records {
		line := r.Message
		r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
		if len(line) > 300 {
			line = line[:300] + "…"
		}
		fmt.Fprintln(&b, line)
		if b.Len() > 1<<14 {
			break
		}
	}
	return b.String()
}
