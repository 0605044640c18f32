package rebuild

import (
	"context"
	"fmt"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// undo drops a new database that has not taken the old one's place, or gives the old one its name back.
func (w Work) undo(ctx context.Context, t *doctor.Target, step doctor.OperationStep, resume string, h doctor.OperationHost) error {
	k, err := w.open(ctx, t, step, h)
	if err != nil {
		return err
	}
	defer k.close()
	s, err := k.look(ctx)
	if err != nil {
		return err
	}
	switch s.source {
	case k.p.database:
		if s.fresh == nil {
			return nil
		}
		// An undo is told no token: it only follows a rebuild that has begun.
		if err := k.mayDrop(ctx, s.fresh, tokenCreating); err != nil {
			return err
		}
		if err := k.drop(ctx); err != nil {
			return err
		}
		w.point("undone")
		return nil
	case k.p.before:
	case "":
		return doctor.Unchanged("the old database, %s, was dropped: there is nothing to put back", k.p.before)
	default:
		return doctor.Unchanged("the old database was renamed to %s: it is not put back. Rename it to %s, then run this again", s.source, k.p.before)
	}
	if err := k.swapped(ctx, s); err != nil {
		return doctor.Unchanged("%v", err)
	}
	if s.rebuilt != nil {
		return doctor.Unchanged("there is a database %s already: rename or drop it, then run this again", k.p.rebuilt)
	}
	changed, err := k.changedSince(ctx)
	if err != nil {
		return err
	}
	if changed != "" {
		return doctor.Unchanged("the database %s has changed since it was rebuilt: %s. Putting %s back would lose that", k.p.database, changed, k.p.before)
	}
	w.point("before-undo-swap")
	if err := k.exchange(ctx, k.p.database, k.p.rebuilt, k.p.before); err != nil {
		return err
	}
	w.point("undone")
	return nil
}

// changedSince compares the new database with what it held when it was complete; empty: nothing is different.
func (k *task) changedSince(ctx context.Context) (string, error) {
	k.say(doctor.Progress{Text: "see whether the new database has changed"})
	conn, err := k.session(ctx, k.p.database)
	if err != nil {
		return "", err
	}
	defer closeConn(conn)
	m, err := readMarker(ctx, conn)
	if err != nil {
		return "", err
	}
	var now content
	if now.objects, err = definitions(ctx, conn); err != nil {
		return "", err
	}
	if now.sequences, err = sequences(ctx, conn); err != nil {
		return "", err
	}
	tables, err := listTables(ctx, conn)
	if err != nil {
		return "", err
	}
	if now.tables, err = k.addUp(ctx, k.p.database, reading{}, tables); err != nil {
		return "", fmt.Errorf("see whether the new database has changed: %w", err)
	}
	return firstDifferences(m.made, now.flat()), nil
}
