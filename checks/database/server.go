package database

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// server is what holds of the whole server.
type server struct {
	version        int // 150018
	standby        bool
	maxConnections int
	reserved       int    // of them, for superusers and others
	source         string // what sets max_connections, as pg_settings calls it
}

// reserved_connections came with PostgreSQL 16.
const serverQuery = `SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), current_setting('max_connections')::int,
  current_setting('superuser_reserved_connections')::int + coalesce(current_setting('reserved_connections', true)::int, 0),
  coalesce((SELECT source FROM pg_settings WHERE name = 'max_connections'), ''), quote_ident($1), quote_ident($2)`

// role is a role of the server.
type role struct {
	OID      uint32 // 0 when there is none: the functions that ask for privileges take it for PUBLIC
	Name     string
	Ident    string
	Super    bool
	CanLogin bool
	Limit    int32 // -1: none
}

const roleQuery = `SELECT oid, rolname::text, quote_ident(rolname), rolsuper, rolcanlogin, rolconnlimit FROM pg_roles WHERE rolname = $1`

// database is one row of pg_database.
type database struct {
	OID               uint32
	Owner, OwnerIdent string
	AllowsConnections bool
	Limit             int32    // -1: none
	Connect           bool     // the role may connect
	Owned             bool     // by the acting role, or by one whose rights it has
	OwnerConnects     bool     // whoever owns it may connect, by its ACL
	Regrants          []string // what has to be granted to the acting role again once it was the owner for a while
	OwnerLogsIn       bool     // the owner is an ordinary role with a login
}

// With another owner an ACL has the new one wherever it had the old one (aclnewowner), so that what the new one was
// granted before is merged, and lost when the owner changes back.
const databaseQuery = `SELECT d.oid, o.rolname::text, quote_ident(o.rolname), d.datallowconn, d.datconnlimit,
  has_database_privilege($2::oid, d.oid, 'CONNECT'), pg_has_role($3::oid, d.datdba, 'USAGE'),
  EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE a.grantee IN (0, d.datdba) AND a.privilege_type = 'CONNECT'),
  ARRAY(SELECT format('GRANT %s ON DATABASE %I TO %I', string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type), d.datname, g.rolname)
      || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    FROM aclexplode(d.datacl) a JOIN pg_roles g ON g.oid = a.grantee WHERE a.grantee = $3::oid AND a.grantee <> d.datdba GROUP BY g.rolname, a.is_grantable),
  o.rolcanlogin AND NOT o.rolsuper
FROM pg_database d JOIN pg_roles o ON o.oid = d.datdba WHERE d.datname = $1`

// othersQuery lists what the role owns besides, for whoever got the name wrong.
const othersQuery = `SELECT d.datname::text FROM pg_database d JOIN pg_roles o ON o.oid = d.datdba WHERE o.rolname = $1 AND NOT d.datistemplate ORDER BY 1 LIMIT 10`

// setting is one place that sets something for the role's sessions in the database.
type setting struct {
	Name               string
	OfRole, OfDatabase bool
	Value              string
	UTF8               bool // as an encoding; each has many spellings, so PostgreSQL compares the numbers
}

const settingsQuery = `SELECT lower(split_part(c.entry, '=', 1)), s.setrole <> 0, s.setdatabase <> 0, v.value, pg_char_to_encoding(v.value) = pg_char_to_encoding('UTF8')
FROM pg_db_role_setting s, unnest(s.setconfig) AS c(entry), substr(c.entry, strpos(c.entry, '=') + 1) AS v(value)
WHERE lower(split_part(c.entry, '=', 1)) IN ('search_path', 'client_encoding', 'role')
  AND s.setrole IN (0, $1::oid) AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = $2))
ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC`

func (e *entry) lookOutside(ctx context.Context, tx pgx.Tx, login, name string) error {
	e.login, e.name = role{Name: login}, name
	var s server
	if err := tx.QueryRow(ctx, serverQuery, login, name).Scan(&s.version, &s.standby, &s.maxConnections, &s.reserved, &s.source, &e.login.Ident, &e.ident); err != nil {
		return fmt.Errorf("read the server's settings: %w", err)
	}
	if err := e.login.look(ctx, tx); err != nil {
		return err
	}
	rows, err := tx.Query(ctx, settingsQuery, e.login.OID, name)
	if err != nil {
		return fmt.Errorf("read the settings of roles and databases: %w", err)
	}
	if e.settings, err = pgx.CollectRows(rows, pgx.RowToStructByPos[setting]); err != nil {
		return fmt.Errorf("read the settings of roles and databases: %w", err)
	}
	e.acting = e.login
	if name, ok := e.setFor("role"); ok && name != "none" {
		if e.acting = (role{Name: name}); e.login.OID != 0 {
			if err := e.acting.look(ctx, tx); err != nil {
				return err
			}
		}
		if e.acting.OID == 0 { // the server only warns of a role that is not there
			e.acting = e.login
		}
	}
	var d database
	err = tx.QueryRow(ctx, databaseQuery, e.name, e.login.OID, e.acting.OID).Scan(&d.OID, &d.Owner, &d.OwnerIdent, &d.AllowsConnections, &d.Limit,
		&d.Connect, &d.Owned, &d.OwnerConnects, &d.Regrants, &d.OwnerLogsIn)
	switch {
	case err == nil:
		e.database = &d
	case errors.Is(err, pgx.ErrNoRows):
		rows, err := tx.Query(ctx, othersQuery, login)
		if err != nil {
			return fmt.Errorf("list the role's databases: %w", err)
		}
		if e.others, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return fmt.Errorf("list the role's databases: %w", err)
		}
	default:
		return fmt.Errorf("read pg_database: %w", err)
	}
	e.server = s
	return nil
}

// look finds the role of this name; where there is none, OID stays 0.
func (r *role) look(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, roleQuery, r.Name)
	if err != nil {
		return fmt.Errorf("look for the role %s: %w", r.Name, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[role])
	if err != nil {
		return fmt.Errorf("look for the role %s: %w", r.Name, err)
	}
	if len(found) > 0 {
		*r = found[0]
	}
	return nil
}

// setFor is the value with which a session begins: of the configuration's options, else of what wins among the settings.
func (e *entry) setFor(name string) (string, bool) {
	if value, ok := option(e.db.Settings["options"], name); ok {
		return value, true
	}
	if i := slices.IndexFunc(e.settings, func(s setting) bool { return s.Name == name }); i >= 0 {
		return e.settings[i].Value, true
	}
	return "", false
}

// invalid is datconnlimit of a database whose DROP DATABASE was interrupted (DATCONNLIMIT_INVALID_DB, since 15.4 and 16).
const invalid = -2

// shut says why nobody gets in; empty when that is not so.
func (d *database) shut() string {
	switch {
	case d.Limit == invalid:
		return "datconnlimit is -2: DROP DATABASE was begun and not finished"
	case !d.AllowsConnections:
		return "datallowconn is false"
	case d.Limit == 0:
		return "datconnlimit is 0"
	}
	return ""
}
