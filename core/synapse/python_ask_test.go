package synapse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// realPython is a Python of this machine; the one on PATH may be a script that looks for it.
func realPython(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "python3", "-c", "import os, sys; print(os.path.realpath(sys.executable))").Output()
	if err != nil {
		t.Skipf("no python3 on this machine: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// virtualenv makes one, with a Synapse that must not be imported.
func virtualenv(t *testing.T, files map[string]string) (dir, python string) {
	t.Helper()
	real := realPython(t)
	version, err := exec.CommandContext(t.Context(), real, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	place(t, dir, "pyvenv.cfg", "home = "+filepath.Dir(real)+"\ninclude-system-site-packages = false\n")
	modules := "lib/python" + strings.TrimSpace(string(version)) + "/site-packages/"
	place(t, dir, modules+"synapse/__init__.py", "raise SystemExit('Synapse was imported')\n")
	place(t, dir, modules+"synapse/app/homeserver.py", "")
	place(t, dir, modules+"matrix_synapse-1.150.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: matrix-synapse\nVersion: 1.150.0\n")
	for path, content := range files {
		place(t, dir, modules+path, content)
	}
	python = filepath.Join(dir, "bin", "python")
	if err := os.Mkdir(filepath.Dir(python), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, python); err != nil {
		t.Fatal(err)
	}
	return dir, python
}

// everything lists what is below dir with its time of change.
func everything(t *testing.T, dir string) map[string]time.Time {
	t.Helper()
	all := map[string]time.Time{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			all[path] = info.ModTime()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestARealPythonSaysWhatItsClientIs(t *testing.T) {
	const loaded = "__version__ = '2.9.5 (dt dec pq3 ext lo64)'\n__libpq_version__ = 90623\n"
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"absent":               {nil, "1: psycopg2  0 "},
		"a folder left behind": {map[string]string{"psycopg2/__pycache__/x.pyc": ""}, "1: psycopg2  0 "},
		"loaded": {map[string]string{"psycopg2/__init__.py": loaded, "psycopg2/extensions.py": "def libpq_version(): return 150018\n",
			"psycopg2_binary-2.9.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: psycopg2-binary\nVersion: 2.9.5\n"},
			"3: psycopg2 2.9.5 150018 psycopg2-binary"},
		"loaded, and speaks":       {map[string]string{"psycopg2/__init__.py": loaded + "print('{}'); print('" + answerMark + "x')\n", "psycopg2/extensions.py": ""}, "3: psycopg2 2.9.5 90623 "},
		"of PyPy's kind":           {map[string]string{"psycopg2.py": "import sys, psycopg2x\nsys.modules['psycopg2'] = psycopg2x\n", "psycopg2x/__init__.py": "__version__ = '2.9.0'\n__path__ = __path__\n", "psycopg2x/extensions.py": ""}, "3: psycopg2 2.9.0 0 "},
		"without libpq":            {map[string]string{"psycopg2/__init__.py": "raise ImportError('libpq.so.5: cannot open shared object file: No such file or directory')\n"}, "2:ImportError: libpq.so.5: cannot open shared object file: No such file or directory psycopg2  0 "},
		"built for another Python": {map[string]string{"psycopg2/__init__.py": "from psycopg2._psycopg import x\n"}, "2:ModuleNotFoundError: No module named 'psycopg2._psycopg' psycopg2  0 "},
		"ends the process":         {map[string]string{"psycopg2/__init__.py": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"}, "2:Python ends while it loads psycopg2: signal: segmentation fault psycopg2  0 "},
	} {
		t.Run(name, func(t *testing.T) {
			dir, python := virtualenv(t, tt.files)
			t.Setenv("PYTHONPATH", place(t, t.TempDir(), "psycopg2.py", "__version__ = 'of the environment'\n"))
			before := everything(t, dir)
			p, err := PythonPlaces{Named: dir}.FindPython(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%d:%s psycopg2 %s %d %s", p.Client, p.ClientError, p.ClientVersion, p.LibPQ, p.ClientDist)
			if !strings.HasPrefix(got, tt.want) {
				t.Errorf("it says %q, want %q", got, tt.want)
			}
			if p.Path != python || p.Kind != Virtualenv || p.Synapse != "1.150.0" || p.Prefix != dir || !strings.HasPrefix(p.Version, "3.") || p.PyPy || p.Pip {
				t.Errorf("it is %+v", p)
			}
			if after := everything(t, dir); !maps.Equal(before, after) {
				t.Errorf("before: %v\nafter: %v", before, after)
			}
		})
	}
}

func TestAPythonThatCannotBeAsked(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct{ script, want string }{
		"says nothing":         {"#!/bin/sh\n", "it does not answer as Python does"},
		"says something else":  {"#!/bin/sh\necho 'Hello'\necho '" + answerMark + "not JSON'\n", "it does not answer as Python does"},
		"says half":            {"#!/bin/sh\necho '" + answerMark + `{"python": "3", "synapse": "/x"}'` + "\n", "it does not answer as Python does"},
		"fails":                {"#!/bin/sh\necho one >&2\necho 'no such thing' >&2\nexit 3\n", "exit status 3: no such thing"},
		"was ended":            {"#!/bin/sh\necho '" + answerMark + `{"python": "3", "synapse": "/x"}'` + "\nkill -9 $$\n", "signal: killed"},
		"never answers":        {"#!/bin/sh\nsleep 1000\n", "no answer within 300ms"},
		"prints without end":   {"#!/bin/sh\nyes\n", "it prints without end"},
		"complains endlessly":  {"#!/bin/sh\nyes >&2\n", "it prints without end"},
		"is not executable":    {"not a program", "permission denied"},
		"is of another system": {"#!/no/such/shell\n", "no such file or directory"},
		"may not look":         {answering(`"client": "unreadable", "error": "/x/psycopg2"`), "it may not read /x/psycopg2"},
		"is of another time":   {answering(`"client": "undecided"`), "it did not say whether it has psycopg2"},
	} {
		t.Run(name, func(t *testing.T) {
			path := place(t, dir, strings.ReplaceAll(name, " ", "-"), tt.script)
			start := time.Now()
			python, err := PythonPlaces{}.ask(t.Context(), candidate{path: path}, 300*time.Millisecond+bonus(tt.want))
			if python != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v", python, err)
			}
			if took := time.Since(start); took > 8*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// bonus is time for scripts that are not meant to use all of it.
func bonus(want string) time.Duration {
	if strings.HasPrefix(want, "no answer") {
		return 0
	}
	return 10 * time.Second
}

func TestTheFirstPythonThatCannotBeAskedIsNotPassedOver(t *testing.T) {
	root := t.TempDir()
	place(t, root, "opt/venvs/matrix-synapse/bin/python", "#!/bin/sh\nexit 1\n")
	place(t, root, "opt/synapse/env/bin/python", answering(""))
	python, err := PythonPlaces{Root: root, Home: root}.FindPython(t.Context())
	if python != nil || err == nil || !strings.Contains(err.Error(), "bin/python (the matrix.org package): exit status 1") {
		t.Errorf("%+v, %v", python, err)
	}
	if err := os.Remove(filepath.Join(root, "opt/venvs/matrix-synapse/bin/python")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr/bin/python3.2", filepath.Join(root, "opt/venvs/matrix-synapse/bin/python")); err != nil {
		t.Fatal(err)
	}
	python, err = PythonPlaces{Root: root, Home: root}.FindPython(t.Context())
	if python != nil || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "/usr/bin/python3.2") {
		t.Errorf("a link that leads nowhere: %+v, %v", python, err)
	}
}

// alive is false for a process that only waits to be reaped.
func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z")
}

func TestNoProcessIsLeft(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("this system does not show its processes")
	}
	stopped := errors.New("stopped")
	for name, tt := range map[string]struct {
		then string // what the script does when its child has been started
		stop bool
		want error
	}{
		"when it is given up":                         {then: "wait", stop: true, want: stopped},
		"when it has answered and its child lives on": {then: "echo '" + answerMark + `{"python": "3"}'`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			script := place(t, dir, "python", fmt.Sprintf("#!/bin/sh\nsleep 1000 &\necho $$ $! >%s/pids.new; mv %[1]s/pids.new %[1]s/pids\n%s\n", dir, tt.then))
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			ended := make(chan error, 1)
			go func() {
				_, err := PythonPlaces{}.ask(ctx, candidate{path: script}, time.Minute)
				ended <- err
			}()
			var pids []string
			for deadline := time.Now().Add(20 * time.Second); len(pids) != 2; time.Sleep(5 * time.Millisecond) {
				content, _ := os.ReadFile(filepath.Join(dir, "pids"))
				if pids = strings.Fields(string(content)); time.Now().After(deadline) {
					t.Fatal("the script was not started")
				}
			}
			if tt.stop {
				if !alive(pids[0]) || !alive(pids[1]) {
					t.Fatal("it did not wait")
				}
				cancel(stopped)
			}
			select {
			case err := <-ended:
				if !errors.Is(err, tt.want) {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("it goes on")
			}
			for deadline := time.Now().Add(5 * time.Second); alive(pids[0]) || alive(pids[1]); time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("of %v some are left", pids)
				}
			}
		})
	}
}

func TestAProcessOfThisMachineIsSeen(t *testing.T) {
	if _, err := os.Stat("/proc/self/cmdline"); err != nil {
		t.Skip("this system does not show its processes")
	}
	dir := t.TempDir()
	config := place(t, dir, "homeserver.yaml", "")
	python := place(t, dir, "odd place/python3", answering(""))
	cmd := exec.CommandContext(t.Context(), "/bin/sh")
	cmd.Args = []string{python, "-c", "read x", "-m", "synapse.app.homeserver", "--config-path=" + config}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found, err := PythonPlaces{Home: dir, ConfigFiles: []string{config}}.FindPython(t.Context())
	stdin.Close()
	_ = cmd.Wait()
	if err != nil || found == nil || found.Path != python || found.Found != "a running Synapse" {
		t.Errorf("found %+v, %v", found, err)
	}
}

func TestNobodysPythonIsRunWithAnothersRights(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const nobody, daemon = 65534, 1
	asks := answering(`"version": "run as '$(id -u):$(id -G)'"`)
	setup := func(t *testing.T, change func(env string)) string {
		env := filepath.Join(t.TempDir(), "env")
		python := place(t, env, "bin/python", asks)
		for dir := env; dir != os.TempDir(); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		place(t, env, "pyvenv.cfg", "")
		place(t, env, "lib/python3/site-packages/x.py", "")
		change(env)
		return python
	}
	chown := func(uid, gid int, path ...string) func(string) {
		return func(env string) {
			for _, p := range path {
				if err := os.Chown(filepath.Join(env, p), uid, gid); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	chmod := func(path string, mode os.FileMode) func(string) {
		return func(env string) {
			// os.Chmod takes the sticky bit from a flag of its own
			if err := syscall.Chmod(filepath.Join(env, path), uint32(mode)); err != nil {
				t.Fatal(err)
			}
		}
	}
	both := func(all ...func(string)) func(string) {
		return func(env string) {
			for _, change := range all {
				change(env)
			}
		}
	}
	for name, tt := range map[string]struct {
		change func(env string)
		runBy  *account
		want   string // the user, or the error
	}{
		"root's":                           {change: both(), want: "run as 0:0"},
		"a user's":                         {change: chown(nobody, nobody, "", "bin", "bin/python"), want: "run as 65534:65534"},
		"in a user's folder":               {change: chown(nobody, nobody, ""), want: "run as 65534:65534"},
		"a user's link to root's":          {change: both(chown(nobody, nobody, "pyvenv.cfg")), want: "run as 65534:65534"},
		"a user's modules":                 {change: chown(nobody, nobody, "lib/python3/site-packages"), want: "run as 65534:65534"},
		"root's, whom a user runs":         {change: both(), runBy: &account{daemon, daemon}, want: "run as 1:1"},
		"a user's, run by another":         {change: chown(nobody, nobody, ""), runBy: &account{daemon, daemon}, want: "run as 1:1"},
		"a user's, run by root":            {change: chown(nobody, nobody, ""), runBy: &account{0, 0}, want: "run as 65534:65534"},
		"several users'":                   {change: both(chown(nobody, nobody, ""), chown(daemon, daemon, "bin")), want: "parts of it belong to several users (nobody and daemon)"},
		"everyone may write to it":         {change: chmod("bin/python", 0o777), want: "everyone may write to "},
		"everyone may write to its folder": {change: chmod("bin", 0o777), want: "everyone may write to "},
		"everyone may write beside it":     {change: chmod("bin", 0o1777), want: "run as 0:0"},
		"a group may write to it":          {change: both(chown(0, nobody, "bin"), chmod("bin", 0o775)), want: "a group may write to "},
	} {
		t.Run(name, func(t *testing.T) {
			python, err := PythonPlaces{}.ask(t.Context(), candidate{path: setup(t, tt.change), runBy: tt.runBy}, time.Minute)
			got := fmt.Sprint(err)
			if err == nil {
				got = python.Synapse
			}
			if !strings.HasPrefix(got, tt.want) || python != nil && got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}

	t.Run("by a link of a user's", func(t *testing.T) {
		python := setup(t, both())
		link := filepath.Join(filepath.Dir(filepath.Dir(python)), "link")
		if err := os.Symlink(python, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Lchown(link, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		as, err := runAs(candidate{path: link}, 0)
		if err != nil || as == nil || as.uid != nobody {
			t.Errorf("run as %v, %v", as, err)
		}
	})
	t.Run("not by root", func(t *testing.T) {
		python := setup(t, chown(nobody, nobody, "bin"))
		for euid, want := range map[int]string{nobody: "<nil>", daemon: "it belongs to nobody, so it is not run for another user: run the doctor as root or as nobody"} {
			if as, err := runAs(candidate{path: python}, euid); as != nil || fmt.Sprint(err) != want {
				t.Errorf("%d runs as %v, %v", euid, as, err)
			}
		}
		if as, err := runAs(candidate{path: python, named: true}, daemon); as != nil || err != nil {
			t.Errorf("one that was named runs as %v, %v", as, err)
		}
	})
}
