package synapse

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// Keep says which of several rows with the same unique key stays, where an index that had lost its order let the key in
// again. Rows that are equal in every column are one row in any case.
type Keep int

const (
	// KeepAll: nobody but the administrator can tell. What is in the rows can't be had again.
	KeepAll Keep = iota
	// KeepAny: Synapse makes the row anew, fetches it again, or needs it only for a moment.
	KeepAny
	// KeepGreatest and KeepLeast: the one with the greatest or the least By is the newest. Where that is not one alone, it is
	// as with KeepAll.
	KeepGreatest
	KeepLeast
)

// DuplicateRule is what is to be done about rows of a table that share the key of a unique index.
type DuplicateRule struct {
	Keep Keep
	By   string // SQL over the row t; empty unless Keep asks for it
}

// DuplicateRuleOf is the rule for a unique index of a table in this schema, by the index's columns in their order. A table or index
// that Synapse up to 1.160 does not have keeps all.
func DuplicateRuleOf(schema, table string, columns []string) DuplicateRule {
	rule := duplicateRules[table+" ("+strings.Join(columns, ", ")+")"]
	rule.By = strings.ReplaceAll(rule.By, "SCHEMA.", pgx.Identifier{schema}.Sanitize()+".")
	return rule
}

// KnowsUniqueIndex reports whether a unique index over text is one of Synapse's up to 1.160.
func KnowsUniqueIndex(table string, columns []string) bool {
	_, known := duplicateRules[table+" ("+strings.Join(columns, ", ")+")"]
	return known
}

// linearized: receipts are kept in two tables, and in receipts_graph no number tells which is newer. The newer row is the
// one whose event receipts_linearized has, too.
const linearized = `(SELECT max(l.stream_id) FROM SCHEMA.receipts_linearized l
    WHERE l.room_id = t.room_id AND l.receipt_type = t.receipt_type AND l.user_id = t.user_id
      AND l.thread_id IS NOT DISTINCT FROM t.thread_id AND strpos(t.event_ids, to_json(l.event_id)::text) > 0)`

// duplicateRules are by table and key columns, as the schema of Synapse 1.160 has them.
var duplicateRules = map[string]DuplicateRule{
	// Regenerable or transient.
	"applied_module_schemas (module_name, file)":                   {Keep: KeepAny},
	"appservice_room_list (appservice_id, network_id, room_id)":    {Keep: KeepAny},
	"background_updates (update_name)":                             {Keep: KeepAny},
	"destination_rooms (destination, room_id)":                     {Keep: KeepAny},
	"destinations (destination)":                                   {Keep: KeepAny},
	"device_lists_outbound_last_success (destination, user_id)":    {Keep: KeepAny},
	"device_lists_remote_cache (user_id, device_id)":               {Keep: KeepAny},
	"device_lists_remote_extremeties (user_id)":                    {Keep: KeepAny},
	"device_lists_remote_pending (user_id, device_id)":             {Keep: KeepAny},
	"device_lists_remote_resync (user_id)":                         {Keep: KeepAny},
	"event_auth_chain_to_calculate (event_id)":                     {Keep: KeepAny},
	"event_expiry (event_id)":                                      {Keep: KeepAny},
	"event_failed_pull_attempts (room_id, event_id)":               {Keep: KeepAny},
	"event_labels (event_id, label)":                               {Keep: KeepAny},
	"event_push_actions (room_id, event_id, user_id, profile_tag)": {Keep: KeepAny},
	"event_push_summary (user_id, room_id, thread_id)":             {Keep: KeepAny},
	"event_relations (event_id)":                                   {Keep: KeepAny},
	"event_search (event_id)":                                      {Keep: KeepAny},
	"event_txn_id_device_id (event_id)":                            {Keep: KeepAny},
	"event_txn_id_device_id (user_id, device_id, room_id, txn_id)": {Keep: KeepAny},
	"federation_inbound_events_staging (origin, event_id)":         {Keep: KeepAny},
	"instance_map (instance_name)":                                 {Keep: KeepAny},
	"local_media_repository_thumbnails (media_id, thumbnail_width, thumbnail_height, thumbnail_type, thumbnail_method)": {Keep: KeepAny},
	"login_tokens (token)":                               {Keep: KeepAny},
	"monthly_active_users (user_id)":                     {Keep: KeepAny},
	"open_id_tokens (token)":                             {Keep: KeepAny},
	"partial_state_rooms_servers (room_id, server_name)": {Keep: KeepAny},
	"pusher_throttle (pusher, room_id)":                  {Keep: KeepAny},
	"received_transactions (transaction_id, origin)":     {Keep: KeepAny},
	"remote_media_cache_thumbnails (media_origin, media_id, thumbnail_width, thumbnail_height, thumbnail_type, thumbnail_method)": {Keep: KeepAny},
	"room_ban_redactions (room_id, user_id)":                                  {Keep: KeepAny},
	"room_stats_current (room_id)":                                            {Keep: KeepAny},
	"room_stats_earliest_token (room_id)":                                     {Keep: KeepAny},
	"room_stats_state (room_id)":                                              {Keep: KeepAny},
	"scheduled_tasks (id)":                                                    {Keep: KeepAny},
	"server_keys_json (server_name, key_id, from_server)":                     {Keep: KeepAny},
	"server_signature_keys (server_name, key_id)":                             {Keep: KeepAny},
	"sessions (session_type, session_id)":                                     {Keep: KeepAny},
	"sliding_sync_connection_lazy_members (connection_key, room_id, user_id)": {Keep: KeepAny},
	"sliding_sync_connection_room_configs (connection_position, room_id)":     {Keep: KeepAny},
	"sliding_sync_connection_streams (connection_position, room_id, stream)":  {Keep: KeepAny},
	"sliding_sync_joined_rooms (room_id)":                                     {Keep: KeepAny},
	"sliding_sync_joined_rooms_to_recalculate (room_id)":                      {Keep: KeepAny},
	"sliding_sync_membership_snapshots (room_id, user_id)":                    {Keep: KeepAny},
	"state_groups_persisting (state_group, instance_name)":                    {Keep: KeepAny},
	"threads (room_id, thread_id)":                                            {Keep: KeepAny},
	"threepid_validation_session (session_id)":                                {Keep: KeepAny},
	"threepid_validation_token (token)":                                       {Keep: KeepAny},
	"ui_auth_sessions (session_id)":                                           {Keep: KeepAny},
	"ui_auth_sessions_credentials (session_id, stage_type)":                   {Keep: KeepAny},
	"ui_auth_sessions_ips (session_id, ip, user_agent)":                       {Keep: KeepAny},
	"un_partial_stated_event_stream (event_id)":                               {Keep: KeepAny},
	"user_directory (user_id)":                                                {Keep: KeepAny},
	"user_directory_search (user_id)":                                         {Keep: KeepAny},
	"user_directory_stale_remote_users (user_id)":                             {Keep: KeepAny},
	"user_ips (user_id, access_token, ip)":                                    {Keep: KeepAny},
	"user_stats_current (user_id)":                                            {Keep: KeepAny},
	"users_in_public_rooms (user_id, room_id)":                                {Keep: KeepAny},
	"users_to_send_full_presence_to (user_id)":                                {Keep: KeepAny},
	"users_who_share_private_rooms (user_id, other_user_id, room_id)":         {Keep: KeepAny},
	"worker_locks (lock_name, lock_key)":                                      {Keep: KeepAny},
	"worker_read_write_locks (lock_name, lock_key, token)":                    {Keep: KeepAny},
	"worker_read_write_locks (lock_name, lock_key)":                           {Keep: KeepAny},
	"worker_read_write_locks_mode (lock_name, lock_key)":                      {Keep: KeepAny},
	"worker_read_write_locks_mode (lock_name, lock_key, write_lock)":          {Keep: KeepAny},

	// With a column that tells the newest. Positions of the stream backfill fall, those of all others rise; min_depth falls as
	// history is fetched.
	"account_data (user_id, account_data_type)":                       {Keep: KeepGreatest, By: "t.stream_id"},
	"devices (user_id, device_id)":                                    {Keep: KeepGreatest, By: "t.last_seen"},
	"e2e_device_keys_json (user_id, device_id)":                       {Keep: KeepGreatest, By: "t.ts_added_ms"},
	"federation_stream_position (type, instance_name)":                {Keep: KeepGreatest, By: "t.stream_id"},
	"pushers (app_id, pushkey, user_name)":                            {Keep: KeepGreatest, By: "t.id"},
	"receipts_graph (room_id, receipt_type, user_id)":                 {Keep: KeepGreatest, By: linearized},
	"receipts_graph (room_id, receipt_type, user_id, thread_id)":      {Keep: KeepGreatest, By: linearized},
	"receipts_linearized (room_id, receipt_type, user_id)":            {Keep: KeepGreatest, By: "t.stream_id"},
	"receipts_linearized (room_id, receipt_type, user_id, thread_id)": {Keep: KeepGreatest, By: "t.stream_id"},
	"remote_media_cache (media_origin, media_id)":                     {Keep: KeepGreatest, By: "t.last_access_ts"},
	"room_account_data (user_id, room_id, account_data_type)":         {Keep: KeepGreatest, By: "t.stream_id"},
	"room_depth (room_id)":                                            {Keep: KeepLeast, By: "t.min_depth"},
	"room_tags_revisions (user_id, room_id)":                          {Keep: KeepGreatest, By: "t.stream_id"},
	"stream_positions (stream_name, instance_name)":                   {Keep: KeepGreatest, By: "abs(t.stream_id)"},
	"thread_subscriptions (room_id, event_id, user_id)":               {Keep: KeepGreatest, By: "t.stream_id"},

	// Never to be chosen from.
	"access_tokens (token)":                                            {},
	"account_validity (user_id)":                                       {},
	"application_services_state (as_id)":                               {},
	"application_services_txns (as_id, txn_id)":                        {},
	"applied_schema_deltas (version, file)":                            {},
	"blocked_rooms (room_id)":                                          {},
	"current_state_events (event_id)":                                  {},
	"current_state_events (room_id, type, state_key)":                  {},
	"dehydrated_devices (user_id)":                                     {},
	"delayed_events (delay_id)":                                        {},
	"delayed_events (user_localpart, delay_id)":                        {},
	"device_lists_changes_in_room (stream_id, room_id)":                {},
	"e2e_cross_signing_keys (user_id, keytype, stream_id)":             {},
	"e2e_fallback_keys_json (user_id, device_id, algorithm)":           {},
	"e2e_one_time_keys_json (user_id, device_id, algorithm, key_id)":   {},
	"e2e_room_keys (user_id, version, room_id, session_id)":            {},
	"e2e_room_keys_versions (user_id, version)":                        {},
	"erased_users (user_id)":                                           {},
	"event_auth_chains (event_id)":                                     {},
	"event_backward_extremities (event_id, room_id)":                   {},
	"event_edges (event_id, prev_event_id)":                            {},
	"event_forward_extremities (event_id, room_id)":                    {},
	"event_json (event_id)":                                            {},
	"event_to_state_groups (event_id)":                                 {},
	"events (event_id)":                                                {},
	"ignored_users (ignorer_user_id, ignored_user_id)":                 {},
	"local_current_membership (user_id, room_id)":                      {},
	"local_media_repository (media_id)":                                {},
	"msc4242_state_dag_edges (room_id, event_id, prev_state_event_id)": {},
	"msc4242_state_dag_forward_extremities (event_id)":                 {},
	"partial_state_events (event_id)":                                  {},
	"partial_state_rooms (room_id)":                                    {},
	"per_user_experimental_features (user_id, feature)":                {},
	"profile_updates_per_user (user_id, stream_id)":                    {},
	"profiles (full_user_id)":                                          {},
	"profiles (user_id)":                                               {},
	"push_rules (user_name, rule_id)":                                  {},
	"push_rules_enable (user_name, rule_id)":                           {},
	"ratelimit_override (user_id)":                                     {},
	"redactions (event_id)":                                            {},
	"refresh_tokens (token)":                                           {},
	"registration_tokens (token)":                                      {},
	"rejections (event_id)":                                            {},
	"room_aliases (room_alias)":                                        {},
	"room_memberships (event_id)":                                      {},
	"room_retention (room_id, event_id)":                               {},
	"room_tags (user_id, room_id, tag)":                                {},
	"rooms (room_id)":                                                  {},
	"state_events (event_id)":                                          {},
	"threepid_guest_access_tokens (medium, address)":                   {},
	"user_external_ids (auth_provider, external_id)":                   {},
	"user_filters (full_user_id, filter_id)":                           {},
	"user_filters (user_id, filter_id)":                                {},
	"user_threepid_id_server (user_id, medium, address, id_server)":    {},
	"user_threepids (medium, address)":                                 {},
	"users (name)":                                                     {},
}
