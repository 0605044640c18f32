package port

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// Port is the name of the operation. Its parameter replace, when true, lets it replace what Synapse's own script has ported.
const Port = "port"

// lockClass is the first half of the advisory locks of a port: "port" in ASCII. The second is what is locked.
const (
	lockClass   = 0x706f7274
	runLock     = 1 // held by the one port that runs
	workersLock = 2 // shared by its sessions
)

// Work is how the operation goes about it.
type Work struct {
	// MakeSchema has the installed Synapse make its schema where there is none. Nil: as update_synapse_database does it.
	MakeSchema func(ctx context.Context, t *doctor.Target, d *doctor.Database, h doctor.OperationHost) error

	trace   func(point string) // for tests: where the work stands
	workers int                // for tests: how many sessions; 0: by the processors
	rows    int64              // for tests: of a chunk at most
}

// Operations are the operations of the check port.
func Operations() map[string]doctor.OperationFunc { return Work{}.Operations() }

// Operations are the operations, for [doctor.Check].
func (w Work) Operations() map[string]doctor.OperationFunc {
	return map[string]doctor.OperationFunc{Port: w.port}
}

// sessions is how many sessions load at the same time.
func (w Work) sessions() int {
	if w.workers > 0 {
		return w.workers
	}
	return min(8, runtime.GOMAXPROCS(0)+1)
}

// chunkRows is the most rows of a chunk.
func (w Work) chunkRows() int64 {
	if w.rows > 0 {
		return w.rows
	}
	return chunkRows
}

// bareRows is from how many rows on a table is filled without its unique indexes.
func (w Work) bareRows() int64 {
	if w.rows > 0 {
		return w.rows
	}
	return bareRows
}

// port brings a target to what the file has, wherever an earlier run has left it.
func (w Work) port(ctx context.Context, t *doctor.Target, step doctor.OperationStep, _ string, h doctor.OperationHost) (err error) {
	begun := time.Now()
	source, d := Pair(t)
	if source == nil || d == nil {
		needs := "a port needs the SQLite file (--sqlite) and the PostgreSQL database that it goes to (--postgres-config)"
		if path := step.Params["file"]; path != "" { // where a run that was interrupted is gone on with
			needs += ": the file was " + path + ", and the newest is taken"
		}
		return doctor.Unchanged("%s", needs)
	}
	if err := undivided(t); err != nil {
		return err
	}
	p := &porting{w: w, path: source.Path, stop: h.Stopping(), track: newTracker(h.Progress)}
	defer p.dismiss()
	p.track.say("look at both sides")
	file, err := p.openFile(ctx)
	if err != nil {
		return err
	}
	defer file.Close()
	defer func() { err = p.guard.explain(err) }()
	home, err := ReadHomeserver(ctx, file, t.ServerName)
	if err != nil {
		return err
	}
	if err := sourceUpdates(ctx, file); err != nil {
		return err
	}
	conn, err := session(ctx, d)
	if err != nil {
		return doctor.Unchanged("%v", err)
	}
	defer pgdb.Close(conn)
	if err := suits(ctx, conn, d); err != nil {
		return err
	}
	if err := lock(ctx, conn); err != nil {
		return err
	}
	if err := otherSessions(ctx, conn); err != nil {
		return err
	}
	standing, err := admit(ctx, conn, file, home, step.Params["replace"] == "true")
	if err != nil {
		return err
	}
	if standing == Absent || standing == Fresh {
		makes := w.MakeSchema
		if makes == nil {
			makes = makeSchema
		}
		if err := makes(ctx, t, d, h); err != nil {
			return err
		}
	}
	if p.match, err = matched(ctx, conn, file, t.SkipTables); err != nil {
		return err
	}
	again := standing == Ours
	if again {
		if err := makeState(ctx, conn); err != nil {
			return err
		}
		if err := writtenSince(ctx, conn, p.match.Tables); err != nil {
			return err
		}
	}
	id, err := fileIdentity(ctx, p.path)
	if err != nil {
		return err
	}
	if !again {
		if err := makeState(ctx, conn); err != nil {
			return err
		}
	}
	complete, err := wasComplete(ctx, conn)
	if err != nil {
		return err
	}
	if err := beginRun(ctx, conn, home, p.path, id); err != nil {
		return err
	}
	p.point("begun")
	if p.memory, err = buildMemory(ctx, conn, w.sessions()); err != nil {
		return err
	}
	if err := p.hire(ctx, w.sessions(), d); err != nil {
		return err
	}
	if err := p.load(ctx, conn); err != nil {
		return err
	}
	if !complete || p.changed() {
		p.track.say("set sequences, and have the user directory made anew")
		if err := settle(ctx, conn, p.match); err != nil {
			return err
		}
		p.point("settled")
	}
	if err := p.guard.check(); err != nil {
		return err
	}
	seconds := p.shares(len(p.workers))
	seconds["total"] = time.Since(begun).Seconds()
	if err := endRun(ctx, conn, p.path, id, seconds); err != nil {
		return err
	}
	text, err := p.report(ctx, conn, seconds)
	if err != nil {
		return err
	}
	h.Document("port.md", text)
	return nil
}

// explain tells of a change of the file instead of what was read of it meanwhile: that may be anything, such as "malformed".
func (g *guard) explain(err error) error {
	if _, is := errors.AsType[*sqlitedb.Error](err); is {
		return firstError(g.check(), err)
	}
	return err
}

// openFile opens the file, and remembers it as it is.
func (p *porting) openFile(ctx context.Context) (file *sqlitedb.DB, err error) {
	if p.guard, err = newGuard(p.path); err == nil {
		file, err = sqlitedb.Open(ctx, p.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, doctor.Unchanged("there is no file %s: look for the path in homeserver.yaml", p.path)
	}
	if err != nil {
		return nil, doctor.Unchanged("%v", err)
	}
	return file, nil
}

// sourceUpdates refuses a file in which Synapse has not finished its background updates: they change what is copied.
func sourceUpdates(ctx context.Context, file *sqlitedb.DB) error {
	var names []string
	err := eachRow(ctx, file, "SELECT update_name FROM background_updates ORDER BY 1", func(s *sqlitedb.Stmt) error {
		names = append(names, s.String(0))
		return nil
	})
	if err == nil && len(names) > 0 {
		return doctor.Unchanged("%s has background updates that are not finished: %s. Start Synapse on it until they are, then make a new snapshot", file.Path(), few(names))
	}
	return err
}

// suits makes sure that the target can take what is copied, and that its sessions are the server's own.
func suits(ctx context.Context, conn *pgx.Conn, d *doctor.Database) error {
	var pid int64
	var encoding string
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid(), current_setting('server_encoding')").Scan(&pid, &encoding); err != nil {
		return fmt.Errorf("look at %s: %w", d.Where(), err)
	}
	if uint32(pid) != conn.PgConn().PID() {
		return doctor.Unchanged("the connection to %s leads through a pooler, such as PgBouncer, through which nothing can be locked: give the server's own address and port", d.Where())
	}
	if encoding != "UTF8" {
		return doctor.Unchanged("%s is in the encoding %s, and Synapse needs UTF8: make it anew (synapse-doctor check database says how)", d.Where(), encoding)
	}
	return hashAgrees(ctx, conn)
}

const (
	lockPause = 200 * time.Millisecond
	lockGrace = 10 * time.Second // a server notices within 5 s that a killed doctor is gone
)

// lock waits for what a killed port has left, and keeps every other port away until the session ends.
func lock(ctx context.Context, conn *pgx.Conn) error {
	for _, which := range []int{runLock, workersLock} {
		for start := time.Now(); ; {
			var got bool
			if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1, $2)`, lockClass, which).Scan(&got); err != nil {
				return fmt.Errorf("lock the port: %w", err)
			}
			if got {
				break
			}
			if time.Since(start) > lockGrace {
				return doctor.Unchanged("another port into this database runs, or what a killed one has left has not ended yet: wait for it, then run this again")
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(lockPause):
			}
		}
	}
	_, err := conn.Exec(ctx, `SELECT pg_advisory_unlock($1, $2)`, lockClass, workersLock)
	return err
}

// matched reads what both sides have, and refuses what would be left behind.
func matched(ctx context.Context, conn *pgx.Conn, file *sqlitedb.DB, skip []string) (m *Match, err error) {
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := SameSchema(ctx, tx, file); err != nil {
			return err
		}
		m, err = ReadMatch(ctx, tx, file)
		return err
	})
	if err != nil {
		return nil, err
	}
	needed := m.Skip(skip)
	switch {
	case len(needed) > 0:
		return nil, doctor.Unchanged("%s on both sides, and not left behind: --skip-table is for what only the SQLite file has. Take %s out of the command",
			tablesIs(needed), few(needed))
	case len(m.OnlySource) > 0:
		return nil, doctor.Unchanged("%s in the SQLite file and not in the target, and would be left behind: %s. They are a module's, mostly: have it make its tables in the target, "+
			"or leave them with --skip-table %s", tablesAre(len(m.OnlySource)), few(m.OnlySource), strings.Join(m.OnlySource, " --skip-table "))
	case len(m.Unequal) > 0:
		return nil, doctor.Unchanged("the tables of the two sides differ: %s. Bring both to the same version of Synapse, and of its modules", strings.Join(m.Unequal, "; "))
	}
	return m, nil
}

func tablesIs(names []string) string {
	if len(names) == 1 {
		return "the table " + names[0] + " is"
	}
	return "the tables " + few(names) + " are"
}

func tablesAre(n int) string {
	if n == 1 {
		return "one table is"
	}
	return fmt.Sprintf("%d tables are", n)
}

// Skip leaves out tables that the administrator does not want to be moved. It returns those that have a place in the target:
// Synapse, or a module, would find them empty there, so that they are not left out.
func (m *Match) Skip(names []string) (needed []string) {
	skip := func(name string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	}
	for _, t := range m.Tables {
		if skip(t.Name) || skip(t.Source) {
			needed = append(needed, t.Name)
		}
	}
	for _, name := range m.OnlySource {
		if skip(name) {
			m.Left[name] = "--skip-table names it"
		}
	}
	m.OnlySource = slices.DeleteFunc(m.OnlySource, skip)
	return needed
}

// Unported are the tables of both sides that no run of the port has taken: they were made in the target after it.
func (m *Match) Unported(r *Record) (names []string) {
	for _, t := range m.Tables {
		if !slices.ContainsFunc(r.Tables, func(of TableRecord) bool { return of.Name == t.Name && of.Verified }) {
			names = append(names, t.Name)
		}
	}
	return names
}

// SameSchema refuses two sides that different versions of Synapse have made: the versions must be equal, and so must the steps
// that are not one engine's alone. What is older than either's first step was in the schema that it began with.
func SameSchema(ctx context.Context, tx pgx.Tx, file *sqlitedb.DB) error {
	type schema struct {
		version, first int64
		deltas         map[string]int64
	}
	source, target := schema{deltas: map[string]int64{}}, schema{deltas: map[string]int64{}}
	add := func(s *schema, version int64, name string) {
		if s.first == 0 || version < s.first {
			s.first = version
		}
		if ext := path.Ext(name); ext != ".postgres" && ext != ".sqlite" {
			s.deltas[name] = version
		}
	}
	var err error
	if source.version, err = file.Int(ctx, "SELECT version FROM schema_version"); err != nil {
		return err
	}
	err = eachRow(ctx, file, "SELECT version, file FROM applied_schema_deltas", func(s *sqlitedb.Stmt) error {
		add(&source, s.Int(0), s.String(1))
		return nil
	})
	if err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, "SELECT version FROM schema_version").Scan(&target.version); err != nil {
		return fmt.Errorf("read the version of the target's schema: %w", err)
	}
	rows, err := tx.Query(ctx, "SELECT version::int8, file FROM applied_schema_deltas")
	if err != nil {
		return fmt.Errorf("read the steps of the target's schema: %w", err)
	}
	var version int64
	var name string
	if _, err := pgx.ForEachRow(rows, []any{&version, &name}, func() error { add(&target, version, name); return nil }); err != nil {
		return fmt.Errorf("read the steps of the target's schema: %w", err)
	}
	if source.version != target.version {
		older := "the SQLite file's"
		if target.version < source.version {
			older = "the target's"
		}
		return doctor.Unchanged("the schemas are of different versions: %d in the SQLite file, %d in the target. Bring %s to the other's first, by starting the newer Synapse on it once",
			source.version, target.version, older)
	}
	from := max(source.first, target.first)
	for _, side := range []struct {
		name string
		a, b schema
	}{{"the SQLite file", target, source}, {"the target", source, target}} {
		var missing []string
		for _, delta := range slices.Sorted(maps.Keys(side.a.deltas)) {
			if _, there := side.b.deltas[delta]; !there && side.a.deltas[delta] >= from {
				missing = append(missing, delta)
			}
		}
		if len(missing) > 0 {
			return doctor.Unchanged("the schemas were made by different versions of Synapse: %s lacks %s. Start the newer Synapse on it once, so that both are the same", side.name, few(missing))
		}
	}
	return nil
}

func wasComplete(ctx context.Context, conn *pgx.Conn) (complete bool, err error) {
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM synapse_doctor.port WHERE stage = 'complete')`).Scan(&complete)
	if err != nil {
		return false, fmt.Errorf("read how far the port is: %w", err)
	}
	return complete, nil
}

// buildMemory lets an index be sorted in a part of what the server keeps for everybody, since nobody else is there.
func buildMemory(ctx context.Context, conn *pgx.Conn, sessions int) (string, error) {
	var kilobytes int64
	err := conn.QueryRow(ctx, `SELECT least(1048576, greatest(pg_size_bytes(current_setting('maintenance_work_mem')) / 1024, pg_size_bytes(current_setting('shared_buffers')) / 2048 / $1))`, sessions).Scan(&kilobytes)
	if err != nil {
		return "", fmt.Errorf("ask for the server's memory: %w", err)
	}
	return fmt.Sprintf("%dkB", kilobytes), nil
}

// load brings the target to what the file has: what has changed is found, copied and proved. The session of conn is for
// statements between the jobs.
func (p *porting) load(ctx context.Context, conn *pgx.Conn) error {
	var err error
	if p.states, err = readStates(ctx, conn, p.match.Tables); err != nil {
		return err
	}
	for i, s := range p.states {
		p.match.Tables[i].Key = s.Key
	}
	for _, part := range []func(context.Context, *pgx.Conn) error{p.examine, p.ready, p.copy} {
		if err := p.stopped(); err != nil {
			return err
		}
		if err := part(ctx, conn); err != nil {
			return err
		}
	}
	return nil
}

// changed reports whether anything was done to a table.
func (p *porting) changed() bool {
	return slices.ContainsFunc(p.states, func(s *tableState) bool { return s.decision != asItIs || s.proving })
}

// shares is how long the sessions were at what, as a share of the whole time.
func (p *porting) shares(sessions int) map[string]float64 {
	out := map[string]float64{}
	for what, seconds := range p.seconds {
		out[what] = seconds / float64(max(1, sessions))
	}
	return out
}
