package synapse

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Identity is what a PostgreSQL database is to a homeserver.
type Identity struct {
	Tables        int    // ordinary tables outside the system schemas, the doctor's own left out; counted up to 1000
	HasSchema     bool   // schema_version is there, and users (the main store) or state_groups (the state store)
	SchemaVersion int    // 0 when there is none
	CompatVersion int    // 0 when it is not recorded (before Synapse 1.37)
	InUse         bool   // at least one user; where there is only the state store, at least one state group
	ForeignUser   string // a user of another server_name; empty when none was seen
	// Ported: a port from SQLite keeps its place in it, the doctor's or that of Synapse's script: what is there is a copy,
	// whole or in part, unless somebody has worked with it since.
	Ported bool
}

// Belongs reports whether the database holds Synapse's schema and nobody else's users. A fresh schema without users belongs.
func (i Identity) Belongs() bool { return i.HasSchema && i.ForeignUser == "" }

// The tables that a role sees in its search_path are the ones that Synapse would use, hence to_regclass. In a schema that a
// role may not use it is an error.
const identityQuery = `SELECT to_regclass('schema_version') IS NOT NULL,
  to_regclass('users') IS NOT NULL, to_regclass('state_groups') IS NOT NULL, to_regclass('schema_compat_version') IS NOT NULL,
  EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'synapse_doctor' AND c.relname = 'port')
    OR to_regclass('port_from_sqlite3') IS NOT NULL,
  (SELECT count(*)::int FROM (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'synapse_doctor')
    AND c.relpersistence <> 't' LIMIT 1000) t)`

// Two index lookups, not a scan: Synapse itself looks at a single row.
const usersQuery = `(SELECT name FROM users ORDER BY name LIMIT 1) UNION ALL (SELECT name FROM users ORDER BY name DESC LIMIT 1)`

// Identify reads what the database in tx is to the homeserver serverName (whose name is not compared when empty).
func Identify(ctx context.Context, tx pgx.Tx, serverName string) (Identity, error) {
	var id Identity
	var hasVersion, hasUsers, hasState, hasCompat bool
	if err := tx.QueryRow(ctx, identityQuery).Scan(&hasVersion, &hasUsers, &hasState, &hasCompat, &id.Ported, &id.Tables); err != nil {
		return id, fmt.Errorf("look for Synapse's schema: %w", err)
	}
	id.HasSchema = hasVersion && (hasUsers || hasState)
	if !id.HasSchema {
		return id, nil
	}
	if err := tx.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM schema_version`).Scan(&id.SchemaVersion); err != nil {
		return id, fmt.Errorf("read schema_version: %w", err)
	}
	if hasCompat {
		if err := tx.QueryRow(ctx, `SELECT coalesce(max(compat_version), 0) FROM schema_compat_version`).Scan(&id.CompatVersion); err != nil {
			return id, fmt.Errorf("read schema_compat_version: %w", err)
		}
	}
	if !hasUsers {
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM state_groups)`).Scan(&id.InUse); err != nil {
			return id, fmt.Errorf("read state_groups: %w", err)
		}
		return id, nil
	}
	rows, err := tx.Query(ctx, usersQuery)
	if err != nil {
		return id, fmt.Errorf("read users: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return id, fmt.Errorf("read users: %w", err)
	}
	for _, name := range names {
		id.InUse = true
		if _, domain, _ := strings.Cut(name, ":"); serverName != "" && domain != serverName {
			id.ForeignUser = name
		}
	}
	return id, nil
}
