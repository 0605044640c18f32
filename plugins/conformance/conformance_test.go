package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/plugins/builtin"
	"github.com/synapse-doctor/synapse-doctor/plugins/conformance"
	"github.com/synapse-doctor/synapse-doctor/plugins/sdk"
)

// The program in testdata/broken, built once.
var broken string

func TestMain(m *testing.M) {
	if sdk.Launched() || os.Getenv("BARE_START") != "" || strings.HasSuffix(os.Args[0], "/builtin") {
		sdk.Serve(sdk.Plugin{Name: builtin.Name, Version: "1.0", Checks: builtin.Checks()})
	}
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		panic(err)
	}
	broken = filepath.Join(dir, "broken")
	if out, err := exec.Command("go", "build", "-o", broken, "./testdata/broken").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build testdata/broken: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	pgtest.Stop()
	os.RemoveAll(dir)
	os.Exit(code)
}

// slack is for a machine that does ten other things.
const slack = 3

// named makes a file of this name that is the program.
func named(t *testing.T, program, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(program, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// database is one for the kit, which asks for a password.
func database(t *testing.T, options ...pgtest.Option) pgdb.Settings {
	t.Helper()
	settings, err := pgdb.Parse(pgtest.Start(t).Database(t, options...).DSN())
	if err != nil {
		t.Fatal(err)
	}
	return settings
}

// failed are the points that did not pass, and why.
func failed(t *testing.T, file string, o conformance.Options) map[int]conformance.Result {
	t.Helper()
	return failedWithin(t, file, o.WithSlack(slack))
}

func failedWithin(t *testing.T, file string, o conformance.Options) map[int]conformance.Result {
	t.Helper()
	bad := map[int]conformance.Result{}
	told := 0
	results, err := conformance.Run(t.Context(), file, o, func(conformance.Result) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 15 || told != 15 {
		t.Errorf("%d points, %d were told of", len(results), told)
	}
	for _, r := range results {
		if r.Status != conformance.Pass {
			bad[r.Number] = r
			if (r.Hint == "") != (r.Status == conformance.Skipped) || r.Reason == "" {
				t.Errorf("point %d is %s, reason %q, hint %q", r.Number, r.Status, r.Reason, r.Hint)
			}
		}
	}
	return bad
}

func TestSoundPluginsPassEveryPoint(t *testing.T) {
	for name, file := range map[string]func(*testing.T) string{
		"the built-in checks": func(t *testing.T) string {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			return named(t, self, "builtin")
		},
		"the example in Go": func(t *testing.T) string {
			file := filepath.Join(t.TempDir(), "synapse-doctor-plugin-published-rooms")
			build := exec.Command("go", "build", "-o", file, ".")
			build.Dir = filepath.Join("..", "examples", "published-rooms")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("build the example: %v\n%s", err, out)
			}
			return file
		},
		"one that is made by hand": func(t *testing.T) string { return named(t, broken, "sound") },
	} {
		t.Run(name, func(t *testing.T) {
			var o conformance.Options // a server of the kit's own
			if name != "the example in Go" {
				o.DSN = database(t, pgtest.WithSetup(pgtest.Fixture()))
			}
			for n, r := range failed(t, file(t), o) {
				t.Errorf("point %d, %s, is %s: %s", n, r.ID, r.Status, r.Reason)
			}
		})
	}
}

// Each of the fifteen is found, and nothing else is found with it.
func TestABrokenPluginFailsOnItsPointAlone(t *testing.T) {
	cases := []struct {
		mode   string
		point  int
		reason string
	}{
		{"bare-stdout", 1, `it printed "usage: broken`},
		{"bare-trace", 1, "exit status was 2"},
		{"bare-status", 1, "exit status was 0"},
		{"chatty", 2, `it printed "Loading rules …`},
		{"open-to-anyone", 3, "it answered somebody without a certificate"},
		{"open-to-any-certificate", 3, "it answered somebody with another certificate than the host's"},
		{"plain", 3, "it answered somebody without TLS"},
		{"unwell", 4, "NOT_SERVING"},
		{"takes-the-newest", 5, "it announced version 99, not its own, 1"},
		{"id-twice", 6, `check "broken-one" is there twice`},
		{"restless", 6, "described itself in two ways"},
		{"no-done", 7, `never said that check "broken-two" is done`},
		{"done-twice", 7, "after it had said that it is done"},
		{"fails-the-call", 7, "the second check failed"},
		{"knows-everything", 8, "asked to run the check"},
		{"plans-everything", 8, "asked for plans of the check"},
		{"stubborn", 9, `still had 1 session(s) of the database`},
		{"spins", 9, "kept a processor busy"},
		{"one-at-a-time", 10, "busy: call again"},
		{"too-large", 11, "a message of 5.0 MiB"},
		{"stays", 12, "still running"},
		{"no-controller", 12, "does not serve plugin.GRPCController"},
		{"litters-socket", 12, "it left broken.sock"},
		{"orphan", 13, "still running"},
		{"needs-home", 14, "HOME is not set"},
		{"needs-home-later", 14, "is unknown then: HOME is not set"},
		{"leaks-in-finding", 15, "the password that it was handed is in a CheckResponse"},
		{"leaks-in-reason", 15, "the password that it was handed is in a CheckResponse"},
		{"leaks-in-stderr", 15, "the password that it was handed is in its stderr"},
		{"leaks-in-plan", 15, "the password that it was handed is in a PlanResponse"},
		{"leaks-in-environment", 15, "the password that it was handed is in /proc/PID/environ"},
		{"writes", 15, "wrote to the database"},
		{"writes-files", 15, "changed files: tmp/cache"},
	}
	settings := database(t)
	seen := map[int]bool{}
	for _, c := range cases {
		again := seen[c.point]
		seen[c.point] = true
		t.Run(c.mode, func(t *testing.T) {
			if testing.Short() && (again || c.point%5 != 4) {
				t.Skip("a few are enough for what runs at the same time")
			}
			if c.mode != "writes" { // which the others would take for their own plugin's; it runs first
				t.Parallel()
			}
			bad := failed(t, named(t, broken, c.mode), conformance.Options{DSN: settings})
			if r := bad[c.point]; r.Status != conformance.Fail || !strings.Contains(r.Reason, c.reason) {
				t.Errorf("point %d is %q: %q; want %q", c.point, r.Status, r.Reason, c.reason)
			}
			delete(bad, c.point)
			for n, r := range bad {
				t.Errorf("point %d, %s, is %s as well: %s", n, r.ID, r.Status, r.Reason)
			}
		})
	}
	if len(seen) != 15 {
		t.Errorf("points that are broken: %v", slices.Sorted(maps.Keys(seen)))
	}
}

func TestWithoutPostgreSQLOnlyTheLastPointIsSkipped(t *testing.T) {
	bad := failed(t, named(t, broken, "sound"), conformance.Options{NoServer: true})
	if r := bad[15]; len(bad) != 1 || r.Status != conformance.Skipped || !strings.Contains(r.Reason, "--dsn gives a database for tests") {
		t.Errorf("%+v", bad)
	}
	// An error that tells the password is found all the same.
	if r := failed(t, named(t, broken, "leaks-in-reason"), conformance.Options{NoServer: true})[15]; r.Status != conformance.Fail {
		t.Errorf("%+v", r)
	}
}

func TestPluginThatNeverAnnouncesItself(t *testing.T) {
	bad := failedWithin(t, named(t, broken, "silent"), conformance.Options{NoServer: true})
	if r := bad[2]; r.Status != conformance.Fail || !strings.Contains(r.Reason, "did not announce itself within") {
		t.Errorf("%+v", r)
	}
	for n := 3; n <= 15; n++ {
		if bad[n].Status != conformance.Skipped {
			t.Errorf("point %d is %q: %s", n, bad[n].Status, bad[n].Reason)
		}
	}
}

func TestFileThatCanNotBeTried(t *testing.T) {
	for file, want := range map[string]string{
		"/no/such/plugin":                 "/no/such/plugin can't be tried",
		named(t, broken, "of-the-future"): "plugin broken 1.0 speaks protocol 3; this synapse-doctor speaks 1: upgrade synapse-doctor",
	} {
		_, err := conformance.Run(t.Context(), file, conformance.Options{NoServer: true}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

func TestNothingIsLeftWhenTheKitIsInterrupted(t *testing.T) {
	file := named(t, broken, "sound")
	for n := range 15 {
		ctx, cancel := context.WithCancelCause(t.Context())
		interrupted := errors.New("interrupted")
		points := 0
		_, err := conformance.Run(ctx, file, conformance.Options{NoServer: true}, func(conformance.Result) {
			if points++; points > n {
				cancel(interrupted)
			}
		})
		cancel(nil)
		if n < 14 && !errors.Is(err, interrupted) {
			t.Errorf("after point %d: %v", n+1, err)
		}
	}
	if left := running(file); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
}

// running are the processes whose first argument is the file.
func running(file string) []int {
	var pids []int
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		if b, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(b), file+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}
