package sequence

import "strings"

// A known sequence is one that Synapse makes, in any release from 1.0 to 1.160, and what its numbers are for.
// Only the serial and identity ones are tied to a table in PostgreSQL's catalog; for the others this is the only record.
type known struct {
	name  string
	kind  kind
	store string // the data store whose database holds it: main or state
	since string // the schema delta that made it, and the release

	// feeds are the columns that hold its numbers. Where down is set they hold them negated: -1, -2, …
	feeds []column
	down  bool
	// localparts: its numbers become user names, @123:server, and no column.
	localparts bool
	// stream is its name in stream_positions, where each writer records the last number that it has dealt with.
	// A sequence with a stream must be called: a writer takes last_value for its position, whatever is_called says.
	stream string
	// readers are the positions up to which somebody has read the stream.
	readers []column
	// unguarded: Synapse does not compare it with its tables when it starts.
	unguarded bool
}

type kind string

const (
	plain    kind = "plain"    // made by CREATE SEQUENCE, tied to nothing
	serial   kind = "serial"   // owned by the column, which draws from it by default
	identity kind = "identity" // GENERATED ALWAYS AS IDENTITY
)

// A column holds numbers of a sequence; where limits it to some rows.
type column struct{ table, column, where string }

func (c column) String() string { return c.table + "." + c.column }

func columns(names ...string) []column {
	list := make([]column, len(names))
	for i, name := range names {
		list[i].table, list[i].column, _ = strings.Cut(name, ".")
	}
	return list
}

// converted is a reader of device_lists_stream that Synapse compares with the sequence as if it were one of its tables.
var converted = column{table: "device_lists_changes_converted_stream_position", column: "stream_id"}

var eventReaders = append(columns(
	"appservice_stream_position.stream_ordering",
	"user_directory_stream_pos.stream_id",
	"stats_incremental_position.stream_id",
	"room_forgetter_stream_pos.stream_id",
	"delayed_events_stream_pos.stream_id",
	"event_push_summary_stream_ordering.stream_ordering",
), column{table: "federation_stream_position", column: "stream_id", where: "type = 'events'"})

// all holds every sequence. A table or a sequence that a schema is too old to have is simply not looked at.
var all = []known{
	{name: "state_group_id_seq", kind: plain, store: "state", since: "≤ 1.0",
		feeds: columns("state_groups.id")},
	{name: "state_groups_pending_deletion_sequence_number_seq", kind: identity, store: "state", since: "89/01, 1.124", unguarded: true,
		feeds: columns("state_groups_pending_deletion.sequence_number")},

	{name: "user_id_seq", kind: plain, store: "main", since: "58/11, 1.18", unguarded: true, localparts: true},
	{name: "event_auth_chain_id", kind: plain, store: "main", since: "59/04, 1.26",
		feeds: columns("event_auth_chains.chain_id")},
	{name: "application_services_txn_id_seq", kind: plain, store: "main", since: "69/01, 1.57",
		feeds: columns("application_services_txns.txn_id")},
	{name: "instance_map_instance_id_seq", kind: serial, store: "main", since: "58/19, 1.22", unguarded: true,
		feeds: columns("instance_map.instance_id")},
	{name: "sliding_sync_connections_connection_key_seq", kind: identity, store: "main", since: "87/02, 1.114", unguarded: true,
		feeds: columns("sliding_sync_connections.connection_key")},
	{name: "sliding_sync_connection_positions_connection_position_seq", kind: identity, store: "main", since: "87/02, 1.114", unguarded: true,
		feeds: columns("sliding_sync_connection_positions.connection_position")},
	{name: "sliding_sync_connection_required_state_required_state_id_seq", kind: identity, store: "main", since: "87/02, 1.114", unguarded: true,
		feeds: columns("sliding_sync_connection_required_state.required_state_id")},

	{name: "events_stream_seq", kind: plain, store: "main", since: "58/14, 1.21", stream: "events",
		feeds:   columns("events.stream_ordering", "current_state_delta_stream.stream_id", "ex_outlier_stream.event_stream_ordering"),
		readers: eventReaders},
	{name: "events_backfill_stream_seq", kind: plain, store: "main", since: "58/14, 1.21", stream: "backfill", down: true,
		feeds: columns("events.stream_ordering", "ex_outlier_stream.event_stream_ordering")},
	{name: "cache_invalidation_stream_seq", kind: plain, store: "main", since: "58/05, 1.14", stream: "caches",
		feeds: columns("cache_invalidation_stream_by_instance.stream_id")},
	{name: "device_inbox_sequence", kind: plain, store: "main", since: "59/03, 1.26", stream: "to_device",
		feeds: columns("device_inbox.stream_id", "device_federation_outbox.stream_id")},
	{name: "account_data_sequence", kind: plain, store: "main", since: "59/06, 1.26", stream: "account_data",
		feeds: columns("room_account_data.stream_id", "room_tags_revisions.stream_id", "account_data.stream_id")},
	{name: "receipts_sequence", kind: plain, store: "main", since: "59/06, 1.26", stream: "receipts",
		feeds:   columns("receipts_linearized.stream_id"),
		readers: columns("event_push_summary_last_receipt_stream_id.stream_id")},
	{name: "presence_stream_sequence", kind: plain, store: "main", since: "59/12, 1.33", stream: "presence_stream",
		feeds: columns("presence_stream.stream_id")},
	{name: "un_partial_stated_room_stream_sequence", kind: plain, store: "main", since: "73/21, 1.74", stream: "un_partial_stated_room_stream",
		feeds: columns("un_partial_stated_room_stream.stream_id")},
	{name: "un_partial_stated_event_stream_sequence", kind: plain, store: "main", since: "73/23, 1.75", stream: "un_partial_stated_event_stream",
		feeds: columns("un_partial_stated_event_stream.stream_id")},
	{name: "device_lists_sequence", kind: plain, store: "main", since: "85/03, 1.109", stream: "device_lists_stream",
		feeds: columns("device_lists_stream.stream_id", "user_signature_stream.stream_id", "device_lists_outbound_pokes.stream_id",
			"device_lists_changes_in_room.stream_id", "device_lists_remote_pending.stream_id"),
		readers: append(columns("device_lists_changes_in_room_max_pruned_stream_id.stream_id"), converted)},
	{name: "e2e_cross_signing_keys_sequence", kind: plain, store: "main", since: "85/03, 1.109", stream: "e2e_cross_signing_keys",
		feeds: columns("e2e_cross_signing_keys.stream_id")},
	{name: "push_rules_stream_sequence", kind: plain, store: "main", since: "85/03, 1.109", stream: "push_rules_stream",
		feeds: columns("push_rules_stream.stream_id")},
	{name: "pushers_sequence", kind: plain, store: "main", since: "85/03, 1.109", stream: "pushers",
		feeds: columns("pushers.id", "deleted_pushers.stream_id")},
	{name: "thread_subscriptions_sequence", kind: plain, store: "main", since: "92/04, 1.135", stream: "thread_subscriptions",
		feeds: columns("thread_subscriptions.stream_id")},
	{name: "sticky_events_sequence", kind: plain, store: "main", since: "93/01, 1.148", stream: "sticky_events",
		feeds: columns("sticky_events.stream_id")},
	{name: "quarantined_media_id_seq", kind: plain, store: "main", since: "94/03, 1.152", stream: "quarantined_media",
		feeds: columns("quarantined_media_changes.stream_id")},
	{name: "profile_updates_sequence", kind: plain, store: "main", since: "94/07, 1.160", stream: "profile_updates",
		feeds: columns("profile_updates.stream_id")},
}
