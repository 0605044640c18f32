package locale

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

func closeNow(conn *pgx.Conn) { pgdb.Close(conn) }

// inPlace makes the database one in C, in the only order that is sound: the catalog first, then everything that holds text
// in order, in sessions that were opened after it. Where the catalog says C already, because somebody edited it, only the
// second half is left to do. The database is shut meanwhile.
func inPlace(ctx context.Context, t *doctor.Target, step doctor.OperationStep, resume string, h doctor.OperationHost) error {
	m, err := newMender(t, step, h)
	if err != nil {
		return err
	}
	if resume == finished {
		return m.forget(ctx)
	}
	if err := m.permitted(ctx); err != nil {
		return err
	}
	if err := m.edit(ctx, m.params.Was, m.params.Was.inC(), begun); err != nil {
		return err
	}
	if err := m.mendAll(ctx, m.params.Was.inC()); err != nil {
		return err
	}
	return m.complete(ctx, func(tx pgx.Tx) error {
		if err := m.setVersion(ctx, tx, nil); err != nil {
			return err
		}
		return m.refreshCollations(ctx, tx)
	})
}

// mendAll rebuilds what is to be rebuilt, in sessions that have the wanted locale, makes the vectors, and looks at the result.
func (m *mender) mendAll(ctx context.Context, wanted localeRow) error {
	conn, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer closeNow(conn)
	if m.params.Shut {
		if err := m.assert(ctx, conn, wanted); err != nil {
			return err
		}
	}
	if err := m.dropLeftovers(ctx, conn); err != nil {
		return err
	}
	jobs, err := m.jobs(ctx, conn)
	if err != nil {
		return err
	}
	if err := m.mendTables(ctx, jobs); err != nil {
		return err
	}
	if m.params.Vectors {
		if err := m.makeVectors(ctx, conn); err != nil {
			return err
		}
	}
	// What was invalid is valid now.
	if jobs, err = m.jobs(ctx, conn); err != nil {
		return err
	}
	return m.verify(ctx, jobs)
}

// complete does the last transaction, hands what the ledger holds to the host, and removes it.
func (m *mender) complete(ctx context.Context, last func(pgx.Tx) error) error {
	conn, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer closeNow(conn)
	var chunks map[string]int
	m.at("Finishing")
	err = inTx(ctx, conn, func(tx pgx.Tx) (err error) {
		if chunks, err = m.entries(ctx, tx); err != nil {
			return err
		}
		return last(tx)
	})
	if err != nil {
		return err
	}
	m.at("Finished")
	if err := m.finish(ctx, finished, chunks); err != nil {
		return err
	}
	return m.end(ctx, conn)
}

// forget removes the ledger of an operation that had finished.
func (m *mender) forget(ctx context.Context) error {
	conn, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer closeNow(conn)
	return m.end(ctx, conn)
}

const localeQuery = `SELECT to_jsonb(d)::text, d.datconnlimit = 0 FROM pg_database d WHERE d.datname = current_database()`

func readLocale(ctx context.Context, q querier) (row localeRow, shut bool, err error) {
	var text string
	if err := q.QueryRow(ctx, localeQuery).Scan(&text, &shut); err != nil {
		return row, false, fmt.Errorf("read the database's locale: %w", err)
	}
	if err := json.Unmarshal([]byte(text), &row); err != nil {
		return row, false, fmt.Errorf("read the database's locale: %w", err)
	}
	return row, shut, nil
}

// edit changes the catalog's row from one locale to the other, and enters that in the ledger by the same transaction. From
// then on every new session has the new locale, and every older one is a danger: none may be left.
func (m *mender) edit(ctx context.Context, from, to localeRow, unit string) error {
	conn, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer closeNow(conn)
	m.at("Editing the catalog")
	err = inTx(ctx, conn, func(tx pgx.Tx) error {
		is, shut, err := readLocale(ctx, tx)
		if err != nil {
			return err
		}
		under, err := m.under(ctx, tx, unit)
		if err != nil {
			return err
		}
		refuse := doctor.Unchanged
		if under {
			refuse = fmt.Errorf
		}
		switch {
		case !is.same(from) && !is.same(to):
			return refuse("The locale of the database has been changed since the plan was made: run the fix again.")
		case m.params.Shut && !shut:
			return refuse("The database is not shut: in a session that is open while its locale changes, text would still be compared in the old one.")
		}
		if m.params.Shut {
			others, err := othersIn(ctx, tx)
			if err != nil {
				return err
			}
			if others != "" {
				return refuse("Others are still connected to the database, and would go on in the old locale: %s.", others)
			}
		}
		if !under {
			if err := m.start(ctx, tx); err != nil {
				return err
			}
			if err := m.enter(ctx, tx, unit, 0); err != nil {
				return err
			}
		}
		if is.same(to) {
			return nil
		}
		return setLocale(ctx, tx, to)
	})
	if err != nil {
		return err
	}
	m.at("The catalog is edited")
	if !m.params.Shut {
		return nil
	}
	return m.endAutovacuum(ctx, conn)
}

// setLocale writes the catalog's row.
func setLocale(ctx context.Context, tx pgx.Tx, to localeRow) error {
	sets := []string{"datcollate = $1", "datctype = $2"}
	args := []any{to.Collate, to.Ctype}
	has, err := localeColumns(ctx, tx)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		name  string
		value *string
	}{{"datlocprovider", to.Provider}, {"daticulocale", to.ICU}, {"datlocale", to.Locale}, {"daticurules", to.Rules}} {
		if has[c.name] {
			args = append(args, c.value)
			sets = append(sets, fmt.Sprintf("%s = $%d", c.name, len(args)))
		}
	}
	tag, err := tx.Exec(ctx, "UPDATE pg_database SET "+strings.Join(sets, ", ")+" WHERE datname = current_database()", args...)
	if err != nil {
		return fmt.Errorf("edit the catalog: %w", err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("edit the catalog: %d rows would have changed; rolled back", tag.RowsAffected())
	}
	return nil
}

func localeColumns(ctx context.Context, tx pgx.Tx) (map[string]bool, error) {
	rows, err := tx.Query(ctx, `SELECT attname::text FROM pg_attribute WHERE attrelid = 'pg_database'::regclass AND attnum > 0`)
	if err != nil {
		return nil, fmt.Errorf("read the columns of pg_database: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	has := map[string]bool{}
	for _, n := range names {
		has[n] = true
	}
	return has, err
}

// setVersion writes the recorded version of the database's collation, where there is one.
func (m *mender) setVersion(ctx context.Context, tx pgx.Tx, version *string) error {
	has, err := localeColumns(ctx, tx)
	if err != nil || !has["datcollversion"] {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE pg_database SET datcollversion = $1 WHERE datname = current_database() AND datcollversion IS DISTINCT FROM $1`, version); err != nil {
		return fmt.Errorf("set the recorded collation version: %w", err)
	}
	return nil
}

// othersQuery lists who else is in the database, the doctor's own sessions and what ends by itself left out.
const othersQuery = `SELECT coalesce(string_agg(format('%s (process %s)', coalesce(nullif(application_name, ''), backend_type), pid), ', ' ORDER BY pid), '')
FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND backend_type NOT IN ('autovacuum worker', 'parallel worker', 'walsender') AND application_name <> current_setting('application_name')`

func othersIn(ctx context.Context, tx pgx.Tx) (others string, err error) {
	if err := tx.QueryRow(ctx, othersQuery).Scan(&others); err != nil {
		return "", fmt.Errorf("look who else is in the database: %w", err)
	}
	return others, nil
}

// endAutovacuum ends the workers of autovacuum that still have the old locale: they gather statistics of text in its order.
// New ones come by themselves.
func (m *mender) endAutovacuum(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'autovacuum worker'`)
	if err != nil {
		return fmt.Errorf("end autovacuum: %w", err)
	}
	return nil
}

// assert makes sure that the session has the locale that the indexes are to be built in.
func (m *mender) assert(ctx context.Context, conn *pgx.Conn, wanted localeRow) error {
	is, shut, err := readLocale(ctx, conn)
	if err != nil {
		return err
	}
	if !is.same(wanted) {
		return fmt.Errorf("the database has COLLATE %s and CTYPE %s, not what it was given: somebody else has changed it", is.Collate, is.Ctype)
	}
	if !shut {
		return fmt.Errorf("somebody has opened the database while it is being mended: shut it again (%s)", doctor.ShutStatement(m.db.Settings["dbname"]))
	}
	if wanted.Collate != "C" || wanted.Provider != nil && *wanted.Provider != "c" {
		return nil
	}
	var bytewise bool
	if err := conn.QueryRow(ctx, `SELECT 'B'::text < 'a'::text AND lower('É'::text) = 'É'`).Scan(&bytewise); err != nil {
		return fmt.Errorf("ask how text is compared: %w", err)
	}
	if !bytewise {
		return fmt.Errorf("the catalog says C, but a new session does not compare text so")
	}
	return nil
}
