package doctor_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

func guestTarget() *doctor.Target {
	main := &doctor.Database{Label: "main", Engine: doctor.Postgres, OSUser: "synapse", Settings: pgdb.Settings{"user": "synapse", "password": "s"},
		Meets: doctor.NeedsPostgresEntry | doctor.NeedsPostgres | doctor.NeedsSynapse | doctor.NeedsAdmin}
	replica := &doctor.Database{Label: "replica", Engine: doctor.Postgres, Settings: pgdb.Settings{"user": "synapse"}}
	return &doctor.Target{Admin: &doctor.Database{Label: "admin"}, Replicas: []*doctor.Database{replica}, ConfigFiles: []string{"/etc/h.yaml"},
		Databases: []*doctor.Database{main, {Label: "sqlite", Engine: doctor.SQLite, Path: "f", Meets: doctor.NeedsSQLite}}}
}

func TestWhatTheTermsHandOver(t *testing.T) {
	given := guestTarget()
	nothing := &doctor.Terms{Reader: pgdb.Settings{"user": "reader"}, AllowFix: true} // not proved
	got := nothing.Handed(given)
	if d := got.Databases[0]; d.Settings != nil || d.OSUser != "" || d.Meets != doctor.NeedsPostgresEntry || got.Admin != nil || got.Replicas != nil || got.Writable {
		t.Errorf("%+v", d)
	}
	if got.Databases[1].Path != "f" || got.ConfigFiles[0] != "/etc/h.yaml" {
		t.Errorf("%+v", got)
	}

	nothing.Admit("main", pgdb.Settings{"user": "reader", "options": "-c x=y"})
	want := pgdb.Settings{"user": "reader", "options": "-c x=y -c default_transaction_read_only=on"}
	if d := nothing.Handed(given).Databases[0]; !reflect.DeepEqual(d.Settings, want) || d.OSUser != "" || !d.Meets.Has(doctor.NeedsSynapse) || d.Meets.Has(doctor.NeedsAdmin) {
		t.Errorf("%+v", d)
	}
	nothing.Admit("main", nil)
	if d := nothing.Handed(given).Databases[0]; d.Settings != nil {
		t.Errorf("%+v", d)
	}

	trusted := &doctor.Terms{TrustDatabase: true}
	if got := trusted.Handed(given); got.Databases[0].Settings["user"] != "synapse" || got.Databases[0].Settings["options"] == "" || got.Admin != nil {
		t.Errorf("%+v", got)
	}

	if got := nothing.ForOperation(given); got.Admin != nil || !got.Writable || got.Databases[0].Settings["user"] != "synapse" || got.Databases[0].Meets.Has(doctor.NeedsAdmin) {
		t.Errorf("%+v", got)
	}
	nothing.Admit("main", pgdb.Settings{"user": "reader"})
	for label, user := range map[string]string{"main": "synapse", "sqlite": "reader", "": "reader"} {
		if got := nothing.Operating(given, label); got.Admin != nil || got.Replicas != nil || got.Databases[0].Settings["user"] != user || got.Databases[1].Path != "f" {
			t.Errorf("%q: %+v", label, got.Databases[0])
		}
	}
	if given.Databases[0].Settings["user"] != "synapse" || !given.Databases[0].Meets.Has(doctor.NeedsAdmin) {
		t.Error("the target itself was changed")
	}
}

func TestTheBoundsOfAPlanAreKeptWithIt(t *testing.T) {
	p := doctor.Plan{ID: "a/b", Steps: []doctor.Step{{Title: "S", SQL: &doctor.SQLStep{Args: []doctor.Value{{V: int64(1)}}}}}, Reversible: true}
	for _, bounds := range []*doctor.Effects{nil, {Tables: []string{"rooms"}}} {
		p.Bound(bounds)
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var back doctor.Plan
		if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(p, back) {
			t.Errorf("%s: %+v, %v", text, back, err)
		}
	}
}
