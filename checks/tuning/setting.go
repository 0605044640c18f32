package tuning

import (
	"fmt"
	"path"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// setting is one row of pg_settings, as a session of Synapse's has it, and what the files say that a restart will make of it.
type setting struct {
	Name, Text, Raw, Unit, Boot, Context, Source, File string
	Line                                               int
	Pending                                            bool

	next *fileSetting // what counts after a restart; nil where it is what counts now, or where that can't be seen
}

// The names are quoted verbatim in remedies. Roles without pg_read_all_settings see no sourcefile.
const settingsQuery = `SELECT name, coalesce(current_setting(name, true), ''), coalesce(setting, ''), coalesce(unit, ''), coalesce(boot_val, ''), context, source,
  coalesce(sourcefile, ''), coalesce(sourceline, 0), pending_restart
FROM pg_settings WHERE name = ANY ($1) OR pending_restart`

// names are the settings that are looked at.
var names = []string{
	"shared_buffers", "effective_cache_size", "work_mem", "hash_mem_multiplier", "maintenance_work_mem", "autovacuum_work_mem", "autovacuum_max_workers",
	"max_connections", "superuser_reserved_connections", "reserved_connections", "random_page_cost", "effective_io_concurrency",
	"max_wal_size", "checkpoint_timeout", "checkpoint_completion_target", "autovacuum_vacuum_scale_factor", "jit",
	"fsync", "full_page_writes", "synchronous_commit", "zero_damaged_pages", "ignore_checksum_failure",
	"huge_pages", "huge_page_size", "huge_pages_status", "shared_memory_size", "shared_memory_size_in_huge_pages", "allow_alter_system",
}

// fileSetting is one line of the server's files, as pg_file_settings reads them now.
type fileSetting struct {
	Name, Value, File string // the name in small letters, as pg_settings has those of the server itself
	Line              int
	Auto              bool // in postgresql.auto.conf, which ALTER SYSTEM writes
	Error             string
	Fault             bool // the error is one with which the server would not start
}

const fileSettingsQuery = `SELECT lower(coalesce(f.name, '')), coalesce(setting, ''), coalesce(sourcefile, ''), coalesce(sourceline, 0),
  coalesce(sourcefile, '') ~ '(^|/)postgresql\.auto\.conf$', coalesce(error, ''), ` + pgdb.FileSettingFault + `
FROM pg_file_settings f ORDER BY seqno`

// waits: only a restart applies the value.
func (f fileSetting) waits() bool { return f.Error == "setting could not be applied" && !f.Fault }

// value is the setting as a number: bytes, seconds, or what it is. It is the one after the restart where that is known.
func (s setting) value() float64 {
	if s.next != nil {
		if v, ok := parse(s.next.Value, s.Unit); ok {
			return v
		}
	}
	v, _ := parse(s.Raw, s.Unit)
	return v
}

// counts: the value, as a file has it, is the one that the server has now.
func (s setting) counts(value string) bool {
	now, number := parse(s.Raw, s.Unit)
	v, ok := parse(value, s.Unit)
	if number && ok {
		return v == now
	}
	return strings.EqualFold(value, s.Raw)
}

func (s setting) bytes() int64 { return int64(s.value()) }
func (s setting) on() bool     { return s.value() != 0 }

// text is the value as people write it.
func (s setting) text() string {
	if s.next != nil {
		return s.next.Value
	}
	return s.Text
}

// restarts: only a restart makes a new value count.
func (s setting) restarts() bool { return s.Context == "postmaster" }

// judgeable: a value that waits for a restart and can't be seen can't be judged.
func (s setting) judgeable() bool { return !s.Pending || s.next != nil }

// fromFile: the server's files, or nothing at all, set it, so that ALTER SYSTEM can.
func (s setting) fromFile() bool { return s.Source == "default" || s.Source == "configuration file" }

// from says where the value comes from.
func (s setting) from(db, role string) string {
	switch s.Source {
	case "default":
		return "the default"
	case "configuration file":
		file, line := s.File, s.Line
		if s.next != nil {
			file, line = s.next.File, s.next.Line
		}
		switch {
		case s.next != nil && file == "":
			return "the default"
		case file == "":
			return "a configuration file; which one, only an administrator of the server sees (--admin-dsn)"
		case path.Base(file) == "postgresql.auto.conf":
			return fmt.Sprintf("ALTER SYSTEM, in %s:%d", file, line)
		}
		return fmt.Sprintf("%s:%d", file, line)
	case "command line":
		return "the command line with which the server is started"
	case "environment variable":
		return "the environment in which the server is started"
	case "database":
		return fmt.Sprintf("ALTER DATABASE %s SET", db)
	case "user":
		return fmt.Sprintf("ALTER ROLE %s SET", role)
	case "database user":
		return fmt.Sprintf("ALTER ROLE %s IN DATABASE %s SET", role, db)
	case "global":
		return "ALTER ROLE ALL SET"
	case "client":
		return "options of the connection, in homeserver.yaml"
	}
	return s.Source
}

// elsewhere says how a value is changed that ALTER SYSTEM can't change, because something stronger sets it.
func (s setting) elsewhere(db, role, value string) string {
	alter := func(what string) string {
		return fmt.Sprintf("%s is set by %s, which wins over the server's files. As an administrator of the server:\n    %s SET %s = '%s';\n"+
			"It counts for new sessions: restart Synapse and its workers.", s.Name, s.from(db, role), what, s.Name, value)
	}
	switch s.Source {
	case "database":
		return alter("ALTER DATABASE " + quote(db))
	case "user":
		return alter("ALTER ROLE " + quote(role))
	case "database user":
		return alter("ALTER ROLE " + quote(role) + " IN DATABASE " + quote(db))
	case "global":
		return alter("ALTER ROLE ALL")
	case "command line":
		return fmt.Sprintf("%s is on the command line with which the server is started, which wins over every file. Change it there to %s "+
			"(docker-compose.yml under command:, the unit's ExecStart, or what else manages the server), and start the server anew.", s.Name, value)
	case "client":
		return fmt.Sprintf("%s comes with the connection: change it to %s in options, under database: args: in homeserver.yaml, or in PGOPTIONS, and restart Synapse.", s.Name, value)
	}
	return fmt.Sprintf("%s comes from: %s. Change it there to %s.", s.Name, s.Source, value)
}

func quote(ident string) string { return `"` + strings.ReplaceAll(ident, `"`, `""`) + `"` }
