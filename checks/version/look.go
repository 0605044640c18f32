package version

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// facts are what one database and its server say.
type facts struct {
	database   string
	versionNum int    // 150018
	version    string // 15.18 (Debian 15.18-0+deb12u1)
	inRecovery bool
	scram      bool // passwords that are set on this server are for SCRAM

	hasSchema  bool // schema_version is there: Synapse's tables, of the main or the state store
	hasVersion bool // and it has its row
	schema     int
	upgraded   bool // false: the schema was made at this version rather than upgraded to it
	compat     int  // 0 when not recorded, as before Synapse 1.37

	updates []update // by name
	// invalid are the indexes whose build has ended without success. It is empty also where that can't be told.
	invalid []string
}

// update is one row of background_updates.
type update struct {
	name      string
	dependsOn string
	begun     bool
}

const serverQuery = `SELECT current_database(), current_setting('server_version_num')::int, current_setting('server_version'),
  pg_is_in_recovery(), to_regclass('schema_version') IS NOT NULL, to_regclass('schema_compat_version') IS NOT NULL,
  to_regclass('background_updates') IS NOT NULL, current_setting('password_encryption') = 'scram-sha-256'`

const updatesQuery = `SELECT update_name, coalesce(depends_on, ''), progress_json <> '{}' FROM background_updates ORDER BY update_name`

// A concurrent build that fails leaves its index behind, not valid. While it runs the index is not valid either, hence
// the second half: PostgreSQL 12 was the first to show builds. Those of REINDEX CONCURRENTLY are nobody's update.
const invalidQuery = `SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
  WHERE NOT i.indisvalid AND pg_table_is_visible(i.indrelid) AND c.relkind = 'i' AND c.relname !~ '_cc(new|old)[0-9]*$'
  AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.datname = current_database()
    AND (p.relid = i.indrelid OR p.relid IS NULL))
  ORDER BY 1`

func look(ctx context.Context, db *doctor.Database) (f facts, err error) {
	err = db.Read(ctx, func(tx pgx.Tx) error {
		f, err = read(ctx, tx)
		return err
	})
	return f, err
}

func read(ctx context.Context, tx pgx.Tx) (facts, error) {
	var f facts
	var hasCompat, hasUpdates bool
	if err := tx.QueryRow(ctx, serverQuery).Scan(&f.database, &f.versionNum, &f.version, &f.inRecovery, &f.hasSchema, &hasCompat, &hasUpdates, &f.scram); err != nil {
		return f, fmt.Errorf("read the server's version: %w", err)
	}
	if !f.hasSchema {
		return f, nil
	}
	if err := tx.QueryRow(ctx, `SELECT count(*) > 0, coalesce(max(version), 0), coalesce(bool_or(upgraded), false) FROM schema_version`).
		Scan(&f.hasVersion, &f.schema, &f.upgraded); err != nil {
		return f, fmt.Errorf("read schema_version: %w", err)
	}
	if hasCompat {
		if err := tx.QueryRow(ctx, `SELECT coalesce(max(compat_version), 0) FROM schema_compat_version`).Scan(&f.compat); err != nil {
			return f, fmt.Errorf("read schema_compat_version: %w", err)
		}
	}
	if !hasUpdates {
		return f, nil
	}
	rows, err := tx.Query(ctx, updatesQuery)
	if err != nil {
		return f, fmt.Errorf("read background_updates: %w", err)
	}
	f.updates, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (u update, err error) {
		return u, row.Scan(&u.name, &u.dependsOn, &u.begun)
	})
	if err != nil {
		return f, fmt.Errorf("read background_updates: %w", err)
	}
	if len(f.updates) == 0 || f.versionNum < 120000 {
		return f, nil
	}
	if rows, err = tx.Query(ctx, invalidQuery); err != nil {
		return f, fmt.Errorf("look for invalid indexes: %w", err)
	}
	if f.invalid, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return f, fmt.Errorf("look for invalid indexes: %w", err)
	}
	return f, nil
}
