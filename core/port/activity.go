package port

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pghash"
)

// activity is what the server counts of a table: as long as it is the same, nobody has written to the table. PostgreSQL 14
// may lose counts, so that it vouches for nothing there (NULL), nor where counting is off. A crash, and an administrator,
// set the counters back, which the times of the last reset show (of pg_stat_wal those of a crash; pg_stat_database's are
// gone then). TRUNCATE, VACUUM FULL and the like give the table another file. VACUUM, ANALYZE and readers change none of it.
const activity = `CASE WHEN current_setting('server_version_num')::int >= 150000 AND current_setting('track_counts')::bool THEN
  jsonb_build_object('oid', c.oid::int8, 'file', pg_relation_filenode(c.oid)::int8, 'inserted', pg_stat_get_tuples_inserted(c.oid),
    'updated', pg_stat_get_tuples_updated(c.oid), 'deleted', pg_stat_get_tuples_deleted(c.oid),
    'reset', (SELECT stats_reset FROM pg_stat_wal), 'database reset', (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database())) END`

// readActivity is a table's activity as JSON; nil where the server's counters vouch for nothing.
//
// It is read before the transaction that reads the rows begins: what is committed in between changes the counters after.
func readActivity(ctx context.Context, conn *pgx.Conn, table uint32) (*string, error) {
	var a *string
	if err := conn.QueryRow(ctx, `SELECT (`+activity+`)::text FROM pg_class c WHERE c.oid = $1`, table).Scan(&a); err != nil {
		return nil, fmt.Errorf("read the server's counters of a table: %w", err)
	}
	return a, nil
}

// flushStatistics has the server count at once what the session has written, and is called after the last COMMIT on a table.
// Without it the counters may change after the table was verified, so that the next run has to read it again.
func flushStatistics(ctx context.Context, conn *pgx.Conn) error {
	var has bool
	if err := conn.QueryRow(ctx, `SELECT to_regproc('pg_stat_force_next_flush') IS NOT NULL`).Scan(&has); err != nil || !has {
		return err
	}
	_, err := conn.Exec(ctx, `SELECT pg_stat_force_next_flush()`)
	return err
}

const sessionsQuery = `SELECT coalesce(string_agg(format('process %s%s%s', pid, ' as ' || nullif(application_name, ''), ' from ' || host(client_addr)), '; ' ORDER BY pid), '')
FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND application_name NOT LIKE 'synapse-doctor/%'`

// otherSessions refuses a target in which the role that is ported with, which is Synapse's, has sessions that are not the doctor's.
func otherSessions(ctx context.Context, conn *pgx.Conn) error {
	var who string
	if err := conn.QueryRow(ctx, sessionsQuery).Scan(&who); err != nil {
		return fmt.Errorf("see who is in the target: %w", err)
	}
	if who != "" {
		return doctor.Unchanged("Synapse's role is connected to the database that is ported into: %s. Stop what uses it, then run this again", who)
	}
	return nil
}

// WrittenError is a target that somebody has written to since it was verified.
type WrittenError struct{ Tables []Written }

// Written is a table that holds something else than when it was verified.
type Written struct {
	Table    string
	Rows     int64 // that it holds now
	Verified int64 // that it held
}

func (e *WrittenError) Error() string {
	const most = 5
	var parts []string
	for i, w := range e.Tables {
		if i == most {
			parts = append(parts, fmt.Sprintf("%d more", len(e.Tables)-most))
			break
		}
		text := w.Table
		if w.Rows != w.Verified {
			text += fmt.Sprintf(" (%d rows, %d when it was verified)", w.Rows, w.Verified)
		}
		parts = append(parts, text)
	}
	return fmt.Sprintf("a Synapse, or somebody else, has written to the target since it was verified: to %s. Another run would throw that away. "+
		"If the target is in use now, the port is over; to port anew all the same, give an empty database", strings.Join(parts, ", "))
}

// Unwrap tells the host that nothing was changed.
func (e *WrittenError) Unwrap() error { return &doctor.UnchangedError{Reason: e.Error()} }

const verifiedQuery = `SELECT p.name, p.rows, p.sum::text, p.activity IS NOT NULL AND p.activity = ` + activity + ` FROM synapse_doctor.port_table p
JOIN unnest($1::text[], $2::oid[]) u (name, oid) ON u.name = p.name JOIN pg_class c ON c.oid = u.oid WHERE p.verified ORDER BY p.name`

// look compares the tables that were verified with what was recorded then. Where the server's counters don't vouch, the table
// is read again when exact is set, and named as unsure otherwise; equal ones are handed to again, which may be nil.
func look(ctx context.Context, tx pgx.Tx, tables []Table, exact bool, again func(Table) error) (written []Written, unsure []string, err error) {
	byName, names, oids := map[string]Table{}, []string{}, []uint32{}
	for _, t := range tables {
		byName[t.Name] = t
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		names, oids = append(names, name), append(oids, byName[name].OID)
	}
	rows, err := tx.Query(ctx, verifiedQuery, names, oids)
	if err != nil {
		return nil, nil, fmt.Errorf("compare the server's counters: %w", err)
	}
	type verified struct {
		Name string
		Rows int64
		Sum  string
		Same bool
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[verified])
	if err != nil {
		return nil, nil, fmt.Errorf("compare the server's counters: %w", err)
	}
	for _, v := range found {
		if v.Same {
			continue
		}
		if !exact {
			unsure = append(unsure, v.Name)
			continue
		}
		now, err := byName[v.Name].actual(ctx, tx)
		if err != nil {
			return nil, nil, err
		}
		sum, err := pghash.ParseSum(v.Sum)
		if err != nil {
			return nil, nil, fmt.Errorf("the record of the table %s: %w", v.Name, err)
		}
		if now.rows != v.Rows || !now.sum.Equal(sum) {
			written = append(written, Written{Table: v.Name, Rows: now.rows, Verified: v.Rows})
		} else if again != nil {
			if err := again(byName[v.Name]); err != nil {
				return nil, nil, err
			}
		}
	}
	return written, unsure, nil
}

// writtenSince is a [*WrittenError] when a table that was verified holds something else now. Where the server's counters don't
// vouch for a table, it is read whole.
func writtenSince(ctx context.Context, conn *pgx.Conn, tables []Table) error {
	var e WrittenError
	counters := map[string]*string{}
	for _, t := range tables {
		var err error
		if counters[t.Name], err = readActivity(ctx, conn, t.OID); err != nil {
			return err
		}
	}
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) (err error) {
		e.Tables, _, err = look(ctx, tx, tables, true, func(t Table) error {
			_, err := tx.Exec(ctx, `UPDATE synapse_doctor.port_table SET activity = $2::text::jsonb WHERE name = $1`, t.Name, counters[t.Name])
			return err
		})
		return err
	})
	if err == nil && len(e.Tables) > 0 {
		return &e
	}
	return err
}
