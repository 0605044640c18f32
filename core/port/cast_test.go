package port

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestTheHashesOfWhatIsSentAreThoseOfWhatArrives(t *testing.T) {
	table := Table{Columns: []Column{{Name: "a"}, {Name: "b"}}}
	conn := pgtest.StartWith(t, pgtest.Config{Shared: true}).Database(t).Conn(t)
	seen := map[string]int{}
	for i, rows := range [][]row{
		{},
		{{"x", "y"}},
		{{"y", "x"}},
		{{"x", nil}},
		{{"x", ""}},
		{{nil, nil}},
		{{nil, nil}, {nil, nil}},
		{{"x", "y"}, {"z", "w"}},
		{{"z", "y"}, {"x", "w"}},
		{{"z", "w"}, {"x", "y"}},
		{{"grüße", strings.Repeat("long ", 5000)}, {"", nil}},
	} {
		e := &encoder{t: table, kinds: []kind{kindOther, kindVector}}
		var tuples []byte
		for _, r := range rows {
			tuples = e.row(tuples, append(row{int64(0)}, r...))
		}
		arrays, sent := textArrays(tuples, 2, len(rows))
		answer := conn.PgConn().ExecParams(t.Context(), "SELECT "+table.receivedHashes(), arrays, []uint32{pgtype.TextArrayOID, pgtype.TextArrayOID},
			[]int16{pgx.BinaryFormatCode}, nil).Read()
		if answer.Err != nil {
			t.Fatalf("%v: %v", rows, answer.Err)
		}
		if received := string(answer.Rows[0][0]); received != sent {
			t.Errorf("%v: the server has %s, this %s", rows, received, sent)
		}
		if j, twice := seen[sent]; twice {
			t.Errorf("the hashes of the cases %d and %d are the same: %s", j, i, sent)
		}
		seen[sent] = i
	}
}

// A server that has received something else than what was sent is told from one that has not: here the statement takes the
// arrays in another order.
func TestRowsThatArriveOtherwiseThanTheyWereSentAreAnError(t *testing.T) {
	table := Table{Name: "t", Ident: "t", Columns: []Column{{Name: "a", Hashed: "a", cast: "text"}, {Name: "b", Hashed: "b", cast: "text"}}}
	conn := pgtest.StartWith(t, pgtest.Config{Shared: true}).Database(t).Conn(t)
	if _, err := conn.Exec(t.Context(), "CREATE TABLE t (a text, b text)"); err != nil {
		t.Fatal(err)
	}
	e := &encoder{t: table, kinds: []kind{kindOther, kindOther}}
	var b batch
	for i := range 3 {
		b.buf = e.row(b.buf, row{int64(i), fmt.Sprint("a", i), fmt.Sprint("b", i)})
		b.rows = append(b.rows, batchRow{len(b.buf), int64(i), e.hash})
	}
	for _, statement := range []string{table.castStatement(), table.castingStatement()} {
		sum, err := castRun(t.Context(), conn, table, statement, &b, 0, 3)
		if err != nil || sum.String() == "0" {
			t.Errorf("%s: %s, %v", statement, sum, err)
		}
		_, err = castRun(t.Context(), conn, table, strings.NewReplacer("$1", "$2", "$2", "$1").Replace(statement), &b, 0, 3)
		if err == nil || !strings.Contains(err.Error(), "did not receive what was sent") {
			t.Errorf("%s: %v", statement, err)
		}
	}
}
