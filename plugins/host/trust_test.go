package host_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

// Whoever can change any directory on the way decides what runs, also where the way leads through links.
func TestEveryDirectoryOnTheWayIsLookedAt(t *testing.T) {
	file, sum := install(t)
	near, far := t.TempDir(), t.TempDir()
	for _, dir := range []string{filepath.Join(near, "a", "b"), filepath.Join(far, "c", "d")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	target := filepath.Join(far, "c", "d", "program")
	if err := os.Link(file, target); err != nil {
		t.Fatal(err)
	}
	// near/a/b/link → far/c/way, a link itself → d; so the file is at near/a/b/link/../d/program.
	for from, to := range map[string]string{filepath.Join(far, "c", "way"): "d", filepath.Join(near, "a", "b", "link"): filepath.Join(far, "c", "way")} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(near, "a", "b", "link", "program")
	if err := describe(t, path, sum); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{near, filepath.Join(near, "a"), filepath.Join(near, "a", "b"), far, filepath.Join(far, "c"), filepath.Join(far, "c", "d")} {
		for _, mode := range []os.FileMode{0o775, 0o757} {
			if err := os.Chmod(dir, mode); err != nil {
				t.Fatal(err)
			}
			says(t, describe(t, path, sum), dir+" can be changed by others than its owner: chmod go-w "+dir)
		}
		if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil { // nobody replaces another's file here
			t.Fatal(err)
		}
		if err := describe(t, path, sum); err != nil {
			t.Errorf("%s with the sticky bit: %v", dir, err)
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(dir, 12345, -1); err != nil {
				t.Fatal(err)
			}
			says(t, describe(t, path, sum), dir+" belongs to neither root nor this user: chown -h root "+dir)
			if err := os.Chown(dir, 0, -1); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// In a directory with the sticky bit a stranger's link is the stranger's to lead elsewhere.
func TestStrangersLinkIsNotFollowed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make another's link")
	}
	file, sum := install(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := describe(t, link, sum); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(link, 12345, -1); err != nil {
		t.Fatal(err)
	}
	// Where the system itself does not follow such links (fs.protected_symlinks), it says so.
	if err := describe(t, link, sum); err == nil || !strings.Contains(err.Error(), link+" belongs to neither root nor this user") && !strings.Contains(err.Error(), "permission denied") {
		t.Error(err)
	}
}

// Another name of the same file, wherever it is, changes nothing: what counts is the file's own mode, and what is in it.
func TestHardLinkElsewhere(t *testing.T) {
	file, sum := install(t)
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(open, "other")
	if err := os.Link(file, other); err != nil {
		t.Fatal(err)
	}
	if err := describe(t, file, sum); err != nil {
		t.Error(err)
	}
	says(t, describe(t, other, sum), open+" can be changed by others")
	if err := os.Chmod(other, 0o757); err != nil {
		t.Fatal(err)
	}
	says(t, describe(t, file, sum), file+" can be changed by others")
}

func TestWhatIsNoProgramIsNotTakenForOne(t *testing.T) {
	dir := t.TempDir()
	huge := filepath.Join(dir, "huge")
	if err := os.WriteFile(huge, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 1<<40); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, nil, 0o111); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                          "is a directory",
		pipe:                         "is not a file",
		"/dev/null":                  "is not a file",
		huge:                         "is larger than 512 MiB",
		secret:                       "can't be read: permission denied",
		filepath.Join(secret, "x"):   "can't be read: not a directory",
		filepath.Join(dir, "\x1b[A"): `\x1b[A can't be read: no such file`,
	} {
		if path == secret && os.Geteuid() == 0 {
			continue // root reads everything
		}
		_, _, err := host.Candidate(path, host.Options{})
		if err == nil || !strings.Contains(doctor.Clean(err.Error()), want) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// A command in a message can be copied, whatever the file is called.
func TestCommandsNameFilesAsAShellTakesThem(t *testing.T) {
	file, sum := install(t)
	path := filepath.Join(t.TempDir(), "it's mine")
	if err := os.Rename(file, path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	says(t, describe(t, path, sum), `chmod go-w '`+filepath.Dir(path)+`/it'\''s mine'`)
}

// Nothing of the environment reaches a plugin but what every plugin gets, what was allowed by name, and what the protocol
// needs.
func TestNoOtherVariableReachesAPlugin(t *testing.T) {
	for _, name := range []string{"PGPASSWORD", "PGSERVICEFILE", "SYNAPSE_DOCTOR_ADMIN_DSN", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "BASH_ENV", "SSH_AUTH_SOCK", "ACME"} {
		t.Setenv(name, "")
	}
	path, sum := install(t)
	p := startSource(t, host.Options{Env: []string{"ACME"}}, func(o host.Options) *host.Source {
		return host.Installed("acme", path, sum, &doctor.Terms{}, o)
	})
	h, err := run(within(t), p, "looks-around")
	if err != nil {
		t.Fatal(err)
	}
	may := strings.Join(append([]string{"ACME", "PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_UNIX_SOCKET_DIR",
		"PLUGIN_UNIX_SOCKET_GROUP", "PLUGIN_MULTIPLEX_GRPC"}, host.AllowedEnv...), " ") + " "
	for line := range strings.Lines(h.found["looks-around"][0].Evidence["environ"]) {
		if name, _, _ := strings.Cut(line, "="); !strings.Contains(may, name+" ") {
			t.Errorf("it was given %s", name)
		}
	}
}

// What is not ours to hand over does not reach a plugin, whichever call is made.
func TestNothingIsHandedOverThatWasNotAllowed(t *testing.T) {
	path, sum := install(t)
	login := pgdb.Settings{"user": "synapse", "password": "hunter2hunter2"}
	for _, c := range []struct {
		terms *doctor.Terms
		want  string
	}{
		{&doctor.Terms{}, "false"},
		{&doctor.Terms{Reader: pgdb.Settings{"user": "reader", "password": "x"}}, "false"}, // not proved to read only
		{&doctor.Terms{AllowFix: true}, "false"},
		{&doctor.Terms{TrustDatabase: true}, "true"},
	} {
		p := startSource(t, host.Options{}, func(o host.Options) *host.Source { return host.Installed("acme", path, sum, c.terms, o) })
		req := request("looks-around")
		req.Target.Databases = []*doctor.Database{{Label: "main", Engine: doctor.Postgres, Settings: login}}
		h := &heard{}
		if err := p.Check(within(t), req, h); err != nil {
			t.Fatal(err)
		}
		if got := h.found["looks-around"][0].Evidence["handed"]; got != c.want {
			t.Errorf("%+v: handed a login: %s", c.terms, got)
		}
	}
}

// A description has as many faults as its author likes; a sentence tells of one.
func TestDescriptionWithManyFaultsIsOneSentence(t *testing.T) {
	_, err := start(t, "lie-describe-many").Describe(within(t))
	says(t, err, "plugin lie-describe-many describes itself badly: ", "(and 397 more: synapse-doctor plugin test FILE tells its author all of them)")
	if n := len(err.Error()); n > 300 || strings.Contains(err.Error(), "\n") {
		t.Errorf("%d characters: %.400s", n, err)
	}
}

// What a plugin says while it fails is quoted, and not without end.
func TestLongWordsOfAPluginAreCut(t *testing.T) {
	script := filepath.Join(t.TempDir(), "wordy")
	for _, line := range []string{
		`yes word | head -c 4000 | tr -d '\n' >&2`,
		`printf '1|3|unix|/s|grpc|c||%s|1\n' "$(yes word | head -c 9000 | tr -d '\n')"; exec sleep 1000`,
		`printf '1|1|unix|/%s|grpc|c\n' "$(yes word | head -c 9000 | tr -d '\n')"; exec sleep 1000`,
	} {
		if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\n%s\n", line), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := startFile(t, script, host.Options{}).Describe(within(t))
		says(t, err, "word")
		if n := len(err.Error()); n > 600 {
			t.Errorf("%d characters", n)
		}
	}
}
