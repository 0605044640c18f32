package main

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// sourceTable is a table as it is before it grows.
type sourceTable struct {
	name    string
	columns []sourceColumn
	unique  [][]int // places of the columns of each unique key
	rows    [][]any // text as [text]
	copied  bool    // it has rows of something that there can be more of
}

// sourceColumn is a column, and what is done to its values in a copy.
type sourceColumn struct {
	name   string
	number bool // integers identify something: they are shifted
	suffix bool // text that must be unique and has no Matrix identifier: what tells copies apart is added
	varied bool // what people wrote: words are added, so that the search has more of them
}

// foreignKey is one column of it.
type foreignKey struct{ table, column, parent, parentColumn string }

// Numbers that identify something without being a key: those of streams, and of what belongs to them.
var numbered = regexp.MustCompile(`(?i)(^|_)(stream_id|stream_ordering|chain_id|state_group|bump_stamp)$`)

// What people wrote, in the table that holds the content of Synapse's event_search.
const searchTable, searchColumn = "event_search_content", "c4value"

// read reads the database and decides what is done to each column.
func (m *amplifier) read(ctx context.Context) error {
	names, err := m.tableNames(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		t, err := m.readTable(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if len(t.rows) > 0 {
			m.tables = append(m.tables, t)
		}
	}
	m.inherit(func(c *sourceColumn) *bool { return &c.number })
	for _, t := range m.tables {
		t.decide()
	}
	m.inherit(func(c *sourceColumn) *bool { return &c.suffix })
	m.stride = 100
	for _, t := range m.tables {
		m.stride = max(m.stride, t.greatest()+100)
	}
	return nil
}

// tableNames are the ordinary tables; of a virtual table's own, only the one with its content.
func (m *amplifier) tableNames(ctx context.Context) ([]string, error) {
	const query = `SELECT name FROM sqlite_schema t WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND sql NOT LIKE 'CREATE VIRTUAL%'
AND NOT EXISTS (SELECT 1 FROM sqlite_schema v WHERE v.sql LIKE 'CREATE VIRTUAL%' AND substr(t.name, 1, length(v.name) + 1) = v.name || '_' AND t.name <> v.name || '_content')
ORDER BY name`
	return column[string](ctx, m.db, query)
}

func column[T any](ctx context.Context, db *sql.DB, query string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		var one T
		if err := rows.Scan(&one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

func (m *amplifier) readTable(ctx context.Context, name string) (*sourceTable, error) {
	t := &sourceTable{name: name}
	columns, err := column[string](ctx, m.db, `SELECT name FROM pragma_table_info(?) ORDER BY cid`, name)
	if err != nil {
		return nil, err
	}
	place := map[string]int{}
	selected := make([]string, len(columns))
	for i, c := range columns {
		t.columns = append(t.columns, sourceColumn{name: c, number: numbered.MatchString(c), varied: name == searchTable && c == searchColumn})
		place[c] = i
		selected[i] = "+" + quoted(c) // the driver makes booleans and times of what is declared so; an expression isn't
	}
	if err := m.readKeys(ctx, t, place); err != nil {
		return nil, err
	}
	rows, err := m.db.QueryContext(ctx, `SELECT `+strings.Join(selected, ", ")+` FROM `+quoted(name))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		row := make([]any, len(columns))
		into := make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		for i, cell := range row {
			if s, ok := cell.(string); ok {
				row[i] = m.texts.parse(s)
			}
		}
		t.rows = append(t.rows, row)
	}
	return t, rows.Err()
}

func (m *amplifier) readKeys(ctx context.Context, t *sourceTable, place map[string]int) error {
	rows, err := m.db.QueryContext(ctx, `SELECT 'index ' || i.seq, c.name FROM pragma_index_list(?1) i, pragma_index_info(i.name) c WHERE i."unique" AND i.partial = 0
UNION ALL SELECT 'key', name FROM pragma_table_info(?1) WHERE pk > 0`, t.name)
	if err != nil {
		return err
	}
	defer rows.Close()
	keys := map[string][]int{}
	for rows.Next() {
		var key, name string
		if err := rows.Scan(&key, &name); err != nil {
			return err
		}
		keys[key] = append(keys[key], place[name])
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		key := keys[name]
		t.unique = append(t.unique, key)
		if len(key) == 1 {
			t.columns[key[0]].number = true
		}
	}
	return m.readParents(ctx, t.name)
}

func (m *amplifier) readParents(ctx context.Context, table string) error {
	rows, err := m.db.QueryContext(ctx, `SELECT "from", "table", coalesce("to", '') FROM pragma_foreign_key_list(?)`, table)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		f := foreignKey{table: table}
		if err := rows.Scan(&f.column, &f.parent, &f.parentColumn); err != nil {
			return err
		}
		m.parents = append(m.parents, f)
	}
	return rows.Err()
}

// inherit does to the columns of foreign keys what is done to the columns that they point at.
func (m *amplifier) inherit(what func(*sourceColumn) *bool) {
	find := func(table, name string) *sourceColumn {
		for _, t := range m.tables {
			for i := range t.columns {
				if strings.EqualFold(t.name, table) && strings.EqualFold(t.columns[i].name, name) {
					return &t.columns[i]
				}
			}
		}
		return nil
	}
	for changed := true; changed; {
		changed = false
		for _, f := range m.parents {
			child, parent := find(f.table, f.column), find(f.parent, f.parentColumn)
			if child != nil && parent != nil && *what(parent) && !*what(child) {
				*what(child), changed = true, true
			}
		}
	}
}

// decide decides whether there can be copies of the table's rows: of those that are about users, rooms or events, or that
// only numbers tell apart. Not of a row of which there is one for ever, such as the version of the schema.
func (t *sourceTable) decide() {
	different := make([]bool, len(t.columns)) // in all rows of a copy
	for c := range t.columns {
		different[c] = true
		for _, row := range t.rows {
			x, isText := row[c].(text)
			t.copied = t.copied || isText && x.identifies()
			_, isNumber := row[c].(int64)
			different[c] = different[c] && (isText && x.identifies() || isNumber && t.columns[c].number)
		}
	}
	var alike [][]int
	for _, key := range t.unique {
		if !slices.ContainsFunc(key, func(c int) bool { return different[c] }) {
			alike = append(alike, key)
		}
	}
	if !t.copied {
		t.copied = len(alike) == 0 && slices.Contains(different, true)
		return
	}
	for _, key := range alike {
		for _, c := range slices.Backward(key) {
			if _, isText := t.rows[0][c].(text); isText {
				t.columns[c].suffix = true
				break
			}
		}
	}
}

// greatest is the greatest number that identifies something, or the least below 0 without its sign.
func (t *sourceTable) greatest() int64 {
	var most int64
	for c, column := range t.columns {
		for _, row := range t.rows {
			if v, ok := row[c].(int64); ok && column.number {
				most = max(most, v, -v)
			}
		}
	}
	return most
}

// copied is the value that the n-th copy has of a cell.
func (c sourceColumn) copied(cell any, n, row int, offset int64, names []string) any {
	switch v := cell.(type) {
	case int64:
		switch {
		case !c.number:
			return v
		case v < 0: // events from before a room was joined are numbered downwards
			return v - offset
		default:
			return v + offset
		}
	case text:
		s := v.write(names)
		switch {
		case c.varied:
			s += " " + moreWords(n, row)
		case c.suffix && !v.identifies():
			s += "." + strconv.Itoa(n)
		}
		return s
	default:
		return cell
	}
}
