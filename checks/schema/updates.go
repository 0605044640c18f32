package schema

import "strings"

// builds says which background update makes an index, or validates a constraint, by the name that it has then (seen in Synapse
// 1.160, which still knows those of its forerunners). An update whose name is that of what it makes need not be here.
var builds = map[string]string{
	"access_tokens_device_id":                                         "access_tokens_device_index",
	"presence_stream_state_not_offline_idx":                           "presence_stream_not_offline_index",
	"room_account_data_room_id":                                       "room_account_data_index_room_id",
	"e2e_cross_signing_keys_stream_idx":                               "e2e_cross_signing_keys_idx",
	"e2e_one_time_keys_json_user_id_device_id_algorithm_ts_added_idx": "add_otk_ts_added_index",
	"received_ts_idx":                                                 "events_received_ts_index",
	"receipts_linearized_event_id":                                    "receipts_room_id_event_id_index",
	"current_state_delta_stream_room_idx":                             "current_state_delta_stream_room_index",
	"device_lists_stream_user_id":                                     "device_lists_stream_idx",
	"device_lists_remote_cache_unique_id":                             "device_lists_remote_cache_unique_idx",
	"device_lists_changes_in_room_by_room_idx":                        "device_lists_changes_in_room_by_room_index",
	"local_media_repository_thumbn_media_id_width_height_method_key":  "local_media_repository_thumbnails_method_idx",
	"remote_media_repository_thumbn_media_origin_id_width_height_met": "remote_media_repository_thumbnails_method_idx",
	"local_media_repository_sha256":                                   "local_media_repository_sha256_idx",
	"remote_media_cache_sha256":                                       "remote_media_cache_sha256_idx",
	"full_users_unique_idx":                                           "full_users_filters_unique_idx",
	"profiles_full_user_id_key":                                       "profiles_full_user_id_key_idx",
	"current_state_events_member_index":                               "current_state_members_idx",
	"room_memberships_user_room_forgotten":                            "room_membership_forgotten_idx",
	"room_membership_user_room_idx":                                   "room_membership_user_room_index",
	"user_ips_device_id":                                              "user_ips_device_index",
	"user_ips_last_seen":                                              "user_ips_last_seen_index",
	"user_ips_last_seen_only":                                         "user_ips_last_seen_only_index",
	"user_ips_user_token_ip_unique_index":                             "user_ips_device_unique_index",
	"cache_invalidation_stream_by_instance_instance_index":            "cache_invalidation_index_by_instance",
	"event_push_actions_u_highlight":                                  "epa_highlight_index",
	"device_inbox_stream_id_user_id":                                  "device_inbox_stream_index",
	"e2e_room_keys_room_id":                                           "e2e_room_keys_index_room_id",
	"redactions_have_censored_ts":                                     "redactions_have_censored_ts_idx",
	"event_edges_event_id_prev_event_id_idx":                          "event_edges_replace_index",
	"events_jump_to_date_idx":                                         "events_jump_to_date_index",
	"events_stream_ordering":                                          "index_stream_ordering2",
	"event_contains_url_index":                                        "index_stream_ordering2_contains_url",
	"events_order_room":                                               "index_stream_ordering2_room_order",
	"events_room_stream":                                              "index_stream_ordering2_room_stream",
	"events_ts":                                                       "index_stream_ordering2_ts",
	"event_search_fts_idx":                                            "event_search_postgres_gin",
	"state_groups_state_type_idx":                                     "state_group_state_type_index",

	"event_forward_extremities_event_id": "event_forward_extremities_event_id_foreign_key_constraint_update",
	// Two tables have a constraint of this name, so the table is named too.
	"profiles.full_user_id_not_null":     "populate_full_user_id_profiles",
	"user_filters.full_user_id_not_null": "populate_full_user_id_user_filters",
	// A column of four bytes, until then.
	"events.stream_ordering": "replace_stream_ordering_column",
}

// buildsOf is the queued update that makes an index, or validates a constraint; empty when none is.
func buildsOf(queue []update, table, name string) string {
	for _, u := range queue {
		if u.Name == name || u.Name == builds[name] || u.Name == builds[table+"."+name] {
			return u.Name
		}
	}
	return ""
}

// Of the tables that Synapse and its programs make beside the schema: the port script's record, and those with which the user
// directory is made anew.
const (
	portTable  = "port_from_sqlite3"
	tempPrefix = "_temp_populate_"
)

// Passing reports whether a table is one that Synapse, or one of its programs, makes beside the schema for a while.
func Passing(table string) bool { return table == portTable || strings.HasPrefix(table, tempPrefix) }

// formerTables are tables of former releases that upgrades have left where they were.
var formerTables = map[string]bool{}

// formerIndexes are indexes of former releases that upgrades have left where they were, or that a background update drops when
// it has built the new one.
var formerIndexes = map[string]bool{
	"event_txn_id_device_id_txn_id":             true,
	"redactions_censored_redacts":               true, // event_fix_redactions_bytes drops it
	"sliding_sync_membership_snapshots_user_id": true,
}
