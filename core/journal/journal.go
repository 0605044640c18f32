package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

// Journal is an open journal. It may be used by several goroutines.
type Journal struct {
	dir     string
	db      *sql.DB
	version int // of its format
}

// schemaVersion is stored in PRAGMA user_version.
const schemaVersion = 3

const schema = `
CREATE TABLE runs (
  id       TEXT PRIMARY KEY,
  command  TEXT NOT NULL,           -- check, fix, undo
  version  TEXT NOT NULL,           -- the doctor's
  server   TEXT NOT NULL,           -- server_name
  started  INTEGER NOT NULL,        -- Unix milliseconds
  ended    INTEGER,
  status   TEXT NOT NULL            -- running, done, failed, interrupted
) STRICT;
CREATE TABLE findings (
  run      TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
  code     TEXT NOT NULL,
  severity TEXT NOT NULL,
  database TEXT NOT NULL,
  kind     TEXT NOT NULL,
  name     TEXT NOT NULL,
  summary  TEXT NOT NULL
) STRICT;
CREATE INDEX findings_run ON findings(run);
CREATE TABLE examined (             -- which checks a recorded run could examine: the others' findings are not resolved by it
  run      TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
  check_id TEXT NOT NULL,
  status   TEXT NOT NULL
) STRICT;
CREATE TABLE plans (
  id       INTEGER PRIMARY KEY,
  run      TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
  plan_id  TEXT NOT NULL,
  target   TEXT NOT NULL,           -- key of the lock: system identifier and database
  plan     TEXT NOT NULL,           -- JSON
  status   TEXT NOT NULL,           -- applying, applied, failed, undoing, undone
  reason   TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX plans_run ON plans(run);
CREATE TABLE steps (
  plan     INTEGER NOT NULL REFERENCES plans(id) ON DELETE CASCADE,
  step     INTEGER NOT NULL,
  status   TEXT NOT NULL,           -- planned, started, applied, failed, undoing, undone
  note     TEXT NOT NULL DEFAULT '',
  xid      TEXT NOT NULL DEFAULT '',-- the transaction that carries it
  resume   TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (plan, step)
) STRICT;
CREATE TABLE saved_rows (
  id       INTEGER PRIMARY KEY,
  plan     INTEGER NOT NULL,
  step     INTEGER NOT NULL,
  tbl      TEXT NOT NULL,
  json     TEXT NOT NULL,
  FOREIGN KEY (plan, step) REFERENCES steps(plan, step) ON DELETE CASCADE
) STRICT;
CREATE INDEX saved_rows_step ON saved_rows(plan, step);
CREATE TABLE saved_files (
  plan     INTEGER NOT NULL,
  step     INTEGER NOT NULL,
  path     TEXT NOT NULL,           -- of the file itself, links resolved
  backup   TEXT NOT NULL,           -- relative to the state directory
  before   TEXT NOT NULL,           -- SHA-256
  after    TEXT NOT NULL,
  PRIMARY KEY (plan, step),
  FOREIGN KEY (plan, step) REFERENCES steps(plan, step) ON DELETE CASCADE
) STRICT;
PRAGMA user_version = 1;
`

// upgrades bring a journal from one version to the next: the first from 1 to 2.
var upgrades = []string{
	// token is of the save: one that is repeated replaces its rows.
	`ALTER TABLE saved_rows ADD COLUMN token TEXT NOT NULL DEFAULT ''; CREATE INDEX saved_rows_token ON saved_rows(plan, step, token);`,
	`CREATE TABLE measures (
  run      TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
  check_id TEXT NOT NULL,
  database TEXT NOT NULL,
  kind     TEXT NOT NULL,           -- of the object, and its name
  name     TEXT NOT NULL,
  measure  TEXT NOT NULL,
  value    REAL NOT NULL,
  unit     TEXT NOT NULL
) STRICT; CREATE INDEX measures_run ON measures(run, check_id);`,
}

// ErrNoJournal is returned by [OpenExisting] where nothing was ever recorded.
var ErrNoJournal = errors.New("no journal")

// Open opens the journal in dir, making both when they are absent.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	if err := private(dir); err != nil {
		return nil, err
	}
	// SQLite gives its -wal and -shm files the mode of the database file.
	f, err := os.OpenFile(filepath.Join(dir, fileName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	f.Close()
	return open(dir)
}

// OpenReading opens the journal in dir without writing a byte to it, or returns [ErrNoJournal]. A journal of an older
// format is read as one in which that was not kept which it does not know.
func OpenReading(dir string) (*Journal, error) {
	path := filepath.Join(dir, fileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoJournal)
	} else if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	// A journal that nobody has open is one file. To read the -wal of another doctor, SQLite needs its -shm, which is there too.
	how := "mode=ro"
	if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		how = "immutable=1"
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+how+"&_pragma=busy_timeout(10000)&_pragma=query_only(ON)")
	if err != nil {
		return nil, fmt.Errorf("open the journal %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	j := &Journal{dir: dir, db: db}
	if err := db.QueryRow(`PRAGMA user_version`).Scan(&j.version); err != nil {
		db.Close()
		return nil, fmt.Errorf("open the journal %s: %w", path, err)
	}
	if j.version > schemaVersion {
		db.Close()
		return nil, fmt.Errorf("open the journal %s: %w", path, newer(j.version))
	}
	return j, nil
}

func newer(version int) error {
	return fmt.Errorf("it was written by a newer synapse-doctor (format %d, this one knows %d): upgrade synapse-doctor", version, schemaVersion)
}

// OpenExisting opens the journal in dir, or returns [ErrNoJournal].
func OpenExisting(dir string) (*Journal, error) {
	if _, err := os.Stat(filepath.Join(dir, fileName)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoJournal)
	} else if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	return open(dir)
}

const fileName = "journal.db"

// private refuses a state directory that others could read or replace.
func private(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at the state directory: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("state directory %s is open to other users (mode %04o): run chmod 700 %s", dir, info.Mode().Perm(), dir)
	}
	return nil
}

func open(dir string) (*Journal, error) {
	path := filepath.Join(dir, fileName)
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(ON)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open the journal %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	j := &Journal{dir: dir, db: db, version: schemaVersion}
	if err := j.migrate(); err != nil {
		db.Close()
		return nil, fmt.Errorf("open the journal %s: %w", path, err)
	}
	return j, nil
}

func (j *Journal) migrate() error {
	tx, err := j.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var version int
	if err := tx.QueryRow(`PRAGMA user_version`).Scan(&version); err != nil {
		return err
	}
	switch {
	case version == schemaVersion:
		return nil
	case version > schemaVersion:
		return newer(version)
	}
	if version == 0 {
		if _, err := tx.Exec(schema); err != nil {
			return err
		}
		version = 1
	}
	for ; version < schemaVersion; version++ {
		if _, err := tx.Exec(upgrades[version-1]); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(fmt.Sprintf(`PRAGMA user_version = %d`, schemaVersion)); err != nil {
		return err
	}
	return tx.Commit()
}

// Close closes the journal.
func (j *Journal) Close() error { return j.db.Close() }

// Dir is the state directory.
func (j *Journal) Dir() string { return j.dir }

// inTx runs fn in a transaction that is on disk when inTx returns nil.
func (j *Journal) inTx(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := j.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	defer tx.Rollback()
	if err := fn(tx); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

func millis(t time.Time) int64 { return t.UnixMilli() }

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms) }
