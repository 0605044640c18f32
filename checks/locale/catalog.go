package locale

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// catalog is what the catalog of one database says of how text is compared in it.
type catalog struct {
	server
	Owner string
	Limit int32 // CONNECTION LIMIT; -1: none
	Bytes int64 // of the whole database
	UTF8  bool  // its encoding

	own     dbRow
	others  []dbRow         // template1 and postgres
	indexes []index         // in which text is compared
	drifted []collation     // named ones whose library has changed
	used    []usedCollation // named ones that are the order of an index
	columns []column
	invalid []invalidIndex

	db      *doctor.Database
	allowed *allowance // allow_unsafe_locale of this entry; nil when it is not set
}

// server is what a session says of its server.
type server struct {
	Version  int    // 150018
	Software string // PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64-pc-linux-gnu, …
	Standby  bool
	SystemID string // empty when this role is not told
	Started  string // when the postmaster started
	Database string // that the session is in
	Address  string // of the server, as it sees itself; empty through a socket
}

const serverQuery = `SELECT current_setting('server_version_num')::int, version(), pg_is_in_recovery(),
  CASE WHEN has_function_privilege('pg_control_system()', 'EXECUTE') THEN (SELECT system_identifier::text FROM pg_control_system()) ELSE '' END,
  extract(epoch FROM pg_postmaster_start_time())::text, current_database()::text, coalesce(host(inet_server_addr()), '')`

// dbRow is one row of pg_database.
type dbRow struct {
	Name     string
	Provider string // c: libc, i: ICU, b: builtin
	Collate  string
	Ctype    string
	Locale   string // of the providers other than libc
	// Recorded is the version of the collation when the database was made or refreshed, Actual the library's now. Nil is
	// not known: PostgreSQL 14 records none, template0 has none, and C has no version.
	Recorded, Actual *string
}

// databaseQuery reads rows of pg_database; %s is the actual version. Columns that an older server does not have are
// null in its JSON.
const databaseQuery = `SELECT d.datname::text, coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'), d.datcollate::text, d.datctype::text,
  coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', ''), to_jsonb(d) ->> 'datcollversion', %s
FROM pg_database d WHERE d.datname::text = ANY ($1::text[]) ORDER BY array_position($1::text[], d.datname::text)`

const (
	actualVersion = `pg_database_collation_actual_version(d.oid)`
	// actualVersion14 is the C library's, by way of any locale of it: PostgreSQL 14 gives none for a database.
	actualVersion14 = `CASE WHEN d.datcollate::text !~* '^(C|POSIX)(\.|$)' THEN (SELECT max(pg_collation_actual_version(l.oid)) FROM pg_collation l
    WHERE l.collprovider = 'c' AND l.collcollate !~* '^(C|POSIX)(\.|$)') END`
)

const ownQuery = `SELECT o.rolname::text, d.datconnlimit, pg_database_size(d.oid), pg_encoding_to_char(d.encoding) = 'UTF8'
FROM pg_database d JOIN pg_roles o ON o.oid = d.datdba WHERE d.datname = current_database()`

// lookInto reads everything that is judged of one database, in one snapshot.
func lookInto(ctx context.Context, db *doctor.Database) (*catalog, error) {
	c := &catalog{db: db}
	err := db.Read(ctx, func(tx pgx.Tx) (err error) {
		if c.server, err = readServer(ctx, tx); err != nil {
			return err
		}
		rows, err := readDatabases(ctx, tx, c.Version, c.Database, "template1", "postgres")
		if err != nil {
			return err
		}
		c.own = rows[0]
		for _, r := range rows[1:] {
			if r.Name != c.own.Name {
				c.others = append(c.others, r)
			}
		}
		if err := tx.QueryRow(ctx, ownQuery).Scan(&c.Owner, &c.Limit, &c.Bytes, &c.UTF8); err != nil {
			return fmt.Errorf("read the database's size: %w", err)
		}
		if c.indexes, err = indexes(ctx, tx); err != nil {
			return err
		}
		if c.drifted, err = driftedCollations(ctx, tx); err != nil {
			return err
		}
		if c.used, err = usedCollations(ctx, tx); err != nil {
			return err
		}
		if c.columns, err = columnsNotC(ctx, tx); err != nil {
			return err
		}
		c.invalid, err = invalidIndexes(ctx, tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func readServer(ctx context.Context, tx pgx.Tx) (server, error) {
	var s server
	if err := tx.QueryRow(ctx, serverQuery).Scan(&s.Version, &s.Software, &s.Standby, &s.SystemID, &s.Started, &s.Database, &s.Address); err != nil {
		return s, fmt.Errorf("ask the server for its version: %w", err)
	}
	return s, nil
}

// readDatabases returns the rows of those databases that exist, in the order of their names here.
func readDatabases(ctx context.Context, tx pgx.Tx, version int, names ...string) ([]dbRow, error) {
	actual := actualVersion
	if version < 150000 {
		actual = actualVersion14
	}
	rows, err := tx.Query(ctx, fmt.Sprintf(databaseQuery, actual), names)
	if err != nil {
		return nil, fmt.Errorf("read the locales of the server's databases: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[dbRow])
	if err != nil {
		return nil, fmt.Errorf("read the locales of the server's databases: %w", err)
	}
	return found, nil
}

// nameOfC are the locales of libc of which PostgreSQL takes no version (get_collation_actual_version, 14 to 18).
var nameOfC = regexp.MustCompile(`(?i)^(C|C\..*|POSIX)$`)

func isC(name string) bool { return name == "C" || name == "POSIX" }

// passes reports whether Synapse starts: it compares these two with C, exactly, and looks at nothing else.
func (r dbRow) passes() bool { return r.Collate == "C" && r.Ctype == "C" }

// bytewise reports whether text is compared byte by byte, so that no library has a say in its order.
func (r dbRow) bytewise() bool { return r.Provider == "b" || r.Provider == "c" && isC(r.Collate) }

// edited reports whether the row was edited by hand: only a locale that has a version gets one recorded.
func (r dbRow) edited() bool {
	return r.Provider == "c" && r.Recorded != nil && r.Actual == nil && nameOfC.MatchString(r.Collate)
}

// changed reports whether the library is another than the one recorded. One that tells no version, where a version was
// recorded, is another one too: glibc always tells it, and musl never.
func (r dbRow) changed() bool {
	return r.Recorded != nil && !r.edited() && (r.Actual == nil || *r.Actual != *r.Recorded)
}

// sound reports whether text is compared as Synapse wants it.
func (r dbRow) sound() bool { return r.Provider == "c" && r.passes() && !r.edited() }

// String says how text is compared: COLLATE en_US.UTF-8, CTYPE C, provider libc.
func (r dbRow) String() string {
	s := fmt.Sprintf("COLLATE %s, CTYPE %s, provider %s", r.Collate, r.Ctype, providerName(r.Provider))
	if r.Locale != "" {
		s += " with the locale " + r.Locale
	}
	return s
}

func providerName(provider string) string {
	switch provider {
	case "c":
		return "libc"
	case "i":
		return "icu"
	case "b":
		return "builtin"
	}
	return provider
}

func versionText(v *string) string {
	if v == nil {
		return "none"
	}
	return *v
}

// byDefault are the indexes that compare text as the database does.
func (c *catalog) byDefault() []index {
	return slices.DeleteFunc(slices.Clone(c.indexes), func(x index) bool { return !x.ByDefault })
}

// byOID are the indexes with one of the OIDs, in their order of size.
func (c *catalog) byOID(oids []uint32) []index {
	return slices.DeleteFunc(slices.Clone(c.indexes), func(x index) bool { return !slices.Contains(oids, x.OID) })
}

// findings judges the database itself and what is in it.
func (c *catalog) findings() []doctor.Finding {
	found := c.judgeOwn()
	found = append(found, c.judgeVersions()...)
	found = append(found, c.judgeObjects()...)
	found = append(found, c.judgeInvalid()...)
	for i := range found {
		found[i].Fixable = found[i].Fixable && !c.Standby // on which nothing can be changed
	}
	return found
}

func identifier(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// shellWord is an argument as a POSIX shell takes it.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// textLiteral is a text as SQL takes it.
func textLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
