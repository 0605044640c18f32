package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// server is what tells one running server from every other. Its system identifier alone does not: a standby has its
// primary's.
type server struct {
	systemID string
	started  string // seconds since 1970, to the microsecond; empty when not known
	lock     string // the content of postmaster.pid; empty when not known
	dataDir  string
}

const adminQuery = `SELECT coalesce((SELECT system_identifier::text FROM pg_control_system()), ''),
  extract(epoch FROM pg_postmaster_start_time())::text,
  coalesce((SELECT setting FROM pg_settings WHERE name = 'data_directory'), ''),
  has_function_privilege('pg_read_file(text)', 'EXECUTE')`

// examineAdmin looks for the administrator's connection, and proves for each database whether it leads to its server.
func (e *Engine) examineAdmin(ctx context.Context) {
	if e.FindAdmin && (e.Target.Admin == nil || e.foundAdmin) {
		e.Target.Admin, e.foundAdmin = e.findAdmin(ctx), true
	}
	admin := e.Target.Admin
	var s server
	var err error
	if admin != nil {
		asSocketOwner(ctx, admin)
		admin.Bind(e.Target.RunID)
		e.leaveTargets(ctx)
		err = admin.Read(ctx, func(tx pgx.Tx) error {
			var reads bool
			if err := tx.QueryRow(ctx, adminQuery).Scan(&s.systemID, &s.started, &s.dataDir, &reads); err != nil || !reads {
				return err // a query that only mentions a forbidden function is refused, whatever it does with it
			}
			return tx.QueryRow(ctx, `SELECT pg_read_file('postmaster.pid')`).Scan(&s.lock)
		})
	}
	for i, d := range e.Target.Databases {
		if d.Engine != doctor.Postgres {
			continue
		}
		x := e.examined[i]
		d.NoAdmin = ""
		switch {
		case admin == nil:
			d.NoAdmin = e.noAdmin(d)
		case err != nil:
			d.NoAdmin = fmt.Sprintf("the administrator's connection (%s) does not work: %v", admin.Where(), err)
		default:
			d.NoAdmin = e.proveServer(ctx, s, d, x)
		}
		if d.NoAdmin == "" {
			d.Meets |= doctor.NeedsAdmin
			d.SystemID = s.systemID
			if d.DataDir == "" && s.isIn(s.dataDir) {
				d.DataDir = s.dataDir
			}
		}
		d.NoAdmin = e.clean(d.NoAdmin)
	}
	if err != nil && e.foundAdmin {
		e.Target.Admin = nil // nobody has asked for it
	}
}

// leaveTargets has the administrator log in to a database that is not Synapse's own, where there is one that lets him in: what
// is shut, renamed or dropped can't be done from within.
func (e *Engine) leaveTargets(ctx context.Context) {
	admin := e.Target.Admin
	given := admin.Settings["dbname"]
	if !slices.ContainsFunc(e.Target.Databases, func(d *doctor.Database) bool { return d.Settings["dbname"] == given }) {
		return
	}
	for _, name := range []string{"postgres", "template1"} {
		settings := maps.Clone(admin.Settings)
		settings["dbname"] = name
		if c, err := pgdb.Connect(ctx, settings, admin.Options()); err == nil {
			pgdb.Close(c)
			admin.Close()
			admin.Settings = settings
			return
		}
	}
}

// isIn reports whether this machine has the server's data directory at this path: a container has it at another.
func (s server) isIn(dir string) bool {
	id, err := pgdb.SystemID(dir)
	if err != nil || id != s.systemID || s.lock == "" {
		return false
	}
	lock, err := os.ReadFile(dir + "/postmaster.pid")
	return err == nil && string(lock) == s.lock
}

// noAdmin says why no administrator's connection was found.
func (e *Engine) noAdmin(d *doctor.Database) string {
	if !e.FindAdmin {
		return "no administrator's connection was given (--admin-dsn)"
	}
	if os.Geteuid() == 0 || !local(d) {
		return "no administrator's connection was given (--admin-dsn), and no server of this machine was found to be its server"
	}
	return "no administrator's connection was given: run synapse-doctor as root or as the user postgres, or give --admin-dsn"
}

// findAdmin makes the connection that the server's own user has through the socket (peer), which root can use too.
func (e *Engine) findAdmin(ctx context.Context) *doctor.Database {
	for i, d := range e.Target.Databases {
		if d.Engine != doctor.Postgres {
			continue
		}
		s := e.examined[i].local
		if s.SocketDir == "" || s.Owner == "" {
			continue
		}
		return &doctor.Database{Label: "admin", Engine: doctor.Postgres, OSUser: s.Owner,
			Settings: pgdb.Settings{"host": s.SocketDir, "port": strconv.Itoa(s.Port), "user": s.Owner, "dbname": "postgres"}}
	}
	return nil
}

// asSocketOwner lets root connect to a socket as the user whose server has made it.
func asSocketOwner(ctx context.Context, admin *doctor.Database) {
	if os.Geteuid() != 0 || admin.OSUser != "" {
		return
	}
	endpoints, err := admin.Settings.Endpoints(ctx)
	if err != nil || len(endpoints) == 0 || endpoints[0].Socket == "" {
		return
	}
	if info, err := os.Stat(endpoints[0].Socket); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 {
			admin.OSUser = strconv.Itoa(int(stat.Uid))
		}
	}
}

// proveServer says why the administrator's server is not, or may not be, the one behind a database; empty when it is.
func (e *Engine) proveServer(ctx context.Context, s server, d *doctor.Database, x *examined) string {
	other := fmt.Sprintf("the administrator's connection (%s) leads to another server than %s", e.Target.Admin.Where(), d.Where())
	if x.started != "" { // Synapse's login works
		if x.started == s.started && (x.systemID == "" || x.systemID == s.systemID) {
			return ""
		}
		return other
	}
	if x.local.Lock != "" && s.lock != "" {
		if x.local.Lock == s.lock && x.local.SystemID == s.systemID {
			return ""
		}
		return other
	}
	theirs, err := e.Target.Admin.Settings.Endpoints(ctx)
	if err == nil {
		ours, err := d.Settings.Endpoints(ctx)
		if err == nil && len(ours) > 0 && !slices.ContainsFunc(ours, func(o pgdb.Endpoint) bool {
			return !slices.ContainsFunc(theirs, func(t pgdb.Endpoint) bool {
				return o.Socket == t.Socket && o.Addr == t.Addr && o.Port == t.Port
			})
		}) {
			return ""
		}
	}
	return fmt.Sprintf("it can't be proved that the administrator's connection (%s) leads to the server behind %s: give --admin-dsn with the very host and port that Synapse uses",
		e.Target.Admin.Where(), d.Where())
}

// findLocal finds the server of this machine that listens where Synapse connects, without logging in.
func findLocal(ctx context.Context, d *doctor.Database) pgdb.LocalServer {
	endpoints, err := d.Settings.Endpoints(ctx)
	if err != nil {
		return pgdb.LocalServer{}
	}
	for _, e := range endpoints {
		if s, err := pgdb.FindServer(e); err == nil {
			return s
		}
	}
	return pgdb.LocalServer{}
}

// adminGate makes sure that the administrator's connection leads to every server that the plan is about.
func (e *Engine) adminGate(p doctor.Plan) error {
	if e.Target.Admin == nil {
		why := "no administrator's connection was given (--admin-dsn)"
		for _, d := range e.Target.Databases {
			if d.NoAdmin != "" {
				why = d.NoAdmin
			}
		}
		return refuse("it needs an administrator's connection to the server: %s", why)
	}
	proved := false
	for _, d := range e.Target.Databases {
		if d.Engine != doctor.Postgres || !concerns(p, d.Label) {
			continue
		}
		if !d.Meets.Has(doctor.NeedsAdmin) {
			return refuse("it needs an administrator's connection to the server of %s: %s", d.Where(), d.NoAdmin)
		}
		proved = true
	}
	if !proved {
		return refuse("it needs an administrator's connection, and names no database whose server that is")
	}
	return nil
}

// concerns reports whether a plan has to do with a database.
func concerns(p doctor.Plan, label string) bool {
	if p.Database == label {
		return true
	}
	for _, s := range p.Steps {
		switch {
		case s.SQL != nil && (s.SQL.Database == label || s.SQL.Verifier != nil && s.SQL.Verifier.Password == label),
			s.EditFile != nil && s.EditFile.Password == label,
			s.Probe != nil && s.Probe.Database == label:
			return true
		}
	}
	return false
}

// needsAdmin reports whether the plan's steps on its own database are the administrator's.
func needsAdmin(p doctor.Plan) bool { return slices.Contains(p.Requires, doctor.RequireAdmin) }

// session is the one in which a statement is run.
func (a *application) session(ctx context.Context, q *doctor.SQLStep) (*pgx.Conn, error) {
	if !q.Admin || a.conn != nil && q.Database == a.plan.Database {
		if a.conn == nil {
			return nil, errors.New("the plan has no session for its statements")
		}
		return a.conn, nil
	}
	if c := a.admins[q.Database]; c != nil && !c.IsClosed() {
		return c, nil
	}
	c, err := a.engine.connectAdmin(ctx, q.Database)
	if err != nil {
		return nil, err
	}
	if err := lockDatabase(ctx, c); err != nil {
		pgdb.Close(c)
		return nil, err
	}
	if a.admins == nil {
		a.admins = map[string]*pgx.Conn{}
	}
	a.admins[q.Database] = c
	return c, nil
}

// anySession is one of the plan's own sessions: in its database, or else where the administrator logs in to; nil for a plan
// that has to do with no database.
func (a *application) anySession(ctx context.Context) (*pgx.Conn, error) {
	if a.conn != nil || !needsAdmin(a.plan) {
		return a.conn, nil
	}
	return a.session(ctx, &doctor.SQLStep{Admin: true})
}

// connectAdmin opens a session of the administrator that may write; without a label, where the administrator logs in to.
func (e *Engine) connectAdmin(ctx context.Context, label string) (*pgx.Conn, error) {
	settings, err := e.adminSettings(label)
	if err != nil {
		return nil, err
	}
	c, err := pgdb.Connect(ctx, settings, e.Target.Admin.Options())
	if err != nil {
		return nil, refuse("the administrator's connection does not work: %v", err)
	}
	if err := readyToWrite(ctx, c); err != nil {
		pgdb.Close(c)
		return nil, err
	}
	return c, nil
}

func (e *Engine) adminSettings(label string) (pgdb.Settings, error) {
	if e.Target.Admin == nil {
		return nil, refuse("it needs an administrator's connection: --admin-dsn")
	}
	if label == "" {
		return e.Target.Admin.Settings, nil
	}
	d := e.Target.Database(label)
	if d == nil {
		return nil, fmt.Errorf("there is no database %q", label)
	}
	admin := e.Target.AdminIn(d)
	if admin == nil {
		return nil, refuse("it needs an administrator's connection to the server of %s: %s", d.Where(), d.NoAdmin)
	}
	return admin.Settings, nil
}

// leaveDatabases ends the doctor's sessions in the databases themselves: one that is to be dropped must have none.
func (a *application) leaveDatabases(ctx context.Context) {
	for label, c := range a.admins {
		if label != "" {
			unlockDatabase(ctx, c)
			pgdb.Close(c)
			delete(a.admins, label)
		}
	}
	a.engine.Target.Close() // what is read next opens sessions of its own
}
