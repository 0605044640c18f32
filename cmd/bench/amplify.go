package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // the driver
)

// A large database is made out of a real homeserver's: its rows are copied again and again, each time as those of other
// users, rooms and events. What is an identifier is told by the values and the catalog, not by a list of tables.
//
// SQLite's own index of the search, whose module the driver lacks, keeps only the words of the first copy; nobody who moves
// a database reads it.

// amplified is what was made.
type amplified struct {
	path   string
	bytes  int64
	rows   int64 // that a port moves, about: those of virtual tables' indexes are not among them
	copies int
}

// unpack makes a file of one that zstd has packed.
func unpack(ctx context.Context, packed, path string) error {
	out, err := exec.CommandContext(ctx, "zstd", "-d", "-q", "-f", packed, "-o", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("unpack %s with the program zstd: %w: %s", packed, err, out)
	}
	return os.Chmod(path, 0o600)
}

// amplify makes the SQLite database at path larger, until it has about size bytes.
func amplify(ctx context.Context, path string, size int64) (a amplified, err error) {
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1) // the settings below are of a connection
	m := amplifier{db: db}
	for _, s := range []string{
		`PRAGMA journal_mode = off`, `PRAGMA synchronous = off`, `PRAGMA locking_mode = exclusive`, `PRAGMA foreign_keys = off`,
		`PRAGMA temp_store = memory`, `PRAGMA cache_size = -500000`, snapshots,
	} {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return a, fmt.Errorf("%s: %s: %w", path, s, err)
		}
	}
	if err := m.read(ctx); err != nil {
		return a, fmt.Errorf("read %s: %w", path, err)
	}
	if a.copies, err = m.grow(ctx, size); err != nil {
		return a, fmt.Errorf("make %s larger: %w", path, err)
	}
	if err := m.check(ctx); err != nil {
		return a, fmt.Errorf("%s: %w", path, err)
	}
	a.path = path
	for _, t := range m.tables {
		a.rows += int64(len(t.rows) * a.copies)
	}
	pages, err := m.pages(ctx, true)
	a.bytes = pages * m.pageSize
	return a, err
}

// In life, state groups are chains of differences with the whole state of the room now and then; the homeserver that is
// copied is too young to have enough of the latter, which are most of the rows of old ones.
const snapshots = `INSERT INTO state_groups_state (state_group, room_id, type, state_key, event_id)
SELECT g.id, s.room_id, s.type, s.state_key, s.event_id FROM state_groups g JOIN current_state_events s ON s.room_id = g.room_id WHERE g.id % 8 = 0 ORDER BY g.id`

// amplifier is a database that is being made larger.
type amplifier struct {
	db       *sql.DB
	pageSize int64
	tables   []*sourceTable
	parents  []foreignKey
	stride   int64 // more than any number that identifies something
	texts    texts
}

// grow adds copies until the database will have the size, with its indexes.
func (m *amplifier) grow(ctx context.Context, size int64) (copies int, err error) {
	indexed, err := m.pages(ctx, false)
	if err != nil {
		return 0, err
	}
	indexes, err := m.dropIndexes(ctx)
	if err != nil {
		return 0, err
	}
	bare, err := m.pages(ctx, false)
	if err != nil {
		return 0, err
	}
	copies = 1
	for {
		pages, err := m.pages(ctx, false)
		if err != nil {
			return 0, err
		}
		if float64(pages*m.pageSize)*float64(indexed)/float64(bare) >= float64(size) {
			break
		}
		if err := m.copy(ctx, copies); err != nil {
			return 0, err
		}
		copies++
	}
	if err := m.movePositions(ctx, int64(copies-1)*m.stride); err != nil {
		return 0, err
	}
	for _, s := range append(indexes, `ANALYZE`) {
		if _, err := m.db.ExecContext(ctx, s); err != nil {
			return 0, fmt.Errorf("%s: %w", s, err)
		}
	}
	return copies, nil
}

// pages is the number of pages in use, or with those that are free.
func (m *amplifier) pages(ctx context.Context, free bool) (int64, error) {
	var pages, unused int64
	err := m.db.QueryRowContext(ctx, `SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).
		Scan(&pages, &unused, &m.pageSize)
	if !free {
		pages -= unused
	}
	return pages, err
}

// dropIndexes drops those that don't belong to a constraint, and returns the statements that make them again.
func (m *amplifier) dropIndexes(ctx context.Context) (statements []string, err error) {
	rows, err := m.db.QueryContext(ctx, `SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name, definition string
		if err := rows.Scan(&name, &definition); err != nil {
			return nil, err
		}
		names, statements = append(names, name), append(statements, definition)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	rows.Close()
	for _, name := range names {
		if _, err := m.db.ExecContext(ctx, `DROP INDEX `+quoted(name)); err != nil {
			return nil, fmt.Errorf("drop index %s: %w", name, err)
		}
	}
	return statements, nil
}

// mostValues bounds the parameters of one statement.
const mostValues = 1000

// copy adds the n-th copy of all rows, from 1, in a transaction.
func (m *amplifier) copy(ctx context.Context, n int) error {
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // it has ended where the commit was reached
	names := m.texts.names(n)
	for _, t := range m.tables {
		if !t.copied {
			continue
		}
		if err := t.insert(ctx, tx, n, int64(n)*m.stride, names); err != nil {
			return fmt.Errorf("copy %d of %s: %w", n, t.name, err)
		}
	}
	return tx.Commit()
}

func (t *sourceTable) insert(ctx context.Context, tx *sql.Tx, n int, offset int64, names []string) error {
	atOnce := min(max(1, mostValues/len(t.columns)), len(t.rows))
	stmt, err := tx.PrepareContext(ctx, t.insertStatement(atOnce))
	if err != nil {
		return err
	}
	defer stmt.Close()
	values := make([]any, 0, atOnce*len(t.columns))
	for i, row := range t.rows {
		for c, cell := range row {
			values = append(values, t.columns[c].copied(cell, n, i, offset, names))
		}
		switch {
		case len(values) == cap(values):
			_, err = stmt.ExecContext(ctx, values...)
			values = values[:0]
		case i == len(t.rows)-1:
			_, err = tx.ExecContext(ctx, t.insertStatement(len(values)/len(t.columns)), values...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *sourceTable) insertStatement(rows int) string {
	columns := make([]string, len(t.columns))
	for i, c := range t.columns {
		columns[i] = quoted(c.name)
	}
	one := "(?" + strings.Repeat(",?", len(columns)-1) + ")"
	return `INSERT INTO ` + quoted(t.name) + ` (` + strings.Join(columns, ", ") + `) VALUES ` + one + strings.Repeat(","+one, rows-1)
}

// movePositions moves what tells how far a stream has come, in tables of one row for ever, to where the last copy ends.
func (m *amplifier) movePositions(ctx context.Context, by int64) error {
	for _, t := range m.tables {
		if t.copied {
			continue
		}
		for _, c := range t.columns {
			if !c.number {
				continue
			}
			s := fmt.Sprintf(`UPDATE %s SET %[2]s = %[2]s + CASE WHEN %[2]s < 0 THEN -1 ELSE 1 END * ? WHERE typeof(%[2]s) = 'integer'`, quoted(t.name), quoted(c.name))
			if _, err := m.db.ExecContext(ctx, s, by); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
	}
	return nil
}

// check looks for rows whose parent is not there. Unique keys have been enforced.
func (m *amplifier) check(ctx context.Context) error {
	var table string
	var count int
	err := m.db.QueryRowContext(ctx, `SELECT "table", count(*) FROM pragma_foreign_key_check GROUP BY 1`).Scan(&table, &count)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for orphaned rows: %w", err)
	}
	return fmt.Errorf("%d rows of %s have no parent", count, table)
}

// homeserverFile is the file of a homeserver that is to be moved: one that exists, or one that is made here.
func homeserverFile(ctx context.Context, given, dir string, size int64) (amplified, error) {
	if given != "" {
		info, err := os.Stat(given)
		if err != nil {
			return amplified{}, err
		}
		path, err := filepath.Abs(given)
		return amplified{path: path, bytes: info.Size()}, err
	}
	data := os.Getenv("SYNAPSE_DOCTOR_DATA")
	if data == "" {
		return amplified{}, errors.New("set SYNAPSE_DOCTOR_DATA to the directory of real Synapse databases: what is moved is made out of one")
	}
	path := filepath.Join(dir, "homeserver.db")
	if err := unpack(ctx, filepath.Join(data, "homeserver.db.zst"), path); err != nil {
		return amplified{}, err
	}
	return amplify(ctx, path, size)
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
