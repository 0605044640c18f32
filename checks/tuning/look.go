package tuning

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// server is what is known of one PostgreSQL server.
type server struct {
	target *doctor.Target
	kernel kernel
	db     *doctor.Database   // through which it was asked
	shared []*doctor.Database // the other entries that are on it

	facts
	settings map[string]setting
	files    []fileSetting // nil where nobody was there who may read them
	admin    bool          // an administrator was asked, too
	mayAlter bool          // the administrator may run ALTER SYSTEM
	shmem    int64         // the shared memory that it has, as the administrator sees it; 0: not known
	jit      jitUse

	opens   need
	machine machine
}

// facts is what one query tells.
type facts struct {
	Version     int // 150018
	PID         int // of the session
	Port        int // of the client, as the server sees it; 0 for a socket
	Role, Name  string
	Started     string
	Size        int64 // of the database
	TotalSize   int64 // of all databases that may be looked at
	Databases   int
	Hits, Reads int64 // blocks, since the statistics were reset
	TempFiles   int64
	TempBytes   int64
	SinceReset  float64 // seconds
	Timed       int64   // checkpoints that came by time
	Forced      int64   // and by the log's size, or on request
	WAL         int64   // bytes written
	Evicted     int64   // buffers that had to go for others (16+); -1: not known
	LargestRows float64 // of a table
	Index       int64   // bytes of the largest index
}

// factsQuery is asked as Synapse. pg_stat_io came with 16, pg_stat_checkpointer with 17. The sizes of tables are those of
// the catalog, so that no file is looked at for them.
const factsQuery = `SELECT current_setting('server_version_num')::int, pg_backend_pid(), coalesce(inet_client_port(), 0), session_user::text, current_database()::text,
  extract(epoch FROM pg_postmaster_start_time())::text, pg_database_size(current_database()),
  (SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database WHERE has_database_privilege(oid, 'CONNECT')),
  (SELECT count(*)::int FROM pg_database WHERE NOT datistemplate),
  s.blks_hit, s.blks_read, s.temp_files, s.temp_bytes,
  greatest(extract(epoch FROM now() - coalesce(s.stats_reset, b.stats_reset, pg_postmaster_start_time())), 0)::float8,
  %[1]s.%[2]s, %[1]s.%[3]s, w.wal_bytes::bigint,
  %[4]s,
  coalesce((SELECT max(reltuples)::float8 FROM pg_class WHERE relkind = 'r'), 0),
  coalesce((SELECT max(relpages)::bigint * current_setting('block_size')::bigint FROM pg_class WHERE relkind = 'i'), 0)
FROM pg_stat_database s, pg_stat_bgwriter b, pg_stat_wal w%[5]s WHERE s.datname = current_database()`

func factsFor(major int) string {
	evicted := "-1::bigint"
	if major >= 16 {
		evicted = "(SELECT coalesce(sum(evictions), 0)::bigint FROM pg_stat_io WHERE object = 'relation' AND context = 'normal')"
	}
	if major >= 17 {
		return fmt.Sprintf(factsQuery, "c", "num_timed", "num_requested", evicted, ", pg_stat_checkpointer c")
	}
	return fmt.Sprintf(factsQuery, "b", "checkpoints_timed", "checkpoints_req", evicted, "")
}

// jitUse is what pg_stat_statements tells of compiling queries: since 15 it counts that.
type jitUse struct {
	Known           bool
	Compiled, Total float64 // milliseconds
}

const statementsQuery = `SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements'`

// jitQuery counts this database alone. Its columns are there from the extension's version 1.10 on.
const jitQuery = `SELECT coalesce(sum(jit_generation_time + jit_inlining_time + jit_optimization_time + jit_emission_time), 0)::float8, coalesce(sum(total_exec_time), 0)::float8
FROM %s.pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())`

// adminQuery: until 15 only superusers may alter the system's settings, from 17 on nobody where allow_alter_system is off.
const adminQuery = `SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND coalesce(current_setting('allow_alter_system', true), 'on') = 'on',
  has_function_privilege('pg_show_all_file_settings()', 'EXECUTE') AND has_table_privilege('pg_file_settings', 'SELECT') AND pg_has_role('pg_read_all_settings', 'USAGE'),
  has_table_privilege('pg_shmem_allocations', 'SELECT')`

func (s *server) major() int { return s.Version / 10000 }

func (s *server) ask(ctx context.Context) error {
	err := s.db.Read(ctx, func(tx pgx.Tx) error {
		var number int
		if err := tx.QueryRow(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&number); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, factsFor(number/10000))
		if err != nil {
			return err
		}
		if s.facts, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[facts]); err != nil {
			return fmt.Errorf("ask for the statistics: %w", err)
		}
		return s.askSettings(ctx, tx)
	})
	if err != nil {
		return err
	}
	if err := s.askAdmin(ctx); err != nil {
		return fmt.Errorf("as administrator: %w", err)
	}
	return s.askJIT(ctx)
}

func (s *server) askSettings(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, settingsQuery, names)
	if err != nil {
		return err
	}
	s.settings = map[string]setting{}
	var x setting
	_, err = pgx.ForEachRow(rows, []any{&x.Name, &x.Text, &x.Raw, &x.Unit, &x.Boot, &x.Context, &x.Source, &x.File, &x.Line, &x.Pending}, func() error {
		// PostgreSQL marks a setting of the command line, too, where a line of its files, which doesn't count, says otherwise.
		x.Pending = x.Pending && x.Source != "command line"
		s.settings[x.Name] = x
		return nil
	})
	if err != nil {
		return fmt.Errorf("ask for the settings: %w", err)
	}
	return nil
}

// askAdmin asks for what Synapse's role does not see: which file sets what, and what the next restart brings.
func (s *server) askAdmin(ctx context.Context) error {
	admin := s.target.AdminIn(s.db)
	if admin == nil {
		return nil
	}
	s.admin = true
	return admin.Read(ctx, func(tx pgx.Tx) error {
		var files, shmem bool
		if err := tx.QueryRow(ctx, adminQuery).Scan(&s.mayAlter, &files, &shmem); err != nil {
			return err
		}
		if shmem {
			if err := tx.QueryRow(ctx, `SELECT sum(size)::bigint FROM pg_shmem_allocations`).Scan(&s.shmem); err != nil {
				return err
			}
		}
		if !files {
			s.mayAlter = false
			return nil
		}
		rows, err := tx.Query(ctx, fileSettingsQuery)
		if err != nil {
			return err
		}
		if s.files, err = pgx.CollectRows(rows, pgx.RowToStructByPos[fileSetting]); err != nil {
			return fmt.Errorf("read the server's files: %w", err)
		}
		s.useFiles()
		return nil
	})
}

// useFiles adds to the settings where they are set, and what they will be. What is in the files and was not loaded yet
// counts at the next start, too.
func (s *server) useFiles() {
	named := map[string]bool{}
	for i, f := range s.files { // the last line of a name counts
		x, ok := s.settings[f.Name]
		if !ok || f.Fault {
			continue
		}
		named[f.Name] = true
		if x.Source == "configuration file" {
			x.File, x.Line = f.File, f.Line
		}
		if x.Pending || f.waits() && x.restarts() && x.fromFile() {
			x.Pending, x.next = true, &s.files[i]
		}
		s.settings[f.Name] = x
	}
	if slices.ContainsFunc(s.files, func(f fileSetting) bool { return f.Fault }) {
		return // what stands behind an error is not among them
	}
	for name, x := range s.settings { // what stands in no file any more returns to what is built in
		left := x.restarts() && x.Source == "configuration file" && !named[name] && !x.counts(x.Boot)
		if x.fromFile() && x.next == nil && (x.Pending || left) {
			value := x.Boot
			if v, ok := parse(x.Boot, x.Unit); ok && strings.HasSuffix(x.Unit, "B") {
				value = size(int64(v))
			}
			x.Pending, x.next = true, &fileSetting{Name: name, Value: value}
			s.settings[name] = x
		}
	}
}

func (s *server) askJIT(ctx context.Context) error {
	if s.major() < 15 {
		return nil
	}
	return s.db.Read(ctx, func(tx pgx.Tx) error {
		var schema string
		err := tx.QueryRow(ctx, statementsQuery).Scan(&schema)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		// An extension that is not loaded, or older than the server, can't be asked: then nothing was measured.
		sub, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		defer sub.Rollback(ctx)
		if sub.QueryRow(ctx, fmt.Sprintf(jitQuery, pgx.Identifier{schema}.Sanitize())).Scan(&s.jit.Compiled, &s.jit.Total) == nil {
			s.jit.Known = true
		}
		return ctx.Err()
	})
}

// same: the other one is this server, asked through another entry.
func (s *server) same(o *server) bool {
	if s.db.SystemID != "" && o.db.SystemID != "" && s.db.SystemID != o.db.SystemID {
		return false
	}
	return s.Started == o.Started && s.Version == o.Version
}

// shares adds an entry that is on the same server.
func (s *server) shares(o *server) {
	s.shared = append(s.shared, o.db)
	s.LargestRows, s.Index = max(s.LargestRows, o.LargestRows), max(s.Index, o.Index)
	s.Hits, s.Reads, s.TempFiles, s.TempBytes = s.Hits+o.Hits, s.Reads+o.Reads, s.TempFiles+o.TempFiles, s.TempBytes+o.TempBytes
}

func (s *server) get(name string) setting { return s.settings[name] }

// where says where a setting comes from.
func (s *server) where(name string) string { return s.get(name).from(s.Name, s.Role) }

// since is how much a counter has grown, and in how long: since the last recorded run where there is one that counted from
// the same beginning, otherwise since the statistics were reset.
func (s *server) since(name string, now int64) (grown int64, over time.Duration) {
	whole := time.Duration(s.SinceReset * float64(time.Second))
	e := s.target.Earlier
	if e.At.IsZero() {
		return now, whole
	}
	m, ok := e.Find(doctor.MeasureKey{Check: checkID, Database: s.db.Label, Object: figure(name), Name: "value"})
	if passed := time.Since(e.At); ok && int64(m.Value) <= now && passed >= time.Hour && passed < whole {
		return now - int64(m.Value), passed
	}
	return now, whole
}

// figure is the object of a number: each is a row of its own.
func figure(name string) doctor.Object { return doctor.Object{Kind: "figure", Name: name} }

// measures are the numbers that later runs compare with.
func (s *server) measures() []doctor.Measure {
	add := func(name string, v float64, unit string) doctor.Measure {
		return doctor.Measure{Database: s.db.Label, Object: figure(name), Name: "value", Value: v, Unit: unit}
	}
	all := []doctor.Measure{
		add(tempBytes, float64(s.TempBytes), "bytes"), add(tempFiles, float64(s.TempFiles), ""),
		add(timedCheckpoints, float64(s.Timed), ""), add(forcedOnes, float64(s.Forced), ""), add(walBytes, float64(s.WAL), "bytes"),
		add("worst case of memory", float64(s.worst().total()), "bytes"),
	}
	if s.Hits+s.Reads > 0 {
		all = append(all, add("answered from shared_buffers", percent(float64(s.Hits), float64(s.Hits+s.Reads)), "percent"))
	}
	return all
}

const (
	tempBytes        = "temporary files, written"
	tempFiles        = "temporary files"
	timedCheckpoints = "checkpoints by time"
	forcedOnes       = "checkpoints forced"
	walBytes         = "log written"
)
