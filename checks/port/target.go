package port

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// target is what the database that is ported to says of itself.
type target struct {
	traces
	directory
	id     synapse.Identity
	schema schema

	name             string
	role             string
	encoding         string
	collate, ctype   string
	provider, locale string // of the collation, where it is not libc's
	bytes            int64  // of the database as it is
	tablespace       string // its directory on the server; empty: the default one
	maxWAL           int64  // bytes that max_wal_size lets the log grow to
	sessions         []string
}

// The provider of a collation came with PostgreSQL 15; its locale has had two names since. Each is NULL where there is no
// such column.
const targetQuery = `SELECT current_database()::text, current_user::text, pg_encoding_to_char(d.encoding), d.datcollate::text, d.datctype::text,
  coalesce(to_jsonb(d)->>'datlocprovider', 'c'), coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', ''),
  pg_database_size(d.oid), pg_tablespace_location(d.dattablespace),
  coalesce((SELECT s.setting::bigint FROM pg_settings s WHERE s.name = 'max_wal_size'), 1024) * 1048576
FROM pg_database d WHERE d.datname = current_database()`

// sessionsQuery lists who else is there with Synapse's role.
const sessionsQuery = `SELECT format('process %s%s%s', pid, coalesce(' from ' || host(client_addr), ''), coalesce(' (' || nullif(application_name, '') || ')', ''))
FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user AND backend_type = 'client backend'
  AND pid <> pg_backend_pid() AND coalesce(application_name, '') NOT LIKE 'synapse-doctor/%' ORDER BY backend_start, pid`

func readTarget(ctx context.Context, tx pgx.Tx, serverName string) (*target, error) {
	t := &target{}
	err := tx.QueryRow(ctx, targetQuery).Scan(&t.name, &t.role, &t.encoding, &t.collate, &t.ctype, &t.provider, &t.locale,
		&t.bytes, &t.tablespace, &t.maxWAL)
	if err != nil {
		return nil, fmt.Errorf("read the database's properties: %w", err)
	}
	if t.sessions, err = column1(ctx, tx, sessionsQuery); err != nil {
		return nil, fmt.Errorf("look for sessions: %w", err)
	}
	if t.traces, err = readTraces(ctx, tx); err != nil {
		return nil, err
	}
	if t.id, err = synapse.Identify(ctx, tx, serverName); err != nil || !t.id.HasSchema {
		return t, err
	}
	if t.directory, err = readDirectory(ctx, tx, t.traces); err != nil {
		return nil, err
	}
	t.schema.version = int64(t.id.SchemaVersion)
	rows, err := tx.Query(ctx, `SELECT version::bigint, file FROM applied_schema_deltas`)
	if err != nil {
		return nil, fmt.Errorf("read applied_schema_deltas: %w", err)
	}
	t.schema.deltas, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d delta, err error) {
		return d, row.Scan(&d.version, &d.file)
	})
	if err != nil {
		return nil, fmt.Errorf("read applied_schema_deltas: %w", err)
	}
	return t, nil
}

func column1(ctx context.Context, tx pgx.Tx, sql string, args ...any) ([]string, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// inUTF8AndC reports whether Synapse takes the database, and text sorts in it by bytes. PostgreSQL 17's own provider has a
// locale C that does.
func (t *target) inUTF8AndC() bool {
	sorts := t.provider == "c" || t.provider == "b" && t.locale == "C"
	return t.encoding == "UTF8" && t.collate == "C" && t.ctype == "C" && sorts
}

func (t *target) localeText() string {
	text := fmt.Sprintf("encoding %s, LC_COLLATE %s, LC_CTYPE %s", t.encoding, t.collate, t.ctype)
	if t.provider != "c" {
		text += ", locale " + t.locale + " of another provider than libc"
	}
	return text
}

// occupied says what there is in a database that no port of the doctor's has put there; empty where it may be filled.
func (t *target) occupied() string {
	switch {
	case t.id.HasSchema && t.id.InUse:
		return "it has users, or state, of a homeserver"
	case !t.id.HasSchema && t.id.Tables > 0:
		return fmt.Sprintf("it has %s, and they are not Synapse's", tableCount(t.id.Tables))
	}
	return ""
}

func tableCount(n int) string {
	if n == 1 {
		return "1 table"
	}
	return fmt.Sprintf("%d tables", n)
}

// A database in PostgreSQL takes 1.25 to 2 times what the SQLite file takes, as Synapse's own documentation has it.
const (
	leastNumerator, leastDenominator = 5, 4
	most                             = 2
)

// room is what a port needs on the server's disks, and what is free there.
type room struct {
	seen        bool
	dir         string
	free        int64
	least, most int64 // what is needed of it, at least and at most
}

// measure looks at the disks of a server on this machine, its log's included.
func measure(db *doctor.Database, t *target, s *source) []room {
	data := room{dir: db.DataDir, least: s.bytes*leastNumerator/leastDenominator - t.bytes, most: s.bytes*most - t.bytes}
	if t.tablespace != "" {
		data.dir = t.tablespace
	}
	wal := room{dir: filepath.Join(db.DataDir, "pg_wal"), least: min(t.maxWAL, s.bytes), most: min(t.maxWAL, s.bytes*most)}
	var device, walDevice uint64
	if db.DataDir != "" {
		data.look(&device)
		wal.look(&walDevice)
	}
	if !data.seen || !wal.seen {
		return []room{data}
	}
	if device == walDevice {
		data.least, data.most = data.least+wal.least, data.most+wal.most
		return []room{data}
	}
	return []room{data, wal}
}

func (r *room) look(device *uint64) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Statfs(r.dir, &fs) != nil || unix.Stat(r.dir, &st) != nil {
		return
	}
	r.seen, r.free, *device = true, int64(fs.Bavail)*int64(fs.Bsize), uint64(st.Dev)
}
