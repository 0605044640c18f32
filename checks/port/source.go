package port

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// source is what a SQLite file says of itself.
type source struct {
	path    string
	bytes   int64
	schema  schema
	updates []string // that are pending
	// user is one of another server than the target's, else any; empty without users.
	user    string
	foreign bool
	uniques []unique
}

// schema is how far a database's schema is.
type schema struct {
	version int64
	deltas  []delta
}

// delta is a change of the schema that was applied.
type delta struct {
	version int64
	file    string // 94/07_profile_updates.sql
}

// readSource opens the file as one that nobody changes. See [unreadable] for what its errors mean.
func readSource(ctx context.Context, path, serverName string) (*source, error) {
	header, err := sqlitedb.ReadHeader(path)
	if err != nil {
		return nil, err
	}
	f, err := sqlitedb.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &source{path: path, bytes: header.Pages * int64(header.PageSize)}
	tables, err := firstColumn(ctx, f, `SELECT lower(name) FROM sqlite_schema WHERE type = 'table'`)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(tables, "schema_version") || !slices.Contains(tables, "users") {
		return nil, doctor.SkipFailed("%s is not the database of a Synapse: it has no table schema_version, or none of users", path)
	}
	if s.schema.version, err = f.Int(ctx, `SELECT coalesce(max(version), 0) FROM schema_version`); err != nil {
		return nil, err
	}
	if s.schema.deltas, err = readDeltas(ctx, f); err != nil {
		return nil, err
	}
	if slices.Contains(tables, "background_updates") {
		if s.updates, err = firstColumn(ctx, f, `SELECT update_name FROM background_updates ORDER BY ordering, update_name`); err != nil {
			return nil, err
		}
	}
	// Names are indexed, so that both ends are found at once; another server's users stand at one of them.
	users, err := firstColumn(ctx, f, `SELECT min(name) FROM users UNION ALL SELECT max(name) FROM users`)
	if err != nil {
		return nil, err
	}
	for _, name := range users {
		if s.foreign || name == "" {
			continue
		}
		_, domain, _ := strings.Cut(name, ":")
		s.user, s.foreign = name, serverName != "" && domain != serverName
	}
	s.uniques, err = readUniques(ctx, f)
	return s, err
}

// firstColumn reads the first column of a query as text.
func firstColumn(ctx context.Context, f *sqlitedb.DB, sql string) (out []string, err error) {
	err = each(ctx, f, sql, func(s *sqlitedb.Stmt) { out = append(out, string(s.Bytes(0))) })
	return out, err
}

func each(ctx context.Context, f *sqlitedb.DB, sql string, row func(*sqlitedb.Stmt)) error {
	s, err := f.Prepare(sql)
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		more, err := s.Step(ctx)
		if err != nil || !more {
			return err
		}
		row(s)
	}
}

func readDeltas(ctx context.Context, f *sqlitedb.DB) (deltas []delta, err error) {
	err = each(ctx, f, `SELECT version, file FROM applied_schema_deltas`, func(s *sqlitedb.Stmt) {
		deltas = append(deltas, delta{s.Int(0), string(s.Bytes(1))})
	})
	return deltas, err
}

// unreadable makes the error of a check of a file that can't be looked at as it is. What is wrong with it the check vacuum says.
func unreadable(path string, err error) error {
	pending, is := errors.AsType[*sqlitedb.PendingError](err)
	var foreign *sqlitedb.NotSQLiteError
	switch {
	case is:
		return doctor.SkipFailed("%s can't be read as it is, since the newest rows are only in %s: stop Synapse, or port a snapshot, which \"synapse-doctor fix vacuum --apply\" makes while Synapse runs", path, pending.Companion)
	case errors.Is(err, fs.ErrNotExist):
		return doctor.SkipFailed("there is no file %s", path)
	case errors.As(err, &foreign):
		return doctor.SkipFailed("%v", err)
	}
	if _, skip := doctor.SkipReason(err); skip {
		return err
	}
	return fmt.Errorf("read %s: %w", path, err)
}

// behind are the changes that one schema has and the other has not. Synapse does not keep those from before the schema with
// which a database was made, and those of one kind of database only have an ending of their own.
func (s schema) behind(other schema) []string {
	since := max(s.first(), other.first())
	var missing []string
	for _, d := range other.deltas {
		if d.version >= since && !d.ofOneEngine() && !slices.Contains(s.deltas, d) {
			missing = append(missing, d.file)
		}
	}
	slices.Sort(missing)
	return missing
}

// first is the version of the oldest change that is kept.
func (s schema) first() int64 {
	first := int64(0)
	for _, d := range s.deltas {
		if first == 0 || d.version < first {
			first = d.version
		}
	}
	return first
}

func (d delta) ofOneEngine() bool {
	return strings.HasSuffix(d.file, ".sqlite") || strings.HasSuffix(d.file, ".postgres")
}

// unique is a unique index of the file.
type unique struct {
	table   string
	name    string
	columns []string // sorted, in lower case; empty for one over expressions
	partial bool
}

const uniquesQuery = `SELECT lower(t.name), lower(i.name), i.partial, lower(coalesce(c.name, '')) FROM sqlite_schema t, pragma_index_list(t.name) i, pragma_index_info(i.name) c
WHERE t.type = 'table' AND i."unique" ORDER BY t.name, i.name, c.name`

func readUniques(ctx context.Context, f *sqlitedb.DB) (found []unique, err error) {
	err = each(ctx, f, uniquesQuery, func(s *sqlitedb.Stmt) {
		table, name, of := string(s.Bytes(0)), string(s.Bytes(1)), string(s.Bytes(3))
		if n := len(found); n == 0 || found[n-1].table != table || found[n-1].name != name {
			found = append(found, unique{table: table, name: name, partial: s.Int(2) != 0})
		}
		if of != "" {
			found[len(found)-1].columns = append(found[len(found)-1].columns, of)
		}
	})
	for _, u := range found {
		slices.Sort(u.columns)
	}
	return found, err
}
