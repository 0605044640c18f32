package port

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pghash"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// decision is what is to be done with a table.
type decision uint8

const (
	asItIs   decision = iota // what is stored is what the file has
	loadRest                 // rows that no chunk has yet, which may be all
	rewrite                  // the rows are the same, under other rowids: only the record of the chunks is new
	loadAnew                 // something in it has changed: everything, in one transaction
)

// chunkRecord is a row of port_chunk.
type chunkRecord struct {
	Name              string
	First, Last       int64
	Rows              int64
	Source            string
	FirstKey, LastKey []byte
}

// tableState is a table, and how far it is.
type tableState struct {
	Table
	recorded, whole, verified bool
	chunks                    []chunkRecord // by rowid
	odd                       bool          // it has rows in quarantine, or changed cells
	dependent                 bool          // it has rows in quarantine that would be stored if other tables held something else

	decision decision
	gaps     []span // spans outside the chunks that have rows
	size     size   // of what is to be read
	weight   int64  // what the table costs in all

	mu       sync.Mutex
	differs  bool
	rows     int64 // that were read
	sum      pghash.Sum
	left     int  // load jobs
	disorder bool // see errDisorder
	unique   []object
	objects  int // that are to be made again
	keys     int // foreign keys of it that are to be made again
	proving  bool
}

var all = span{math.MinInt64, math.MaxInt64}

const chunksQuery = `SELECT name, first, last, rows, source_sum::text, first_key, last_key FROM synapse_doctor.port_chunk ORDER BY name, first`

// readStates reads what is recorded of the tables.
func readStates(ctx context.Context, conn *pgx.Conn, tables []Table) ([]*tableState, error) {
	states := make([]*tableState, len(tables))
	byName := map[string]*tableState{}
	for i, t := range tables {
		states[i] = &tableState{Table: t}
		byName[t.Name] = states[i]
	}
	rows, err := conn.Query(ctx, `SELECT name, whole, verified, coalesce(key, '{}'), EXISTS (SELECT FROM synapse_doctor.port_quarantine q WHERE q.name = t.name),
  EXISTS (SELECT FROM synapse_doctor.port_change c WHERE c.name = t.name) FROM synapse_doctor.port_table t`)
	if err != nil {
		return nil, fmt.Errorf("read how far the port is: %w", err)
	}
	var name string
	var whole, verified, lost, changed bool
	var key []string
	_, err = pgx.ForEachRow(rows, []any{&name, &whole, &verified, &key, &lost, &changed}, func() error {
		if s := byName[name]; s != nil {
			if len(key) > 0 {
				s.Key = slices.Clone(key)
			}
			s.recorded, s.whole, s.verified, s.odd = true, whole, verified, lost || changed
			s.dependent = lost && s.triggered
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read how far the port is: %w", err)
	}
	orphaned, err := orphanedTables(ctx, conn)
	if err != nil {
		return nil, err
	}
	for name := range orphaned {
		if s := byName[name]; s != nil {
			s.dependent = true
		}
	}
	rows, err = conn.Query(ctx, chunksQuery)
	if err != nil {
		return nil, fmt.Errorf("read how far the port is: %w", err)
	}
	chunks, err := pgx.CollectRows(rows, pgx.RowToStructByPos[chunkRecord])
	if err != nil {
		return nil, fmt.Errorf("read how far the port is: %w", err)
	}
	for _, c := range chunks {
		if s := byName[c.Name]; s != nil {
			s.chunks = append(s.chunks, c)
		}
	}
	return states, nil
}

// examineChunks is how many chunks are read in one job.
const examineChunks = 4

// examine reads the file along the recorded chunks, and decides what is to be done.
func (p *porting) examine(ctx context.Context, _ *pgx.Conn) error {
	var known int64
	for _, s := range p.states {
		for _, c := range s.chunks {
			known += c.Rows
		}
	}
	p.track.count("rows", known)
	if known > 0 {
		p.track.say("compare the file with what has been copied")
	}
	q := newQueue()
	for _, s := range p.states {
		if s.decision == loadAnew {
			continue
		}
		if len(s.chunks) == 0 || !s.ordered() {
			q.add(&job{name: s.Name, run: func(ctx context.Context, w *worker) error { return s.examine(ctx, w, 0, len(s.chunks)) }})
			continue
		}
		for from := 0; from < len(s.chunks); from += examineChunks {
			to := min(from+examineChunks, len(s.chunks))
			var bytes int64
			for _, c := range s.chunks[from:to] {
				bytes += c.Rows
			}
			q.add(&job{name: s.Name, cost: bytes, run: func(ctx context.Context, w *worker) error { return s.examine(ctx, w, from, to) }})
		}
	}
	if err := p.work(q); err != nil {
		return err
	}
	q = newQueue()
	for _, s := range p.states {
		slices.SortFunc(s.gaps, func(a, b span) int {
			if a.low < b.low {
				return -1
			}
			return 1
		})
		switch {
		case s.decision == loadAnew:
		case s.differs:
			s.decision = loadAnew
			if s.mayHaveMoved() {
				q.add(&job{name: s.Name, run: s.examineMove})
			}
		case len(s.gaps) > 0:
			s.decision = loadRest
		}
	}
	if err := p.work(q); err != nil {
		return err
	}
	// A row whose parent was missing, or that a trigger refused, may be stored now.
	changed := slices.ContainsFunc(p.states, func(s *tableState) bool { return s.decision == loadRest || s.decision == loadAnew })
	for _, s := range p.states {
		if changed && s.dependent {
			s.decision = loadAnew
		}
		if s.decision == loadAnew {
			s.gaps = nil
		}
	}
	return p.measure(ctx)
}

// examine reads the chunks from one to another, not included, and looks for rows before each, and after the last of all.
func (s *tableState) examine(ctx context.Context, w *worker, from, to int) error {
	if err := w.p.stopped(); err != nil {
		return err
	}
	r, err := newReader(w.file, s.Table, span{})
	if err != nil {
		return err
	}
	defer r.Close()
	r.unbounded()
	r.quiet = true
	for i := from; i < to; i++ {
		record := &s.chunks[i]
		if err := r.readAll(ctx, span{record.First, record.Last}, &w.buf); err != nil {
			return err
		}
		c := &r.chunk
		s.add(c, c.rows != record.Rows || c.source.String() != record.Source || !slices.Equal(c.firstKey, record.FirstKey) || !slices.Equal(c.lastKey, record.LastKey))
		w.p.track.advance(s.Name, c.sent, c.rows)
	}
	if err := w.p.guard.check(); err != nil || !s.ordered() && len(s.chunks) > 0 {
		return err
	}
	low := int64(math.MinInt64)
	if from > 0 {
		low = s.chunks[from-1].Last + 1
	}
	for i := from; i < to; i++ {
		if high := s.chunks[i].First; high > low {
			if err := s.lookForRows(ctx, w, span{low, high - 1}); err != nil {
				return err
			}
		}
		low = s.chunks[i].Last + 1
	}
	if to == len(s.chunks) && (to == 0 || s.chunks[to-1].Last < math.MaxInt64) {
		return s.lookForRows(ctx, w, span{low, math.MaxInt64})
	}
	return nil
}

func (s *tableState) add(c *chunk, differs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows += c.rows
	s.sum.AddSum(c.source)
	s.differs = s.differs || differs
}

// lookForRows keeps the span where the file has rows in it.
func (s *tableState) lookForRows(ctx context.Context, w *worker, at span) error {
	there, err := s.hasRows(ctx, w.file, at)
	if err != nil || !there {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gaps = append(s.gaps, at)
	return nil
}

// from is what a statement reads the table's rowids from.
func (t Table) from() string {
	if t.search() {
		return quoteSQLite(t.Source) + " c"
	}
	return quoteSQLite(t.Source)
}

func (t Table) hasRows(ctx context.Context, file *sqlitedb.DB, at span) (bool, error) {
	where := ""
	if t.ordered() {
		where = fmt.Sprintf(" WHERE %s BETWEEN %d AND %d", t.rowid, at.low, at.high)
	}
	return hasRow(ctx, file, "SELECT 1 FROM "+t.from()+where+" LIMIT 1")
}

// mayHaveMoved reports whether the table's rows could all be there still, under other rowids, and whether that can be told: of what
// the server casts, and of rows that are stored otherwise than they are, more is recorded than the hashes of the file.
func (s *tableState) mayHaveMoved() bool {
	return s.whole && !s.odd && s.ordered() && newEncoder(s.Table).binary
}

// examineMove compares the rows of the whole table, in whatever order, with those of the chunks.
func (s *tableState) examineMove(ctx context.Context, w *worker) error {
	r, err := newReader(w.file, s.Table, span{})
	if err != nil {
		return err
	}
	defer r.Close()
	r.unbounded()
	r.quiet = true
	for _, at := range s.gaps {
		if err := r.readAll(ctx, at, &w.buf); err != nil {
			return err
		}
		s.add(&r.chunk, false)
	}
	var rows int64
	var sum pghash.Sum
	for _, c := range s.chunks {
		recorded, err := pghash.ParseSum(c.Source)
		if err != nil {
			return err
		}
		rows += c.Rows
		sum.AddSum(recorded)
	}
	if rows == s.rows && sum.Equal(s.sum) {
		s.decision, s.gaps = rewrite, nil
	}
	return nil
}

// readAll reads a span as one chunk, for its hashes.
func (r *reader) readAll(ctx context.Context, at span, buf *[]byte) error {
	r.begin()
	r.ended, r.span = false, at
	if err := errors.Join(r.stmt.Reset(), bindSpan(r.stmt, r.enc.t, at)); err != nil {
		return err
	}
	for {
		out, row, err := r.next(ctx, (*buf)[:0])
		if err != nil {
			return err
		}
		*buf = out
		if !row {
			return r.finish(ctx)
		}
	}
}

// size is an estimate.
type size struct{ rows, bytes int64 }

// measure estimates what is to be read, and cuts it into spans.
func (p *porting) measure(ctx context.Context) error {
	p.track.count("bytes", 0)
	q := newQueue()
	for _, s := range p.states {
		if s.decision == asItIs {
			continue
		}
		q.add(&job{name: s.Name, run: func(ctx context.Context, w *worker) error {
			spans := s.gaps
			if s.decision != loadRest {
				spans = []span{all}
			}
			var cut []span
			for _, at := range spans {
				n, parts, err := estimate(ctx, w.file, s.Table, at, partChunks*p.w.chunkRows())
				if err != nil {
					return err
				}
				s.size.rows += n.rows
				s.size.bytes += n.bytes
				cut = append(cut, parts...)
			}
			if s.decision == loadRest {
				s.gaps = cut
			}
			s.weight = s.size.bytes
			if s.search() {
				s.weight += s.size.rows * searchWeight
			}
			p.track.expect(s.size.bytes)
			return nil
		}})
	}
	return p.work(q)
}

// searchWeight is what making a search vector costs, in bytes of other rows.
const searchWeight = 1500

const (
	samples    = 8  // places of a span that are looked at
	sampleRows = 16 // rows at each
	partChunks = 5  // of a span that is loaded by one session, where its rows are small
	partBytes  = 48 << 20
	mostParts  = 512
)

// estimate looks at rows of some places of the span, and cuts it into parts that can be loaded side by side.
func estimate(ctx context.Context, file *sqlitedb.DB, t Table, at span, partRows int64) (size, []span, error) {
	r, err := newReader(file, t, at)
	if err != nil {
		return size{}, nil, err
	}
	defer r.Close()
	r.unbounded()
	r.quiet = true
	if !t.ordered() {
		n, err := file.Int(ctx, "SELECT count(*) FROM "+quoteSQLite(t.Source))
		return size{n, n * 100}, []span{at}, err
	}
	// Together they would scan the table.
	ends := [2]int64{at.low, at.high}
	for i, function := range []string{"min", "max"} {
		err := eachRow(ctx, file, fmt.Sprintf("SELECT %s(%s) FROM %s WHERE %[2]s BETWEEN %[4]d AND %[5]d", function, t.rowid, t.from(), at.low, at.high), func(s *sqlitedb.Stmt) error {
			if s.Class(0) == sqlitedb.Null {
				ends = [2]int64{0, -1}
			} else if ends[1] >= ends[0] {
				ends[i] = s.Int(0)
			}
			return nil
		})
		if err != nil {
			return size{}, nil, err
		}
	}
	if ends[1] < ends[0] {
		return size{}, nil, nil
	}
	width := float64(ends[1]) - float64(ends[0]) + 1
	var rows, bytes int64
	var covered float64
	var buf []byte
	for i := range samples {
		low := ends[0] + int64(width/samples*float64(i))
		r.begin()
		r.ended = false
		if err := errors.Join(r.stmt.Reset(), bindSpan(r.stmt, t, span{low, ends[1]})); err != nil {
			return size{}, nil, err
		}
		for range sampleRows {
			out, row, err := r.next(ctx, buf[:0])
			if err != nil {
				return size{}, nil, err
			}
			if buf = out; !row {
				break
			}
		}
		c := &r.chunk
		if c.rows == 0 {
			covered += width / samples
			continue
		}
		rows, bytes = rows+c.rows, bytes+c.sent
		covered += float64(c.last) - float64(low) + 1
	}
	if rows == 0 {
		return size{1, 100}, []span{at}, nil
	}
	n := max(1, int64(width*min(1, float64(rows)/covered)))
	estimated := size{n, n * bytes / rows}
	parts := max(1, min(mostParts, max(n/partRows, estimated.bytes/partBytes)))
	return estimated, cut(at, ends, parts), nil
}

// cut makes parts of a span, of which the first and the last reach to its ends.
func cut(at span, ends [2]int64, parts int64) []span {
	step := uint64(ends[1]-ends[0]) / uint64(parts)
	var out []span
	low := at.low
	for i := int64(1); i < parts; i++ {
		high := ends[0] + int64(step*uint64(i))
		if high <= low {
			continue
		}
		out = append(out, span{low, high})
		low = high + 1
	}
	return append(out, span{low, at.high})
}
