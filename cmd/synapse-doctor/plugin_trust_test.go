package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
