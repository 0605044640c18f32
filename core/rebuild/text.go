package rebuild

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// badCell is a value whose bytes are no text in the encoding that they are taken to have.
type badCell struct {
	table  table
	column string
	ctid   string
	bytes  []byte // where it begins to be wrong
}

// place is where bad values are counted together.
type place struct{ table, column string }

// textScan is the search for such values in a whole database.
type textScan struct {
	*task
	encoding string // what the bytes are taken to be
	mu       sync.Mutex
	found    map[place][]badCell
	counts   map[place]int64
	total    int64
	high     int64 // values that are not ASCII
	utf8     int64 // of those, the ones that are UTF-8
	done     int64 // bytes of tables
	size     int64
}

// fewCells is how many rows are named for each column, fewPlaces how many columns.
const fewCells, fewPlaces = 5, 20

// scanText reads every value that is text, as bytes, and stops where some are not valid: named by table, column and row.
func (k *task) scanText(ctx context.Context, f facts, tables []table) error {
	s := &textScan{task: k, encoding: f.Encoding, found: map[place][]badCell{}, counts: map[place]int64{}}
	if f.Encoding == asciiName {
		s.encoding = utf8Name
		if k.p.sourceEncoding != "" {
			s.encoding = k.p.sourceEncoding
		}
	}
	for _, t := range tables {
		s.size += t.Bytes
	}
	next := queue(tables)
	err := inParallel(ctx, workers, func(ctx context.Context, _ int) error {
		raw, err := k.session(ctx, k.p.database)
		if err != nil {
			return err
		}
		defer closeConn(raw)
		asks, err := k.session(ctx, k.admin.Settings["dbname"])
		if err != nil {
			return err
		}
		defer closeConn(asks)
		if _, err := raw.Exec(ctx, "SET client_encoding = 'SQL_ASCII'"); err != nil { // the bytes as they are
			return err
		}
		for t, ok := next(); ok; t, ok = next() {
			if err := s.scan(ctx, raw, asks, t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if s.total > 0 {
		return s.refusal(ctx)
	}
	if k.p.sourceEncoding != "" && s.high > 0 && s.utf8 == s.high {
		return doctor.Unchanged("all %d values that are not ASCII are UTF-8 already: as %s they would be garbled. Run this again without --source-encoding", s.high, k.p.sourceEncoding)
	}
	if k.p.sourceEncoding != "" && s.utf8 > 0 {
		k.say(doctor.Progress{Text: fmt.Sprintf("%d of %d values that are not ASCII could be UTF-8 already; as %s they are converted like the others", s.utf8, s.high, k.p.sourceEncoding)})
	}
	return nil
}

// scan reads one table.
func (s *textScan) scan(ctx context.Context, raw, asks *pgx.Conn, t table) error {
	s.mu.Lock()
	s.say(doctor.Progress{Text: "read the text of " + t.qualified(), Done: s.done, Total: s.size, Unit: "bytes"})
	s.done += t.Bytes
	s.mu.Unlock()
	names := []string{}
	list := "ctid::text"
	for _, c := range t.Columns {
		if !c.plain() {
			names = append(names, c.Name)
			list += ", " + ident(c.Name) + "::text"
		}
	}
	if len(names) == 0 || t.Heap == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	read := make(chan error, 1)
	go func() {
		buffered := bufio.NewWriterSize(w, pipeBuffer)
		_, err := raw.PgConn().CopyTo(ctx, buffered, fmt.Sprintf("COPY (SELECT %s FROM ONLY %s) TO STDOUT (FORMAT binary)", list, t.qualified()))
		if err == nil {
			err = buffered.Flush()
		}
		w.CloseWithError(err)
		read <- err
	}()
	b := &batch{scan: s, table: t, asks: asks}
	err := eachRow(bufio.NewReaderSize(r, pipeBuffer), func(cells [][]byte) error {
		for i, cell := range cells[1:] {
			if isASCII(cell) {
				continue
			}
			if err := b.add(ctx, badCell{t, names[i], string(cells[0]), cell}); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = b.flush(ctx)
	}
	if err != nil {
		cancel()
	}
	r.CloseWithError(errReaderGone)
	if readErr := <-read; readErr != nil && !errors.Is(readErr, errReaderGone) && (err == nil || sqlState(readErr) != "") {
		err = readErr
	}
	if err != nil {
		return fmt.Errorf("read the text of %s: %w", t.qualified(), err)
	}
	return nil
}

func isASCII(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c >= utf8.RuneSelf })
}

// batch gathers values about which the server is asked: only it knows all encodings.
type batch struct {
	scan  *textScan
	table table
	asks  *pgx.Conn
	cells []badCell
	size  int
	high  int64
	utf8  int64
}

const batchBytes = 1 << 20

// add judges a value that is not ASCII. Its bytes are valid during the call only.
func (b *batch) add(ctx context.Context, c badCell) error {
	b.high++
	valid := utf8.Valid(c.bytes)
	if valid {
		b.utf8++
	}
	if b.scan.encoding == utf8Name {
		if !valid {
			b.scan.bad(c)
		}
		return nil
	}
	c.bytes = slices.Clone(c.bytes)
	b.cells, b.size = append(b.cells, c), b.size+len(c.bytes)
	if b.size < batchBytes {
		return nil
	}
	return b.ask(ctx)
}

func (b *batch) flush(ctx context.Context) error {
	b.scan.mu.Lock()
	b.scan.high, b.scan.utf8 = b.scan.high+b.high, b.scan.utf8+b.utf8
	b.scan.mu.Unlock()
	return b.ask(ctx)
}

func (b *batch) ask(ctx context.Context) error {
	cells := b.cells
	b.cells, b.size = nil, 0
	return b.halve(ctx, cells)
}

// halve asks whether all of the values can be converted, and if not, which half can't.
func (b *batch) halve(ctx context.Context, cells []badCell) error {
	if len(cells) == 0 {
		return nil
	}
	values := make([][]byte, len(cells))
	for i, c := range cells {
		values[i] = c.bytes
	}
	var n int64
	err := b.asks.QueryRow(ctx, `SELECT count(convert(v, $2::text::name, 'UTF8')) FROM unnest($1::bytea[]) v`, values, b.scan.encoding).Scan(&n)
	if state := sqlState(err); state == "22021" || state == "22P05" {
		if len(cells) == 1 {
			b.scan.bad(cells[0])
			return nil
		}
		if err := b.halve(ctx, cells[:len(cells)/2]); err != nil {
			return err
		}
		return b.halve(ctx, cells[len(cells)/2:])
	}
	return err
}

func (s *textScan) bad(c badCell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := place{c.table.qualified(), c.column}
	s.total++
	s.counts[at]++
	if len(s.found[at]) < fewCells {
		if s.encoding == utf8Name {
			c.bytes = invalidTail(c.bytes)
		}
		c.bytes = slices.Clone(c.bytes[:min(len(c.bytes), 4)])
		s.found[at] = append(s.found[at], c)
	}
}

// invalidTail is what begins with the first byte that is not UTF-8.
func invalidTail(b []byte) []byte {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n <= 1 {
			return b
		}
		b = b[n:]
	}
	return b
}

// refusal names the values.
func (s *textScan) refusal(ctx context.Context) error {
	conn, err := s.session(ctx, s.p.database)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	var texts []string
	places := slices.SortedFunc(maps.Keys(s.found), func(a, b place) int {
		return strings.Compare(a.table+"\x00"+a.column, b.table+"\x00"+b.column)
	})
	for _, at := range places[:min(len(places), fewPlaces)] {
		var rows []string
		for _, c := range s.found[at] {
			key, err := rowKey(ctx, conn, c)
			if err != nil {
				return err
			}
			if s.encoding == utf8Name && !synapse.KeepsSecrets(c.table.Name) {
				key += fmt.Sprintf(" (at the bytes % x)", c.bytes)
			}
			rows = append(rows, "row "+key)
		}
		text := fmt.Sprintf("table %s, column %s: %s", at.table, at.column, strings.Join(rows, ", "))
		if more := s.counts[at] - int64(len(rows)); more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		texts = append(texts, text)
	}
	if more := len(places) - fewPlaces; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more columns", more))
	}
	hint := ""
	if s.encoding == utf8Name {
		hint = ". Correct them, or say with --source-encoding (latin1, say) what all the text of the database is written in"
	}
	values := fmt.Sprintf("%d values are", s.total)
	if s.total == 1 {
		values = "one value is"
	}
	return doctor.Unchanged("%s not valid in the encoding %s: %s%s", values, s.encoding, strings.Join(texts, "; "), hint)
}

const keyQuery = `SELECT coalesce(array_agg(a.attname::text ORDER BY k.n), '{}') FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n)
JOIN pg_attribute a ON a.attnum = k.attnum WHERE i.indrelid = $1 AND a.attrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND i.indexrelid = (SELECT indexrelid FROM pg_index WHERE indrelid = $1 AND indisunique AND indisvalid AND indpred IS NULL AND indexprs IS NULL ORDER BY indisprimary DESC, indexrelid LIMIT 1)`

// rowKey names a row by its primary key, else by another unique key, else by where it is.
func rowKey(ctx context.Context, conn *pgx.Conn, c badCell) (string, error) {
	var names []string
	if err := conn.QueryRow(ctx, keyQuery, c.table.OID).Scan(&names); err != nil {
		return "", fmt.Errorf("read the key of %s: %w", c.table.qualified(), err)
	}
	if len(names) == 0 || synapse.KeepsSecrets(c.table.Name) {
		return "ctid " + c.ctid, nil
	}
	var list []string
	for _, name := range names {
		list = append(list, fmt.Sprintf("convert_to(%s::text, 'SQL_ASCII')", ident(name)))
	}
	var values [][]byte
	if err := conn.QueryRow(ctx, fmt.Sprintf("SELECT ARRAY[%s] FROM ONLY %s WHERE ctid = $1::text::tid", strings.Join(list, ", "), c.table.qualified()), c.ctid).Scan(&values); err != nil {
		return "", fmt.Errorf("read the key of a row of %s: %w", c.table.qualified(), err)
	}
	var parts []string
	for i, name := range names {
		parts = append(parts, fmt.Sprintf("%s=%+q", name, values[i]))
	}
	return strings.Join(parts, " "), nil
}

// eachRow reads PostgreSQL's binary format of COPY (its documentation, "Binary Format"): a signature, flags and the length
// of an extension, then for each row the number of fields, and for each field a length, -1 for NULL, and its bytes.
func eachRow(r *bufio.Reader, fn func(cells [][]byte) error) error {
	const signature = "PGCOPY\n\xff\r\n\x00"
	header := make([]byte, len(signature)+8)
	if _, err := io.ReadFull(r, header); err != nil {
		return err
	}
	if string(header[:len(signature)]) != signature {
		return errors.New("this is not the binary format of COPY")
	}
	if _, err := r.Discard(int(binary.BigEndian.Uint32(header[len(signature)+4:]))); err != nil {
		return err
	}
	var cells [][]byte
	var buffers [][]byte
	var number [4]byte
	for {
		if _, err := io.ReadFull(r, number[:2]); err != nil {
			return err
		}
		n := int16(binary.BigEndian.Uint16(number[:2]))
		if n < 0 {
			return nil
		}
		cells = cells[:0]
		for len(buffers) < int(n) {
			buffers = append(buffers, nil)
		}
		for i := range int(n) {
			if _, err := io.ReadFull(r, number[:]); err != nil {
				return err
			}
			length := int32(binary.BigEndian.Uint32(number[:]))
			if length < 0 {
				cells = append(cells, nil)
				continue
			}
			if cap(buffers[i]) < int(length) {
				buffers[i] = make([]byte, length)
			}
			buffers[i] = buffers[i][:length]
			if _, err := io.ReadFull(r, buffers[i]); err != nil {
				return err
			}
			cells = append(cells, buffers[i])
		}
		if err := fn(cells); err != nil {
			return err
		}
	}
}
