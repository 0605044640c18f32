package rebuild

import (
	"context"
	"fmt"
	"strings"
)

// sum stands for the rows of a table in any order: their number, and the sum of their 64-bit hashes.
type sum struct {
	rows int64
	hash string // a decimal number; the sum does not overflow
}

func (s sum) String() string { return fmt.Sprintf("%d rows, %s", s.rows, s.hash) }

// reading is how one of the two databases is read, so that the same rows give the same sum in both.
type reading struct {
	// utf8 is SQL that makes UTF-8 bytes of the text %s; empty when both databases have the same encoding.
	utf8 string
	// converts: bytes change on the way, so that what is sorted by them sorts in another order.
	converts bool
	// skip are columns that are not compared, by the table's qualified name: they are made anew.
	skip map[string]string
	// without are rows that are not read, as [Work.LeaveOut] names them.
	without map[string][]string
}

// where is the condition of a statement that reads the table without the rows that are left out; empty when it has all.
func (r reading) where(t table) string {
	places := r.without[t.qualified()]
	if len(places) == 0 {
		return ""
	}
	// A ctid holds nothing that needs quoting, and no comma that an array would not want quoted.
	return " WHERE NOT ctid = ANY ('{\"" + strings.Join(places, `","`) + "\"}'::tid[])"
}

// sumQuery is the statement that adds up a table.
func (r reading) sumQuery(t table) string {
	var values []string
	for _, c := range t.Columns {
		if r.skip[t.qualified()] == c.Name {
			continue
		}
		name := ident(c.Name)
		switch {
		case c.plain() && c.hashed() || c.hashed() && r.utf8 == "":
			values = append(values, name)
		case c.plain() || r.utf8 == "":
			values = append(values, name+"::text")
		case c.ordered() && r.converts:
			values = append(values, fmt.Sprintf(sortedBytes, fmt.Sprintf(r.utf8, name+"::text")))
		default:
			values = append(values, fmt.Sprintf(r.utf8, name+"::text"))
		}
	}
	if len(values) == 0 {
		return "SELECT count(*), '0' FROM ONLY " + t.qualified() + r.where(t)
	}
	return fmt.Sprintf("SELECT count(*), coalesce(sum(hash_record_extended(ROW(%s), 0)), 0)::text FROM ONLY %s%s", strings.Join(values, ", "), t.qualified(), r.where(t))
}

const sortedBytes = `(SELECT string_agg(substr(v.b, n, 1), ''::bytea ORDER BY substr(v.b, n, 1)) FROM (SELECT %s AS b OFFSET 0) v, generate_series(1, length(v.b)) n)`

// sumOf adds up the rows of a table.
func (r reading) sumOf(ctx context.Context, conn querier, t table) (sum, error) {
	var s sum
	if err := conn.QueryRow(ctx, r.sumQuery(t)).Scan(&s.rows, &s.hash); err != nil {
		return s, fmt.Errorf("add up the rows of %s: %w", t.qualified(), err)
	}
	return s, nil
}
