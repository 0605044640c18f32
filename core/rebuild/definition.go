package rebuild

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// definitionsQuery describes everything in a database but the rows: a name and what has to be the same in a faithful copy.
// From expressions casts and parentheses are left out, which PostgreSQL may write in another way after a reload. An index
// that is not valid is not carried, nor is a trigger of the server's own.
const definitionsQuery = `WITH rel AS (
  SELECT c.*, n.nspname, format('%I.%I', n.nspname, c.relname) AS full_name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND c.relpersistence <> 't'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    AND NOT (n.nspname = 'synapse_doctor' AND c.relname IN ('rebuild', 'rebuild_pkey'))
), x(name, text) AS (
  SELECT 'schema ' || nspname, concat_ws(' | ', pg_get_userbyid(nspowner), (SELECT string_agg(format('%s>%s:%s%s', a.grantor::regrole, CASE a.grantee WHEN 0 THEN 'public' ELSE a.grantee::regrole::text END, a.privilege_type, CASE WHEN a.is_grantable THEN '*' END), ' ' ORDER BY a::text)
      FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a), obj_description(n.oid, 'pg_namespace'))
  FROM pg_namespace n WHERE nspname <> 'information_schema' AND nspname !~ '^pg_' AND nspname <> 'synapse_doctor'
  UNION ALL
  SELECT 'relation ' || full_name, concat_ws(' | ', relkind, relpersistence, pg_get_userbyid(relowner), reloptions::text, (SELECT amname FROM pg_am WHERE pg_am.oid = relam),
    relreplident, relrowsecurity, relforcerowsecurity, relispartition, (SELECT spcname FROM pg_tablespace s WHERE s.oid = reltablespace),
    CASE WHEN relkind IN ('r', 'v', 'm', 'p', 'S', 'f') THEN (SELECT string_agg(format('%s>%s:%s%s', a.grantor::regrole, CASE a.grantee WHEN 0 THEN 'public' ELSE a.grantee::regrole::text END, a.privilege_type, CASE WHEN a.is_grantable THEN '*' END), ' ' ORDER BY a::text)
      FROM aclexplode(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))) a) END,
    obj_description(rel.oid, 'pg_class'), (SELECT string_agg(inhparent::regclass::text, ',' ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = rel.oid), pg_get_expr(relpartbound, rel.oid),
    CASE WHEN relkind IN ('v', 'm') THEN regexp_replace(pg_get_viewdef(rel.oid), '::"?[a-z][a-z_ ]*"?(\(\d+\))?(\[\])?|[()\s]', '', 'g') END)
  FROM rel WHERE relkind NOT IN ('i', 'I', 't')
  UNION ALL
  SELECT format('column %s.%I', full_name, attname), concat_ws(' | ', format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attstattarget, attstorage, attcompression,
    attoptions::text, (SELECT string_agg(v::text, ' ' ORDER BY v::text) FROM unnest(attacl) v), col_description(rel.oid, attnum), (SELECT format('%I.%I', s.nspname, l.collname) FROM pg_collation l JOIN pg_namespace s ON s.oid = l.collnamespace WHERE l.oid = attcollation),
    (SELECT regexp_replace(pg_get_expr(adbin, adrelid), '::"?[a-z][a-z_ ]*"?(\(\d+\))?(\[\])?|[()\s]', '', 'g') FROM pg_attrdef WHERE adrelid = rel.oid AND adnum = attnum))
  FROM rel JOIN pg_attribute ON attrelid = rel.oid WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'v', 'm', 'c')
  UNION ALL
  SELECT 'index ' || full_name, concat_ws(' | ', regexp_replace(pg_get_indexdef(indexrelid), '::"?[a-z][a-z_ ]*"?(\(\d+\))?(\[\])?|[()\s]', '', 'g'), indisprimary, indisclustered, indisreplident, indimmediate, indisvalid, reloptions::text,
    (SELECT spcname FROM pg_tablespace s WHERE s.oid = reltablespace), obj_description(rel.oid, 'pg_class'))
  FROM rel JOIN pg_index ON indexrelid = rel.oid WHERE indisvalid AND indisready OR relkind = 'I'
  UNION ALL
  SELECT format('constraint %I on %s', conname, full_name), concat_ws(' | ', regexp_replace(pg_get_constraintdef(k.oid), '::"?[a-z][a-z_ ]*"?(\(\d+\))?(\[\])?|[()\s]', '', 'g'), convalidated, condeferrable, condeferred, obj_description(k.oid, 'pg_constraint'))
  FROM rel JOIN pg_constraint k ON conrelid = rel.oid WHERE contype <> 'n'
  UNION ALL
  SELECT format('trigger %I on %s', tgname, full_name), concat_ws(' | ', pg_get_triggerdef(t.oid), tgenabled) FROM rel JOIN pg_trigger t ON tgrelid = rel.oid WHERE NOT tgisinternal
  UNION ALL
  SELECT format('policy %I on %s', polname, full_name), concat_ws(' | ', polcmd, polpermissive, polroles::regrole[]::text, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) FROM rel JOIN pg_policy ON polrelid = rel.oid
  UNION ALL
  SELECT format('rule %I on %s', rulename, full_name), pg_get_ruledef(r.oid) FROM rel JOIN pg_rewrite r ON ev_class = rel.oid WHERE rulename <> '_RETURN'
  UNION ALL
  SELECT format('statistics %I.%I', n.nspname, stxname), pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = stxnamespace
  UNION ALL
  SELECT 'sequence ' || full_name, concat_ws(' | ', format_type(seqtypid, NULL), seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle,
    (SELECT refobjid::regclass::text || '.' || attname FROM pg_depend d JOIN pg_attribute a ON attrelid = refobjid AND attnum = refobjsubid
      WHERE d.classid = 'pg_class'::regclass AND d.objid = rel.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')))
  FROM rel JOIN pg_sequence ON seqrelid = rel.oid
  UNION ALL
  SELECT 'function ' || p.oid::regprocedure, concat_ws(' | ', pg_get_userbyid(proowner), CASE WHEN prokind <> 'a' THEN pg_get_functiondef(p.oid) END,
    (SELECT string_agg(format('%s>%s:%s', a.grantor::regrole, CASE a.grantee WHEN 0 THEN 'public' ELSE a.grantee::regrole::text END, a.privilege_type), ' ' ORDER BY a::text) FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) a),
    obj_description(p.oid, 'pg_proc'))
  FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
  UNION ALL
  SELECT format('type %I.%I', n.nspname, typname), concat_ws(' | ', typtype, pg_get_userbyid(typowner), (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid), format_type(nullif(typbasetype, 0), typtypmod), typnotnull)
  FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND typtype IN ('d', 'e', 'r')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
  UNION ALL
  SELECT 'extension ' || extname, concat_ws(' | ', extversion, (SELECT nspname FROM pg_namespace n WHERE n.oid = extnamespace)) FROM pg_extension
  UNION ALL
  SELECT format('default privileges %s %s %s', pg_get_userbyid(defaclrole), (SELECT nspname FROM pg_namespace n WHERE n.oid = defaclnamespace), defaclobjtype), (SELECT string_agg(v::text, ' ' ORDER BY v::text) FROM unnest(defaclacl) v) FROM pg_default_acl
  UNION ALL
  SELECT 'number of ' || what, n::text FROM (VALUES ('operators', (SELECT count(*) FROM pg_operator WHERE oid >= 16384)), ('operator classes', (SELECT count(*) FROM pg_opclass WHERE oid >= 16384)),
    ('casts', (SELECT count(*) FROM pg_cast WHERE oid >= 16384)), ('conversions', (SELECT count(*) FROM pg_conversion WHERE oid >= 16384)), ('languages', (SELECT count(*) FROM pg_language WHERE oid >= 16384)),
    ('text search configurations', (SELECT count(*) FROM pg_ts_config WHERE oid >= 16384)), ('text search dictionaries', (SELECT count(*) FROM pg_ts_dict WHERE oid >= 16384))) v(what, n)
)
SELECT name, text FROM x`

// definitions describes everything in the database of this session but the rows.
func definitions(ctx context.Context, conn querier) (map[string]string, error) {
	rows, err := conn.Query(ctx, definitionsQuery)
	if err != nil {
		return nil, fmt.Errorf("read the definitions: %w", err)
	}
	found := map[string]string{}
	var name, text string
	if _, err := pgx.ForEachRow(rows, []any{&name, &text}, func() error { found[name] = text; return nil }); err != nil {
		return nil, fmt.Errorf("read the definitions: %w", err)
	}
	return found, nil
}

// sequenceState is where a sequence stands.
type sequenceState struct {
	last   int64
	called bool
}

func (s sequenceState) String() string { return fmt.Sprintf("%d %t", s.last, s.called) }

const sequencesQuery = `SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1, 2`

// sequences reads where the sequences stand, by qualified name. pg_sequences hides the value of one that was not called.
func sequences(ctx context.Context, conn querier) (map[string]sequenceState, error) {
	rows, err := conn.Query(ctx, sequencesQuery)
	if err != nil {
		return nil, fmt.Errorf("list the sequences: %w", err)
	}
	var names []string
	var schema, name string
	if _, err := pgx.ForEachRow(rows, []any{&schema, &name}, func() error { names = append(names, qualified(schema, name)); return nil }); err != nil {
		return nil, fmt.Errorf("list the sequences: %w", err)
	}
	found := map[string]sequenceState{}
	for _, name := range names {
		var s sequenceState
		if err := conn.QueryRow(ctx, "SELECT last_value, is_called FROM "+name).Scan(&s.last, &s.called); err != nil {
			return nil, fmt.Errorf("read the sequence %s: %w", name, err)
		}
		found[name] = s
	}
	return found, nil
}
