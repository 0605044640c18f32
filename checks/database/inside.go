package database

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// inside is what is in a database.
type inside struct {
	schemas []schema // those that a search_path names, and those that hold Synapse's tables
	objects []object // what Synapse's role can't alter in the schema of its tables

	tables int    // as the engine counts them
	whyNot string // why the doctor must not change the database; empty when it may
}

// fresh is a database as it will be when Synapse's role has just been made its owner.
func fresh() *inside {
	return &inside{schemas: []schema{{Name: public, Ident: public, Usage: true, Create: true, OwnerUsage: true, OwnerCreate: true}}}
}

func (in *inside) hasSynapse() bool {
	return slices.ContainsFunc(in.schemas, func(s schema) bool { return s.Synapse })
}

// schema is one schema, and what the acting role may do in it.
type schema struct {
	Name, Ident             string
	OID                     uint32
	Usage, Create           bool
	OwnerUsage, OwnerCreate bool // whoever owns the database may
	Synapse                 bool // Synapse's tables are there
}

// Since PostgreSQL 15, public belongs to pg_database_owner, whose one member is the owner of the database, and others
// have no CREATE there. A database that comes from an older server keeps the rights it had.
const schemasQuery = `SELECT n.nspname::text, quote_ident(n.nspname), n.oid,
  has_schema_privilege($1::oid, n.oid, 'USAGE'), has_schema_privilege($1::oid, n.oid, 'CREATE'),
  EXISTS (SELECT FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a JOIN pg_roles g ON g.oid = a.grantee
    WHERE g.rolname = 'pg_database_owner' AND a.privilege_type = 'USAGE'),
  EXISTS (SELECT FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a JOIN pg_roles g ON g.oid = a.grantee
    WHERE g.rolname = 'pg_database_owner' AND a.privilege_type = 'CREATE'),
  n.oid = ANY (s.oids)
FROM pg_namespace n, (SELECT ARRAY(SELECT c.relnamespace FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  GROUP BY c.relnamespace HAVING bool_or(c.relname = 'schema_version') AND bool_or(c.relname IN ('users', 'state_groups')))) s(oids)
WHERE n.nspname = ANY ($2) OR n.oid = ANY (s.oids)
ORDER BY n.nspname`

// object is a table, sequence or function that belongs to a role whose rights the acting role does not have.
type object struct {
	Kind              string // as in ALTER TABLE
	Ident             string // public.events
	Owner, OwnerIdent string
	Regrants          []string // as of a database
	Anchor            bool     // it is Synapse's without a doubt
}

// mostObjects bounds how many objects are looked at. Synapse has about 200.
const mostObjects = 1000

// Extensions' members belong to whoever made the extension. A sequence that numbers a column has its table's owner.
const objectsQuery = `WITH relations AS (
  SELECT c.oid, coalesce(d.refobjid, c.oid) AS leader, c.relkind, c.relname, c.relowner, c.relacl, format('%I.%I', n.nspname, c.relname) AS ident
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
    AND d.deptype IN ('a', 'i') AND c.relkind = 'S'
  WHERE c.relnamespace = $2::oid AND c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
    AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_class'::regclass AND x.objid = c.oid AND x.deptype = 'e'))
SELECT CASE r.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, r.ident, o.rolname::text, quote_ident(o.rolname),
  ARRAY(SELECT format('GRANT %s ON %s %s TO %I', string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type),
      CASE m.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, m.ident, g.rolname) || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    FROM relations m, aclexplode(m.relacl) a JOIN pg_roles g ON g.oid = a.grantee
    WHERE m.leader = r.oid AND a.grantee = $1::oid AND a.grantee <> m.relowner GROUP BY m.ident, m.relkind, g.rolname, a.is_grantable),
  r.relname IN ('schema_version', 'users', 'state_groups')
FROM relations r JOIN pg_roles o ON o.oid = r.relowner
WHERE r.leader = r.oid AND NOT pg_has_role($1::oid, r.relowner, 'USAGE')
UNION ALL
SELECT 'FUNCTION', format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)), o.rolname::text, quote_ident(o.rolname),
  ARRAY(SELECT format('GRANT EXECUTE ON FUNCTION %I.%I(%s) TO %I', n.nspname, p.proname, oidvectortypes(p.proargtypes), g.rolname)
      || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    FROM aclexplode(p.proacl) a JOIN pg_roles g ON g.oid = a.grantee WHERE a.grantee = $1::oid AND a.grantee <> p.proowner),
  false
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles o ON o.oid = p.proowner
WHERE p.pronamespace = $2::oid AND p.prokind = 'f' AND NOT pg_has_role($1::oid, p.proowner, 'USAGE')
  AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_proc'::regclass AND x.objid = p.oid AND x.deptype = 'e')
ORDER BY 1 DESC, 2 LIMIT 1001`

func (e *entry) lookInside(ctx context.Context, tx pgx.Tx, in *inside) error {
	names := []string{public, e.acting.Name}
	for _, s := range e.settings {
		if s.Name == "search_path" {
			names = append(names, splitPath(s.Value)...)
		}
	}
	if path, ok := option(e.db.Settings["options"], "search_path"); ok {
		names = append(names, splitPath(path)...)
	}
	rows, err := tx.Query(ctx, schemasQuery, e.acting.OID, names)
	if err != nil {
		return fmt.Errorf("read the schemas: %w", err)
	}
	if in.schemas, err = pgx.CollectRows(rows, pgx.RowToStructByPos[schema]); err != nil {
		return fmt.Errorf("read the schemas: %w", err)
	}
	for _, s := range in.schemas {
		if !s.Synapse {
			continue
		}
		rows, err := tx.Query(ctx, objectsQuery, e.acting.OID, s.OID)
		if err != nil {
			return fmt.Errorf("read the owners of the tables: %w", err)
		}
		objects, err := pgx.CollectRows(rows, pgx.RowToStructByPos[object])
		if err != nil {
			return fmt.Errorf("read the owners of the tables: %w", err)
		}
		in.objects = append(in.objects, objects...)
	}
	return nil
}

// identify finds out whether the database is one that the doctor may change, by what its engine goes by: what the
// administrator's session finds without a schema's name.
func (in *inside) identify(ctx context.Context, t *doctor.Target, admin *doctor.Database) {
	var id synapse.Identity
	err := admin.Read(ctx, func(tx pgx.Tx) (err error) {
		id, err = synapse.Identify(ctx, tx, t.ServerName)
		return err
	})
	in.tables = id.Tables
	switch {
	case err != nil:
		in.whyNot = fmt.Sprintf("the administrator's connection can't see whether the database is this homeserver's: %v", err)
	case id.Tables == 0:
	case !id.HasSchema:
		in.whyNot = "the database holds tables, but not Synapse's where the administrator's connection looks for them"
	case id.ForeignUser != "":
		in.whyNot = fmt.Sprintf("the database holds users of another homeserver than %s: %s", t.ServerName, id.ForeignUser)
	case !id.InUse:
		in.whyNot = "the database holds Synapse's tables and no user yet, so that it can't be told whose it is"
	case t.ServerName == "":
		in.whyNot = "without a server_name it can't be told whose database it is"
	}
}
