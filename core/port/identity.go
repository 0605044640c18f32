package port

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// Homeserver is whose database a file is.
type Homeserver struct {
	ServerName string
	// Users are some of the first, with the second in which they were made: by them the homeserver is known again.
	Users map[string]int64
}

// sampleUsers is how many of the first users are remembered.
const sampleUsers = 20

// ReadHomeserver reads whose database a file is. It is refused when it has no users, or those of another server than
// serverName, which may be empty where no configuration says it.
func ReadHomeserver(ctx context.Context, file *sqlitedb.DB, serverName string) (Homeserver, error) {
	h := Homeserver{ServerName: serverName, Users: map[string]int64{}}
	is, err := hasRow(ctx, file, `SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name IN ('users', 'schema_version') GROUP BY 1 HAVING count(*) = 2`)
	if err != nil {
		return h, err
	}
	if !is {
		return h, doctor.Unchanged("%s is not a database of Synapse: it has no table users, or no schema_version", file.Path())
	}
	var foreign string
	each := func(s *sqlitedb.Stmt) error {
		name := s.String(0)
		_, domain, _ := strings.Cut(name, ":")
		if h.ServerName == "" {
			h.ServerName = domain
		}
		if domain != h.ServerName && foreign == "" {
			foreign = name
		}
		return nil
	}
	for _, sql := range []string{`SELECT name FROM users ORDER BY name LIMIT 1`, `SELECT name FROM users ORDER BY name DESC LIMIT 1`} {
		if err := eachRow(ctx, file, sql, each); err != nil {
			return h, err
		}
	}
	err = eachRow(ctx, file, fmt.Sprintf(`SELECT name, coalesce(creation_ts, 0) FROM users ORDER BY creation_ts, name LIMIT %d`, sampleUsers), func(s *sqlitedb.Stmt) error {
		h.Users[s.String(0)] = s.Int(1)
		return each(s)
	})
	switch {
	case err != nil:
		return h, err
	case len(h.Users) == 0:
		return h, doctor.Unchanged("%s has no users: it is not the database that a homeserver was run with. Look for the path in homeserver.yaml, or for another file", file.Path())
	case foreign != "":
		return h, doctor.Unchanged("%s is the database of another homeserver: it has the user %s, and this server is %s", file.Path(), foreign, h.ServerName)
	}
	return h, nil
}

// Standing is what a target is to a port.
type Standing int

const (
	// Absent: there is no table in it.
	Absent Standing = iota + 1
	// Fresh: Synapse's schema without a homeserver.
	Fresh
	// Ours: a port of this homeserver was begun.
	Ours
	// Replaced: Synapse's own script has ported into it, and that is to be replaced.
	Replaced
)

const recordQuery = `SELECT to_regclass('port_from_sqlite3') IS NOT NULL, EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = '` + stateSchema + `' AND c.relname = 'port')`

// admit says what the target is to the port of file, and refuses it where that would lose something, or mix two homeservers.
// It only reads.
func admit(ctx context.Context, conn *pgx.Conn, file *sqlitedb.DB, h Homeserver, replace bool) (standing Standing, err error) {
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		standing, err = Admit(ctx, tx, file, h, replace)
		return err
	})
	return standing, err
}

// Admit is what a run of the port does first; see [Standing]. A target that is refused is a [doctor.UnchangedError]. With
// replace one that Synapse's own script has filled is not, as long as it holds nothing that the file has not.
func Admit(ctx context.Context, tx pgx.Tx, file *sqlitedb.DB, h Homeserver, replace bool) (Standing, error) {
	var script, record bool
	if err := tx.QueryRow(ctx, recordQuery).Scan(&script, &record); err != nil {
		return 0, fmt.Errorf("look for the record of a port: %w", err)
	}
	if record {
		if _, err := hasRecord(ctx, tx); err != nil {
			return 0, err
		}
		known, err := sameHomeserver(ctx, tx, file, h)
		if err != nil {
			return 0, err
		}
		if known {
			return Ours, nil
		}
	}
	id, err := synapse.Identify(ctx, tx, h.ServerName)
	switch {
	case err != nil:
		return 0, err
	case id.Tables == 0:
		return Absent, nil
	case !id.HasSchema:
		return 0, doctor.Unchanged("the target holds %d tables that are not Synapse's: give an empty database", id.Tables)
	case id.ForeignUser != "":
		return 0, doctor.Unchanged("the target is the database of another homeserver: it has the user %s, and this server is %s", id.ForeignUser, h.ServerName)
	}
	if script {
		if !replace {
			return 0, doctor.Unchanged("Synapse's own script has ported into the target before (table port_from_sqlite3), and whether all of it arrived is not known. " +
				"Choose the plan port/replace to have it replaced, or give an empty database")
		}
		return Replaced, replaceable(ctx, tx, file)
	}
	used, err := firstUsed(ctx, tx)
	if err != nil {
		return 0, err
	}
	if used != "" {
		return 0, doctor.Unchanged("the target holds a homeserver already: there are rows in %s, and no record of a port. Give an empty database", used)
	}
	return Fresh, nil
}

// sameHomeserver compares the record of an earlier run with the file. False: there is the table, and no run was begun.
func sameHomeserver(ctx context.Context, tx pgx.Tx, file *sqlitedb.DB, h Homeserver) (bool, error) {
	var recorded int
	var name string
	var text []byte
	err := tx.QueryRow(ctx, `SELECT format, server_name, users::text FROM synapse_doctor.port`).Scan(&recorded, &name, &text)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the record of the port: %w", err)
	}
	if recorded != format {
		return false, doctor.Unchanged("the port was begun by another version of this program (its record has the format %d, and this one writes %d): use that one, or give an empty database", recorded, format)
	}
	if name != h.ServerName {
		return false, doctor.Unchanged("the port into this target was begun for the homeserver %s, and this file is of %s", name, h.ServerName)
	}
	users := map[string]int64{}
	if err := json.Unmarshal(text, &users); err != nil {
		return false, fmt.Errorf("the record of the port names its users in a way that is not understood: %w", err)
	}
	known, err := stillThere(ctx, file, users)
	if err != nil {
		return false, err
	}
	// One may have been removed by hand; another homeserver of the same name, made anew, has none of them.
	if 2*known < len(users) {
		return false, doctor.Unchanged("this file is not of the homeserver whose port was begun: of %d users that were made first there, it has %d (by name and time)", len(users), known)
	}
	return true, nil
}

// stillThere counts the users of the file that have the names and times.
func stillThere(ctx context.Context, file *sqlitedb.DB, users map[string]int64) (int, error) {
	s, err := file.Prepare(`SELECT 1 FROM users WHERE name = ? AND coalesce(creation_ts, 0) = ?`)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	n := 0
	for name, made := range users {
		if err := errors.Join(s.Reset(), s.BindText(1, name), s.BindInt(2, made)); err != nil {
			return 0, err
		}
		row, err := s.Step(ctx)
		if err != nil {
			return 0, err
		}
		if row {
			n++
		}
	}
	return n, nil
}

// firstUsed names a table that a homeserver which was in use has rows in.
func firstUsed(ctx context.Context, tx pgx.Tx) (string, error) {
	for _, table := range []string{"users", "events", "rooms", "state_groups"} {
		var there, rows bool
		if err := tx.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, table).Scan(&there); err != nil {
			return "", fmt.Errorf("look for %s: %w", table, err)
		}
		if !there {
			continue
		}
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+table+`)`).Scan(&rows); err != nil {
			return "", fmt.Errorf("look into %s: %w", table, err)
		}
		if rows {
			return table, nil
		}
	}
	return "", nil
}

// replaceable refuses to replace what Synapse's script has filled once a Synapse has gone on with it.
func replaceable(ctx context.Context, tx pgx.Tx, file *sqlitedb.DB) error {
	for _, q := range []struct{ what, sql string }{
		{"events", `SELECT coalesce(max(stream_ordering), 0) FROM events`},
		{"users", `SELECT coalesce(max(creation_ts), 0) FROM users`},
		{"devices' messages", `SELECT coalesce(max(stream_id), 0) FROM device_inbox`},
	} {
		var target int64
		if err := tx.QueryRow(ctx, q.sql).Scan(&target); err != nil {
			return fmt.Errorf("look how far the target's %s are: %w", q.what, err)
		}
		source, err := file.Int(ctx, q.sql)
		if err != nil {
			return err
		}
		if target > source {
			return doctor.Unchanged("the target is not replaced: its %s are ahead of the file's (%d, and %d in the file), so a Synapse has been used with it. Give an empty database", q.what, target, source)
		}
	}
	return nil
}

const beginStatement = `INSERT INTO synapse_doctor.port AS p (format, server_name, users, stage, path, file, runs, started)
VALUES ($1, $2, $3::text::jsonb, 'loading', $4, $5::text::jsonb, 1, now())
ON CONFLICT (one) DO UPDATE SET stage = 'loading', runs = p.runs + 1`

// beginRun enters a run into the record, whose tables are there. From now on the target is ours, whatever it held.
func beginRun(ctx context.Context, conn *pgx.Conn, h Homeserver, path string, id FileIdentity) error {
	users, err := json.Marshal(h.Users)
	if err != nil {
		return err
	}
	text, err := json.Marshal(id)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, beginStatement, format, h.ServerName, string(users), path, string(text)); err != nil {
			return fmt.Errorf("begin the record of the port: %w", err)
		}
		// It would say for ever that the script had filled the database.
		if _, err := tx.Exec(ctx, `DROP TABLE IF EXISTS port_from_sqlite3`); err != nil {
			return fmt.Errorf("drop the record of Synapse's script: %w", err)
		}
		return nil
	})
}

// endRun enters the end of a run.
func endRun(ctx context.Context, conn *pgx.Conn, path string, id FileIdentity, seconds map[string]float64) error {
	file, err := json.Marshal(id)
	if err != nil {
		return err
	}
	parts, err := json.Marshal(seconds)
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, `UPDATE synapse_doctor.port SET stage = 'complete', path = $1, file = $2::text::jsonb, seconds = $3::text::jsonb,
  finished = now(), bytes = pg_database_size(current_database())`, path, string(file), string(parts)); err != nil {
		return fmt.Errorf("record that the port is complete: %w", err)
	}
	return nil
}
