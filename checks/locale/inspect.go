package locale

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// quiet are the settings of a transaction that examines. A time limit of the role's or the database's must not cut it
// short; a policy that hides rows must be an error; and two sessions are all that the server is to do for it.
var quiet = settings{
	"statement_timeout": "0", "transaction_timeout": "0", "idle_in_transaction_session_timeout": "0", "row_security": "off",
	"jit": "off", "max_parallel_workers_per_gather": "0", "synchronize_seqscans": "off",
}

// examine examines the indexes of a unit, and notes in done those that it need not be asked about again.
func (e *examination) examine(ctx context.Context, tx pgx.Tx, u unit, done map[uint32]bool) error {
	if err := quiet.set(ctx, tx); err != nil {
		return err
	}
	if err := e.define(ctx, tx, &u, done); err != nil {
		return err
	}
	if len(u.subjects) == 0 {
		return nil
	}
	ought, err := e.contents(ctx, tx, u)
	if err != nil {
		return err
	}
	e.progress(u.tablePages, u.tablePages)
	for _, s := range u.subjects {
		err := e.inspect(ctx, tx, s, u.visible, ought[s.OID])
		switch {
		case err == nil:
		case ctx.Err() != nil || tx.Conn().IsClosed():
			return err
		case e.gone(ctx, tx, s.index):
			e.forget(s.index)
		default:
			e.leave(s.index, whyNot(ctx, err))
		}
		done[s.OID] = true
		e.progress(s.Pages, indexPageWork*s.Pages)
	}
	return nil
}

// define reads the definitions that could not be had before, and leaves out indexes that are gone.
func (e *examination) define(ctx context.Context, tx pgx.Tx, u *unit, done map[uint32]bool) error {
	var missing []index
	for _, s := range u.subjects {
		if !s.definition.known() {
			missing = append(missing, s.index)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	found, err := definitions(ctx, tx, missing)
	if err != nil {
		return err
	}
	var there []subject
	for _, s := range u.subjects {
		if !s.definition.known() {
			s.definition = found[s.OID]
		}
		if s.definition.known() {
			there = append(there, s)
			continue
		}
		e.forget(s.index)
		done[s.OID] = true
	}
	u.subjects = there
	return nil
}

func (d definition) known() bool { return len(d.Keys) > 0 }

// contents reads what ought to be in the indexes of the unit: from one reading of the table, or, where an expression in one
// of them fails, for each that can be had.
func (e *examination) contents(ctx context.Context, tx pgx.Tx, u unit) (map[uint32]expected, error) {
	var wanted []definition
	for _, s := range u.subjects {
		wanted = append(wanted, s.definition)
	}
	found, err := contents(ctx, tx, u.subjects[0].index, wanted)
	all := map[uint32]expected{}
	if err == nil {
		for i, s := range u.subjects {
			all[s.OID] = expected{content: found[i]}
		}
		return all, nil
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code == lockNotAvailable || ctx.Err() != nil {
		return nil, err
	}
	if len(u.subjects) == 1 {
		return map[uint32]expected{u.subjects[0].OID: {err: err}}, nil
	}
	for _, s := range u.subjects {
		found, err := contents(ctx, tx, s.index, []definition{s.definition})
		if err == nil {
			all[s.OID] = expected{content: found[0]}
			continue
		}
		if ctx.Err() != nil {
			return nil, err
		}
		all[s.OID] = expected{err: err}
	}
	return all, nil
}

// expected is what ought to be in an index, or why that is not known.
type expected struct {
	content
	err error
}

// inspect examines one index. An error means that something about it is not known; what was found before is reported.
func (e *examination) inspect(ctx context.Context, tx pgx.Tx, s subject, visible bool, ought expected) error {
	if !s.Valid || !s.Ready {
		e.note(func() { e.invalid++ })
		return e.apartness(ctx, tx, s)
	}
	if ought.err != nil {
		return ought.err
	}
	proved, err := e.order(ctx, tx, s, visible, ought.content)
	if err != nil && (ctx.Err() != nil || tx.Conn().IsClosed()) {
		return err
	}
	if message := corruption(err); message != "" { // a page that can't be read
		e.find(e.outOfOrder(s.index, disorder{Method: "SQL", Message: message}))
		e.note(func() { e.bySQL++ })
		err = nil
	}
	if !s.Unique {
		return err
	}
	if proved {
		e.note(func() { e.apart++ })
		return nil
	}
	return errors.Join(err, e.apartness(ctx, tx, s))
}

// apartness looks in the table itself for keys that a unique index should have kept apart.
func (e *examination) apartness(ctx context.Context, tx pgx.Tx, s subject) error {
	if !s.Unique {
		return nil
	}
	if !s.repeats {
		groups, keys, rows, err := findDuplicates(ctx, tx, s.index, s.definition, duplicatesShown)
		if err != nil {
			return err
		}
		if keys > 0 {
			e.find(e.duplicated(s.index, s.definition, groups, keys, rows))
		}
	}
	e.note(func() { e.apart++ })
	return nil
}

// order examines an index's order and content. It is proved apart when, of a unique one, that says that no key is there twice.
func (e *examination) order(ctx context.Context, tx pgx.Tx, s subject, visible bool, ought content) (apart bool, err error) {
	if e.function == "" {
		return e.orderBySQL(ctx, tx, s, ought)
	}
	return e.orderByAmcheck(ctx, tx, s, visible, ought)
}

// orderByAmcheck leaves the order to amcheck, and compares the content itself: that takes amcheck, which goes through the
// table for each index, twice as long. Where the index can't be read without the table it is amcheck that looks.
func (e *examination) orderByAmcheck(ctx context.Context, tx pgx.Tx, s subject, visible bool, ought content) (apart bool, err error) {
	const method = "amcheck"
	fault, err := amcheck(ctx, tx, e.function, s.index, false)
	if err != nil {
		return false, err
	}
	if fault != "" {
		e.find(e.outOfOrder(s.index, disorder{Method: method, Message: fault}))
		e.note(func() { e.byAmcheck++ })
		return false, nil
	}
	if visible {
		apart, err := e.compareContent(ctx, tx, s, ought)
		if err == nil {
			e.note(func() { e.byAmcheck++ })
		}
		if _, otherwise := errors.AsType[*notExamined](err); !otherwise {
			return apart, err
		}
	}
	if fault, err = amcheck(ctx, tx, e.function, s.index, true); err != nil {
		return false, err
	}
	if fault != "" {
		e.find(e.outOfOrder(s.index, disorder{Method: method, Message: fault}))
	}
	e.note(func() { e.byAmcheck++ })
	return false, nil
}

// compareContent compares what an index that is in order holds with its table. It fails with *notExamined when the index
// can't be read without the table.
func (e *examination) compareContent(ctx context.Context, tx pgx.Tx, s subject, ought content) (apart bool, err error) {
	if s.Unique {
		kind := distinct
		if !s.NullsNotDistinct && len(s.definition.notNull(s.definition.names())) > 0 {
			kind = compared
		}
		w, err := walk(ctx, tx, s.index, s.definition, kind, true)
		if err != nil {
			return false, err
		}
		if w.content == ought && w.Repeated == 0 && w.Inversions == 0 {
			return s.definition.hashed(), nil
		}
	}
	w, err := walk(ctx, tx, s.index, s.definition, counted, true)
	if err == nil && w.content != ought {
		e.find(e.incomplete(s.index, "amcheck and SQL", w.content, ought))
	}
	return false, err
}

// orderBySQL compares neighbours, in one reading of the index.
func (e *examination) orderBySQL(ctx context.Context, tx pgx.Tx, s subject, ought content) (apart bool, err error) {
	const method = "SQL"
	w, err := walk(ctx, tx, s.index, s.definition, compared, false)
	if _, unread := errors.AsType[*notExamined](err); unread && ought.Rows <= 1 && !e.gone(ctx, tx, s.index) { // which can't be in a wrong order
		w, err = walked{content: ought}, nil
	}
	if err != nil {
		return false, err
	}
	e.note(func() { e.bySQL++ })
	switch {
	case w.Inversions > 0:
		o := disorder{Method: method, Inversions: w.Inversions}
		if o.Places, err = places(ctx, tx, s.index, s.definition, placesShown); err != nil && ctx.Err() != nil {
			return false, err // without a place it is still out of order
		}
		e.find(e.outOfOrder(s.index, o))
		return false, nil
	case w.content != ought:
		e.find(e.incomplete(s.index, method, w.content, ought))
		return false, nil
	}
	return w.Repeated == 0 && s.definition.hashed(), nil
}

// hashed: each key counts in the fingerprint.
func (d definition) hashed() bool {
	for _, k := range d.Keys {
		if k.Hash == "" {
			return false
		}
	}
	return true
}

// gone: the index was dropped, or replaced by a REINDEX CONCURRENTLY, since the survey. The function looks at the catalog as it is now.
func (e *examination) gone(ctx context.Context, tx pgx.Tx, x index) bool {
	var gone bool
	err := within(ctx, tx, nil, nil, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, "SELECT pg_table_is_visible($1::oid) IS NULL", x.OID).Scan(&gone)
	})
	return err == nil && gone
}
