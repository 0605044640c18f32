package port

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pghash"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// Scan reads every row of the file at path, and hands over what can't be stored as it is: by the same rules as the copy, and
// as far as that can be told without storing it. Rows of search that a key of the target allows only once are told of, and rows
// whose parent is missing; what a trigger or a CHECK of the target refuses is not. It calls each from several goroutines, one
// at a time.
func (m *Match) Scan(ctx context.Context, path string, progress func(doctor.Progress), each func(Oddity)) (err error) {
	p, err := m.reading(ctx, path, progress)
	if err != nil {
		return err
	}
	defer p.dismiss()
	defer func() { err = p.guard.explain(err) }()
	p.track.say("look for what does not fit")
	var mu sync.Mutex
	tell := func(found []Oddity) {
		mu.Lock()
		defer mu.Unlock()
		for _, o := range found {
			each(o)
		}
	}
	q := newQueue()
	var searched []uint64
	for _, s := range p.states {
		for _, at := range s.gaps {
			q.add(&job{name: s.Name, cost: s.size.bytes, run: func(ctx context.Context, w *worker) error {
				hashes, err := s.scan(ctx, w, at, tell)
				mu.Lock()
				defer mu.Unlock()
				searched = append(searched, hashes...)
				return err
			}})
		}
	}
	for _, k := range m.keys {
		q.add(&job{name: k.Name, run: func(ctx context.Context, w *worker) error { return m.scanOrphans(ctx, w, k, tell) }})
	}
	if err := p.work(q); err != nil {
		return err
	}
	return p.scanDuplicates(ctx, searched, tell)
}

// reading prepares a run that only reads the file.
func (m *Match) reading(ctx context.Context, path string, progress func(doctor.Progress)) (*porting, error) {
	p := &porting{path: path, match: m, track: newTracker(progress)}
	var err error
	if p.guard, err = newGuard(path); err != nil {
		return nil, err
	}
	if err := p.hire(ctx, min(8, runtime.GOMAXPROCS(0)), nil); err != nil {
		p.dismiss()
		return nil, err
	}
	for _, t := range m.Tables {
		p.states = append(p.states, &tableState{Table: t, decision: loadRest, gaps: []span{all}})
	}
	if err := p.measure(ctx); err != nil {
		p.dismiss()
		return nil, err
	}
	return p, nil
}

// scan reads a span. Of the search rows it returns the hashes of their keys.
func (s *tableState) scan(ctx context.Context, w *worker, at span, tell func([]Oddity)) (hashes []uint64, err error) {
	r, err := newReader(w.file, s.Table, at)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	key := s.column("event_id") + 1
	for !r.ended {
		r.begin()
		for {
			out, row, err := r.next(ctx, w.buf[:0])
			if err != nil {
				return nil, err
			}
			if w.buf = out; !row {
				break
			}
			if s.search() && !r.enc.lost {
				if class := r.stmt.Class(key); class == sqlitedb.Text || class == sqlitedb.Blob {
					hashes = append(hashes, pghash.Bytes(r.stmt.Bytes(key)))
				}
			}
		}
		tell(s.oddities(&r.chunk))
		w.p.track.advance(s.Name, r.chunk.sent, r.chunk.rows)
	}
	return hashes, w.p.guard.check()
}

func (s *tableState) oddities(c *chunk) []Oddity {
	var found []Oddity
	for _, o := range c.changes {
		found = append(found, Oddity{Table: s.Name, Rowid: o.rowid, Key: o.key, Column: o.column, Reason: o.text})
	}
	for _, row := range c.lost {
		column, reason, cut := strings.Cut(strings.TrimPrefix(row.reason, "column "), ": ")
		if !cut || strings.Contains(reason, "; column ") {
			column, reason = "", row.reason
		}
		found = append(found, Oddity{Table: s.Name, Rowid: row.rowid, Key: row.key, Column: column, Reason: reason, Lost: true})
	}
	return found
}

// scanDuplicates names the search rows of which an event has another before: the target has one for each event.
func (p *porting) scanDuplicates(ctx context.Context, hashes []uint64, tell func([]Oddity)) error {
	slices.Sort(hashes)
	twice := map[uint64]bool{}
	for i := 1; i < len(hashes); i++ {
		if hashes[i] == hashes[i-1] {
			twice[hashes[i]] = true
		}
	}
	i := slices.IndexFunc(p.states, func(s *tableState) bool { return s.search() })
	if len(twice) == 0 || i < 0 || !slices.Equal(p.states[i].Key, []string{"event_id"}) {
		return nil
	}
	s, w := p.states[i], p.workers[0]
	r, err := newReader(w.file, s.Table, all)
	if err != nil {
		return err
	}
	defer r.Close()
	r.unbounded()
	r.quiet = true
	seen := map[string]bool{}
	key := s.column("event_id") + 1
	for {
		out, row, err := r.next(ctx, w.buf[:0])
		if err != nil || !row {
			return err
		}
		w.buf = out
		if r.enc.lost || !twice[pghash.Bytes(bytesOf(r.stmt, key))] {
			continue
		}
		id := r.stmt.String(key)
		if seen[id] {
			tell([]Oddity{{Table: s.Name, Rowid: r.chunk.last, Key: s.keyOf(r.stmt, r.chunk.last), Column: "event_id", Reason: "there is another row of this event before it", Lost: true}})
		}
		seen[id] = true
	}
}

func bytesOf(s values, i int) []byte {
	if class := s.Class(i); class == sqlitedb.Text || class == sqlitedb.Blob {
		return s.Bytes(i)
	}
	return nil
}

// scanOrphans names rows whose parent is missing.
func (m *Match) scanOrphans(ctx context.Context, w *worker, k foreignKey, tell func([]Oddity)) error {
	child, parent := m.byOID(k.Child), m.byOID(k.Parent)
	if child == nil || parent == nil || !child.ordered() || child.search() || parent.search() {
		return nil
	}
	var there, same []string
	for i, name := range k.Columns {
		c, p := child.column(name), parent.column(k.Refers[i])
		if c < 0 || p < 0 {
			return nil
		}
		there = append(there, "c."+quoteSQLite(child.Columns[c].Source)+" IS NOT NULL")
		same = append(same, fmt.Sprintf("p.%s = c.%s", quoteSQLite(parent.Columns[p].Source), quoteSQLite(child.Columns[c].Source)))
	}
	var rowids []int64
	err := eachRow(ctx, w.file, fmt.Sprintf("SELECT c.%s FROM %s c WHERE %s AND NOT EXISTS (SELECT 1 FROM %s p WHERE %s)", child.rowid, quoteSQLite(child.Source),
		strings.Join(there, " AND "), quoteSQLite(parent.Source), strings.Join(same, " AND ")), func(s *sqlitedb.Stmt) error {
		rowids = append(rowids, s.Int(0))
		return nil
	})
	if err != nil || len(rowids) == 0 {
		return err
	}
	r, err := newReader(w.file, *child, span{})
	if err != nil {
		return err
	}
	defer r.Close()
	for _, rowid := range rowids {
		err := r.at(ctx, rowid, func(s *sqlitedb.Stmt) {
			tell([]Oddity{{Table: child.Name, Rowid: rowid, Key: child.keyOf(s, rowid), Column: strings.Join(k.Columns, ", "),
				Reason: fmt.Sprintf("the table %s has no such row (foreign key %s)", parent.Name, k.Name), Lost: true}})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *Match) byOID(oid uint32) *Table {
	i := slices.IndexFunc(m.Tables, func(t Table) bool { return t.OID == oid })
	if i < 0 {
		return nil
	}
	return &m.Tables[i]
}
