package port

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sequence"
)

// settle does what has to be done once all tables are whole: sequences are moved to the numbers in use, and Synapse is told
// to make the user directory anew. It may be done again.
func settle(ctx context.Context, conn *pgx.Conn, m *Match) error {
	if err := setSequences(ctx, conn, m); err != nil {
		return err
	}
	return queueDirectory(ctx, conn)
}

// setSequences moves every sequence forward to what its tables, and the positions in its stream, have come to; never back.
// Those of streams are called: Synapse takes last_value for its position, whatever is_called says.
func setSequences(ctx context.Context, conn *pgx.Conn, m *Match) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		e, err := sequence.Examine(ctx, tx, &doctor.Database{}, true)
		if err != nil {
			return err
		}
		if len(e.Unread) > 0 {
			return fmt.Errorf("the numbers of sequences could not be read: %w", errors.Join(e.Unread...))
		}
		for _, s := range e.Sequences {
			if s.Needed() == s.Last() || s.Stream == "" && s.Needed() <= 1 && sequence.Greatest(s.Tables) == 0 {
				continue
			}
			if err := setSequence(ctx, tx, s); err != nil {
				return err
			}
		}
		// Those of a module, which a column of a table that was copied draws from.
		for _, s := range e.Strays {
			copied := slices.ContainsFunc(m.Tables, func(t Table) bool { return t.Name == s.At.OwnerTable })
			if copied && s.Read && sequence.Greatest(s.Tables) > s.Last() {
				if err := setSequence(ctx, tx, s); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func setSequence(ctx context.Context, tx pgx.Tx, s *sequence.State) error {
	if _, err := tx.Exec(ctx, s.Setval(s.LastExpression())); err != nil {
		return fmt.Errorf("move the sequence %s to %d: %w", s.Name, s.Needed(), err)
	}
	return nil
}

// directoryUpdates are the background updates by which Synapse fills the user directory, each of which waits for the one
// before it.
var directoryUpdates = []string{
	"populate_user_directory_createtables", "populate_user_directory_process_rooms", "populate_user_directory_process_users", "populate_user_directory_cleanup",
}

const directoryThere = `SELECT to_regclass('user_directory') IS NOT NULL AND to_regclass('user_directory_search') IS NOT NULL
  AND to_regclass('user_directory_stream_pos') IS NOT NULL AND to_regclass('background_updates') IS NOT NULL`

// queueDirectory has Synapse fill the user directory anew. It follows the stream of events from the position that it has
// noted, and stands still where that is NULL, as long as the updates have not been through.
func queueDirectory(ctx context.Context, conn *pgx.Conn) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var there bool
		if err := tx.QueryRow(ctx, directoryThere).Scan(&there); err != nil || !there {
			return err
		}
		var b pgx.Batch
		b.Queue(`DELETE FROM user_directory_stream_pos`)
		b.Queue(`INSERT INTO user_directory_stream_pos (lock, stream_id) VALUES ('X', NULL)`)
		for i, name := range directoryUpdates {
			var after *string
			if i > 0 {
				after = &directoryUpdates[i-1]
			}
			b.Queue(`INSERT INTO background_updates (update_name, progress_json, depends_on) SELECT $1, '{}', $2
WHERE NOT EXISTS (SELECT FROM background_updates WHERE update_name = $1)`, name, after)
		}
		return tx.SendBatch(ctx, &b).Close()
	})
	if err != nil {
		return fmt.Errorf("have Synapse make the user directory anew: %w", err)
	}
	return nil
}

// analyze has the server learn what the tables hold.
func analyze(ctx context.Context, conn *pgx.Conn, tables []Table) error {
	for _, t := range tables {
		if _, err := conn.Exec(ctx, "ANALYZE "+t.Ident); err != nil {
			return fmt.Errorf("ANALYZE %s: %w", t.Name, err)
		}
	}
	return nil
}
