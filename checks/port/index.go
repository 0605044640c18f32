package port

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// pendingQuery lists what a port has taken away for the time of the copy and not put back.
const pendingQuery = `SELECT o.kind, o.relation, o.name, o.definition FROM synapse_doctor.port_object o ORDER BY o.relation, o.kind DESC, o.name`

// pendingObjects are the indexes and foreign keys that a port has left dropped.
func pendingObjects(ctx context.Context, tx pgx.Tx) (found []doctor.Finding, err error) {
	rows, err := tx.Query(ctx, pendingQuery)
	if err != nil {
		return nil, fmt.Errorf("read what the port has dropped: %w", err)
	}
	type object struct{ Kind, Relation, Name, Definition string }
	objects, err := pgx.CollectRows(rows, pgx.RowToStructByPos[object])
	if err != nil {
		return nil, fmt.Errorf("read what the port has dropped: %w", err)
	}
	for _, o := range objects {
		found = append(found, doctor.Finding{
			Code: IndexMissing, Severity: doctor.Error, Object: doctor.Object{Kind: o.Kind, Name: o.Name},
			Summary:  fmt.Sprintf("The %s %s of %s was dropped for a port and has not been made again.", o.Kind, o.Name, o.Relation),
			Observed: "no " + o.Kind + " " + o.Name, Expected: o.Definition,
			Remedy: "Run the port again, which makes it; or, as the owner of the tables:\n\n    " + strings.ReplaceAll(strings.TrimSuffix(o.Definition, ";"), "\n", "\n    ") + ";",
		})
	}
	return found, nil
}

// targetUniques lists the columns of the valid unique indexes of Synapse's tables, each list sorted.
const targetUniques = `SELECT c.relname::text, i.indpred IS NOT NULL, ARRAY(SELECT lower(a.attname) FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE k.n <= i.indnkeyatts ORDER BY lower(a.attname) COLLATE "C")
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE i.indisunique AND i.indisvalid AND pg_table_is_visible(c.oid)`

// indexes finds unique indexes that the file has and the target has not: upserts of Synapse fail without them, and rows
// are there twice before long.
func (x *pair) indexes(ctx context.Context) error {
	var there []unique
	var missing []doctor.Finding
	err := x.db.Read(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, targetUniques)
		if err != nil {
			return fmt.Errorf("read the unique indexes: %w", err)
		}
		there, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (u unique, err error) {
			return u, row.Scan(&u.table, &u.partial, &u.columns)
		})
		if err != nil {
			return fmt.Errorf("read the unique indexes: %w", err)
		}
		if x.record != nil {
			missing, err = pendingObjects(ctx, tx)
		}
		return err
	})
	if err != nil {
		return err
	}
	x.find(missing...)
	x.find(missingUniques(x.source.uniques, there, x.shared())...)
	return nil
}

// shared are the tables that both sides have.
func (x *pair) shared() map[string]bool {
	tables := map[string]bool{}
	if x.match != nil {
		for _, t := range x.match.Tables {
			tables[t.Name] = true
		}
	}
	return tables
}

// missingUniques compares by columns: names differ between the two.
func missingUniques(source, target []unique, shared map[string]bool) (found []doctor.Finding) {
	said := map[string]bool{}
	for _, u := range source {
		key := u.table + " (" + strings.Join(u.columns, ", ") + ")"
		if !shared[u.table] || len(u.columns) == 0 || said[key] {
			continue
		}
		// A partial index of the target does not stand for a whole one; a whole one of it is more than a partial one.
		if slices.ContainsFunc(target, func(t unique) bool {
			return t.table == u.table && slices.Equal(t.columns, u.columns) && (u.partial || !t.partial)
		}) {
			continue
		}
		said[key] = true
		f := doctor.Finding{
			Code: IndexMissing, Severity: doctor.Error, Object: doctor.Object{Kind: "index", Name: key},
			Summary:  fmt.Sprintf("%s has no unique index over %s, which the SQLite file has as %s: Synapse fails to update rows there, or they come to be there twice.", u.table, strings.Join(u.columns, ", "), u.name),
			Observed: "no valid unique index over these columns", Expected: "one, as in the SQLite file",
			Remedy: fmt.Sprintf("See that no key is there twice, and make it, as the owner of the tables:\n\n    CREATE UNIQUE INDEX CONCURRENTLY ON %s (%s);",
				pgx.Identifier{u.table}.Sanitize(), strings.Join(u.columns, ", ")),
		}
		if u.partial {
			f.Remedy = "It is over a part of the rows only. Start Synapse, and look for \"background update\" in its log: one of them makes this index, and fails whenever it is tried."
		}
		found = append(found, f)
	}
	return found
}
