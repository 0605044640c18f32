package upkeep

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// known is one of Synapse's tables, as far as a look into it depends on it.
type known struct {
	Name    string
	Columns []string
	Leads   []string // columns by which a valid index over all rows is sorted first
	Bytes   int64    // without indexes; as it was at the last vacuum when somebody has the table to himself
}

// looked are the tables that this check looks into.
var looked = []string{"background_updates", "cache_invalidation_stream_by_instance", "device_lists_changes_in_room",
	"device_lists_changes_in_room_max_pruned_stream_id", "device_lists_outbound_pokes", "event_forward_extremities", "event_json", "event_to_state_groups",
	"events", "sliding_sync_connections", "state_group_edges", "state_groups", "state_groups_pending_deletion", "state_groups_persisting", "stream_positions",
	"user_directory_stream_pos", "worker_locks", "worker_read_write_locks", "room_memberships", "local_current_membership", "current_state_events",
	"account_data", "room_account_data", "pushers"}

// knownQuery finds them as Synapse does, by the search path.
const knownQuery = `SELECT n.name, array(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
  array(SELECT a.attname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree'),
  CASE WHEN EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock' AND l.pid <> pg_backend_pid())
    THEN c.relpages::bigint * current_setting('block_size')::int ELSE coalesce(pg_relation_size(c.oid), 0) END
FROM unnest($1::text[]) n (name) JOIN pg_class c ON c.oid = to_regclass(quote_ident(n.name)) WHERE c.relkind = 'r'`

func (e *examination) lookAtKnown(ctx context.Context, tx pgx.Tx) error {
	list, err := collect[known](ctx, tx, knownQuery, looked)
	if err != nil {
		return fmt.Errorf("look for Synapse's tables: %w", err)
	}
	e.known = map[string]*known{}
	for i := range list {
		e.known[list[i].Name] = &list[i]
	}
	return nil
}

// has reports whether there is the table, with the columns.
func (e *examination) has(table string, columns ...string) bool {
	k := e.known[table]
	if k == nil {
		return false
	}
	for _, c := range columns {
		if !slices.Contains(k.Columns, c) {
			return false
		}
	}
	return true
}

// leads reports whether the table's rows can be looked up by the column.
func (e *examination) leads(table, column string) bool {
	k := e.known[table]
	return k != nil && slices.Contains(k.Leads, column)
}

// small is the most that is read, without --deep, of a table that may well be large.
var small int64 = 4 * mib

// mostBloated is the most that is read of a table of a few rows. Some of these are written all the time, and full of dead rows on a
// sound server.
var mostBloated int64 = 64 * mib

// readable reports whether the table, if it is there, may be read as a whole. One that should be small and is not, by far, is not
// read, and that is said.
func (e *examination) readable(table string, columns ...string) bool {
	if !e.has(table, columns...) {
		return false
	}
	k := e.known[table]
	if k.Bytes <= mostBloated {
		return true
	}
	note := fmt.Sprintf("not read: %s, which takes %s where a few pages would do (VACUUM FULL %s takes seconds, with Synapse stopped)", table, size(float64(k.Bytes)), table)
	if !slices.Contains(e.notes, note) {
		e.notes = append(e.notes, note)
	}
	return false
}

// Lookups go by an index and a bounded number of rows; should one not be quick all the same, such as where the index begins with
// millions of entries of deleted rows, it is given up.
const lookupSettings = `SELECT set_config('statement_timeout', '5s', true), set_config('enable_seqscan', 'off', true),
  set_config('enable_bitmapscan', 'off', true), set_config('jit', 'off', true)`

// lookAtSynapse looks into Synapse's own tables.
func (e *examination) lookAtSynapse(ctx context.Context, tx pgx.Tx) error {
	if err := e.lookAtKnown(ctx, tx); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, lookupSettings); err != nil {
		return fmt.Errorf("prepare to look into Synapse's tables: %w", err)
	}
	for _, l := range []struct {
		what string
		look func(context.Context, pgx.Tx) error
	}{
		{"background_updates", e.lookAtUpdates},
		{"stream_positions", e.lookAtWriters},
		{"workers' locks", e.lookAtLocks},
		{"user_directory_stream_pos", e.lookAtDirectory},
		{"event_forward_extremities", e.lookAtExtremities},
		{"what Synapse should have deleted", e.lookAtPruners},
	} {
		if err := e.ask(ctx, tx, l.what, l.look); err != nil {
			return err
		}
	}
	return nil
}

// ask has one question asked so that its failure costs no other. What the server refuses is left out by name.
func (e *examination) ask(ctx context.Context, tx pgx.Tx, what string, look func(context.Context, pgx.Tx) error) error {
	inner, err := tx.Begin(ctx)
	if err != nil {
		return fmt.Errorf("look at %s: %w", what, err)
	}
	err = look(ctx, inner)
	if rollback := inner.Rollback(ctx); rollback != nil && err == nil {
		err = rollback
	}
	if err == nil {
		return nil
	}
	if why, refused := refusal(ctx, err); refused {
		e.leave(what, why)
		return nil
	}
	return fmt.Errorf("look at %s: %w", what, err)
}

// refusal says in a few words why the server did not answer a question; false when it is another kind of failure.
func refusal(ctx context.Context, err error) (string, bool) {
	const (
		queryCanceled         = "57014"
		lockNotAvailable      = "55P03"
		insufficientPrivilege = "42501"
	)
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || ctx.Err() != nil {
		return "", false
	}
	switch pg.Code {
	case queryCanceled:
		return "it took too long", true
	case lockNotAvailable:
		return "locked by another session", true
	case insufficientPrivilege:
		return "not permitted: " + pg.Message, true
	}
	return "", false
}
