package port

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// schemaWithin is how long Synapse may take to make its schema: it takes seconds in an empty database.
const schemaWithin = 10 * time.Minute

// makeSchema has the installed Synapse make its schema in d and work off the background updates, unless that is done: the
// indexes and constraints that they bring are part of the schema. A database that somebody's homeserver is in is left alone.
func makeSchema(ctx context.Context, t *doctor.Target, d *doctor.Database, h doctor.OperationHost) error {
	before, err := lookAtSchema(ctx, d)
	if err != nil {
		return err
	}
	switch {
	case before.made && len(before.queued) == 0:
		return nil
	case before.inUse:
		return doctor.Unchanged("%s has background updates that are not done: %s. There is a homeserver in it already: start it there until they are done, or give an empty database",
			d.Where(), few(before.queued))
	}
	u, err := updateFor(t, d)
	if err != nil {
		return err
	}
	u.Step = func(text string) { h.Progress(doctor.Progress{Text: "Synapse makes its schema: " + text}) }
	h.Progress(doctor.Progress{Text: "Synapse makes its schema"})
	if u.Python, err = pythonFor(ctx, t); err != nil {
		return doctor.Unchanged("the Python that runs Synapse could not be asked: %v", err)
	}
	ran := u.Run(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	after, err := lookAtSchema(ctx, d)
	switch {
	case ran != nil && err == nil && !after.made:
		return doctor.Unchanged("%s", told(ran, u))
	case ran != nil:
		return errors.New(told(ran, u))
	case err != nil:
		return err
	case !after.made:
		return doctor.Unchanged("update_synapse_database has ended without an error, and there is no schema in %s: is --synapse-command connected to another server?", d.Where())
	case len(after.queued) > 0:
		return fmt.Errorf("the schema in %s is made, and Synapse left background updates undone: %s; look into its log, or drop the database and make it anew", d.Where(), few(after.queued))
	}
	return nil
}

// schemaState is how far a database is on the way to a finished schema.
type schemaState struct {
	made   bool     // the schema is there
	inUse  bool     // there are users or events in it
	queued []string // background updates that are not done
}

func lookAtSchema(ctx context.Context, d *doctor.Database) (s schemaState, err error) {
	err = d.Read(ctx, func(tx pgx.Tx) error {
		const tables = `SELECT to_regclass('applied_schema_deltas') IS NOT NULL AND to_regclass('users') IS NOT NULL AND to_regclass('events') IS NOT NULL,
  to_regclass('background_updates') IS NOT NULL`
		var updates bool
		if err := tx.QueryRow(ctx, tables).Scan(&s.made, &updates); err != nil {
			return err
		}
		if s.made {
			if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM users) OR EXISTS (SELECT FROM events)`).Scan(&s.inUse); err != nil {
				return err
			}
		}
		if !updates {
			return nil
		}
		rows, err := tx.Query(ctx, `SELECT update_name FROM background_updates ORDER BY update_name`)
		if err != nil {
			return err
		}
		s.queued, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return s, fmt.Errorf("look for Synapse's schema in %s: %w", d.Where(), err)
	}
	return s, nil
}

// updateFor is all of the update but the Python.
func updateFor(t *doctor.Target, d *doctor.Database) (synapse.Update, error) {
	u := synapse.Update{Within: schemaWithin}
	if len(t.ConfigFiles) == 0 {
		return u, doctor.Unchanged("%s has no schema yet, and Synapse needs its configuration to make one: say where homeserver.yaml is with -c", d.Where())
	}
	var err error
	if u.Config, err = synapse.Load(t.ConfigFiles...); err != nil {
		return u, err
	}
	if t.SynapseCommand != "" {
		if u.Command, err = synapse.Words(t.SynapseCommand); err != nil {
			return u, doctor.Unchanged("--synapse-command: %v", err)
		}
	}
	u.User, u.Args = d.OSUser, psycopg2Args(d)
	u.PasswordFile = t.PostgresConfig
	for _, e := range u.Config.Databases {
		switch {
		case e.Name == synapse.SQLite3 && filepath.IsAbs(e.SQLitePath()):
			u.Private = append(u.Private, e.SQLitePath())
		case e.Name == synapse.Psycopg2 && e.Label == d.Label && t.PostgresConfig == "":
			u.AllowUnsafeLocale = e.AllowUnsafeLocale
			if e.Args["password"] != nil || e.Args["dsn"] != nil {
				u.PasswordFile = e.File
			}
		}
	}
	if file, _ := Pair(t); file != nil && !slices.Contains(u.Private, file.Path) {
		u.Private = append(u.Private, file.Path)
	}
	return u, nil
}

// psycopg2Args are the database's settings without what only this process could use. The session is known as the doctor's.
func psycopg2Args(d *doctor.Database) map[string]string {
	args := maps.Clone(map[string]string(d.Settings))
	if args == nil {
		args = map[string]string{}
	}
	for _, name := range []string{"service", "servicefile", "fallback_application_name"} {
		delete(args, name)
	}
	if args["password"] != "" {
		delete(args, "passfile")
	}
	args["application_name"] = d.Options().ApplicationName
	return args
}

// pythonFor is nil where there is a command, and where no Python with Synapse is found.
func pythonFor(ctx context.Context, t *doctor.Target) (*synapse.Python, error) {
	if t.SynapseCommand != "" {
		return nil, nil
	}
	return synapse.PythonPlaces{Named: t.SynapsePython, ConfigFiles: t.ConfigFiles}.FindPython(ctx)
}

// told is what went wrong, with the end of what Synapse said, free of the secrets that it was handed.
func told(err error, u synapse.Update) string {
	r := doctor.NewRedactor(append(u.Config.Secrets(), u.Args["password"], u.Args["sslpassword"]), []string{u.Config.ServerName, u.Args["user"], u.Args["dbname"], u.Args["host"]})
	e, ok := errors.AsType[*synapse.UpdateError](err)
	if !ok {
		return r.String(err.Error())
	}
	var b strings.Builder
	b.WriteString("Synapse could not make its schema. " + e.Reason)
	if len(e.Said) > 0 {
		b.WriteString(".\nIts last words:\n")
		for _, line := range e.Said {
			b.WriteString("    " + line + "\n")
		}
	}
	return strings.TrimRight(r.String(b.String()), "\n")
}

// few names some of many.
func few(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
