package locale

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/rebuild"
)

// A rebuild carries no row that another one with the same key takes the place of, by the same rules as in place. The old
// database keeps them all, and so does the journal.

func init() { maps.Copy(operations, rebuild.Work{LeaveOut: leaveOut}.Operations()) }

const schemaQuery = `SELECT coalesce((SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'schema_version' AND c.relkind = 'r' ORDER BY n.nspname <> 'public', n.nspname LIMIT 1), 'public')`

// leaveOut finds the rows that stay behind, by their place in the old database, and keeps them with the host when keep is set.
func leaveOut(ctx context.Context, t *doctor.Target, label string, h doctor.OperationHost, keep bool) (map[string][]string, error) {
	d := t.Database(label)
	admin := t.AdminIn(d)
	m := &mender{progress: &progress{host: h}, params: params{Database: label, All: true}, db: admin, host: h, onlyValid: true}
	conn, err := m.open(ctx)
	if err != nil {
		return nil, err
	}
	err = conn.QueryRow(ctx, schemaQuery).Scan(&m.params.Schema)
	closeNow(conn)
	if err != nil {
		return nil, fmt.Errorf("look for Synapse's tables: %w", err)
	}
	gone, err := m.surplus(ctx)
	if err != nil {
		return nil, err
	}
	places := map[string][]string{}
	for _, table := range slices.Sorted(maps.Keys(gone)) {
		a := &archive{m: m, unit: "left out of " + table, table: table}
		for _, row := range gone[table] {
			places[table] = append(places[table], row.ctid)
			if !keep {
				continue
			}
			if err := a.add(ctx, line{Row: json.RawMessage(row.row)}); err != nil {
				return nil, err
			}
		}
		if err := a.flush(ctx); err != nil {
			return nil, err
		}
	}
	return places, nil
}
