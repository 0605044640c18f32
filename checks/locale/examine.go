package locale

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// examine looks, before anything is changed, for what would stop the plan half-way: rows with the same key between which only
// the administrator can choose. It reads the tables alone, and changes nothing.
func examine(ctx context.Context, t *doctor.Target, step doctor.OperationStep, _ string, h doctor.OperationHost) error {
	m, err := newMender(t, step, h)
	if err != nil {
		return err
	}
	if err := m.permitted(ctx); err != nil {
		return err
	}
	_, err = m.surplus(ctx)
	return err
}

// surplus finds, in each table, the rows that have a key of another one and would be removed. Where only the administrator can
// choose, that is an [doctor.UnchangedError].
func (m *mender) surplus(ctx context.Context) (map[string][]twin, error) {
	conn, err := m.open(ctx)
	if err != nil {
		return nil, err
	}
	jobs, err := m.jobs(ctx, conn)
	closeNow(conn)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var found []*undecided
	gone := map[string][]twin{}
	for _, j := range jobs {
		m.total(j.Bytes)
	}
	err = each(ctx, m, jobs, func(ctx context.Context, conn *pgx.Conn, j job) error {
		m.at("Looking for rows of " + j.Table + " with the same key")
		tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
		if err != nil {
			return fmt.Errorf("begin a transaction: %w", err)
		}
		defer tx.Rollback(context.WithoutCancel(ctx))
		s, err := m.surveyTable(ctx, tx, j)
		if err != nil {
			return fmt.Errorf("table %s: %w", j.name(), err)
		}
		mu.Lock()
		defer mu.Unlock()
		found = append(found, s.undecided...)
		if len(s.gone) > 0 {
			gone[j.name()] = s.gone
		}
		m.done(j.Bytes)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return gone, nil
	}
	var parts []string
	for _, u := range found[:min(len(found), maxShown)] {
		parts = append(parts, u.Error())
	}
	if n := len(found) - maxShown; n > 0 {
		parts = append(parts, fmt.Sprintf("There are %d more.", n))
	}
	return nil, doctor.Unchanged("%s", strings.Join(parts, "\n\n"))
}

// maxShown bounds how many groups of rows one message names.
const maxShown = 10

// permittedQuery asks for what a plan can't do without, whoever made it.
const permittedQuery = `SELECT rolsuper, pg_encoding_to_char(d.encoding), pg_is_in_recovery(),
  (SELECT coalesce(string_agg(format('%I.%I', n.nspname, c.relname), ', '), '') FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE p.partstrat = 'r' AND EXISTS (SELECT FROM unnest(p.partcollation::oid[]) AS l(oid) WHERE l.oid <> 0))
FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()`

// permitted refuses where the work could not be finished.
func (m *mender) permitted(ctx context.Context) error {
	var super, standby bool
	var encoding, partitioned string
	conn, err := m.open(ctx) // and none that is kept: its locale would be the old one
	if err != nil {
		return err
	}
	defer closeNow(conn)
	if err := conn.QueryRow(ctx, permittedQuery).Scan(&super, &encoding, &standby, &partitioned); err != nil {
		return fmt.Errorf("ask what the administrator may do: %w", err)
	}
	switch {
	case !super:
		return doctor.Unchanged("It needs a superuser: give --admin-dsn with the login of one, such as postgres.")
	case standby:
		return doctor.Unchanged("The server is a standby: what is to be mended can only be changed on its primary.")
	case encoding != "UTF8" && (m.params.Edit || m.params.Vectors):
		return doctor.Unchanged("The database has the encoding %s, which can't be changed in place: it has to be rebuilt.", encoding)
	case m.params.Edit && partitioned != "":
		return doctor.Unchanged("The table %s is partitioned by ranges of text: in another locale its rows would be in the wrong partitions. The database has to be rebuilt.", partitioned)
	}
	return nil
}
