package vacuum

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// content looks at what is in the file: whose it is and, with --deep, whether it is sound. It is read as it lies there, which
// is right only while nothing waits in a -wal or a journal, and nobody writes to it.
func (x *examination) content(ctx context.Context) error {
	if x.state.Pending() {
		x.covered = append(x.covered, fmt.Sprintf("what is in %s was not looked at, since it can't be read without its companions: its snapshot can", x.name()))
		if x.target.Deep {
			return fmt.Errorf("--deep reads no file whose companions are still to be applied: make a snapshot of %s with synapse-doctor fix vacuum --apply, and examine that with --sqlite", x.database.Path)
		}
		return nil
	}
	err := x.read(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if x.changed(ctx) {
		if x.target.Deep {
			return fmt.Errorf("%s was written to while it was read: make a snapshot with synapse-doctor fix vacuum --apply, and examine that with --sqlite and --deep", x.database.Path)
		}
		x.covered = append(x.covered, fmt.Sprintf("what is in %s was not looked at, since it is being written to", x.name()))
		return nil
	}
	if err != nil {
		if e, ok := errors.AsType[*sqlitedb.Error](err); ok && e.Corrupt() {
			x.corrupt([]damage{{what: "its schema or users", message: e.Message}})
			return nil
		}
		return err
	}
	return nil
}

// changed reports whether somebody has written to the file since it was looked at.
func (x *examination) changed(ctx context.Context) bool {
	now, err := sqlitedb.Look(ctx, x.database.Path)
	return err != nil || now.Size != x.state.Size || !now.Changed.Equal(x.state.Changed) || now.Header != x.state.Header || now.Pending()
}

func (x *examination) read(ctx context.Context) error {
	db, err := sqlitedb.Open(ctx, x.database.Path)
	if err != nil {
		return err
	}
	defer db.Close()
	tables, err := tablesOf(ctx, db)
	if err != nil {
		return err
	}
	var found []doctor.Finding
	switch f, err := x.whose(ctx, db, tables); {
	case err != nil:
		return err
	case f != nil:
		found = append(found, *f)
	}
	x.covered = append(x.covered, fmt.Sprintf("%s: its header, its journals, whose it is", x.name()))
	if x.target.Deep {
		deep, err := x.deep(ctx, tables)
		if err != nil {
			return err
		}
		found = append(found, deep...)
	}
	if len(found) > 0 && x.changed(ctx) {
		return nil // its caller says so
	}
	for _, f := range found {
		x.find(f)
	}
	return nil
}

// tablesOf lists the tables that have rows of their own, the schema's not among them.
func tablesOf(ctx context.Context, db *sqlitedb.DB) ([]string, error) {
	s, err := db.Prepare(`SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var names []string
	for {
		row, err := s.Step(ctx)
		if err != nil || !row {
			return names, err
		}
		names = append(names, s.String(0))
	}
}

// whose tells when the file is not the database of this homeserver.
func (x *examination) whose(ctx context.Context, db *sqlitedb.DB, tables []string) (*doctor.Finding, error) {
	f := &doctor.Finding{
		Code: NotSynapse, Severity: doctor.Error,
		Expected: "the database of a Synapse homeserver",
		Remedy:   "Give the path of the homeserver's database in homeserver.yaml or with --sqlite; it is often named homeserver.db.",
	}
	has := func(name string) bool { return slices.Contains(tables, name) }
	switch {
	case len(tables) == 0:
		f.Summary = fmt.Sprintf("%s has no table: it is not the database of a homeserver", x.database.Path)
		f.Observed = "a database without a table"
		return f, nil
	case !has("schema_version") || !has("users") && !has("state_groups"):
		f.Summary = fmt.Sprintf("%s is a SQLite database, but not Synapse's: it has no schema_version, or neither users nor state_groups", x.database.Path)
		f.Observed = "the tables " + some(tables, 5)
		return f, nil
	case !has("users"):
		return nil, nil
	}
	server := x.target.ServerName
	if server == "" {
		return nil, nil
	}
	for _, order := range []string{"ASC", "DESC"} {
		s, err := db.Prepare(`SELECT name FROM users ORDER BY name ` + order + ` LIMIT 1`)
		if err != nil {
			return nil, err
		}
		row, err := s.Step(ctx)
		name := ""
		if row {
			name = s.String(0)
		}
		s.Close()
		if err != nil {
			return nil, err
		}
		if _, domain, _ := strings.Cut(name, ":"); row && domain != server {
			f.Summary = fmt.Sprintf("%s belongs to another homeserver: it has the user %s, and server_name is %s", x.database.Path, name, server)
			f.Observed = "the user " + name
			f.Expected = "users of " + server
			return f, nil
		}
	}
	return nil, nil
}

// some lists the first n names, and how many more there are.
func some(names []string, n int) string {
	if len(names) <= n {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:n], ", "), len(names)-n)
}
