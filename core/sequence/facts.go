package sequence

import "strings"

// Known is a sequence that Synapse makes, in any release from 1.0 to 1.160, and what its numbers are for.
// Only the serial and identity ones are tied to a table in PostgreSQL's catalog; for the others this is the only record.
type Known struct {
	Name  string
	Kind  Kind
	Store string // the data store whose database holds it: main or state
	Since string // the schema delta that made it, and the release

	// Feeds are the columns that hold its numbers. Where Down is set they hold them negated: -1, -2, …
	Feeds []Column
	Down  bool
	// Localparts: its numbers become user names, @123:server, and no column.
	Localparts bool
	// Stream is its name in stream_positions, where each writer records the last number that it has dealt with.
	// A sequence with a stream must be called: a writer takes last_value for its position, whatever is_called says.
	Stream string
	// Readers are the positions up to which somebody has read the stream.
	Readers []Column
	// Unguarded: Synapse does not compare it with its tables when it starts.
	Unguarded bool
}

// Kind is how a sequence was made.
type Kind string

const (
	Plain    Kind = "plain"    // made by CREATE SEQUENCE, tied to nothing
	Serial   Kind = "serial"   // owned by the column, which draws from it by default
	Identity Kind = "identity" // GENERATED ALWAYS AS IDENTITY
)

// Column holds numbers of a sequence; Where limits it to some rows.
type Column struct{ Table, Column, Where string }

// String is table.column.
func (c Column) String() string { return c.Table + "." + c.Column }

func columns(names ...string) []Column {
	list := make([]Column, len(names))
	for i, name := range names {
		list[i].Table, list[i].Column, _ = strings.Cut(name, ".")
	}
	return list
}

// Converted is a reader of device_lists_stream that Synapse compares with the sequence as if it were one of its tables.
var Converted = Column{Table: "device_lists_changes_converted_stream_position", Column: "stream_id"}

var eventReaders = append(columns(
	"appservice_stream_position.stream_ordering",
	"user_directory_stream_pos.stream_id",
	"stats_incremental_position.stream_id",
	"room_forgetter_stream_pos.stream_id",
	"delayed_events_stream_pos.stream_id",
	"event_push_summary_stream_ordering.stream_ordering",
), Column{Table: "federation_stream_position", Column: "stream_id", Where: "type = 'events'"})

// All holds every sequence. A table or a sequence that a schema is too old to have is simply not looked at.
var All = []Known{
	{Name: "state_group_id_seq", Kind: Plain, Store: "state", Since: "≤ 1.0",
		Feeds: columns("state_groups.id")},
	{Name: "state_groups_pending_deletion_sequence_number_seq", Kind: Identity, Store: "state", Since: "89/01, 1.124", Unguarded: true,
		Feeds: columns("state_groups_pending_deletion.sequence_number")},

	{Name: "user_id_seq", Kind: Plain, Store: "main", Since: "58/11, 1.18", Unguarded: true, Localparts: true},
	{Name: "event_auth_chain_id", Kind: Plain, Store: "main", Since: "59/04, 1.26",
		Feeds: columns("event_auth_chains.chain_id")},
	{Name: "application_services_txn_id_seq", Kind: Plain, Store: "main", Since: "69/01, 1.57",
		Feeds: columns("application_services_txns.txn_id")},
	{Name: "instance_map_instance_id_seq", Kind: Serial, Store: "main", Since: "58/19, 1.22", Unguarded: true,
		Feeds: columns("instance_map.instance_id")},
	{Name: "sliding_sync_connections_connection_key_seq", Kind: Identity, Store: "main", Since: "87/02, 1.114", Unguarded: true,
		Feeds: columns("sliding_sync_connections.connection_key")},
	{Name: "sliding_sync_connection_positions_connection_position_seq", Kind: Identity, Store: "main", Since: "87/02, 1.114", Unguarded: true,
		Feeds: columns("sliding_sync_connection_positions.connection_position")},
	{Name: "sliding_sync_connection_required_state_required_state_id_seq", Kind: Identity, Store: "main", Since: "87/02, 1.114", Unguarded: true,
		Feeds: columns("sliding_sync_connection_required_state.required_state_id")},

	{Name: "events_stream_seq", Kind: Plain, Store: "main", Since: "58/14, 1.21", Stream: "events",
		Feeds:   columns("events.stream_ordering", "current_state_delta_stream.stream_id", "ex_outlier_stream.event_stream_ordering"),
		Readers: eventReaders},
	{Name: "events_backfill_stream_seq", Kind: Plain, Store: "main", Since: "58/14, 1.21", Stream: "backfill", Down: true,
		Feeds: columns("events.stream_ordering", "ex_outlier_stream.event_stream_ordering")},
	{Name: "cache_invalidation_stream_seq", Kind: Plain, Store: "main", Since: "58/05, 1.14", Stream: "caches",
		Feeds: columns("cache_invalidation_stream_by_instance.stream_id")},
	{Name: "device_inbox_sequence", Kind: Plain, Store: "main", Since: "59/03, 1.26", Stream: "to_device",
		Feeds: columns("device_inbox.stream_id", "device_federation_outbox.stream_id")},
	{Name: "account_data_sequence", Kind: Plain, Store: "main", Since: "59/06, 1.26", Stream: "account_data",
		Feeds: columns("room_account_data.stream_id", "room_tags_revisions.stream_id", "account_data.stream_id")},
	{Name: "receipts_sequence", Kind: Plain, Store: "main", Since: "59/06, 1.26", Stream: "receipts",
		Feeds:   columns("receipts_linearized.stream_id"),
		Readers: columns("event_push_summary_last_receipt_stream_id.stream_id")},
	{Name: "presence_stream_sequence", Kind: Plain, Store: "main", Since: "59/12, 1.33", Stream: "presence_stream",
		Feeds: columns("presence_stream.stream_id")},
	{Name: "un_partial_stated_room_stream_sequence", Kind: Plain, Store: "main", Since: "73/21, 1.74", Stream: "un_partial_stated_room_stream",
		Feeds: columns("un_partial_stated_room_stream.stream_id")},
	{Name: "un_partial_stated_event_stream_sequence", Kind: Plain, Store: "main", Since: "73/23, 1.75", Stream: "un_partial_stated_event_stream",
		Feeds: columns("un_partial_stated_event_stream.stream_id")},
	{Name: "device_lists_sequence", Kind: Plain, Store: "main", Since: "85/03, 1.109", Stream: "device_lists_stream",
		Feeds: columns("device_lists_stream.stream_id", "user_signature_stream.stream_id", "device_lists_outbound_pokes.stream_id",
			"device_lists_changes_in_room.stream_id", "device_lists_remote_pending.stream_id"),
		Readers: append(columns("device_lists_changes_in_room_max_pruned_stream_id.stream_id"), Converted)},
	{Name: "e2e_cross_signing_keys_sequence", Kind: Plain, Store: "main", Since: "85/03, 1.109", Stream: "e2e_cross_signing_keys",
		Feeds: columns("e2e_cross_signing_keys.stream_id")},
	{Name: "push_rules_stream_sequence", Kind: Plain, Store: "main", Since: "85/03, 1.109", Stream: "push_rules_stream",
		Feeds: columns("push_rules_stream.stream_id")},
	{Name: "pushers_sequence", Kind: Plain, Store: "main", Since: "85/03, 1.109", Stream: "pushers",
		Feeds: columns("pushers.id", "deleted_pushers.stream_id")},
	{Name: "thread_subscriptions_sequence", Kind: Plain, Store: "main", Since: "92/04, 1.135", Stream: "thread_subscriptions",
		Feeds: columns("thread_subscriptions.stream_id")},
	{Name: "sticky_events_sequence", Kind: Plain, Store: "main", Since: "93/01, 1.148", Stream: "sticky_events",
		Feeds: columns("sticky_events.stream_id")},
	{Name: "quarantined_media_id_seq", Kind: Plain, Store: "main", Since: "94/03, 1.152", Stream: "quarantined_media",
		Feeds: columns("quarantined_media_changes.stream_id")},
	{Name: "profile_updates_sequence", Kind: Plain, Store: "main", Since: "94/07, 1.160", Stream: "profile_updates",
		Feeds: columns("profile_updates.stream_id")},
}
