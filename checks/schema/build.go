package schema

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// CREATE INDEX CONCURRENTLY is no transaction: whatever ends it leaves an index that is not valid, which costs time and is of no
// use. So it is an operation, which drops what it leaves, and not a mere statement.
var operations = map[string]doctor.OperationFunc{opBuild: build, opDrop: drop}

const (
	opBuild = "build-index"
	opDrop  = "drop-index"

	begun = "begun" // the token of one that may have begun to build: from then on a valid index is its own work
)

// mark is what a build keeps of itself, in one row: that it has begun, and which index it makes. Putting it back drops no other.
type mark struct {
	OID uint32 `json:"oid"` // 0: not known yet
}

func params(label string, k task) map[string]string {
	return map[string]string{
		"database": label, "schema": k.Place.Schema, "table": k.Place.Name, "index": k.Index.Name, "definition": k.Index.Def,
		"unique": strconv.FormatBool(k.Index.Unique), "drop": strconv.FormatBool(k.Drop), "admin": strconv.FormatBool(k.admin),
		"disk": fmt.Sprint(k.disk()),
	}
}

// builder is one execution of an operation.
type builder struct {
	db    *doctor.Database // by the login that may
	dir   string           // the server's data directory, where it is on this machine
	place place
	index Index
	drop  bool
	disk  int64
	host  doctor.OperationHost
	conn  *pgx.Conn
}

// newBuilder opens the session.
func newBuilder(ctx context.Context, t *doctor.Target, step doctor.OperationStep, h doctor.OperationHost) (*builder, error) {
	p := step.Params
	db := t.Database(p["database"])
	if db == nil {
		return nil, doctor.Unchanged("The plan is for the database entry %q, which is no longer configured.", p["database"])
	}
	disk, err := strconv.ParseInt(p["disk"], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read the parameter disk: %w", err)
	}
	b := &builder{
		db: db, dir: db.DataDir, host: h, drop: p["drop"] == "true", disk: disk,
		place: place{p["table"], &Table{Schema: p["schema"]}},
		index: Index{Name: p["index"], Def: p["definition"], Unique: p["unique"] == "true"},
	}
	if p["admin"] == "true" {
		if b.db = t.AdminIn(db); b.db == nil {
			return nil, doctor.Unchanged("There is no administrator's connection to %s.", db.Where())
		}
	}
	return b, b.open(ctx)
}

// settings are those of a session that builds: nothing but the administrator ends it.
var settings = [][2]string{
	{"statement_timeout", "0"}, {"lock_timeout", "0"}, {"idle_session_timeout", "0"}, {"idle_in_transaction_session_timeout", "0"},
	{"transaction_timeout", "0"}, {"default_transaction_read_only", "off"}, {"default_transaction_isolation", "read committed"}, {"jit", "off"},
}

func (b *builder) open(ctx context.Context) error {
	conn, err := pgdb.Connect(ctx, b.db.Settings, b.db.Options())
	if err != nil {
		return fmt.Errorf("connect to %s: %w", b.db.Where(), err)
	}
	for _, s := range settings { // some are of newer servers
		if _, err := conn.Exec(ctx, `SELECT set_config(name, $2, false) FROM pg_settings WHERE name = $1`, s[0], s[1]); err != nil {
			pgdb.Close(conn)
			return fmt.Errorf("prepare the session: %w", err)
		}
	}
	b.conn = conn
	return nil
}

// standing is what there is of the index's name.
type standing struct {
	There, Valid bool
	Busy         bool // somebody is building or dropping it
	Owned        bool // by a constraint
	Same         bool // it is the index that is wanted, or what was to become it
	OID          uint32
}

const standingQuery = `SELECT i.indisvalid AND i.indisready, EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'relation' AND l.pid <> pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.mode IN ('ShareUpdateExclusiveLock', 'AccessExclusiveLock')
    AND (l.relation = i.indexrelid OR l.relation = i.indrelid AND EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.pid = l.pid))),
  EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')),
  t.relname::text, i.indisunique, pg_get_indexdef(i.indexrelid), i.indexrelid
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = x.relnamespace
WHERE n.nspname = $1 AND x.relname = $2`

func (b *builder) look(ctx context.Context) (s standing, err error) {
	var table, def string
	var unique bool
	err = b.conn.QueryRow(ctx, standingQuery, b.place.Schema, b.index.Name).Scan(&s.Valid, &s.Busy, &s.Owned, &table, &unique, &def, &s.OID)
	if errors.Is(err, pgx.ErrNoRows) {
		return standing{}, nil
	}
	if err != nil {
		return s, fmt.Errorf("look for the index %s: %w", b.index.Name, err)
	}
	s.There = true
	s.Same = table == b.place.Name && unique == b.index.Unique && indexDef(def) == b.index.Def
	return s, nil
}

// busyPatience is how long a session that a killed doctor has left may take to end.
const busyPatience = 30

// settled is what there is once nobody is at work on it.
func (b *builder) settled(ctx context.Context) (s standing, err error) {
	for range busyPatience {
		if s, err = b.look(ctx); err != nil || !s.Busy {
			return s, err
		}
		b.host.Progress(doctor.Progress{Text: "waiting for another session to leave " + b.index.Name})
		if err := pause(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Second):
		return nil
	}
}

// takenQuery tells whether another session builds an index of the table concurrently. It takes no part in a transaction.
const takenQuery = `SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_progress_create_index p ON p.pid = l.pid
  WHERE l.locktype = 'relation' AND l.pid <> pg_backend_pid() AND l.relation = to_regclass($1) AND l.mode = 'ShareUpdateExclusiveLock'
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))`

// freePatience is how long, in seconds, another's build on the table is waited for.
var freePatience = 300

// free waits until nobody else builds an index of the table, and reports whether that is so. Who merely queued for the table
// behind such a build would end it: that waits for older snapshots, and a statement that waits for a lock has one; the server
// sees a deadlock, and the build, which mostly is Synapse's, fails.
func (b *builder) free(ctx context.Context) (bool, error) {
	for waited := 0; ; waited++ {
		var taken bool
		if err := b.conn.QueryRow(ctx, takenQuery, b.place.sql()).Scan(&taken); err != nil {
			return false, fmt.Errorf("look for other builds on %s: %w", b.place.Name, err)
		}
		if !taken || waited >= freePatience {
			return !taken, nil
		}
		b.host.Progress(doctor.Progress{Text: "waiting for another session, which builds an index of " + b.place.Name})
		if err := pause(ctx); err != nil {
			return false, err
		}
	}
}

// alone is free, and refuses where it is in vain.
func (b *builder) alone(ctx context.Context) error {
	free, err := b.free(ctx)
	if err == nil && !free {
		return doctor.Unchanged("Another session, mostly Synapse's, is building an index of %s. Wait until it is finished, and run this "+
			"again: SELECT * FROM pg_stat_progress_create_index", b.place.Name)
	}
	return err
}

// losesRows reports whether a server of this version can leave rows out of an index that it builds concurrently.
func losesRows(version int) bool { return version >= 140000 && version <= 140003 }

// sound refuses servers that can't build it right.
func (b *builder) sound(ctx context.Context) error {
	var version int
	if err := b.conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&version); err != nil {
		return fmt.Errorf("read the version of the server: %w", err)
	}
	return b.soundOn(version)
}

func (b *builder) soundOn(version int) error {
	if !losesRows(version) {
		return nil
	}
	return doctor.Unchanged("PostgreSQL 14.%d can leave rows out of an index that it builds concurrently, so %s is not built: update "+
		"PostgreSQL to 14.4 or newer first.", version%10000, b.index.Name)
}

// note keeps which index it is that is built; 0 while it is not known.
func (b *builder) note(ctx context.Context, oid uint32) error {
	text, err := json.Marshal(mark{oid})
	if err != nil {
		return err
	}
	return b.host.Save(ctx, begun, []doctor.SavedRow{{Table: b.place.Name, JSON: string(text)}})
}

// noted is what was kept; it has not begun where there is nothing.
func (b *builder) noted(ctx context.Context) (m mark, hasBegun bool, err error) {
	err = b.host.Rows(ctx, func(r doctor.SavedRow) error {
		hasBegun = true
		return json.Unmarshal([]byte(r.JSON), &m)
	})
	if err != nil {
		err = fmt.Errorf("read what was kept of %s: %w", b.index.Name, err)
	}
	return m, hasBegun, err
}

func (b *builder) dropStatement() string {
	return "DROP INDEX CONCURRENTLY IF EXISTS " + ident(b.place.Schema, b.index.Name)
}

// build makes an index. Everything that can speak against it is looked at before anything is changed.
func build(ctx context.Context, t *doctor.Target, step doctor.OperationStep, resume string, h doctor.OperationHost) error {
	b, err := newBuilder(ctx, t, step, h)
	if err != nil {
		return err
	}
	defer func() { pgdb.Close(b.conn) }()
	s, err := b.settled(ctx)
	if err != nil {
		return err
	}
	switch {
	case s.Busy:
		return doctor.Unchanged("Somebody else is building or dropping the index %s. Wait for that, and run the check again.", b.index.Name)
	case s.There && !s.Same:
		return doctor.Unchanged("Another index has the name %s. Rename it, and run this again.", b.index.Name)
	case s.There && s.Valid && resume == begun:
		if m, _, err := b.noted(ctx); err != nil || m.OID != 0 {
			return err
		}
		return b.note(ctx, s.OID)
	case s.There && s.Valid:
		return doctor.Unchanged("The index %s is there now. Run the check again.", b.index.Name)
	case s.There && (s.Owned || !b.drop && resume != begun):
		return doctor.Unchanged("An index %s that is not valid is there now. Run the check again.", b.index.Name)
	}
	// Synapse may begin to build one while the rows are counted, so the table must be free before and after.
	for _, may := range []func(context.Context) error{b.sound, b.room, b.alone, b.once, b.alone} {
		if err := may(ctx); err != nil {
			return err
		}
	}
	return b.make(ctx, s.There)
}

// make builds it, in place of one that is not valid where there is one.
func (b *builder) make(ctx context.Context, instead bool) error {
	if err := b.note(ctx, 0); err != nil {
		return err
	}
	if instead {
		if _, err := b.conn.Exec(ctx, b.dropStatement()); err != nil {
			return fmt.Errorf("drop what an earlier build has left of %s: %w", b.index.Name, err)
		}
		if err := b.alone(ctx); err != nil {
			if u, is := errors.AsType[*doctor.UnchangedError](err); is { // something has changed
				err = errors.New(u.Reason)
			}
			return fmt.Errorf("%s, which was not valid, is dropped: %w", b.index.Name, err)
		}
	}
	stop := b.watch(ctx)
	_, err := b.conn.Exec(ctx, createIndex(b.place, b.index))
	stop()
	if err != nil {
		return b.failed(ctx, err)
	}
	s, err := b.look(ctx)
	if err != nil {
		return err
	}
	return b.note(ctx, s.OID)
}

// room refuses where the disk can be seen, and has not enough of it.
func (b *builder) room(ctx context.Context) error {
	if err := b.measure(ctx); err != nil {
		return err
	}
	var fs syscall.Statfs_t
	if b.dir == "" || b.disk == 0 || syscall.Statfs(b.dir, &fs) != nil {
		return nil
	}
	if free := int64(fs.Bavail) * int64(fs.Bsize); free < b.disk {
		return doctor.Unchanged("The index %s needs about %s of disk, and %s has %s. Make room, and run this "+
			"again.", b.index.Name, size(b.disk), b.dir, size(free))
	}
	return nil
}

// measure takes half of the table for what an index needs, where the server has not counted the rows.
func (b *builder) measure(ctx context.Context) error {
	if b.disk > 0 {
		return nil
	}
	err := b.conn.QueryRow(ctx, `SELECT coalesce(pg_relation_size(to_regclass($1)), 0) / 2`, b.place.sql()).Scan(&b.disk)
	if err != nil {
		return fmt.Errorf("read the size of %s: %w", b.place.Name, err)
	}
	return nil
}

// once refuses where a key is there twice. Indexes are left out of account: one in a wrong order hides what is there.
func (b *builder) once(ctx context.Context) error {
	query := duplicates(b.place.sql(), b.index)
	if query == "" {
		return nil
	}
	b.host.Progress(doctor.Progress{Text: "looking for keys that are there twice in " + b.place.Name})
	var n int
	err := pgx.BeginTxFunc(ctx, b.conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off`); err != nil {
			return err
		}
		return tx.QueryRow(ctx, query).Scan(&n)
	})
	if err != nil {
		return fmt.Errorf("look for keys that are there twice in %s: %w", b.place.Name, err)
	}
	if n > 0 {
		columns := strings.Trim(keys(b.index.Def), "()")
		return doctor.Unchanged("In %s %s there twice or more, so %s can't be built. Decide about the rows first: SELECT %s, "+
			"count(*) FROM %s GROUP BY %[4]s HAVING count(*) > 1",
			b.place.Name, several(n), b.index.Name, columns, b.place.sql())
	}
	return nil
}

func several(n int) string {
	switch {
	case n == 1:
		return "1 key is"
	case n >= 1000:
		return "1000 keys or more are"
	}
	return fmt.Sprintf("%d keys are", n)
}

// cleanPatience is how long dropping what a failed build left may take after the administrator has given up waiting.
const cleanPatience = time.Minute

// failed drops what the build has left, and says why it failed.
func (b *builder) failed(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanPatience)
	defer cancel()
	answered, _ := errors.AsType[*pgconn.PgError](cause)
	if b.conn.IsClosed() {
		if err := b.open(ctx); err != nil {
			return fmt.Errorf("build %s: %w (what it may have left could not be dropped: %w)", b.index.Name, cause, err)
		}
	}
	s, err := b.settled(ctx)
	free := true
	if err == nil && s.There && s.Same && !s.Valid && !s.Busy {
		if free, err = b.free(ctx); free && err == nil {
			_, err = b.conn.Exec(ctx, b.dropStatement())
		}
	}
	switch {
	case err != nil || s.Busy || !free:
		return errors.Join(fmt.Errorf("build %s: %w; it may have left an index that is not valid: %s", b.index.Name, cause, b.dropStatement()), err)
	case answered == nil:
		return fmt.Errorf("build %s: %w", b.index.Name, cause)
	}
	why := answered.Message
	if answered.Code == "23505" { // the detail has the key, which may be a secret
		why = "a key is there twice"
	}
	return doctor.Unchanged("The server could not build %s: %s (SQLSTATE %s). What it left was dropped.", b.index.Name, why, answered.Code)
}

const progressQuery = `SELECT phase, CASE WHEN tuples_total > 0 THEN tuples_done ELSE blocks_done END, CASE WHEN tuples_total > 0 THEN tuples_total ELSE blocks_total END,
  CASE WHEN tuples_total > 0 THEN 'rows' ELSE 'pages' END, index_relid FROM pg_stat_progress_create_index WHERE pid = $1`

// watch tells how far the server has come, from a session of its own, until it is stopped. It notes which index it is as soon
// as that can be seen: whatever ends this program, the server may finish it.
func (b *builder) watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	pid := b.conn.PgConn().PID()
	go func() {
		defer close(done)
		var conn *pgx.Conn
		var oid, known uint32
		defer func() {
			if conn != nil {
				pgdb.Close(conn)
			}
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			if conn == nil {
				var err error
				if conn, err = pgdb.Connect(ctx, b.db.Settings, b.db.Options()); err != nil {
					return // it is built all the same
				}
			}
			p := doctor.Progress{}
			if err := conn.QueryRow(ctx, progressQuery, pid).Scan(&p.Text, &p.Done, &p.Total, &p.Unit, &oid); err == nil {
				b.host.Progress(p)
				if oid != known && b.note(ctx, oid) == nil {
					known = oid
				}
			} else if !errors.Is(err, pgx.ErrNoRows) {
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// drop takes an index back that was built, and no other.
func drop(ctx context.Context, t *doctor.Target, step doctor.OperationStep, _ string, h doctor.OperationHost) error {
	b, err := newBuilder(ctx, t, step, h)
	if err != nil {
		return err
	}
	defer func() { pgdb.Close(b.conn) }()
	m, hasBegun, err := b.noted(ctx)
	if err != nil || !hasBegun {
		return err
	}
	s, err := b.settled(ctx)
	switch {
	case err != nil:
		return err
	case !s.There:
		return nil
	case s.Owned:
		return doctor.Unchanged("The index %s belongs to a constraint by now: it stays.", b.index.Name)
	case !s.Same || m.OID != 0 && m.OID != s.OID:
		return doctor.Unchanged("The index %s is not the one that was built: it stays.", b.index.Name)
	case s.Busy:
		return doctor.Unchanged("Somebody is at work on the index %s. Run this again later.", b.index.Name)
	case s.Valid && m.OID == 0:
		return doctor.Unchanged("It can't be told whether the index %s is the one that was begun, so it stays. Should it go, drop it: %s",
			b.index.Name, b.dropStatement())
	}
	if err := b.alone(ctx); err != nil {
		return err
	}
	if _, err := b.conn.Exec(ctx, b.dropStatement()); err != nil {
		return fmt.Errorf("drop %s: %w", b.index.Name, err)
	}
	return nil
}
