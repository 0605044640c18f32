package ident_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// A server that logs every statement logs no verifier, neither the one that is set nor the one that is put back.
func TestTheServersLogHoldsNoVerifier(t *testing.T) {
	server := pgtest.StartWith(t, pgtest.Config{Settings: map[string]string{"log_statement": "all", "log_min_duration_statement": "0"}})
	b := newBench(t, server, story{hba: []string{"host all all 127.0.0.1/32 ident"}, role: "PASSWORD 'another'"})
	b.applied(t, b.fix(t, true, nil))
	b.undo(t)
	if log := server.Log(); strings.Contains(log, "SCRAM-SHA-256$") || !strings.Contains(log, "pg_reload_conf") {
		t.Errorf("the log holds a verifier, or not even the statements:\n%s", log)
	}
}

// What was killed on one server is not settled on another that the next run is told of.
func TestAKilledFixIsNotSettledOnAnotherServer(t *testing.T) {
	one, other := pgtest.StartWith(t, pgtest.Config{}), pgtest.StartWith(t, pgtest.Config{})
	sick := story{hba: []string{"host all all 127.0.0.1/32 ident"}, role: "PASSWORD NULL"}
	step := 1
	if testing.Short() {
		step = 4
	}
	for n := 1; ; n += step {
		b := newBench(t, one, sick)
		point, cut := cutOff(t, b, n)
		if !cut {
			return
		}
		healthy := newBench(t, other, story{hba: []string{"host all all 127.0.0.1/32 scram-sha-256"}})
		healthy.state = b.state
		file, role := healthy.hba(t), healthy.rolpassword(t)
		healthy.fix(t, true, nil)
		if healthy.hba(t) != file || healthy.rolpassword(t) != role {
			t.Errorf("cut off at %s on one server, it was settled on another", point)
		}
		healthy.letsIn(t)
		if r := b.fix(t, true, nil); len(r.Plans) > 0 {
			b.applied(t, r)
		}
		b.letsIn(t)
	}
}

// A role that two databases share has one password: mending the one login must not end the other.
func TestAPasswordThatAnotherDatabaseUsesIsLeftAlone(t *testing.T) {
	server := pgtest.StartWith(t, pgtest.Config{})
	b := newBench(t, server, story{hba: []string{"host all all 127.0.0.1/32 scram-sha-256"}})
	role := b.rolpassword(t)
	text, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	entry := strings.ReplaceAll(strings.SplitAfterN(string(text), "database:\n", 2)[1], "\n  ", "\n    ")
	second := strings.Replace(entry, strings.ReplaceAll(password, "'", "''"), "of the state store", 1)
	both := "server_name: test.example\ndatabases:\n  main:\n    data_stores: [main]\n  " + entry + "  state:\n    data_stores: [state]\n  " + second
	if err := os.WriteFile(b.config, []byte(both), 0o600); err != nil {
		t.Fatal(err)
	}
	e := b.engine(nil)
	settings := map[string]string{}
	for k, v := range b.target.Databases[0].Settings {
		settings[k] = v
	}
	settings["password"] = "of the state store"
	b.target.Databases[0].DataStores = []string{"main"}
	b.target.Databases = append(b.target.Databases, &doctor.Database{Label: "state", Engine: doctor.Postgres, DataStores: []string{"state"}, Settings: settings})
	r, err := e.Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	found := r.Before.Checks[0].Findings
	if len(r.Plans) > 0 || b.rolpassword(t) != role || len(found) == 0 || found[0].Code != "ident/wrong-password" || !strings.Contains(found[0].Remedy, "main has the same role") {
		t.Errorf("plans %+v, findings %+v (%s)", r.Plans, found, r.Before.Checks[0].Reason)
	}
}

// A password that only the doctor's own environment has is not Synapse's, and no role is set to it.
func TestAPasswordFromTheDoctorsEnvironmentIsNotSynapses(t *testing.T) {
	server := pgtest.StartWith(t, pgtest.Config{})
	b := newBench(t, server, story{hba: []string{"host all all 127.0.0.1/32 scram-sha-256"}, prepare: func(_ *testing.T, b *bench) { b.password = "" }})
	role := b.rolpassword(t)
	b.password = "of root's PGPASSWORD" // homeserver.yaml has none
	b.finds(t, []string{"ident/password-not-configured synapse_user"})
	if r := b.fix(t, true, nil); len(r.Plans) > 0 || b.rolpassword(t) != role {
		t.Errorf("plans %+v", r.Plans)
	}
}

// The file of another server, or of a copy, is not edited, whatever name it has.
func TestAFileThatIsNotTheServersIsNotEdited(t *testing.T) {
	server := pgtest.StartWith(t, pgtest.Config{})
	b := newBench(t, server, story{hba: []string{"host all all 127.0.0.1/32 ident"}})
	copied := filepath.Join(t.TempDir(), "data", "pg_hba.conf")
	for from, to := range map[string]string{"pg_hba.conf": copied, "global/pg_control": filepath.Join(filepath.Dir(copied), "global", "pg_control")} {
		text, err := os.ReadFile(filepath.Join(server.DataDir, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	e := b.engine(nil)
	b.target.HBAFile = copied
	r, err := e.Fix(t.Context(), engine.FixOptions{Apply: true, Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(copied)
	if err != nil || string(after) != string(before) {
		t.Errorf("the copy is now (%v)\n%s", err, after)
	}
	if len(r.Plans) > 0 && r.Plans[0].Status == doctor.PlanApplied {
		t.Errorf("%+v", r.Plans[0])
	}
}
