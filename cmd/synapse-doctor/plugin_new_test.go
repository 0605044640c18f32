package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// source is this module, in the place of a release.
const source = "../.."

// newPlugin runs plugin new in a directory of its own, and returns the project's.
func newPlugin(t *testing.T, args ...string) (dir, stdout string, err error) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "project")
	var out, errs bytes.Buffer
	code, err := runPluginNew(t.Context(), append(args, "--dir", dir), streams{out: &out, err: &errs})
	if err == nil && code != exitOK {
		t.Errorf("exit code %d", code)
	}
	return dir, out.String(), err
}

// in runs a program in a project, without the network: go.mod and go.sum have all that is needed.
func in(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOPROXY=off", "GOWORK=off", "CI=true", "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestANewGoPluginPassesItsTests builds it, vets it, runs its tests on a real server and lets a host ask it.
func TestANewGoPluginPassesItsTests(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds a module of its own")
	}
	pgtest.Start(t) // skipped where there is no server
	dir, out, err := newPlugin(t, "acme", "--sdk", source)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "synapse-doctor check acme --dev-plugin ./synapse-doctor-plugin-acme") {
		t.Errorf("how to try it is not said:\n%s", out)
	}
	if *updateKit {
		tidy := exec.CommandContext(t.Context(), "go", "mod", "tidy") // asks the network for what tests of dependencies need
		tidy.Dir = dir
		if out, err := tidy.CombinedOutput(); err != nil {
			t.Fatalf("go mod tidy: %v\n%s", err, out)
		}
		updateGoMod(t, dir)
	}
	if bad := in(t, dir, "gofmt", "-l", "."); bad != "" {
		t.Errorf("not gofmt'ed: %s", bad)
	}
	in(t, dir, "make", "build", "test")
	describes(t, filepath.Join(dir, "synapse-doctor-plugin-acme"), "acme/no-display-name")
	conforms(t, filepath.Join(dir, "synapse-doctor-plugin-acme"))
}

// updateGoMod makes the template's go.mod of a tidied one.
func updateGoMod(t *testing.T, dir string) {
	absolute, err := filepath.Abs(source)
	if err != nil {
		t.Fatal(err)
	}
	_, replace, err := newProject{sdk: absolute}.module("")
	if err != nil {
		t.Fatal(err)
	}
	words := strings.NewReplacer("synapse-doctor-plugin-acme", "synapse-doctor-plugin-@NAME@", sdkModule+" v0.0.0", sdkModule+" @VERSION@",
		strings.TrimSpace(replace), "@REPLACE@", strings.TrimSpace(strings.ReplaceAll(replace, `"`, "")), "@REPLACE@")
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		kept(t, filepath.Join("templates/go", name+".tmpl"), []byte(words.Replace(string(text))))
	}
}

// TestANewPythonPluginPassesItsTests builds it, runs its tests with the real program on a real server, and lets a host ask it.
func TestANewPythonPluginPassesItsTests(t *testing.T) {
	if testing.Short() {
		t.Skip("it is Python's work")
	}
	python := pythonWithGRPC(t)
	if python == "" {
		t.Skip("there is no Python with grpcio, protobuf and psycopg2")
	}
	pgtest.Start(t)
	dir, _, err := newPlugin(t, "acme", "--lang", "python")
	if err != nil {
		t.Fatal(err)
	}
	doctor := filepath.Join(t.TempDir(), "synapse-doctor")
	in(t, ".", "go", "build", "-o", doctor, ".")
	out := in(t, dir, "make", "test", "DOCTOR="+doctor)
	if !strings.Contains(out, "OK") || strings.Contains(out, "skipped") {
		t.Errorf("its tests did not run:\n%s", out)
	}
	describes(t, filepath.Join(dir, "synapse-doctor-plugin-acme"), "acme/no-display-name")
	conforms(t, filepath.Join(dir, "synapse-doctor-plugin-acme"))
}

// describes wants a built plugin to be listed with a code.
func describes(t *testing.T, plugin, code string) {
	t.Helper()
	var out, errs bytes.Buffer
	exit, err := runList(t.Context(), []string{"--dev-plugin", plugin, "--in-process"}, streams{out: &out, err: &errs})
	if err != nil || exit != exitOK || !strings.Contains(out.String(), code) {
		t.Errorf("list: exit %d, %v\n%s%s", exit, err, out.String(), errs.String())
	}
}

// conforms wants a built plugin to keep to all that plugins must keep to.
func conforms(t *testing.T, plugin string) {
	t.Helper()
	var out, errs bytes.Buffer
	exit, err := runPluginTest(t.Context(), []string{plugin}, streams{out: &out, err: &errs})
	if err != nil || exit != exitOK {
		t.Errorf("plugin test: exit %d, %v\n%s%s", exit, err, out.String(), errs.String())
	}
}

func TestANewPluginIsWrittenWholeOrNotAtAll(t *testing.T) {
	existing := filepath.Join(t.TempDir(), "there")
	if err := os.Mkdir(existing, 0o700); err != nil {
		t.Fatal(err)
	}
	source, err := filepath.Abs(source)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, want string }{
		{"acme --sdk " + source + " --dir " + existing, "exists already"},
		{"acme --dir " + filepath.Join(existing, "no/where") + " --lang python", "no such file or directory"},
		{"acme --lang rust", `"rust" is no language`},
		{"acme --lang python --sdk " + source, "--sdk is for plugins in Go"},
		{"acme --sdk " + existing, "does not hold the source"},
		{"acme", "is no release"},
		{"", "takes the name of one plugin"},
		{"a b", "takes the name of one plugin"},
		{"sequence --lang python", "is built in"},
		{"builtin --lang python", "is built in"},
		{"Acme --lang python", "can't be the name"},
		{"../acme --lang python", "can't be the name"},
		{"acme- --lang python", "can't be the name"},
		{"1acme --lang python", "can't be the name"},
		{strings.Repeat("a", 41) + " --lang python", "can't be the name"},
	} {
		here := t.TempDir()
		t.Chdir(here)
		var out, errs bytes.Buffer
		_, err := runPluginNew(t.Context(), strings.Fields(c.name), streams{out: &out, err: &errs})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("plugin new %s: %v, want %q", c.name, err, c.want)
		}
		if left, _ := os.ReadDir(here); len(left) > 0 || out.Len() > 0 {
			t.Errorf("plugin new %s left %v and said %q", c.name, left, out.String())
		}
	}
	if left, _ := os.ReadDir(existing); len(left) > 0 {
		t.Errorf("the existing directory has %v", left)
	}
}

// TestAReleaseNamesItself: a plugin made by a release is built against that release.
func TestAReleaseNamesItself(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	if err := (newProject{name: "acme", lang: "go", dir: dir}).write("1.2.3"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil || !strings.Contains(string(text), sdkModule+" v1.2.3\n") || strings.Contains(string(text), "replace") || strings.Contains(string(text), "@") {
		t.Errorf("%v\n%s", err, text)
	}
	if _, err := os.Stat(filepath.Join(dir, ".github/workflows/ci.yml")); err != nil {
		t.Error(err)
	}
}
