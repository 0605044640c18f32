package locale

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// vectorJob is one part of the search vectors of one table.
type vectorJob struct {
	synapse.SearchVector
	schema string
	part   int
}

func (j vectorJob) unit() string {
	return fmt.Sprintf("vectors of %s, part %d of %d", j.name(), j.part+1, atOnce)
}

func (j vectorJob) name() string { return identifier(j.schema, j.Table) }

// vectorJobs are those of the tables that are there.
func (m *mender) vectorJobs(ctx context.Context, q querier) ([]vectorJob, error) {
	var jobs []vectorJob
	for _, v := range synapse.SearchVectors(m.params.Schema) {
		var is bool
		if err := q.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, identifier(m.params.Schema, v.Table)).Scan(&is); err != nil {
			return nil, fmt.Errorf("look for the search vectors: %w", err)
		}
		for part := 0; is && part < atOnce; part++ {
			jobs = append(jobs, vectorJob{SearchVector: v, schema: m.params.Schema, part: part})
		}
	}
	return jobs, nil
}

// makeVectors gives the rows whose search vector is not what their text gives in this locale the one that it gives.
func (m *mender) makeVectors(ctx context.Context, conn *pgx.Conn) error {
	jobs, err := m.vectorJobs(ctx, conn)
	if err != nil {
		return err
	}
	return each(ctx, m, jobs, func(ctx context.Context, conn *pgx.Conn, j vectorJob) error {
		if err := m.makePart(ctx, conn, j); err != nil {
			return fmt.Errorf("search vectors of %s: %w", j.name(), err)
		}
		return nil
	})
}

func (m *mender) makePart(ctx context.Context, conn *pgx.Conn, j vectorJob) error {
	return inTx(ctx, conn, func(tx pgx.Tx) error {
		if done, err := m.has(ctx, tx, j.unit()); done || err != nil {
			return err
		}
		m.at("Making the search vectors of " + j.Table)
		if _, err := tx.Exec(ctx, j.Prepare); err != nil {
			return fmt.Errorf("prepare to make them: %w", err)
		}
		if _, err := tx.Exec(ctx, `CREATE TEMP TABLE doctor_was (key text COLLATE pg_catalog."C", was text COLLATE pg_catalog."C") ON COMMIT DROP`); err != nil {
			return fmt.Errorf("prepare to keep the old ones: %w", err)
		}
		if _, err := tx.Exec(ctx, `CREATE TEMP TABLE doctor_now (key text COLLATE pg_catalog."C", now text COLLATE pg_catalog."C") ON COMMIT DROP`); err != nil {
			return fmt.Errorf("prepare to keep the old ones: %w", err)
		}
		was, err := tx.Exec(ctx, `INSERT INTO pg_temp.doctor_was `+j.Differing, atOnce, j.part)
		if err != nil {
			return fmt.Errorf("look for those that differ: %w", err)
		}
		now, err := tx.Exec(ctx, fmt.Sprintf(`WITH made AS (%s RETURNING t.%[2]s AS key, md5(t.vector::text) AS now) INSERT INTO pg_temp.doctor_now SELECT key, now FROM made`,
			j.Update, identifier(j.Key)), atOnce, j.part)
		if err != nil {
			return fmt.Errorf("make them: %w", err)
		}
		if was.RowsAffected() != now.RowsAffected() {
			return fmt.Errorf("%d vectors differ, and %d were made: rolled back", was.RowsAffected(), now.RowsAffected())
		}
		a := &archive{m: m, unit: j.unit(), table: j.name()}
		rows, err := tx.Query(ctx, `SELECT w.key, w.was, n.now FROM pg_temp.doctor_was w JOIN pg_temp.doctor_now n USING (key)`)
		if err != nil {
			return fmt.Errorf("read the old ones: %w", err)
		}
		var l line
		kept := int64(0)
		if _, err := pgx.ForEachRow(rows, []any{&l.Key, &l.Was, &l.Now}, func() error { kept++; return a.add(ctx, l) }); err != nil {
			return fmt.Errorf("keep the old ones: %w", err)
		}
		if kept != was.RowsAffected() {
			return fmt.Errorf("%d vectors were changed, and %d would be kept: rolled back", was.RowsAffected(), kept)
		}
		if err := a.flush(ctx); err != nil {
			return err
		}
		if err := m.enter(ctx, tx, j.unit(), a.chunks); err != nil {
			return err
		}
		m.at("Finishing the search vectors of " + j.Table)
		return nil
	})
}

// putVectorsBack gives the rows the vector that they had, unless Synapse has made another one since.
func (m *mender) putVectorsBack(ctx context.Context, conn *pgx.Conn, j vectorJob, chunks int) error {
	return inTx(ctx, conn, func(tx pgx.Tx) error {
		unit := undoUnit(j.unit())
		if done, err := m.has(ctx, tx, unit); done || err != nil {
			return err
		}
		m.at("Putting back the search vectors of " + j.Table)
		_, err := tx.Exec(ctx, fmt.Sprintf(`UPDATE %s t SET vector = s.was::tsvector
			FROM (SELECT line::json ->> 'key' AS key, line::json ->> 'was' AS was, line::json ->> 'now' AS now FROM synapse_doctor.saved
				WHERE key = $1 AND unit = $2 AND chunk < $3) s
			WHERE t.%s = s.key AND md5(t.vector::text) = s.now`, j.name(), identifier(j.Key)), m.key, j.unit(), chunks)
		if err != nil {
			return fmt.Errorf("put back the search vectors of %s: %w", j.name(), err)
		}
		if err := m.enter(ctx, tx, unit, 0); err != nil {
			return err
		}
		m.at("Finishing the search vectors of " + j.Table)
		return nil
	})
}
