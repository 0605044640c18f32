package locale

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// operations mend the damage, and put that back. Each goes on where an earlier execution of the same step was interrupted,
// at whatever instant, and does nothing twice: what is done is recorded in the target by the transaction that does it
// ([ledger]), and what is removed is in the host's journal before that commits.
var operations = map[string]doctor.OperationFunc{
	opExamine:     examine,
	opInPlace:     inPlace,
	opUndoInPlace: undoInPlace,
	opReindex:     reindex,
	opUndoReindex: undoReindex,
}

const (
	opExamine     = "examine"
	opInPlace     = "in-place"
	opUndoInPlace = "undo-in-place"
	opReindex     = "reindex"
	opUndoReindex = "undo-reindex"
)

// mender is one execution of an operation.
type mender struct {
	ledger
	*progress
	params params
	db     *doctor.Database // the superuser's login to it
	host   doctor.OperationHost
	saving sync.Mutex // one Save at a time
	// onlyValid: an invalid index is not there for this work.
	onlyValid bool
}

// newMender finds the database of the step, as the administrator sees it.
func newMender(t *doctor.Target, step doctor.OperationStep, h doctor.OperationHost) (*mender, error) {
	p, err := readParams(step.Params)
	if err != nil {
		return nil, err
	}
	d := t.Database(p.Database)
	if d == nil {
		return nil, doctor.Unchanged("The plan is for the database entry %q, which is no longer configured.", p.Database)
	}
	admin := t.AdminIn(d)
	if admin == nil {
		return nil, doctor.Unchanged("There is no administrator's connection to %s.", d.Where())
	}
	return &mender{ledger: ledger{key: p.Key}, progress: &progress{host: h}, params: p, db: admin, host: h}, nil
}

// lockPatience is how long a statement waits for a lock: an autovacuum gives way after a second, a backup does not.
const lockPatience = "30s"

// sessionSettings are those of a session that mends: nothing ends it in the middle, text is written in a form that reads back
// exactly, names mean what they mean to PostgreSQL, and what is committed is on disk.
var sessionSettings = [][2]string{
	{"statement_timeout", "0"}, {"idle_in_transaction_session_timeout", "0"}, {"transaction_timeout", "0"}, {"idle_session_timeout", "0"},
	{"lock_timeout", lockPatience}, {"search_path", "pg_catalog"}, {"default_transaction_read_only", "off"}, {"default_transaction_isolation", "read committed"},
	{"bytea_output", "hex"}, {"DateStyle", "ISO"}, {"IntervalStyle", "postgres"}, {"extra_float_digits", "1"},
	{"role", "none"}, {"jit", "off"}, {"work_mem", "64MB"},
}

// open opens a session that may write. Its locale is what the catalog says at this moment, and stays that.
func (m *mender) open(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgdb.Connect(ctx, m.db.Settings, m.db.Options())
	if err != nil {
		return nil, fmt.Errorf("the administrator's connection: %w", err)
	}
	var names, values []string
	for _, s := range sessionSettings {
		names, values = append(names, s[0]), append(values, s[1])
	}
	_, err = conn.Exec(ctx, `SELECT set_config(s.name, v.value, false) FROM unnest($1::text[], $2::text[]) AS v(name, value)
		JOIN pg_settings s ON lower(s.name) = lower(v.name)
		UNION ALL SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`, names, values)
	if err != nil {
		pgdb.Close(conn)
		return nil, fmt.Errorf("set up a session: %w", err)
	}
	return conn, nil
}

// inTx calls fn in a transaction without triggers, rules and the actions of foreign keys: a removed row takes no other row with
// it, and one that is put back is put back as it was.
func inTx(ctx context.Context, conn *pgx.Conn, fn func(pgx.Tx) error) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, `SET LOCAL session_replication_role = replica`); err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// atOnce is how many sessions work at the same time.
const atOnce = 2

// each calls do for every item, in their order, in two sessions that are opened now. The first error ends both.
func each[T any](ctx context.Context, m *mender, items []T, do func(ctx context.Context, conn *pgx.Conn, item T) error) error {
	if len(items) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan T, len(items))
	for _, item := range items {
		queue <- item
	}
	close(queue)
	var wg sync.WaitGroup
	for range min(atOnce, len(items)) {
		conn, err := m.open(ctx)
		if err != nil {
			cancel(err)
			break
		}
		wg.Go(func() {
			defer pgdb.Close(conn)
			for item := range queue {
				if ctx.Err() != nil {
					return
				}
				if err := do(ctx, conn, item); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// job is the work on one table: its indexes are rebuilt, and the rows that keep that from being done are removed.
type job struct {
	Schema, Table string
	OID           uint32
	Indexes       []index
	Bytes         int64 // of what is read and written, for progress
}

// unit names the work in the ledger and the archive.
func (j job) unit() string { return rowsOf + j.name() }

const rowsOf = "rows of "

func (j job) name() string { return identifier(j.Schema, j.Table) }

// alsoQuery lists indexes whose expression or predicate depends on the database's own collation though no key of theirs
// has it: lower() gives another text under another CTYPE. $1 are those that are known already. The default collation is in
// no pg_depend, only in the stored expression.
const alsoQuery = `SELECT c.oid, n.nspname, c.relname, t.relname, t.oid, a.amname, i.indisunique, i.indisprimary, i.indisvalid, i.indisready,
  coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false),
  pg_relation_size(c.oid) / current_setting('block_size')::int, pg_relation_size(c.oid), pg_relation_size(t.oid), t.reltuples::bigint,
  '{}'::text[], true
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam
WHERE coalesce(i.indexprs::text, '') || coalesce(i.indpred::text, '') ~ ':(inputcollid|opcollid|funccollid|collid) 100\M'
  AND c.oid <> ALL ($1::oid[]) AND c.relkind = 'i' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND c.relpersistence <> 't'`

// jobs lists what is to be done, the largest table first. In all, these are the indexes that depend on a locale; otherwise those that
// the plan names.
func (m *mender) jobs(ctx context.Context, conn *pgx.Conn) ([]job, error) {
	var all []index
	var left []invalidIndex
	err := inTx(ctx, conn, func(tx pgx.Tx) (err error) {
		if all, err = indexes(ctx, tx); err != nil {
			return err
		}
		known := make([]uint32, 0, len(all))
		for _, x := range all {
			known = append(known, x.OID)
		}
		rows, err := tx.Query(ctx, alsoQuery, known)
		if err != nil {
			return fmt.Errorf("list the indexes over expressions: %w", err)
		}
		also, err := pgx.CollectRows(rows, pgx.RowToStructByPos[index])
		if err != nil {
			return fmt.Errorf("list the indexes over expressions: %w", err)
		}
		if m.params.All {
			all = append(all, also...)
		}
		left, err = invalidIndexes(ctx, tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	byTable := map[uint32]*job{}
	of := func(x index) *job {
		j := byTable[x.TableOID]
		if j == nil {
			j = &job{Schema: x.Schema, Table: x.Table, OID: x.TableOID, Bytes: x.TableBytes}
			byTable[x.TableOID] = j
		}
		return j
	}
	for _, x := range all {
		switch {
		case x.Schema == ledgerSchema, slices.ContainsFunc(left, func(l invalidIndex) bool { return l.OID == x.OID && l.leftover() }):
		case m.params.All && (x.ByDefault || len(x.Locales) > 0), m.params.names(x.qualified()):
			j := of(x)
			j.Indexes = append(j.Indexes, x)
			j.Bytes += x.Bytes
		}
	}
	var jobs []job
	for _, j := range byTable {
		jobs = append(jobs, *j)
	}
	slices.SortFunc(jobs, func(a, b job) int {
		if a.Bytes != b.Bytes {
			return int(max(-1, min(1, b.Bytes-a.Bytes)))
		}
		return strings.Compare(a.name(), b.name())
	})
	return jobs, nil
}

// dropLeftovers drops what failed builds have left, whatever it is over.
func (m *mender) dropLeftovers(ctx context.Context, conn *pgx.Conn) error {
	var left []invalidIndex
	if err := inTx(ctx, conn, func(tx pgx.Tx) (err error) { left, err = invalidIndexes(ctx, tx); return err }); err != nil {
		return err
	}
	for _, x := range left {
		if !x.leftover() || !m.params.All && !m.params.names(x.qualified()) {
			continue
		}
		m.at("Dropping " + x.Name)
		if _, err := conn.Exec(ctx, "DROP INDEX "+x.qualified()); err != nil {
			return fmt.Errorf("drop the index %s that a failed build has left: %w", x.Name, err)
		}
	}
	return nil
}

const uniqueViolation = "23505"

func hasState(err error, state string) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == state
}

// mendTables does the jobs that are not done yet.
func (m *mender) mendTables(ctx context.Context, jobs []job) error {
	for _, j := range jobs {
		m.total(j.Bytes)
	}
	return each(ctx, m, jobs, func(ctx context.Context, conn *pgx.Conn, j job) error {
		if err := m.mendTable(ctx, conn, j); err != nil {
			return fmt.Errorf("table %s: %w", j.name(), err)
		}
		m.done(j.Bytes)
		return nil
	})
}

func (m *mender) mendTable(ctx context.Context, conn *pgx.Conn, j job) error {
	ready := false
	err := inTx(ctx, conn, func(tx pgx.Tx) (err error) {
		// The chunks of an execution that has to be done again stay.
		prior, err := m.chunksOf(ctx, tx, j.unit())
		if err != nil {
			return err
		}
		if prior != nil {
			if redo, err := m.has(ctx, tx, again(j.unit())); !redo || err != nil {
				ready = !redo
				return err
			}
		}
		m.at("Locking " + j.Table)
		if err := lockTable(ctx, tx, j); err != nil {
			return err
		}
		a := &archive{m: m, unit: j.unit(), table: j.name()}
		if prior != nil {
			a.chunks = *prior
			if err := m.strike(ctx, tx, again(j.unit())); err != nil {
				return err
			}
		}
		// A unique index first: the rows that go need not be put into the others.
		ordered := slices.Clone(j.Indexes)
		slices.SortStableFunc(ordered, func(x, y index) int {
			switch {
			case x.Unique == y.Unique:
				return 0
			case x.Unique:
				return -1
			}
			return 1
		})
		for _, x := range ordered {
			m.at("Rebuilding " + x.Name)
			if err := m.rebuildIndex(ctx, tx, j, x, a); err != nil {
				return err
			}
		}
		if err := a.flush(ctx); err != nil {
			return err
		}
		if err := m.enter(ctx, tx, j.unit(), a.chunks); err != nil {
			return err
		}
		m.at("Finishing " + j.Table)
		return nil
	})
	if err != nil || ready {
		return err
	}
	return m.analyze(ctx, conn, j)
}

// analyze ends the work on a table whose locale has changed: the planner's statistics hold text in order, too.
func (m *mender) analyze(ctx context.Context, conn *pgx.Conn, j job) error {
	m.at("Done with " + j.Table)
	if !m.params.Edit {
		return nil
	}
	if _, err := conn.Exec(ctx, "ANALYZE "+j.name()); err != nil {
		return fmt.Errorf("gather statistics: %w", err)
	}
	return nil
}

// lockTable keeps everybody away from the table until the end of the transaction. A materialized view can't be locked so; its
// rows are not changed here.
func lockTable(ctx context.Context, tx pgx.Tx, j job) error {
	var kind string
	if err := tx.QueryRow(ctx, `SELECT relkind::text FROM pg_class WHERE oid = $1`, j.OID).Scan(&kind); err != nil {
		return fmt.Errorf("look for the table: %w", err)
	}
	if kind == "m" {
		return nil
	}
	if _, err := tx.Exec(ctx, "LOCK TABLE ONLY "+j.name()+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		return fmt.Errorf("lock it: %w", err)
	}
	return nil
}

// rebuildIndex rebuilds one index. It is its uniqueness that the rebuilding proves: rows are looked for only when that fails.
func (m *mender) rebuildIndex(ctx context.Context, tx pgx.Tx, j job, x index, a *archive) error {
	err := savepoint(ctx, tx, func() error {
		_, err := tx.Exec(ctx, reindexStatement(x))
		return err
	})
	if !hasState(err, uniqueViolation) {
		return wrapIndex(x, err)
	}
	if err := m.removeDuplicates(ctx, tx, j, x, a); err != nil {
		return err
	}
	m.at("Rebuilding " + x.Name)
	_, err = tx.Exec(ctx, reindexStatement(x))
	return wrapIndex(x, err)
}

func reindexStatement(x index) string { return "REINDEX INDEX " + x.qualified() }

func wrapIndex(x index, err error) error {
	if err != nil {
		return fmt.Errorf("rebuild index %s: %w", x.Name, err)
	}
	return nil
}

// savepoint calls fn and takes back what it did in the transaction when it fails.
func savepoint(ctx context.Context, tx pgx.Tx, fn func() error) error {
	if _, err := tx.Exec(ctx, "SAVEPOINT doctor"); err != nil {
		return err
	}
	if err := fn(); err != nil {
		if _, back := tx.Exec(ctx, "ROLLBACK TO SAVEPOINT doctor"); back != nil {
			return back
		}
		return err
	}
	_, err := tx.Exec(ctx, "RELEASE SAVEPOINT doctor")
	return err
}
