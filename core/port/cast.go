package port

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/synapse-doctor/synapse-doctor/core/pghash"
)

// castStatement stores rows whose values are sent as texts, an array for each column. It gives back what it received, by
// count and hashes, so that it can be told from what was sent, and what it stored.
func (t Table) castStatement() string {
	return fmt.Sprintf(`WITH n AS (INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s RETURNING %s AS h)
SELECT count(*)::text, coalesce(sum(h), 0)::text, %s FROM n`, t.Ident, t.columnList(), strings.Join(t.casts(), ", "), t.received(), t.hash(), t.receivedHashes())
}

// castingStatement only says what would be stored.
func (t Table) castingStatement() string {
	named := t.casts()
	for i, c := range t.Columns {
		named[i] += " AS " + quote(c.Name)
	}
	return fmt.Sprintf(`SELECT count(*)::text, coalesce(sum(%s), 0)::text, %s FROM (SELECT %s FROM %s) AS converted`,
		t.hash(), t.receivedHashes(), strings.Join(named, ", "), t.received())
}

// received is the arrays as rows. In a list of columns each element is handed on as it is; in FROM the server would write all to a
// store of its own first, one for each array.
func (t Table) received() string {
	columns := make([]string, len(t.Columns))
	for i := range t.Columns {
		columns[i] = fmt.Sprintf("unnest($%d::text[]) AS c%[1]d", i+1)
	}
	return "(SELECT " + strings.Join(columns, ", ") + ") AS i"
}

// receivedHashes is the hash of each array, with its elements in their order, as a text.
func (t Table) receivedHashes() string {
	hashes := make([]string, len(t.Columns))
	for i := range t.Columns {
		hashes[i] = fmt.Sprintf("hash_array_extended($%d::text[], 0)", i+1)
	}
	return "concat_ws(' ', " + strings.Join(hashes, ", ") + ")"
}

// casts make a column's type of its text.
func (t Table) casts() []string {
	var out []string
	for i, c := range t.Columns {
		if kindOf(c.Type) == kindVector && t.search() {
			out = append(out, fmt.Sprintf("to_tsvector('english', c%d)", i+1))
		} else {
			out = append(out, fmt.Sprintf("c%d::%s", i+1, c.cast))
		}
	}
	return out
}

// textArrays makes the arrays of the columns, in the server's binary format, and their hashes as [Table.receivedHashes] gives them.
func textArrays(tuples []byte, columns, rows int) (arrays [][]byte, hashes string) {
	arrays = make([][]byte, columns)
	sizes := make([]int, columns)
	sums := make([]uint64, columns)
	fields(tuples, func(column int, value []byte) { sizes[column] += 4 + len(value) })
	for i := range arrays {
		a := make([]byte, 0, 20+sizes[i])
		a = binary.BigEndian.AppendUint32(a, 1) // dimensions
		a = binary.BigEndian.AppendUint32(a, 1) // there may be NULLs
		a = binary.BigEndian.AppendUint32(a, pgtype.TextOID)
		a = binary.BigEndian.AppendUint32(a, uint32(rows))
		arrays[i] = binary.BigEndian.AppendUint32(a, 1) // the first index
		sums[i] = 1                                     // of an array without elements
	}
	fields(tuples, func(column int, value []byte) {
		sums[column] *= 31
		if value == nil {
			arrays[column] = append(arrays[column], 0xff, 0xff, 0xff, 0xff)
			return
		}
		sums[column] += pghash.Bytes(value)
		arrays[column] = appendField(arrays[column], value)
	})
	var b []byte
	for i, sum := range sums {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendInt(b, int64(sum), 10)
	}
	return arrays, string(b)
}

// castRun runs a statement of [Table.castStatement] or [Table.castingStatement] on some rows of a batch, and returns the hashes of
// what it stored. The server is made to say that it received what was sent.
func castRun(ctx context.Context, conn *pgx.Conn, t Table, statement string, b *batch, low, high int) (pghash.Sum, error) {
	var sum pghash.Sum
	if low == high {
		return sum, nil
	}
	arrays, sent := textArrays(b.tuples(low, high), len(t.Columns), high-low)
	oids := slices.Repeat([]uint32{pgtype.TextArrayOID}, len(arrays))
	result := conn.PgConn().ExecParams(ctx, statement, arrays, oids, []int16{pgx.BinaryFormatCode}, nil).Read()
	if result.Err != nil {
		return sum, result.Err
	}
	if len(result.Rows) != 1 || len(result.Rows[0]) != 3 {
		return sum, fmt.Errorf("store rows in the table %s: the server answered with %d rows", t.Name, len(result.Rows))
	}
	answer := result.Rows[0]
	if string(answer[2]) != sent {
		return sum, fmt.Errorf("store rows in the table %s: the server did not receive what was sent", t.Name)
	}
	stored, err := strconv.ParseInt(string(answer[0]), 10, 64)
	if err == nil {
		err = t.counted(stored, int64(high-low))
	}
	if err != nil {
		return sum, err
	}
	return pghash.ParseSum(string(answer[1]))
}
