package synapse

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// configOf is the configuration that the text makes.
func configOf(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Load(place(t, t.TempDir(), "homeserver.yaml", text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const smallest = "server_name: test.example\n"

// scripted is an update whose program is a shell script, started by its path.
func scripted(t *testing.T, script string) Update {
	t.Helper()
	return Update{Command: []string{place(t, t.TempDir(), updateProgram, "#!/bin/sh\n"+script)}, Config: configOf(t, smallest), Within: time.Minute}
}

func failure(t *testing.T, err error) *UpdateError {
	t.Helper()
	e, ok := errors.AsType[*UpdateError](err)
	if !ok {
		t.Fatalf("the error is %v", err)
	}
	return e
}

func TestACommandIsSplitAsByAShell(t *testing.T) {
	for command, want := range map[string][]string{
		"docker exec -i synapse": {"docker", "exec", "-i", "synapse"},
		"  a\t b\n":              {"a", "b"},
		`sudo -u 'matrix synapse' "x \"y\" \z" a\ b '' "'"`: {"sudo", "-u", "matrix synapse", `x "y" \z`, "a b", "", "'"},
		`a'b'"c"d`:          {"abcd"},
		`'$HOME' "$HOME" *`: {"$HOME", "$HOME", "*"},
	} {
		if got, err := Words(command); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", command, got, err)
		}
	}
	for _, command := range []string{"", "  ", "'a", `"a`, `"a\"`, `a\`} {
		if got, err := Words(command); err == nil {
			t.Errorf("%q became %q", command, got)
		}
	}
}

func TestSynapseIsHandedWhatTheSchemaDependsOnAndNothingElse(t *testing.T) {
	c := configOf(t, `
server_name: test.example
modules: [{module: not.installed}]
signing_key_path: /nowhere/signing.key
log_config: /nowhere/log.config
registration_shared_secret: do-not-tell
database: {name: sqlite3, args: {database: /homeserver.db}}
databases: {}
password_providers:
  - module: "ldap_auth_provider.LdapAuthProvider"
    config: {enabled: yes, port: 0x10, ratio: 1e3, much: 5.0e+20, "key": [1, ~, "yes", "010"], 5: five}
`)
	hostile := "p\"a'ss\\ #: {é🎉\u2028\x7f\x01 "
	u := Update{Config: c, Args: map[string]string{"host": "db", "password": hostile}, AllowUnsafeLocale: true}
	text, err := u.document()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), "\n") != 1 || strings.ContainsFunc(string(text), func(r rune) bool { return r > '~' || r < ' ' && r != '\n' }) {
		t.Errorf("more than one line of ASCII:\n%q", text)
	}
	read, err := parseDocument("-", text)
	if err != nil {
		t.Fatal(err)
	}
	top := read.value.(map[any]any)
	if want := (map[any]any{"name": "psycopg2", "allow_unsafe_locale": true,
		"args": map[any]any{"host": "db", "password": hostile, "cp_min": int64(1), "cp_max": int64(2)}}); !reflect.DeepEqual(top["database"], want) {
		t.Errorf("the database is %#v", top["database"])
	}
	if want := []any{map[any]any{"module": "ldap_auth_provider.LdapAuthProvider", "config": map[any]any{"enabled": true, "port": int64(16), "ratio": "1e3",
		"much": 5e20, "key": []any{int64(1), nil, "yes", "010"}, int64(5): "five"}}}; !reflect.DeepEqual(top["password_providers"], want) {
		t.Errorf("the modules are %#v", top["password_providers"])
	}
	if top["server_name"] != "test.example" {
		t.Errorf("the server_name is %v", top["server_name"])
	}
	for _, word := range []string{"nowhere", "do-not-tell", "databases", "not.installed", "sqlite3"} {
		if strings.Contains(string(text), word) {
			t.Errorf("%s is handed over: %s", word, text)
		}
	}
}

func TestNumbersAreWrittenAsPythonReadsThem(t *testing.T) {
	for f, want := range map[float64]string{1: "1.0e+00", 0.5: "5.0e-01", 1.25e300: "1.25e+300", math.Inf(1): ".inf", math.Inf(-1): "-.inf"} {
		got := yamlFloat(f)
		if got != want || !floatForm.MatchString(got) {
			t.Errorf("%v became %s, want %s", f, got, want)
		}
		if back, ok := parseFloat(got); !ok || back != f {
			t.Errorf("%s is read as %v", got, back)
		}
	}
}

func TestThePasswordGoesThroughTheStandardInputOnly(t *testing.T) {
	seen := t.TempDir()
	u := scripted(t, fmt.Sprintf(`printf '%%s\n' "$@" >%[1]s/args; env >%[1]s/env; cat >%[1]s/stdin; tr '\0' ' ' </proc/$$/cmdline >%[1]s/cmdline`, seen))
	u.Args = map[string]string{"password": "very-secret"}
	for _, named := range [][]string{u.Command, {"env", "A=b", "sh", "-c", `exec "$0" "$@"`, u.Command[0]}} {
		u.Command = named
		if err := u.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		read := func(name string) string {
			text, err := os.ReadFile(filepath.Join(seen, name))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		if got := read("args"); !strings.HasSuffix(got, "--database-config\n-\n--run-background-updates\n") {
			t.Errorf("the arguments are %q", got)
		}
		if got := read("stdin"); !strings.Contains(got, `"password": "very-secret"`) {
			t.Errorf("it is handed %q", got)
		}
		for _, place := range []string{"args", "env", "cmdline"} {
			if strings.Contains(read(place), "very-secret") {
				t.Errorf("the password is in %s", place)
			}
		}
	}
}

func TestTheProgramIsNamedOnlyWhereTheCommandDoesNot(t *testing.T) {
	for command, want := range map[string]string{
		"docker exec -i synapse":                            "docker exec -i synapse update_synapse_database",
		"chroot /s /usr/bin/update_synapse_database":        "chroot /s /usr/bin/update_synapse_database",
		"docker exec -i synapse my_update_synapse_database": "docker exec -i synapse my_update_synapse_database update_synapse_database",
	} {
		words, err := Words(command)
		if err != nil {
			t.Fatal(err)
		}
		program, as, err := Update{Command: words}.program(t.Context())
		if got := strings.Join(program, " "); got != want+" --database-config - --run-background-updates" || as != nil || err != nil {
			t.Errorf("%s: %s, %v, %v", command, got, as, err)
		}
	}
}

func TestWhatSynapseSaysIsToldInOneSentence(t *testing.T) {
	for name, tt := range map[string]struct{ script, want string }{
		"an exception": {`echo 'Traceback (most recent call last):' >&2; echo '  File "x.py"' >&2; echo "synapse.config._base.ConfigError: no" >&2; echo "	Is it?" >&2; exit 1`,
			"update_synapse_database: synapse.config._base.ConfigError: no"},
		"a missing module": {`echo "ModuleNotFoundError: No module named 'ldap'"; exit 1`, "ModuleNotFoundError: No module named 'ldap'"},
		"an old Synapse":   {`echo "/usr/bin/python3: No module named synapse._scripts"; exit 1`, "this Synapse is older than 1.57"},
		"no input":         {`echo "TypeError: 'NoneType' object has no attribute 'get'"; exit 1`, "must pass its standard input on"},
		"plain words":      {`echo "Error response: No such container: synapse"; exit 125`, "No such container: synapse"},
		"nothing":          {"exit 3", "exit status 3"},
	} {
		e := failure(t, scripted(t, tt.script).Run(t.Context()))
		if !strings.Contains(e.Reason, tt.want) || strings.Contains(e.Reason, "\n") {
			t.Errorf("%s: %q", name, e.Reason)
		}
	}
	u := scripted(t, "")
	u.Command = []string{"/nowhere/docker", "exec"}
	if e := failure(t, u.Run(t.Context())); !strings.Contains(e.Reason, "/nowhere/docker: no such file or directory") {
		t.Error(e.Reason)
	}
	u.Command = nil
	if e := failure(t, u.Run(t.Context())); !strings.Contains(e.Reason, "--synapse-command") {
		t.Error(e.Reason)
	}
}

func TestTheLastLinesOfTheOutputAreKept(t *testing.T) {
	e := failure(t, scripted(t, `i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo "line $i"; done; head -c 100000 /dev/zero | tr '\0' x; echo; printf 'RuntimeError: end'; exit 1`).Run(t.Context()))
	if len(e.Said) < mostLines || len(e.Said) > mostLines+1 || e.Said[0] != "line 973" && e.Said[0] != "line 972" || e.Said[len(e.Said)-1] != "RuntimeError: end" {
		t.Errorf("%d lines are kept: %q … %q", len(e.Said), e.Said[0], e.Said[len(e.Said)-1])
	}
	if long := e.Said[len(e.Said)-2]; len(long) != longestLine {
		t.Errorf("a long line has %d bytes", len(long))
	}
}

func TestEachBackgroundUpdateIsToldOnce(t *testing.T) {
	u := scripted(t, `for n in a a b; do echo "INFO - Starting update batch on background update '$n'"; done`)
	var steps []string
	u.Step = func(text string) { steps = append(steps, text) }
	if err := u.Run(t.Context()); err != nil || !slices.Equal(steps, []string{"background update a", "background update b"}) {
		t.Errorf("%q, %v", steps, err)
	}
}

func TestABackgroundUpdateThatFailsEndsIt(t *testing.T) {
	u := scripted(t, `echo "Starting update batch on background update 'events_index'"
echo "2026 - ERROR - Error doing update: could not create unique index"
echo "ERROR - Background process 'background_updates' threw an exception"
sleep 600`)
	start := time.Now()
	e := failure(t, u.Run(t.Context()))
	if e.Reason != "update_synapse_database has given up on a background update (events_index): could not create unique index" || time.Since(start) > 30*time.Second {
		t.Errorf("%q after %s", e.Reason, time.Since(start))
	}
	// Twisted ends with 0 when it is asked to end.
	u = scripted(t, `trap 'exit 0' TERM; echo "RuntimeError: 5 back-to-back background update failures; aborting."; sleep 600 & wait`)
	if e := failure(t, u.Run(t.Context())); !strings.Contains(e.Reason, "back-to-back") {
		t.Error(e.Reason)
	}
}

// lingering is a program that heeds no signal but the last, with a child; both write their ids.
func lingering(t *testing.T) (Update, func() []int) {
	t.Helper()
	dir := t.TempDir()
	u := scripted(t, fmt.Sprintf(`trap '' TERM INT HUP
sh -c 'trap "" TERM INT HUP; echo $$ >%[1]s/child.new; mv %[1]s/child.new %[1]s/child; while :; do sleep 1; done' &
echo $$ >%[1]s/parent.new; mv %[1]s/parent.new %[1]s/parent
while :; do sleep 1; done`, dir))
	return u, func() []int {
		var pids []int
		for _, name := range []string{"parent", "child"} {
			for text := ""; text == ""; time.Sleep(10 * time.Millisecond) {
				content, _ := os.ReadFile(filepath.Join(dir, name))
				text = strings.TrimSpace(string(content))
				if pid, err := strconv.Atoi(text); err == nil {
					pids = append(pids, pid)
				}
				if t.Context().Err() != nil {
					t.Fatal("the program has not begun")
				}
			}
		}
		return pids
	}
}

// gone waits until the processes are, and fails when they are not.
func gone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		for range 500 {
			if running(pid) {
				time.Sleep(10 * time.Millisecond)
			}
		}
		if running(pid) {
			t.Errorf("process %d is left behind", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// running is false for a zombie too.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestTooLongATimeLeavesNoProcessBehind(t *testing.T) {
	u, pids := lingering(t)
	u.Within = 2 * time.Second
	ended := make(chan error, 1)
	go func() { ended <- u.Run(t.Context()) }()
	seen := pids()
	e := failure(t, <-ended)
	if !strings.Contains(e.Reason, "has not ended within 2s") || !errors.Is(e, errTooLong) {
		t.Errorf("%q", e.Reason)
	}
	gone(t, seen)
}

func TestAnInterruptionLeavesNoProcessBehind(t *testing.T) {
	u, pids := lingering(t)
	interrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- u.Run(ctx) }()
	seen := pids()
	cancel(interrupted)
	if err := <-ended; !errors.Is(err, interrupted) {
		t.Errorf("the error is %v", err)
	}
	gone(t, seen)
}

// The password is for nobody who could not have read it.
func TestAUserWhoCouldNotReadThePasswordIsNotHandedIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP: only root runs programs as other users")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skipf("SKIP: no other user to try it with: %v", err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	dir, err := os.MkdirTemp("/tmp", "synapse-update-") // others may enter it, as not every TMPDIR
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	seen := place(t, dir, "seen", "")
	python := place(t, dir, "env/bin/python", fmt.Sprintf("#!/bin/sh\n[ \"$1 $2 $3\" = '-I -B -m' ] || exec /bin/sh %s/answer \"$@\"\n{ id -u; cat; } >%s\n", dir, seen))
	place(t, dir, "answer", answering(`"prefix": "/venv"`))
	data := place(t, dir, "homeserver.db", "")
	config := place(t, dir, "homeserver.yaml", smallest)
	for _, path := range []string{filepath.Join(dir, "env"), filepath.Dir(python), python, seen} {
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Load(config)
	if err != nil {
		t.Fatal(err)
	}
	found, err := PythonPlaces{Root: dir, Home: dir, ConfigFiles: []string{config}}.FindPython(t.Context())
	if err != nil || found == nil {
		t.Fatalf("found %+v, %v", found, err)
	}
	run := func() (string, error) {
		if err := os.Truncate(seen, 0); err != nil {
			t.Fatal(err)
		}
		err := Update{Python: found, Config: c, Args: map[string]string{"password": "very-secret"}, PasswordFile: config, Private: []string{data}, Within: time.Minute}.Run(t.Context())
		text, _ := os.ReadFile(seen)
		return string(text), err
	}
	change := func(path string, mode os.FileMode, owner int) {
		if err := errors.Join(os.Chmod(path, mode), os.Chown(path, owner, owner)); err != nil {
			t.Fatal(err)
		}
	}
	change(config, 0o600, 0)
	change(data, 0o644, 0)
	if text, err := run(); text != "" || !strings.Contains(failure(t, err).Reason, "no right to see the database's password") {
		t.Errorf("it was handed %q: %v", text, err)
	}
	handed := func(why string) {
		if text, err := run(); err != nil || !strings.HasPrefix(text, nobody.Uid+"\n") || !strings.Contains(text, "very-secret") {
			t.Errorf("%s: it was handed %q: %v", why, text, err)
		}
	}
	change(data, 0o600, uid)
	handed("the database is its own")
	change(data, 0o644, 0)
	change(config, 0o644, 0)
	handed("it may read the configuration")
	change(config, 0o600, 0)
	found.named = true
	handed("it was named")
}
