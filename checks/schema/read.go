package schema

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// live is what a database has.
type live struct {
	Catalog
	Queue  []update // background_updates, in the order in which Synapse does them
	Steps  []string // deltas of the version [Base] that are noted: of a database that was upgraded to it, not made by it
	Others others
	Server int // server_version_num
}

// update is a background update that is queued.
type update struct {
	Name      string
	DependsOn string
	Begun     bool // there is progress
}

// others are the relations that the wanted catalog does not name, in the schemas where Synapse looks.
type others struct {
	Tables []string // the first 200
	Count  int
}

// readQuery reads the system catalogs alone. Which tables Synapse means is decided as PostgreSQL does it, by the search_path
// of its role. What belongs to an extension is nobody's business here. $1 are the tables and $2 the sequences whose parts are
// wanted; NULL: all.
//
// Who builds an index concurrently holds its table, and is in the progress view, where only the session's own role may see
// which table it is; who rebuilds or drops one holds the index.
// A PRIMARY KEY, or an index that was chosen, identifies the rows of a published table; else they can't be updated.
const readQuery = `WITH rel AS MATERIALIZED (
  SELECT c.oid, c.relname::text, c.relpersistence, c.relreplident, c.relowner, c.reltuples, n.nspname::text
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('information_schema', 'synapse_doctor') AND n.nspname !~ '^pg_'
    AND pg_table_is_visible(c.oid)
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')),
tab AS MATERIALIZED (SELECT * FROM rel WHERE $1::text[] IS NULL OR relname = ANY ($1)),
published AS MATERIALIZED (SELECT g.relid, min(p.pubname)::text AS pubname FROM pg_publication p, LATERAL pg_get_publication_tables(p.pubname) g
  WHERE p.pubupdate OR p.pubdelete GROUP BY 1),
held AS MATERIALIZED (SELECT l.relation, l.pid FROM pg_locks l WHERE l.locktype = 'relation'
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.mode IN ('ShareUpdateExclusiveLock', 'AccessExclusiveLock')),
building AS MATERIALIZED (SELECT h.relation FROM held h JOIN pg_stat_progress_create_index p ON p.pid = h.pid),
col AS (SELECT a.attrelid, json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull,
    'default', CASE WHEN a.attgenerated = '' THEN coalesce(pg_get_expr(d.adbin, d.adrelid), '') ELSE '' END,
    'identity', a.attidentity::text, 'generated', a.attgenerated <> '',
    'n_distinct', coalesce((SELECT substr(o, 12) FROM unnest(a.attoptions) o WHERE o LIKE 'n_distinct=%'), '')) ORDER BY a.attnum) AS list
  FROM tab JOIN pg_attribute a ON a.attrelid = tab.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum GROUP BY 1),
idx AS (SELECT i.indrelid, json_agg(json_build_object('name', x.relname, 'unique', i.indisunique, 'def', pg_get_indexdef(x.oid),
    'constraint', coalesce((SELECT k.contype::text FROM pg_constraint k WHERE k.conindid = x.oid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')), ''),
    'invalid', NOT i.indisvalid, 'not_ready', NOT i.indisready,
    'busy', NOT (i.indisvalid AND i.indisready) AND (EXISTS (SELECT FROM held WHERE held.relation = x.oid)
      OR EXISTS (SELECT FROM building b WHERE b.relation = i.indrelid))) ORDER BY x.relname) AS list
  FROM tab JOIN pg_index i ON i.indrelid = tab.oid JOIN pg_class x ON x.oid = i.indexrelid GROUP BY 1),
con AS (SELECT k.conrelid, json_agg(json_build_object('name', k.conname, 'def', pg_get_constraintdef(k.oid), 'not_valid', NOT k.convalidated)
    ORDER BY k.conname) AS list
  FROM tab JOIN pg_constraint k ON k.conrelid = tab.oid AND k.contype IN ('f', 'c') GROUP BY 1),
trg AS (SELECT g.tgrelid, json_agg(json_build_object('name', g.tgname, 'def', pg_get_triggerdef(g.oid, true), 'function', p.proname,
    'disabled', g.tgenabled IN ('D', 'R')) ORDER BY g.tgname) AS list
  FROM tab JOIN pg_trigger g ON g.tgrelid = tab.oid AND NOT g.tgisinternal JOIN pg_proc p ON p.oid = g.tgfoid GROUP BY 1)
SELECT json_build_object(
  'tables', (SELECT json_object_agg(tab.relname, json_build_object('unlogged', tab.relpersistence = 'u', 'columns', col.list, 'indexes', idx.list,
      'constraints', con.list, 'triggers', trg.list, 'schema', tab.nspname, 'mine', pg_has_role(tab.relowner, 'USAGE'),
      'rows', tab.reltuples::bigint, 'building', EXISTS (SELECT FROM building b WHERE b.relation = tab.oid),
      'publication', published.pubname,
      'no_identity', published.relid IS NOT NULL AND CASE tab.relreplident WHEN 'f' THEN false WHEN 'n' THEN true
        WHEN 'i' THEN NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = tab.oid AND i.indisreplident)
        ELSE NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = tab.oid AND i.indisprimary) END))
    FROM tab LEFT JOIN col ON col.attrelid = tab.oid LEFT JOIN idx ON idx.indrelid = tab.oid LEFT JOIN con ON con.conrelid = tab.oid
    LEFT JOIN trg ON trg.tgrelid = tab.oid LEFT JOIN published ON published.relid = tab.oid),
  'sequences', (SELECT json_object_agg(c.relname, json_build_object('owned_by', coalesce((SELECT t.relname || '.' || a.attname FROM pg_depend d
      JOIN pg_class t ON t.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') LIMIT 1), '')))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname <> 'synapse_doctor' AND n.nspname !~ '^pg_' AND pg_table_is_visible(c.oid)
      AND ($2::text[] IS NULL OR c.relname = ANY ($2))),
  'functions', (SELECT json_object_agg(p.proname, md5(btrim(regexp_replace(p.prosrc, '\s+', ' ', 'g'))))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.prorettype = 'trigger'::regtype AND p.pronargs = 0 AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND pg_function_is_visible(p.oid)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')),
  'others', (SELECT json_agg(relname) FROM (SELECT relname FROM rel WHERE NOT relname = ANY ($1) ORDER BY 1 LIMIT 200) o),
  'count', (SELECT count(*) FROM rel WHERE NOT relname = ANY ($1)),
  'server', current_setting('server_version_num')::int)::text`

// Read reads the parts of the named tables and sequences, or of all when names is nil, from the system catalogs.
func Read(ctx context.Context, tx pgx.Tx, tables, sequences []string) (*Catalog, error) {
	l, err := readLive(ctx, tx, tables, sequences)
	if err != nil {
		return nil, err
	}
	for _, t := range l.Tables { // what is of this database alone
		t.Schema, t.Mine, t.Rows, t.Building, t.Unpublished, t.Publication = "", false, 0, false, false, ""
	}
	return &l.Catalog, nil
}

func readLive(ctx context.Context, tx pgx.Tx, tables, sequences []string) (*live, error) {
	// A role, or a database, for which this is on has every definition with quotes.
	if _, err := tx.Exec(ctx, `SET LOCAL quote_all_identifiers = off`); err != nil {
		return nil, fmt.Errorf("read the system catalogs: %w", err)
	}
	var text string
	if err := tx.QueryRow(ctx, readQuery, tables, sequences).Scan(&text); err != nil {
		return nil, fmt.Errorf("read the system catalogs: %w", err)
	}
	var answer struct {
		Catalog
		Others []string
		Count  int
		Server int
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, fmt.Errorf("read the system catalogs: %w", err)
	}
	for _, t := range answer.Tables {
		t.normalise()
	}
	return &live{Catalog: answer.Catalog, Others: others{Tables: answer.Others, Count: answer.Count}, Server: answer.Server}, nil
}

// normalise leaves of each definition what matters to Synapse.
func (t *Table) normalise() {
	for i := range t.Indexes {
		t.Indexes[i].Def = indexDef(t.Indexes[i].Def)
	}
	for i := range t.Constraints {
		t.Constraints[i].Def = strings.TrimSuffix(t.Constraints[i].Def, " NOT VALID")
	}
	for i := range t.Triggers {
		t.Triggers[i].Def = triggerDef(t.Triggers[i])
	}
}

// indexDef is what pg_get_indexdef says from the method on, without storage parameters: an administrator may set these.
func indexDef(def string) string {
	_, rest, found := strings.Cut(def, " USING ")
	if !found {
		return def
	}
	if before, after, found := strings.Cut(rest, ") WITH ("); found {
		if _, tail, found := strings.Cut(after, ")"); found {
			rest = before + ")" + tail
		}
	}
	return rest
}

// triggerDef is when a trigger fires, without its name, its table and its function.
func triggerDef(g Trigger) string {
	def := g.Def
	for _, word := range []string{" BEFORE ", " AFTER ", " INSTEAD OF "} {
		if i := strings.Index(def, word); i >= 0 {
			def = def[i+1:]
			break
		}
	}
	def, _, _ = strings.Cut(def, " EXECUTE FUNCTION ")
	when, rest, found := strings.Cut(def, " ON ")
	if !found {
		return def
	}
	if i := strings.Index(rest, " FOR EACH "); i >= 0 {
		return when + rest[i:]
	}
	return when
}

const (
	versionQuery = `SELECT version FROM schema_version LIMIT 1`
	deltasQuery  = `SELECT file FROM applied_schema_deltas WHERE version >= $1 ORDER BY file LIMIT 5000`
	// Synapse works them off in this order; what an update depends on and is not queued counts as done.
	queueQuery = `SELECT update_name, coalesce(depends_on, ''), progress_json NOT IN ('', '{}') FROM background_updates ORDER BY ordering, update_name LIMIT 1000`
)

// readState reads what Synapse has noted of its schema.
func (l *live) readState(ctx context.Context, tx pgx.Tx) error {
	if err := tx.QueryRow(ctx, versionQuery).Scan(&l.Schema); errors.Is(err, pgx.ErrNoRows) {
		return errors.New("schema_version is empty, so that it can't be told what to compare with")
	} else if err != nil {
		return fmt.Errorf("read schema_version: %w", err)
	}
	deltas, err := readDeltas(ctx, tx)
	if err != nil {
		return err
	}
	for _, d := range deltas {
		if versionOf(d) == Base {
			l.Steps = append(l.Steps, d)
		} else {
			l.Deltas = append(l.Deltas, d)
		}
	}
	rows, err := tx.Query(ctx, queueQuery)
	if err == nil {
		l.Queue, err = pgx.CollectRows(rows, pgx.RowToStructByPos[update])
	}
	if err != nil {
		return fmt.Errorf("read background_updates: %w", err)
	}
	return nil
}

func readDeltas(ctx context.Context, tx pgx.Tx) ([]string, error) {
	rows, err := tx.Query(ctx, deltasQuery, Base)
	var deltas []string
	if err == nil {
		deltas, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, fmt.Errorf("read applied_schema_deltas: %w", err)
	}
	slices.Sort(deltas)
	return slices.Compact(deltas), nil
}

// ReadState reads the version of the schema and the deltas that it went through.
func ReadState(ctx context.Context, tx pgx.Tx) (version int, deltas []string, err error) {
	l := &live{}
	if err := l.readState(ctx, tx); err != nil {
		return 0, nil, err
	}
	return l.Schema, l.Deltas, nil
}
