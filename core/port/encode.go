package port

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/synapse-doctor/synapse-doctor/core/pghash"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// encoder makes of rows of the file what is sent to the server, and their hashes. It is for one goroutine.
type encoder struct {
	t      Table
	kinds  []kind
	binary bool // as the server keeps it (COPY); otherwise every value as text, which the server casts

	// Of the row that was encoded last:
	hash   int64  // of what is sent: of the row as it will be stored where binary, of the texts otherwise
	source int64  // stands for the row as the file has it: hash, or a digest of every byte where the row is odd
	lost   bool   // it can't be stored
	odd    []note // cells that are not stored as they are, or why the row can't be

	text []byte // room for the text of a number
}

// note is what is to be said of a cell.
type note struct {
	column string
	text   string
	unfit  bool // nothing can be stored
}

func newEncoder(t Table) *encoder {
	e := &encoder{t: t, binary: true}
	for _, c := range t.Columns {
		k := kindOf(c.Type)
		e.kinds = append(e.kinds, k)
		e.binary = e.binary && k.binary()
	}
	return e
}

// noEvent is the reason of a search row that has nothing to be found.
const noEvent = "there is no such event in its room"

// row appends the current row as a tuple of COPY's binary format, unless it is lost. The values begin at column 1 of the
// statement; column 0 is the rowid.
func (e *encoder) row(dst []byte, s values) []byte {
	start := len(dst)
	var rec pghash.Record
	e.lost, e.odd = false, e.odd[:0]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(e.t.Columns)))
	for i := range e.t.Columns {
		c := &e.t.Columns[i]
		if e.binary {
			if out, plain := e.plain(dst, s, i+1, c, e.kinds[i], &rec); plain {
				dst = out
				continue
			}
		}
		v := convert(s, i+1, c, e.kinds[i])
		if v.odd != "" {
			e.odd = append(e.odd, note{c.Name, v.odd, v.unfit})
			e.lost = e.lost || v.unfit
		}
		if e.binary {
			dst = appendBinary(dst, &v, e.kinds[i], &rec)
		} else {
			dst = e.appendText(dst, &v, e.kinds[i], &rec)
		}
	}
	if e.t.search() && s.Int(len(e.t.Columns)+1) == 0 {
		e.lost, e.odd = true, append(e.odd, note{"event_id", noEvent, true})
	}
	e.hash = rec.Row()
	e.source = e.hash
	if len(e.odd) > 0 {
		e.source = rawHash(s, len(e.t.Columns))
	}
	if e.lost {
		return dst[:start]
	}
	return dst
}

// plain appends what nearly every cell is, quickly: a number in range, a sound text, bytes, nothing where nothing may be. It makes of
// them what convert and appendBinary make.
func (e *encoder) plain(dst []byte, s values, i int, c *Column, k kind, rec *pghash.Record) ([]byte, bool) {
	switch s.Class(i) {
	case sqlitedb.Integer:
		v := s.Int(i)
		switch {
		case k == kindInt8:
			rec.Int(v)
			return binary.BigEndian.AppendUint64(append(dst, 0, 0, 0, 8), uint64(v)), true
		case k == kindInt4 && v == int64(int32(v)):
			rec.Int(v)
			return binary.BigEndian.AppendUint32(append(dst, 0, 0, 0, 4), uint32(v)), true
		case k == kindInt2 && v == int64(int16(v)):
			rec.Int(v)
			return binary.BigEndian.AppendUint16(append(dst, 0, 0, 0, 2), uint16(v)), true
		case k == kindBool && v&^1 == 0:
			rec.Bool(v == 1)
			return append(dst, 0, 0, 0, 1, byte(v)), true
		}
	case sqlitedb.Text:
		if k != kindText || c.MaxChars > 0 {
			return dst, false
		}
		b := s.Bytes(i)
		if bytes.IndexByte(b, 0) >= 0 || !utf8.Valid(b) {
			return dst, false
		}
		rec.Bytes(b)
		return appendField(dst, b), true
	case sqlitedb.Null:
		if !c.NotNull {
			rec.Null()
			return append(dst, 0xff, 0xff, 0xff, 0xff), true
		}
	}
	return dst, false
}

func appendBinary(dst []byte, v *cell, k kind, rec *pghash.Record) []byte {
	switch v.form {
	case formInt:
		rec.Int(v.n)
		switch k {
		case kindInt2:
			dst = append(dst, 0, 0, 0, 2)
			return binary.BigEndian.AppendUint16(dst, uint16(v.n))
		case kindInt4:
			dst = append(dst, 0, 0, 0, 4)
			return binary.BigEndian.AppendUint32(dst, uint32(v.n))
		}
		dst = append(dst, 0, 0, 0, 8)
		return binary.BigEndian.AppendUint64(dst, uint64(v.n))
	case formBool:
		rec.Bool(v.n != 0)
		return append(dst, 0, 0, 0, 1, byte(v.n))
	case formFloat:
		rec.Float(v.f)
		if k == kindFloat4 {
			dst = append(dst, 0, 0, 0, 4)
			return binary.BigEndian.AppendUint32(dst, math.Float32bits(float32(v.f)))
		}
		dst = append(dst, 0, 0, 0, 8)
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(v.f))
	case formBytes:
		rec.Bytes(v.b)
		return appendField(dst, v.b)
	}
	rec.Null()
	return append(dst, 0xff, 0xff, 0xff, 0xff)
}

func appendField(dst, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(b))), b...)
}

// appendText writes the value as a text that the server casts to the column's type, and hashes that text.
func (e *encoder) appendText(dst []byte, v *cell, k kind, rec *pghash.Record) []byte {
	text := v.b
	switch v.form {
	case formNull:
		rec.Null()
		return append(dst, 0xff, 0xff, 0xff, 0xff)
	case formInt:
		text = strconv.AppendInt(e.text[:0], v.n, 10)
	case formBool:
		text = strconv.AppendBool(e.text[:0], v.n != 0)
	case formFloat:
		text = strconv.AppendFloat(e.text[:0], v.f, 'g', -1, 64)
	case formBytes:
		if k == kindBytea {
			text = hex.AppendEncode(append(e.text[:0], `\x`...), v.b)
		}
	}
	if v.form != formBytes || k == kindBytea {
		e.text = text
	}
	rec.Bytes(text)
	return appendField(dst, text)
}

// rawHash stands for a row by every byte that the file has of it.
func rawHash(s values, columns int) int64 {
	digest := rawDigest(s, columns)
	return int64(binary.BigEndian.Uint64(digest[:]))
}

// rawDigest is a digest of the storage classes and the bytes of the columns 1 to n of the current row.
func rawDigest(s values, n int) [sha256.Size]byte {
	h := sha256.New()
	var head [9]byte
	for i := 1; i <= n; i++ {
		class := s.Class(i)
		head[0] = byte(class)
		var b []byte
		number := uint64(0)
		switch class {
		case sqlitedb.Integer:
			number = uint64(s.Int(i))
		case sqlitedb.Real:
			number = math.Float64bits(s.Real(i))
		case sqlitedb.Text, sqlitedb.Blob:
			b = s.Bytes(i)
			number = uint64(len(b))
		}
		binary.BigEndian.PutUint64(head[1:], number)
		h.Write(head[:])
		h.Write(b)
	}
	var out [sha256.Size]byte
	h.Sum(out[:0])
	return out
}

// RowKey is a digest of 16 bytes by which a row is known again, wherever in the file it is: of the storage classes and the
// bytes of the columns 1 to n of the current row of a statement of [Table.rows], whose column 0 is the rowid.
func RowKey(s *sqlitedb.Stmt, n int) []byte {
	digest := rawDigest(s, n)
	return digest[:16]
}
