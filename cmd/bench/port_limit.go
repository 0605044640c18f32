package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// The limit: COPY of binary files, whose search vectors are ready, over two sessions. Nothing is read from SQLite, converted
// or verified. Indexes and foreign keys are dropped first, and made again as soon as their tables are there.

const streams = 2

// copyFile has the rows of a table, as COPY takes them in binary.
type copyFile struct {
	table string // as a statement names it
	path  string
	rows  int64
	bytes int64
}

// prepare ports once, which warms what there is to warm, and makes files of what is in the target then.
func (b *portBench) prepare(ctx context.Context) (err error) {
	db, err := b.target(ctx, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Drop(context.WithoutCancel(ctx))) }()
	if _, err := b.doctor(ctx, db, b.file.path); err != nil {
		return err
	}
	return b.export(ctx, db)
}

// export makes the files.
func (b *portBench) export(ctx context.Context, db *pgtest.DB) error {
	conn, err := pgx.Connect(ctx, db.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	tables, err := listOf(ctx, conn, `SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1`)
	if err != nil {
		return err
	}
	for i, table := range tables {
		f := copyFile{table: table, path: filepath.Join(b.dir, fmt.Sprintf("%d.copy", i))}
		if err := f.fill(ctx, conn); err != nil {
			return fmt.Errorf("%s: %w", table, err)
		}
		if f.rows == 0 {
			continue
		}
		b.files = append(b.files, f)
		b.rows += f.rows
	}
	slices.SortFunc(b.files, func(x, y copyFile) int { return int(y.bytes - x.bytes) })
	return nil
}

func listOf(ctx context.Context, conn *pgx.Conn, query string) ([]string, error) {
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func (f *copyFile) fill(ctx context.Context, conn *pgx.Conn) (err error) {
	file, err := os.Create(f.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := bufio.NewWriterSize(file, 1<<20)
	tag, err := conn.PgConn().CopyTo(ctx, w, `COPY `+f.table+` TO STDOUT (FORMAT binary)`)
	if err != nil {
		return err
	}
	f.rows = tag.RowsAffected()
	if err := w.Flush(); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	f.bytes = info.Size()
	return nil
}

// structure is what is away for the time of the copy.
type structure struct {
	table  string
	away   string
	index  string // the statement that makes it again; empty for what has none
	attach string // the statement that comes after all indexes
	last   bool   // attach comes after those of others: a foreign key's
}

// Keys are dropped, too: as the first thing after the copy, their indexes cost no more. Triggers look into other tables, row
// after row, which takes for ever without an index.
const structureQuery = `WITH found AS (
  SELECT 1 AS turn, conrelid AS relid, format('DROP CONSTRAINT %I', conname) AS away, '' AS index, format('ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) AS attach
  FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace
  UNION ALL
  SELECT 2, conrelid, format('DROP CONSTRAINT %I', conname), pg_get_indexdef(conindid),
    format('ADD CONSTRAINT %1$I %2$s USING INDEX %1$I', conname, CASE contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END)
  FROM pg_constraint WHERE contype IN ('p', 'u') AND connamespace = 'public'::regnamespace
  UNION ALL
  SELECT DISTINCT 2, tgrelid, 'DISABLE TRIGGER USER', '', 'ENABLE TRIGGER USER' FROM pg_trigger WHERE NOT tgisinternal
)
SELECT relid::regclass::text, format('ALTER TABLE %s %s', relid::regclass, away), index, format('ALTER TABLE %s %s', relid::regclass, attach), turn = 1 FROM found
UNION ALL
SELECT indrelid::regclass::text, format('DROP INDEX %s', indexrelid::regclass), pg_get_indexdef(indexrelid), '', false
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND contype IN ('p', 'u'))
ORDER BY 5 DESC, 1, 2`

// limit copies the prepared files.
func (b *portBench) limit(ctx context.Context, db *pgtest.DB) (cost portCost, err error) {
	before, err := b.serverTime()
	if err != nil {
		return cost, err
	}
	start, own := time.Now(), ownTime()
	if err := b.load(ctx, db); err != nil {
		return cost, err
	}
	cost.wall, cost.client = time.Since(start), ownTime()-own
	after, err := b.serverTime()
	cost.server = after - before
	return cost, errors.Join(err, b.expectRows(ctx, db))
}

func (b *portBench) load(ctx context.Context, db *pgtest.DB) error {
	away, err := b.clear(ctx, db)
	if err != nil {
		return err
	}
	var copies, keys, foreign []task
	for _, f := range b.files {
		copies = append(copies, task{cost: f.bytes, run: f.load})
	}
	for _, s := range away {
		if s.index != "" {
			build := task{run: executing(s.index)}
			place := slices.IndexFunc(b.files, func(f copyFile) bool { return f.table == s.table })
			if place < 0 {
				copies = append(copies, build)
			} else {
				build.cost = b.files[place].bytes
				copies[place].then = append(copies[place].then, build)
			}
		}
		switch {
		case s.last:
			foreign = append(foreign, task{run: executing(s.attach)})
		case s.attach != "":
			keys = append(keys, task{run: executing(s.attach)})
		}
	}
	for _, tasks := range [][]task{copies, keys, foreign} {
		if err := perform(ctx, db.DSN(), tasks); err != nil {
			return err
		}
	}
	return nil
}

// clear drops what slows the copy down, and empties the tables of what the schema itself has put there.
func (b *portBench) clear(ctx context.Context, db *pgtest.DB) (away []structure, err error) {
	conn, err := pgx.Connect(ctx, db.DSN())
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, structureQuery)
		if err != nil {
			return err
		}
		if away, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (s structure, err error) {
			return s, r.Scan(&s.table, &s.away, &s.index, &s.attach, &s.last)
		}); err != nil {
			return err
		}
		for _, s := range away {
			if _, err := tx.Exec(ctx, s.away); err != nil {
				return fmt.Errorf("%s: %w", s.away, err)
			}
		}
		tables := make([]string, len(b.files))
		for i, f := range b.files {
			tables[i] = f.table
		}
		_, err = tx.Exec(ctx, `TRUNCATE `+strings.Join(tables, ", "))
		return err
	})
	return away, err
}

func (f *copyFile) load(ctx context.Context, conn *pgx.Conn) error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := conn.PgConn().CopyFrom(ctx, file, `COPY `+f.table+` FROM STDIN (FORMAT binary)`); err != nil {
		return fmt.Errorf("%s: %w", f.table, err)
	}
	return nil
}

func executing(sql string) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
		return nil
	}
}
