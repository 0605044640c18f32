package locale

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// reindex rebuilds indexes where the locale stays what it is: the library has changed, or an index is damaged. The recorded
// versions are brought up to date last, when everything they vouch for is there.
func reindex(ctx context.Context, t *doctor.Target, step doctor.OperationStep, resume string, h doctor.OperationHost) error {
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
	if err := m.edit(ctx, m.params.Was, m.params.Was, begun); err != nil {
		return err
	}
	if err := m.mendAll(ctx, m.params.Was); err != nil {
		return err
	}
	return m.complete(ctx, func(tx pgx.Tx) error { return m.refresh(ctx, tx) })
}

// refresh records the present versions. REFRESH refuses ("invalid collation version change") what has no version any more: C,
// or a library that tells none. That gets none.
func (m *mender) refresh(ctx context.Context, tx pgx.Tx) error {
	if m.params.Was.Version != nil && m.params.All {
		var actual *string
		if err := tx.QueryRow(ctx, `SELECT pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = current_database()`).Scan(&actual); err != nil {
			return fmt.Errorf("ask for the present collation version: %w", err)
		}
		if actual == nil {
			if err := m.setVersion(ctx, tx, nil); err != nil {
				return err
			}
		} else if _, err := tx.Exec(ctx, refreshDatabase(m.db.Settings["dbname"])); err != nil {
			return fmt.Errorf("record the present collation version: %w", err)
		}
	}
	return m.refreshCollations(ctx, tx)
}

func (m *mender) refreshCollations(ctx context.Context, tx pgx.Tx) error {
	for _, name := range slices.Sorted(maps.Keys(m.params.Collations)) {
		var actual *string
		if err := tx.QueryRow(ctx, `SELECT pg_collation_actual_version($1::text::regcollation)`, name).Scan(&actual); err != nil {
			return fmt.Errorf("ask for the present version of the collation %s: %w", name, err)
		}
		statement := refreshCollation(name)
		if actual == nil {
			statement = "UPDATE pg_collation SET collversion = NULL WHERE oid = " + textLiteral(name) + "::regcollation"
		}
		if _, err := tx.Exec(ctx, statement); err != nil {
			return fmt.Errorf("record the present version of the collation %s: %w", name, err)
		}
	}
	return nil
}

func refreshDatabase(name string) string {
	return "ALTER DATABASE " + identifier(name) + " REFRESH COLLATION VERSION"
}

func refreshCollation(name string) string { return "ALTER COLLATION " + name + " REFRESH VERSION" }

// restoreVersions puts the recorded versions back.
func (m *mender) restoreVersions(ctx context.Context, tx pgx.Tx) error {
	if err := m.setVersion(ctx, tx, m.params.Was.Version); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m.params.Collations)) {
		if _, err := tx.Exec(ctx, `UPDATE pg_collation SET collversion = $2 WHERE oid = $1::text::regcollation`, name, m.params.Collations[name]); err != nil {
			return fmt.Errorf("put back the recorded version of the collation %s: %w", name, err)
		}
	}
	return nil
}
