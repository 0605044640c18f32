package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// faultsQuery lists what keeps a server from loading its files, or from starting again. pg_hba_file_rules and pg_file_settings read the files as
// they are now. A line of pg_hba.conf that has an error and a type is only a remark (hostssl without ssl). A setting with a
// value that is not allowed hinders no other from being loaded, but the server would not start any more; for an error of
// another kind nothing is loaded at all (ProcessConfigFileInternal, seen on 14 to 18). From 16 on, the rules name their file.
const faultsQuery = `SELECT coalesce(to_jsonb(r) ->> 'file_name', current_setting('hba_file')) || coalesce(':' || r.line_number, '') || ': ' || r.error
  FROM pg_hba_file_rules r WHERE r.error IS NOT NULL AND r.type IS NULL
UNION ALL
SELECT coalesce(f.sourcefile || ':' || f.sourceline || ': ', '') || coalesce(f.name || ': ', '') || f.error
  FROM pg_file_settings f WHERE ` + pgdb.FileSettingFault

const loadedQuery = `SELECT pg_conf_load_time()`

// runReload makes the server read its files again. The files are looked at first: a server does not load what has an
// error, and does not start with it.
func (a *application) runReload(ctx context.Context, i int) error {
	if err := a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepStarted}); err != nil {
		return err
	}
	a.point("reload", i)
	c, err := a.session(ctx, a.steps[i].SQL)
	if err != nil {
		return a.failed(ctx, span(i, i+1), err)
	}
	if err := holds(ctx, c, a.steps[i].SQL.Guard); err != nil {
		return a.failed(ctx, span(i, i+1), err)
	}
	if err := a.engine.faultless(ctx, c); err != nil {
		return a.failed(ctx, span(i, i+1), err)
	}
	err = a.engine.reload(ctx, c)
	a.point("reloaded", i)
	// Told to, the server may still load the files after we have stopped waiting: undoing must reload once more.
	if markErr := a.done(ctx, span(i, i+1), journal.Step{Status: journal.StepApplied}); markErr != nil {
		return markErr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", a.steps[i].Title, err)
	}
	return nil
}

// faultless refuses while the server's files have errors.
func (e *Engine) faultless(ctx context.Context, c conn) error {
	rows, err := c.Query(ctx, faultsQuery)
	if err != nil {
		return fmt.Errorf("look for errors in the server's files: %w", err)
	}
	faults, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for errors in the server's files: %w", err)
	}
	if len(faults) > 0 {
		return refuse("the server's configuration has an error, with which it would not load it, or not start again: %s", e.clean(strings.Join(faults[:min(len(faults), 3)], "; ")+more(len(faults)-3)))
	}
	return nil
}

// reload makes the server read its files, and returns when a new session says that it has.
func (e *Engine) reload(ctx context.Context, c *pgx.Conn) error {
	var before time.Time
	if err := c.QueryRow(ctx, loadedQuery).Scan(&before); err != nil {
		return fmt.Errorf("ask when the files were loaded: %w", err)
	}
	var told bool
	if err := c.QueryRow(ctx, doctor.ReloadStatement).Scan(&told); err != nil {
		return fmt.Errorf("tell the server to load its files: %w", err)
	}
	if !told {
		return fmt.Errorf("the server could not be told to load its files: its log says why")
	}
	for range waits {
		loaded, err := e.loadedAt(ctx)
		if err != nil {
			return err
		}
		if loaded.After(before) {
			return nil
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
	return fmt.Errorf("the server was told to load its files, and has not done so: its log says why")
}

// loadedAt asks in a session of its own: one that is older learns of a reload at another moment than the postmaster, which
// applies pg_hba.conf to new ones.
func (e *Engine) loadedAt(ctx context.Context) (loaded time.Time, err error) {
	c, err := pgdb.Connect(ctx, e.Target.Admin.Settings, e.Target.Admin.Options())
	if err != nil {
		return loaded, fmt.Errorf("see whether the files were loaded: %w", err)
	}
	defer pgdb.Close(c)
	err = c.QueryRow(ctx, loadedQuery).Scan(&loaded)
	return loaded, err
}

// reloadBack lets the server load the files that were put back.
func (a *application) reloadBack(ctx context.Context, indexes []int) error {
	c, err := a.session(ctx, a.steps[indexes[0]].SQL)
	if err != nil {
		return err
	}
	a.point("undo-reload", indexes[0])
	if err := a.engine.reload(ctx, c); err != nil {
		return fmt.Errorf("have the server load the files that were put back: %w", err)
	}
	return a.mark(ctx, indexes, journal.Step{Status: journal.StepUndone})
}
