package port

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pghash"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// Compare compares every table of the file with the target's, row by row, whoever has ported it. It only reads. What the target
// can't hold as the file has it is compared with what a port stores instead; rows that a port has put into quarantine are not
// missed.
func Compare(ctx context.Context, d *doctor.Database, path string, m *Match, progress func(doctor.Progress)) ([]Difference, error) {
	p, err := m.reading(ctx, path, progress)
	if err != nil {
		return nil, err
	}
	defer p.dismiss()
	p.track.say("compare the tables")
	q := newQueue()
	var mu sync.Mutex
	var found []Difference
	for _, s := range p.states {
		q.add(&job{name: s.Name, cost: s.weight, run: func(ctx context.Context, w *worker) error {
			defer p.track.begin(s.Name, s.size.bytes)()
			return d.Read(ctx, func(tx pgx.Tx) error {
				c := comparison{s: s, w: w, tx: tx}
				difference, err := c.run(ctx)
				if err != nil {
					return fmt.Errorf("compare the table %s: %w", s.Name, err)
				}
				if difference != nil {
					mu.Lock()
					defer mu.Unlock()
					found = append(found, *difference)
				}
				return nil
			})
		}})
	}
	if err := p.work(q); err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b Difference) int { return strings.Compare(a.Table, b.Table) })
	return found, p.guard.check()
}

// comparison is of one table.
type comparison struct {
	s  *tableState
	w  *worker
	tx pgx.Tx

	lost   map[int64]bool // rowids that a port has put into quarantine
	orphan content        // what a port has stored and taken out again
}

func (c *comparison) run(ctx context.Context) (*Difference, error) {
	if _, err := c.tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
		return nil, err
	}
	if _, err := c.tx.Exec(ctx, sessionSettingsLocal); err != nil {
		return nil, err
	}
	if err := c.quarantine(ctx); err != nil {
		return nil, err
	}
	actual, err := c.s.actual(ctx, c.tx)
	if err != nil {
		return nil, err
	}
	expected, err := c.expected(ctx)
	if err != nil {
		return nil, err
	}
	expected.rows -= c.orphan.rows
	expected.sum.Sub(c.orphan.sum)
	if expected == actual {
		return nil, nil
	}
	out := &Difference{Table: c.s.Name, Source: expected.rows, Target: actual.rows, Content: expected.rows == actual.rows}
	return out, c.explain(ctx, out)
}

// sessionSettingsLocal is how values are written in this transaction, as where they were stored.
const sessionSettingsLocal = `SELECT set_config(name, v.value, true) FROM pg_settings JOIN (VALUES ('DateStyle', 'ISO, MDY'), ('IntervalStyle', 'postgres'),
  ('TimeZone', 'UTC'), ('extra_float_digits', '1'), ('bytea_output', 'hex'), ('xmloption', 'content')) AS v(wanted, value) ON lower(name) = lower(wanted)`

// to_regclass would be refused to a role that may not use the schema.
const quarantineThere = `SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'synapse_doctor' AND c.relname = 'port_quarantine')`

// quarantine reads which rows a port has put aside.
func (c *comparison) quarantine(ctx context.Context) error {
	c.lost = map[int64]bool{}
	var there bool
	if err := c.tx.QueryRow(ctx, quarantineThere).Scan(&there); err != nil || !there {
		return err
	}
	rows, err := c.tx.Query(ctx, `SELECT rowid_, hash FROM synapse_doctor.port_quarantine WHERE name = $1`, c.s.Name)
	if err != nil {
		return err
	}
	var rowid, hash *int64
	_, err = pgx.ForEachRow(rows, []any{&rowid, &hash}, func() error {
		if rowid != nil {
			c.lost[*rowid] = true
		}
		if hash != nil {
			c.orphan.rows++
			c.orphan.sum.Add(*hash)
		}
		return nil
	})
	return err
}

// each reads the table's rows that ought to be in the target.
func (c *comparison) each(ctx context.Context, fn func(r *reader) error) error {
	r, err := newReader(c.w.file, c.s.Table, all)
	if err != nil {
		return err
	}
	defer r.Close()
	r.unbounded()
	r.quiet = true
	for {
		before := r.chunk.sent
		out, row, err := r.next(ctx, c.w.buf[:0])
		if err != nil || !row {
			return err
		}
		c.w.buf = out
		c.w.p.track.advance(c.s.Name, r.chunk.sent-before, 1)
		if r.enc.lost || c.lost[r.chunk.last] {
			continue
		}
		if err := fn(r); err != nil {
			return err
		}
	}
}

// expected is what the target ought to hold.
func (c *comparison) expected(ctx context.Context) (content, error) {
	var out content
	var b batch
	statement := c.s.castingStatement()
	flush := func() error {
		got, err := c.cast(ctx, statement, &b, 0, len(b.rows))
		b.reset()
		out.rows += got.rows
		out.sum.AddSum(got.sum)
		return err
	}
	err := c.each(ctx, func(r *reader) error {
		if r.enc.binary {
			out.rows++
			out.sum.Add(r.enc.hash)
			return nil
		}
		b.buf = append(b.buf, c.w.buf...)
		b.rows = append(b.rows, batchRow{len(b.buf), r.chunk.last, r.enc.hash})
		if len(b.rows) >= castRows || len(b.buf) >= castBytes {
			return flush()
		}
		return nil
	})
	return out, errors.Join(err, flush())
}

// cast has the server make of texts what it would store. What it can't make anything of is left out.
func (c *comparison) cast(ctx context.Context, statement string, b *batch, low, high int) (content, error) {
	if low == high {
		return content{}, nil
	}
	inner, err := c.tx.Begin(ctx)
	if err != nil {
		return content{}, err
	}
	sum, err := castRun(ctx, inner.Conn(), c.s.Table, statement, b, low, high)
	if err == nil {
		return content{int64(high - low), sum}, inner.Commit(ctx)
	}
	if _, refused := refusal(err); !refused {
		return content{}, err
	}
	if err := inner.Rollback(ctx); err != nil || high-low == 1 {
		return content{}, err
	}
	middle := low + (high-low)/2
	first, err := c.cast(ctx, statement, b, low, middle)
	if err != nil {
		return content{}, err
	}
	second, err := c.cast(ctx, statement, b, middle, high)
	first.rows += second.rows
	first.sum.AddSum(second.sum)
	return first, err
}

const (
	buckets     = 1024 // of keys, by their hash, of which those that differ are looked into
	mostBuckets = 8
	mostShown   = 10
)

// keyHash is what the server gives for the key of the current row.
func (t Table) keyHash(s values) int64 {
	var rec pghash.Record
	for _, name := range t.Key {
		i := t.column(name)
		v := convert(s, i+1, &t.Columns[i], kindOf(t.Columns[i].Type))
		appendBinary(nil, &v, kindOf(t.Columns[i].Type), &rec)
	}
	return rec.Sum()
}

// explain names rows by which the two sides differ.
func (c *comparison) explain(ctx context.Context, out *Difference) error {
	t := c.s.Table
	if len(t.Key) == 0 || slices.ContainsFunc(t.Key, func(name string) bool { return !kindOf(t.Columns[t.column(name)].Type).binary() }) {
		return nil
	}
	names := make([]string, len(t.Key))
	for i, name := range t.Key {
		names[i] = quote(name)
	}
	keyHash := "hash_record_extended(ROW(" + strings.Join(names, ", ") + "), 0)"
	binary := newEncoder(t).binary
	mine := map[int64]content{}
	err := c.each(ctx, func(r *reader) error {
		h := t.keyHash(r.stmt)
		b := mine[h&(buckets-1)]
		b.rows++
		if binary {
			b.sum.Add(r.enc.hash)
		} else {
			b.sum.Add(h)
		}
		mine[h&(buckets-1)] = b
		return nil
	})
	if err != nil {
		return err
	}
	rowHash := keyHash
	if binary {
		rowHash = t.hash()
	}
	rows, err := c.tx.Query(ctx, fmt.Sprintf("SELECT %s & %d, count(*), sum(%s)::text FROM ONLY %s GROUP BY 1", keyHash, buckets-1, rowHash, t.Ident))
	if err != nil {
		return err
	}
	theirs := map[int64]content{}
	var bucket, n int64
	var sum string
	_, err = pgx.ForEachRow(rows, []any{&bucket, &n, &sum}, func() error {
		s, err := pghash.ParseSum(sum)
		theirs[bucket] = content{n, s}
		return err
	})
	if err != nil {
		return err
	}
	differ := []int64{}
	for b := range int64(buckets) {
		if mine[b] != theirs[b] && len(differ) < mostBuckets {
			differ = append(differ, b)
		}
	}
	return c.name(ctx, out, differ, keyHash, rowHash, names, binary)
}

// name looks into some buckets.
func (c *comparison) name(ctx context.Context, out *Difference, differ []int64, keyHash, rowHash string, names []string, binary bool) error {
	t := c.s.Table
	type side struct {
		hash int64
		key  string
	}
	mine := map[int64]side{}
	err := c.each(ctx, func(r *reader) error {
		h := t.keyHash(r.stmt)
		if slices.Contains(differ, h&(buckets-1)) {
			row := side{h, t.keyOf(r.stmt, r.chunk.last)}
			if binary {
				row.hash = r.enc.hash
			}
			mine[h] = row
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, name := range names {
		names[i] = name + "::text"
	}
	rows, err := c.tx.Query(ctx, fmt.Sprintf("SELECT %s, %s, ARRAY[%s] FROM ONLY %s WHERE %[1]s & %[5]d = ANY ($1)", keyHash, rowHash, strings.Join(names, ", "), t.Ident, buckets-1), differ)
	if err != nil {
		return err
	}
	var h, hash int64
	var key []*string
	_, err = pgx.ForEachRow(rows, []any{&h, &hash, &key}, func() error {
		row, there := mine[h]
		delete(mine, h)
		switch {
		case !there && len(out.SurplusKeys) < mostShown:
			out.SurplusKeys = append(out.SurplusKeys, t.shownKey(key))
		case there && row.hash != hash && len(out.ChangedKeys) < mostShown:
			out.ChangedKeys = append(out.ChangedKeys, row.key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, row := range mine {
		out.MissingKeys = append(out.MissingKeys, row.key)
	}
	for _, keys := range []*[]string{&out.MissingKeys, &out.SurplusKeys, &out.ChangedKeys} {
		slices.Sort(*keys)
		*keys = (*keys)[:min(len(*keys), mostShown)]
	}
	return nil
}

// shownKey is a key of the target, as [Table.keyOf] writes the file's.
func (t Table) shownKey(key []*string) string {
	if synapse.KeepsSecrets(t.Name) {
		return "a row of which the key is not told"
	}
	var parts []string
	for i, name := range t.Key {
		text := "NULL"
		if key[i] != nil {
			text = *key[i]
			if k := kindOf(t.Columns[t.column(name)].Type); k == kindText || k == kindBytea {
				text = fmt.Sprintf("%q", text[:min(len(text), mostKey)])
			}
		}
		parts = append(parts, name+"="+text)
	}
	return strings.Join(parts, " ")
}
