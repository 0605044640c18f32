package sdktest

import (
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

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
		query := fmt.Sprintf(`SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, E'\n' ORDER BY t::text)), '') FROM %s t`, r.Quoted)
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
