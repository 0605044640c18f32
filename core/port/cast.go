package port

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/synapse-doctor/synapse-doctor/core/pghash"
)

// castStatement stores rows whose values are sent as texts, an array for each column. It gives back what it received, by
// count and hash, so that it can be told from what was sent, and what it stored.
func (t Table) castStatement() string {
	return fmt.Sprintf(`WITH %s, n AS (INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM i RETURNING %s AS h)
SELECT %s, (SELECT count(*) FROM n)::text, (SELECT coalesce(sum(h), 0) FROM n)::text`,
		t.received(), t.Ident, t.columnList(), strings.Join(t.casts(), ", "), t.hash(), receivedCounts)
}

// castingStatement only says what would be stored.
func (t Table) castingStatement() string {
	named := t.casts()
	for i, c := range t.Columns {
		named[i] += " AS " + quote(c.Name)
	}
	return fmt.Sprintf(`WITH %s, n AS (SELECT %s AS h FROM (SELECT %s FROM i) AS converted)
SELECT %s, (SELECT count(*) FROM n)::text, (SELECT coalesce(sum(h), 0) FROM n)::text`, t.received(), t.hash(), strings.Join(named, ", "), receivedCounts)
}

const receivedCounts = `(SELECT count(*) FROM i)::text, (SELECT coalesce(sum(received), 0) FROM i)::text`

// received is the arrays as rows, with the hash of each.
func (t Table) received() string {
	var arrays, names []string
	for i := range t.Columns {
		arrays = append(arrays, fmt.Sprintf("$%d::text[]", i+1))
		names = append(names, fmt.Sprintf("c%d", i+1))
	}
	list := strings.Join(names, ", ")
	return fmt.Sprintf("i AS MATERIALIZED (SELECT *, %s AS received FROM unnest(%s) AS u (%s))", pghash.RowSQL(list), strings.Join(arrays, ", "), list)
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

// textArrays makes the arrays of the columns, in the server's binary format.
func textArrays(tuples []byte, columns, rows int) [][]byte {
	arrays := make([][]byte, columns)
	sizes := make([]int, columns)
	fields(tuples, func(column int, value []byte) { sizes[column] += 4 + len(value) })
	for i := range arrays {
		a := make([]byte, 0, 20+sizes[i])
		a = binary.BigEndian.AppendUint32(a, 1) // dimensions
		a = binary.BigEndian.AppendUint32(a, 1) // there may be NULLs
		a = binary.BigEndian.AppendUint32(a, pgtype.TextOID)
		a = binary.BigEndian.AppendUint32(a, uint32(rows))
		arrays[i] = binary.BigEndian.AppendUint32(a, 1) // the first index
	}
	fields(tuples, func(column int, value []byte) {
		if value == nil {
			arrays[column] = append(arrays[column], 0xff, 0xff, 0xff, 0xff)
			return
		}
		arrays[column] = appendField(arrays[column], value)
	})
	return arrays
}

// castRun runs a statement of [Table.castStatement] or [Table.castingStatement] on some rows of a batch, and returns the hashes of
// what it stored. The server is made to say that it received what was sent.
func castRun(ctx context.Context, conn *pgx.Conn, t Table, statement string, b *batch, low, high int) (pghash.Sum, error) {
	var sum pghash.Sum
	if low == high {
		return sum, nil
	}
	arrays := textArrays(b.tuples(low, high), len(t.Columns), high-low)
	oids := slices.Repeat([]uint32{pgtype.TextArrayOID}, len(arrays))
	result := conn.PgConn().ExecParams(ctx, statement, arrays, oids, []int16{pgx.BinaryFormatCode}, nil).Read()
	if result.Err != nil {
		return sum, result.Err
	}
	if len(result.Rows) != 1 || len(result.Rows[0]) != 4 {
		return sum, fmt.Errorf("store rows in the table %s: the server answered with %d rows", t.Name, len(result.Rows))
	}
	var sent pghash.Sum
	for _, row := range b.rows[low:high] {
		sent.Add(row.hash)
	}
	answer := result.Rows[0]
	if n := fmt.Sprint(high - low); string(answer[0]) != n || string(answer[1]) != sent.String() {
		return sum, fmt.Errorf("store rows in the table %s: the server did not receive what was sent (%s of %s rows)", t.Name, answer[0], n)
	}
	if string(answer[2]) != string(answer[0]) {
		return sum, fmt.Errorf("the table %s was sent %s rows and stored %s: a trigger or a rule of the target keeps rows away. Remove it, then run this again", t.Name, answer[0], answer[2])
	}
	return pghash.ParseSum(string(answer[3]))
}
