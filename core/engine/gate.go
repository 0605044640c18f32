package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// Refusal is why a plan was not begun. Nothing has changed.
type Refusal struct{ Reason string }

func (r *Refusal) Error() string { return r.Reason }

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

// conn is the part of a session that the gates use.
type conn interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// openWriter opens the session in which a plan is applied; nil for a plan that changes no database.
func (e *Engine) openWriter(ctx context.Context, p doctor.Plan) (*pgx.Conn, error) {
	if p.Database == "" || p.Expects == doctor.ExpectAbsent {
		return nil, nil
	}
	d := e.Target.Database(p.Database)
	if d == nil || d.Engine != doctor.Postgres {
		return nil, nil
	}
	if shuts(p) {
		return nil, nil // the doctor has no session there but the operation's own
	}
	if needsAdmin(p) {
		return e.connectAdmin(ctx, p.Database)
	}
	c, err := pgdb.Connect(ctx, d.Settings, d.Options())
	if err != nil {
		return nil, refuse("no connection to %s: %v", d.Where(), err)
	}
	if err := readyToWrite(ctx, c); err != nil {
		c.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	return c, nil
}

// readyToWrite refuses a pooler, behind which nobody can see who else is connected, and whose sessions are not ours to
// lock in. It shows itself by another process than the one that answered the login.
func readyToWrite(ctx context.Context, c *pgx.Conn) error {
	var pid uint32
	// The session may wait for an answer longer than the role lets one be idle. And what the journal calls done must be on the
	// server's disk: where commits don't wait for that, a crash would take back what was said to be applied.
	if err := c.QueryRow(ctx, `SELECT pg_backend_pid() FROM (SELECT count(set_config(name, CASE name WHEN 'idle_session_timeout' THEN '0' ELSE 'on' END, false))
		FROM pg_settings WHERE name = 'idle_session_timeout' OR name = 'synchronous_commit' AND setting = 'off') s`).Scan(&pid); err != nil {
		return fmt.Errorf("prepare the session: %w", err)
	}
	if pid != c.PgConn().PID() {
		return refuse("the connection goes through a pooler such as PgBouncer, behind which it can't be seen whether Synapse is stopped: connect to PostgreSQL itself, with a configuration that names its host and port (a further -c FILE with a database section replaces the one before)")
	}
	return nil
}

// identityGate makes sure that the target is what the plan expects.
func (e *Engine) identityGate(ctx context.Context, p doctor.Plan, c *pgx.Conn) error {
	d := e.Target.Database(p.Database)
	switch p.Expects {
	case doctor.ExpectNone:
		return nil
	case doctor.ExpectAbsent:
		if needsAdmin(p) {
			return e.absent(ctx, d)
		}
		err := d.Read(ctx, func(pgx.Tx) error { return nil })
		var failed *pgdb.ConnectError
		if errors.As(err, &failed) && failed.SQLSTATE == "3D000" {
			return nil
		}
		return refuse("%s is not absent, as the plan expects", d.Where())
	}
	var id synapse.Identity
	err := pgx.BeginTxFunc(ctx, c, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		id, err = synapse.Identify(ctx, tx, e.Target.ServerName)
		return err
	})
	if err != nil {
		return refuse("what is in %s could not be read: %v", d.Where(), err)
	}
	switch {
	case p.Expects == doctor.ExpectEmpty && id.ForeignUser != "":
		return refuse("%s belongs to another homeserver: it has the user %s, and server_name is %s", d.Where(), id.ForeignUser, e.Target.ServerName)
	case p.Expects == doctor.ExpectEmpty && id.Tables > 0 && !id.Ported && (!id.HasSchema || id.InUse):
		return refuse("%s is not empty, as the plan expects", d.Where())
	case p.Expects == doctor.ExpectEmpty:
		return nil
	case !id.HasSchema:
		return refuse("%s does not hold Synapse's schema", d.Where())
	case e.Target.ServerName == "":
		return refuse("without a server_name it can't be told whose database %s is: give Synapse's configuration with -c", d.Where())
	case id.ForeignUser != "":
		return refuse("%s belongs to another homeserver: it has the user %s, and server_name is %s", d.Where(), id.ForeignUser, e.Target.ServerName)
	case !id.InUse:
		return refuse("%s has no user, or no state group: it is not the database of a homeserver in use", d.Where())
	}
	return nil
}

// absent asks the server's administrator: where Synapse's role does not get in, its own attempt says nothing.
func (e *Engine) absent(ctx context.Context, d *doctor.Database) error {
	var exists bool
	err := e.Target.Admin.Read(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, d.Settings["dbname"]).Scan(&exists)
	})
	if err != nil {
		return refuse("whether there is %s could not be asked: %v", d.Where(), err)
	}
	if exists {
		return refuse("%s is not absent, as the plan expects", d.Where())
	}
	return nil
}

// preconditions makes sure of what the plan requires, just before it is begun, or gone on with.
func (a *application) preconditions(ctx context.Context, begun bool) error {
	e, p := a.engine, a.plan
	for _, s := range p.Steps {
		if s.EditFile == nil {
			continue
		}
		if err := unix.Access(s.EditFile.Path, unix.W_OK); err != nil {
			return refuse("%s can't be written: %v. Run this as a user who may write it", s.EditFile.Path, err)
		}
	}
	for _, r := range p.Requires {
		switch r {
		case doctor.RequireStopped:
			if err := e.synapseStopped(ctx, p); err != nil {
				return err
			}
		case doctor.RequireAdmin:
			if err := e.adminGate(p); err != nil {
				return err
			}
		case doctor.RequireDisk:
			if begun {
				continue // what it needs is in part what it has used
			}
			if err := a.diskFree(ctx); err != nil {
				return err
			}
		case doctor.RequireShut:
			if err := a.mayShut(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// livingSynapse returns the process that a pid_file names, if it lives; 0 otherwise. A process whose command line can be
// read and does not mention Synapse has only inherited the number.
func livingSynapse(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0
	}
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return 0
	}
	command, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err == nil && len(command) > 0 && !strings.Contains(strings.ToLower(string(command)), "synapse") {
		return 0
	}
	return pid
}

// diskFree refuses when the server's disk is too full, or can't be looked at.
func (a *application) diskFree(ctx context.Context) error {
	p := a.plan
	d := a.engine.Target.Database(p.Database)
	c, err := a.anySession(ctx)
	if err != nil {
		return err
	}
	if c == nil || !local(d) {
		return refuse("it needs %d MiB of free disk on the database's host, which can't be seen from here: run synapse-doctor there", p.DiskBytes>>20)
	}
	var dir string
	if err := c.QueryRow(ctx, `SELECT coalesce(current_setting('data_directory', true), '')`).Scan(&dir); err != nil || dir == "" {
		return refuse("it needs %d MiB of free disk, and this role may not ask the server where its data is", p.DiskBytes>>20)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return refuse("it needs %d MiB of free disk, and the disk of %s could not be looked at: %v", p.DiskBytes>>20, dir, err)
	}
	if free := int64(fs.Bavail) * int64(fs.Bsize); free < p.DiskBytes {
		return refuse("it needs %d MiB of free disk, and %s has %d MiB", p.DiskBytes>>20, dir, free>>20)
	}
	return nil
}

// local reports whether a database is reached by a socket or on a loopback address.
func local(d *doctor.Database) bool {
	host, _ := address(d)
	if host == "" || strings.HasPrefix(host, "/") || host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
