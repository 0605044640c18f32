-- A small, sound homeserver: test.example, as Synapse 1.160 (schema 94) would have left it.
-- Only what checks look at: the sequences and every table that they feed, with the columns and indexes that matter to
-- them; positions; the schema's own records; users, rooms, events and their state. Written from facts, not from
-- Synapse's schema files. It is one script without psql commands and it creates everything as whoever runs it.
-- Rows come from generate_series, so every database made from it is the same.

-- The schema's own records -------------------------------------------------------------------------------------------

CREATE TABLE schema_version (lock char(1) NOT NULL DEFAULT 'X' UNIQUE CHECK (lock = 'X'), version int NOT NULL, upgraded bool NOT NULL);
CREATE TABLE schema_compat_version (lock char(1) NOT NULL DEFAULT 'X' UNIQUE CHECK (lock = 'X'), compat_version int NOT NULL);
CREATE TABLE applied_schema_deltas (version int NOT NULL, file text NOT NULL, UNIQUE (version, file));
CREATE TABLE applied_module_schemas (module_name text NOT NULL, file text NOT NULL, UNIQUE (module_name, file));
CREATE TABLE background_updates (update_name text NOT NULL, progress_json text NOT NULL, depends_on text, ordering int NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX background_updates_uniqueness ON background_updates (update_name);

INSERT INTO schema_version (version, upgraded) VALUES (94, true);
INSERT INTO schema_compat_version (compat_version) VALUES (84);
INSERT INTO applied_schema_deltas VALUES (94, '94/03_quarantined_media_changes.sql'), (94, '94/07_profile_updates.sql');

-- Users, rooms, events -----------------------------------------------------------------------------------------------

CREATE SEQUENCE user_id_seq;
CREATE TABLE users (
  name text, password_hash text, creation_ts bigint, admin smallint NOT NULL DEFAULT 0, is_guest smallint NOT NULL DEFAULT 0,
  deactivated smallint NOT NULL DEFAULT 0, shadow_banned bool, approved bool, locked bool NOT NULL DEFAULT false);
CREATE UNIQUE INDEX users_name_key ON users (name);
CREATE TABLE profiles (user_id text NOT NULL UNIQUE, displayname text, avatar_url text, full_user_id text UNIQUE, fields jsonb);
CREATE TABLE rooms (room_id text PRIMARY KEY, is_public bool, creator text, room_version text, has_auth_chain_index bool);

CREATE SEQUENCE events_stream_seq;
CREATE SEQUENCE events_backfill_stream_seq;
CREATE TABLE events (
  topological_ordering bigint NOT NULL, event_id text NOT NULL, type text NOT NULL, room_id text NOT NULL,
  processed bool NOT NULL, outlier bool NOT NULL, depth bigint NOT NULL DEFAULT 0, origin_server_ts bigint, received_ts bigint,
  sender text, contains_url bool, instance_name text, stream_ordering bigint, state_key text, rejection_reason text);
CREATE UNIQUE INDEX events_event_id_key ON events (event_id);
CREATE UNIQUE INDEX events_stream_ordering ON events (stream_ordering);
CREATE INDEX events_order_room ON events (room_id, topological_ordering, stream_ordering);
CREATE TABLE event_json (
  event_id text NOT NULL UNIQUE, room_id text NOT NULL, internal_metadata text NOT NULL, json text NOT NULL, format_version int);
CREATE TABLE state_events (event_id text NOT NULL UNIQUE, room_id text NOT NULL, type text NOT NULL, state_key text NOT NULL);
CREATE TABLE room_memberships (
  event_id text NOT NULL UNIQUE, user_id text NOT NULL, sender text NOT NULL, room_id text NOT NULL, membership text NOT NULL,
  forgotten int DEFAULT 0, display_name text, event_stream_ordering bigint);
CREATE TABLE current_state_events (
  event_id text NOT NULL UNIQUE, room_id text NOT NULL, type text NOT NULL, state_key text NOT NULL, membership text,
  event_stream_ordering bigint, UNIQUE (room_id, type, state_key));
CREATE TABLE event_forward_extremities (event_id text NOT NULL, room_id text NOT NULL, UNIQUE (event_id, room_id));
CREATE TABLE current_state_delta_stream (
  stream_id bigint NOT NULL, room_id text NOT NULL, type text NOT NULL, state_key text NOT NULL, event_id text, prev_event_id text,
  instance_name text);
CREATE INDEX current_state_delta_stream_idx ON current_state_delta_stream (stream_id);
CREATE TABLE ex_outlier_stream (event_stream_ordering bigint PRIMARY KEY, event_id text NOT NULL, state_group bigint NOT NULL, instance_name text);
CREATE SEQUENCE event_auth_chain_id;
CREATE TABLE event_auth_chains (event_id text PRIMARY KEY, chain_id bigint NOT NULL, sequence_number bigint NOT NULL);
CREATE UNIQUE INDEX event_auth_chains_c_seq_index ON event_auth_chains (chain_id, sequence_number);

-- 30 users with names and 24 with the numbers that guests get.
INSERT INTO users (name, creation_ts, is_guest)
  SELECT format('@user%s:test.example', i), 1700000000 + i, 0 FROM generate_series(1, 30) i UNION ALL
  SELECT format('@%s:test.example', i), 1700001000 + i, 1 FROM generate_series(1, 24) i;
UPDATE users SET admin = 1 WHERE name = '@user1:test.example';
INSERT INTO profiles (user_id, displayname, full_user_id)
  SELECT split_part(substr(name, 2), ':', 1), 'User ' || creation_ts % 1000, name FROM users;
INSERT INTO rooms SELECT format('!room%s:test.example', i), i % 4 = 0, '@user1:test.example', '10', true FROM generate_series(1, 12) i;

-- 480 events as they were sent (2 to 481) and 60 that were fetched from the past (-2 to -61). The first five of each
-- room are state: its creation and four members.
INSERT INTO events (topological_ordering, event_id, type, room_id, processed, outlier, depth, origin_server_ts, received_ts, sender,
    contains_url, instance_name, stream_ordering, state_key)
  SELECT n, format('$event%s', o), CASE WHEN n = 1 THEN 'm.room.create' WHEN n <= 5 THEN 'm.room.member' ELSE 'm.room.message' END,
    format('!room%s:test.example', room), true, false, n, 1700000000000 + o, 1700000000000 + o, format('@user%s:test.example', 1 + n % 4),
    false, CASE WHEN room % 2 = 0 THEN 'persister1' ELSE 'master' END, o,
    CASE WHEN n = 1 THEN '' WHEN n <= 5 THEN format('@user%s:test.example', 1 + n % 4) END
  FROM (SELECT o, 1 + (o - 2) % 12 AS room, 1 + (o - 2) / 12 AS n FROM generate_series(2, 481) o) e;
INSERT INTO events (topological_ordering, event_id, type, room_id, processed, outlier, depth, origin_server_ts, received_ts, sender,
    contains_url, instance_name, stream_ordering)
  SELECT 1, format('$past%s', o), 'm.room.message', '!room1:test.example', true, false, 1, 1600000000000 - o, 1700000000000,
    '@friend:elsewhere.example', false, 'master', -o
  FROM generate_series(2, 61) o;
INSERT INTO event_json
  SELECT event_id, room_id, '{}', json_build_object('type', type, 'room_id', room_id, 'sender', sender)::text, 3 FROM events;
INSERT INTO state_events SELECT event_id, room_id, type, state_key FROM events WHERE state_key IS NOT NULL;
INSERT INTO room_memberships (event_id, user_id, sender, room_id, membership, event_stream_ordering)
  SELECT event_id, state_key, sender, room_id, 'join', stream_ordering FROM events WHERE type = 'm.room.member';
INSERT INTO current_state_events
  SELECT event_id, room_id, type, state_key, CASE type WHEN 'm.room.member' THEN 'join' END, stream_ordering FROM events
  WHERE state_key IS NOT NULL;
INSERT INTO event_forward_extremities
  SELECT DISTINCT ON (room_id) event_id, room_id FROM events WHERE stream_ordering > 0 ORDER BY room_id, stream_ordering DESC;
INSERT INTO current_state_delta_stream
  SELECT stream_ordering, room_id, type, state_key, event_id, NULL, instance_name FROM events WHERE state_key IS NOT NULL;
INSERT INTO ex_outlier_stream SELECT i, format('$outlier%s', i), 1, 'master' FROM generate_series(470, 475) i;
INSERT INTO ex_outlier_stream SELECT -i, format('$pastoutlier%s', i), 1, 'master' FROM generate_series(50, 55) i;
INSERT INTO event_auth_chains SELECT event_id, 1 + row_number() OVER (ORDER BY stream_ordering) / 3, row_number() OVER () FROM state_events JOIN events USING (event_id);

-- State groups: in a split configuration, all that the state database holds ------------------------------------------

CREATE SEQUENCE state_group_id_seq;
CREATE TABLE state_groups (id bigint PRIMARY KEY, room_id text NOT NULL, event_id text NOT NULL);
CREATE TABLE state_group_edges (state_group bigint NOT NULL, prev_state_group bigint NOT NULL, UNIQUE (state_group, prev_state_group));
CREATE TABLE state_groups_state (state_group bigint NOT NULL, room_id text NOT NULL, type text NOT NULL, state_key text NOT NULL, event_id text NOT NULL);
CREATE INDEX state_groups_state_type_idx ON state_groups_state (state_group, type, state_key);
CREATE TABLE state_groups_pending_deletion (
  sequence_number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, state_group bigint NOT NULL UNIQUE, insertion_ts bigint NOT NULL);
CREATE TABLE event_to_state_groups (event_id text NOT NULL UNIQUE, state_group bigint NOT NULL);

INSERT INTO state_groups SELECT row_number() OVER (ORDER BY stream_ordering), room_id, event_id FROM events WHERE state_key IS NOT NULL;
INSERT INTO state_group_edges SELECT id, id - 12 FROM state_groups WHERE id > 12;
INSERT INTO state_groups_state SELECT id, s.room_id, type, state_key, s.event_id FROM state_groups g JOIN state_events s USING (event_id);
INSERT INTO state_groups_pending_deletion (state_group, insertion_ts) SELECT 1000 + i, 1700000000000 + i FROM generate_series(1, 8) i;
INSERT INTO event_to_state_groups SELECT event_id, id FROM state_groups;

-- The other streams --------------------------------------------------------------------------------------------------

CREATE SEQUENCE cache_invalidation_stream_seq;
CREATE TABLE cache_invalidation_stream_by_instance (
  stream_id bigint NOT NULL, instance_name text NOT NULL, cache_func text NOT NULL, keys text[], invalidation_ts bigint);
CREATE UNIQUE INDEX cache_invalidation_stream_by_instance_id ON cache_invalidation_stream_by_instance (stream_id);
CREATE TABLE instance_map (instance_id serial PRIMARY KEY, instance_name text NOT NULL UNIQUE);

CREATE SEQUENCE device_inbox_sequence;
CREATE TABLE device_inbox (user_id text NOT NULL, device_id text NOT NULL, stream_id bigint NOT NULL, message_json text NOT NULL, instance_name text);
CREATE INDEX device_inbox_stream_id_user_id ON device_inbox (stream_id, user_id);
CREATE TABLE device_federation_outbox (destination text NOT NULL, stream_id bigint NOT NULL, queued_ts bigint NOT NULL, messages_json text NOT NULL, instance_name text);
CREATE INDEX device_federation_outbox_id ON device_federation_outbox (stream_id);

CREATE SEQUENCE account_data_sequence;
CREATE TABLE account_data (user_id text NOT NULL, account_data_type text NOT NULL, stream_id bigint NOT NULL, content text NOT NULL, instance_name text);
CREATE UNIQUE INDEX account_data_uniqueness ON account_data (user_id, account_data_type);
CREATE INDEX account_data_stream_id ON account_data (user_id, stream_id);
CREATE TABLE room_account_data (
  user_id text NOT NULL, room_id text NOT NULL, account_data_type text NOT NULL, stream_id bigint NOT NULL, content text NOT NULL, instance_name text);
CREATE UNIQUE INDEX room_account_data_uniqueness ON room_account_data (user_id, room_id, account_data_type);
CREATE INDEX room_account_data_stream_id ON room_account_data (user_id, stream_id);
CREATE TABLE room_tags_revisions (user_id text NOT NULL, room_id text NOT NULL, stream_id bigint NOT NULL, instance_name text);
CREATE UNIQUE INDEX room_tag_revisions_uniqueness ON room_tags_revisions (user_id, room_id);

CREATE SEQUENCE receipts_sequence;
CREATE TABLE receipts_linearized (
  stream_id bigint NOT NULL, room_id text NOT NULL, receipt_type text NOT NULL, user_id text NOT NULL, event_id text NOT NULL,
  data text NOT NULL, instance_name text, event_stream_ordering bigint, thread_id text);
CREATE INDEX receipts_linearized_id ON receipts_linearized (stream_id);
CREATE UNIQUE INDEX receipts_linearized_unique_index ON receipts_linearized (room_id, receipt_type, user_id) WHERE thread_id IS NULL;

CREATE SEQUENCE presence_stream_sequence;
CREATE TABLE presence_stream (stream_id bigint, user_id text, state text, last_active_ts bigint, instance_name text);
CREATE INDEX presence_stream_id ON presence_stream (stream_id, user_id);

CREATE SEQUENCE application_services_txn_id_seq;
CREATE TABLE application_services_txns (as_id text NOT NULL, txn_id bigint NOT NULL, event_ids text NOT NULL, UNIQUE (as_id, txn_id));

CREATE SEQUENCE un_partial_stated_room_stream_sequence;
CREATE TABLE un_partial_stated_room_stream (stream_id bigint PRIMARY KEY, instance_name text NOT NULL, room_id text NOT NULL);
CREATE SEQUENCE un_partial_stated_event_stream_sequence;
CREATE TABLE un_partial_stated_event_stream (
  stream_id bigint PRIMARY KEY, instance_name text NOT NULL, event_id text NOT NULL UNIQUE, rejection_status_changed bool NOT NULL);

CREATE SEQUENCE device_lists_sequence;
CREATE TABLE device_lists_stream (stream_id bigint NOT NULL, user_id text NOT NULL, device_id text NOT NULL, instance_name text);
CREATE INDEX device_lists_stream_id ON device_lists_stream (stream_id, user_id);
CREATE TABLE user_signature_stream (stream_id bigint NOT NULL UNIQUE, from_user_id text NOT NULL, user_ids text NOT NULL, instance_name text);
CREATE TABLE device_lists_outbound_pokes (
  destination text NOT NULL, stream_id bigint NOT NULL, user_id text NOT NULL, device_id text NOT NULL, sent bool NOT NULL, ts bigint NOT NULL, instance_name text);
CREATE INDEX device_lists_outbound_pokes_stream ON device_lists_outbound_pokes (stream_id);
CREATE TABLE device_lists_changes_in_room (
  user_id text NOT NULL, device_id text NOT NULL, room_id text NOT NULL, stream_id bigint NOT NULL, converted_to_destinations bool NOT NULL, instance_name text);
CREATE UNIQUE INDEX device_lists_changes_in_stream_id ON device_lists_changes_in_room (stream_id, room_id);
CREATE TABLE device_lists_remote_pending (stream_id bigint PRIMARY KEY, user_id text NOT NULL, device_id text NOT NULL, instance_name text, UNIQUE (user_id, device_id));
CREATE TABLE device_lists_changes_converted_stream_position (
  lock char(1) NOT NULL DEFAULT 'X' UNIQUE CHECK (lock = 'X'), stream_id bigint NOT NULL, room_id text NOT NULL, instance_name text);
CREATE SEQUENCE e2e_cross_signing_keys_sequence;
CREATE TABLE e2e_cross_signing_keys (user_id text NOT NULL, keytype text NOT NULL, keydata text NOT NULL, stream_id bigint NOT NULL, instance_name text);
CREATE UNIQUE INDEX e2e_cross_signing_keys_stream_idx ON e2e_cross_signing_keys (stream_id);

CREATE SEQUENCE push_rules_stream_sequence;
CREATE TABLE push_rules_stream (
  stream_id bigint NOT NULL, event_stream_ordering bigint NOT NULL, user_id text NOT NULL, rule_id text NOT NULL, op text NOT NULL, instance_name text);
CREATE INDEX push_rules_stream_id ON push_rules_stream (stream_id);
CREATE SEQUENCE pushers_sequence;
CREATE TABLE pushers (
  id bigint PRIMARY KEY, user_name text NOT NULL, kind text NOT NULL, app_id text NOT NULL, pushkey text NOT NULL, data text, enabled bool, instance_name text,
  UNIQUE (app_id, pushkey, user_name));
CREATE TABLE deleted_pushers (stream_id bigint NOT NULL, app_id text NOT NULL, pushkey text NOT NULL, user_id text NOT NULL, instance_name text);
CREATE INDEX deleted_pushers_stream_id ON deleted_pushers (stream_id);

-- Three streams store bigint numbers in int columns, as Synapse does.
CREATE SEQUENCE thread_subscriptions_sequence START WITH 2;
CREATE TABLE thread_subscriptions (
  stream_id int PRIMARY KEY, instance_name text NOT NULL, room_id text NOT NULL, event_id text NOT NULL, user_id text NOT NULL, subscribed bool NOT NULL, automatic bool NOT NULL,
  UNIQUE (room_id, event_id, user_id));
CREATE SEQUENCE sticky_events_sequence;
CREATE TABLE sticky_events (
  stream_id int PRIMARY KEY, instance_name text NOT NULL, event_id text NOT NULL, room_id text NOT NULL, event_stream_ordering int NOT NULL UNIQUE, sender text NOT NULL, expires_at bigint NOT NULL);
CREATE SEQUENCE quarantined_media_id_seq;
CREATE TABLE quarantined_media_changes (stream_id int PRIMARY KEY, instance_name text NOT NULL, origin text, media_id text NOT NULL, quarantined bool NOT NULL);
CREATE SEQUENCE profile_updates_sequence;
CREATE TABLE profile_updates (
  stream_id bigint PRIMARY KEY, instance_name text NOT NULL, user_id text NOT NULL, action text NOT NULL, affected_fields jsonb, inserted_ts bigint NOT NULL);

CREATE TABLE sliding_sync_connections (
  connection_key bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, user_id text NOT NULL, effective_device_id text NOT NULL, conn_id text NOT NULL, created_ts bigint NOT NULL);
CREATE TABLE sliding_sync_connection_positions (
  connection_position bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  connection_key bigint NOT NULL REFERENCES sliding_sync_connections ON DELETE CASCADE, created_ts bigint NOT NULL);
CREATE TABLE sliding_sync_connection_required_state (
  required_state_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  connection_key bigint NOT NULL REFERENCES sliding_sync_connections ON DELETE CASCADE, required_state text NOT NULL);

INSERT INTO cache_invalidation_stream_by_instance SELECT i, 'master', 'get_user_by_id', ARRAY['@user1:test.example'], 1700000000000 + i FROM generate_series(2, 40) i;
INSERT INTO instance_map (instance_name) VALUES ('master'), ('persister1'), ('federation_sender1');
INSERT INTO device_inbox SELECT format('@user%s:test.example', i % 30 + 1), 'PHONE', i, '{}', 'master' FROM generate_series(2, 60) i;
INSERT INTO device_federation_outbox SELECT 'elsewhere.example', i, 1700000000000, '{}', 'master' FROM generate_series(30, 40) i;
INSERT INTO account_data SELECT format('@user%s:test.example', i), 'm.push_rules', 1 + i, '{}', 'master' FROM generate_series(1, 30) i;
INSERT INTO room_account_data SELECT format('@user%s:test.example', i), '!room1:test.example', 'm.fully_read', 40 + i, '{}', 'master' FROM generate_series(1, 30) i;
INSERT INTO room_tags_revisions SELECT format('@user%s:test.example', i), '!room1:test.example', 75 + i, 'master' FROM generate_series(1, 5) i;
INSERT INTO receipts_linearized (stream_id, room_id, receipt_type, user_id, event_id, data, instance_name)
  SELECT 1 + i, '!room1:test.example', 'm.read', format('@user%s:test.example', i), '$event14', '{}', 'master' FROM generate_series(1, 30) i;
INSERT INTO presence_stream SELECT 1 + i, format('@user%s:test.example', i), 'offline', 1700000000000, 'master' FROM generate_series(1, 30) i;
INSERT INTO application_services_txns SELECT 'bridge' || i % 2, i, '[]' FROM generate_series(1, 9) i;
INSERT INTO un_partial_stated_room_stream SELECT i, 'master', format('!room%s:test.example', i) FROM generate_series(2, 7) i;
INSERT INTO un_partial_stated_event_stream SELECT i, 'master', format('$event%s', i), false FROM generate_series(2, 20) i;
INSERT INTO device_lists_stream SELECT i, format('@user%s:test.example', i % 30 + 1), 'PHONE', 'master' FROM generate_series(2, 45) i;
INSERT INTO user_signature_stream SELECT i, '@user1:test.example', '["@user2:test.example"]', 'master' FROM generate_series(46, 48) i;
INSERT INTO device_lists_outbound_pokes SELECT 'elsewhere.example', i, '@user1:test.example', 'PHONE', true, 1700000000000, 'master' FROM generate_series(40, 44) i;
INSERT INTO device_lists_changes_in_room SELECT '@user1:test.example', 'PHONE', '!room1:test.example', i, true, 'master' FROM generate_series(2, 45) i;
INSERT INTO device_lists_remote_pending SELECT i, '@friend:elsewhere.example', 'DEV' || i, 'master' FROM generate_series(10, 12) i;
INSERT INTO device_lists_changes_converted_stream_position (stream_id, room_id, instance_name) VALUES (45, '', 'master');
INSERT INTO e2e_cross_signing_keys SELECT format('@user%s:test.example', i), 'master', '{}', 1 + i, 'master' FROM generate_series(1, 15) i;
INSERT INTO push_rules_stream SELECT i, 100, '@user1:test.example', 'global/content/word', 'ADD', 'master' FROM generate_series(2, 12) i;
INSERT INTO pushers SELECT i, format('@user%s:test.example', i), 'http', 'app', 'key' || i, '{}', true, 'master' FROM generate_series(2, 10) i;
INSERT INTO deleted_pushers SELECT i, 'app', 'key' || i, '@user20:test.example', 'master' FROM generate_series(11, 14) i;
INSERT INTO thread_subscriptions SELECT i, 'master', '!room1:test.example', format('$event%s', i), '@user1:test.example', true, false FROM generate_series(2, 6) i;
INSERT INTO sticky_events SELECT i, 'master', format('$event%s', i), '!room1:test.example', i, '@user1:test.example', 1700000000000 FROM generate_series(2, 5) i;
INSERT INTO quarantined_media_changes SELECT i, 'master', NULL, 'media' || i, true FROM generate_series(2, 4) i;
INSERT INTO profile_updates SELECT i, 'master', format('@user%s:test.example', i), 'update', '["displayname"]', 1700000000000 FROM generate_series(2, 25) i;
INSERT INTO sliding_sync_connections (user_id, effective_device_id, conn_id, created_ts) SELECT format('@user%s:test.example', i), 'PHONE', 'room-list', 1700000000000 FROM generate_series(1, 10) i;
INSERT INTO sliding_sync_connection_positions (connection_key, created_ts) SELECT 1 + i % 10, 1700000000000 FROM generate_series(1, 20) i;
INSERT INTO sliding_sync_connection_required_state (connection_key, required_state) SELECT 1 + i % 10, '{}' FROM generate_series(1, 12) i;

-- Positions: how far writers have come, and how far consumers have read. Several are past the last row, as they are
-- where rows were deleted or a number was taken for nothing.

CREATE TABLE stream_positions (stream_name text NOT NULL, instance_name text NOT NULL, stream_id bigint NOT NULL);
CREATE UNIQUE INDEX stream_positions_idx ON stream_positions (stream_name, instance_name);
INSERT INTO stream_positions VALUES
  ('events', 'master', 480), ('events', 'persister1', 485), ('backfill', 'master', -61), ('account_data', 'master', 82),
  ('receipts', 'master', 31), ('presence_stream', 'master', 33), ('to_device', 'master', 60), ('device_lists_stream', 'master', 50),
  ('push_rules_stream', 'master', 12), ('pushers', 'master', 14), ('un_partial_stated_room_stream', 'master', 7),
  ('un_partial_stated_event_stream', 'master', 20), ('thread_subscriptions', 'master', 6), ('sticky_events', 'master', 5),
  ('quarantined_media', 'master', 4), ('profile_updates', 'master', 25);

CREATE TABLE appservice_stream_position (lock char(1) NOT NULL DEFAULT 'X' UNIQUE CHECK (lock = 'X'), stream_ordering bigint);
CREATE TABLE federation_stream_position (type text NOT NULL, stream_id bigint NOT NULL, instance_name text NOT NULL DEFAULT 'master', UNIQUE (type, instance_name));
CREATE TABLE user_directory_stream_pos (lock char(1) NOT NULL DEFAULT 'X' UNIQUE CHECK (lock = 'X'), stream_id bigint);
CREATE TABLE stats_incremental_position (lock char(1) NOT NULL DEFAULT 'X' UNIQUE CHECK (lock = 'X'), stream_id bigint NOT NULL);
CREATE TABLE room_forgetter_stream_pos (lock char(1) NOT NULL DEFAULT 'X' UNIQUE CHECK (lock = 'X'), stream_id bigint NOT NULL);
CREATE TABLE delayed_events_stream_pos (lock char(1) NOT NULL DEFAULT 'X' UNIQUE CHECK (lock = 'X'), stream_id bigint NOT NULL);
CREATE TABLE event_push_summary_stream_ordering (lock char(1) NOT NULL DEFAULT 'X' UNIQUE CHECK (lock = 'X'), stream_ordering bigint NOT NULL);
CREATE TABLE event_push_summary_last_receipt_stream_id (lock char(1) NOT NULL DEFAULT 'X' UNIQUE CHECK (lock = 'X'), stream_id bigint NOT NULL);
CREATE TABLE device_lists_changes_in_room_max_pruned_stream_id (lock char(1) NOT NULL DEFAULT 'X' UNIQUE CHECK (lock = 'X'), stream_id bigint NOT NULL);
INSERT INTO appservice_stream_position (stream_ordering) VALUES (481);
INSERT INTO federation_stream_position (type, stream_id) VALUES ('federation', -1), ('events', 481);
INSERT INTO user_directory_stream_pos (stream_id) VALUES (485);
INSERT INTO stats_incremental_position (stream_id) VALUES (485);
INSERT INTO room_forgetter_stream_pos (stream_id) VALUES (485);
INSERT INTO delayed_events_stream_pos (stream_id) VALUES (485);
INSERT INTO event_push_summary_stream_ordering (stream_ordering) VALUES (481);
INSERT INTO event_push_summary_last_receipt_stream_id (stream_id) VALUES (31);
INSERT INTO device_lists_changes_in_room_max_pruned_stream_id (stream_id) VALUES (2);

-- The sequences, each where the greatest of its rows and positions is. Those of identity and serial columns went along.
SELECT setval('user_id_seq', 24), setval('events_stream_seq', 485), setval('events_backfill_stream_seq', 61),
  setval('event_auth_chain_id', (SELECT max(chain_id) FROM event_auth_chains)), setval('state_group_id_seq', (SELECT max(id) FROM state_groups)),
  setval('cache_invalidation_stream_seq', 40), setval('device_inbox_sequence', 60), setval('account_data_sequence', 82),
  setval('receipts_sequence', 31), setval('presence_stream_sequence', 33), setval('application_services_txn_id_seq', 9),
  setval('un_partial_stated_room_stream_sequence', 7), setval('un_partial_stated_event_stream_sequence', 20),
  setval('device_lists_sequence', 50), setval('e2e_cross_signing_keys_sequence', 16), setval('push_rules_stream_sequence', 12),
  setval('pushers_sequence', 14), setval('thread_subscriptions_sequence', 6), setval('sticky_events_sequence', 5),
  setval('quarantined_media_id_seq', 4), setval('profile_updates_sequence', 25);
