package upkeep

import (
	"fmt"
)

// stateTable is nearly always the largest, as long as nobody compresses it.
const stateTable = "state_groups_state"

// guidance is what to do about a table of Synapse's that swells: the tool that does it well, and what can go wrong.
type guidance struct {
	holds   string // what is in it
	remedy  string
	history bool // the rooms' history itself: it is as large as it is, and only growth is remarkable
}

func (g guidance) text(e *examination) string {
	text := g.remedy
	if g.history {
		text = purge
	}
	if g.holds != "" && e.db.Label != "main" {
		return text + fmt.Sprintf("\n\nIt is in the database of the entry %q.", e.db.Label)
	}
	return text
}

const givenBack = "What is freed is used again, but the disk gets it back only by VACUUM FULL, which needs as much free disk as the table will take and keeps Synapse from it meanwhile."

const purge = "Rooms that nobody is in can be deleted, and old history be purged, with Synapse's admin API (MILLISECONDS is a time since 1970):\n\n" +
	"    curl -X DELETE -H \"Authorization: Bearer TOKEN\" -d '{\"purge\": true}' https://SERVER/_synapse/admin/v2/rooms/ROOM_ID\n\n" +
	"    curl -X POST -H \"Authorization: Bearer TOKEN\" -d '{\"delete_local_events\": false, \"purge_up_to_ts\": MILLISECONDS}' " +
	"https://SERVER/_synapse/admin/v1/purge_history/ROOM_ID\n\n" +
	"Neither can be undone: with delete_local_events true, messages of your own users that no other server has are gone for ever; have a backup, and begin with one room. " + givenBack

// advice is by the name of the table.
var advice = map[string]guidance{
	stateTable: {
		holds: "the state of rooms at each point of their history, much of it many times over",
		remedy: "Compress it with the state compressor of the Matrix project (rust-synapse-compress-state), which Synapse need not be stopped for:\n\n" +
			"    synapse_auto_compressor -p \"postgresql://USER:PASSWORD@HOST/DATABASE\" -c 500 -n 100\n\n" +
			"Have a backup first. Let only one compressor run at a time. It stops with \"Missing N\" where a state group is built on one that is not there: " +
			"look for that before (synapse-doctor check upkeep --deep). State groups that no event needs are removed by Synapse itself since release 1.128; " +
			"a tool that deletes them while Synapse runs can destroy rooms. " + givenBack,
	},
	"state_groups":      {history: true},
	"state_group_edges": {history: true},
	"device_lists_changes_in_room": {
		holds: "which users' devices have changed, for each room that they are in",
		remedy: "Never delete rows from it by hand: users could no longer decrypt each other's messages. Current releases of Synapse remove rows after " +
			"30 days by themselves, in the process that runs background tasks; see that this one runs (run_background_tasks_on), and that upkeep/pruner-late is not " +
			"reported. Older releases never do: update Synapse. " + givenBack,
	},
	"event_push_actions": {
		holds: "notifications that have not been read",
		remedy: "Synapse sums it up and removes what is read in a background task every few hours; see that the process for background tasks runs " +
			"(run_background_tasks_on) and look for \"event_push\" in its log. There is no tool that shrinks it safely. " + givenBack,
	},
	"event_push_summary": {history: true},
	"e2e_room_keys": {
		holds: "users' backups of the keys to their encrypted messages",
		remedy: "It is the users' own data: what is deleted makes their history unreadable on new devices. It only gets smaller when users delete old versions of their " +
			"backup, or are erased. Plan for it to grow.",
	},
	"device_inbox": {
		holds: "messages to devices that have not fetched them",
		remedy: "Much of it waits for devices that are never used again. Synapse logs them out, and removes what waits for them, when it is told to in homeserver.yaml:\n\n" +
			"    delete_stale_devices_after: 1y\n\nor one by one with the admin API:\n\n" +
			"    curl -X DELETE -H \"Authorization: Bearer TOKEN\" https://SERVER/_synapse/admin/v2/users/USER_ID/devices/DEVICE_ID\n\n" +
			"These devices have to log in again, and lose keys that they have not backed up. Never delete rows by hand. " + givenBack,
	},
	"device_federation_outbox": {
		holds: "messages to devices on servers that can't be reached",
		remedy: "Much of it waits for servers that are gone for good. Current releases of Synapse clean it up in a background update; update Synapse and let its background " +
			"updates finish. There is no tool that shrinks it safely: rows for servers that come back carry keys for messages. " + givenBack,
	},
	"device_federation_inbox": {
		holds: "which messages to devices have already been received from other servers",
		remedy: "It keeps messages that are sent twice from being delivered twice, and some releases of Synapse never shorten it. There is no tool for it; update Synapse, " +
			"and plan for it to grow. " + givenBack,
	},
	"device_lists_outbound_pokes": {
		holds: "device list changes that other servers have not been told yet",
		remedy: "Synapse shortens what waits for servers that can't be reached after a day, in the process that runs background tasks; see that this one runs " +
			"(run_background_tasks_on). Never delete rows by hand: users on other servers could no longer decrypt messages. " + givenBack,
	},
	"stream_ordering_to_exterm": {
		holds:  "which events were the last ones in their rooms, for the recent past",
		remedy: "Synapse removes what is old by itself, in the process that runs background tasks; see that this one runs (run_background_tasks_on). " + givenBack,
	},
	"presence_stream": {
		holds: "who is online",
		remedy: "It should have about one row for each user. If it has many more, a backup may have been restored into it twice. Presence can be turned off in homeserver.yaml, " +
			"which also saves much work:\n\n    presence:\n      enabled: false",
	},
	"cache_invalidation_stream_by_instance": {
		holds: "what workers have told each other to forget",
		remedy: "Synapse removes rows after 7 days by itself, in the process that runs background tasks; see that this one runs (run_background_tasks_on), and that " +
			"upkeep/pruner-late is not reported. " + givenBack,
	},
	"events":                {history: true},
	"event_json":            {history: true},
	"event_edges":           {history: true},
	"event_auth":            {history: true},
	"event_search":          {history: true},
	"event_relations":       {history: true},
	"room_memberships":      {history: true},
	"event_to_state_groups": {history: true},
}
