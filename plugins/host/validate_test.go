package host_test

import (
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

func TestValidateDescription(t *testing.T) {
	sound := func() doctor.Description {
		return doctor.Description{Name: "acme", Version: "1.2", Checks: []doctor.CheckInfo{{
			ID: "acme-rooms", Title: "Rooms have names", Why: "They are hard to find.", Needs: doctor.NeedsSynapse,
			Codes:      []doctor.Code{{ID: "acme-rooms/no-name", Title: "a room has no name", Severity: doctor.Info}},
			Thresholds: []doctor.Threshold{{ID: "acme-rooms/many", Title: "how many are many", Default: 5, Max: 10}},
			Operations: []string{"rename"},
		}}}
	}
	if err := host.ValidateDescription(sound()); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*doctor.Description, *doctor.CheckInfo){
		"its name \"Acme\"":                 func(d *doctor.Description, _ *doctor.CheckInfo) { d.Name = "Acme" },
		"it has no version":                 func(d *doctor.Description, _ *doctor.CheckInfo) { d.Version = " " },
		`the id "acme--rooms"`:              func(_ *doctor.Description, c *doctor.CheckInfo) { c.ID = "acme--rooms" },
		`the id "../../etc"`:                func(_ *doctor.Description, c *doctor.CheckInfo) { c.ID = "../../etc" },
		`check "acme-rooms" is there twice`: func(d *doctor.Description, c *doctor.CheckInfo) { d.Checks = append(d.Checks, *c) },
		`check "acme-rooms" has no title`:   func(_ *doctor.Description, c *doctor.CheckInfo) { c.Title = "" },
		"more than 60 characters":           func(_ *doctor.Description, c *doctor.CheckInfo) { c.Title = strings.Repeat("x", 61) },
		"its why \"a\\nb\" has control":     func(_ *doctor.Description, c *doctor.CheckInfo) { c.Why = "a\nb" },
		"upgrade synapse-doctor":            func(_ *doctor.Description, c *doctor.CheckInfo) { c.Needs = 1 << 20 },
		"is not check/kebab-fault":          func(_ *doctor.Description, c *doctor.CheckInfo) { c.Codes[0].ID = "acme-rooms" },
		"is another check's":                func(_ *doctor.Description, c *doctor.CheckInfo) { c.Codes[0].ID = "sequence/behind" },
		`code "acme-rooms/no-name" is th`:   func(_ *doctor.Description, c *doctor.CheckInfo) { c.Codes = append(c.Codes, c.Codes[0]) },
		"has no severity":                   func(_ *doctor.Description, c *doctor.CheckInfo) { c.Codes[0].Severity = 0 },
		`its threshold "many" is there twice or not acme-rooms/kebab-name`: func(_ *doctor.Description, c *doctor.CheckInfo) { c.Thresholds[0].ID = "many" },
		`its threshold "sequence/many"`:                                    func(_ *doctor.Description, c *doctor.CheckInfo) { c.Thresholds[0].ID = "sequence/many" },
		"no finite range with its default":                                 func(_ *doctor.Description, c *doctor.CheckInfo) { c.Thresholds[0].Max = 4 },
		"is not an absolute path":                                          func(_ *doctor.Description, c *doctor.CheckInfo) { c.Changes.Files = []string{"homeserver.yaml"} },
		`"a\x1b[2J" has control characters`:                                func(_ *doctor.Description, c *doctor.CheckInfo) { c.Changes.Tables = []string{"a\x1b[2J"} },
		"has no name of a table":                                           func(_ *doctor.Description, c *doctor.CheckInfo) { c.Changes.Tables = []string{""} },
		"has 300 operations":                                               func(_ *doctor.Description, c *doctor.CheckInfo) { c.Operations = make([]string, 300) },
		`its operation "rename" is there`:                                  func(_ *doctor.Description, c *doctor.CheckInfo) { c.Operations = append(c.Operations, "rename") },
	} {
		d := sound()
		spoil(&d, &d.Checks[0])
		if want == `code "acme-rooms/no-name" is th` {
			want = `its ` + want
		}
		says(t, host.ValidateDescription(d), want)
	}
	many := sound()
	many.Checks = make([]doctor.CheckInfo, 100_000)
	if err := host.ValidateDescription(many); err == nil || len(err.Error()) > 200 {
		t.Error("endless checks: ", err)
	}
}
