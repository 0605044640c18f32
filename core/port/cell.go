package port

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// kind is what a target's column takes, of the types that are written as the server keeps them.
type kind uint8

const (
	kindOther kind = iota // as text, which the server casts
	kindInt2
	kindInt4
	kindInt8
	kindBool
	kindText
	kindBytea
	kindFloat4
	kindFloat8
	kindJSON   // jsonb: as text, without the escapes that it does not take
	kindVector // the text of which the server makes a tsvector
)

func kindOf(oid uint32) kind {
	switch oid {
	case pgtype.Int2OID:
		return kindInt2
	case pgtype.Int4OID:
		return kindInt4
	case pgtype.Int8OID:
		return kindInt8
	case pgtype.BoolOID:
		return kindBool
	case pgtype.TextOID, pgtype.VarcharOID:
		return kindText
	case pgtype.ByteaOID:
		return kindBytea
	case pgtype.Float4OID:
		return kindFloat4
	case pgtype.Float8OID:
		return kindFloat8
	case pgtype.JSONBOID:
		return kindJSON
	case pgtype.TSVectorOID:
		return kindVector
	}
	return kindOther
}

// binary reports whether the kind is sent as the server keeps it; the others are sent as text, and cast.
func (k kind) binary() bool { return k >= kindInt2 && k <= kindFloat8 }

// form is the form of a converted value.
type form uint8

const (
	formNull form = iota
	formInt
	formBool // n is 0 or 1
	formFloat
	formBytes
)

// cell is a value of the file as the target gets it.
type cell struct {
	form  form
	n     int64
	f     float64
	b     []byte // of the statement's row, or a copy
	odd   string // a sentence: what is stored instead, or why nothing can be
	unfit bool   // nothing can be stored
}

// values is the current row of a statement; a [sqlitedb.Stmt].
type values interface {
	Class(i int) sqlitedb.Class
	Int(i int) int64
	Real(i int) float64
	Bytes(i int) []byte
}

// convert makes of value i of the row what a column takes. Only what the value is, and what the target's column is, count:
// what the file declares a column to be says nothing of its values.
func convert(s values, i int, c *Column, k kind) cell {
	switch class := s.Class(i); class {
	case sqlitedb.Null:
		if c.NotNull {
			return unfit("there is no value, and the column needs one")
		}
		return cell{}
	case sqlitedb.Integer:
		return fromInteger(s.Int(i), c, k)
	case sqlitedb.Real:
		return fromReal(s.Real(i), c, k)
	case sqlitedb.Text:
		return fromText(s.Bytes(i), c, k)
	default:
		return fromBlob(s.Bytes(i), c, k)
	}
}

func unfit(format string, args ...any) cell {
	return cell{odd: fmt.Sprintf(format, args...), unfit: true}
}

// integerRange is what a whole number of the kind can be.
func integerRange(k kind) (low, high int64, name string) {
	switch k {
	case kindInt2:
		return math.MinInt16, math.MaxInt16, "smallint"
	case kindInt4:
		return math.MinInt32, math.MaxInt32, "integer"
	}
	return math.MinInt64, math.MaxInt64, "bigint"
}

func integer(v int64, k kind) cell {
	low, high, name := integerRange(k)
	if v < low || v > high {
		return unfit("the number %d is out of the range of %s", v, name)
	}
	return cell{form: formInt, n: v}
}

func fromInteger(v int64, c *Column, k kind) cell {
	switch k {
	case kindInt2, kindInt4, kindInt8:
		return integer(v, k)
	case kindBool:
		switch v {
		case 0, 1:
			return cell{form: formBool, n: v}
		}
		return cell{form: formBool, n: 1, odd: fmt.Sprintf("the number %d became true", v)}
	case kindFloat4:
		return float(float64(float32(v)), int64(float32(v)) != v || float32(v) >= 1<<63, strconv.FormatInt(v, 10))
	case kindFloat8:
		return float(float64(v), int64(float64(v)) != v || float64(v) >= 1<<63, strconv.FormatInt(v, 10))
	}
	return limited(strconv.AppendInt(nil, v, 10), c, k)
}

func float(v float64, inexact bool, was string) cell {
	out := cell{form: formFloat, f: v}
	if inexact {
		out.odd = fmt.Sprintf("the number %s became %s, the nearest that the column holds", was, strconv.FormatFloat(v, 'g', -1, 64))
	}
	return out
}

func fromReal(v float64, c *Column, k kind) cell {
	switch k {
	case kindInt2, kindInt4, kindInt8:
		if v != math.Trunc(v) || v < -1<<63 || v >= 1<<63 {
			_, _, name := integerRange(k)
			return unfit("%s is no number that %s holds", realText(v), name)
		}
		return integer(int64(v), k)
	case kindBool:
		switch v {
		case 0, 1:
			return cell{form: formBool, n: int64(v)}
		}
		return cell{form: formBool, n: 1, odd: fmt.Sprintf("the number %s became true", realText(v))}
	case kindFloat4:
		return float(float64(float32(v)), float64(float32(v)) != v, realText(v))
	case kindFloat8:
		return cell{form: formFloat, f: v}
	case kindOther, kindJSON:
		return cell{form: formBytes, b: strconv.AppendFloat(nil, v, 'g', -1, 64)}
	}
	return limited([]byte(realText(v)), c, k)
}

// realText writes a number as SQLite does where it makes a text of one, always with a point; with as many digits as it takes to
// read the same number back, of which SQLite's versions write 15 or up to 17.
func realText(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	case v == 0:
		return "0.0"
	}
	mantissa, power, _ := strings.Cut(strconv.FormatFloat(v, 'e', -1, 64), "e")
	digits := max(0, len(strings.TrimPrefix(mantissa, "-"))-2) // after the point
	e, _ := strconv.Atoi(power)                                // strconv wrote it
	if e < -4 || e > 16 {
		if digits == 0 {
			mantissa += ".0"
		}
		return fmt.Sprintf("%se%+03d", mantissa, e)
	}
	return strconv.FormatFloat(v, 'f', max(digits-e, 1), 64)
}

func fromText(b []byte, c *Column, k kind) cell {
	switch k {
	case kindText, kindVector, kindOther:
		return limited(b, c, k)
	case kindBytea:
		return cell{form: formBytes, b: b}
	case kindInt2, kindInt4, kindInt8:
		v, err := strconv.ParseInt(string(b), 10, 64)
		if err != nil || strconv.FormatInt(v, 10) != string(b) {
			_, _, name := integerRange(k)
			return unfit("the text is no number that %s holds", name)
		}
		return integer(v, k)
	case kindBool:
		switch string(b) {
		case "true", "t", "1":
			return cell{form: formBool, n: 1}
		case "false", "f", "0":
			return cell{form: formBool, n: 0}
		}
		return unfit("the text is neither true nor false")
	case kindFloat4, kindFloat8:
		bits := 64
		if k == kindFloat4 {
			bits = 32
		}
		v, err := strconv.ParseFloat(string(b), bits)
		if err != nil || len(bytes.Trim(b, "0123456789+-.eE")) > 0 {
			return unfit("the text is no number that the column holds")
		}
		return cell{form: formFloat, f: v}
	case kindJSON:
		return jsonCell(b, c)
	}
	return unfit("a text can't be stored in a column of type %s", c.TypeName)
}

func fromBlob(b []byte, c *Column, k kind) cell {
	switch k {
	case kindBytea:
		return cell{form: formBytes, b: b}
	case kindText, kindVector:
		return limited(b, c, k)
	case kindJSON:
		return jsonCell(b, c)
	case kindOther:
		if !utf8.Valid(b) {
			return unfit("the bytes are no text in UTF-8")
		}
		return limited(b, c, k)
	}
	return unfit("bytes can't be stored in a column of type %s", c.TypeName)
}

// replacement is U+FFFD, which stands for what is no text.
const replacement = "\ufffd"

// limited is a text that may be too long for the column, or hold what PostgreSQL takes in no text.
func limited(b []byte, c *Column, k kind) cell {
	if k == kindBytea {
		return cell{form: formBytes, b: b}
	}
	out := cell{form: formBytes, b: b}
	if bytes.IndexByte(b, 0) >= 0 || !utf8.Valid(b) {
		nul, name := replacement, "U+FFFD"
		if k == kindVector { // Synapse itself does so before it makes a search vector
			nul, name = " ", "a space"
		}
		out.b, out.odd = mended(b, nul, name)
	}
	if c.MaxChars > 0 && len(out.b) > c.MaxChars {
		if n := utf8.RuneCount(out.b); n > c.MaxChars {
			return unfit("the text has %d characters, and %s holds %d", n, c.TypeName, c.MaxChars)
		}
	}
	return out
}

// mended is a text with something in the place of every NUL, and U+FFFD in that of every run of bytes that is not UTF-8.
func mended(b []byte, nul, name string) ([]byte, string) {
	var said []string
	if !utf8.Valid(b) {
		b = bytes.ToValidUTF8(b, []byte(replacement))
		said = append(said, "bytes that are no UTF-8 became U+FFFD")
	}
	if n := bytes.Count(b, []byte{0}); n > 0 {
		b = bytes.ReplaceAll(b, []byte{0}, []byte(nul))
		said = append(said, count(n, "NUL")+" became "+name)
	}
	return b, strings.Join(said, ", ")
}

func count(n int, what string) string {
	if n == 1 {
		return "one " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// jsonCell is JSON for a column of type jsonb, which takes neither \u0000 nor half of a surrogate pair.
func jsonCell(b []byte, c *Column) cell {
	out := limited(b, c, kindJSON)
	if bytes.Contains(out.b, []byte(`\u`)) {
		if mended, n := mendEscapes(out.b); n > 0 {
			out.b = mended
			out.odd = strings.TrimPrefix(out.odd+"; ", "; ") + count(n, "escape") + ` that jsonb does not take became \ufffd`
		}
	}
	return out
}

// mendEscapes writes \ufffd for every \u0000, and for every surrogate without its other half. It only reads escapes inside
// strings, and leaves it to the server to say what is no JSON.
func mendEscapes(b []byte) ([]byte, int) {
	out := make([]byte, 0, len(b))
	n := 0
	for i := 0; i < len(b); {
		if b[i] != '\\' || i+1 >= len(b) {
			out = append(out, b[i])
			i++
			continue
		}
		unit, ok := escapedUnit(b[i:])
		if !ok {
			out = append(out, b[i], b[i+1])
			i += 2
			continue
		}
		width, bad := 6, unit == 0 || unit >= 0xdc00 && unit < 0xe000
		if unit >= 0xd800 && unit < 0xdc00 {
			low, ok := escapedUnit(b[i+6:])
			if bad = !ok || low < 0xdc00 || low >= 0xe000; !bad {
				width = 12
			}
		}
		if bad {
			out = append(out, `\ufffd`...)
			n++
		} else {
			out = append(out, b[i:i+width]...)
		}
		i += width
	}
	return out, n
}

// escapedUnit is the UTF-16 unit of an escape \uXXXX at the beginning of b.
func escapedUnit(b []byte) (uint16, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return uint16(v), err == nil
}
