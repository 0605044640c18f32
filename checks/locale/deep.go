package locale

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// deep reads every index in which text is compared, and the tables of the unique ones, whatever the catalog says of the
// locale: one that was edited and cleaned up afterwards shows nothing.
//
// It proves three things of each index. Its entries are in order, by amcheck or by comparing neighbours. It holds the
// keys of the table, no more and no fewer, by comparing what both hold in one snapshot. And of a unique one: no two rows
// have the same key. In an index that is in order and holds all keys, equal ones would be neighbours; otherwise the table is
// searched without an index.
func deep(ctx context.Context, t *doctor.Target, db *doctor.Database, r doctor.Reporter) error {
	e := &examination{source: db, label: db.Label, reporter: r, started: time.Now()}
	if admin := t.AdminIn(db); admin != nil {
		e.source = admin
	}
	if err := e.source.Read(ctx, func(tx pgx.Tx) error { return e.survey(ctx, tx) }); err != nil {
		return err
	}
	limited := ctx
	if t.DeepBudget > 0 {
		var cancel context.CancelFunc
		e.deadline = e.started.Add(t.DeepBudget)
		limited, cancel = context.WithDeadlineCause(ctx, e.deadline, errBudget)
		defer cancel()
	}
	e.report()
	var wg sync.WaitGroup
	for range sessions {
		wg.Go(func() { e.work(limited) })
	}
	wg.Wait()
	for _, u := range e.pending {
		for _, s := range u.subjects {
			e.leave(s.index, budgetReason)
		}
	}
	r.Covered(e.coverage())
	if f, any := e.twins(); any {
		e.find(f)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return e.shortfall()
}

// sessions is how many tables are read at the same time.
const sessions = 2

var errBudget = errors.New("the budget is used up")

const budgetReason = "no time left in the budget"

// subject is an index with what is to be known of it before it is examined.
type subject struct {
	index
	definition definition // without a key: not known yet
	// repeats: another, valid index of the table keeps the same keys apart, so that duplicates are that one's.
	repeats bool
}

// unit is what one session examines in one snapshot: indexes of one table, and the table once for all of them.
type unit struct {
	subjects   []subject // largest first
	tablePages int64
	visible    bool // nearly all pages of the table are known to be visible to all
}

func (u unit) indexPages() (n int64) {
	for _, s := range u.subjects {
		n += s.Pages
	}
	return n
}

func (u unit) pages() int64 { return u.tablePages + u.indexPages() }

// indexPageWork is how much longer an index's page takes than a table's: it has several times as many entries, and each is compared.
const indexPageWork = 6

// work is what a unit costs, in pages of tables.
func (u unit) work() int64 { return u.tablePages + indexPageWork*u.indexPages() }

// examination is one run of deep over one database.
type examination struct {
	source   *doctor.Database
	label    string
	reporter doctor.Reporter
	function string // bt_index_check, where it may be called
	started  time.Time
	deadline time.Time // zero: none

	mu         sync.Mutex
	pending    []unit // largest first
	all        int    // indexes
	unique     int
	pagesDone  int64
	pagesTotal int64
	workDone   int64
	workTotal  int64
	byAmcheck  int
	bySQL      int
	invalid    int // not used by the server, so that their order does not matter
	apart      int // unique ones whose keys were seen to be there once, or not
	left       []leftOut
	findings   int
	folded     int
}

// survey lists what is to be examined, and how.
func (e *examination) survey(ctx context.Context, tx pgx.Tx) error {
	if err := quiet.set(ctx, tx); err != nil {
		return err
	}
	list, err := indexes(ctx, tx)
	if err != nil {
		return err
	}
	if e.function, err = findAmcheck(ctx, tx); err != nil {
		return err
	}
	e.all = len(list)
	var trees []index
	for _, x := range list {
		if x.Method == "btree" {
			trees = append(trees, x)
			continue
		}
		e.leave(x, fmt.Sprintf("the order of a %s index can't be examined", x.Method))
	}
	// What another session has to itself is asked about later: it may be given back.
	rows, err := tx.Query(ctx, heldQuery)
	if err != nil {
		return fmt.Errorf("read the locks: %w", err)
	}
	held, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err != nil {
		return fmt.Errorf("read the locks: %w", err)
	}
	free := slices.DeleteFunc(slices.Clone(trees), func(x index) bool { return slices.Contains(held, x.OID) || slices.Contains(held, x.TableOID) })
	var defined map[uint32]definition
	if err := within(ctx, tx, nil, nil, func(tx pgx.Tx) error {
		defined, err = definitions(ctx, tx, free)
		return err
	}); err != nil && ctx.Err() != nil {
		return fmt.Errorf("read the definitions of the indexes: %w", err)
	}
	tables, err := surveyTables(ctx, tx, trees)
	if err != nil {
		return err
	}
	e.divide(trees, defined, tables)
	return nil
}

// tableFacts say what reading a table costs.
type tableFacts struct {
	OID     uint32
	Pages   int64
	Visible bool
	Unread  bool // unlogged, on a standby: there is nothing in it
}

// tablesQuery asks for the pages, and whether nine in ten are known to be visible to all: then an index can be read
// without the table.
const tablesQuery = `WITH held AS MATERIALIZED (` + heldQuery + `)
SELECT c.oid, z.pages, c.relallvisible >= 0.9 * z.pages OR z.pages < 128, c.relpersistence = 'u' AND pg_is_in_recovery()
FROM pg_class c, LATERAL (SELECT CASE WHEN c.oid IN (SELECT relation FROM held) THEN c.relpages::bigint
  ELSE coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int END AS pages) z
WHERE c.oid = ANY($1)`

func surveyTables(ctx context.Context, tx pgx.Tx, list []index) (map[uint32]tableFacts, error) {
	var oids []uint32
	for _, x := range list {
		oids = append(oids, x.TableOID)
	}
	rows, err := tx.Query(ctx, tablesQuery, oids)
	if err != nil {
		return nil, fmt.Errorf("read the sizes of the tables: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[tableFacts])
	if err != nil {
		return nil, fmt.Errorf("read the sizes of the tables: %w", err)
	}
	tables := map[uint32]tableFacts{}
	for _, t := range found {
		tables[t.OID] = t
	}
	return tables, nil
}

// divide makes the units: a table's indexes together, unless that is so much that the other session would have nothing left.
func (e *examination) divide(trees []index, defined map[uint32]definition, tables map[uint32]tableFacts) {
	byTable := map[uint32]*unit{}
	kept := map[string]bool{} // what valid unique indexes keep apart
	for _, x := range trees {
		if d := defined[x.OID]; x.Unique && x.Valid && x.Ready && d.known() {
			kept[d.showDuplicates(x, false)] = true
		}
	}
	var units []*unit
	for _, x := range trees {
		if tables[x.TableOID].Unread {
			e.all--
			continue
		}
		d := defined[x.OID]
		if x.Unique {
			e.unique++
		}
		u := byTable[x.TableOID]
		if u == nil {
			t := tables[x.TableOID]
			u = &unit{tablePages: t.Pages, visible: t.Visible}
			byTable[x.TableOID] = u
			units = append(units, u)
		}
		usable := x.Valid && x.Ready
		u.subjects = append(u.subjects, subject{index: x, definition: d, repeats: !usable && d.known() && kept[d.showDuplicates(x, false)]})
	}
	var total int64
	for _, u := range units {
		total += u.work()
	}
	for _, u := range units {
		for _, part := range u.split(max(total/(2*sessions), 2*u.tablePages)) {
			e.pending = append(e.pending, part)
			e.pagesTotal += part.pages()
			e.workTotal += part.work()
		}
	}
	slices.SortStableFunc(e.pending, func(a, b unit) int { return cmp.Compare(b.work(), a.work()) })
}

// split divides a unit into some of at most this much work, if an index alone is not more. Each of them reads the table.
func (u unit) split(work int64) []unit {
	var parts []unit
	part := unit{tablePages: u.tablePages, visible: u.visible}
	for _, s := range u.subjects {
		if more := part.work() + indexPageWork*s.Pages; more > work && len(part.subjects) > 0 {
			parts = append(parts, part)
			part.subjects = nil
		}
		part.subjects = append(part.subjects, s)
	}
	return append(parts, part)
}

// work examines one unit after the other.
func (e *examination) work(ctx context.Context) {
	for ctx.Err() == nil {
		u, ok := e.next()
		if !ok {
			return
		}
		done := map[uint32]bool{}
		err := e.source.Read(ctx, func(tx pgx.Tx) error { return e.examine(ctx, tx, u, done) })
		if err == nil {
			continue
		}
		why := whyNot(ctx, err)
		for _, s := range u.subjects {
			if !done[s.OID] {
				e.leave(s.index, why)
			}
		}
	}
}

// assumedSpeed is how much work a session does in a second, until it is known better.
const assumedSpeed = 50_000

// next is the largest unit that fits into what is left of the budget, or as much of it as does.
func (e *examination) next() (unit, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	room := e.room()
	for i, u := range e.pending {
		now, later := unit{tablePages: u.tablePages, visible: u.visible}, unit{tablePages: u.tablePages, visible: u.visible}
		for _, s := range u.subjects {
			if now.work()+indexPageWork*s.Pages <= room {
				now.subjects = append(now.subjects, s)
			} else {
				later.subjects = append(later.subjects, s)
			}
		}
		if len(now.subjects) == 0 {
			continue
		}
		if len(later.subjects) == 0 {
			e.pending = slices.Delete(e.pending, i, i+1)
		} else {
			e.pending[i] = later
			e.pagesTotal += u.tablePages
			e.workTotal += u.tablePages
		}
		return now, true
	}
	return unit{}, false
}

// room is the work that a session can still do.
func (e *examination) room() int64 {
	if e.deadline.IsZero() {
		return 1 << 62
	}
	return int64(time.Until(e.deadline).Seconds() * e.speed())
}

// speed is of one session, in work for each second.
func (e *examination) speed() float64 {
	const enough = 1 // second, to know better
	if took := time.Since(e.started).Seconds(); took > enough && e.workDone > 0 {
		return float64(e.workDone) / took / sessions
	}
	return assumedSpeed
}

// progress says that pages were read.
func (e *examination) progress(pages, work int64) {
	e.mu.Lock()
	e.pagesDone += pages
	e.workDone += work
	e.mu.Unlock()
	e.report()
}

func (e *examination) report() {
	e.mu.Lock()
	p := doctor.Progress{Text: "examining indexes", Done: e.pagesDone, Total: e.pagesTotal, Unit: "pages"}
	left := time.Duration(float64(e.workTotal-e.workDone) / e.speed() / sessions * float64(time.Second))
	if e.workDone > 0 && left > 10*time.Second {
		p.Text += ", about " + left.Round(time.Second).String() + " left"
	}
	e.mu.Unlock()
	e.reporter.Progress(p)
}

const lockNotAvailable = "55P03"

// whyNot says in a few words why something could not be examined.
func whyNot(ctx context.Context, err error) string {
	const (
		insufficientPrivilege = "42501"
		queryCanceled         = "57014"
		serializationFailure  = "40001" // what a standby calls a conflict with recovery
	)
	if no, ok := errors.AsType[*notExamined](err); ok {
		return no.reason
	}
	if ctx.Err() != nil {
		if errors.Is(context.Cause(ctx), errBudget) {
			return budgetReason
		}
		return "the examination was ended"
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err.Error()
	}
	switch pg.Code {
	case lockNotAvailable:
		return "locked by another session"
	case insufficientPrivilege:
		return "not permitted: " + pg.Message
	case queryCanceled:
		return "the server cancelled it: " + pg.Message
	case serializationFailure:
		return "the standby needed to go on: " + pg.Message
	}
	return fmt.Sprintf("%s (SQLSTATE %s)", pg.Message, pg.Code)
}
