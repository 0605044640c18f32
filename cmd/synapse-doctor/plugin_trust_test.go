package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/pflag"

	"github.com/synapse-doctor/synapse-doctor/core/config"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

func TestAPluginThatClaimsWhatIsAnothersIsNotAdded(t *testing.T) {
	conf := &config.Config{Plugins: []config.Plugin{{Name: "other", Checks: []string{"rooms"}}}}
	for _, c := range []struct {
		name, id, want string
	}{
		{"acme", "sequence", "which this program has itself"},
		{"acme", "rooms", "run: synapse-doctor plugin remove other"},
		{"builtin", "x", "can't be called builtin"},
		{"other", "rooms", ""},
		{"acme", "x", ""},
	} {
		err := claimed(conf, doctor.Description{Name: c.name, Checks: []doctor.CheckInfo{{ID: c.id}}})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %s: %v", c.name, c.id, err)
		}
	}
}

func TestAPluginIsStartedOnlyWhenItIsNeeded(t *testing.T) {
	conf := &config.Config{Plugins: []config.Plugin{{Name: "acme", Checks: []string{"rooms"}}, {Name: "other", Checks: []string{"bridges"}}}}
	for _, c := range []struct {
		flags pluginFlags
		want  bool
	}{
		{pluginFlags{every: true}, true},
		{pluginFlags{}, false},
		{pluginFlags{wanted: []string{"sequence/behind-table", "bridges"}}, false},
		{pluginFlags{wanted: []string{"sequence", "rooms/empty"}}, true},
		{pluginFlags{wanted: []string{"nobody-knows"}}, true},
		{pluginFlags{wanted: []string{"in-development"}, dev: []string{"file"}}, false},
	} {
		if got := c.flags.needs(conf, conf.Plugins[0]); got != c.want {
			t.Errorf("%+v: %v", c.flags, got)
		}
	}
}

func TestWherePluginsAreLookedFor(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", "/data")
	one, two := t.TempDir(), t.TempDir()
	p := pluginFlags{dirs: []string{one, two}}
	want := []string{one, two, "/etc/synapse-doctor/plugins", "/usr/lib/synapse-doctor/plugins"}
	if os.Geteuid() != 0 {
		want = append(want, "/data/synapse-doctor/plugins")
	}
	if got := p.pluginDirs(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	file := filepath.Join(two, "synapse-doctor-plugin-acme")
	if err := os.WriteFile(file, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := p.file(config.Plugin{Name: "acme"}); err != nil || got != file {
		t.Error(got, err)
	}
	if got, err := p.file(config.Plugin{Name: "acme", Path: "/opt/acme"}); err != nil || got != "/opt/acme" {
		t.Error(got, err)
	}
	if _, err := p.file(config.Plugin{Name: "none"}); err == nil || !strings.HasSuffix(err.Error(), "run: synapse-doctor plugin remove none") {
		t.Error(err)
	}
}

// misbehave builds the program that does wrong what its name says, once.
var misbehave = sync.OnceValues(func() (text []byte, err error) {
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "misbehave")
	if out, err := exec.Command("go", "build", "-o", file, "../../plugins/host/testdata/misbehave").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(file)
})

func misbehavingCommand(ts *testscript.TestScript, _ *scene, args []string) error {
	if err := need(args, "FILE"); err != nil {
		return err
	}
	text, err := misbehave()
	if err != nil {
		return err
	}
	return os.WriteFile(ts.MkAbs(args[0]), text, 0o755)
}

func fileOf(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// What is in one file stands behind what is in another; whoever takes a plugin's trust away means both.
func TestAPluginIsRemovedFromEveryFileThatTrustsIt(t *testing.T) {
	dir := t.TempDir()
	entry := "plugins: {acme: {sha256: {linux/amd64: " + strings.Repeat("0", 64) + "}, checks: [acme]}}\n"
	system, own := fileOf(t, filepath.Join(dir, "system"), entry, 0o644), fileOf(t, filepath.Join(dir, "own"), entry, 0o600)
	load := func() (*config.Config, error) { return config.Read(system, own) }
	var said bytes.Buffer
	if err := removePlugin("acme", load, &said); err != nil {
		t.Fatal(err)
	}
	if conf, err := load(); err != nil || len(conf.Plugins) != 0 {
		t.Errorf("%+v, %v", conf, err)
	}
	if !strings.HasSuffix(said.String(), ":\n    "+own+"\n    "+system+"\n") {
		t.Error(said.String())
	}
	if err := removePlugin("acme", load, &said); err == nil || !strings.HasSuffix(err.Error(), "run: synapse-doctor plugin list") {
		t.Error(err)
	}
}

func TestAPluginOfAnotherPlatformIsNotRun(t *testing.T) {
	file := fileOf(t, filepath.Join(t.TempDir(), "acme"), "#!/bin/sh\necho ran >&2\n", 0o755)
	entry := config.Plugin{Name: "acme", Path: file, SHA256: map[string]string{"plan9/mips": strings.Repeat("0", 64)}, Checks: []string{"acme"}}
	source, err := (&pluginFlags{}).installed(entry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	want := "no SHA-256 for " + config.Platform() + " was recorded of " + file + ". Run: synapse-doctor plugin update acme"
	if _, err := source.Describe(t.Context()); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Error(err)
	}
}

// The first of several files of the same name counts, and what is told to run finds that one too.
func TestOfSeveralFilesTheFirstOneCounts(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	one, two := t.TempDir(), t.TempDir()
	first := fileOf(t, filepath.Join(one, "synapse-doctor-plugin-acme"), "#!/bin/sh\necho first >&2\n", 0o755)
	second := fileOf(t, filepath.Join(two, "synapse-doctor-plugin-acme"), "#!/bin/sh\necho second >&2\n", 0o755)
	p := pluginFlags{dirs: []string{one, two}}
	entry := config.Plugin{Name: "acme", SHA256: map[string]string{config.Platform(): strings.Repeat("0", 64)}, Checks: []string{"acme"}}
	all, err := p.list(t.Context(), &config.Config{Plugins: []config.Plugin{entry}})
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	if l := all[0]; l.Status != pluginRefused || l.Path != first || !slices.Equal(l.Unused, []string{second}) ||
		!strings.HasSuffix(l.Reason, "run: synapse-doctor plugin update acme --plugin-dir "+one+" --plugin-dir "+two) {
		t.Errorf("%+v", l)
	}
	if all, err = p.list(t.Context(), &config.Config{}); err != nil || len(all) != 1 || all[0].Path != first || !slices.Equal(all[0].Unused, []string{second}) {
		t.Errorf("%+v, %v", all, err)
	}
}

// The name of a file is a stranger's word: it can neither look like a part of the page, nor be a trap for who copies it.
func TestNamesOfFilesCanNotDeceive(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"x\n```\n# evil: enabled\n", "Up\x1b[2J", "..", "it's"} {
		fileOf(t, filepath.Join(dir, "synapse-doctor-plugin-"+name), "", 0o755)
	}
	p := pluginFlags{dirs: []string{dir}}
	all, err := p.list(t.Context(), &config.Config{})
	if err != nil || len(all) != 4 {
		t.Fatal(all, err)
	}
	page := pluginPage(all, nil)
	if strings.Contains(page, "\n# evil") || strings.Contains(page, "```") || strings.ContainsAny(page, "\x1b") || strings.Contains(page, "plugin add") {
		t.Error(page)
	}
	for name, want := range map[string]string{"it's": `'it'\''s'`, "a\nb'\x1b\"": `$'a\nb\'\x1b"'`, "/usr/lib/x": "/usr/lib/x", "": "''"} {
		if got := shellWord(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
		out, err := exec.Command("bash", "-c", "printf %s "+shellWord(name)).Output()
		if err == nil && string(out) != name {
			t.Errorf("a shell takes %s as %q", shellWord(name), out)
		}
	}
}

// Who agrees to a new version sees what is new in what it declares, or all of it where what the one before declared was not recorded.
func TestAnUpdateTellsAllThatTheNewVersionMayChange(t *testing.T) {
	d := doctor.Description{Name: "acme", Version: "2", Checks: []doctor.CheckInfo{
		{ID: "acme", Title: "# All is well", Why: "```", Plans: true, Changes: doctor.Effects{Tables: []string{"rooms", "acme.users"}, Files: []string{"/etc/acme.yaml"}}},
		{ID: "acme-two", Title: "T", Why: "W", Plans: true, Changes: doctor.Effects{Tables: []string{"rooms"}}},
		{ID: "acme-three", Title: "T", Why: "W", Changes: doctor.Effects{Tables: []string{"never"}}},
	}}
	old := config.Plugin{Name: "acme", SHA256: map[string]string{config.Platform(): "1"}, Checks: []string{"acme", "acme-old"}, AllowFix: true}
	entry := config.Plugin{Name: "acme", SHA256: map[string]string{config.Platform(): "2"}, Checks: idsOf(d), AllowFix: true, Path: "/opt/acme"}
	page := describedPlugin(d, "2") + whatIsNew(old, entry, d) + trustPage(entry, d, false)
	for _, want := range []string{
		"\nIts plans may change the tables rooms, acme.users, and the file /etc/acme.yaml.\n", "\nIts plans may change the table rooms.\n", "\nIt mends nothing.\n",
		"\n- SHA-256 before: 1\n- SHA-256 now: 2\n", "\n- new check: acme-two\n", "\n- gone: acme-old\n",
		"\n- its file before: in one of the usual directories\n- its file now: /opt/acme\n",
		"was not recorded; this one's, all together: the tables acme.users, rooms, and the file /etc/acme.yaml\n",
		"after you have agreed to a plan, is the tables acme.users, rooms, and the file /etc/acme.yaml, and nothing else.\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in:\n%s", want, page)
		}
	}
	if strings.Contains(page, "\n# All") || strings.Contains(page, "```") {
		t.Errorf("its words are marks of the page:\n%s", page)
	}
	old.Changes = &config.Changes{Tables: []string{"rooms"}}
	if page := whatIsNew(old, entry, d); !strings.Contains(page, "\n- its plans may newly change the table acme.users, and the file /etc/acme.yaml\n") {
		t.Error(page)
	}
	old.Changes = changesToRecord(d)
	if page := whatIsNew(old, entry, d); !strings.Contains(page, "\n- its plans may change nothing that the earlier version's could not\n") {
		t.Error(page)
	}
	d.Checks[1].Operations = []string{"rebuild"}
	if page := trustPage(entry, d, false); !strings.Contains(page, "which nobody can hold to what they declare") || strings.Contains(page, "nothing else") {
		t.Error(page)
	}
}

func TestWhatOptionsAllow(t *testing.T) {
	before := config.Plugin{ReadDSN: "host=a", AllowFix: true, Env: []string{"A"}}
	for _, c := range []struct {
		args []string
		want config.Plugin
		err  string
	}{
		{nil, before, ""},
		{[]string{"--read-dsn="}, config.Plugin{AllowFix: true, Env: []string{"A"}}, ""},
		{[]string{"--allow-fix=false", "--env="}, config.Plugin{ReadDSN: "host=a", Env: []string{}}, ""},
		{[]string{"--trust-database"}, config.Plugin{TrustDatabase: true, AllowFix: true, Env: []string{"A"}}, ""},
		{[]string{"--env", "B", "--env", "A", "--env", "B"}, config.Plugin{ReadDSN: "host=a", AllowFix: true, Env: []string{"A", "B"}}, ""},
		{[]string{"--env", "PGPASSWORD=x"}, config.Plugin{}, "--env takes the name of a variable"},
		{[]string{"--read-dsn", "host=a", "--trust-database"}, config.Plugin{}, "one is enough"},
	} {
		var a addFlags
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		a.register(f)
		if err := f.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		entry := before
		err := a.apply(f, &entry)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v", c.args, err)
			}
			continue
		}
		if err != nil || fmt.Sprintf("%+v", entry) != fmt.Sprintf("%+v", c.want) {
			t.Errorf("%q: %+v, %v", c.args, entry, err)
		}
	}
}
