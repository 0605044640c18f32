package rebuild

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// The marker is a table in the new database that says which plan has filled it and what every table held then, so that
// nobody's later work is lost by an undo.
const (
	markerSchema = "synapse_doctor"
	markerTable  = "rebuild"
)

const markerThere = `SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'synapse_doctor' AND c.relname = 'rebuild')`

// hasMarker reports whether the database was filled by this plan.
func (k *task) hasMarker(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var there bool
	err := conn.QueryRow(ctx, markerThere).Scan(&there)
	if err == nil && there {
		err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM synapse_doctor.rebuild WHERE plan = $1)`, k.p.fresh).Scan(&there)
	}
	if err != nil {
		return false, fmt.Errorf("look for the mark of the rebuild: %w", err)
	}
	return there, nil
}

// content is what a database holds: of each table the rows, of each sequence where it stands, and everything's definition.
type content struct {
	tables    map[string]sum
	sequences map[string]sequenceState
	objects   map[string]string // definition by name
}

// writeMarker records what the old and the new database hold.
func (k *task) writeMarker(ctx context.Context, conn *pgx.Conn, source map[string]sum, made content) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, statement := range []string{
			`CREATE SCHEMA IF NOT EXISTS synapse_doctor`, `DROP TABLE IF EXISTS synapse_doctor.rebuild`,
			`CREATE TABLE synapse_doctor.rebuild (plan text NOT NULL, kind text NOT NULL, object text NOT NULL, source text, made text NOT NULL, PRIMARY KEY (kind, object))`,
		} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("record what the new database holds: %w", err)
			}
		}
		var rows [][]any
		for name, s := range made.tables {
			rows = append(rows, []any{k.p.fresh, "table", name, source[name].String(), s.String()})
		}
		for name, s := range made.sequences {
			rows = append(rows, []any{k.p.fresh, "sequence", name, nil, s.String()})
		}
		for name, definition := range made.objects {
			rows = append(rows, []any{k.p.fresh, "object", name, nil, definition})
		}
		_, err := tx.CopyFrom(ctx, pgx.Identifier{markerSchema, markerTable}, []string{"plan", "kind", "object", "source", "made"}, pgx.CopyFromRows(rows))
		if err != nil {
			return fmt.Errorf("record what the new database holds: %w", err)
		}
		return nil
	})
}

// marks is what the marker says.
type marks struct {
	source map[string]string // rows of each table of the old database
	made   map[string]string // everything in the new one, by kind and name
}

func readMarker(ctx context.Context, conn *pgx.Conn) (marks, error) {
	m := marks{map[string]string{}, map[string]string{}}
	rows, err := conn.Query(ctx, `SELECT kind, object, coalesce(source, ''), made FROM synapse_doctor.rebuild`)
	if err != nil {
		return m, fmt.Errorf("read what the new database held: %w", err)
	}
	var kind, object, source, made string
	_, err = pgx.ForEachRow(rows, []any{&kind, &object, &source, &made}, func() error {
		if kind == "table" {
			m.source[object] = source
		}
		m.made[kind+" "+object] = made
		return nil
	})
	if err != nil {
		return m, fmt.Errorf("read what the new database held: %w", err)
	}
	return m, nil
}

// flat is the content in the words of the marker.
func (c content) flat() map[string]string {
	out := map[string]string{}
	for name, s := range c.tables {
		out["table "+name] = s.String()
	}
	for name, s := range c.sequences {
		out["sequence "+name] = s.String()
	}
	for name, definition := range c.objects {
		out["object "+name] = definition
	}
	return out
}
