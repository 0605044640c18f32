package sqlitedb_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"testing"
	"unicode/utf16"

	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// Values are read from SQLite's memory where they are nothing unusual, so that each way in which they come to be there counts.
func TestAValueIsWhatSQLiteItselfSaysOfIt(t *testing.T) {
	for _, encoding := range []string{"UTF-8", "UTF-16le"} {
		path := create(t, `PRAGMA encoding='`+encoding+`'`,
			`CREATE TABLE t (id INTEGER PRIMARY KEY, v, r REAL, i INTEGER, x TEXT, g AS (r + 1) VIRTUAL)`,
			`INSERT INTO t (v, r, i, x) VALUES (NULL, 3, '7', 12), (zeroblob(5), 2.5, 1.0, 0.5), (zeroblob(9000), 1e300, 'text', x'00'),
  (CAST(x'6100620000006300' AS TEXT), -0.0, 9223372036854775807, ''), (x'', NULL, NULL, replace(hex(zeroblob(6000)), '0', 'ü')), ('', 4503599627370497.0, -1, 'ab')`)
		db := open(t, path)
		seen := map[sqlitedb.Class]int{}
		for _, value := range []string{"id", "v", "r", "i", "x", "g", "zeroblob(id)", "zeroblob(id) || v", "substr(x, 2, 2)", "v IS NULL", "-r", "r + 0", "CAST(i AS REAL)", "x || id", "'literal'",
			"(SELECT max(x) FROM t)", "sum(r) OVER (ORDER BY id)", "coalesce(r, i)", "upper(x)"} {
			// hex gives the bytes of a text in the file's encoding.
			s := prepare(t, db, `SELECT w, typeof(w), hex(w), CAST(w AS INTEGER), w FROM (SELECT id, `+value+` AS w FROM t) ORDER BY id`)
			for row, err := s.Step(t.Context()); row || err != nil; row, err = s.Step(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				class := s.Class(0)
				seen[class]++
				if class.String() != s.String(1) {
					t.Errorf("%s, %s: %s, and SQLite says %s", encoding, value, class, s.Bytes(1))
				}
				switch class {
				case sqlitedb.Text, sqlitedb.Blob:
					want, err := hex.DecodeString(s.String(2))
					if err != nil {
						t.Fatal(err)
					}
					if class == sqlitedb.Text && encoding != "UTF-8" {
						want = fromUTF16(want)
					}
					if got := s.Bytes(0); !bytes.Equal(got, want) {
						t.Errorf("%s, %s: %.60q, and SQLite says %.60q", encoding, value, got, want)
					}
				case sqlitedb.Integer:
					if s.Int(0) != s.Int(3) {
						t.Errorf("%s, %s: %d, and SQLite says %d", encoding, value, s.Int(0), s.Int(3))
					}
				case sqlitedb.Real:
					if v := s.Real(0); int64(v) != s.Int(3) && v < 1e18 {
						t.Errorf("%s, %s: %g, and SQLite says %d", encoding, value, v, s.Int(3))
					}
				}
			}
		}
		if len(seen) != 5 {
			t.Errorf("not every storage class was seen: %v", seen)
		}
	}
}

func fromUTF16(b []byte) []byte {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}

func TestThereIsNoValueOutsideARow(t *testing.T) {
	s := prepare(t, open(t, create(t, `CREATE TABLE t (v)`, `INSERT INTO t VALUES ('x')`)), `SELECT v FROM t WHERE length(v) = 1`)
	outside := func(when string, columns ...int) {
		t.Helper()
		for _, i := range columns {
			if s.Class(i) != sqlitedb.Null || s.Bytes(i) != nil || s.Int(i) != 0 {
				t.Errorf("%s: column %d is %s", when, i, s.Class(i))
			}
		}
	}
	outside("before the first row", 0)
	if row, err := s.Step(t.Context()); err != nil || !row {
		t.Fatal(row, err)
	}
	outside("in a row", -2, -1, 1, 2, 3, 4)
	if row, err := s.Step(t.Context()); err != nil || row {
		t.Fatal(row, err)
	}
	outside("after the last row", 0)
	s.Reset()
	outside("after a reset", 0)
}
