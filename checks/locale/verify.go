package locale

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// verify looks at every index that was rebuilt, in sessions opened after all of it: that it is valid, in order, and, where
// amcheck is installed, that every row is in it. A table that does not pass is done again by the next execution.
func (m *mender) verify(ctx context.Context, jobs []job) error {
	return each(ctx, m, jobs, func(ctx context.Context, conn *pgx.Conn, j job) error {
		return inTx(ctx, conn, func(tx pgx.Tx) error {
			for _, x := range j.Indexes {
				m.at("Verifying " + x.Name)
				fault, err := faultOf(ctx, tx, x)
				if err != nil {
					return fmt.Errorf("look at the rebuilt index %s: %w", x.Name, err)
				}
				if fault != "" {
					return m.doAgain(ctx, j, fmt.Errorf("the index %s was rebuilt and is not sound: %s", x.Name, fault))
				}
			}
			return nil
		})
	})
}

// doAgain has the next execution do the table again.
func (m *mender) doAgain(ctx context.Context, j job, because error) error {
	conn, err := m.open(ctx)
	if err != nil {
		return because
	}
	defer closeNow(conn)
	if err := inTx(ctx, conn, func(tx pgx.Tx) error { return m.enter(ctx, tx, again(j.unit()), 0) }); err != nil {
		return fmt.Errorf("%w; and %w", because, err)
	}
	return because
}

// again names in the ledger a unit that has to be done once more.
func again(unit string) string { return "again: " + unit }

// faultOf says what is wrong with an index; empty when nothing is.
func faultOf(ctx context.Context, tx pgx.Tx, x index) (string, error) {
	if !x.Valid || !x.Ready {
		return "it is not valid", nil
	}
	if x.Method != "btree" {
		return "", nil
	}
	function, err := findAmcheck(ctx, tx)
	if err != nil {
		return "", err
	}
	if function != "" {
		return amcheck(ctx, tx, function, x, true)
	}
	d, err := define(ctx, tx, x)
	if err != nil {
		return "", err
	}
	w, err := walk(ctx, tx, x, d, compared, false)
	if _, not := errors.AsType[*notExamined](err); not {
		return "", nil // by SQL it can't be read in order
	}
	switch {
	case err != nil:
		return "", err
	case w.Inversions > 0:
		return fmt.Sprintf("%d of its %d entries are out of order", w.Inversions, w.Rows), nil
	case x.Unique && w.Repeated > 0:
		return fmt.Sprintf("%d of its keys are there more than once", w.Repeated), nil
	}
	return "", nil
}
