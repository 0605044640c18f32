package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// The port from SQLite, beside what moves a homeserver otherwise: Synapse's own script, pgloader, and the limit, which is
// how fast PostgreSQL takes the same rows from files that were prepared for it. Every run has an empty target of its own.

// portOptions are what is asked for on the command line.
type portOptions struct {
	rounds int
	bytes  int64  // of the SQLite database that is made
	file   string // one that exists, instead
	script bool   // Synapse's script too: nine minutes for 1.9 GB
}

// portBench has what the ways to move a homeserver share.
type portBench struct {
	program    string
	server     *pgtest.Server
	dir        string
	schema     pgtest.Option // a target as Synapse makes it
	file       amplified
	snapshot   string // a copy of the file: the same rows, but nothing else tells that they are
	serverName string
	files      []copyFile // the prepared ones
	rows       int64      // in them
}

// way is a way to move a homeserver.
type way struct {
	name  string
	empty bool // its target has no schema: it makes one itself
	run   func(context.Context, *pgtest.DB) (portCost, error)
	costs portCosts
}

func benchPort(ctx context.Context, program string, o portOptions) (err error) {
	if o.rounds < 1 {
		return errors.New("-long must be at least 1")
	}
	if program, err = filepath.Abs(program); err != nil {
		return err
	}
	data := os.Getenv("SYNAPSE_DOCTOR_DATA")
	if data == "" {
		return errors.New("set SYNAPSE_DOCTOR_DATA to the directory of real Synapse databases: the schema of the target comes from there")
	}
	b := portBench{program: program, schema: pgtest.WithDump(filepath.Join(data, "synapse_empty.dump"))}
	if b.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.file, err = homeserverFile(ctx, o.file, b.dir, o.bytes); err != nil {
		return err
	}
	if b.serverName, err = serverName(ctx, b.file.path); err != nil {
		return err
	}
	b.snapshot = filepath.Join(b.dir, "snapshot.db")
	if err := copyOf(b.file.path, b.snapshot); err != nil {
		return err
	}
	settings := portSettings(memoryOfMachine())
	if b.server, err = pgtest.New(ctx, pgtest.Config{Settings: settings}); err != nil {
		return fmt.Errorf("start a PostgreSQL server: %w", err)
	}
	defer b.server.Close()
	fmt.Printf("\nThe port of a SQLite database of %.0f MB, %s\n", float64(b.file.bytes)/1e6, b.file.path)
	if err := b.prepare(ctx); err != nil {
		return fmt.Errorf("prepare files for the limit: %w", err)
	}
	r := portResult{bench: &b, shared: settings["shared_buffers"], rounds: o.rounds}
	if err := r.run(ctx, o.script); err != nil {
		return err
	}
	r.print(os.Stdout)
	return nil
}

// run measures the ways in rounds, each in another order, so that nobody always comes first; Synapse's script once.
func (r *portResult) run(ctx context.Context, script bool) error {
	b := r.bench
	r.same, r.again = &way{name: "again, the same file"}, &way{name: "again, a copy of the file"}
	r.ours = &way{name: "fix port, with verification", run: func(ctx context.Context, db *pgtest.DB) (portCost, error) {
		first, err := b.doctor(ctx, db, b.file.path)
		if err != nil {
			return first, err
		}
		for _, second := range []struct {
			way  *way
			file string
		}{{r.same, b.file.path}, {r.again, b.snapshot}} {
			cost, err := b.doctor(ctx, db, second.file)
			if err != nil {
				return first, fmt.Errorf("%s: %w", second.way.name, err)
			}
			second.way.costs.add(cost)
		}
		return first, nil
	}}
	r.limit = &way{name: "the limit", run: b.limit}
	ways := []*way{r.ours, r.limit}
	if program, err := exec.LookPath("pgloader"); err != nil {
		r.notes = append(r.notes, "pgloader was left out: it is not installed (Debian's package pgloader).")
	} else {
		r.pgloader = &way{name: "pgloader, unverified, no search", run: b.pgloader(program)}
		ways = append(ways, r.pgloader)
	}
	for round := range r.rounds {
		for i := range ways {
			if err := b.measure(ctx, ways[(round+i)%len(ways)]); err != nil {
				return err
			}
		}
	}
	if !script {
		r.notes = append(r.notes, "Synapse's script was left out: ask for it with -script; it takes nine minutes for 1.9 GB.")
		return nil
	}
	synapse, err := findSynapse()
	if err != nil {
		r.notes = append(r.notes, "Synapse's script was left out: "+err.Error()+".")
		return nil
	}
	r.script = &way{name: "synapse_port_db, once", empty: true, run: b.script(synapse)}
	return b.measure(ctx, r.script)
}

// portSettings are those of a server that was set up with care, and has a quarter of the memory.
func portSettings(memory int64) map[string]string {
	shared := min(max(memory/4, 128<<20), 2<<30)
	return map[string]string{
		"shared_buffers": fmt.Sprintf("%dMB", shared>>20), "maintenance_work_mem": fmt.Sprintf("%dMB", shared>>23), "max_wal_size": "8GB",
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on",
	}
}

// memoryOfMachine is what could be had at the moment, in bytes; 0 where there is no /proc.
func memoryOfMachine() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return kibibytes(string(text), "MemAvailable:")
}

// serverName is the homeserver's, from a user's id.
func serverName(ctx context.Context, path string) (string, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&immutable=1")
	if err != nil {
		return "", err
	}
	defer db.Close()
	var user string
	if err := db.QueryRowContext(ctx, `SELECT name FROM users WHERE name LIKE '@%:%' ORDER BY creation_ts LIMIT 1`).Scan(&user); err != nil {
		return "", fmt.Errorf("find a user in %s: %w", path, err)
	}
	_, name, _ := strings.Cut(user, ":")
	return name, nil
}

// measure runs one way once.
func (b *portBench) measure(ctx context.Context, w *way) (err error) {
	db, err := b.target(ctx, w.empty)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Drop(context.WithoutCancel(ctx))) }()
	cost, err := w.run(ctx, db)
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	w.costs.add(cost)
	return nil
}

// target is a new database, with what a checkpoint has to write already written.
func (b *portBench) target(ctx context.Context, empty bool) (*pgtest.DB, error) {
	options := []pgtest.Option{b.schema}
	if empty {
		options = nil
	}
	db, err := b.server.CreateDatabase(ctx, options...)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, db.AdminDSN())
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `CHECKPOINT`)
	return db, err
}

// doctor ports a file with the doctor, or ports it again.
func (b *portBench) doctor(ctx context.Context, db *pgtest.DB, file string) (portCost, error) {
	dir := filepath.Join(b.dir, db.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return portCost{}, err
	}
	config, err := db.WriteHomeserver(dir)
	if err != nil {
		return portCost{}, err
	}
	text, err := os.ReadFile(config)
	if err != nil {
		return portCost{}, err
	}
	text = []byte(strings.Replace(string(text), "server_name: test.example", "server_name: "+b.serverName, 1))
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return portCost{}, err
	}
	c := command{args: []string{b.program, "fix", "port", "--apply", "--yes", "-c", config, "--sqlite", file},
		env: append(environment(), "SYNAPSE_DOCTOR_STATE_DIR="+filepath.Join(dir, "state"))}
	cost, err := b.watch(ctx, c)
	if err != nil {
		return cost, err
	}
	cost.parts, err = partsOf(ctx, db)
	return cost, err
}

// partsOf are how long the sessions of a port were at its parts, by the record that it leaves.
func partsOf(ctx context.Context, db *pgtest.DB) (map[string]time.Duration, error) {
	conn, err := pgx.Connect(ctx, db.DSN())
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	var stage string
	var seconds map[string]float64
	if err := conn.QueryRow(ctx, `SELECT stage, seconds FROM synapse_doctor.port`).Scan(&stage, &seconds); err != nil {
		return nil, fmt.Errorf("read the port's record: %w", err)
	}
	if stage != "complete" {
		return nil, fmt.Errorf("the port's record says %s, not complete", stage)
	}
	parts := map[string]time.Duration{}
	for name, s := range seconds {
		parts[name] = time.Duration(s * float64(time.Second))
	}
	return parts, nil
}

// pgloader moves all but the search: it can't make the vectors. By default it reads so many rows at once that it runs out of
// memory; with fewer it works. Indexes stay: to have it drop them and make them again took as long with 1.9 GB, and twice
// as long with a tenth of that.
func (b *portBench) pgloader(program string) func(context.Context, *pgtest.DB) (portCost, error) {
	return func(ctx context.Context, db *pgtest.DB) (portCost, error) {
		dir := filepath.Join(b.dir, db.Name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return portCost{}, err
		}
		defer os.RemoveAll(dir)
		file := filepath.Join(dir, "port.load")
		text := fmt.Sprintf(pgloaderCommands, b.file.path, db.User, db.Password, db.Host, db.Port, db.Name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return portCost{}, err
		}
		cost, err := b.watch(ctx, command{args: []string{program, "--quiet", "--root-dir", dir, "--on-error-stop", file}, env: environment()})
		if err != nil {
			return cost, err
		}
		return cost, b.expectRows(ctx, db)
	}
}

const pgloaderCommands = `LOAD DATABASE FROM sqlite://%s INTO postgresql://%s:%s@%s:%d/%s
WITH data only, truncate, reset no sequences, prefetch rows = 5000
EXCLUDING TABLE NAMES LIKE 'event_search%%', 'user_directory_search%%', 'sqlite_%%', 'schema_version', 'schema_compat_version',
  'applied_schema_deltas', 'background_updates', 'worker_read_write_locks%%';
`

// expectRows sees that a tool that goes on after an error has not left out what most of the work is.
func (b *portBench) expectRows(ctx context.Context, db *pgtest.DB) error {
	conn, err := pgx.Connect(ctx, db.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, f := range b.files {
		if f.table == "event_search" || f.rows < 10_000 {
			continue
		}
		var rows int64
		if err := conn.QueryRow(ctx, `SELECT count(*) FROM `+f.table).Scan(&rows); err != nil {
			return err
		}
		if rows != f.rows {
			return fmt.Errorf("%s has %d rows and not %d", f.table, rows, f.rows)
		}
	}
	return nil
}

// where is what the result is about.
func (b *portBench) where() string {
	return strconv.Itoa(runtime.NumCPU()) + " CPUs" + load()
}
