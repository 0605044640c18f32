// Package encoding is the check that the database and its sessions speak UTF-8. It may import core/doctor, core/synapse,
// core/pgdb, core/sqlitedb and core/rebuild.
package encoding

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/rebuild"
)

// The codes of the check.
const (
	NotUTF8           = "encoding/not-utf8"
	ClientEncodingSet = "encoding/client-encoding-set"
)

// Check finds databases that do not store UTF-8, and settings that make sessions speak something else.
var Check = doctor.Check{
	ID:    "encoding",
	Title: "The database and its sessions use UTF-8",
	Why:   "Synapse refuses to start on a database with another encoding, and messages that it can't express are refused or mangled.",
	Needs: doctor.NeedsPostgres,
	Codes: []doctor.Code{
		{ID: NotUTF8, Title: "the database's encoding is not UTF8", Severity: doctor.Error},
		{ID: ClientEncodingSet, Title: "a role or database sets another client_encoding", Severity: doctor.Warning},
	},
	Run:        run,
	Plan:       plan,
	Operations: rebuild.Operations,
}

func run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	for _, db := range t.Meeting(doctor.NeedsPostgres) {
		s, err := look(ctx, db)
		if err != nil {
			return err
		}
		for _, f := range s.findings() {
			f.Database = db.Label
			r.Find(f)
		}
	}
	return nil
}

// databaseQuery asks what the database stores. Its owner may reset its settings.
const databaseQuery = `SELECT d.datname, quote_ident(d.datname), pg_encoding_to_char(d.encoding), o.rolname, current_user::text, quote_ident(current_user),
  pg_has_role(d.datdba, 'USAGE'), current_setting('server_version_num')::int
FROM pg_database d JOIN pg_roles o ON o.oid = d.datdba WHERE d.datname = current_database()`

// settingsQuery lists the client_encoding settings that reach this role's sessions in this database, the one that wins
// first. PostgreSQL compares encodings by number, since each has many spellings.
const settingsQuery = `SELECT s.setrole <> 0, s.setdatabase <> 0, v.value, pg_char_to_encoding(v.value) = pg_char_to_encoding('UTF8')
FROM pg_db_role_setting s, unnest(s.setconfig) AS c(entry), substr(c.entry, strpos(c.entry, '=') + 1) AS v(value)
WHERE lower(split_part(c.entry, '=', 1)) = 'client_encoding'
  AND s.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))
  AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC`

// seen is what the queries say of one database.
type seen struct {
	Name, Ident     string
	Encoding        string
	Owner           string
	Role, RoleIdent string
	MayAlter        bool
	Version         int // 150018
	settings        []setting
}

// setting is one place that sets client_encoding.
type setting struct {
	OfRole, OfDatabase bool
	Value              string
	UTF8               bool
}

func look(ctx context.Context, db *doctor.Database) (*seen, error) {
	s := &seen{}
	err := db.Read(ctx, func(tx pgx.Tx) error {
		row := tx.QueryRow(ctx, databaseQuery)
		if err := row.Scan(&s.Name, &s.Ident, &s.Encoding, &s.Owner, &s.Role, &s.RoleIdent, &s.MayAlter, &s.Version); err != nil {
			return fmt.Errorf("read the database's encoding: %w", err)
		}
		rows, err := tx.Query(ctx, settingsQuery)
		if err != nil {
			return fmt.Errorf("read the settings of roles and databases: %w", err)
		}
		if s.settings, err = pgx.CollectRows(rows, pgx.RowToStructByPos[setting]); err != nil {
			return fmt.Errorf("read the settings of roles and databases: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", db.Label, err)
	}
	// One that sets UTF8 hides everything less particular.
	if i := slices.IndexFunc(s.settings, func(x setting) bool { return x.UTF8 }); i >= 0 {
		s.settings = s.settings[:i]
	}
	return s, nil
}

func (s *seen) findings() []doctor.Finding {
	var found []doctor.Finding
	if s.Encoding != "UTF8" {
		found = append(found, doctor.Finding{
			Code: NotUTF8, Severity: doctor.Error, Object: doctor.Object{Kind: "database", Name: s.Name},
			Summary:  fmt.Sprintf("The database %s has the encoding %s: Synapse refuses to start on it.", s.Name, s.Encoding),
			Observed: s.Encoding, Expected: "UTF8",
			Remedy: byDoctor + s.rebuild(), Fixable: true,
		})
	}
	byObject := map[doctor.Object]int{}
	for _, x := range s.settings {
		o := s.object(x)
		if i, ok := byObject[o]; ok {
			found[i].Observed += ", " + x.Value
			found[i].Remedy += "\n\n    " + s.reset(x) + ";"
			continue
		}
		byObject[o] = len(found)
		found = append(found, doctor.Finding{
			Code: ClientEncodingSet, Severity: doctor.Warning, Object: o,
			Summary:  fmt.Sprintf("Sessions of Synapse start with client_encoding %s: text that it can't express is refused or comes out mangled.", x.Value),
			Observed: x.Value, Expected: "no setting, or UTF8",
			Remedy: s.whoMayReset(x) + "\n\n    " + s.reset(x) + ";", Fixable: true,
			Evidence: map[string]string{"database": s.Name, "role": s.Role},
		})
	}
	return found
}

// object is what the setting hangs on.
func (s *seen) object(x setting) doctor.Object {
	switch {
	case x.OfRole:
		return doctor.Object{Kind: "role", Name: s.Role}
	case x.OfDatabase:
		return doctor.Object{Kind: "database", Name: s.Name}
	}
	return doctor.Object{Kind: "setting", Name: "client_encoding"} // ALTER ROLE ALL
}

func (s *seen) alter(x setting) string {
	switch {
	case x.OfRole && x.OfDatabase:
		return fmt.Sprintf("ALTER ROLE %s IN DATABASE %s", s.RoleIdent, s.Ident)
	case x.OfRole:
		return "ALTER ROLE " + s.RoleIdent
	case x.OfDatabase:
		return "ALTER DATABASE " + s.Ident
	}
	return "ALTER ROLE ALL"
}

func (s *seen) reset(x setting) string { return s.alter(x) + " RESET client_encoding" }

// mayReset: a role may change its own settings, and an owner those of the database.
func (s *seen) mayReset(x setting) bool { return x.OfRole || x.OfDatabase && s.MayAlter }

func (s *seen) whoMayReset(x setting) string {
	switch {
	case s.mayReset(x):
		return "Run this as the role that Synapse logs in with, and restart Synapse:"
	case x.OfDatabase:
		return "Run this as the database's owner, and restart Synapse:"
	}
	return "Run this as an administrator of the database server, and restart Synapse:"
}

const byDoctor = "The doctor makes a new database with Synapse stopped, stops before anything is changed where bytes are not text, and compares every row:\n\n    synapse-doctor fix encoding\n\nBy hand: "

// rebuild is how a database gets another encoding: it can't be changed, only made anew and filled.
func (s *seen) rebuild() string {
	provider := ""
	if s.Version >= 150000 {
		provider = " --locale-provider=libc"
	}
	fresh := s.Name + "_utf8"
	name := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	ident := func(s string) string { return pgx.Identifier{s}.Sanitize() }
	ascii := ""
	if s.Encoding == "SQL_ASCII" {
		ascii = " A database in SQL_ASCII never looked at the bytes it was given, so this can happen."
	}
	return strings.Join([]string{
		"The encoding of a database can't be changed, only a new one filled from it. Never edit pg_database by hand: the bytes in the tables would stay as they are.",
		"Stop Synapse and all its workers. Then, as an administrator of the database server (sudo -u postgres -i), in a directory with room for the dump:",
		"    pg_dump --format=custom --encoding=UTF8 --file=synapse.dump " + name(s.Name),
		"It stops at the first byte that is not valid. Leave out neither --encoding nor a single error: without them bad bytes are copied silently." + ascii +
			" Nothing has changed then: correct the row that the error names, and begin again.",
		"    createdb --template=template0 --encoding=UTF8 --lc-collate=C --lc-ctype=C" + provider + " --owner=" + name(s.Owner) + " " + name(fresh) +
			"\n    pg_restore --exit-on-error --dbname=" + name(fresh) + " synapse.dump",
		"When both have ended without an error, let the new database take the old one's place:",
		fmt.Sprintf("    psql --dbname=postgres --command='ALTER DATABASE %s RENAME TO %s' --command='ALTER DATABASE %s RENAME TO %s'",
			shellSafe(ident(s.Name)), shellSafe(ident(s.Name+"_old")), shellSafe(ident(fresh)), shellSafe(ident(s.Name))),
		"Check it with synapse-doctor check before Synapse is started. Keep the old database until you are certain that nothing is missing.",
	}, "\n\n")
}

// shellSafe makes s fit between the apostrophes of a shell's word.
func shellSafe(s string) string { return strings.ReplaceAll(s, "'", `'\''`) }
