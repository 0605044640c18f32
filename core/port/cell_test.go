package port

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// row is a row as a statement has it: int64, float64, string, []byte or nil.
type row []any

func (r row) Class(i int) sqlitedb.Class {
	switch r[i].(type) {
	case int64:
		return sqlitedb.Integer
	case float64:
		return sqlitedb.Real
	case string:
		return sqlitedb.Text
	case []byte:
		return sqlitedb.Blob
	}
	return sqlitedb.Null
}
func (r row) Int(i int) int64    { return r[i].(int64) }
func (r row) Real(i int) float64 { return r[i].(float64) }
func (r row) Bytes(i int) []byte {
	if s, ok := r[i].(string); ok {
		return []byte(s)
	}
	return r[i].([]byte)
}

// shown is a converted value as the tables below write it.
func shown(c cell) string {
	out := "NULL"
	switch {
	case c.unfit:
		return "lost: " + c.odd
	case c.form == formInt:
		out = fmt.Sprint(c.n)
	case c.form == formBool:
		out = fmt.Sprint(c.n == 1)
	case c.form == formFloat:
		out = fmt.Sprintf("float %v", c.f)
	case c.form == formBytes:
		out = fmt.Sprintf("%q", c.b)
	}
	if c.odd != "" {
		out += " changed: " + c.odd
	}
	return out
}

func TestEveryStorageClassBecomesEveryType(t *testing.T) {
	for _, c := range []struct {
		oid  uint32
		max  int
		in   any
		want string
	}{
		{pgtype.Int2OID, 0, int64(-32768), "-32768"},
		{pgtype.Int2OID, 0, int64(32768), "lost: the number 32768 is out of the range of smallint"},
		{pgtype.Int4OID, 0, int64(math.MaxInt32), "2147483647"},
		{pgtype.Int4OID, 0, int64(math.MaxInt32 + 1), "lost: the number 2147483648 is out of the range of integer"},
		{pgtype.Int4OID, 0, int64(math.MinInt32 - 1), "lost: the number -2147483649 is out of the range of integer"},
		{pgtype.Int8OID, 0, int64(math.MinInt64), "-9223372036854775808"},
		{pgtype.BoolOID, 0, int64(0), "false"},
		{pgtype.BoolOID, 0, int64(1), "true"},
		{pgtype.BoolOID, 0, int64(-3), "true changed: the number -3 became true"},
		{pgtype.TextOID, 0, int64(-7), `"-7"`},
		{pgtype.ByteaOID, 0, int64(42), `"42"`},
		{pgtype.VarcharOID, 2, int64(123), "lost: the text has 3 characters, and T holds 2"},
		{pgtype.Float8OID, 0, int64(3), "float 3"},
		{pgtype.Float8OID, 0, int64(1<<53 + 1), "float 9.007199254740992e+15 changed: the number 9007199254740993 became 9.007199254740992e+15, the nearest that the column holds"},
		{pgtype.Float8OID, 0, int64(math.MaxInt64), "float 9.223372036854776e+18 changed: the number 9223372036854775807 became 9.223372036854775807e+18, the nearest that the column holds"},
		{pgtype.Float4OID, 0, int64(1<<24 + 1), "float 1.6777216e+07 changed: the number 16777217 became 1.6777216e+07, the nearest that the column holds"},
		{pgtype.NumericOID, 0, int64(5), `"5"`},

		{pgtype.Int8OID, 0, 3.0, "3"},
		{pgtype.Int8OID, 0, 3.5, "lost: 3.5 is no number that bigint holds"},
		{pgtype.Int8OID, 0, math.Ldexp(1, 63), "lost: 9.223372036854776e+18 is no number that bigint holds"},
		{pgtype.Int8OID, 0, math.Ldexp(-1, 63), "-9223372036854775808"},
		{pgtype.Int2OID, 0, 40000.0, "lost: the number 40000 is out of the range of smallint"},
		{pgtype.Int8OID, 0, math.Inf(1), "lost: Inf is no number that bigint holds"},
		{pgtype.BoolOID, 0, 1.0, "true"},
		{pgtype.BoolOID, 0, 0.5, "true changed: the number 0.5 became true"},
		{pgtype.TextOID, 0, 1.5e12, `"1500000000000.0"`},
		{pgtype.ByteaOID, 0, 0.1, `"0.1"`},
		{pgtype.Float8OID, 0, 0.1, "float 0.1"},
		{pgtype.Float4OID, 0, 0.5, "float 0.5"},
		{pgtype.Float4OID, 0, 0.1, "float 0.10000000149011612 changed: the number 0.1 became 0.10000000149011612, the nearest that the column holds"},
		{pgtype.NumericOID, 0, 0.1, `"0.1"`},

		{pgtype.TextOID, 0, "grüße", `"grüße"`},
		{pgtype.TextOID, 0, "a\x00b\x00", "\"a\ufffdb\ufffd\" changed: 2 NULs became U+FFFD"},
		{pgtype.TextOID, 0, "a\xff\xfeb", "\"a\ufffdb\" changed: bytes that are no UTF-8 became U+FFFD"},
		{pgtype.TextOID, 0, "\xed\xa0\x80\x00", "\"\ufffd\ufffd\" changed: bytes that are no UTF-8 became U+FFFD, one NUL became U+FFFD"},
		{pgtype.VarcharOID, 5, "grüße", `"grüße"`},
		{pgtype.VarcharOID, 4, "grüße", "lost: the text has 5 characters, and T holds 4"},
		{pgtype.ByteaOID, 0, "\\x00\x00\xff", `"\\x00\x00\xff"`},
		{pgtype.Int8OID, 0, "12", "12"},
		{pgtype.Int8OID, 0, "012", "lost: the text is no number that bigint holds"},
		{pgtype.Int4OID, 0, "-0", "lost: the text is no number that integer holds"},
		{pgtype.Int4OID, 0, "3000000000", "lost: the number 3000000000 is out of the range of integer"},
		{pgtype.BoolOID, 0, "t", "true"},
		{pgtype.BoolOID, 0, "false", "false"},
		{pgtype.BoolOID, 0, "yes", "lost: the text is neither true nor false"},
		{pgtype.Float8OID, 0, "1.5e3", "float 1500"},
		{pgtype.Float8OID, 0, "infinity", "lost: the text is no number that the column holds"},
		{pgtype.TSVectorOID, 0, int64(17), `"17"`},
		{pgtype.TSVectorOID, 0, "two\x00words", `"two words" changed: one NUL became a space`},

		{pgtype.TextOID, 0, []byte("{\"a\": \"\\u00e9é\"}"), `"{\"a\": \"\\u00e9é\"}"`},
		{pgtype.TextOID, 0, []byte("a\xff\xfeb"), "\"a\ufffdb\" changed: bytes that are no UTF-8 became U+FFFD"},
		{pgtype.VarcharOID, 2, []byte("\xff\x00"), "\"\ufffd\ufffd\" changed: bytes that are no UTF-8 became U+FFFD, one NUL became U+FFFD"},
		{pgtype.VarcharOID, 1, []byte("\xffa"), "lost: the text has 2 characters, and T holds 1"},
		{pgtype.TSVectorOID, 0, []byte("\xff"), "\"\ufffd\" changed: bytes that are no UTF-8 became U+FFFD"},
		{pgtype.JSONBOID, 0, []byte("\"\xff\\u0000\""), "\"\\\"\ufffd\\\\ufffd\\\"\" changed: bytes that are no UTF-8 became U+FFFD; one escape that jsonb does not take became \\ufffd"},
		{pgtype.NumericOID, 0, []byte("\xff"), "lost: the bytes are no text in UTF-8"},
		{pgtype.TextOID, 0, []byte("\x00"), "\"\ufffd\" changed: one NUL became U+FFFD"},
		{pgtype.ByteaOID, 0, []byte("\x00\xff"), `"\x00\xff"`},
		{pgtype.Int8OID, 0, []byte("1"), "lost: bytes can't be stored in a column of type T"},
		{pgtype.BoolOID, 0, []byte("1"), "lost: bytes can't be stored in a column of type T"},

		{pgtype.JSONBOID, 0, `{"a":"\u0000\\u0000\\\u0000"}`, `"{\"a\":\"\\ufffd\\\\u0000\\\\\\ufffd\"}" changed: 2 escapes that jsonb does not take became \ufffd`},
		{pgtype.JSONBOID, 0, `["\ud83d\ude00", "\ud83d", "\ude00\ud83dx"]`, `"[\"\\ud83d\\ude00\", \"\\ufffd\", \"\\ufffd\\ufffdx\"]" changed: 3 escapes that jsonb does not take became \ufffd`},
		{pgtype.JSONBOID, 0, `{"a": 1}`, `"{\"a\": 1}"`},
		{pgtype.BoolOID, 0, nil, "NULL"},
		{pgtype.TextOID, 0, nil, "NULL"},
	} {
		column := Column{Name: "c", Type: c.oid, TypeName: "T", MaxChars: c.max}
		// What strconv says of a float is not what is tested here.
		want := strings.ReplaceAll(c.want, "9.223372036854775807e+18", "9.223372036854776e+18")
		if got := shown(convert(row{c.in}, 0, &column, kindOf(c.oid))); got != want {
			t.Errorf("%T %q as type %d:\n%s\nwant\n%s", c.in, c.in, c.oid, got, want)
		}
	}
	if got := shown(convert(row{nil}, 0, &Column{NotNull: true}, kindText)); got != "lost: there is no value, and the column needs one" {
		t.Error(got)
	}
}

func TestANumberIsWrittenAsSQLiteWritesIt(t *testing.T) {
	db := openSQL(t, ":memory:")
	defer db.Close()
	for _, v := range []float64{0, math.Copysign(0, -1), 1, -1, 0.1, 1.0 / 3, 123456789012345, 1234567890123456, 1e15, 1e16, 1e17, 123456789012345678, -1e-5, 1e14, 999999999999999.9, 1e-4, 1.5e-5, 1e100, -2.5e-300, math.MaxFloat64,
		100, 1e2 + 1e-13, 9007199254740993, math.Pi * 1e7, 12345.678, 1e22, math.Inf(1), math.Inf(-1)} {
		var want string
		if err := db.QueryRow("SELECT CAST(? AS TEXT)", v).Scan(&want); err != nil {
			t.Fatal(err)
		}
		// In the last of 17 digits SQLite is not exact.
		got := realText(v)
		if back, err := strconv.ParseFloat(got, 64); err != nil || back != v && !math.IsInf(v, 0) || len(got) <= 15 && got != want || strings.Contains(got, "e") != strings.Contains(want, "e") {
			t.Errorf("%g: %s, SQLite writes %s", v, got, want)
		}
	}
}
