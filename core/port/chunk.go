package port

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/synapse-doctor/synapse-doctor/core/pghash"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// chunk is a run of rows of the file, in the order of their rowids, that is stored in one transaction.
type chunk struct {
	first, last       int64
	rows              int64
	source            pghash.Sum
	stored            int64
	storedSum         pghash.Sum
	firstKey, lastKey []byte
	changes           []oddCell
	lost              []lostRow
	sent              int64 // bytes
}

// oddCell is a cell that is not stored as it is.
type oddCell struct {
	rowid  int64
	key    string
	column string
	text   string
}

// lostRow is a row that can't be stored.
type lostRow struct {
	rowid  int64
	key    string
	reason string
	row    string // JSON; see [rowJSON]
}

// keep counts a row as stored.
func (c *chunk) keep(hash int64) {
	c.stored++
	c.storedSum.Add(hash)
}

// A chunk of this many rows or bytes is full. What is cast is sent in one statement, and so in less.
const (
	chunkRows  = 20_000
	chunkBytes = 16 << 20
	castRows   = 5_000
	castBytes  = 1 << 20
)

// reader reads the rows of a span, chunk by chunk.
type reader struct {
	enc    *encoder
	file   *sqlitedb.DB
	stmt   *sqlitedb.Stmt
	lookup *sqlitedb.Stmt // of one row; nil until it is needed
	span   span
	chunk  chunk
	rows   int64 // of a chunk at most
	bytes  int64
	quiet  bool // nothing is noted of odd rows
	ended  bool // there are no rows after the last
}

func newReader(file *sqlitedb.DB, t Table, at span) (*reader, error) {
	s, err := readRows(file, t, at)
	if err != nil {
		return nil, err
	}
	r := &reader{enc: newEncoder(t), file: file, stmt: s, span: at, rows: chunkRows, bytes: chunkBytes}
	if !r.enc.binary {
		r.rows, r.bytes = castRows, castBytes
	}
	// Without rowids there is nothing by which half a table is gone on with.
	if !t.ordered() {
		r.rows, r.bytes = math.MaxInt64, math.MaxInt64
	}
	return r, nil
}

func (r *reader) Close() {
	r.stmt.Close()
	if r.lookup != nil {
		r.lookup.Close()
	}
}

// unbounded reads the whole span as one chunk.
func (r *reader) unbounded() { r.rows, r.bytes = math.MaxInt64, math.MaxInt64 }

// begin starts another chunk, after the last one.
func (r *reader) begin() {
	if c := &r.chunk; c.rows > 0 && r.enc.t.ordered() && c.last < r.span.high {
		r.span.low = c.last + 1
	}
	r.chunk = chunk{}
}

// again goes back to the first row of the chunk.
func (r *reader) again() error {
	r.chunk, r.ended = chunk{}, false
	if err := r.stmt.Reset(); err != nil {
		return err
	}
	return bindSpan(r.stmt, r.enc.t, r.span)
}

// next appends the tuple of the chunk's next row, where it has one that can be stored. It returns false at the end of the
// chunk. What is to be said of the row goes into the chunk.
func (r *reader) next(ctx context.Context, dst []byte) ([]byte, bool, error) {
	c := &r.chunk
	if c.rows >= r.rows || c.sent >= r.bytes || r.ended {
		return dst, false, nil
	}
	row, err := r.stmt.Step(ctx)
	if err != nil || !row {
		r.ended = true
		return dst, false, err
	}
	rowid := r.stmt.Int(0)
	if !r.enc.t.ordered() {
		rowid = c.rows + 1
	}
	before := len(dst)
	dst = r.enc.row(dst, r.stmt)
	n := len(r.enc.t.Columns)
	if c.rows == 0 {
		c.first, c.firstKey = rowid, RowKey(r.stmt, n)
	}
	if !r.enc.t.ordered() {
		c.lastKey = RowKey(r.stmt, n)
	}
	c.last = rowid
	c.rows++
	c.sent += int64(len(dst) - before)
	c.source.Add(r.enc.source)
	if len(r.enc.odd) > 0 && !r.quiet {
		r.note(rowid)
	}
	return dst, true, nil
}

// note keeps what is to be said of the current row.
func (r *reader) note(rowid int64) {
	key := r.enc.t.keyOf(r.stmt, rowid)
	if !r.enc.lost {
		for _, o := range r.enc.odd {
			r.chunk.changes = append(r.chunk.changes, oddCell{rowid, key, o.column, o.text})
		}
		return
	}
	var reasons []string
	for _, o := range r.enc.odd {
		if o.unfit {
			reasons = append(reasons, fmt.Sprintf("column %s: %s", o.column, o.text))
		}
	}
	r.chunk.lost = append(r.chunk.lost, lostRow{rowid, key, strings.Join(reasons, "; "), rowJSON(r.stmt, r.enc.t)})
}

// lose takes a row that the server refused out of what is stored, whole.
func (r *reader) lose(ctx context.Context, rowid int64, reason string) error {
	// What was changed in it was not stored.
	kept := r.chunk.changes[:0]
	for _, c := range r.chunk.changes {
		if c.rowid != rowid {
			kept = append(kept, c)
		}
	}
	r.chunk.changes = kept
	return r.at(ctx, rowid, func(s *sqlitedb.Stmt) {
		r.chunk.lost = append(r.chunk.lost, lostRow{rowid, r.enc.t.keyOf(s, rowid), reason, rowJSON(s, r.enc.t)})
	})
}

// at calls fn with a statement that stands at a row.
func (r *reader) at(ctx context.Context, rowid int64, fn func(*sqlitedb.Stmt)) error {
	if r.lookup == nil {
		s, err := readRows(r.file, r.enc.t, span{})
		if err != nil {
			return err
		}
		r.lookup = s
	}
	if err := bindSpan(r.lookup, r.enc.t, span{rowid, rowid}); err != nil {
		return err
	}
	row, err := r.lookup.Step(ctx)
	if !r.enc.t.ordered() {
		for range rowid - 1 {
			if row, err = r.lookup.Step(ctx); err != nil || !row {
				break
			}
		}
	}
	if err == nil && !row {
		err = fmt.Errorf("the row %d of the table %s of the file is gone", rowid, r.enc.t.Source)
	}
	if err != nil {
		return err
	}
	fn(r.lookup)
	return r.lookup.Reset()
}

// finish completes the chunk, whose rows have all been read.
func (r *reader) finish(ctx context.Context) error {
	if r.chunk.rows == 0 || !r.enc.t.ordered() {
		return nil
	}
	return r.at(ctx, r.chunk.last, func(s *sqlitedb.Stmt) { r.chunk.lastKey = RowKey(s, len(r.enc.t.Columns)) })
}

// mostKey is how many characters of a key are shown.
const mostKey = 200

// keyOf tells a row from others, for people. Of tables that keep secrets it is the rowid.
func (t Table) keyOf(s values, rowid int64) string {
	if len(t.Key) == 0 || synapse.KeepsSecrets(t.Name) {
		return "rowid " + strconv.FormatInt(rowid, 10)
	}
	parts := make([]string, 0, len(t.Key))
	for _, name := range t.Key {
		i := t.column(name) + 1
		var text string
		switch s.Class(i) {
		case sqlitedb.Null:
			text = "NULL"
		case sqlitedb.Integer:
			text = strconv.FormatInt(s.Int(i), 10)
		case sqlitedb.Real:
			text = realText(s.Real(i))
		default:
			b := s.Bytes(i)
			text = strconv.Quote(string(b[:min(len(b), mostKey)]))
		}
		parts = append(parts, name+"="+text)
	}
	return strings.Join(parts, " ")
}

// rowJSON is a row of the file, whole: {"column": ["integer", 12], …}. What is no text that JSON in PostgreSQL can hold is
// ["text", {"base64": "…"}], a blob always ["blob", "base64"].
func rowJSON(s values, t Table) string {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, c := range t.Columns {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(c.Name) // a string can always be written
		b.Write(name)
		class := s.Class(i + 1)
		fmt.Fprintf(&b, `:[%q,`, class)
		switch class {
		case sqlitedb.Null:
			b.WriteString("null")
		case sqlitedb.Integer:
			b.WriteString(strconv.FormatInt(s.Int(i+1), 10))
		case sqlitedb.Real:
			text, _ := json.Marshal(strconv.FormatFloat(s.Real(i+1), 'g', -1, 64))
			b.Write(text)
		case sqlitedb.Text:
			text := s.Bytes(i + 1)
			if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
				fmt.Fprintf(&b, `{"base64":%q}`, base64.StdEncoding.EncodeToString(text))
				break
			}
			quoted, _ := json.Marshal(string(text))
			b.Write(quoted)
		default:
			fmt.Fprintf(&b, `%q`, base64.StdEncoding.EncodeToString(s.Bytes(i+1)))
		}
		b.WriteByte(']')
	}
	b.WriteByte('}')
	return b.String()
}
