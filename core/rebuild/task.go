package rebuild

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// task is one call of an operation.
type task struct {
	w      Work
	p      params
	h      doctor.OperationHost
	target *doctor.Target
	left   map[string][]string // rows that are not carried: their places in the old database, by the table's qualified name
	admin  *doctor.Database    // the administrator's login, to the database where it was given
	db     *doctor.Database    // the entry of the configuration
	main   *pgx.Conn           // the administrator's session there; holds the lock of this work
	said   sync.Mutex          // one report of progress at a time
	memory string              // options of a session that builds indexes
}

// open starts a call. Its errors have changed nothing.
func (w Work) open(ctx context.Context, t *doctor.Target, step doctor.OperationStep, h doctor.OperationHost) (*task, error) {
	p, err := readParams(step)
	if err != nil {
		return nil, err
	}
	k := &task{w: w, p: p, h: h, target: t, admin: t.Admin, db: t.Database(p.label)}
	if k.db == nil || t.AdminIn(k.db) == nil {
		return nil, doctor.Unchanged("the rebuild needs an administrator's connection to the server of the database %s", p.database)
	}
	if t.Admin.Settings["dbname"] == p.database {
		return nil, doctor.Unchanged("the administrator's connection is to the database %s itself, which can't be renamed from inside: give --admin-dsn with dbname=postgres", p.database)
	}
	if k.main, err = k.session(ctx, t.Admin.Settings["dbname"]); err != nil {
		return nil, err
	}
	if err := k.lock(ctx); err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

// say reports progress. Several sessions of the work may do so.
func (k *task) say(p doctor.Progress) {
	k.said.Lock()
	defer k.said.Unlock()
	k.h.Progress(p)
}

func (k *task) close() { pgdb.Close(k.main) }

// session opens a session of the administrator in a database of the server. Nothing that is set for the role or the
// database ends its long statements, or changes how values are written.
func (k *task) session(ctx context.Context, database string) (*pgx.Conn, error) {
	settings := maps.Clone(k.admin.Settings)
	settings["dbname"] = database
	conn, err := pgdb.Connect(ctx, settings, k.admin.Options())
	if err != nil {
		return nil, fmt.Errorf("connect to the database %s: %w", database, err)
	}
	if _, err := conn.Exec(ctx, sessionSettings); err != nil {
		pgdb.Close(conn)
		return nil, fmt.Errorf("prepare a session in the database %s: %w", database, err)
	}
	return conn, nil
}

// What is committed is on disk, where nothing says otherwise: a crash must not take back a step that the host calls done.
// With pg_catalog alone in the search path no object of the database's owner is called by the superuser.
const sessionSettings = `SELECT count(set_config(name, v.value, false)) FROM pg_settings JOIN (VALUES ('statement_timeout', '0'),
  ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'), ('transaction_timeout', '0'), ('search_path', 'pg_catalog'),
  ('row_security', 'off'), ('default_transaction_read_only', 'off'), ('default_transaction_isolation', 'read committed'),
  ('DateStyle', 'ISO'), ('IntervalStyle', 'postgres'), ('TimeZone', 'UTC'), ('extra_float_digits', '1'), ('bytea_output', 'hex'),
  ('xmloption', 'content'), ('standard_conforming_strings', 'on'), ('default_tablespace', ''), ('temp_tablespaces', ''), ('client_min_messages', 'warning'), ('synchronous_commit', 'on')) AS v(wanted, value)
  ON lower(name) = lower(wanted) AND (name <> 'synchronous_commit' OR setting = 'off')`

// lockClass is the first half of the advisory lock; the second is the database's OID. "rbld" in ASCII.
const lockClass = 0x72626c64

const (
	lockWait  = 200 * time.Millisecond
	lockGrace = 10 * time.Second // a server notices within 5 s that a killed doctor is gone
)

// lock waits for what is left of an earlier call: a statement of a killed doctor may still run.
func (k *task) lock(ctx context.Context) error {
	for start := time.Now(); ; {
		var got bool
		if err := k.main.QueryRow(ctx, `SELECT pg_try_advisory_lock($1, $2)`, lockClass, int32(k.p.oid)).Scan(&got); err != nil {
			return fmt.Errorf("lock the rebuild of %s: %w", k.p.database, err)
		}
		if got {
			return nil
		}
		if time.Since(start) > cmp.Or(k.w.grace, lockGrace) {
			if _, err := k.main.Exec(ctx, endHolder, lockClass, int32(k.p.oid)); err != nil {
				return fmt.Errorf("end what an earlier rebuild of %s left: %w", k.p.database, err)
			}
		}
		if err := sleep(ctx, lockWait); err != nil {
			return err
		}
	}
}

const endHolder = `SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = $1::int8::oid AND l.objid = $2::int4::int8::oid AND l.objsubid = 2
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND a.application_name LIKE 'synapse-doctor/%'`

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// sqlState is the server's code for an error; empty when the server did not answer.
func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

func qualified(schema, name string) string { return pgx.Identifier{schema, name}.Sanitize() }

// literal is a text as SQL takes it while standard_conforming_strings is on.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
