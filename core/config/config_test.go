package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/config"
)

var sum = strings.Repeat("0a", 32)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, paths ...string) *config.Config {
	t.Helper()
	c, err := config.Read(paths...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEverythingThatAFileMaySay(t *testing.T) {
	path := write(t, `# ours
plugins:
  acme:
    path: /opt/acme
    sha256: {linux/amd64: `+strings.ToUpper(sum)+`, linux/arm64: `+sum+`}
    checks: [acme-rooms, acme-bridges]
    read_dsn: host=h user=reader password=s3cret
    allow_fix: true
    env: [ACME_URL]
  zebra:
    sha256: {plan9/mips: `+sum+`}
    checks: [zebra]
    trust_database: true
ignore:
  - {code: keepalives/not-set, object: 127.0.0.1, until: 2027-03-01, why: local}
  - code: vacuum/auto-vacuum-on
    why: a copy
defaults:
  fail-on: error
  skip: [port, vacuum]
  timeout: 90s
`)
	c := read(t, path)
	acme := c.Plugin("acme")
	if acme.Path != "/opt/acme" || acme.SHA256["linux/amd64"] != sum || !slices.Equal(acme.Checks, []string{"acme-rooms", "acme-bridges"}) ||
		acme.ReadDSN != "host=h user=reader password=s3cret" || !acme.AllowFix || acme.TrustDatabase || acme.Env[0] != "ACME_URL" ||
		acme.Where != path+":3" || acme.File != path {
		t.Errorf("%+v", acme)
	}
	if z := c.Plugin("zebra"); !z.TrustDatabase || z.AllowFix || z.Sum() != "" {
		t.Errorf("%+v", z)
	}
	if c.Plugin("none") != nil {
		t.Error("a plugin that is not there")
	}
	day := time.Date(2027, 3, 1, 23, 0, 0, 0, time.Local)
	if i := c.Ignore[0]; !i.Matches("keepalives/not-set", "127.0.0.1", day) || i.Matches("keepalives/not-set", "db", day) || i.Matches("keepalives/not-set", "127.0.0.1", day.Add(2*time.Hour)) || i.Why != "local" {
		t.Errorf("%+v", i)
	}
	if i := c.Ignore[1]; !i.Matches("vacuum/auto-vacuum-on", "anything", day.AddDate(50, 0, 0)) {
		t.Errorf("%+v", i)
	}
	if d := c.Defaults; len(d) != 3 || d[1].Option != "skip" || !slices.Equal(d[1].Values, []string{"port", "vacuum"}) || d[2].Values[0] != "90s" {
		t.Errorf("%+v", d)
	}
}

func TestAMistakeIsToldWithItsLine(t *testing.T) {
	plugin := func(more string) string {
		return "plugins:\n  acme:\n    sha256: {linux/amd64: " + sum + "}\n    checks: [acme]\n" + more
	}
	for text, want := range map[string]string{
		"plugin: {}\n":                                          `:1: there is no key "plugin" here: the keys are defaults, ignore, plugins, thresholds`,
		"\nplugins: [acme]\n":                                   ":2: plugins must be keys with values",
		"plugins:\n  Acme: {}\n":                                `:2: a plugin's name is lower-case words joined by hyphens, not "Acme"`,
		"plugins:\n  acme:\n    checks: [acme]\n":               ":2: the plugin acme has no sha256, without which it is not run: synapse-doctor plugin add FILE writes it",
		"plugins:\n  acme:\n    sha256: {linux/amd64: 0a0a}\n":  `:3: "0a0a" is no SHA-256`,
		"plugins:\n  acme:\n    sha256: {Linux: " + sum + "}\n": `:3: "Linux" is no platform`,
		"plugins:\n  acme:\n    sha256: {a/b: " + sum + "}\n":   ":2: the plugin acme has no checks",
		plugin("    path: bin/acme\n"):                          `:5: path must be absolute, not "bin/acme"`,
		plugin("    allow_fix: yes\n"):                          ":5: allow_fix must be true or false",
		plugin("    allow-fix: true\n"):                         `:5: there is no key "allow-fix" here`,
		plugin("    env: [A=B]\n"):                              `:5: "A=B" can't be one of env`,
		plugin("    checks: [acme]\n"):                          `:5: "checks" is there twice`,
		plugin("    read_dsn: a=b\n    trust_database: true\n"): ":2: the plugin acme has read_dsn and trust_database",
		plugin("    read_dsn: [a]\n"):                           ":5: read_dsn must be a word or a text",
		"x: &x {}\nplugins: *x\n":                               ":1: there is no key",
		"plugins: &x {}\nignore: *x\n":                          ":2: the file: aliases",
		"ignore:\n  - code: keepalives\n    why: w\n":           `:2: "keepalives" is no code of a finding`,
		"ignore:\n  - code: keepalives/not-set\n":               ":2: what is ignored needs a why",
		"ignore:\n  - why: w\n":                                 ":2: what is ignored needs a code",
		"ignore:\n  - {code: a/b, why: w, until: tomorrow}\n":   `:2: until must be a day such as 2027-03-01, not "tomorrow"`,
		"defaults:\n  --skip: port\n":                           `:2: "--skip" is no option`,
		"thresholds:\n  sequence: 1\n":                          `:2: "sequence" is no threshold`,
		"thresholds:\n  a/b: x\n":                               ":2: a/b must be a number",
		"thresholds:\n  a/b: .nan\n":                            ":2: a/b must be a number",
		"thresholds:\n  a/b: '1'\n":                             ":2: a/b must be a number",
		"thresholds:\n  a/b: 1\n  a/b: 2\n":                     `:3: "a/b" is there twice`,
		"defaults:\n  skip: {}\n":                               ":2: skip must be a word or a text",
		"plugins: {\n":                                          "it is not YAML",
		"plugins: {}\n---\nplugins: {}\n":                       "it has more than one YAML document",
	} {
		path := write(t, text)
		_, err := config.Read(path)
		if err == nil || !strings.HasPrefix(err.Error(), path+":") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
	for _, text := range []string{"", "\n", "# only a comment\n", "~\n", "plugins: {}\n"} {
		read(t, write(t, text))
	}
}

func TestAUsersFileReplacesTheSystemsEntriesOfTheSameName(t *testing.T) {
	one := write(t, "plugins:\n  b: {sha256: {a/b: "+sum+"}, checks: [b]}\n  acme: {sha256: {a/b: "+sum+"}, checks: [acme], allow_fix: true}\ndefaults: {skip: port}\n")
	two := write(t, "plugins:\n  acme: {sha256: {a/b: "+sum+"}, checks: [acme]}\ndefaults: {skip: vacuum}\n")
	c := read(t, one, filepath.Join(t.TempDir(), "absent"), two)
	if len(c.Plugins) != 2 || c.Plugins[0].Name != "acme" || c.Plugins[0].AllowFix || c.Plugins[0].File != two || len(c.Defaults) != 1 || c.Defaults[0].Values[0] != "vacuum" {
		t.Errorf("%+v", c)
	}
	if !slices.Equal(c.Files, []string{one, two}) {
		t.Errorf("files %q", c.Files)
	}
}

func TestAFileThatOthersCanChangeIsNotRead(t *testing.T) {
	path := write(t, "plugins: {}\n")
	refused := func(want string) {
		t.Helper()
		if _, err := config.Read(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	os.Chmod(path, 0o620)
	refused("chmod go-w " + path)
	os.Chmod(path, 0o600)
	os.Chmod(filepath.Dir(path), 0o777)
	refused(filepath.Dir(path) + " can be changed by others than its owner: chmod go-w " + filepath.Dir(path))
	os.Chmod(filepath.Dir(path), 0o777|os.ModeSticky)
	read(t, path)
	os.Chmod(filepath.Dir(path), 0o700)
	above := filepath.Dir(filepath.Dir(path))
	os.Chmod(above, 0o770)
	refused("chmod go-w " + above)
	os.Chmod(above, 0o700)
	link := filepath.Join(t.TempDir(), "link")
	os.Symlink(path, link)
	read(t, link)
	if os.Geteuid() == 0 {
		os.Chown(path, 12345, -1)
		refused("belongs to neither root nor this user")
	}
}

func TestAPipeIsNoConfiguration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Read(path); err == nil || !strings.HasSuffix(err.Error(), "config.yaml: it is no ordinary file") {
		t.Errorf("%v", err)
	}
}

func TestASecretIsNotReadFromAFileThatOthersCanRead(t *testing.T) {
	path := write(t, "plugins:\n  acme: {sha256: {a/b: "+sum+"}, checks: [acme], read_dsn: 'password=s3cret'}\n")
	read(t, path)
	os.Chmod(path, 0o644)
	if _, err := config.Read(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
	path = write(t, "defaults:\n  replica: ['@/etc/replica.dsn']\n  admin-dsn: none\n")
	os.Chmod(path, 0o644)
	read(t, path)
	path = write(t, "defaults:\n  replica: ['@/etc/replica.dsn', 'host=h password=s3cret']\n")
	os.Chmod(path, 0o644)
	if _, err := config.Read(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
}

func entry(name string) config.Plugin {
	return config.Plugin{Name: name, SHA256: map[string]string{config.Platform(): sum}, Checks: []string{name}}
}

func TestAnEntryIsPutAndRemovedAndEverythingElseStays(t *testing.T) {
	path := write(t, "# top\nignore: # why\n  - {code: a/b, why: w} # this one\nplugins:\n  # of Bob\n  bob:\n    sha256: {a/b: "+sum+"}\n    checks: [bob] # one\n# end\n")
	p := entry("acme")
	p.Path, p.AllowFix, p.Env = "/opt/a b", true, []string{"ACME"}
	p.Changes = &config.Changes{Tables: []string{"rooms", `odd "Name"`}, Files: []string{"/etc/acme: x.yaml"}}
	if err := config.Put(path, p); err != nil {
		t.Fatal(err)
	}
	got := read(t, path).Plugin("acme")
	if got.Path != p.Path || !got.AllowFix || got.Sum() != sum || got.Env[0] != "ACME" || got.ReadDSN != "" {
		t.Errorf("%+v", got)
	}
	if !reflect.DeepEqual(got.Changes, p.Changes) {
		t.Errorf("%+v", got.Changes)
	}
	p.AllowFix = false
	if err := config.Put(path, p); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	for _, kept := range []string{"# top", "# why", "# this one", "# of Bob", "# one", "# end", "bob:"} {
		if !strings.Contains(string(text), kept) {
			t.Errorf("%q is gone from\n%s", kept, text)
		}
	}
	if strings.Contains(string(text), "allow_fix") || strings.Count(string(text), "  acme:\n") != 1 {
		t.Errorf("not replaced:\n%s", text)
	}
	if err := config.Remove(path, "acme"); err != nil {
		t.Fatal(err)
	}
	if err := config.Remove(path, "acme"); !errors.Is(err, config.ErrAbsent) {
		t.Error(err)
	}
	if c := read(t, path); len(c.Plugins) != 1 || len(c.Ignore) != 1 {
		t.Errorf("%+v", c)
	}
	if err := config.Remove(path, "bob"); err != nil {
		t.Fatal(err)
	}
	if c := read(t, path); len(c.Plugins) != 0 || len(c.Ignore) != 1 {
		t.Errorf("%+v", c)
	}
}

func TestAFileThatIsMadeIsItsOwnersOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "config.yaml")
	if err := config.Put(path, entry("acme")); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode() != 0o600 {
		t.Error(info.Mode())
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func TestASecretIsPutIntoAFileThatNobodyElseReads(t *testing.T) {
	path := write(t, "ignore: []\n")
	os.Chmod(path, 0o644)
	if err := config.Put(path, entry("plain")); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode() != 0o644 {
		t.Error(info.Mode())
	}
	p := entry("acme")
	p.ReadDSN = "password=s3cret"
	if err := config.Put(path, p); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode() != 0o600 {
		t.Error(info.Mode())
	}
	if text, err := p.Text(); err != nil || strings.Contains(text, "s3cret") || !strings.Contains(text, "acme:") {
		t.Error(text, err)
	}
}

func TestABrokenFileIsLeftAlone(t *testing.T) {
	path := write(t, "plugins: {\n")
	if err := config.Put(path, entry("acme")); err == nil {
		t.Error("a broken file was changed")
	}
	bad := entry("acme")
	bad.Checks = nil
	path = write(t, "ignore: []\n")
	if err := config.Put(path, bad); err == nil {
		t.Error("an entry that is none was written")
	}
	if text, _ := os.ReadFile(path); string(text) != "ignore: []\n" {
		t.Errorf("%s", text)
	}
}

func TestWhoseFileChangesGoTo(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", "/x")
	if path, err := config.Own(); err != nil || path != "/x/synapse-doctor/config.yaml" {
		t.Error(path, err)
	}
	t.Setenv("XDG_CONFIG_HOME", "relative")
	t.Setenv("HOME", "/home/u")
	want := "/home/u/.config/synapse-doctor/config.yaml"
	if os.Geteuid() == 0 {
		want = config.System
	}
	if path, err := config.Own(); err != nil || path != want {
		t.Error(path, err)
	}
}
