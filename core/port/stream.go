package port

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
)

// copyHeader begins COPY's binary format; copyTrailer ends it.
var (
	copyHeader  = append([]byte("PGCOPY\n\xff\r\n\x00"), 0, 0, 0, 0, 0, 0, 0, 0)
	copyTrailer = []byte{0xff, 0xff}
)

// copyStatement takes rows in the table's order of columns.
func (t Table) copyStatement() string {
	return fmt.Sprintf("COPY %s (%s) FROM STDIN BINARY", t.Ident, t.columnList())
}

func (t Table) columnList() string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = quote(c.Name)
	}
	return strings.Join(names, ", ")
}

// streamBytes is how much is encoded ahead of what is sent.
const streamBytes = 256 << 10

// stream is a chunk as COPY reads it: rows are read from the file and encoded as they are asked for.
type stream struct {
	ctx context.Context // of the copy; a stream is made for one
	r   *reader

	mu      sync.Mutex // a copy that failed may still be in Read when its caller goes on
	buf     []byte
	off     int
	ended   bool
	stopped bool
	err     error
}

func newStream(ctx context.Context, r *reader, buf []byte) *stream {
	return &stream{ctx: ctx, r: r, buf: append(buf[:0], copyHeader...)}
}

var errStreamEnded = errors.New("the copy has ended")

func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return 0, errStreamEnded
	}
	if s.off == len(s.buf) {
		if s.ended {
			return 0, io.EOF
		}
		s.buf, s.off = s.buf[:0], 0
	}
	if err := s.r.file.Shield(s.fill); err != nil { // this is not the worker's goroutine
		s.err = err
		return 0, err
	}
	n := copy(p, s.buf[s.off:])
	s.off += n
	return n, nil
}

// fill encodes rows until there is enough to send, or the chunk has ended.
func (s *stream) fill() error {
	for !s.ended && len(s.buf) < streamBytes && s.off == 0 {
		var row bool
		var err error
		s.buf, row, err = s.r.next(s.ctx, s.buf)
		if err != nil {
			return err
		}
		if !row {
			s.buf = append(s.buf, copyTrailer...)
			s.ended = true
		} else if !s.r.enc.lost {
			s.r.chunk.keep(s.r.enc.hash)
		}
	}
	return nil
}

// stop returns when nobody reads any more, with the error of the file.
func (s *stream) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	return s.err
}

// copyChunk stores the chunk's rows, straight from the file.
func copyChunk(ctx context.Context, conn *pgx.Conn, r *reader, buf *[]byte) error {
	s := newStream(ctx, r, *buf)
	tag, err := conn.PgConn().CopyFrom(ctx, s, r.enc.t.copyStatement())
	if failed := s.stop(); failed != nil {
		return failed
	}
	*buf = s.buf
	if err != nil {
		return err
	}
	return r.enc.t.counted(tag.RowsAffected(), r.chunk.stored)
}

// counted makes sure that the server has stored what it was sent.
func (t Table) counted(stored, sent int64) error {
	if stored != sent {
		return fmt.Errorf("the table %s was sent %d rows and stored %d: a trigger or a rule of the target keeps rows away. Remove it, then run this again", t.Name, sent, stored)
	}
	return nil
}

// batch is a few tuples, held so that some of them can be stored without the others.
type batch struct {
	buf  []byte
	rows []batchRow
}

type batchRow struct {
	end   int // of its tuple in buf
	rowid int64
	hash  int64
}

func (b *batch) reset() { b.buf, b.rows = b.buf[:0], b.rows[:0] }

// tuples are those of the rows from low to high, high not included.
func (b *batch) tuples(low, high int) []byte {
	start := 0
	if low > 0 {
		start = b.rows[low-1].end
	}
	if high == 0 {
		return nil
	}
	return b.buf[start:b.rows[high-1].end]
}

// fields calls fn with each field of each tuple. A NULL is nil.
func fields(tuples []byte, fn func(column int, value []byte)) {
	for len(tuples) > 0 {
		n := int(binary.BigEndian.Uint16(tuples))
		tuples = tuples[2:]
		for column := range n {
			size := int32(binary.BigEndian.Uint32(tuples))
			tuples = tuples[4:]
			if size < 0 {
				fn(column, nil)
				continue
			}
			fn(column, tuples[:size:size])
			tuples = tuples[size:]
		}
	}
}
