package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// makeLocales compiles locales of this machine's glibc into a directory of the cluster's own, which the server alone looks
// into (LOCPATH): a test depends on no locale that the machine has generated.
func (s *Server) makeLocales(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	dir := filepath.Join(s.dir, "locales")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		source, _, _ := strings.Cut(name, ".")
		out, err := exec.CommandContext(ctx, "localedef", "-i", source, "-f", "UTF-8", filepath.Join(dir, name)).CombinedOutput()
		if _, made := os.Stat(filepath.Join(dir, name, "LC_COLLATE")); err != nil && made != nil { // a warning is status 1
			return fmt.Errorf("localedef %s (Debian's package locales has what it reads): %w\n%s", name, errors.Join(err, made), out)
		}
	}
	s.locales = dir
	return nil
}

// Corrupt makes a database that was made and filled in another locale pass for one in C, as a well-known packaging does: by
// editing the catalog. The recorded collation version is left behind, and from the next session on every index over text
// is in the wrong order.
func (db *DB) Corrupt(ctx context.Context) error {
	return db.catalog(ctx, `UPDATE pg_database SET datcollate = 'C', datctype = 'C' WHERE datname = $1`)
}

// Drift makes the server believe that the database was made with another version of the locale library.
// PostgreSQL 14 records none.
func (db *DB) Drift(ctx context.Context) error {
	return db.catalog(ctx, `UPDATE pg_database SET datcollversion = '2.28' WHERE datname = $1`)
}

func (db *DB) catalog(ctx context.Context, statement string) error {
	conn, err := db.Server.adminConn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement, db.Name); err != nil {
		return fmt.Errorf("edit the catalog's row of %s: %w", db.Name, err)
	}
	return nil
}
