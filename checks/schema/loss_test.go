package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// older is the change to a 1.160 schema that makes the one of 1.157.1.
const older = `DROP TABLE profile_updates, profile_updates_per_user; DROP SEQUENCE profile_updates_sequence;
	DROP INDEX device_lists_changes_in_room_unconverted_idx;
	DELETE FROM applied_schema_deltas WHERE file IN ('94/07_profile_updates.sql', '94/07_profile_updates_seq.sql.postgres', '94/08_device_lists_changes_in_room_unconverted_idx.sql')`

func covers(w wanted) string { return fmt.Sprintf("%s: %d", w.Label, len(w.Tables)) }

// brief is what is found, in a line each.
func (s *sweep) brief(have *live, want wanted) (got []string) {
	var found []doctor.Finding
	for _, l := range compare(have, want) {
		found = append(found, l.finding())
	}
	found = append(found, foreign(have, want)...)
	if f, is := notNoted(want); is {
		found = append(found, f)
	}
	keys := map[doctor.FindingKey]bool{}
	for _, f := range found {
		got = append(got, fmt.Sprintf("%s %s %s %s", f.Code, f.Severity, f.Object.Kind, f.Object.Name))
		if f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" {
			s.t.Errorf("%+v", f)
		}
		if keys[f.Key()] {
			s.t.Errorf("two findings have the key %v", f.Key())
		}
		keys[f.Key()] = true
	}
	return got
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("found\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestWhichReleaseItIsIsToldByItsDeltas(t *testing.T) {
	s := begin(t)
	for name, c := range map[string]struct {
		change, covered, skipped string
		found                    []string
	}{
		"1.160":   {change: `SELECT 1`, covered: "Synapse 1.160's schema: 175"},
		"1.157.1": {change: older, covered: "Synapse 1.157.1's schema: 173"},
		"between the two": {
			change:  older + ` AND file NOT LIKE '%08_device%'; DROP INDEX device_inbox_stream_id_user_id`,
			covered: "what Synapse 1.157.1's schema and Synapse 1.160's schema have in common: 173",
			found:   []string{"schema/missing-index warning index device_inbox_stream_id_user_id"},
		},
		"an old one": {
			change: `UPDATE schema_version SET version = 85; DELETE FROM applied_schema_deltas WHERE version > 85 OR file = '85/06_add_room_reports.sql';
				DROP TABLE profile_updates, sliding_sync_joined_rooms, room_reports CASCADE; ALTER TABLE users DROP COLUMN suspended; DROP INDEX events_ts`,
			covered: "what Synapse's full schema 72 and Synapse 1.157.1's schema have in common: 132",
			found:   []string{"schema/missing-index warning index events_ts"},
		},
		"the full schema": {
			change:  `UPDATE schema_version SET version = 72; DELETE FROM applied_schema_deltas; ALTER TABLE users ADD COLUMN gone text`,
			covered: "Synapse's full schema 72: 138",
			found:   nil,
		},
		"the full schema, by upgrades": {
			change: `UPDATE schema_version SET version = 72; DELETE FROM applied_schema_deltas; INSERT INTO applied_schema_deltas VALUES
				(72, '72/07force_update_current_state_events_membership.py'), (72, '72/07thread_receipts.sql.postgres'),
				(72, '72/08begin_cache_invalidation_seq_at_2.sql.postgres'), (72, '72/08thread_receipts.sql'), (71, '71/01x.sql')`,
			covered: "Synapse's full schema 72: 138",
		},
		"on the way to the full schema": {
			change: `UPDATE schema_version SET version = 72; DELETE FROM applied_schema_deltas; INSERT INTO applied_schema_deltas VALUES
				(72, '72/01event_push_summary_receipt.sql'), (72, '72/07thread_receipts.sql.postgres')`,
			skipped: "on its way to version 72, as releases of Synapse from 1.62 on left it: it has not gone through 72/07force",
		},
		"steps to the full schema that were gone through long ago": {
			change:  `INSERT INTO applied_schema_deltas VALUES (72, '72/01event_push_summary_receipt.sql')`,
			covered: "Synapse 1.160's schema: 175",
		},
		"a release candidate's delta, and one that is gone": {
			change:  `INSERT INTO applied_schema_deltas VALUES (83, '83/04_replica_identities.sql.postgres'), (12, '12/v12.sql')`,
			covered: "Synapse 1.160's schema: 175",
		},
		"a newer delta": {
			change:  `INSERT INTO applied_schema_deltas VALUES (94, '94/09_more.sql'); DROP INDEX events_ts`,
			skipped: "newer than any that this doctor knows (full schema 72, 1.157.1, 1.160): it went through 94/09_more.sql. Get a newer synapse-doctor. It differs from Synapse 1.160's schema in index events_ts; the newer",
		},
		"a newer version": {change: `UPDATE schema_version SET version = 95`, skipped: "the schema is at version 95 and newer than any that this doctor knows (full schema 72, 1.157.1, 1.160). Get a newer synapse-doctor. Of what Synapse 1.160's schema has, nothing is missing"},
		"no notes at all": {change: `DELETE FROM applied_schema_deltas; DROP INDEX events_ts`, skipped: "applied_schema_deltas has no note of what the schema at version 94 went through"},
		"before 1.62":     {change: `UPDATE schema_version SET version = 71`, skipped: "the schema is at version 71, from before Synapse 1.62"},
		"a note that is missing": {
			change:  `DELETE FROM applied_schema_deltas WHERE file LIKE '85/0%'; DROP INDEX events_ts`,
			covered: "Synapse 1.160's schema: 175",
			found:   []string{"schema/delta-not-noted info table applied_schema_deltas", "schema/missing-index warning index events_ts"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.in(t, func() {
				s.exec(c.change)
				have, want, err := s.look()
				reason, skipped := doctor.SkipReason(err)
				if want.Newer != "" {
					reason, skipped = want.lacking(compare(have, want)), true
				}
				if skipped != (c.skipped != "") || !strings.Contains(reason, c.skipped) || !skipped && err != nil {
					t.Fatalf("%v", err)
				}
				if skipped {
					return
				}
				if covers(want) != c.covered {
					t.Errorf("compared with %q", covers(want))
				}
				if !strings.HasPrefix(name, "the full schema") { // which this is not: what counts is that it is recognised
					equal(t, s.brief(have, want), c.found)
				}
			})
		})
	}
}

func TestEachLossIsNamed(t *testing.T) {
	s := begin(t)
	for name, c := range map[string]struct {
		change string
		want   []string
	}{
		"an index": {`DROP INDEX events_ts`, []string{"schema/missing-index warning index events_ts"}},
		"a unique index": {`DROP INDEX device_lists_remote_cache_unique_id`,
			[]string{"schema/missing-index error index device_lists_remote_cache_unique_id"}},
		"another index of the name": {`DROP INDEX events_ts; CREATE INDEX events_ts ON events (sender)`, []string{
			"schema/missing-index warning index events_ts", "schema/foreign-object info foreign indexes of Synapse's tables"}},
		"an index with a name of its own, and settings": {`ALTER INDEX events_ts RENAME TO old_name; ALTER INDEX old_name SET (fillfactor = 70)`, nil},
		"a unique index for a plain one":                {`DROP INDEX events_ts; CREATE UNIQUE INDEX u ON events (origin_server_ts, stream_ordering)`, []string{"schema/foreign-object info foreign indexes of Synapse's tables"}},
		"a unique index for a constraint":               {`ALTER TABLE registration_tokens DROP CONSTRAINT registration_tokens_token_key; CREATE UNIQUE INDEX u ON registration_tokens (token)`, nil},
		"a plain index for a unique one": {`ALTER TABLE registration_tokens DROP CONSTRAINT registration_tokens_token_key; CREATE INDEX i ON registration_tokens (token)`,
			[]string{"schema/missing-constraint error constraint registration_tokens_token_key on registration_tokens"}},
		"a primary key": {`ALTER TABLE destinations DROP CONSTRAINT destinations_pkey CASCADE`, []string{
			"schema/missing-constraint error constraint destinations_pkey on destinations", "schema/missing-constraint warning constraint destination_rooms_destination_fkey on destination_rooms"}},
		"a foreign key": {`ALTER TABLE event_edges DROP CONSTRAINT event_edges_event_id_fkey`, []string{"schema/missing-constraint warning constraint event_edges_event_id_fkey on event_edges"}},
		"a foreign key that deletes nothing": {`ALTER TABLE access_tokens DROP CONSTRAINT access_tokens_refresh_token_id_fkey, ADD CONSTRAINT access_tokens_refresh_token_id_fkey FOREIGN KEY (refresh_token_id) REFERENCES refresh_tokens(id)`,
			[]string{"schema/missing-constraint warning constraint access_tokens_refresh_token_id_fkey on access_tokens"}},
		"a default":       {`ALTER TABLE users ALTER COLUMN locked DROP DEFAULT`, []string{"schema/default-lost error column users.locked"}},
		"another default": {`ALTER TABLE users ALTER COLUMN locked SET DEFAULT true`, []string{"schema/default-lost warning column users.locked"}},
		"a wider column":  {`ALTER TABLE sticky_events ALTER COLUMN stream_id TYPE bigint`, []string{"schema/column-type info column sticky_events.stream_id"}},
		"another type":    {`ALTER TABLE devices ALTER COLUMN display_name TYPE varchar(64)`, []string{"schema/column-type error column devices.display_name"}},
		"no table to itself": {`CREATE TABLE bridge (id int PRIMARY KEY); CREATE TABLE state_compressor_state (room_id text); CREATE SCHEMA synapse_doctor; CREATE TABLE synapse_doctor.port (i int);
			CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.t (i int); CREATE TABLE _temp_populate_user_directory_rooms (i int)`,
			[]string{"schema/foreign-object info foreign tables beside Synapse's"}},
		"foreign parts": {`ALTER TABLE users ADD COLUMN mine text CHECK (mine <> ''); CREATE INDEX mine ON users (mine);
			CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER mine BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION f()`, []string{
			"schema/foreign-object info foreign columns of Synapse's tables", "schema/foreign-object info foreign constraints of Synapse's tables",
			"schema/foreign-object info foreign indexes of Synapse's tables", "schema/foreign-object info foreign triggers of Synapse's tables"}},
		"a foreign column in the way": {`ALTER TABLE users ADD COLUMN mine text NOT NULL`, []string{"schema/column-in-the-way error column users.mine"}},
		"the owner of a sequence":     {`ALTER SEQUENCE instance_map_instance_id_seq OWNED BY NONE`, []string{"schema/sequence-owner info sequence instance_map_instance_id_seq"}},
		"a default in place of an identity": {`ALTER TABLE sliding_sync_connections ALTER COLUMN connection_key DROP IDENTITY; CREATE SEQUENCE sliding_sync_connections_connection_key_seq;
			ALTER TABLE sliding_sync_connections ALTER COLUMN connection_key SET DEFAULT nextval('sliding_sync_connections_connection_key_seq')`,
			[]string{"schema/identity-lost warning column sliding_sync_connections.connection_key"}},
		"an unlogged table":                         {`ALTER TABLE device_inbox SET UNLOGGED`, []string{"schema/unlogged error table device_inbox"}},
		"replica identities of logical replication": {`ALTER TABLE device_inbox REPLICA IDENTITY FULL; ALTER TABLE users REPLICA IDENTITY NOTHING`, nil},
		"a published table": {`CREATE PUBLICATION p FOR TABLE device_inbox, access_tokens, stream_positions; ALTER TABLE stream_positions REPLICA IDENTITY FULL`,
			[]string{"schema/replica-identity error table device_inbox"}},
		"a published table of which nothing is changed": {`CREATE PUBLICATION p FOR TABLE device_inbox WITH (publish = 'insert')`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s.in(t, func() {
				s.exec(c.change)
				have, want, err := s.look()
				if err != nil {
					t.Fatal(err)
				}
				equal(t, s.brief(have, want), c.want)
			})
		})
	}
}

func TestForeignTablesOfKnownProgramsAreNamed(t *testing.T) {
	s := begin(t)
	s.exec(`CREATE TABLE state_compressor_state (room_id text); CREATE TABLE mine (i int)`)
	have, want, err := s.look()
	if err != nil {
		t.Fatal(err)
	}
	f := foreign(have, want)
	if len(f) != 1 || f[0].Evidence["of rust-synapse-compress-state"] != "state_compressor_state" || !strings.Contains(f[0].Summary, "2 tables") {
		t.Errorf("%+v", f)
	}
}

// Every statement that a remedy gives is right: run by hand, nothing is found any more.
func TestTheStatementsOfARemedyMend(t *testing.T) {
	s := begin(t)
	for name, change := range map[string]string{
		"default":        `ALTER TABLE users ALTER COLUMN locked DROP DEFAULT`,
		"not null":       `ALTER TABLE users ALTER COLUMN locked DROP NOT NULL`,
		"no not null":    `ALTER TABLE devices ALTER COLUMN display_name SET NOT NULL`,
		"column":         `ALTER TABLE users DROP COLUMN locked`,
		"type":           `ALTER TABLE devices ALTER COLUMN display_name TYPE varchar(64)`,
		"identity":       `ALTER TABLE sliding_sync_connections ALTER COLUMN connection_key DROP IDENTITY`,
		"foreign key":    `ALTER TABLE event_edges DROP CONSTRAINT event_edges_event_id_fkey`,
		"never valid":    `ALTER TABLE room_memberships DROP CONSTRAINT event_stream_ordering_fkey`,
		"check":          `ALTER TABLE profiles DROP CONSTRAINT full_user_id_not_null`,
		"trigger":        `DROP TRIGGER upsert_read_write_lock_parent_trigger ON worker_read_write_locks`,
		"disabled":       `ALTER TABLE worker_read_write_locks DISABLE TRIGGER upsert_read_write_lock_parent_trigger`,
		"sequence":       `DROP SEQUENCE events_stream_seq`,
		"serial":         `DROP SEQUENCE instance_map_instance_id_seq CASCADE`,
		"sequence owner": `ALTER SEQUENCE instance_map_instance_id_seq OWNED BY NONE`,
		"unlogged":       `ALTER TABLE device_inbox SET UNLOGGED`,
		"in the way":     `ALTER TABLE users ADD COLUMN mine text NOT NULL`,
		"primary key":    `ALTER TABLE event_expiry DROP CONSTRAINT event_expiry_pkey`,
		"n_distinct":     `ALTER TABLE event_search ALTER COLUMN room_id RESET (n_distinct)`,
	} {
		t.Run(name, func(t *testing.T) {
			s.in(t, func() {
				s.exec(change)
				have, want, err := s.look()
				if err != nil {
					t.Fatal(err)
				}
				lost := compare(have, want)
				if len(lost) != 1 {
					t.Fatalf("%+v", lost)
				}
				for _, l := range strings.Split(lost[0].remedy, "\n") {
					sql, is := strings.CutPrefix(l, "    ")
					if !is || strings.HasPrefix(sql, "synapse-doctor") || strings.HasPrefix(sql, "DROP INDEX") {
						continue
					}
					s.exec(strings.Replace(sql, " CONCURRENTLY", "", 1))
				}
				if have, want, err = s.look(); err != nil || len(compare(have, want)) > 0 {
					t.Errorf("%v %+v", err, compare(have, want))
				}
			})
		})
	}
}

// A statement that queues for a lock holds up everybody who comes after it.
func TestAStatementThatNeedsALockDoesNotQueueForLong(t *testing.T) {
	s := begin(t)
	s.exec(`ALTER TABLE event_expiry DROP CONSTRAINT event_expiry_pkey; ALTER TABLE event_expiry ALTER COLUMN event_id DROP NOT NULL;
		ALTER TABLE destinations DROP CONSTRAINT destinations_pkey CASCADE; ALTER TABLE device_inbox SET UNLOGGED;
		ALTER TABLE worker_read_write_locks DISABLE TRIGGER upsert_read_write_lock_parent_trigger; DROP TRIGGER check_event_stream_ordering ON room_memberships;
		ALTER TABLE profiles DROP CONSTRAINT full_user_id_not_null; ALTER TABLE users ALTER COLUMN locked DROP DEFAULT, ADD COLUMN mine text NOT NULL;
		ALTER TABLE devices DROP COLUMN display_name; CREATE PUBLICATION p FOR TABLE stream_positions`)
	have, want, err := s.look()
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, l := range compare(have, want) {
		bounded := false
		for _, sql := range strings.Split(l.remedy, "\n    ") {
			bounded = bounded || strings.HasPrefix(sql, "SET lock_timeout")
			if (strings.HasPrefix(sql, "ALTER TABLE") || strings.HasPrefix(sql, "CREATE TRIGGER")) && !strings.Contains(sql, "n_distinct") {
				told++
				if !bounded || !strings.Contains(l.remedy, "try again later") {
					t.Errorf("%s", l.remedy)
				}
			}
		}
		switch l.object.Name {
		case "event_expiry_pkey on event_expiry":
			if !strings.Contains(l.remedy, "reads the whole table under it, since NOT NULL is lost: event_id.") {
				t.Errorf("%s", l.remedy)
			}
		case "destinations_pkey on destinations":
			if !strings.Contains(l.remedy, "no row is read") {
				t.Errorf("%s", l.remedy)
			}
		}
	}
	if told < 10 {
		t.Errorf("only %d statements", told)
	}
}

// PostgreSQL 14.0 to 14.3 can leave rows out of an index that is built concurrently.
func TestAServerThatLosesRowsBuildsNothing(t *testing.T) {
	s := begin(t)
	s.exec(`DROP INDEX events_ts`)
	have, want, err := s.look()
	if err != nil {
		t.Fatal(err)
	}
	if have.Server < 140004 {
		t.Errorf("the server says %d", have.Server)
	}
	b := &builder{index: Index{Name: "events_ts"}}
	for version, refused := range map[int]bool{130007: false, 140000: true, 140003: true, 140004: false, 150000: false} {
		have.Server = version
		remedy := compare(have, want)[0].remedy
		_, unchanged := errors.AsType[*doctor.UnchangedError](b.soundOn(version))
		if strings.Contains(remedy, "14.4") != refused || unchanged != refused {
			t.Errorf("%d: %s", version, remedy)
		}
	}
}

// The disk is made sure of where the server has not counted the rows, too.
func TestAnUncountedTableIsMeasured(t *testing.T) {
	s := begin(t)
	s.exec(`CREATE TABLE uncounted AS SELECT generate_series(1, 10000) i`)
	conn := s.tx.Conn()
	for rows, want := range map[int64]int64{-1: 100 << 10, 0: 100 << 10, 1000: 80000} {
		k := task{mend: &mend{Place: place{"uncounted", &Table{Schema: "public", Rows: rows}}, Index: Index{Def: "btree (i)"}}}
		b := &builder{conn: conn, place: k.Place, disk: k.disk()}
		if err := b.measure(t.Context()); err != nil || b.disk < want || b.disk > 2*want {
			t.Errorf("%d rows: %d bytes, %v", rows, b.disk, err)
		}
	}
}

// notes are the tables in which Synapse keeps its notes on the schema; the check reads no other.
var notes = []string{"applied_schema_deltas", "background_updates", "schema_version"}

func TestNoTableOfSynapseIsRead(t *testing.T) {
	s := begin(t)
	for _, q := range []struct {
		sql  string
		args []any
	}{
		{versionQuery, nil}, {deltasQuery, []any{Base}}, {queueQuery, nil}, {readQuery, []any{s.tables(), []string{"events_stream_seq"}}},
	} {
		var text string
		if err := s.tx.QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) "+q.sql, q.args...).Scan(&text); err != nil {
			t.Fatal(err)
		}
		var plan any
		if err := json.Unmarshal([]byte(text), &plan); err != nil {
			t.Fatal(err)
		}
		relations := map[string]bool{}
		gather(plan, relations)
		if len(relations) == 0 {
			t.Errorf("no relation in %s", text)
		}
		for name := range relations {
			if !strings.HasPrefix(name, "pg_") && !slices.Contains(notes, name) {
				t.Errorf("%s is read", name)
			}
		}
	}
}

func gather(v any, into map[string]bool) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			gather(x, into)
		}
	case map[string]any:
		if name, ok := v["Relation Name"].(string); ok {
			into[name] = true
		}
		for _, x := range v {
			gather(x, into)
		}
	}
}

// What Synapse 1.160 leaves to background updates in a database that it has just made, and the updates that it queues.
const (
	leftToUpdates = `access_tokens_refresh_token_id_idx current_state_delta_stream_room_idx current_state_events_members_room_index
current_state_events_stream_ordering_idx delayed_events_idx device_federation_inbox_received_ts_index
device_lists_changes_in_room_by_room_idx device_lists_changes_in_room_inserted_ts_idx
device_lists_changes_in_room_unconverted_idx e2e_one_time_keys_json_user_id_device_id_algorithm_ts_added_idx
e2e_room_keys_room_id event_auth_chain_links_origin_index event_push_summary_index_room_id
event_txn_id_device_id_txn_id2 events_jump_to_date_idx full_users_unique_idx
local_current_membership_stream_ordering_idx local_media_repository_sha256 profiles_full_user_id_key
receipts_linearized_event_id received_ts_idx remote_media_cache_sha256 room_account_data_room_id
room_membership_user_room_idx room_memberships_stream_ordering_idx
sliding_sync_connection_lazy_members_conn_pos_idx sliding_sync_connection_room_configs_required_state_id_idx
sliding_sync_connections_last_used_ts_idx sliding_sync_membership_snapshots_membership_event_id_idx
sliding_sync_membership_snapshots_user_id_stream_ordering`
	queued = `threads_backfill device_lists_changes_in_room_by_room_index populate_stats_process_rooms
populate_stats_process_users populate_user_directory_cleanup populate_user_directory_createtables
populate_user_directory_process_rooms populate_user_directory_process_users events_jump_to_date_index
set_device_id_for_pushers room_membership_user_room_index delete_e2e_backup_keys_for_deactivated_users
profiles_full_user_id_key_idx full_users_filters_unique_idx populate_full_user_id_profiles
populate_full_user_id_user_filters event_push_actions_staging_thread_id event_push_actions_thread_id
event_push_drop_null_thread_id_indexes event_push_summary_thread_id current_state_events_stream_ordering_idx
local_current_membership_stream_ordering_idx room_memberships_stream_ordering_idx
event_forward_extremities_event_id_foreign_key_constraint_update e2e_room_keys_index_room_id
room_account_data_index_room_id event_push_summary_index_room_id event_auth_chain_links_origin_index
access_tokens_refresh_token_id_idx cleanup_device_federation_outbox receipts_room_id_event_id_index
current_state_events_members_room_index sliding_sync_joined_rooms_bg_update
sliding_sync_membership_snapshots_bg_update sliding_sync_prefill_joined_rooms_to_recalculate_table_bg_update
sliding_sync_membership_snapshots_fix_forgotten_column_bg_update add_otk_ts_added_index
current_state_delta_stream_room_index sliding_sync_connection_room_configs_required_state_id_idx
events_received_ts_index local_media_repository_sha256_idx remote_media_cache_sha256_idx
sliding_sync_membership_snapshots_membership_event_id_idx
mark_unreferenced_state_groups_for_deletion_bg_update
sliding_sync_membership_snapshots_user_id_stream_ordering fixup_max_depth_cap
device_federation_inbox_received_ts_index event_txn_id_device_id_txn_id2 delayed_events_idx redactions_recheck
device_lists_changes_in_room_inserted_ts_idx flag_existing_quarantined_media
sliding_sync_connections_last_used_ts_idx sliding_sync_connection_lazy_members_conn_pos_idx
device_lists_changes_in_room_unconverted_idx`
)

func TestAFreshSchemaWaitsForItsBackgroundUpdates(t *testing.T) {
	s := begin(t)
	for _, name := range strings.Fields(queued) {
		s.exec(`INSERT INTO background_updates (update_name, progress_json) VALUES ($1, '{}')`, name)
	}
	for _, name := range strings.Fields(leftToUpdates) {
		s.exec("DROP INDEX " + name)
	}
	for table, constraint := range map[string]string{
		"profiles": "full_user_id_not_null", "user_filters": "full_user_id_not_null", "event_push_actions": "event_push_actions_thread_id",
		"event_push_actions_staging": "event_push_actions_staging_thread_id", "event_push_summary": "event_push_summary_thread_id",
		"event_forward_extremities": "event_forward_extremities_event_id",
	} {
		of := s.want.Tables[table].Constraints
		def := of[slices.IndexFunc(of, func(k Constraint) bool { return k.Name == constraint })].Def
		s.exec(fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s, ADD CONSTRAINT %[2]s %s NOT VALID", table, constraint, def))
	}
	have, want, err := s.look()
	if err != nil {
		t.Fatal(err)
	}
	losses := compare(have, want)
	for _, l := range losses {
		if !l.waits || l.severity != doctor.Info {
			t.Errorf("%s %s", l.code, l.object.Name)
		}
	}
	if one := told(losses, want); len(losses) != 36 || len(one) != 1 || one[0].code != BeingBuilt {
		t.Errorf("%d: %+v", len(losses), one)
	}
}
