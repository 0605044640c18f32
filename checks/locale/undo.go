package locale

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// undoInPlace gives the database the locale that it had, with the rows that were removed and the vectors that were changed.
func undoInPlace(ctx context.Context, t *doctor.Target, step doctor.OperationStep, _ string, h doctor.OperationHost) error {
	return putBack(ctx, t, step, h)
}

// undoReindex puts back the rows that were removed and the versions that were recorded. The indexes stay rebuilt.
func undoReindex(ctx context.Context, t *doctor.Target, step doctor.OperationStep, _ string, h doctor.OperationHost) error {
	return putBack(ctx, t, step, h)
}

// undoUnit names in the ledger what was put back of a unit.
func undoUnit(unit string) string { return "back: " + unit }

// loaded is the unit of the transaction that copies the archive into the target, to be put back from there table by table.
const loaded = "loaded"

// putBack undoes an operation, wholly or half done. It too goes on where it was interrupted, by what the ledger says.
func putBack(ctx context.Context, t *doctor.Target, step doctor.OperationStep, h doctor.OperationHost) error {
	m, err := newMender(t, step, h)
	if err != nil {
		return err
	}
	state, chunks, err := m.journalled(ctx)
	if err != nil {
		return err
	}
	if state == undone {
		return m.forget(ctx)
	}
	conn, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer closeNow(conn)
	if under, err := m.under(ctx, conn, undoUnit(begun)); err != nil {
		return err
	} else if !under {
		if err := m.permitted(ctx); err != nil {
			return err
		}
	}
	if state != finished { // it was not finished: the ledger is still there, or nothing was ever changed
		if is, err := m.under(ctx, conn, begun); err != nil || !is {
			return err
		}
		if err := inTx(ctx, conn, func(tx pgx.Tx) (err error) { chunks, err = m.entries(ctx, tx); return err }); err != nil {
			return err
		}
	}
	if err := m.edit(ctx, m.params.Was.inC(), m.params.Was, undoUnit(begun)); err != nil {
		return err
	}
	if err := m.load(ctx, chunks); err != nil {
		return err
	}
	if err := m.putAllBack(ctx, chunks); err != nil {
		return err
	}
	fresh, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer closeNow(fresh)
	m.at("Finishing")
	if err := inTx(ctx, fresh, func(tx pgx.Tx) error { return m.restoreVersions(ctx, tx) }); err != nil {
		return err
	}
	m.at("Finished")
	if err := m.finish(ctx, undone, nil); err != nil {
		return err
	}
	return m.end(ctx, fresh)
}

// journalled reads what the journal says of the operation's end: its state, and the chunks that count.
func (m *mender) journalled(ctx context.Context) (state string, chunks map[string]int, err error) {
	chunks = map[string]int{}
	err = m.host.Rows(ctx, func(r doctor.SavedRow) error {
		if r.Table != ledgerSchema+".mended" {
			return nil
		}
		var e entry
		if err := json.Unmarshal([]byte(r.JSON), &e); err != nil {
			return fmt.Errorf("the journal is damaged: %w", err)
		}
		if state != undone {
			state = e.State
		}
		maps.Copy(chunks, e.Chunks)
		return nil
	})
	if err != nil {
		return "", nil, fmt.Errorf("read what was kept: %w", err)
	}
	return state, chunks, nil
}

// load copies the archive into the target, in one transaction.
func (m *mender) load(ctx context.Context, chunks map[string]int) error {
	conn, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer closeNow(conn)
	return inTx(ctx, conn, func(tx pgx.Tx) error {
		if done, err := m.has(ctx, tx, loaded); done || err != nil {
			return err
		}
		m.at("Reading what was removed")
		var batch [][]any
		flush := func() error {
			_, err := tx.CopyFrom(ctx, pgx.Identifier{ledgerSchema, "saved"}, []string{"key", "unit", "chunk", "line"}, pgx.CopyFromRows(batch))
			batch = nil
			return err
		}
		err := m.host.Rows(ctx, func(r doctor.SavedRow) error {
			if r.Table == ledgerSchema+".mended" {
				return nil
			}
			var l line
			if err := json.Unmarshal([]byte(r.JSON), &l); err != nil {
				return fmt.Errorf("the journal is damaged: %w", err)
			}
			if l.Chunk >= chunks[l.Unit] {
				return nil // of a transaction that was not committed
			}
			if batch = append(batch, []any{m.key, l.Unit, l.Chunk, r.JSON}); len(batch) >= chunkRows {
				return flush()
			}
			return nil
		})
		if err == nil {
			err = flush()
		}
		if err != nil {
			return fmt.Errorf("read what was kept: %w", err)
		}
		return m.enter(ctx, tx, loaded, 0)
	})
}

// putAllBack puts the tables back, and then the vectors.
func (m *mender) putAllBack(ctx context.Context, chunks map[string]int) error {
	conn, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer closeNow(conn)
	if m.params.Shut {
		if err := m.assert(ctx, conn, m.params.Was); err != nil {
			return err
		}
	}
	jobs, err := m.jobs(ctx, conn)
	if err != nil {
		return err
	}
	for unit, n := range chunks {
		if n > 0 && strings.HasPrefix(unit, rowsOf) && !slices.ContainsFunc(jobs, func(j job) bool { return j.unit() == unit }) {
			return fmt.Errorf("the table %s, from which rows were removed, is no longer there, or has no index over text any more", strings.TrimPrefix(unit, rowsOf))
		}
	}
	if !m.params.Edit { // the order of what is there stays what it is
		jobs = slices.DeleteFunc(jobs, func(j job) bool { return chunks[j.unit()] == 0 })
	}
	for _, j := range jobs {
		m.total(j.Bytes)
	}
	err = each(ctx, m, jobs, func(ctx context.Context, conn *pgx.Conn, j job) error {
		if err := m.putTableBack(ctx, conn, j, chunks[j.unit()]); err != nil {
			return fmt.Errorf("table %s: %w", j.name(), err)
		}
		m.done(j.Bytes)
		return nil
	})
	if err != nil {
		return err
	}
	vectors, err := m.vectorJobs(ctx, conn)
	if err != nil {
		return err
	}
	vectors = slices.DeleteFunc(vectors, func(j vectorJob) bool { return chunks[j.unit()] == 0 })
	return each(ctx, m, vectors, func(ctx context.Context, conn *pgx.Conn, j vectorJob) error {
		return m.putVectorsBack(ctx, conn, j, chunks[j.unit()])
	})
}

// uniqueQuery lists the valid unique indexes of a table, over whatever they are.
const uniqueQuery = `SELECT i.indexrelid, format('%I.%I', n.nspname, c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.indrelid = $1 AND i.indisunique AND (i.indisvalid OR i.indisready) ORDER BY 1`

// notValidChecks lists the constraints that old rows need not fulfil, and new ones do: a row that is put back is an old one.
const notValidChecks = `SELECT quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1 AND contype = 'c' AND NOT convalidated AND conislocal ORDER BY conname`

// putTableBack puts the removed rows of a table back, and rebuilds its indexes in the locale of this session. A unique index
// that can't hold the rows is left as one that PostgreSQL doesn't use: the rows count for more.
func (m *mender) putTableBack(ctx context.Context, conn *pgx.Conn, j job, chunks int) error {
	ready := false
	err := inTx(ctx, conn, func(tx pgx.Tx) (err error) {
		unit := undoUnit(j.unit())
		if ready, err = m.has(ctx, tx, unit); ready || err != nil {
			return err
		}
		m.at("Locking " + j.Table)
		if err := lockTable(ctx, tx, j); err != nil {
			return err
		}
		var rebuilt []string
		if chunks > 0 {
			if rebuilt, err = m.insertBack(ctx, tx, j, chunks); err != nil {
				return err
			}
		}
		for _, x := range j.Indexes {
			if !m.params.Edit || slices.Contains(rebuilt, x.qualified()) {
				continue
			}
			m.at("Rebuilding " + x.Name)
			if x.Unique {
				if _, err := m.rebuildOrDisable(ctx, tx, x.OID, x.qualified()); err != nil {
					return err
				}
				continue
			}
			if _, err := tx.Exec(ctx, reindexStatement(x)); err != nil {
				return wrapIndex(x, err)
			}
		}
		if err := m.enter(ctx, tx, unit, 0); err != nil {
			return err
		}
		m.at("Finishing " + j.Table)
		return nil
	})
	if err != nil || ready {
		return err
	}
	return m.analyze(ctx, conn, j)
}

// insertBack puts rows back and rebuilds the unique indexes that can hold them. It returns the indexes that it has dealt with.
func (m *mender) insertBack(ctx context.Context, tx pgx.Tx, j job, chunks int) (dealt []string, err error) {
	columns, err := readColumns(ctx, tx, j.OID)
	if err != nil {
		return nil, err
	}
	type unique struct {
		OID  uint32
		Name string
	}
	rows, err := tx.Query(ctx, uniqueQuery, j.OID)
	if err != nil {
		return nil, fmt.Errorf("list the unique indexes: %w", err)
	}
	uniques, err := pgx.CollectRows(rows, pgx.RowToStructByPos[unique])
	if err != nil {
		return nil, fmt.Errorf("list the unique indexes: %w", err)
	}
	type check struct{ Name, Definition string }
	if rows, err = tx.Query(ctx, notValidChecks, j.OID); err != nil {
		return nil, fmt.Errorf("list the constraints: %w", err)
	}
	checks, err := pgx.CollectRows(rows, pgx.RowToStructByPos[check])
	if err != nil {
		return nil, fmt.Errorf("list the constraints: %w", err)
	}
	for _, c := range checks {
		if _, err := tx.Exec(ctx, fmt.Sprintf("ALTER TABLE ONLY %s DROP CONSTRAINT %s", j.name(), c.Name)); err != nil {
			return nil, fmt.Errorf("set the constraint %s aside: %w", c.Name, err)
		}
	}
	for _, u := range uniques {
		if err := m.disable(ctx, tx, u.OID); err != nil {
			return nil, err
		}
	}
	m.at("Putting back rows of " + j.Table)
	var names, values []string
	for _, c := range columns {
		names = append(names, c.Ident)
		values = append(values, fmt.Sprintf("(s.r ->> %s)::%s", textLiteral(unquote(c.Ident)), c.Type))
	}
	var saved int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM synapse_doctor.saved WHERE key = $1 AND unit = $2`, m.key, j.unit()).Scan(&saved); err != nil {
		return nil, fmt.Errorf("count the rows that were removed: %w", err)
	}
	tag, err := tx.Exec(ctx, fmt.Sprintf(`INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s
		FROM (SELECT line::json -> 'row' AS r FROM synapse_doctor.saved WHERE key = $1 AND unit = $2 AND chunk < $3) s`,
		j.name(), strings.Join(names, ", "), strings.Join(values, ", ")), m.key, j.unit(), chunks)
	if err != nil {
		return nil, fmt.Errorf("put back rows: %w", err)
	}
	if tag.RowsAffected() != saved {
		return nil, fmt.Errorf("%d rows were removed, and %d would be put back: rolled back", saved, tag.RowsAffected())
	}
	for _, c := range checks {
		if _, err := tx.Exec(ctx, fmt.Sprintf("ALTER TABLE ONLY %s ADD CONSTRAINT %s %s", j.name(), c.Name, c.Definition)); err != nil {
			return nil, fmt.Errorf("put back the constraint %s: %w", c.Name, err)
		}
	}
	for _, u := range uniques {
		if _, err := m.rebuildOrDisable(ctx, tx, u.OID, u.Name); err != nil {
			return nil, err
		}
		dealt = append(dealt, u.Name)
	}
	return dealt, nil
}

// unquote is the name that quote_ident has quoted.
func unquote(ident string) string {
	if strings.HasPrefix(ident, `"`) {
		return strings.ReplaceAll(ident[1:len(ident)-1], `""`, `"`)
	}
	return ident
}

// disable has PostgreSQL neither use the index nor put new rows into it. REINDEX makes it an index again.
func (m *mender) disable(ctx context.Context, tx pgx.Tx, index uint32) error {
	if _, err := tx.Exec(ctx, `UPDATE pg_index SET indisvalid = false, indisready = false WHERE indexrelid = $1 AND (indisvalid OR indisready)`, index); err != nil {
		return fmt.Errorf("set a unique index aside: %w", err)
	}
	return nil
}

// rebuildOrDisable rebuilds a unique index, or leaves it to PostgreSQL as none where a key is there more than once.
func (m *mender) rebuildOrDisable(ctx context.Context, tx pgx.Tx, oid uint32, name string) (rebuilt bool, err error) {
	err = savepoint(ctx, tx, func() error {
		_, err := tx.Exec(ctx, "REINDEX INDEX "+name)
		return err
	})
	switch {
	case err == nil:
		return true, nil
	case !hasState(err, uniqueViolation):
		return false, fmt.Errorf("rebuild index %s: %w", name, err)
	}
	m.at("Left invalid, since its keys are there more than once: " + name)
	return false, m.disable(ctx, tx, oid)
}
