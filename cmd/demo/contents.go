package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// contents are the rows of every table, by its name.
type contents map[string]table

// table is how many rows there are, and a sum of their hashes.
type table struct {
	rows int64
	sum  string
}

func (h *homeserver) readAll(ctx context.Context) (contents, error) {
	conn, err := pgx.Connect(ctx, h.db.AdminDSN())
	if err != nil {
		return nil, fmt.Errorf("read the tables: %w", err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT tablename FROM pg_tables WHERE schemaname = 'public'`)
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	all := contents{}
	for _, name := range names {
		var t table
		err := conn.QueryRow(ctx, `SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text FROM `+
			pgx.Identifier{"public", name}.Sanitize()+` t`).Scan(&t.rows, &t.sum)
		if err != nil {
			return nil, fmt.Errorf("read the table %s: %w", name, err)
		}
		all[name] = t
	}
	return all, nil
}

func (c contents) same(now contents) error {
	for name, before := range c {
		after, there := now[name]
		switch {
		case !there:
			return fmt.Errorf("the table %s is gone", name)
		case after.rows != before.rows:
			return fmt.Errorf("the table %s had %d rows and has %d", name, before.rows, after.rows)
		case after.sum != before.sum:
			return fmt.Errorf("rows of the table %s have changed", name)
		}
	}
	for name := range now {
		if _, there := c[name]; !there {
			return fmt.Errorf("there is a new table %s", name)
		}
	}
	return nil
}

func (c contents) count() (n int64) {
	for _, t := range c {
		n += t.rows
	}
	return n
}
