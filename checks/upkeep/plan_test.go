package upkeep

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/plugins/sdk/sdktest"
)

// lower makes a small table a large one for a test.
func lower(t *testing.T, th *doctor.Threshold, v float64) {
	was := th.Default
	th.Default = v
	t.Cleanup(func() { th.Default = was })
}

func TestFaultsAreFoundMendedAndPutBack(t *testing.T) {
	s := pgtest.Start(t)
	admin := s.Database(t).AdminConn(t)
	for _, sql := range []string{`ALTER SYSTEM SET autovacuum_naptime = 2147483`, `ALTER SYSTEM SET autovacuum = on`} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	s.Reload(t)
	lower(t, &largeTable, 200000)
	lower(t, &analyzeFrom, 200000)
	sdktest.Suite{
		Check: Check,
		Setup: pgtest.Fixture() + `CREATE TABLE big AS SELECT i, repeat('x', 200) FROM generate_series(1, 2000) i; ANALYZE;`,
		Cases: []sdktest.Case{
			{
				Name: "autovacuum off", Break: `ALTER TABLE big SET (autovacuum_enabled = off, fillfactor = 90)`,
				Want: []string{"upkeep/autovacuum-off-on-table table big"},
				Plan: "upkeep/autovacuum-reset",
			},
		},
	}.Run(t)
}

// host is what an operation sees of an engine.
type host struct {
	mu       sync.Mutex
	saved    []string
	progress []doctor.Progress
	stopping chan struct{}
	onSave   func()
}

func (h *host) Progress(p doctor.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.progress = append(h.progress, p)
}
func (h *host) Save(_ context.Context, resume string, _ []doctor.SavedRow) error {
	h.saved = append(h.saved, resume)
	if h.onSave != nil {
		h.onSave()
	}
	return nil
}
func (h *host) Rows(context.Context, func(doctor.SavedRow) error) error { return nil }
func (h *host) Stopping() <-chan struct{}                               { return h.stopping }
func (h *host) Document(string, string)                                 {}

// plans are those for what the check finds.
func plans(t *testing.T, db *pgtest.DB, target func() *doctor.Target) (*collector, []doctor.Plan) {
	t.Helper()
	c := find(t, target())
	looked := target()
	defer looked.Close()
	made, err := Check.Plan(t.Context(), looked, c.found)
	if err != nil {
		t.Fatal(err)
	}
	return c, made
}

// carryOut executes the plan's operation.
func carryOut(t *testing.T, target *doctor.Target, p doctor.Plan, resume string, h *host) error {
	t.Helper()
	defer target.Close()
	step := p.Steps[0].Operation
	if step == nil {
		t.Fatalf("%+v has no operation", p.Steps[0])
	}
	target.Writable = true
	return Check.Operations[step.Name](t.Context(), target, *step, resume, h)
}

const twoTables = `CREATE TABLE first AS SELECT i, repeat('x', 200) FROM generate_series(1, 3000) i; CREATE TABLE second AS SELECT i, repeat('x', 200) FROM generate_series(1, 2000) i;
	ANALYZE first; ANALYZE second; DELETE FROM first WHERE i > 500; DELETE FROM second WHERE i > 500`

func dead(db *pgtest.DB) func() *doctor.Target {
	return func() *doctor.Target { return target(db, map[string]float64{"large-table": 200000}) }
}

func TestVacuumGoesOnWhereItWasInterrupted(t *testing.T) {
	db := fixture(t)
	db.Exec(t, twoTables)
	c, made := plans(t, db, dead(db))
	c.want(t, "warning upkeep/dead-rows table first", "warning upkeep/dead-rows table second")
	if len(made) != 1 || made[0].ID != "upkeep/vacuum" || len(made[0].Covers) != 2 || made[0].Reversible || made[0].Irreversible == "" {
		t.Fatalf("%+v", made)
	}
	h := &host{}
	if err := carryOut(t, dead(db)(), made[0], "1", h); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(h.saved, []string{"2"}) || len(h.progress) == 0 || !strings.HasPrefix(h.progress[0].Text, "second, 2 of 2") {
		t.Errorf("saved %v, progress %+v", h.saved, h.progress)
	}
	find(t, dead(db)()).want(t, "warning upkeep/dead-rows table first")
}

func TestVacuumStopsWhenItIsAskedTo(t *testing.T) {
	db := fixture(t)
	db.Exec(t, twoTables)
	_, made := plans(t, db, dead(db))
	// Somebody builds an index on the second table, so that vacuum waits.
	builder := db.Conn(t)
	h := &host{stopping: make(chan struct{})}
	h.onSave = func() {
		if len(h.saved) < 2 { // it has only begun
			return
		}
		if _, err := builder.Exec(t.Context(), `BEGIN; LOCK TABLE second IN SHARE UPDATE EXCLUSIVE MODE`); err != nil {
			t.Error(err)
		}
		close(h.stopping)
	}
	err := carryOut(t, dead(db)(), made[0], "", h)
	if _, ok := err.(*doctor.UnchangedError); !ok || !strings.Contains(err.Error(), "1 of 2 tables are done") {
		t.Errorf("%v", err)
	}
}

func TestVacuumDoesNotWaitForLongForALock(t *testing.T) {
	was := lockPatience
	lockPatience = "100ms"
	defer func() { lockPatience = was }()
	db := fixture(t)
	db.Exec(t, twoTables)
	_, made := plans(t, db, dead(db))
	open(t, db, `BEGIN; LOCK TABLE first IN SHARE UPDATE EXCLUSIVE MODE`)
	h := &host{}
	if err := carryOut(t, dead(db)(), made[0], "", h); err != nil || !slices.ContainsFunc(h.progress, func(p doctor.Progress) bool { return strings.Contains(p.Note, "locked by another session") }) {
		t.Errorf("%v, %+v", err, h.progress)
	}
	find(t, dead(db)()).want(t, "warning upkeep/dead-rows table first") // the other one is done
}

func TestVacuumIsNotBegunWhileSomethingHoldsTheRows(t *testing.T) {
	db := fixture(t)
	open(t, db, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM users`)
	db.Exec(t, twoTables)
	_, made := plans(t, db, dead(db))
	held := target(db, map[string]float64{"idle-transaction": 0})
	err := carryOut(t, held, made[0], "", &host{})
	if _, ok := err.(*doctor.UnchangedError); !ok || !strings.Contains(err.Error(), "End it first") {
		t.Errorf("%v", err)
	}
}

func TestEveryTableWithoutStatisticsIsAnalyzed(t *testing.T) {
	db := fixture(t)
	db.Exec(t, `CREATE TABLE big AS SELECT i, repeat('x', 200) FROM generate_series(1, 2000) i`)
	low := func() *doctor.Target { return target(db, map[string]float64{"analyze-from": 200000}) }
	c, made := plans(t, db, low)
	c.want(t, "warning upkeep/never-analyzed database "+db.Name)
	if len(made) != 1 || made[0].ID != "upkeep/analyze" {
		t.Fatalf("%+v", made)
	}
	if of := made[0].Steps[0].Operation.Statements; !slices.Contains(of, `ANALYZE "public"."big"`) || !slices.Contains(of, `ANALYZE "public"."users"`) || slices.Contains(of, `ANALYZE "public"."background_updates"`) {
		t.Errorf("it would analyze %v", of)
	}
	if err := carryOut(t, low(), made[0], "", &host{}); err != nil {
		t.Fatal(err)
	}
	find(t, low()).want(t)
	var bare int
	if err := db.Conn(t).QueryRow(t.Context(), `SELECT count(*) FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0
		AND NOT EXISTS (SELECT FROM pg_stats WHERE tablename = relname)`).Scan(&bare); err != nil || bare > 0 {
		t.Errorf("%d tables have no statistics: %v", bare, err)
	}
}

// PostgreSQL passes over a table of somebody else's with a warning.
func TestATableOfAnotherRoleIsLeftToItsOwner(t *testing.T) {
	db := fixture(t)
	db.AdminExec(t, twoTables+`; ALTER TABLE first SET (autovacuum_enabled = off); GRANT SELECT ON first, second TO PUBLIC; ALTER DATABASE `+db.Name+` OWNER TO postgres`)
	_, made := plans(t, db, dead(db))
	if len(made) != 2 {
		t.Fatalf("%d plans", len(made))
	}
	for _, p := range made {
		if !p.Manual() {
			t.Errorf("%s is not for a person: %+v", p.ID, p.Steps)
		}
	}
	// An administrator may.
	asAdmin := func() *doctor.Target { return withAdmin(dead(db)(), db) }
	_, made = plans(t, db, asAdmin)
	i := slices.IndexFunc(made, func(p doctor.Plan) bool { return p.ID == "upkeep/vacuum" })
	if i < 0 || !slices.Contains(made[i].Requires, doctor.RequireAdmin) {
		t.Fatalf("%+v", made)
	}
	if err := carryOut(t, asAdmin(), made[i], "", &host{}); err != nil {
		t.Fatal(err)
	}
	find(t, dead(db)()).want(t, "info upkeep/autovacuum-off-on-table table first") // it is small now
}

func TestTheOldestRowsAreFrozen(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{Settings: map[string]string{"autovacuum": "on", "autovacuum_naptime": "2147483", "autovacuum_freeze_max_age": "100000"}})
	db := s.Database(t, pgtest.WithSetup(pgtest.Fixture()))
	owner := open(t, db, `CREATE TEMP TABLE kept (i int)`)
	burn(t, db.Conn(t), 101_000)
	half := func() *doctor.Target { return withAdmin(target(db, map[string]float64{"wraparound": 50}), db) }
	low := func() *doctor.Target { return withAdmin(target(db, map[string]float64{"wraparound": 100}), db) }
	c, made := plans(t, db, low)
	if !slices.Contains(c.said(), "warning upkeep/wraparound-near database "+db.Name) {
		t.Fatalf("found %v", c.said())
	}
	if v, ok := c.measured("database", db.Name, "transaction-age"); !ok || v < 100_000 {
		t.Errorf("transaction-age is %v", v)
	}
	if len(made) != 1 || made[0].ID != "upkeep/freeze" || len(made[0].Steps) != 1 {
		t.Fatalf("%+v", made)
	}
	if _, made := plans(t, db, half); len(made) != 1 || len(made[0].Steps) != 1 {
		t.Errorf("at half the age: %+v", made)
	}
	if err := carryOut(t, low(), made[0], "", &host{}); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := db.Conn(t).QueryRow(t.Context(), `SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relpersistence <> 't' AND age(relfrozenxid) > 90000`).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d tables are still old: %v", left, err)
	}
	// A temporary table nobody can vacuum but its own session.
	c = find(t, half())
	i := slices.IndexFunc(c.found, func(f doctor.Finding) bool { return f.Code == WraparoundNear && f.Object.Name == db.Name })
	if i < 0 || c.found[i].Fixable || !strings.Contains(c.found[i].Remedy, "DROP TABLE pg_temp_") {
		t.Errorf("%+v", c.found)
	}
	if _, err := owner.Exec(t.Context(), `DROP TABLE kept`); err != nil {
		t.Fatal(err)
	}
	db.AdminExec(t, `VACUUM pg_class`)
	if c := find(t, half()); slices.Contains(c.said(), "warning upkeep/wraparound-near database "+db.Name) {
		t.Errorf("frozen, it is still found: %v", c.found)
	}
}

// burn uses up transaction numbers: each block with a handler has one of its own when it writes.
func burn(t *testing.T, conn *pgx.Conn, n int) {
	t.Helper()
	for _, sql := range []string{`CREATE TEMP TABLE burnt (i int)`,
		fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP BEGIN INSERT INTO burnt VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$`, n),
		`DROP TABLE burnt`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}
