package port

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// sourceTable is a table as the file has it.
type sourceTable struct {
	name     string
	virtual  bool
	internal bool              // SQLite's own, or what a virtual table keeps its content in
	rowid    string            // a name under which the rowid is to be had; empty in a table WITHOUT ROWID
	order    string            // the columns of the key of such a table
	columns  map[string]string // by lower-case name
	computed map[string]bool   // columns that the file computes, by lower-case name: the target may have them as plain ones
}

// listSources are the tables of the file, by lower-case name.
func listSources(ctx context.Context, file *sqlitedb.DB) (map[string]*sourceTable, error) {
	tables := map[string]*sourceTable{}
	var virtual []string
	err := eachRow(ctx, file, "SELECT name, coalesce(sql, '') FROM sqlite_schema WHERE type = 'table'", func(s *sqlitedb.Stmt) error {
		t := &sourceTable{name: s.String(0), columns: map[string]string{}, computed: map[string]bool{}}
		words := strings.Fields(strings.ToUpper(s.String(1)))
		t.virtual = len(words) > 1 && words[1] == "VIRTUAL"
		t.internal = t.virtual || strings.HasPrefix(strings.ToLower(t.name), "sqlite_")
		if t.virtual {
			virtual = append(virtual, strings.ToLower(t.name))
		}
		tables[strings.ToLower(t.name)] = t
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, v := range virtual {
		for _, part := range []string{"content", "docsize", "segdir", "segments", "stat", "data", "idx", "config"} {
			if t := tables[v+"_"+part]; t != nil {
				t.internal = true
			}
		}
	}
	withoutRowid := map[string]bool{}
	err = eachRow(ctx, file, "SELECT name FROM pragma_table_list WHERE schema = 'main' AND wr", func(s *sqlitedb.Stmt) error {
		withoutRowid[strings.ToLower(s.String(0))] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	for lower, t := range tables {
		if t.internal {
			continue
		}
		if err := t.describe(ctx, file, withoutRowid[lower]); err != nil {
			return nil, err
		}
	}
	return tables, nil
}

// describe reads the columns.
func (t *sourceTable) describe(ctx context.Context, file *sqlitedb.DB, withoutRowid bool) error {
	var key []string
	err := eachRow(ctx, file, "SELECT name, hidden, pk FROM pragma_table_xinfo("+literalSQLite(t.name)+") ORDER BY pk, cid", func(s *sqlitedb.Stmt) error {
		const virtual, stored = 2, 3
		if hidden := s.Int(1); hidden == 0 || hidden == virtual || hidden == stored {
			t.columns[strings.ToLower(s.String(0))] = s.String(0)
			t.computed[strings.ToLower(s.String(0))] = hidden != 0
		}
		if s.Int(2) > 0 {
			key = append(key, quoteSQLite(s.String(0)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if withoutRowid {
		t.order = strings.Join(key, ", ")
		return nil
	}
	for _, name := range []string{"rowid", "_rowid_", "oid"} {
		if _, taken := t.columns[name]; !taken {
			t.rowid = name
			return nil
		}
	}
	return fmt.Errorf("the table %s of the file has columns named rowid, _rowid_ and oid, so that its rows can't be told apart", t.name)
}

func literalSQLite(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// eachRow runs a statement and calls fn for each row.
func eachRow(ctx context.Context, file *sqlitedb.DB, sql string, fn func(*sqlitedb.Stmt) error) error {
	s, err := file.Prepare(sql)
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		row, err := s.Step(ctx)
		if err != nil || !row {
			return err
		}
		if err := fn(s); err != nil {
			return err
		}
	}
}

var errFound = errors.New("found")

// hasRow reports whether a statement gives a row.
func hasRow(ctx context.Context, file *sqlitedb.DB, sql string) (bool, error) {
	err := eachRow(ctx, file, sql, func(*sqlitedb.Stmt) error { return errFound })
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

// span is a range of rowids, both ends included.
type span struct{ low, high int64 }

// ordered reports whether the table's rows have rowids, by which ranges of them are read. One that has none is read whole,
// in the order of its key.
func (t Table) ordered() bool { return t.rowid != "" }

// rows is the statement that reads the rows between the rowids ?1 and ?2, in their order: the rowid, the columns, and for
// the search rows whether there is such an event. Rows without a rowid are read all, with 0 in its place.
func (t Table) rows() string {
	var b strings.Builder
	b.WriteString("SELECT ")
	if t.ordered() {
		b.WriteString(t.rowid)
	} else {
		b.WriteString("0")
	}
	for _, c := range t.Columns {
		b.WriteString(", ")
		if t.search() {
			b.WriteString(c.Source)
		} else {
			b.WriteString(quoteSQLite(c.Source))
		}
	}
	switch {
	case t.search():
		b.WriteString(", e.event_id IS NOT NULL FROM " + searchSource + " c LEFT JOIN events e ON e.event_id = c.c0event_id AND e.room_id = c.c1room_id")
	default:
		b.WriteString(" FROM " + quoteSQLite(t.Source))
	}
	if !t.ordered() {
		b.WriteString(" ORDER BY " + t.order)
		return b.String()
	}
	fmt.Fprintf(&b, " WHERE %s BETWEEN ?1 AND ?2 ORDER BY %[1]s", t.rowid)
	return b.String()
}

// readRows prepares the statement that reads a span.
func readRows(file *sqlitedb.DB, t Table, at span) (*sqlitedb.Stmt, error) {
	s, err := file.Prepare(t.rows())
	if err != nil {
		return nil, err
	}
	if err := bindSpan(s, t, at); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func bindSpan(s *sqlitedb.Stmt, t Table, at span) error {
	if !t.ordered() {
		return nil
	}
	return errors.Join(s.BindInt(1, at.low), s.BindInt(2, at.high))
}
