package rebuild

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// examine looks for everything that would stop the rebuild and can be known before anything is changed.
func (w Work) examine(ctx context.Context, t *doctor.Target, step doctor.OperationStep, _ string, h doctor.OperationHost) error {
	k, err := w.open(ctx, t, step, h)
	if err != nil {
		return err
	}
	defer k.close()
	f, err := k.fitting(ctx)
	if err != nil {
		return err
	}
	old, err := k.session(ctx, k.p.database)
	if err != nil {
		return err
	}
	defer closeConn(old)
	if err := carriable(ctx, old); err != nil {
		return err
	}
	programs, err := findPrograms(ctx, f.Version, k.db.DataDir)
	if err != nil {
		return err
	}
	if err := k.schemaText(ctx, programs, f); err != nil {
		return err
	}
	tables, err := listTables(ctx, old)
	if err != nil {
		return err
	}
	if f.Encoding != utf8Name {
		if err := k.scanText(ctx, f, tables); err != nil {
			return err
		}
	}
	if k.w.LeaveOut != nil {
		return nil // it looks for them before anything is made, and that takes long enough once
	}
	return k.findDuplicates(ctx, old)
}

const superuserQuery = `SELECT rolsuper FROM pg_roles WHERE rolname = current_user`

// fitting makes sure that the server and the names are as the plan needs them.
func (k *task) fitting(ctx context.Context) (facts, error) {
	var super bool
	if err := k.main.QueryRow(ctx, superuserQuery).Scan(&super); err != nil {
		return facts{}, fmt.Errorf("ask who the administrator is: %w", err)
	}
	if !super {
		return facts{}, doctor.Unchanged("the rebuild needs a superuser: the database is shut to everybody else while it is filled. Give --admin-dsn with the login of one, such as postgres")
	}
	s, err := k.look(ctx)
	if err != nil {
		return facts{}, err
	}
	if s.source != k.p.database {
		return facts{}, doctor.Unchanged("the database %s is not the one that the plan was made for: run the fix again", k.p.database)
	}
	if s.fresh != nil || s.rebuilt != nil || len(s.others) > 0 {
		return facts{}, doctor.Unchanged("a name that the plan needs (%s, %s or %s) is taken: run the fix again", k.p.fresh, k.p.before, k.p.rebuilt)
	}
	f, err := readFacts(ctx, k.main, k.p.database)
	if err != nil {
		return f, err
	}
	switch {
	case f.Version < 140000:
		return f, doctor.Unchanged("the rebuild needs PostgreSQL 14 or later: upgrade the server first")
	case f.Template || !f.Connectable:
		return f, doctor.Unchanged("the database %s is a template, or allows no connections (ALTER DATABASE … ALLOW_CONNECTIONS true)", k.p.database)
	}
	var who string
	for range lingering {
		if err := k.main.QueryRow(ctx, othersQuery, k.p.database).Scan(&who); err != nil {
			return f, fmt.Errorf("see who is in the database %s: %w", k.p.database, err)
		}
		if who == "" {
			break
		}
		if err := sleep(ctx, lingeringPause); err != nil {
			return f, err
		}
	}
	if who != "" {
		return f, doctor.Unchanged("others are connected to the database %s: %s. End their sessions, then run this again", k.p.database, who)
	}
	return f, nil
}

// A server takes a moment to notice that a session has ended.
const (
	lingering      = 10
	lingeringPause = 100 * time.Millisecond
)

const othersQuery = `SELECT coalesce(string_agg(format('%s, process %s%s', usename, pid, ' as ' || nullif(application_name, '')), '; ' ORDER BY pid), '')
FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND application_name NOT LIKE 'synapse-doctor/%'`

// hindrances are what a database may hold that the copy does not carry. Each query names some of it, or nothing.
var hindrances = []struct{ what, query, instead string }{
	{"large objects", `SELECT count(*)::text FROM pg_largeobject_metadata HAVING count(*) > 0`, "Synapse uses none: remove them (lo_unlink), or vacuumlo does"},
	{"foreign servers", `SELECT string_agg(srvname, ', ') FROM pg_foreign_server`, "drop them, and make them again afterwards"},
	{"publications", `SELECT string_agg(pubname, ', ') FROM pg_publication`, "logical replication would go on with the old database: drop them, and make them again afterwards"},
	{"subscriptions", `SELECT string_agg(subname, ', ') FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()`, "drop them, and make them again afterwards"},
	{"replication slots", `SELECT string_agg(slot_name, ', ') FROM pg_replication_slots WHERE database = current_database()`, "they would stay with the old database: drop them (pg_drop_replication_slot)"},
	{"event triggers", `SELECT string_agg(evtname, ', ') FROM pg_event_trigger`, "they would fire while the copy is made: drop them, and make them again afterwards"},
	{"materialized views", `SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relkind = 'm'`, "drop them, and make them again afterwards"},
	{"prepared transactions", `SELECT string_agg(gid, ', ') FROM pg_prepared_xacts WHERE database = current_database()`, "end them (COMMIT PREPARED or ROLLBACK PREPARED)"},
	{"tables of extensions", `SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e' WHERE c.relkind IN ('r', 'p', 'm')`,
		"drop the extension, and make it again afterwards"},
	{"extensions in a version that this server does not make", `SELECT string_agg(e.extname || ' ' || e.extversion, ', ') FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
  JOIN pg_available_extensions a ON a.name = e.extname WHERE e.extversion <> a.default_version AND (n.nspname NOT IN ('public', 'pg_catalog')
    OR NOT EXISTS (SELECT FROM pg_available_extension_versions v WHERE v.name = e.extname AND v.version = e.extversion))`,
		"update them first (ALTER EXTENSION … UPDATE)"},
	{"extensions that are not installed on this server", `SELECT string_agg(extname, ', ') FROM pg_extension WHERE extname NOT IN (SELECT name FROM pg_available_extensions)`, "install their package, or drop them"},
	{"tables without columns that have rows", `SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND pg_relation_size(c.oid) > 0
  AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')`, "drop them"},
}

// carriable makes sure that the database holds nothing that the copy would leave behind.
func carriable(ctx context.Context, conn querier) error {
	var found []string
	for _, h := range hindrances {
		rows, err := conn.Query(ctx, h.query)
		if err != nil {
			return fmt.Errorf("look for %s: %w", h.what, err)
		}
		var names *string
		for rows.Next() {
			if err := rows.Scan(&names); err != nil {
				rows.Close()
				return fmt.Errorf("look for %s: %w", h.what, err)
			}
		}
		if err := rows.Err(); err != nil {
			return fmt.Errorf("look for %s: %w", h.what, err)
		}
		if names != nil {
			found = append(found, fmt.Sprintf("%s (%s): %s", h.what, *names, h.instead))
		}
	}
	if len(found) > 0 {
		return doctor.Unchanged("the database holds what a copy of it would not have: %s", strings.Join(found, "; "))
	}
	return nil
}

// schemaText has the schema written in UTF-8: names, comments, defaults and the bodies of functions. Where the bytes of the
// database are taken to be something else, PostgreSQL has no way to convert those of the catalog, so that they must be ASCII.
func (k *task) schemaText(ctx context.Context, p programs, f facts) error {
	k.say(doctor.Progress{Text: "read the schema"})
	w, err := k.newWorkplace()
	if err != nil {
		return err
	}
	defer w.remove()
	encoding := utf8Name
	if f.Encoding == asciiName && k.p.sourceEncoding != "" {
		encoding = asciiName
	}
	out := &asciiOnly{}
	err = k.run(ctx, w, out, k.p.database, p.dump, "--schema-only", "--encoding="+encoding, "--exclude-table=synapse_doctor.rebuild")
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return doctor.Unchanged("the schema of the database can't be written in %s: %v", encoding, err)
	}
	if encoding == asciiName && len(out.lines) > 0 {
		return doctor.Unchanged("the schema itself holds text that is not ASCII, which can't be converted: %s. Change that, then run this again", strings.Join(out.lines, "; "))
	}
	return nil
}

// asciiOnly keeps the first lines of a text that are not ASCII.
type asciiOnly struct {
	line  []byte
	high  bool
	lines []string
}

const fewLines = 5

func (a *asciiOnly) Write(p []byte) (int, error) {
	for _, c := range p {
		if c != '\n' {
			a.high = a.high || c >= 0x80
			if len(a.line) < 200 {
				a.line = append(a.line, c)
			}
			continue
		}
		if a.high && len(a.lines) < fewLines {
			a.lines = append(a.lines, fmt.Sprintf("%+q", a.line))
		}
		a.line, a.high = a.line[:0], false
	}
	return len(p), nil
}
