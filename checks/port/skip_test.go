package port

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

func TestOnlyWhatTheTargetHasNoPlaceForIsLeftBehind(t *testing.T) {
	b := newBench(t, soundFile+`CREATE TABLE module (a INT); INSERT INTO module VALUES (7);`, fresh)
	skipping := func(names ...string) (*collector, *doctor.Target) {
		c, target, err := examinePair(t, b.file, postgres(b.db), func(t *doctor.Target) { t.SkipTables = names })
		if err != nil {
			t.Fatal(err)
		}
		return c, target
	}
	c, _ := skipping("module", "users")
	if f := c.one(t, ModuleTables); f.Object.Name != "users" || c.one(t, NotPorted).Fixable {
		t.Errorf("found %v", c.codes())
	}
	if c, _ = skipping("Module"); slices.Contains(c.only(), ModuleTables) || !c.one(t, NotPorted).Fixable {
		t.Errorf("found %v", c.codes())
	}
	_, target := skipping("module")
	if err := Check.Operations["port"](t.Context(), target.ForOperation(), doctor.OperationStep{}, "", host{}); err != nil {
		t.Fatal(err)
	}
	if c, _ := skipping("module"); slices.Contains(c.only(), Unfinished) {
		t.Errorf("found %v", c.codes())
	}

	// What was left behind is missed as soon as there is a place for it.
	b.db.Exec(t, "CREATE TABLE module (a int)")
	c, target = skipping()
	if f := c.one(t, Unfinished); f.Observed != "module" || !f.Fixable {
		t.Errorf("found %v: %+v", c.codes(), f)
	}
	if err := Check.Operations["port"](t.Context(), target.ForOperation(), doctor.OperationStep{}, "", host{}); err != nil {
		t.Fatal(err)
	}
	if c, _ := skipping(); slices.Contains(c.only(), Unfinished) {
		t.Errorf("found %v", c.codes())
	}
	_, target = skipping("users")
	u := Check.Operations["port"](t.Context(), target.ForOperation(), doctor.OperationStep{}, "", host{})
	if _, unchanged := u.(*doctor.UnchangedError); !unchanged {
		t.Errorf("the operation: %v", u)
	}
}

func TestAFileOfAnotherServerIsSaidSoAfterThePortToo(t *testing.T) {
	b := newBench(t, soundFile, fresh)
	b.applied("port/copy")
	c, _, err := examinePair(t, b.file, postgres(b.db), func(t *doctor.Target) { t.ServerName = "other.example" })
	if err != nil || !slices.Contains(c.only(), Other) {
		t.Errorf("found %v, %v", c.codes(), err)
	}
}

func TestARoleThatMayNotUseThePortsSchemaFindsItsTraces(t *testing.T) {
	b := newBench(t, soundFile, fresh)
	b.applied("port/copy")
	b.db.AdminExec(t, "CREATE ROLE reader; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
	err := pgx.BeginFunc(t.Context(), b.db.AdminConn(t), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE reader"); err != nil {
			return err
		}
		found, err := readTraces(t.Context(), tx)
		if err == nil && !found.Record {
			t.Error("no record is seen")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
