package host_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

// The fixture publishes every fourth room. One has a local user, one has none, of the third nothing is known.
const statistics = `CREATE TABLE room_stats_current (room_id text PRIMARY KEY, joined_members int NOT NULL, local_users_in_room int NOT NULL);
INSERT INTO room_stats_current VALUES ('!room4:test.example', 9, 2), ('!room8:test.example', 7, 0), ('!room5:test.example', 7, 0);`

// The example is a module of its own. It is built as its author would build it, and loaded as a file.
func TestThirdPartyExample(t *testing.T) {
	file := filepath.Join(t.TempDir(), "synapse-doctor-plugin-published-rooms")
	build := exec.Command("go", "build", "-o", file, ".")
	build.Dir = filepath.Join("..", "examples", "published-rooms")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the example: %v\n%s", err, out)
	}
	p := startFile(t, file, host.Options{})
	d, err := p.Describe(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if p.Name() != "published-rooms" || d.Name != "published-rooms" || d.Path != file || !d.Checks[0].Plans {
		t.Errorf("%s describes itself as %+v", p.Name(), d)
	}

	db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()), pgtest.WithSetup(statistics))
	settings, err := pgdb.Parse(db.DSN())
	if err != nil {
		t.Fatal(err)
	}
	target := &doctor.Target{RunID: "test", Databases: []*doctor.Database{
		{Label: "main", Engine: doctor.Postgres, Meets: doctor.NeedsPostgresEntry | doctor.NeedsPostgres | doctor.NeedsSynapse, Settings: settings},
	}}
	find := func() []doctor.Finding {
		h := &heard{}
		if err := p.Check(within(t), doctor.CheckRequest{Target: target, Checks: []string{"published-rooms"}}, h); err != nil {
			t.Fatal(err)
		}
		if o := h.done["published-rooms"]; o.Status != doctor.StatusOK {
			t.Fatalf("%s: %s", o.Status, o.Reason)
		}
		return h.found["published-rooms"]
	}
	found := find()
	if len(found) != 1 || found[0].Object != (doctor.Object{Kind: "room", Name: "!room8:test.example"}) || found[0].Database != "main" {
		t.Fatalf("found %+v", found)
	}
	plans, err := p.Plan(within(t), doctor.PlanRequest{Target: target, Check: "published-rooms", Findings: found})
	if err != nil || len(plans) != 1 || len(plans[0].Steps) != 1 {
		t.Fatalf("%v, %+v", err, plans)
	}
	step, conn := plans[0].Steps[0].SQL, db.Conn(t)
	apply := func(statement string, args []doctor.Value) {
		t.Helper()
		if tag, err := conn.Exec(t.Context(), statement, args[0].V); err != nil || tag.RowsAffected() != 1 {
			t.Fatalf("%s: %v, %v", statement, tag, err)
		}
	}
	apply(step.Statement, step.Args)
	if left := find(); len(left) != 0 {
		t.Errorf("not cured: %+v", left)
	}
	apply(step.Undo[0].Statement, step.Undo[0].Args)
	if back := find(); len(back) != 1 {
		t.Errorf("not undone: %+v", back)
	}
}
