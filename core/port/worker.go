package port

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// porting is one run of a port.
type porting struct {
	w      Work
	path   string
	match  *Match
	states []*tableState
	track  *tracker
	guard  *guard
	stop   <-chan struct{} // closed when the administrator wants it to stop
	memory string          // maintenance_work_mem of a session that builds indexes

	ctx      context.Context // of all jobs; the first error ends it
	cancel   context.CancelFunc
	workers  []*worker
	queue    *queue
	mu       sync.Mutex
	plain    int // tables without triggers that are not whole
	open     int // tables that are not whole
	keys     []object
	keysLeft int
	indexes  []object
	seconds  map[string]float64 // of the sessions, by what they did
}

// worker is a session, and a connection to the file, for one job at a time.
type worker struct {
	p    *porting
	conn *pgx.Conn // nil where only the file is read
	file *sqlitedb.DB
	buf  []byte

	single bool // the server is told not to use several processes for a statement of this session
}

// pace lets the server use several processes for a statement where nothing else is to be done. Beside other work they only
// cost: what they hand each other is more than they save.
func (w *worker) pace(ctx context.Context) error {
	single := w.p.queue.busy()
	if single == w.single {
		return nil
	}
	to := "DEFAULT"
	if single {
		to = "0"
	}
	if _, err := w.conn.Exec(ctx, "SET max_parallel_maintenance_workers = "+to+"; SET max_parallel_workers_per_gather = "+to); err != nil {
		return fmt.Errorf("prepare a session: %w", err)
	}
	w.single = single
	return nil
}

func (p *porting) point(name string) {
	if p.w.trace != nil {
		p.w.trace(name)
	}
}

// stopped is an error when the administrator has asked for a stop.
func (p *porting) stopped() error {
	select {
	case <-p.stop:
		return doctor.Stopped("What has been copied is kept: run the same command again, and it goes on from there")
	default:
		return nil
	}
}

// guard notices that a file is written to while it is read.
type guard struct {
	path string
	info os.FileInfo
	wal  int64
}

func newGuard(path string) (*guard, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &guard{path, info, sizeOf(path + "-wal")}, nil
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func (g *guard) check() error {
	info, err := os.Stat(g.path)
	if err != nil {
		return fmt.Errorf("the file was taken away while it was read: %w", err)
	}
	if os.SameFile(info, g.info) && info.Size() == g.info.Size() && info.ModTime().Equal(g.info.ModTime()) && sizeOf(g.path+"-wal") == g.wal && sizeOf(g.path+"-journal") == 0 {
		return nil
	}
	return fmt.Errorf("the file %s changes while it is read: stop Synapse, or make a snapshot with synapse-doctor fix vacuum --apply and read that. What has been copied is kept: then run this again", g.path)
}

// sessionSettings: nothing that is set for the role or the database ends long statements, or changes how values are written.
const sessionSettings = `SELECT count(set_config(name, v.value, false)) FROM pg_settings JOIN (VALUES ('statement_timeout', '0'),
  ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'), ('transaction_timeout', '0'), ('row_security', 'off'),
  ('default_transaction_read_only', 'off'), ('default_transaction_isolation', 'read committed'), ('default_transaction_deferrable', 'off'),
  ('DateStyle', 'ISO, MDY'), ('IntervalStyle', 'postgres'), ('TimeZone', 'UTC'), ('extra_float_digits', '1'), ('bytea_output', 'hex'),
  ('xmloption', 'content'), ('array_nulls', 'on'), ('standard_conforming_strings', 'on'), ('client_min_messages', 'warning'), ('synchronous_commit', 'on'))
  AS v(wanted, value) ON lower(name) = lower(wanted) AND (name <> 'synchronous_commit' OR setting = 'off')`

// session opens a session in the target.
func session(ctx context.Context, d *doctor.Database) (*pgx.Conn, error) {
	conn, err := pgdb.Connect(ctx, d.Settings, d.Options())
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", d.Where(), err)
	}
	if _, err := conn.Exec(ctx, sessionSettings); err != nil {
		pgdb.Close(conn)
		return nil, fmt.Errorf("prepare a session in %s: %w", d.Where(), err)
	}
	return conn, nil
}

// hire opens the workers' connections; without a database they only read the file.
func (p *porting) hire(ctx context.Context, n int, d *doctor.Database) error {
	p.ctx, p.cancel = context.WithCancel(ctx)
	for range n {
		w := &worker{p: p}
		p.workers = append(p.workers, w)
		var err error
		if w.file, err = sqlitedb.Open(ctx, p.path); err != nil {
			return err
		}
		if d == nil {
			continue
		}
		if w.conn, err = session(ctx, d); err != nil {
			return err
		}
		// What a crash of the server takes back of these sessions, it takes back together with its place in the record. The
		// commit that calls the port complete is another session's, and waits for all before it.
		if _, err := w.conn.Exec(ctx, `SET synchronous_commit = off`); err != nil {
			return fmt.Errorf("prepare a session in %s: %w", d.Where(), err)
		}
		if _, err := w.conn.Exec(ctx, `SELECT pg_advisory_lock_shared($1, $2)`, lockClass, workersLock); err != nil {
			return fmt.Errorf("prepare a session in %s: %w", d.Where(), err)
		}
	}
	return nil
}

func (p *porting) dismiss() {
	for _, w := range p.workers {
		if w.conn != nil {
			pgdb.Close(w.conn)
		}
		if w.file != nil {
			w.file.Close()
		}
	}
	p.workers = nil
	if p.cancel != nil {
		p.cancel()
	}
}

// timed counts how long sessions do something.
func (p *porting) timed(what string, start time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seconds == nil {
		p.seconds = map[string]float64{}
	}
	p.seconds[what] += time.Since(start).Seconds()
}

// ready drops what stands in the way of the copy, and empties what is to be loaded from the beginning: in one transaction, since
// once its primary key is gone only the record knows how to tell a row of a table from the others.
func (p *porting) ready(ctx context.Context, conn *pgx.Conn) error {
	var rest, changing []Table // of the rest few rows are new, so that their indexes stay
	var fresh, names []string
	for _, s := range p.states {
		if !s.recorded {
			fresh = append(fresh, s.Ident)
		}
		if s.decision != loadRest && s.decision != loadAnew {
			continue
		}
		changing, names = append(changing, s.Table), append(names, s.Name)
		var before int64
		for _, c := range s.chunks {
			before += c.Rows
		}
		if s.decision == loadRest && s.size.rows < before/4 {
			rest = append(rest, s.Table)
		}
	}
	enter := func(tx pgx.Tx) error {
		if len(fresh) > 0 {
			if err := empty(ctx, tx, fresh); err != nil {
				return err
			}
		}
		for _, s := range p.states {
			if s.recorded {
				continue
			}
			if _, err := tx.Exec(ctx, `INSERT INTO synapse_doctor.port_table (name, key) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, s.Name, s.Key); err != nil {
				return err
			}
			s.recorded = true
		}
		_, err := tx.Exec(ctx, `UPDATE synapse_doctor.port_table SET whole = whole AND name <> ALL ($1), verified = false WHERE name = ANY ($2)`, p.namesOf(loadRest), names)
		return err
	}
	if len(changing) > 0 || len(fresh) > 0 {
		keep, err := indexNames(ctx, conn, rest)
		if err != nil {
			return err
		}
		// On the first run the indexes and keys of tables that stay empty go too: then no key is in the way of emptying one.
		tables := changing
		if len(fresh) > 0 {
			tables = p.match.Tables
			for _, s := range p.states {
				if s.recorded && s.decision == asItIs {
					more, err := indexNames(ctx, conn, []Table{s.Table})
					if err != nil {
						return err
					}
					for name := range more {
						keep[name] = true
					}
				}
			}
		}
		if err := dropObjects(ctx, conn, tables, keep, p.bare(), enter); err != nil {
			return err
		}
		p.point("dropped")
		return nil
	}
	return lockError(ctx, conn, fresh, pgx.BeginFunc(ctx, conn, enter))
}

// bareRows is how many rows a table has to have for it to be worthwhile to make its unique indexes afterwards, too.
const bareRows = 20_000

// bare are the tables that are filled without their unique indexes: large ones, of which nothing is there yet. SQLite keeps
// the same keys unique. Where it turns out that a key is there twice all the same, as it may be among the search rows, the table
// is filled anew with them.
func (p *porting) bare() []Table {
	var tables []Table
	for _, s := range p.states {
		if s.decision == loadRest && len(s.chunks) == 0 && s.size.rows >= p.w.bareRows() {
			tables = append(tables, s.Table)
		}
	}
	return tables
}

func (p *porting) namesOf(d decision) []string {
	names := []string{}
	for _, s := range p.states {
		if s.decision == d {
			names = append(names, s.Name)
		}
	}
	return names
}

// indexNames are the indexes of the tables.
func indexNames(ctx context.Context, conn *pgx.Conn, tables []Table) (map[string]bool, error) {
	oids := []uint32{}
	for _, t := range tables {
		oids = append(oids, t.OID)
	}
	rows, err := conn.Query(ctx, `SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = ANY ($1)`, oids)
	if err != nil {
		return nil, fmt.Errorf("list indexes: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list indexes: %w", err)
	}
	found := map[string]bool{}
	for _, name := range names {
		found[name] = true
	}
	return found, nil
}

// empty removes what the schema itself, or Synapse while it made it, has put into tables.
func empty(ctx context.Context, tx pgx.Tx, tables []string) error {
	var looks []string
	for i, t := range tables {
		looks = append(looks, fmt.Sprintf("SELECT %d WHERE EXISTS (SELECT FROM %s)", i, t))
	}
	rows, err := tx.Query(ctx, strings.Join(looks, " UNION ALL "))
	if err != nil {
		return fmt.Errorf("look for rows in the target: %w", err)
	}
	filled, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return fmt.Errorf("look for rows in the target: %w", err)
	}
	var names []string
	for _, i := range filled {
		names = append(names, tables[i])
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	if _, err := tx.Exec(ctx, "TRUNCATE "+strings.Join(names, ", ")); err != nil {
		return fmt.Errorf("empty the tables that the schema has filled: %w", err)
	}
	return nil
}

// copy has the workers do everything: rows, indexes, foreign keys, statistics and proof.
func (p *porting) copy(ctx context.Context, conn *pgx.Conn) error {
	pending, err := pendingObjects(ctx, conn)
	if err != nil {
		return err
	}
	p.track.say("copy")
	p.queue = newQueue()
	byIdent := map[string]*tableState{}
	for _, s := range p.states {
		byIdent[s.Ident] = s
		switch s.decision {
		case loadRest:
			s.left = len(s.gaps)
		case loadAnew, rewrite:
			s.left = 1
		case asItIs:
			if !s.whole {
				s.left = 1 // nothing is left to load; it has only to be said
			}
		}
		if s.left > 0 {
			p.open++
			if !s.triggered {
				p.plain++
			}
		}
	}
	for _, o := range pending {
		s := byIdent[o.relation]
		if o.kind == kindUnique && s == nil { // the table is not to be copied any more
			if _, err := o.restore(ctx, conn, p.memory, p.match); err != nil {
				return err
			}
			continue
		}
		if o.kind == kindUnique {
			s.unique = append(s.unique, o)
			continue
		}
		if o.kind == kindConstraint {
			p.keys = append(p.keys, o)
			p.keysLeft++
			if s != nil {
				s.keys++
				s.verified = false
			}
			continue
		}
		if s != nil {
			s.objects++
			s.weight += s.size.bytes / 2
		}
	}
	// A row may lose its parent, and with it its place, when the keys are made again.
	if _, err := conn.Exec(ctx, `UPDATE synapse_doctor.port_table t SET verified = false WHERE t.verified AND t.name = ANY ($1)`, p.unverified()); err != nil {
		return fmt.Errorf("keep the place of the port: %w", err)
	}
	for _, s := range p.states {
		if !s.triggered || p.plain == 0 || s.left == 0 {
			p.begin(s)
		}
	}
	for _, o := range pending {
		if s := byIdent[o.relation]; o.kind == kindIndex && (s == nil || s.left == 0) {
			p.queue.add(p.indexJob(o, s))
		}
	}
	p.indexes = pending
	if p.open == 0 {
		p.allWhole()
	}
	return p.work(p.queue)
}

// unverified are the tables that are still to be proved.
func (p *porting) unverified() []string {
	names := []string{}
	for _, s := range p.states {
		if !s.verified {
			names = append(names, s.Name)
		}
	}
	return names
}

// proof adds the job that proves a table, once nothing changes it any more. Whoever finds it proved later knows that it was
// analyzed too.
func (p *porting) proof(s *tableState) {
	p.mu.Lock()
	waits := s.keys > 0 && p.keysLeft > 0
	p.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left > 0 || s.objects > 0 || waits || s.proving || s.verified {
		return
	}
	s.proving = true
	p.queue.add(&job{name: s.Name, cost: s.weight / 4, shared: []string{s.Ident}, run: func(ctx context.Context, w *worker) error {
		if err := p.stopped(); err != nil {
			return err
		}
		defer p.track.begin(s.Name, 0)()
		start := time.Now()
		if err := analyze(ctx, w.conn, []Table{s.Table}); err != nil {
			return err
		}
		p.timed("statistics", start)
		p.point("proof")
		defer p.timed("proof", time.Now())
		if err := w.pace(ctx); err != nil {
			return err
		}
		return p.unlessStopped(ctx, func(ctx context.Context) error { return verify(ctx, w.conn, s.Table) })
	}})
}

// begin adds the jobs that load a table.
func (p *porting) begin(s *tableState) {
	if s.left == 0 {
		p.proof(s)
		return
	}
	cost := s.weight
	switch s.decision {
	case loadAnew:
		p.queue.add(&job{name: s.Name, cost: cost, alone: []string{s.Ident}, run: p.loading(s, p.copying(s.loadAnew))})
	case rewrite:
		p.track.note(fmt.Sprintf("the rows of %s have moved in the file since the last run, as VACUUM moves them; they are all there", s.Name))
		p.queue.add(&job{name: s.Name, cost: cost, run: p.loading(s, p.copying(s.rewrite))})
	case loadRest:
		var last int64
		if n := len(s.chunks); n > 0 {
			last = s.chunks[n-1].Last
		}
		for _, at := range s.gaps {
			inOrder := len(s.gaps) == 1 && (len(s.chunks) == 0 || at.low > last)
			p.queue.add(&job{name: s.Name, cost: cost, run: p.loading(s, p.copying(func(ctx context.Context, w *worker) error {
				return s.loadSpan(ctx, w, at, inOrder)
			}))})
		}
	default:
		p.queue.add(&job{name: s.Name, run: p.loading(s, func(context.Context, *worker) error { return nil })})
	}
}

// copying counts the time of a part that loads rows.
func (p *porting) copying(load func(context.Context, *worker) error) func(context.Context, *worker) error {
	return func(ctx context.Context, w *worker) error {
		defer p.timed("copy", time.Now())
		if err := load(ctx, w); err != nil {
			return err
		}
		return flushStatistics(ctx, w.conn)
	}
}

// loading is the job of a part of a table, after whose last what keeps its keys unique is made again, and the table is whole.
func (p *porting) loading(s *tableState, load func(context.Context, *worker) error) func(context.Context, *worker) error {
	return func(ctx context.Context, w *worker) error {
		err := load(ctx, w)
		if errors.Is(err, errDisorder) || sqlState(err) == deadlockDetected && s.decision == loadRest {
			s.mu.Lock()
			s.disorder = true
			s.mu.Unlock()
			err = nil
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.left--
		last, disorder := s.left == 0, s.disorder
		var unique []object
		switch {
		case last && disorder:
			s.left, s.disorder, s.unique = 1, false, nil
		case last:
			unique, s.unique = s.unique, nil
			s.left = len(unique)
		}
		s.mu.Unlock()
		switch {
		case !last:
			return nil
		case disorder:
			p.queue.add(&job{name: s.Name, cost: s.weight, alone: []string{s.Ident}, run: p.loading(s, p.copying(func(ctx context.Context, w *worker) error {
				if err := p.makeUnique(ctx, w, s); err != nil {
					return err
				}
				return s.loadAnew(ctx, w)
			}))})
			return nil
		case len(unique) == 0:
			return p.whole(ctx, w, s)
		}
		for _, o := range unique {
			p.queue.add(&job{name: o.name, cost: s.weight, alone: []string{o.relation}, run: p.loading(s, func(ctx context.Context, w *worker) error {
				err := p.restore(ctx, w, o, "indexes")
				if sqlState(err) == uniqueViolation {
					return errDisorder
				}
				return err
			})})
		}
		return nil
	}
}

// makeUnique empties a table in which a key is there twice, and makes what keeps its keys unique, where it is not there.
func (p *porting) makeUnique(ctx context.Context, w *worker, s *tableState) error {
	pending, err := pendingObjects(ctx, w.conn)
	if err != nil {
		return err
	}
	pending = slices.DeleteFunc(pending, func(o object) bool { return o.kind != kindUnique || o.relation != s.Ident })
	if len(pending) == 0 {
		return nil
	}
	err = pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error {
		if err := lockTables(ctx, tx, []string{s.Ident}); err != nil {
			return err
		}
		return s.clear(ctx, tx)
	})
	if err := lockError(ctx, w.conn, []string{s.Ident}, err); err != nil {
		return fmt.Errorf("copy the table %s: %w", s.Name, err)
	}
	p.point("cleared")
	for _, o := range pending {
		if err := p.restore(ctx, w, o, "indexes"); err != nil {
			return err
		}
	}
	return nil
}

// clear empties the table, and forgets what was stored in it.
func (s *tableState) clear(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, "TRUNCATE "+s.Ident); err != nil {
		return err
	}
	for _, table := range []string{"port_chunk", "port_quarantine", "port_change"} {
		if _, err := tx.Exec(ctx, "DELETE FROM synapse_doctor."+table+" WHERE name = $1", s.Name); err != nil {
			return err
		}
	}
	return nil
}

// whole says that a table is whole, and adds what can be done now.
func (p *porting) whole(ctx context.Context, w *worker, s *tableState) error {
	if _, err := w.conn.Exec(ctx, `UPDATE synapse_doctor.port_table SET whole = true, verified = verified AND $2 WHERE name = $1`, s.Name, s.decision == rewrite); err != nil {
		return fmt.Errorf("say that the table %s is whole: %w", s.Name, err)
	}
	p.point("whole")
	for _, o := range p.indexes {
		if o.kind == kindIndex && o.relation == s.Ident {
			p.queue.add(p.indexJob(o, s))
		}
	}
	s.mu.Lock()
	s.verified = s.verified && s.decision == rewrite
	s.mu.Unlock()
	p.proof(s)
	p.mu.Lock()
	p.open--
	if !s.triggered {
		p.plain--
	}
	triggered, all := p.plain == 0 && !s.triggered, p.open == 0
	p.mu.Unlock()
	if triggered {
		for _, other := range p.states {
			if other.triggered && other.left > 0 {
				p.begin(other)
			}
		}
	}
	if all {
		p.allWhole()
	}
	return nil
}

// allWhole adds the foreign keys: at first none of them valid, which takes no time but has both tables alone, so that those
// that point at the same table can be made valid beside each other.
func (p *porting) allWhole() {
	p.track.say("build indexes and keys, and verify")
	for _, o := range p.keys {
		p.queue.add(&job{name: o.name, cost: math.MaxInt64, alone: []string{o.relation, o.parent}, run: func(ctx context.Context, w *worker) error {
			if err := p.stopped(); err != nil {
				return err
			}
			if err := o.begin(ctx, w.conn); err != nil {
				return err
			}
			p.queue.add(p.keyJob(o))
			return nil
		}})
	}
}

// keyJob makes a foreign key valid, and what proves the tables that have one, after the last of them.
func (p *porting) keyJob(o object) *job {
	return &job{name: o.name, cost: o.cost, alone: []string{o.relation}, shared: []string{o.parent}, run: func(ctx context.Context, w *worker) error {
		if err := p.restore(ctx, w, o, "foreign keys"); err != nil {
			return err
		}
		p.mu.Lock()
		p.keysLeft--
		last := p.keysLeft == 0
		p.mu.Unlock()
		for _, s := range p.states {
			if last && s.keys > 0 {
				p.proof(s)
			}
		}
		return nil
	}}
}

func (p *porting) indexJob(o object, s *tableState) *job {
	cost := o.cost
	if s != nil {
		cost = max(cost, s.weight)
	}
	return &job{name: o.name, cost: cost, shared: []string{o.relation}, run: func(ctx context.Context, w *worker) error {
		if err := p.restore(ctx, w, o, "indexes"); err != nil || s == nil {
			return err
		}
		s.mu.Lock()
		s.objects--
		s.mu.Unlock()
		p.proof(s)
		return nil
	}}
}

// restore makes an object again. It is not waited for when a stop is asked for: nothing of it is lost.
func (p *porting) restore(ctx context.Context, w *worker, o object, what string) error {
	if err := p.stopped(); err != nil {
		return err
	}
	defer p.timed(what, time.Now())
	defer p.track.begin(o.name, 0)()
	if err := w.pace(ctx); err != nil {
		return err
	}
	var n int64
	err := p.unlessStopped(ctx, func(ctx context.Context) (err error) {
		n, err = o.restore(ctx, w.conn, p.memory, p.match)
		return err
	})
	if n > 0 {
		p.track.note(fmt.Sprintf("%s of %s refer to rows that are not there, and are kept in synapse_doctor.port_quarantine (%s)", count(int(n), "row"), o.relation, o.name))
	}
	if err == nil {
		p.point("restored")
	}
	return err
}

// unlessStopped does what is interrupted when a stop is asked for, since nothing of it is lost that way: the server takes it back.
func (p *porting) unlessStopped(ctx context.Context, do func(context.Context) error) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.stop:
			cancel()
		case <-inner.Done():
		}
	}()
	err := do(inner)
	if err != nil && ctx.Err() == nil && inner.Err() != nil {
		return p.stopped()
	}
	return err
}

// loadSpan stores the rows of a span that no chunk has yet.
func (s *tableState) loadSpan(ctx context.Context, w *worker, at span, inOrder bool) error {
	if err := w.p.stopped(); err != nil {
		return err
	}
	l, err := newLoader(w.conn, w.file, s.Table, at)
	if err != nil {
		return err
	}
	defer l.Close()
	l.limit(w.p.w.chunkRows())
	l.inOrder, l.check, l.buf = inOrder, w.p.guard.check, w.buf
	defer func() { w.buf = l.buf }()
	defer w.p.track.begin(s.Name, s.size.bytes/int64(max(1, len(s.gaps))))()
	for more := true; more; {
		if err := w.p.stopped(); err != nil {
			return err
		}
		s.mu.Lock()
		disorder := s.disorder
		s.mu.Unlock()
		if disorder {
			return nil
		}
		w.p.point("chunk")
		if more, err = l.next(ctx); err != nil {
			return s.failed(err)
		}
		w.p.track.advance(s.Name, l.r.chunk.sent, l.r.chunk.rows)
		w.p.tell(s, &l.r.chunk)
	}
	return nil
}

func (s *tableState) failed(err error) error {
	if errors.Is(err, errDisorder) || sqlState(err) == deadlockDetected {
		return err
	}
	return fmt.Errorf("copy the table %s: %w", s.Name, err)
}

// tell says at once that rows could not be stored.
func (p *porting) tell(s *tableState, c *chunk) {
	if n := len(c.lost); n > 0 {
		p.track.note(fmt.Sprintf("%s of %s can't be stored, and %s kept in synapse_doctor.port_quarantine: %s: %s", count(n, "row"), s.Name, isAre(n), c.lost[0].key, c.lost[0].reason))
	}
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// loadAnew replaces everything that is stored of the table, in one transaction.
func (s *tableState) loadAnew(ctx context.Context, w *worker) (err error) {
	defer w.p.track.begin(s.Name, s.size.bytes)()
	err = pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error {
		if err := lockTables(ctx, tx, []string{s.Ident}); err != nil {
			return err
		}
		if err := s.clear(ctx, tx); err != nil {
			return err
		}
		l, err := newLoader(w.conn, w.file, s.Table, all)
		if err != nil {
			return err
		}
		defer l.Close()
		l.limit(w.p.w.chunkRows())
		l.inOrder, l.inside, l.check, l.buf = true, true, w.p.guard.check, w.buf
		defer func() { w.buf = l.buf }()
		for more := true; more; {
			if err := w.p.stopped(); err != nil {
				return err
			}
			w.p.point("chunk")
			if more, err = l.next(ctx); err != nil {
				return err
			}
			w.p.track.advance(s.Name, l.r.chunk.sent, l.r.chunk.rows)
			w.p.tell(s, &l.r.chunk)
		}
		return nil
	})
	if err := lockError(ctx, w.conn, []string{s.Ident}, err); err != nil {
		return fmt.Errorf("copy the table %s: %w", s.Name, err)
	}
	return nil
}

// rewrite records the chunks anew: the rows are those that are stored, under other rowids.
func (s *tableState) rewrite(ctx context.Context, w *worker) error {
	if err := w.p.stopped(); err != nil {
		return err
	}
	l, err := newLoader(w.conn, w.file, s.Table, all)
	if err != nil {
		return err
	}
	defer l.Close()
	l.limit(w.p.w.chunkRows())
	return pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM synapse_doctor.port_chunk WHERE name = $1`, s.Name); err != nil {
			return err
		}
		for !l.r.ended {
			l.r.begin()
			for row := true; row; {
				if w.buf, row, err = l.r.next(ctx, w.buf[:0]); err != nil {
					return err
				}
				if row {
					l.r.chunk.keep(l.r.enc.hash)
				}
			}
			if l.r.chunk.rows == 0 {
				break
			}
			if err := l.r.finish(ctx); err != nil {
				return err
			}
			if err := l.record(ctx); err != nil {
				return err
			}
		}
		return w.p.guard.check()
	})
}
