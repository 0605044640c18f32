package locale

import (
	"context"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// invalidIndex is one that PostgreSQL does not use, though it stands in the catalog.
type invalidIndex struct {
	Schema, Name, Table string
	OID                 uint32
	Unique              bool
	Ready               bool   // new rows are put into it: it costs time, and refuses keys that are there
	Live                bool   // false: a DROP INDEX CONCURRENTLY that was broken off
	Constraint          string // that it belongs to; empty
	Bytes               int64
	Twin                string // a valid index of the same table over the same keys; empty
}

// invalidQuery lists the indexes of user tables that are not valid, and that nobody is building or dropping just now: who
// builds one holds its table and is in the progress view, whoever may see the rest of that row, and who rebuilds or drops one
// holds the index. An index of a partitioned table is not valid until each partition has one; that is no fault. The
// second half of toast tables' names is their table's OID.
const invalidQuery = `SELECT n.nspname::text, c.relname::text, coalesce(o.relname, t.relname)::text, c.oid, i.indisunique, i.indisready, i.indislive,
  coalesce((SELECT k.conname::text FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x') LIMIT 1), ''),
  CASE WHEN c.oid IN (` + heldQuery + `) THEN c.relpages::bigint * current_setting('block_size')::int ELSE coalesce(pg_relation_size(c.oid), 0) END,
  coalesce((SELECT w.indexrelid::regclass::text FROM pg_index w JOIN pg_class wc ON wc.oid = w.indexrelid
    WHERE w.indrelid = i.indrelid AND w.indexrelid <> i.indexrelid AND w.indisvalid AND w.indisready AND wc.relam = c.relam
      AND w.indkey::text = i.indkey::text AND w.indclass::text = i.indclass::text AND w.indcollation::text = i.indcollation::text AND w.indoption::text = i.indoption::text
      AND w.indisunique = i.indisunique AND w.indnkeyatts = i.indnkeyatts
      AND coalesce(pg_get_expr(w.indexprs, w.indrelid), '') = coalesce(pg_get_expr(i.indexprs, i.indrelid), '')
      AND coalesce(pg_get_expr(w.indpred, w.indrelid), '') = coalesce(pg_get_expr(i.indpred, i.indrelid), '') ORDER BY w.indexrelid LIMIT 1), '')
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_class t ON t.oid = i.indrelid
LEFT JOIN pg_class o ON o.reltoastrelid = t.oid JOIN pg_namespace s ON s.oid = coalesce(o.relnamespace, t.relnamespace)
WHERE NOT (i.indisvalid AND i.indisready) AND c.relkind = 'i' AND c.relpersistence <> 't' AND s.nspname <> 'information_schema' AND s.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.mode IN ('ShareUpdateExclusiveLock', 'AccessExclusiveLock')
    AND (l.relation = i.indexrelid OR l.relation = i.indrelid AND EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.pid = l.pid)))
ORDER BY 1, 2`

func invalidIndexes(ctx context.Context, tx pgx.Tx) ([]invalidIndex, error) {
	rows, err := tx.Query(ctx, invalidQuery)
	if err != nil {
		return nil, fmt.Errorf("look for invalid indexes: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[invalidIndex])
	if err != nil {
		return nil, fmt.Errorf("look for invalid indexes: %w", err)
	}
	return found, nil
}

// leftoverName is what REINDEX CONCURRENTLY calls the new index while it builds it, and the old one before it drops it.
var leftoverName = regexp.MustCompile(`_cc(new|old)[0-9]*$`)

// leftover reports whether REINDEX CONCURRENTLY left it behind, or a broken-off DROP, so that it can go: the index that does the
// work is there beside it.
func (x invalidIndex) leftover() bool {
	return x.Constraint == "" && (!x.Live || x.Twin != "" && leftoverName.MatchString(x.Name))
}

func (x invalidIndex) qualified() string { return identifier(x.Schema, x.Name) }

func (c *catalog) judgeInvalid() []doctor.Finding {
	var found []doctor.Finding
	for _, x := range c.invalid {
		f := doctor.Finding{
			Code: IndexInvalid, Severity: doctor.Warning, Object: doctor.Object{Kind: "index", Name: x.Name}, Fixable: x.leftover(),
			Observed: "indisvalid is false", Expected: "a valid index, or none",
			Evidence: map[string]string{"table": x.Table, "size": sizeText(x.Bytes), "OID": fmt.Sprint(x.OID), "unique": fmt.Sprint(x.Unique)},
		}
		if !x.Ready {
			f.Observed = "indisvalid and indisready are false"
		}
		if x.leftover() {
			f.Summary = fmt.Sprintf("The index %s of %s was left behind by a REINDEX or DROP INDEX CONCURRENTLY that failed: it is used for nothing%s.", x.Name, x.Table, x.costs())
			f.Remedy = "Show what the doctor would do:\n\n    synapse-doctor fix locale\n\nBy hand, as the table's owner, outside a transaction; Synapse may stay up:\n\n    DROP INDEX CONCURRENTLY " + x.qualified() + ";"
			if x.Twin != "" {
				f.Evidence["valid index over the same keys"] = x.Twin
				f.Remedy += "\n\nThe index that does the work is " + x.Twin + "."
			}
			f.Remedy += " If the REINDEX failed with SQLSTATE 23505, a key is there twice: synapse-doctor check locale --deep finds the rows, and until they are gone the next REINDEX CONCURRENTLY leaves such an index again."
		} else {
			f.Summary = fmt.Sprintf("The index %s of %s is not valid: no query uses it%s.", x.Name, x.Table, x.costs())
			f.Remedy = "Its build failed or was broken off. If Synapse still has a background update queued that makes it, let that run: it begins by dropping this one. " +
				"Otherwise, as the table's owner, outside a transaction; Synapse may stay up:\n\n    REINDEX INDEX CONCURRENTLY " + x.qualified() + ";"
			if x.Unique {
				f.Evidence["keys are kept unique by it"] = fmt.Sprint(x.Ready)
				f.Remedy += "\n\nIf that ends with SQLSTATE 23505, a key is there twice, and one more invalid index is left, whose name ends in _ccnew: drop that one, and decide about the rows first."
			}
		}
		if x.Schema != "public" {
			f.Evidence["schema"] = x.Schema
		}
		found = append(found, f)
	}
	return found
}

// costs says what the index does all the same.
func (x invalidIndex) costs() string {
	if x.Ready {
		return ", but every change of the table is written to it"
	}
	return ""
}
