package doctor_test

import (
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

func TestAThirdPartyIsHandedAReadOnlyTargetWithoutTheAdministrator(t *testing.T) {
	admin := &doctor.Database{Label: "admin"}
	given := &doctor.Target{Admin: admin, Writable: true, Databases: []*doctor.Database{
		{Label: "main", Settings: map[string]string{"host": "h", "options": "-c search_path=x"}},
		{Label: "sqlite", Engine: doctor.SQLite, Path: "f"},
	}}
	got := given.ReadOnly()
	if got.Admin != nil || got.Writable {
		t.Error("the administrator's connection, or the right to write, was handed over")
	}
	if o := got.Databases[0].Settings["options"]; o != "-c search_path=x -c default_transaction_read_only=on" {
		t.Errorf("options %q", o)
	}
	if got.Databases[1].Settings != nil {
		t.Error("a login appeared where there was none")
	}
	if given.Databases[0].Settings["options"] != "-c search_path=x" || given.Admin != admin {
		t.Error("the target itself was changed")
	}
}
