package main

import (
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/docs"
	"github.com/synapse-doctor/synapse-doctor/plugins/builtin"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

func TestEveryThresholdIsOnThePageOfItsCheck(t *testing.T) {
	local := &doctor.Local{PluginName: builtin.Name, Version: "1", Checks: builtin.Checks()}
	d, err := local.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := host.ValidateDescription(d); err != nil {
		t.Error(err)
	}
	for _, c := range d.Checks {
		page, _ := docs.Check(c.ID)
		for _, threshold := range c.Thresholds {
			if !strings.Contains(page, "`"+threshold.ID+"`") {
				t.Errorf("the page of %s does not tell %s", c.ID, threshold.ID)
			}
		}
	}
}
