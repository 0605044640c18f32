package host_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
)

// speaking is what a build speaks that does not exist yet: every version of it is today's, under its own number.
func speaking(oldest, newest int) wire.Versions {
	var v wire.Versions
	for n := oldest; n <= newest; n++ {
		version := wire.Spoken[len(wire.Spoken)-1]
		version.Number = n
		v = append(v, version)
	}
	return v
}

func TestHostAndPluginOfDifferentTimes(t *testing.T) {
	for name, c := range map[string]struct {
		host   wire.Versions
		plugin string // the mode of the program
		speak  int    // what they agree on; 0 for nothing
		says   string
	}{
		"a newer host and a plugin of today":   {speaking(1, 2), "good", 1, ""},
		"a newer host and a newer plugin":      {speaking(1, 2), "speaks-1-2", 2, ""},
		"today's host and a newer plugin":      {speaking(1, 1), "speaks-1-2", 1, ""},
		"a later host and a newer plugin":      {speaking(2, 3), "speaks-1-2", 2, ""},
		"a host that is two versions behind":   {speaking(1, 2), "protocol-3", 0, "plugin acme 1.2 speaks protocol 3; this synapse-doctor speaks 1–2: upgrade synapse-doctor"},
		"a plugin that is two versions behind": {speaking(2, 3), "good", 0, "plugin acme 1.2 speaks protocol 1; this synapse-doctor speaks 2–3: upgrade the plugin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startFile(t, program(t, c.plugin), host.Options{}.Speaking(c.host))
			d, err := p.Describe(within(t))
			if c.speak == 0 {
				if err == nil || err.Error() != c.says {
					t.Errorf("got %v, want %s", err, c.says)
				}
				if _, ok := errors.AsType[*host.VersionError](err); !ok {
					t.Errorf("it is a %T", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d.Protocol != c.speak {
				t.Errorf("they speak %d, want %d", d.Protocol, c.speak)
			}
			if h, err := run(within(t), p, "fine"); err != nil || len(h.found["fine"]) != 1 {
				t.Errorf("%v, %v", err, h.found)
			}
		})
	}
}

// The plugin in testdata/frozen-v1 was made with version 1 of the protocol as it was at first, and with nothing else of this
// repository. It is never changed: whoever has such a plugin must be able to keep it.
func TestAPluginOfTheFirstVersionStillWorks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "synapse-doctor-plugin-frozen")
	build := exec.Command("go", "build", "-o", file, ".")
	build.Dir = filepath.Join("testdata", "frozen-v1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the frozen plugin: %v\n%s", err, out)
	}
	p := startFile(t, file, host.Options{})
	d, err := p.Describe(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != "frozen" || d.Protocol != 1 || len(d.Checks) != 1 || d.Checks[0].Needs != doctor.NeedsConfig || !d.Checks[0].Plans {
		t.Errorf("it describes itself as %+v", d)
	}
	target := &doctor.Target{ServerName: "example.org", Databases: []*doctor.Database{
		{Label: "main", Engine: doctor.Postgres, Settings: map[string]string{"dbname": "synapse"}},
	}}
	h := &heard{}
	if err := p.Check(within(t), doctor.CheckRequest{Target: target, Checks: []string{"frozen-rows"}}, h); err != nil {
		t.Fatal(err)
	}
	found := h.found["frozen-rows"]
	if len(found) != 1 || found[0].Severity != doctor.Warning || found[0].Summary != "The database synapse of example.org has old rows." ||
		found[0].Object != (doctor.Object{Kind: "database", Name: "synapse"}) || found[0].Evidence["rows"] != "3" || !found[0].Fixable {
		t.Errorf("found %+v", found)
	}
	if o := h.done["frozen-rows"]; o.Status != doctor.StatusOK || o.Coverage != "3 rows" {
		t.Errorf("done %+v", o)
	}
	if _, err := run(within(t), p, "no-such-check"); !errors.Is(err, doctor.ErrNotFound) {
		t.Errorf("a check that it does not have: %v", err)
	}

	plans, err := p.Plan(within(t), doctor.PlanRequest{Target: target, Check: "frozen-rows", Findings: found})
	if err != nil || len(plans) != 1 || len(plans[0].Steps) != 2 {
		t.Fatalf("%v, %+v", err, plans)
	}
	plan := plans[0]
	if plan.Risk != doctor.Careful || plan.Expects != doctor.ExpectSynapse || plan.Covers[0] != found[0].Key() || !plan.Reversible {
		t.Errorf("planned %+v", plan)
	}
	if s := plan.Steps[0].SQL; s == nil || s.MaxRows != 3 || s.Mode != doctor.ModeAlone || s.Args[0].V != "old" || len(s.Undo) != 1 || s.Save == nil {
		t.Errorf("its first step is %+v", plan.Steps[0])
	}
	operation := plan.Steps[1].Operation
	if operation == nil {
		t.Fatalf("its second step is %+v", plan.Steps[1])
	}
	told := false
	k := &keeper{progress: func() { told = true }}
	if err := p.Execute(within(t), doctor.ExecuteRequest{Target: target, Check: "frozen-rows", Step: *operation}, k); err != nil {
		t.Fatal(err)
	}
	if len(k.rows) != 3 || k.rows[2] != (doctor.SavedRow{Table: "old", JSON: `{"n":3}`}) || !strings.HasPrefix(k.kept[2], "3") || !told {
		t.Errorf("its operation saved %q, progress %v", k.kept, told)
	}
}
