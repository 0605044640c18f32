package sdktest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// mostRows of a table are read as they are; of a larger one only whether it is the same.
const mostRows = 500

// content reads every row of every table and the state of every sequence, by name.
func (b *bench) content() map[string]string {
	b.t.Helper()
	ctx := b.t.Context()
	conn := b.db.Conn(b.t)
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT c.oid::regclass::text, c.relname, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema')`)
	if err != nil {
		b.t.Fatal(err)
	}
	type relation struct{ Quoted, Name, Kind string }
	relations, err := pgx.CollectRows(rows, pgx.RowToStructByPos[relation])
	if err != nil {
		b.t.Fatal(err)
	}
	content := map[string]string{}
	for _, r := range relations {
		query := fmt.Sprintf(`SELECT CASE WHEN count(*) <= %d THEN coalesce(string_agg(t::text, E'\n' ORDER BY t::text), '')
			ELSE count(*) || ' rows, ' || md5(string_agg(t::text, E'\n' ORDER BY t::text)) END FROM %s t`, mostRows, r.Quoted)
		if r.Kind == "S" {
			query = fmt.Sprintf(`SELECT last_value || ' ' || is_called FROM %s`, r.Quoted)
		}
		var text string
		if err := conn.QueryRow(ctx, query).Scan(&text); err != nil {
			b.t.Fatalf("read %s: %v", r.Name, err)
		}
		content[r.Name] = text
	}
	return content
}

// differing lists the names whose content is not the same in both.
func differing(a, b map[string]string) []string {
	var names []string
	for name, text := range a {
		if b[name] != text {
			names = append(names, name)
		}
	}
	for name := range b {
		if _, there := a[name]; !there {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// mostShown rows of a difference are shown, each way, and so much of each.
const (
	mostShown = 5
	mostOfRow = 300
)

// difference shows, for each name, the rows that are only before and those that are only after.
func difference(names []string, before, after map[string]string) string {
	var text strings.Builder
	for _, name := range names {
		a, b := strings.Split(before[name], "\n"), strings.Split(after[name], "\n")
		fmt.Fprintf(&text, "\n  %s", name)
		for _, side := range []struct {
			sign        string
			these, less []string
		}{{"-", a, b}, {"+", b, a}} {
			only := lacking(side.these, side.less)
			for i, row := range only {
				if i == mostShown {
					fmt.Fprintf(&text, "\n    %s … and %d more", side.sign, len(only)-i)
					break
				}
				if r := []rune(row); len(r) > mostOfRow {
					row = string(r[:mostOfRow]) + "…"
				}
				fmt.Fprintf(&text, "\n    %s %s", side.sign, row)
			}
		}
	}
	return text.String()
}

// lacking are the rows of these that the others have not, or less often.
func lacking(these, others []string) []string {
	there := map[string]int{}
	for _, row := range others {
		there[row]++
	}
	var only []string
	for _, row := range these {
		if there[row]--; there[row] < 0 && row != "" {
			only = append(only, row)
		}
	}
	return only
}
