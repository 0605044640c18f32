package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
)

// sqlGroup is the run of steps from first to before end that one transaction carries.
func sqlGroup(steps []doctor.Step, first int) (end int) {
	end = first + 1
	if q := steps[first].SQL; q.Mode == doctor.ModeGroup {
		for end < len(steps) && steps[end].SQL != nil && steps[end].SQL.Group == q.Group && steps[end].SQL.Database == q.Database {
			end++
		}
	}
	return end
}

// runSQL carries out the steps from first to before end, in one transaction unless the statement forbids it.
// When it returns an error, none of them has had an effect, save what the steps themselves call lasting.
func (a *application) runSQL(ctx context.Context, first, end int) error {
	if a.steps[first].SQL.Mode == doctor.ModeNone {
		return a.runOutside(ctx, first)
	}
	indexes := span(first, end)
	if err := a.mark(ctx, indexes, journal.Step{Status: journal.StepStarted}); err != nil {
		return err
	}
	c, err := a.session(ctx, a.steps[first].SQL)
	if err != nil {
		return a.failed(ctx, indexes, err)
	}
	tx, err := c.Begin(ctx)
	if err != nil {
		return a.failed(ctx, indexes, fmt.Errorf("begin a transaction: %w", err))
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	var xid string
	var locked bool
	if err := tx.QueryRow(ctx, `SELECT txid_current()::text, (`+holdsLock+`)`, advisoryKey).Scan(&xid, &locked); err != nil {
		return a.failed(ctx, indexes, fmt.Errorf("begin a transaction: %w", err))
	}
	if !locked {
		return a.failed(ctx, indexes, errors.New("the session is not the one that holds the doctor's lock: a pooler in transaction mode stands between; connect to PostgreSQL itself"))
	}
	if err := a.unlogged(ctx, tx, indexes); err != nil {
		return a.failed(ctx, indexes, err)
	}
	watch, err := a.begun(ctx, tx, indexes)
	if err != nil {
		return a.failed(ctx, indexes, err)
	}
	for _, i := range indexes {
		a.point("statement", i)
		if err := a.statement(ctx, tx, i); err != nil {
			a.culprit = i
			tx.Rollback(context.WithoutCancel(ctx))
			return a.failed(ctx, indexes, errors.Join(err, a.undoLasting(ctx, span(first, i))))
		}
	}
	if err := a.stillStopped(ctx); err != nil {
		tx.Rollback(context.WithoutCancel(ctx))
		return a.failed(ctx, indexes, errors.Join(err, a.undoLasting(ctx, indexes)))
	}
	if err := a.within(ctx, tx, watch, xid); err != nil {
		tx.Rollback(context.WithoutCancel(ctx))
		return a.failed(ctx, indexes, err)
	}
	// The transaction's number is on disk before it commits: after a kill the server can be asked what became of it.
	if err := a.mark(ctx, indexes, journal.Step{Status: journal.StepStarted, XID: xid}); err != nil {
		return err
	}
	a.point("before-commit", first)
	if err := tx.Commit(ctx); err != nil {
		return a.commitFailed(ctx, indexes, xid, err)
	}
	a.point("after-commit", first)
	return a.done(ctx, indexes, journal.Step{Status: journal.StepApplied, XID: xid})
}

// errUnsettled is a plan that is neither done nor undone, or of which that is not recorded.
var errUnsettled = errors.New("run synapse-doctor fix --apply again to settle it")

// done records an effect that steps have had. Where that fails, the next run finds out.
func (a *application) done(ctx context.Context, indexes []int, s journal.Step) error {
	if err := a.mark(ctx, indexes, s); err != nil {
		return fmt.Errorf("%q was done, but that could not be recorded: %w: %w", a.steps[indexes[len(indexes)-1]].Title, err, errUnsettled)
	}
	return nil
}

// stillStopped asks once more, before what was done takes effect, where the plan needs Synapse stopped.
func (a *application) stillStopped(ctx context.Context) error {
	if !slices.Contains(a.record.Plan.Requires, doctor.RequireStopped) {
		return nil
	}
	ours, err := a.engine.sessions(ctx, a.plan)
	if err != nil {
		return fmt.Errorf("look for open sessions: %w", err)
	}
	if len(ours) > 0 {
		return refuse("Synapse, or something else, has connected meanwhile: %s", a.engine.clean(ours[0]))
	}
	return nil
}

// commitFailed tells a refused COMMIT from a connection lost while it was under way.
func (a *application) commitFailed(ctx context.Context, indexes []int, xid string, err error) error {
	if sqlState(err) != "" || errors.Is(err, pgx.ErrTxCommitRollback) {
		return a.failed(ctx, indexes, errors.Join(fmt.Errorf("commit: %w", err), a.undoLasting(ctx, indexes)))
	}
	return fmt.Errorf("whether the last transaction was committed is not known: %w: %w", err, errUnsettled)
}

// undoLasting puts back what ROLLBACK has not.
func (a *application) undoLasting(ctx context.Context, indexes []int) error {
	for _, i := range slices.Backward(indexes) {
		if a.steps[i].SQL.Lasting {
			c, err := a.session(context.WithoutCancel(ctx), a.steps[i].SQL)
			if err != nil {
				return err
			}
			if err := a.undoStatement(context.WithoutCancel(ctx), c, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// statement runs one step inside its transaction: guard, saved rows, statement, bound.
func (a *application) statement(ctx context.Context, tx pgx.Tx, i int) error {
	q := a.steps[i].SQL
	start, err := a.changedRows(ctx, tx)
	if err != nil {
		return err
	}
	if err := holds(ctx, tx, q.Guard); err != nil {
		return err
	}
	if q.Save != nil {
		if err := a.save(ctx, tx, i, q); err != nil {
			return err
		}
	}
	before, err := a.changedRows(ctx, tx)
	if err != nil {
		return err
	}
	if before != start {
		return refuse("%s: its guard, or the query of the rows that are saved, changes rows, and may only read; rolled back", a.steps[i].Title)
	}
	text, err := a.text(q)
	if err != nil {
		return err
	}
	tag, err := a.exec(ctx, tx, text, values(q.Args)...)
	if err != nil {
		return fmt.Errorf("%s: %w", a.steps[i].Title, err)
	}
	n := tag.RowsAffected()
	if !countsItself(text) {
		after, err := a.changedRows(ctx, tx)
		if err != nil {
			return err
		}
		n = max(n, after-before)
	}
	if n > q.MaxRows {
		return fmt.Errorf("%s: it affected %d rows where at most %d were planned; rolled back", a.steps[i].Title, n, q.MaxRows)
	}
	return nil
}

// runOutside runs a statement that forbids a transaction.
func (a *application) runOutside(ctx context.Context, i int) error {
	q := a.steps[i].SQL
	if err := a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepStarted}); err != nil {
		return err
	}
	a.point("statement", i)
	c, err := a.session(ctx, q)
	if err != nil {
		return a.failed(ctx, span(i, i+1), err)
	}
	if err := holds(ctx, c, q.Guard); err != nil {
		return a.failed(ctx, span(i, i+1), err)
	}
	text, err := a.text(q)
	if err != nil {
		return a.failed(ctx, span(i, i+1), err)
	}
	if _, err := c.Exec(ctx, text, values(q.Args)...); err != nil {
		if sqlState(err) == "" {
			return fmt.Errorf("whether %q had its effect is not known: %w: %w", a.steps[i].Title, err, errUnsettled)
		}
		return a.failed(ctx, span(i, i+1), fmt.Errorf("%s: %w", a.steps[i].Title, err))
	}
	a.point("after-statement", i)
	return a.done(ctx, span(i, i+1), journal.Step{Status: journal.StepApplied})
}

// save keeps the rows that a step will change. They are on disk when it returns.
func (a *application) save(ctx context.Context, tx pgx.Tx, i int, q *doctor.SQLStep) error {
	rows, err := tx.Query(ctx, q.Save.Query, values(q.Save.Args)...)
	if err != nil {
		return fmt.Errorf("save the rows of %s: %w", q.Save.Table, err)
	}
	defer rows.Close()
	if n := len(rows.FieldDescriptions()); n != 1 {
		return fmt.Errorf("save the rows of %s: the query gives %d columns instead of one with each row's JSON, such as SELECT row_to_json(t)::text FROM … t", q.Save.Table, n)
	}
	var saved []doctor.SavedRow
	size := 0
	for rows.Next() {
		r := doctor.SavedRow{Table: q.Save.Table}
		if err := rows.Scan(&r.JSON); err != nil {
			return fmt.Errorf("save the rows of %s: %w", q.Save.Table, err)
		}
		if int64(len(saved)) == q.MaxRows {
			return fmt.Errorf("%s: more rows of %s would change than the %d that were planned", a.steps[i].Title, q.Save.Table, q.MaxRows)
		}
		if size += len(r.JSON); size > maxGuestSaved && a.plan.Bounds() != nil {
			return fmt.Errorf("%s: the rows of %s that it saves are larger than %d MiB", a.steps[i].Title, q.Save.Table, maxGuestSaved>>20)
		}
		saved = append(saved, r)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("save the rows of %s: %w", q.Save.Table, err)
	}
	return a.engine.journal.SaveRows(ctx, a.record.ID, i, "", saved)
}

// holds asks a guard; nil holds.
func holds(ctx context.Context, c conn, g *doctor.Guard) error {
	if g == nil {
		return nil
	}
	rows, err := c.Query(ctx, g.Query, values(g.Args)...)
	if err != nil {
		return fmt.Errorf("test what must hold: %w", err)
	}
	var answer *bool
	n := 0
	for ; n < 2 && rows.Next(); n++ { // a second row is one too many, and the rest is not kept
		if err := rows.Scan(&answer); err != nil {
			rows.Close()
			return fmt.Errorf("test what must hold: %w", err)
		}
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return fmt.Errorf("test what must hold: %w", err)
	}
	if n == 1 && answer != nil && *answer {
		return nil
	}
	if g.Else == "" {
		return refuse("what the plan saw no longer holds; run synapse-doctor fix again")
	}
	return refuse("%s", g.Else)
}

func values(args []doctor.Value) []any {
	out := make([]any, len(args))
	for i, v := range args {
		out[i] = v.V
	}
	return out
}

func span(first, end int) []int {
	indexes := make([]int, 0, end-first)
	for i := first; i < end; i++ {
		indexes = append(indexes, i)
	}
	return indexes
}

// sqlState is the server's code for an error; empty when the server did not answer.
func sqlState(err error) string {
	var coded interface{ SQLState() string }
	if errors.As(err, &coded) {
		return coded.SQLState()
	}
	return ""
}
