package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// synapseStopped refuses while a session of Synapse's role is open, or a process named in a pid_file lives. Where the plan
// shuts the database, nobody's session may be open.
func (e *Engine) synapseStopped(ctx context.Context, p doctor.Plan) error {
	for _, path := range e.PIDFiles {
		if pid := livingSynapse(path); pid > 0 {
			return refuse("Synapse is running: process %d of %s. Stop it and every worker first (systemctl stop matrix-synapse), then run this again", pid, path)
		}
	}
	d := e.Target.Database(p.Database)
	if d == nil || d.Engine != doctor.Postgres {
		return nil
	}
	ours, err := e.sessions(ctx, p)
	for range lingering {
		if err != nil || len(ours) == 0 {
			break
		}
		if err = sleep(ctx, lingeringPause); err == nil {
			ours, err = e.sessions(ctx, p)
		}
	}
	if err != nil {
		return fmt.Errorf("look for open sessions: %w", err)
	}
	if len(ours) == 0 {
		return e.noteOthers(ctx, p)
	}
	found := e.clean(strings.Join(ours[:min(len(ours), 5)], "; ") + more(len(ours)-5))
	if shuts(p) {
		return refuse("%s must be left by everybody while it is mended, and there are still: %s. Stop Synapse and every worker (systemctl stop matrix-synapse), a PgBouncer, exporters and whatever else is connected, then run this again",
			d.Where(), found)
	}
	return refuse("Synapse, or something else with its login, is connected to %s: %s. Stop Synapse and every worker first (systemctl stop matrix-synapse; a PgBouncer keeps its idle connections until it is told PAUSE or stopped), then run this again",
		d.Where(), found)
}

// A server takes a moment to notice that a process which has just been stopped is gone.
const (
	lingering      = 10
	lingeringPause = 100 * time.Millisecond
)

// sessionsQuery lists the sessions on a database: those of one role, or everybody's.
const sessionsQuery = `SELECT pid, coalesce(application_name, ''), coalesce(host(client_addr), ''), coalesce(state, ''), usename::text
FROM pg_stat_activity
WHERE datname = coalesce($2, current_database()) AND ($4 OR usename = coalesce($3, session_user)) AND pid <> pg_backend_pid()
  AND backend_type = 'client backend' AND coalesce(application_name, '') <> ALL ($1)
ORDER BY backend_start, pid`

// sessions describes the open sessions that keep a plan from its database, the doctor's own left out: those of the role
// that the doctor, and so Synapse, logs in with; everybody's when the plan shuts the database.
func (e *Engine) sessions(ctx context.Context, p doctor.Plan) ([]string, error) {
	names, err := e.ownNames(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	err = e.asLoginOf(ctx, p, func(tx pgx.Tx, database, role *string) error {
		rows, err := tx.Query(ctx, sessionsQuery, names, database, role, shuts(p))
		if err != nil {
			return err
		}
		var pid int
		var application, address, state, user string
		_, err = pgx.ForEachRow(rows, []any{&pid, &application, &address, &state, &user}, func() error {
			text := describeSession(pid, application, address, state)
			if shuts(p) {
				text += fmt.Sprintf(" (role %s)", user)
			}
			found = append(found, text)
			return nil
		})
		return err
	})
	return found, err
}

// othersQuery counts other roles' sessions. Of those a plain role sees only the database and the name of the role.
const othersQuery = `SELECT coalesce(string_agg(format('%s (%s)', usename, n), ', ' ORDER BY usename), '')
FROM (SELECT usename, count(*) AS n FROM pg_stat_activity
  WHERE datname = coalesce($1, current_database()) AND usename <> coalesce($2, session_user) AND pid <> pg_backend_pid() GROUP BY usename) others`

// noteOthers names the other roles that are connected. They are no reason to refuse: exporters and backups are at home here.
func (e *Engine) noteOthers(ctx context.Context, p doctor.Plan) error {
	if shuts(p) {
		return nil
	}
	var others string
	err := e.asLoginOf(ctx, p, func(tx pgx.Tx, database, role *string) error {
		return tx.QueryRow(ctx, othersQuery, database, role).Scan(&others)
	})
	if err != nil {
		return fmt.Errorf("look for open sessions: %w", err)
	}
	if others != "" && others != e.noted {
		e.Notice(e.clean("other roles have sessions on the database, which is no hindrance: " + others))
		e.noted = others
	}
	return nil
}

// asLoginOf asks as the login with which a plan's sessions can be seen: Synapse's own, or the administrator's where the
// plan needs it: Synapse's may be shut out. The database and the role are then told, otherwise they are the login's.
func (e *Engine) asLoginOf(ctx context.Context, p doctor.Plan, ask func(tx pgx.Tx, database, role *string) error) error {
	d := e.Target.Database(p.Database)
	if !needsAdmin(p) {
		return asLogin(ctx, d, func(tx pgx.Tx) error { return ask(tx, nil, nil) })
	}
	name, role := d.Settings["dbname"], d.Settings["user"]
	return asLogin(ctx, e.Target.Admin, func(tx pgx.Tx) error { return ask(tx, &name, &role) })
}

// asLogin asks as the role that logged in. Where ALTER ROLE … SET role makes another of it, that one may not be allowed to
// see what the login's own sessions are doing.
func asLogin(ctx context.Context, d *doctor.Database, ask func(pgx.Tx) error) error {
	return d.Read(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL ROLE NONE`); err != nil {
			return err
		}
		return ask(tx)
	})
}

// ownNames are the application names of this run and of the ones in the journal, whose sessions may linger. Those of a
// check are not among them: a pooler may have lent Synapse the connection that a check has used.
func (e *Engine) ownNames(ctx context.Context) ([]string, error) {
	runs, err := e.journal.Runs(ctx, 100)
	if err != nil {
		return nil, err
	}
	names := []string{doctor.ApplicationName(e.Target.RunID)}
	for _, r := range runs {
		if r.Command != "check" {
			names = append(names, doctor.ApplicationName(r.ID))
		}
	}
	return names, nil
}

func describeSession(pid int, application, address, state string) string {
	if application == "" {
		application = "without an application_name"
	}
	if address == "" {
		address = "the local socket"
	}
	return fmt.Sprintf("session %d %s from %s, %s", pid, application, address, state)
}

func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf("; and %d more", n)
}
