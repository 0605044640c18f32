package upkeep

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// readings are what --deep looks for. The functions that tell say what was found, for an administrator.
func (e *examination) readings() []*reading {
	all := []*reading{
		{
			code: MissingGroups, severity: doctor.Warning, table: "state_group_edges",
			needs: map[string][]string{"state_group_edges": {"state_group", "prev_state_group"}, "state_groups": {"id"}},
			by:    map[string]string{"state_groups": "id"},
			// What is left of a group that was deleted itself hurts nobody.
			faulty: `SELECT r.state_group || ' on ' || r.prev_state_group FROM $ROWS
WHERE NOT EXISTS (SELECT FROM state_groups p WHERE p.id = r.prev_state_group) AND EXISTS (SELECT FROM state_groups g WHERE g.id = r.state_group)`,
			tell: func(f *doctor.Finding, n int64) {
				f.Summary = fmt.Sprintf("%s built on one that is missing: what Synapse takes for the state of a room at these points is incomplete.", plural(int(n), "state group is", "state groups are"))
				f.Observed, f.Expected = fmt.Sprintf("%d rows of state_group_edges lead to no state group", n), "none"
				f.Remedy = "Don't run the state compressor on this database: it stops at these, or makes it worse. If there is a backup from before, compare it: groups that are " +
					"there can be copied back, with their rows of state_groups_state. Otherwise leave the rooms in question and join them again. The groups and their rooms:\n\n" +
					"    SELECT e.state_group, e.prev_state_group, g.room_id FROM state_group_edges e JOIN state_groups g ON g.id = e.state_group\n" +
					"    WHERE NOT EXISTS (SELECT FROM state_groups p WHERE p.id = e.prev_state_group);"
			},
		},
		{
			code: EventsWithoutJSON, severity: doctor.Error, table: "events",
			needs:  map[string][]string{"events": {"event_id"}, "event_json": {"event_id"}},
			by:     map[string]string{"event_json": "event_id"},
			faulty: `SELECT r.event_id FROM $ROWS WHERE NOT EXISTS (SELECT FROM event_json j WHERE j.event_id = r.event_id)`,
			tell: func(f *doctor.Finding, n int64) {
				f.Summary = fmt.Sprintf("%s no content in event_json: Synapse fails wherever it comes upon one, in /sync and over federation.", plural(int(n), "event has", "events have"))
				f.Observed, f.Expected = fmt.Sprintf("%d rows of events without event_json", n), "none"
				f.Remedy = "If the database was ported from SQLite, and the SQLite file is still there, the rows may be in it, and can be copied from there; releases before 1.63 lost some. " +
					"So may a backup have them. What no copy has can't be made again. Have a backup before you change anything. All of them:\n\n" +
					"    SELECT event_id, room_id FROM events e WHERE NOT EXISTS (SELECT FROM event_json j WHERE j.event_id = e.event_id);"
			},
		},
		{
			code: JSONWithoutEvent, severity: doctor.Warning, table: "event_json",
			needs:  map[string][]string{"events": {"event_id"}, "event_json": {"event_id"}},
			by:     map[string]string{"events": "event_id"},
			faulty: `SELECT r.event_id FROM $ROWS WHERE NOT EXISTS (SELECT FROM events e WHERE e.event_id = r.event_id)`,
			tell: func(f *doctor.Finding, n int64) {
				f.Summary = fmt.Sprintf("%s content of events that are not in the table events: they are lost to Synapse.", plural(int(n), "row of event_json holds", "rows of event_json hold"))
				f.Observed, f.Expected = fmt.Sprintf("%d rows of event_json without an event", n), "none"
				f.Remedy = "A few may be what a purge of history left, and only take room. Many point to a copy, or a restore, that lost rows of events: look for a backup that has " +
					"them before you delete anything. All of them:\n\n" +
					"    SELECT event_id, room_id FROM event_json j WHERE NOT EXISTS (SELECT FROM events e WHERE e.event_id = j.event_id);"
			},
		},
	}
	for _, table := range []string{"room_memberships", "local_current_membership", "current_state_events"} {
		all = append(all, moved(table))
	}
	for _, m := range []struct{ table, key, column string }{
		{"event_json", "event_id", "json"}, {"account_data", "user_id", "content"},
		{"room_account_data", "user_id", "content"}, {"pushers", "user_name", "data"},
	} {
		all = append(all, e.mangled(m.table, m.key, m.column))
	}
	return append(all, e.unreferencedGroups())
}

func moved(table string) *reading {
	return &reading{
		code: MembershipMoved, severity: doctor.Warning, table: table,
		needs:  map[string][]string{table: {"event_id", "event_stream_ordering"}, "events": {"event_id", "stream_ordering"}},
		by:     map[string]string{"events": "event_id"},
		faulty: `SELECT r.event_id FROM $ROWS JOIN events e ON e.event_id = r.event_id WHERE r.event_stream_ordering <> e.stream_ordering`,
		tell: func(f *doctor.Finding, n int64) {
			f.Summary = fmt.Sprintf("%s of %s another place in the stream than their events: Synapse shows joins and leaves at the wrong time, or fails to store changes.", plural(int(n), "row", "rows"), table+" name")
			f.Observed, f.Expected = fmt.Sprintf("%d rows with another event_stream_ordering than their event's stream_ordering", n), "the same"
			f.Remedy = "It shows that events were inserted again, by a restore over a database in use or a tool that renumbered them. With Synapse and every worker stopped, and a backup at hand:\n\n" +
				fmt.Sprintf("    UPDATE %s m SET event_stream_ordering = e.stream_ordering\n    FROM events e WHERE e.event_id = m.event_id AND m.event_stream_ordering <> e.stream_ordering;", table)
		},
	}
}

// mangled looks for JSON that is none. From 16 on the server can tell. Before, a text that does not begin and end as an object, or
// has an escape that JSON does not know, certainly is none: bytea written as text (\x7b…), or its octal form (\303). Of the text,
// which may be a private message, no more than the beginning is shown.
func (e *examination) mangled(table, key, column string) *reading {
	bad := fmt.Sprintf(`NOT (r.%s IS JSON)`, column)
	if e.server.Version < 160000 {
		bad = fmt.Sprintf(`(r.%[1]s !~ '^\s*[[{"0-9tfn-]' OR r.%[1]s !~ '[]}"0-9el]\s*$' OR replace(r.%[1]s, '\\', '') ~ '\\[^"/bfnrtu]')`, column)
	}
	return &reading{
		code: MangledJSON, severity: doctor.Error, table: table,
		needs:  map[string][]string{table: {key, column}},
		faulty: fmt.Sprintf(`SELECT r.%s || ': ' || left(r.%s, 4) || '…' FROM $ROWS WHERE %s`, key, column, bad),
		tell: func(f *doctor.Finding, n int64) {
			f.Object = doctor.Object{Kind: "column", Name: table + "." + column}
			f.Summary = fmt.Sprintf("%s of %s.%s no JSON: Synapse fails where it reads them.", plural(int(n), "row", "rows"), table, column+map[bool]string{true: " holds", false: " hold"}[n == 1])
			f.Observed, f.Expected = fmt.Sprintf("%d rows that can't be read as JSON", n), "JSON in each"
			f.Remedy = "A text that begins with \\x is bytes in hexadecimal, as old ports from SQLite left them; it can be turned back, with Synapse stopped and a backup at hand:\n\n" +
				fmt.Sprintf("    UPDATE %[1]s SET %[2]s = convert_from(%[2]s::bytea, 'UTF8') WHERE starts_with(%[2]s, '\\x');\n\n", table, column) +
				"Anything else has to be taken from the SQLite file or a backup."
		},
	}
}

// unreferencedGroups looks for state groups in the state database, and asks the main one for the events that need them: no
// table is in both where the two are apart. What is built on an unreferenced group counts as referring to it, so that there
// may be more.
func (e *examination) unreferencedGroups() *reading {
	r := &reading{
		code: UnreferencedGroups, severity: doctor.Info, table: "state_groups",
		needs: map[string][]string{"state_groups": {"id"}, "state_group_edges": {"prev_state_group"}, "state_groups_pending_deletion": {"state_group"}},
		by:    map[string]string{"state_group_edges": "prev_state_group", "state_groups_pending_deletion": "state_group"},
		faulty: `SELECT r.id::text FROM $ROWS WHERE NOT EXISTS (SELECT FROM state_group_edges e WHERE e.prev_state_group = r.id)
  AND NOT EXISTS (SELECT FROM state_groups_pending_deletion d WHERE d.state_group = r.id)`,
		atLeast: e.threshold(unreferenced),
		tell: func(f *doctor.Finding, n int64) {
			f.Summary = fmt.Sprintf("%s of no use to any event: they only take room.", plural(int(n), "state group is", "state groups are"))
			f.Observed, f.Expected = fmt.Sprintf("at least %d state groups that no event, and no other group, refers to", n), fmt.Sprintf("at most %.0f", e.threshold(unreferenced))
			f.Remedy = "Synapse 1.128 and newer mark them once, in a background update, and delete them bit by bit: update Synapse and let its background updates finish. Don't use tools that " +
				"delete them while Synapse runs: a group that is about to be used looks just like these, and the room is then broken."
		},
	}
	if e.has("state_groups_persisting", "state_group") {
		r.faulty += ` AND NOT EXISTS (SELECT FROM state_groups_persisting p WHERE p.state_group = r.id)`
	}
	main := e.target.Main()
	if main != nil && main.Label == e.db.Label {
		r.needs["event_to_state_groups"], r.by["event_to_state_groups"] = []string{"state_group"}, "state_group"
	}
	r.filter = func(ctx context.Context, faulty []string) (left []string, err error) {
		if main == nil || !main.Meets.Has(doctor.NeedsPostgres) {
			return nil, fmt.Errorf("the main database, whose events refer to them, can't be asked")
		}
		err = main.Read(ctx, func(tx pgx.Tx) error {
			whole := r.hashes
			if main.Label != e.db.Label {
				if whole, err = readWhole(ctx, tx, "event_to_state_groups", "state_group"); err != nil {
					return err
				}
			}
			if _, err := tx.Exec(ctx, deepSettings, map[bool]string{true: "on", false: "off"}[whole]); err != nil {
				return err
			}
			rows, err := tx.Query(ctx, `SELECT g::text FROM unnest($1::text[]::bigint[]) g WHERE NOT EXISTS (SELECT FROM event_to_state_groups e WHERE e.state_group = g)`, faulty)
			if err != nil {
				return err
			}
			left, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
		return left, err
	}
	return r
}

// readWhole reports whether a table of the main database has to be read as a whole, because its rows can't be looked up by the
// column. It is an error where that is a large one, of which each row would be looked for in all of it.
func readWhole(ctx context.Context, tx pgx.Tx, table, column string) (bool, error) {
	of := &examination{}
	if err := of.lookAtKnown(ctx, tx); err != nil || of.leads(table, column) {
		return false, err
	}
	if !of.has(table, column) || of.known[table].Bytes > small {
		return false, fmt.Errorf("%s in the main database has no index that begins with %s", table, column)
	}
	return true, nil
}
