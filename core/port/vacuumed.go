package port

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// Vacuum is what VACUUM has done to a file since the port has read it.
type Vacuum struct {
	Happened bool
	Moved    []string          // tables of the target whose rows have other rowids in the file now
	Evidence map[string]string // what it is concluded from, by name
}

// Vacuumed tells whether the file at path was VACUUMed since the port recorded in the target has read it, by that record
// alone. Nil where there is no record, or nothing that tells of a VACUUM.
//
// VACUUM makes every table and index anew in the order of the schema, and raises the schema cookie by one although the schema
// stays what it was. It gives new rowids to the rows of tables that have neither an INTEGER PRIMARY KEY nor any index; other
// tables keep theirs. VACUUM INTO writes such a file as well, and keeps all rowids: a snapshot that was made so is told
// from the file itself by its inode, and only rows that have moved count there.
func Vacuumed(ctx context.Context, tx pgx.Tx, path string) (*Vacuum, error) {
	r, err := ReadRecord(ctx, tx)
	if err != nil || r == nil {
		return nil, err
	}
	now, err := fileIdentity(ctx, path)
	if err != nil {
		return nil, err
	}
	was := r.File
	same := was.Inode != 0 && was.Inode == now.Inode && was.Device == now.Device
	switch {
	case now.SchemaCookie < was.SchemaCookie, same && now.SchemaCookie == was.SchemaCookie:
		return nil, nil // no VACUUM leaves it as it was
	case same && now.Schema == was.Schema && !now.Compact:
		return nil, nil // something was made and dropped again
	}
	v := &Vacuum{Happened: same && now.Schema == was.Schema, Evidence: map[string]string{
		"schema cookie": fmt.Sprintf("%d when it was read, %d now", was.SchemaCookie, now.SchemaCookie),
		"pages":         fmt.Sprintf("%d when it was read, %d now", was.Pages, now.Pages),
	}}
	if moved := was.rearranged(now); moved > 0 {
		v.Evidence["first pages of tables and indexes"] = fmt.Sprintf("%d of %d lie elsewhere", moved, len(was.Roots))
	}
	if err := v.findMoved(ctx, tx, path); err != nil {
		return nil, err
	}
	if v.Happened = v.Happened || len(v.Moved) > 0; !v.Happened {
		return nil, nil
	}
	return v, nil
}

// rearranged counts what begins at another page.
func (id FileIdentity) rearranged(now FileIdentity) int {
	n := 0
	for name, root := range id.Roots {
		if other, ok := now.Roots[name]; ok && other != root {
			n++
		}
	}
	return n
}

// A pin is a row whose place is recorded: the first or the last one of a chunk.
type pin struct {
	rowid int64
	key   string // see [RowKey]
}

// places are where the rows of a table were.
type places struct {
	pins []pin
	rows int64
	last int64 // rowid
}

// gaps reports whether the rowids were others than 1, 2, 3, …
func (p places) gaps() bool { return p.last != p.rows }

const pinsQuery = `SELECT name, first, first_key, last, last_key, rows FROM synapse_doctor.port_chunk WHERE rows > 0 ORDER BY name, first`

func readPins(ctx context.Context, tx pgx.Tx) (map[string]places, error) {
	rows, err := tx.Query(ctx, pinsQuery)
	if err != nil {
		return nil, fmt.Errorf("read where the rows were: %w", err)
	}
	found := map[string]places{}
	var name string
	var first, last, n int64
	var firstKey, lastKey []byte
	_, err = pgx.ForEachRow(rows, []any{&name, &first, &firstKey, &last, &lastKey, &n}, func() error {
		p := found[name]
		p.pins = append(p.pins, pin{first, string(firstKey)}, pin{last, string(lastKey)})
		p.rows, p.last = p.rows+n, last
		found[name] = p
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read where the rows were: %w", err)
	}
	return found, nil
}

// findMoved looks for the rows that are not at their rowids any more. Where one is under another, its table has moved; it may
// as well have been changed or deleted.
func (v *Vacuum) findMoved(ctx context.Context, tx pgx.Tx, path string) error {
	pins, err := readPins(ctx, tx)
	if err != nil {
		return err
	}
	file, err := sqlitedb.Open(ctx, path)
	if err != nil {
		return err
	}
	defer file.Close()
	m, err := ReadMatch(ctx, tx, file)
	if err != nil {
		return err
	}
	for _, t := range m.Tables {
		at := pins[t.Name]
		if !t.ordered() || len(at.pins) == 0 {
			continue
		}
		keeps, err := t.keepsRowids(ctx, file)
		if err != nil {
			return err
		}
		if !keeps && v.Happened && at.gaps() {
			v.moved(t, "VACUUM numbers its rows from 1 on without gaps, since it has no index; there were gaps")
			continue
		}
		missing, err := missingPins(ctx, file, t, at.pins)
		if err != nil {
			return err
		}
		was, is, err := findElsewhere(ctx, file, t, missing)
		if err != nil {
			return err
		}
		if was != is {
			v.moved(t, fmt.Sprintf("a row that was %d is %d now", was, is))
		}
	}
	slices.Sort(v.Moved)
	return nil
}

func (v *Vacuum) moved(t Table, why string) {
	v.Moved = append(v.Moved, t.Name)
	if len(v.Moved) <= mostKeys {
		v.Evidence["rowids of "+t.Name] = why
	}
}

// missingPins are the rowids of the rows that are not at their places, by key.
func missingPins(ctx context.Context, file *sqlitedb.DB, t Table, pins []pin) (map[string]int64, error) {
	missing := map[string]int64{}
	s, err := readRows(file, t, span{})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	for _, p := range pins {
		if err := errors.Join(s.Reset(), bindSpan(s, t, span{p.rowid, p.rowid})); err != nil {
			return nil, err
		}
		row, err := s.Step(ctx)
		if err != nil {
			return nil, err
		}
		if !row || string(RowKey(s, len(t.Columns))) != p.key {
			missing[p.key] = p.rowid
		}
	}
	return missing, nil
}

// findElsewhere is the old and the new rowid of the first row that has moved; both 0 without one.
func findElsewhere(ctx context.Context, file *sqlitedb.DB, t Table, missing map[string]int64) (was, is int64, err error) {
	if len(missing) == 0 {
		return 0, 0, nil
	}
	s, err := readRows(file, t, span{low: math.MinInt64, high: math.MaxInt64})
	if err != nil {
		return 0, 0, err
	}
	defer s.Close()
	for {
		row, err := s.Step(ctx)
		if err != nil || !row {
			return 0, 0, err
		}
		if was, ok := missing[string(RowKey(s, len(t.Columns)))]; ok && s.Int(0) != was {
			return was, s.Int(0), nil
		}
	}
}

// keepsRowids reports whether VACUUM keeps the rowids of the table: it has an index, or its rowid is a column of its own.
func (t Table) keepsRowids(ctx context.Context, file *sqlitedb.DB) (bool, error) {
	table := literalSQLite(t.Source)
	return hasRow(ctx, file, "SELECT 1 FROM sqlite_schema WHERE type = 'index' AND tbl_name = "+table+" COLLATE NOCASE UNION ALL "+
		"SELECT 1 FROM (SELECT count(*) AS n, max(upper(type)) AS type FROM pragma_table_xinfo("+table+") WHERE pk > 0) WHERE n = 1 AND type = 'INTEGER' LIMIT 1")
}
