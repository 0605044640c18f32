package synapse

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// answering is a shell script in place of an interpreter, which has Synapse and says so.
func answering(facts string) string {
	return fmt.Sprintf("#!/bin/sh\n[ \"$1 $2 $3\" = '-I -B -c' ] || exit 9\necho '%s{\"python\": \"3.11.2\", \"prefix\": \"/venv\", \"base\": \"/usr\", \"synapse\": \"/venv/lib/synapse\", \"client\": \"loaded\"}'\n"+
		"echo '%[1]s{%s}'\n", answerMark, facts)
}

const withoutSynapse = "#!/bin/sh\necho '" + answerMark + `{"python": "3.11.2"}'` + "\n"

// place writes a file below dir, executable when it is a script.
func place(t *testing.T, dir, path, content string) string {
	t.Helper()
	path = filepath.Join(dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	mode := os.FileMode(0o644)
	if strings.HasPrefix(content, "#!") {
		mode = 0o755
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// process places what /proc says of a process.
func process(t *testing.T, root, pid, sees string, args ...string) {
	t.Helper()
	place(t, root, "proc/"+pid+"/cmdline", strings.Join(args, "\x00")+"\x00")
	if err := os.Symlink(sees, filepath.Join(root, "proc", pid, "root")); err != nil {
		t.Fatal(err)
	}
}

func TestThePythonOfEachInstallationIsFound(t *testing.T) {
	const (
		matrixOrg = "opt/venvs/matrix-synapse/bin/python"
		env       = "opt/synapse/env/bin/python"
		config    = "/etc/matrix-synapse/homeserver.yaml"
	)
	homeserver := func(python string, more ...string) []string {
		return append([]string{python, "-m", "synapse.app.homeserver"}, more...)
	}
	for name, tt := range map[string]struct {
		files map[string]string
		setup func(t *testing.T, root string)
		named string
		want  string // path, and what led to it
		kind  Installation
	}{
		"none": {want: ""},
		"the matrix.org package": {files: map[string]string{matrixOrg: answering(`"prefix": "/opt/venvs/matrix-synapse"`), env: answering("")},
			want: matrixOrg + " the matrix.org package", kind: MatrixOrgPackage},
		"Debian's package": {files: map[string]string{
			"usr/bin/synapse_homeserver": "#! /usr/bin/python3 -s\n",
			"usr/bin/python3":            answering(`"prefix": "/usr", "synapse": "/usr/lib/python3/dist-packages/synapse"`)},
			want: "usr/bin/python3 /usr/bin/synapse_homeserver", kind: DebianPackage},
		"Fedora's package": {files: map[string]string{
			"usr/bin/synapse_homeserver": "#!/usr/bin/python3\n",
			"usr/bin/python3":            answering(`"prefix": "/usr", "synapse": "/usr/lib64/python3.13/site-packages/synapse"`)},
			want: "usr/bin/python3 /usr/bin/synapse_homeserver", kind: SystemPackage},
		"the Docker image": {files: map[string]string{
			"start.py":             "#!/usr/local/bin/python\n",
			"usr/local/bin/python": answering(`"prefix": "/usr/local", "base": "/usr/local", "synapse": "/usr/local/lib/python3.13/site-packages/synapse"`)},
			want: "usr/local/bin/python /start.py", kind: DockerImage},
		"pip without a virtualenv": {files: map[string]string{
			"usr/local/bin/synapse_homeserver": "#!/usr/bin/python3\n",
			"usr/bin/python3":                  answering(`"prefix": "/usr", "synapse": "/usr/local/lib/python3.11/dist-packages/synapse"`)},
			want: "usr/bin/python3 /usr/local/bin/synapse_homeserver", kind: SystemPip},
		"beside homeserver.yaml": {files: map[string]string{"etc/matrix-synapse/.venv/bin/python": answering(""), env: answering("")},
			want: "etc/matrix-synapse/.venv/bin/python a virtualenv in a usual place", kind: Virtualenv},
		"in ~/synapse": {files: map[string]string{"home/synapse/env/bin/python": answering("")},
			want: "home/synapse/env/bin/python a virtualenv in a usual place", kind: Virtualenv},
		"in /opt/synapse": {files: map[string]string{env: answering("")}, want: env + " a virtualenv in a usual place", kind: Virtualenv},
		"a Python without Synapse is passed over": {files: map[string]string{
			"usr/bin/synapse_homeserver": "#!/usr/bin/python3\n", "usr/bin/python3": withoutSynapse, env: answering("")},
			want: env + " a virtualenv in a usual place", kind: Virtualenv},
		"env(1) is no Python": {files: map[string]string{"usr/bin/synapse_homeserver": "#!/usr/bin/env python3\n", "usr/bin/env": answering("")}},

		"the service": {files: map[string]string{
			"lib/systemd/system/matrix-synapse.service": "[Service]\nExecStartPre=/usr/bin/python3 -m x\nExecStart=\\\n  @/srv/hs/bin/python3.11 -m synapse.app.homeserver\n",
			"srv/hs/bin/python3.11":                     answering(""), matrixOrg: answering("")},
			want: "srv/hs/bin/python3.11 matrix-synapse.service", kind: Virtualenv},
		"the service as it was changed": {files: map[string]string{
			"usr/lib/systemd/system/matrix-synapse.service":             "ExecStart=/opt/venvs/matrix-synapse/bin/python -m synapse.app.homeserver\n",
			"etc/systemd/system/matrix-synapse.service.d/override.conf": "[Service]\nExecStart=\nExecStart=\"/srv/hs/bin/synapse_homeserver\" -c x\n",
			"srv/hs/bin/synapse_homeserver":                             "#!/srv/hs/bin/python\n", "srv/hs/bin/python": answering(""), matrixOrg: answering("")},
			want: "srv/hs/bin/python matrix-synapse.service", kind: Virtualenv},
		"a unit in /etc wins": {files: map[string]string{
			"usr/lib/systemd/system/matrix-synapse.service": "ExecStart=/opt/venvs/matrix-synapse/bin/python\n",
			"etc/systemd/system/matrix-synapse.service":     "ExecStart=/srv/hs/bin/python\n",
			"srv/hs/bin/python":                             answering(""), matrixOrg: answering("")},
			want: "srv/hs/bin/python matrix-synapse.service", kind: Virtualenv},
		"a service that starts a container": {files: map[string]string{
			"etc/systemd/system/synapse.service": "ExecStart=/usr/bin/docker run matrixdotorg/synapse\n", "usr/bin/docker": "\x7fELF"}},

		"a running Synapse": {files: map[string]string{"srv/hs/bin/python": answering(""), matrixOrg: answering("")},
			setup: func(t *testing.T, root string) { process(t, root, "17", root, homeserver("/srv/hs/bin/python")...) },
			want:  "srv/hs/bin/python a running Synapse", kind: Virtualenv},
		"a running worker": {files: map[string]string{"srv/hs/bin/python3": answering("")},
			setup: func(t *testing.T, root string) {
				process(t, root, "17", root, "/srv/hs/bin/python3", "-B", "-m", "synapse.app.generic_worker", "-c", config)
			},
			want: "srv/hs/bin/python3 a running Synapse", kind: Virtualenv},
		"a running script": {files: map[string]string{"srv/hs/bin/python3": answering("")},
			setup: func(t *testing.T, root string) {
				process(t, root, "17", root, "/srv/hs/bin/python3", "/srv/hs/bin/synapse_homeserver", "-c", "homeserver.yaml")
			},
			want: "srv/hs/bin/python3 a running Synapse", kind: Virtualenv},
		"somebody looks for Synapse": {files: map[string]string{"srv/hs/bin/python": answering("")},
			setup: func(t *testing.T, root string) {
				process(t, root, "17", root, "grep", "-m", "synapse.app.homeserver")
				process(t, root, "18", root, "/srv/hs/bin/python", "x.py", "synapse.app.homeserver")
				process(t, root, "19", root, "")
			}},
		"somebody looks for Synapse in a container": {files: map[string]string{env: answering("")},
			setup: func(t *testing.T, root string) {
				process(t, root, "17", t.TempDir(), "grep", "-m", "synapse.app.homeserver")
			},
			want: env + " a virtualenv in a usual place", kind: Virtualenv},
		"another homeserver runs too": {files: map[string]string{"srv/a/bin/python": answering(""), "srv/b/bin/python": answering("")},
			setup: func(t *testing.T, root string) {
				process(t, root, "17", root, homeserver("/srv/a/bin/python", "--config-path=/srv/a/homeserver.yaml")...)
				process(t, root, "18", root, homeserver("/srv/b/bin/python", "-c", "/etc/matrix-synapse")...)
			},
			want: "srv/b/bin/python a running Synapse", kind: Virtualenv},
		"in a container, and leftovers outside": {files: map[string]string{env: answering("")},
			setup: func(t *testing.T, root string) {
				process(t, root, "17", t.TempDir(), homeserver("/opt/synapse/env/bin/python")...)
			}},
		"in a container that can't be looked into": {files: map[string]string{env: answering("")},
			setup: func(t *testing.T, root string) {
				process(t, root, "17", "/nowhere", homeserver("/usr/local/bin/python")...)
			}},

		"named":                  {files: map[string]string{"x/python": answering(""), matrixOrg: answering("")}, named: "/x/python", want: "x/python --synapse-python", kind: Virtualenv},
		"a virtualenv was named": {files: map[string]string{"x/bin/python": answering("")}, named: "/x", want: "x/bin/python --synapse-python", kind: Virtualenv},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for path, content := range tt.files {
				place(t, root, path, content)
			}
			if tt.setup != nil {
				tt.setup(t, root)
			}
			places := PythonPlaces{Root: root, Home: filepath.Join(root, "home"), Named: tt.named, ConfigFiles: []string{filepath.Join(root, config)}}
			python, err := places.FindPython(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, kind := "", Installation(0)
			if python != nil {
				got, kind = strings.TrimPrefix(python.Path, root+"/")+" "+python.Found, python.Kind
			}
			if got != tt.want || kind != tt.kind {
				t.Errorf("found %q of kind %d, want %q of kind %d", got, kind, tt.want, tt.kind)
			}
		})
	}
}

func TestTheOperatingSystemIsNamed(t *testing.T) {
	root := t.TempDir()
	place(t, root, "usr/lib/os-release", "NAME=\"Linux Mint\"\nID_LIKE=\"ubuntu debian\"\nID=linuxmint\n")
	if got := (PythonPlaces{Root: root}).system(); fmt.Sprint(got) != "[linuxmint ubuntu debian]" {
		t.Errorf("got %q", got)
	}
}

func TestWhatWasNamedMustBeSynapsesPython(t *testing.T) {
	root := t.TempDir()
	place(t, root, "bare/python", withoutSynapse)
	place(t, root, "folder/x", "")
	place(t, root, "plain", "not a program")
	for named, want := range map[string]string{
		"/bare/python": "has no Synapse: is it the Python that runs the homeserver?",
		"/folder":      "is neither a Python nor the folder of a virtualenv",
		"/nothing":     "no such file or directory",
		"/plain":       "permission denied",
	} {
		python, err := PythonPlaces{Root: root, Named: named}.FindPython(t.Context())
		if python != nil || err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), named) {
			t.Errorf("%s: %+v, %v", named, python, err)
		}
	}
}
