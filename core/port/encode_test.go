package port

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/synapse-doctor/synapse-doctor/core/pghash"
)

func TestTheQuickWayOfEncodingIsTheSameAsTheOther(t *testing.T) {
	cells := row{nil, int64(0), int64(1), int64(2), int64(-1), int64(math.MaxInt16), int64(math.MaxInt16 + 1), int64(math.MinInt32), int64(math.MaxInt32 + 1), int64(math.MinInt64), 1.0, 0.5,
		"", "plain", "grüße", "a\x00b", "\xff", "17", "t", []byte("x"), []byte{}}
	for i := range cells {
		for _, oid := range []uint32{pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.BoolOID, pgtype.TextOID, pgtype.VarcharOID, pgtype.ByteaOID, pgtype.Float4OID, pgtype.Float8OID} {
			for _, c := range []Column{{Type: oid}, {Type: oid, NotNull: true}, {Type: oid, MaxChars: 4}} {
				var quick, slow pghash.Record
				k := kindOf(oid)
				got, plain := (&encoder{}).plain(nil, cells, i, &c, k, &quick)
				v := convert(cells, i, &c, k)
				if !plain {
					continue
				}
				want := appendBinary(nil, &v, k, &slow)
				if v.odd != "" || !bytes.Equal(got, want) || quick != slow {
					t.Errorf("%v as %d: %x, %s", cells[i], oid, got, fmt.Sprint(shown(v)))
				}
			}
		}
	}
}
