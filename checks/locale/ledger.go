package locale

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// ledger is a table in the target in which each transaction of an operation enters what it has done: the one place that
// can't be out of step with it. It is there only while an operation is under way.
type ledger struct {
	key string // of the plan: what another plan has left is nothing to this one
}

const ledgerSchema = "synapse_doctor"

// The collation is C whatever the database's is, since that changes meanwhile.
const ledgerTables = `CREATE SCHEMA IF NOT EXISTS synapse_doctor;
CREATE TABLE IF NOT EXISTS synapse_doctor.mended (
  key text COLLATE pg_catalog."C" NOT NULL, unit text COLLATE pg_catalog."C" NOT NULL, chunks int NOT NULL, PRIMARY KEY (key, unit));
CREATE TABLE IF NOT EXISTS synapse_doctor.saved (
  key text COLLATE pg_catalog."C" NOT NULL, unit text COLLATE pg_catalog."C" NOT NULL, chunk int NOT NULL, line text COLLATE pg_catalog."C" NOT NULL);`

// begun is the unit that is entered before anything is changed.
const begun = "begun"

// start makes the ledger. A schema of that name that an ordinary role has made is not used: a superuser writes to it.
func (l ledger) start(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Conn().PgConn().Exec(ctx, ledgerTables).ReadAll(); err != nil {
		return fmt.Errorf("make the schema %s: %w", ledgerSchema, err)
	}
	var theirs int
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM (SELECT nspowner FROM pg_namespace WHERE nspname = 'synapse_doctor'
		UNION SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'synapse_doctor') o
		JOIN pg_roles r ON r.oid = o.nspowner WHERE NOT r.rolsuper`).Scan(&theirs); err != nil {
		return fmt.Errorf("look at the schema %s: %w", ledgerSchema, err)
	}
	if theirs > 0 {
		return doctor.Unchanged("The schema %s, or something in it, belongs to an ordinary role. It is the doctor's own: find out what it is for, drop it, and run this again.", ledgerSchema)
	}
	return l.enter(ctx, tx, begun, 0)
}

// exists reports whether there is a ledger at all.
func (l ledger) exists(ctx context.Context, q querier) (is bool, err error) {
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'synapse_doctor' AND c.relname = 'mended')`).Scan(&is)
	if err != nil {
		return false, fmt.Errorf("look for what an earlier run has done: %w", err)
	}
	return is, nil
}

// under reports whether the unit was begun: then it is gone on with, and nothing can be refused any more as if nothing had been changed.
func (l ledger) under(ctx context.Context, q querier, unit string) (bool, error) {
	is, err := l.exists(ctx, q)
	if err != nil || !is {
		return false, err
	}
	return l.has(ctx, q, unit)
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// has reports whether the unit was done, by a transaction that was committed.
func (l ledger) has(ctx context.Context, q querier, unit string) (is bool, err error) {
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM synapse_doctor.mended WHERE key = $1 AND unit = $2)`, l.key, unit).Scan(&is)
	if err != nil {
		return false, fmt.Errorf("look for what an earlier run has done: %w", err)
	}
	return is, nil
}

// chunksOf is how many chunks of the archive belong to a unit that was done; nil when it was not.
func (l ledger) chunksOf(ctx context.Context, q querier, unit string) (chunks *int, err error) {
	err = q.QueryRow(ctx, `SELECT max(chunks) FROM synapse_doctor.mended WHERE key = $1 AND unit = $2`, l.key, unit).Scan(&chunks)
	if err != nil {
		return nil, fmt.Errorf("look for what an earlier run has done: %w", err)
	}
	return chunks, nil
}

// enter records the unit, and how many chunks of the archive hold what it has removed.
func (l ledger) enter(ctx context.Context, tx pgx.Tx, unit string, chunks int) error {
	if _, err := tx.Exec(ctx, `INSERT INTO synapse_doctor.mended VALUES ($1, $2, $3) ON CONFLICT (key, unit) DO UPDATE SET chunks = excluded.chunks`, l.key, unit, chunks); err != nil {
		return fmt.Errorf("record what was done: %w", err)
	}
	return nil
}

// strike takes an entry back.
func (l ledger) strike(ctx context.Context, tx pgx.Tx, unit string) error {
	if _, err := tx.Exec(ctx, `DELETE FROM synapse_doctor.mended WHERE key = $1 AND unit = $2`, l.key, unit); err != nil {
		return fmt.Errorf("record what was done: %w", err)
	}
	return nil
}

// entries are the units that were done, with their chunks.
func (l ledger) entries(ctx context.Context, tx pgx.Tx) (map[string]int, error) {
	rows, err := tx.Query(ctx, `SELECT unit, chunks FROM synapse_doctor.mended WHERE key = $1`, l.key)
	if err != nil {
		return nil, fmt.Errorf("look for what an earlier run has done: %w", err)
	}
	done := map[string]int{}
	var unit string
	var chunks int
	if _, err := pgx.ForEachRow(rows, []any{&unit, &chunks}, func() error { done[unit] = chunks; return nil }); err != nil {
		return nil, fmt.Errorf("look for what an earlier run has done: %w", err)
	}
	return done, nil
}

// end removes the plan's entries, and the ledger when no other plan has any in it.
func (l ledger) end(ctx context.Context, conn *pgx.Conn) error {
	return inTx(ctx, conn, func(tx pgx.Tx) error {
		is, err := l.exists(ctx, tx)
		if err != nil || !is {
			return err
		}
		var others bool
		if err := tx.QueryRow(ctx, `WITH gone AS (DELETE FROM synapse_doctor.mended WHERE key = $1), saved AS (DELETE FROM synapse_doctor.saved WHERE key = $1)
			SELECT EXISTS (SELECT FROM synapse_doctor.mended WHERE key <> $1)`, l.key).Scan(&others); err != nil {
			return fmt.Errorf("remove the doctor's records from the database: %w", err)
		}
		if others {
			return nil
		}
		if _, err := tx.Exec(ctx, `DROP TABLE synapse_doctor.mended, synapse_doctor.saved`); err != nil {
			return fmt.Errorf("remove the doctor's records from the database: %w", err)
		}
		const stillNeeded = "2BP01"
		err = savepoint(ctx, tx, func() error { _, err := tx.Exec(ctx, `DROP SCHEMA synapse_doctor`); return err })
		if err != nil && !hasState(err, stillNeeded) {
			return fmt.Errorf("remove the doctor's records from the database: %w", err)
		}
		return nil
	})
}

// line is what the journal keeps of one thing that was removed or changed.
type line struct {
	Unit  string `json:"unit"`
	Chunk int    `json:"chunk"`
	// Row is a removed row: each of its columns as text, as the server writes it, so that each reads back exactly.
	Row json.RawMessage `json:"row,omitempty"`
	// Was is a vector that was changed, Now the MD5 of what took its place.
	Key string  `json:"key,omitempty"`
	Was *string `json:"was,omitempty"`
	Now string  `json:"now,omitempty"`
}

// archive hands the rows of one unit to the host, in chunks. What an execution that was interrupted had saved of the unit is
// replaced chunk by chunk; a chunk too many is not in the ledger, and so is never put back.
type archive struct {
	m      *mender
	unit   string
	table  string
	chunks int
	rows   []doctor.SavedRow
	bytes  int
}

// A message to the host may hold 16 MiB.
const (
	chunkRows  = 1000
	chunkBytes = 1 << 20
	maxLine    = 8 << 20
)

func (a *archive) add(ctx context.Context, l line) error {
	l.Unit, l.Chunk = a.unit, a.chunks
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("archive a row: %w", err)
	}
	a.rows = append(a.rows, doctor.SavedRow{Table: a.table, JSON: string(text)})
	if a.bytes += len(text); a.bytes >= chunkBytes || len(a.rows) >= chunkRows {
		return a.flush(ctx)
	}
	return nil
}

func (a *archive) flush(ctx context.Context) error {
	if len(a.rows) == 0 {
		return nil
	}
	if err := a.m.save(ctx, fmt.Sprintf("%s, chunk %d", a.unit, a.chunks), a.rows); err != nil {
		return err
	}
	a.chunks, a.rows, a.bytes = a.chunks+1, nil, 0
	return nil
}

func (m *mender) save(ctx context.Context, token string, rows []doctor.SavedRow) error {
	m.saving.Lock()
	defer m.saving.Unlock()
	if err := m.host.Save(ctx, token, rows); err != nil {
		return fmt.Errorf("keep what is removed: %w", err)
	}
	return nil
}

// finished is the token after which nothing is left to do but to remove the ledger. With it the journal gets what the ledger
// held: which chunks of the archive are of transactions that were committed.
const finished = "finished"

// undone is the same for the operation that puts everything back. It has no token to be told of, but rows.
const undone = "undone"

// entry is a line of the journal that stands for the ledger.
type entry struct {
	State  string         `json:"state"` // finished or undone
	Chunks map[string]int `json:"chunks,omitempty"`
}

func (m *mender) finish(ctx context.Context, state string, chunks map[string]int) error {
	var rows []doctor.SavedRow
	add := func(e entry) error {
		text, err := json.Marshal(e)
		rows = append(rows, doctor.SavedRow{Table: ledgerSchema + ".mended", JSON: string(text)})
		return err
	}
	if err := add(entry{State: state}); err != nil {
		return err
	}
	for unit, n := range chunks {
		if n > 0 {
			if err := add(entry{State: state, Chunks: map[string]int{unit: n}}); err != nil {
				return err
			}
		}
	}
	return m.save(ctx, state, rows)
}
