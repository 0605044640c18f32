package schema_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/synapse-doctor/synapse-doctor/checks/schema"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/plugins/sdk/sdktest"
)

// reporter keeps what a check says.
type reporter struct {
	found    []doctor.Finding
	covered  string
	measures []doctor.Measure
}

func (r *reporter) Find(f doctor.Finding)    { r.found = append(r.found, f) }
func (r *reporter) Progress(doctor.Progress) {}
func (r *reporter) Covered(text string)      { r.covered = text }
func (r *reporter) Measure(m doctor.Measure) { r.measures = append(r.measures, m) }

func target(db *pgtest.DB) *doctor.Target {
	return &doctor.Target{ServerName: "test.example", Databases: []*doctor.Database{{
		Label: "main", Engine: doctor.Postgres, DataStores: []string{"main", "state"}, Meets: doctor.NeedsSynapse | doctor.NeedsPostgres,
		Settings: map[string]string{"host": db.Host, "port": fmt.Sprint(db.Port), "dbname": db.Name, "user": db.User, "password": db.Password, "sslmode": "disable"},
	}}}
}

// stand is a check with a database that is sound for it.
type stand struct {
	*pgtest.DB
	check doctor.Check
}

// little is a small part of a fresh schema: to clone a whole one takes far longer.
func little(t *testing.T) stand {
	t.Helper()
	catalog, setup := small(t)
	return stand{pgtest.Start(t).Database(t, pgtest.WithSetup(setup)), schema.CheckOf(catalog)}
}

func (s stand) examine(t *testing.T, target *doctor.Target) (*reporter, error) {
	t.Helper()
	t.Cleanup(target.Close)
	r := &reporter{}
	err := s.check.Run(t.Context(), target, r)
	return r, err
}

// finds compares what the check finds with code, severity and object.
func (s stand) finds(t *testing.T, want ...string) []doctor.Finding {
	t.Helper()
	r, err := s.examine(t, target(s.DB))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	keys := map[doctor.FindingKey]bool{}
	for _, f := range r.found {
		got = append(got, fmt.Sprintf("%s %s %s %s", f.Code, f.Severity, f.Object.Kind, f.Object.Name))
		if keys[f.Key()] {
			t.Errorf("two findings have the key %v", f.Key())
		}
		keys[f.Key()] = true
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("found\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	return r.found
}

func TestWhatABackgroundUpdateMakesIsWaitedFor(t *testing.T) {
	db := little(t)
	db.Exec(t, `DROP INDEX receipts_linearized_event_id;
		INSERT INTO background_updates (update_name, progress_json, ordering) VALUES ('threads_backfill', '{}', 1), ('receipts_room_id_event_id_index', '{}', 8602)`)
	f := db.finds(t, "schema/index-being-built info index receipts_linearized_event_id")[0]
	if f.Fixable || !strings.Contains(f.Summary, "background update receipts_room_id_event_id_index, which is queued") || f.Observed != "receipts_room_id_event_id_index is queued, with 1 before it" {
		t.Errorf("%+v", f)
	}
	const day = 24 * time.Hour
	queue := doctor.Object{Kind: "table", Name: "background_updates"}
	it, made := doctor.Object{Kind: "index", Name: "receipts_linearized_event_id"}, doctor.Object{Kind: "index", Name: "e2e_room_keys_room_id"}
	for _, c := range []struct {
		waited  float64         // days
		before  []doctor.Object // what waited then
		since   time.Duration
		overdue bool
	}{
		{0, []doctor.Object{it}, day, false}, {28, []doctor.Object{it}, day, false}, {29, []doctor.Object{it}, 2 * day, true},
		{29, []doctor.Object{it, made}, 2 * day, false}, {29, []doctor.Object{made}, 2 * day, false}, {29, nil, 2 * day, false},
	} {
		at := time.Now().Add(-c.since)
		earlier := []doctor.Measure{
			{Check: "schema", Database: "main", Object: queue, Name: "stalled-for", Value: c.waited * 86400, At: at},
			{Check: "vacuum", Database: "main", Object: queue, Name: "size", At: time.Now()}, // another check was recorded since
		}
		for _, o := range c.before {
			earlier = append(earlier, doctor.Measure{Check: "schema", Database: "main", Object: o, Name: "awaited", Value: 1, At: at})
		}
		again := target(db.DB)
		again.Earlier = doctor.NewEarlier(earlier)
		r, err := db.examine(t, again)
		if err != nil || len(r.measures) != 3 || r.measures[0].Value != 1 || r.measures[2].Object != it || r.measures[2].Unit != "fingerprint" {
			t.Errorf("%v %+v", err, r.measures)
			continue
		}
		stalled := slices.Equal(c.before, []doctor.Object{it})
		if got := r.measures[1].Value; stalled && got < c.waited*86400+c.since.Seconds() || !stalled && got != 0 {
			t.Errorf("%+v: stalled for %g", c, got)
		}
		if c.overdue != slices.ContainsFunc(r.found, func(f doctor.Finding) bool { return f.Code == schema.Overdue && f.Severity == doctor.Warning }) {
			t.Errorf("%+v: %+v", c, r.found)
		}
	}
	// A fresh schema waits for more than thirty: that is one finding.
	db.Exec(t, `DROP INDEX events_jump_to_date_idx, received_ts_idx, e2e_room_keys_room_id;
		INSERT INTO background_updates (update_name, progress_json) VALUES ('events_jump_to_date_index', '{}'), ('events_received_ts_index', '{}'), ('e2e_room_keys_index_room_id', '{}')`)
	f = db.finds(t, "schema/index-being-built info table background_updates")[0]
	if !strings.HasPrefix(f.Summary, "4 indexes not there yet: ") {
		t.Errorf("%+v", f)
	}
	// One that nobody makes is missing all the same.
	db.Exec(t, `DELETE FROM background_updates WHERE update_name = 'events_received_ts_index'`)
	db.finds(t, "schema/missing-index warning index received_ts_idx", "schema/index-being-built info index e2e_room_keys_room_id",
		"schema/index-being-built info index events_jump_to_date_idx", "schema/index-being-built info index receipts_linearized_event_id")
}

// twice makes a unique index that is not valid, as Synapse's background update does when a key is there twice.
func twice(t *testing.T, db stand) {
	t.Helper()
	db.Exec(t, `DROP INDEX device_lists_remote_cache_unique_id;
		INSERT INTO device_lists_remote_cache (user_id, device_id, content) VALUES ('@a:x', 'D', '1'), ('@a:x', 'D', '2')`)
	_, err := db.Conn(t).Exec(t.Context(), `CREATE UNIQUE INDEX CONCURRENTLY device_lists_remote_cache_unique_id ON device_lists_remote_cache (user_id, device_id)`)
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "23505" {
		t.Fatal(err)
	}
}

func TestAnIndexWhoseBuildFailedIsNotValid(t *testing.T) {
	db := little(t)
	twice(t, db)
	f := db.finds(t, "schema/invalid-index error index device_lists_remote_cache_unique_id")[0]
	if !f.Fixable {
		t.Errorf("%+v", f)
	}
	db.Exec(t, `INSERT INTO background_updates (update_name, progress_json) VALUES ('device_lists_remote_cache_unique_idx', '{}')`)
	f = db.finds(t, "schema/invalid-index error index device_lists_remote_cache_unique_id")[0]
	if f.Fixable || !strings.Contains(f.Summary, "has failed at least once") || f.Evidence["background update"] == "" {
		t.Errorf("%+v", f)
	}
	db.Exec(t, `DELETE FROM background_updates; ALTER INDEX device_lists_remote_cache_unique_id RENAME TO device_lists_remote_cache_unique_id_ccnew`)
	db.finds(t, "schema/missing-index error index device_lists_remote_cache_unique_id")
}

// Somebody who builds an index concurrently waits for every older transaction that has written to the table.
func TestAnIndexThatIsBeingBuiltIsLeftAlone(t *testing.T) {
	db := little(t)
	db.Exec(t, `DROP INDEX events_ts, events_order_room`)
	writer, builder := db.Conn(t), db.AdminConn(t)
	tx, err := writer.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE events IN ROW EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := builder.Exec(context.WithoutCancel(t.Context()), `CREATE INDEX CONCURRENTLY events_ts ON events (origin_server_ts, stream_ordering)`)
		done <- err
	}()
	waits(t, db)
	found := db.finds(t, "schema/index-being-built info index events_ts", "schema/missing-index warning index events_order_room")
	for _, f := range found {
		if f.Object.Name == "events_ts" && (f.Fixable || !strings.Contains(f.Summary, "at this moment")) ||
			f.Object.Name != "events_ts" && f.Evidence["being built"] == "" {
			t.Errorf("%+v", f)
		}
	}
	if err := errors.Join(tx.Rollback(t.Context()), <-done); err != nil {
		t.Fatal(err)
	}
	db.finds(t, "schema/missing-index warning index events_order_room")
}

func TestASplitConfigurationLooksAtEachDatabaseForItsOwn(t *testing.T) {
	for _, c := range []struct{ store, change string }{
		{"main", `DROP TABLE state_groups, state_groups_state; DELETE FROM applied_schema_deltas WHERE file ~ '^(89/01_state|90/02|90/03)'; DROP INDEX users_creation_ts`},
		{"state", `DROP TABLE users, device_lists_remote_cache, events, receipts_linearized, e2e_room_keys; DELETE FROM applied_schema_deltas WHERE file !~ '^(89/01_state|90/02|90/03)';
			DROP INDEX state_groups_room_id_idx`},
		{"main", `DROP INDEX users_creation_ts`}, {"state", `DROP INDEX state_groups_room_id_idx`}, // made as copies of the whole
	} {
		db := little(t)
		db.Exec(t, c.change)
		one := target(db.DB)
		one.Databases[0].DataStores, one.Databases[0].Label = []string{c.store}, c.store
		r, err := db.examine(t, one)
		if err != nil || len(r.found) != 1 || r.found[0].Code != schema.MissingIndex || r.found[0].Database != c.store {
			t.Errorf("%s: %v %+v", c.store, err, r.found)
		}
	}
}

func TestWhatMayNotBeReadIsAnError(t *testing.T) {
	db := little(t)
	db.AdminExec(t, `DROP ROLE IF EXISTS looks_only; CREATE ROLE looks_only LOGIN PASSWORD 'x'; GRANT SELECT ON schema_version TO looks_only`)
	other := target(db.DB)
	other.Databases[0].Settings["user"], other.Databases[0].Settings["password"] = "looks_only", "x"
	if _, err := db.examine(t, other); err == nil || !strings.Contains(err.Error(), "applied_schema_deltas") {
		t.Errorf("%v", err)
	}
	db.AdminExec(t, `GRANT SELECT ON applied_schema_deltas, background_updates TO looks_only; DROP INDEX events_ts`)
	other = target(db.DB)
	other.Databases[0].Settings["user"], other.Databases[0].Settings["password"] = "looks_only", "x"
	r, err := db.examine(t, other)
	if err != nil || len(r.found) != 1 {
		t.Fatalf("%v %+v", err, r.found)
	}
	plans, err := db.check.Plan(t.Context(), other, r.found)
	if err != nil || len(plans) != 1 || plans[0].ID != "schema/by-owner" || !plans[0].Manual() || !strings.Contains(plans[0].Steps[0].Manual.Text, "CREATE INDEX CONCURRENTLY events_ts") {
		t.Errorf("%v %+v", err, plans)
	}
}

func TestTheAdministratorMendsWhatSynapsesRoleDoesNotOwn(t *testing.T) {
	db := little(t)
	db.AdminExec(t, `DROP INDEX events_ts; ALTER TABLE events OWNER TO postgres; GRANT SELECT ON events TO synapse_user`)
	both := func() *doctor.Target {
		with := target(db.DB)
		with.Databases[0].Meets |= doctor.NeedsAdmin
		with.Admin = &doctor.Database{Label: "admin", Engine: doctor.Postgres, Settings: map[string]string{"host": db.Server.SocketDir, "port": fmt.Sprint(db.Port), "user": "postgres", "dbname": "postgres"}}
		return with
	}
	with := both()
	defer with.Close()
	r, err := db.examine(t, with)
	if err != nil {
		t.Fatal(err)
	}
	plans, err := db.check.Plan(t.Context(), with, r.found)
	if err != nil || len(plans) != 1 || !slices.Equal(plans[0].Requires, []doctor.Requirement{doctor.RequireAdmin}) {
		t.Fatalf("%v %+v", err, plans)
	}
	s := *plans[0].Steps[0].Operation
	if err := db.check.Operations[s.Name](t.Context(), with, s, "", &host{}); err != nil {
		t.Fatal(err)
	}
	db.finds(t)
}

// Synapse's tables need not be in the schema public, and a table elsewhere is not Synapse's.
func TestSynapseMayLiveInAnotherSchema(t *testing.T) {
	db := little(t)
	db.AdminExec(t, `ALTER SCHEMA public RENAME TO synapse; CREATE SCHEMA public; ALTER ROLE synapse_user IN DATABASE `+db.Name+` SET search_path = synapse;
		ALTER DATABASE `+db.Name+` SET quote_all_identifiers = on`)
	db.finds(t)
	db.AdminExec(t, `DROP INDEX synapse.events_ts; CREATE TABLE public.events (origin_server_ts bigint)`)
	f := db.finds(t, "schema/missing-index warning index events_ts")[0]
	if !strings.Contains(f.Remedy, "ON synapse.events USING btree") {
		t.Errorf("%s", f.Remedy)
	}
}

func release(t *testing.T, version string) *schema.Catalog {
	t.Helper()
	known, err := schema.Catalogs()
	if err != nil {
		t.Fatal(err)
	}
	return known[slices.IndexFunc(known, func(c *schema.Catalog) bool { return c.Synapse == version })]
}

// tables are the few that most tests need.
var tables = []string{
	"schema_version", "applied_schema_deltas", "background_updates", "users", "state_groups", "state_groups_state", "device_lists_remote_cache", "events",
	"receipts_linearized", "e2e_room_keys",
}

// small is the part of a catalog that these tables make, and the SQL that makes it, with a user and a state group of the
// homeserver test.example.
func small(t *testing.T) (*schema.Catalog, string) {
	t.Helper()
	newest := release(t, "1.160")
	c := &schema.Catalog{Synapse: newest.Synapse, Schema: newest.Schema, Deltas: newest.Deltas, Tables: map[string]*schema.Table{}}
	var b strings.Builder
	for _, name := range tables {
		table := newest.Tables[name]
		c.Tables[name] = &schema.Table{Columns: table.Columns, Indexes: table.Indexes}
		var columns []string
		for _, o := range table.Columns {
			text := fmt.Sprintf("%q %s", o.Name, o.Type)
			if o.Default != "" {
				text += " DEFAULT " + o.Default
			}
			if o.NotNull {
				text += " NOT NULL"
			}
			columns = append(columns, text)
		}
		fmt.Fprintf(&b, "CREATE TABLE %s (%s);\n", name, strings.Join(columns, ", "))
		for _, o := range table.Columns {
			if o.NDistinct != "" {
				fmt.Fprintf(&b, "ALTER TABLE %s ALTER COLUMN %s SET (n_distinct = %s);\n", name, o.Name, o.NDistinct)
			}
		}
		for _, i := range table.Indexes {
			unique := ""
			if i.Unique {
				unique = "UNIQUE"
			}
			fmt.Fprintf(&b, "CREATE %s INDEX %s ON %s USING %s;\n", unique, i.Name, name, i.Def)
		}
	}
	var values []string
	for _, d := range c.Deltas {
		version, _, _ := strings.Cut(d, "/")
		values = append(values, fmt.Sprintf("(%s, '%s')", version, d))
	}
	fmt.Fprintf(&b, "INSERT INTO schema_version VALUES ('X', %d, true); INSERT INTO applied_schema_deltas VALUES %s; INSERT INTO users (name) VALUES ('@a:test.example'); INSERT INTO state_groups VALUES (1, '!r', '$e');",
		c.Schema, strings.Join(values, ", "))
	return c, b.String()
}

func TestLossesAreFoundMendedAndPutBack(t *testing.T) {
	catalog, setup := small(t)
	sdktest.Suite{
		Check: schema.CheckOf(catalog),
		Setup: setup,
		Cases: []sdktest.Case{
			{
				Name: "an index", Break: `DROP INDEX users_creation_ts`,
				Want: []string{"schema/missing-index index users_creation_ts"}, Plan: "schema/build-indexes",
			},
			{
				Name: "n_distinct", Break: `ALTER TABLE state_groups_state ALTER COLUMN state_group RESET (n_distinct)`,
				Want: []string{"schema/option-lost column state_groups_state.state_group"}, Plan: "schema/set-n-distinct",
			},
			{
				Name: "a column", Break: `ALTER TABLE users DROP COLUMN locked`, Want: []string{"schema/missing-column column users.locked"},
			},
		},
	}.Run(t)
}

// host is what an operation sees of the engine.
type host struct {
	resume string
	mu     sync.Mutex
	rows   []doctor.SavedRow
	waits  chan string // what it says first, where somebody listens
}

func (h *host) Progress(p doctor.Progress) {
	select {
	case h.waits <- p.Text:
	default:
	}
}

func (h *host) Save(_ context.Context, resume string, rows []doctor.SavedRow) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.resume, h.rows = resume, rows // the check has one token
	return nil
}

func (h *host) Rows(_ context.Context, each func(doctor.SavedRow) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.rows {
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}
func (h *host) Stopping() <-chan struct{} { return nil }
func (h *host) Document(string, string)   {}

// hasBegun is a host of a build that was interrupted before more was known.
func hasBegun() *host {
	return &host{resume: "begun", rows: []doctor.SavedRow{{Table: "events", JSON: `{"oid":0}`}}}
}

// step is the one operation that is planned for what is found.
func (s stand) step(t *testing.T) doctor.OperationStep {
	t.Helper()
	target := target(s.DB)
	r, err := s.examine(t, target)
	if err != nil {
		t.Fatal(err)
	}
	plans, err := s.check.Plan(t.Context(), target, r.found)
	if err != nil || len(plans) != 1 || len(plans[0].Steps) != 1 || plans[0].Steps[0].Operation == nil {
		t.Fatalf("%v %+v", err, plans)
	}
	return *plans[0].Steps[0].Operation
}

func operate(t *testing.T, db stand, s doctor.OperationStep, undo bool, h *host) error {
	t.Helper()
	name := s.Name
	if undo {
		name = s.Undo
	}
	on := target(db.DB)
	on.Writable = true
	defer on.Close()
	return db.check.Operations[name](t.Context(), on, s, h.resume, h)
}

func TestAnInvalidIndexIsBuiltAnewOnceItsRowsAreSettled(t *testing.T) {
	db := little(t)
	twice(t, db)
	s := db.step(t)
	var unchanged *doctor.UnchangedError
	if err := operate(t, db, s, false, &host{}); !errors.As(err, &unchanged) || !strings.HasPrefix(unchanged.Reason, "In device_lists_remote_cache 1 key is there twice") {
		t.Fatalf("%v", err)
	}
	db.finds(t, "schema/invalid-index error index device_lists_remote_cache_unique_id")
	db.Exec(t, `DELETE FROM device_lists_remote_cache WHERE content = '1'`)
	h := &host{}
	if err := operate(t, db, s, false, h); err != nil {
		t.Fatal(err)
	}
	db.finds(t)
	if err := operate(t, db, s, true, h); err != nil {
		t.Fatal(err)
	}
	db.finds(t, "schema/missing-index error index device_lists_remote_cache_unique_id")
	if err := operate(t, db, s, true, h); err != nil { // once more, as after a kill
		t.Fatal(err)
	}
}

// The keys of this index can't be compared beforehand, so that the build itself fails.
func TestWhatAFailedBuildLeavesIsDropped(t *testing.T) {
	db := little(t)
	db.Exec(t, `DROP INDEX device_lists_remote_cache_unique_id;
		INSERT INTO device_lists_remote_cache (user_id, device_id, content) VALUES ('@a:x', 'D', '1'), ('@a:x', 'D', '2')`)
	s := db.step(t)
	s.Params = maps.Clone(s.Params)
	s.Params["definition"] = "btree (lower(user_id), device_id)"
	var unchanged *doctor.UnchangedError
	err := operate(t, db, s, false, &host{})
	if !errors.As(err, &unchanged) || !strings.Contains(unchanged.Reason, "SQLSTATE 23505") || !strings.Contains(unchanged.Reason, "What it left was dropped") || strings.Contains(unchanged.Reason, "@a:x") {
		t.Fatalf("%v", err)
	}
	db.finds(t, "schema/missing-index error index device_lists_remote_cache_unique_id")
}

func TestABuildThatWasCutOffIsBegunAnew(t *testing.T) {
	db := little(t)
	db.Exec(t, `DROP INDEX events_ts`)
	s := db.step(t)
	db.AdminExec(t, `CREATE INDEX events_ts ON events (origin_server_ts, stream_ordering); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'events_ts'::regclass`)
	var unchanged *doctor.UnchangedError
	if err := operate(t, db, s, false, &host{}); !errors.As(err, &unchanged) { // another's, for all that is known
		t.Fatalf("%v", err)
	}
	if err := operate(t, db, s, false, hasBegun()); err != nil {
		t.Fatal(err)
	}
	db.finds(t)
	h := hasBegun()
	if err := operate(t, db, s, false, h); err != nil { // it was done, and that not noted
		t.Fatal(err)
	}
	if len(h.rows) != 1 || h.rows[0].JSON == hasBegun().rows[0].JSON {
		t.Errorf("which index it is was not kept: %+v", h.rows)
	}
	if err := operate(t, db, s, false, &host{}); !errors.As(err, &unchanged) {
		t.Fatalf("%v", err)
	}
	db.Exec(t, `DROP INDEX events_ts; CREATE INDEX events_ts ON events (sender)`)
	for _, undo := range []bool{false, true} {
		if err := operate(t, db, s, undo, hasBegun()); !errors.As(err, &unchanged) {
			t.Errorf("undo %t: %v", undo, err)
		}
	}
}

func TestNoIndexIsDroppedButTheOneThatWasBuilt(t *testing.T) {
	db := little(t)
	db.Exec(t, `DROP INDEX events_ts`)
	s := db.step(t)
	h := &host{}
	if err := operate(t, db, s, false, h); err != nil {
		t.Fatal(err)
	}
	var unchanged *doctor.UnchangedError
	if err := operate(t, db, s, true, &host{}); err != nil { // it had not begun
		t.Error(err)
	}
	if err := operate(t, db, s, true, hasBegun()); !errors.As(err, &unchanged) || !strings.Contains(unchanged.Reason, "can't be told") {
		t.Errorf("%v", err)
	}
	db.Exec(t, `DROP INDEX events_ts; CREATE INDEX events_ts ON events (origin_server_ts, stream_ordering)`)
	if err := operate(t, db, s, true, h); !errors.As(err, &unchanged) || !strings.Contains(unchanged.Reason, "not the one that was built") {
		t.Errorf("%v", err)
	}
	db.finds(t)
	db.AdminExec(t, `UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'events_ts'::regclass`)
	if err := operate(t, db, s, true, hasBegun()); err != nil { // what an interrupted build has left
		t.Error(err)
	}
	db.finds(t, "schema/missing-index warning index events_ts")
}

// To queue for a table on which Synapse builds an index would end that with a deadlock: it waits for older snapshots.
func TestAnothersBuildIsWaitedFor(t *testing.T) {
	db := little(t)
	db.Exec(t, `DROP INDEX events_ts, events_order_room`)
	target := target(db.DB)
	r, err := db.examine(t, target)
	if err != nil {
		t.Fatal(err)
	}
	plans, err := db.check.Plan(t.Context(), target, r.found)
	if err != nil || len(plans) != 1 || len(plans[0].Steps) != 2 {
		t.Fatalf("%v %+v", err, plans)
	}
	s, other := *plans[0].Steps[0].Operation, "events_ts"
	if s.Params["index"] == other {
		other = "events_order_room"
	}
	old, builder := db.Conn(t), db.AdminConn(t) // of whose progress Synapse's role sees next to nothing
	tx, err := old.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT 1 FROM users`); err != nil { // a snapshot
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := builder.Exec(context.WithoutCancel(t.Context()), `CREATE INDEX CONCURRENTLY mine ON events (sender)`)
		done <- err
	}()
	waits(t, db)
	var unchanged *doctor.UnchangedError
	impatient := schema.Patience(t, 0)
	if err := operate(t, db, s, false, &host{}); !errors.As(err, &unchanged) || !strings.Contains(unchanged.Reason, "is building an index of events") {
		t.Errorf("%v", err)
	}
	impatient()
	h, ours := &host{waits: make(chan string, 10)}, make(chan error, 1)
	go func() { ours <- operate(t, db, s, false, h) }()
	select {
	case text := <-h.waits:
		if text != "waiting for another session, which builds an index of events" {
			t.Errorf("%q", text)
		}
	case err := <-ours:
		t.Fatalf("it did not wait: %v; the other build: %v", err, errors.Join(tx.Rollback(t.Context()), <-done))
	}
	if err := errors.Join(tx.Rollback(t.Context()), <-done); err != nil {
		t.Errorf("the other build: %v", err)
	}
	if err := <-ours; err != nil {
		t.Fatal(err)
	}
	db.finds(t, "schema/missing-index warning index "+other, "schema/foreign-object info foreign indexes of Synapse's tables")
}

// waits until somebody's build waits for another transaction.
func waits(t *testing.T, db stand) {
	t.Helper()
	look := db.AdminConn(t)
	for waiting := false; !waiting; {
		if err := look.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE datname = current_database() AND phase LIKE 'waiting%')`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
}

// Cancelled while it waits for another's transaction, a build leaves nothing.
func TestABuildThatIsCancelledLeavesNothing(t *testing.T) {
	db := little(t)
	db.Exec(t, `DROP INDEX events_ts`)
	s := db.step(t)
	tx, err := db.Conn(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE events IN ROW EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		on := target(db.DB)
		defer on.Close()
		done <- db.check.Operations[s.Name](ctx, on, s, "", &host{})
	}()
	look := db.Conn(t)
	for waiting := false; !waiting; {
		if err := look.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%')`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	for building := true; building; { // what it has left can be dropped when the table is free
		if err := look.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_progress_create_index)`).Scan(&building); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Fatal("no error")
	}
	if err := look.QueryRow(t.Context(), `SELECT 1 FROM pg_class WHERE relname = 'events_ts' AND NOT (SELECT indisvalid FROM pg_index WHERE indexrelid = pg_class.oid)`).Scan(new(int)); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("an invalid index was left: %v", err)
	}
}

// The files are what cmd/catalog writes: nobody has edited them into something else.
func TestTheCatalogsAreInTheirOwnForm(t *testing.T) {
	known, err := schema.Catalogs()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/checks/schema.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range known {
		if !strings.Contains(string(page), c.Synapse) {
			t.Errorf("docs/checks/schema.md does not name %s among what is known", c.Synapse)
		}
		text, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile("catalog/" + strings.ReplaceAll(c.Synapse, " ", "-") + ".json")
		if err != nil || string(file) != string(text) {
			t.Errorf("%s: %v", c.Synapse, err)
		}
	}
}

func TestAPortedSchemaIsSilent(t *testing.T) {
	dump := pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_ported.dump"))
	stand{pgtest.Start(t).Database(t, dump), schema.Check}.finds(t)
}

// The catalog of 1.160 is what a fresh schema of that release gives, on the oldest major version and on the newest.
func TestAFreshSchemaGivesTheCatalog(t *testing.T) {
	data := pgtest.Data(t)
	want, err := os.ReadFile("catalog/1.160.json")
	if err != nil {
		t.Fatal(err)
	}
	pgtest.EachOf(t, []int{14, 18}, nil, func(t *testing.T, s *pgtest.Server) {
		db := stand{s.Database(t, pgtest.WithDump(filepath.Join(data, "synapse_empty.dump"))), schema.Check}
		var c *schema.Catalog
		err := pgx.BeginFunc(t.Context(), db.Conn(t), func(tx pgx.Tx) (err error) {
			if c, err = schema.Read(t.Context(), tx, nil, nil); err == nil {
				c.Schema, c.Deltas, err = schema.ReadState(t.Context(), tx)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		newest := release(t, "1.160")
		db.finds(t)
		c.Synapse, c.Source = newest.Synapse, newest.Source
		if got, err := c.Encode(); err != nil || string(got) != string(want) {
			t.Errorf("%v: the catalog is another", err)
		}
	})
}
