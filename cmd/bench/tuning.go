package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/synapse-doctor/synapse-doctor/checks/tuning"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// The values that the check tuning would choose, beside PostgreSQL's defaults and those of pgtune: in one run, in rounds
// that take turns, on a real homeserver's database that was made larger, with the queries that Synapse asks most. Where
// control groups can be made, the server has the memory of the machine that the values are for, and no more.

const (
	tuningWarm    = 6 * time.Second
	tuningSlice   = 1500 * time.Millisecond
	tuningClients = 4
	// tuningNoise is by how much two servers of the same values differ on a machine that does other things, too.
	tuningNoise = 0.05
)

// values are settings by the name of who chose them.
type values struct {
	name     string
	settings map[string]string
}

// pgtune is what pgtune's formulas give for Linux and an SSD: web shares memory among 200 connections, mixed halves work_mem.
func pgtune(profile string, memory int64) values {
	const kb, mb, gb = 1 << 10, 1 << 20, 1 << 30
	connections, divisor := int64(200), int64(1)
	if profile == "mixed" {
		connections, divisor = 100, 2
	}
	buffers := memory / 4
	work := max((memory-buffers)/((connections+8)*3)/divisor, 64*kb) // 8: max_worker_processes
	size := func(b int64) string { return strconv.FormatInt(b/kb, 10) + "kB" }
	s := map[string]string{
		"max_connections": strconv.FormatInt(connections, 10), "shared_buffers": size(buffers), "effective_cache_size": size(memory * 3 / 4),
		"maintenance_work_mem": size(min(memory/16, 2*gb)), "checkpoint_completion_target": "0.9", "wal_buffers": size(min(buffers*3/100, 16*mb)),
		"default_statistics_target": "100", "random_page_cost": "1.1", "effective_io_concurrency": "200", "work_mem": size(work),
		"huge_pages": "off", "min_wal_size": "1GB", "max_wal_size": "4GB",
	}
	if memory >= 32*gb {
		s["huge_pages"] = "try"
	}
	return values{"pgtune " + profile, s}
}

func benchTuning(ctx context.Context, rounds, doublings int) (err error) {
	data := os.Getenv("SYNAPSE_DOCTOR_DATA")
	if data == "" {
		return errors.New("the settings are timed on a real homeserver's database: set SYNAPSE_DOCTOR_DATA to the directory of real Synapse databases")
	}
	b := tuningBench{rounds: rounds}
	defer b.close()
	for range contenders {
		c, err := newContender(ctx, filepath.Join(data, "synapse_ported.dump"), doublings)
		if err != nil {
			return err
		}
		b.servers = append(b.servers, c)
	}
	if err := b.look(ctx); err != nil {
		return err
	}
	fmt.Printf("PostgreSQL's settings on synapse_ported.dump, made larger: %.0f MiB; %d clients on %d CPUs%s\n", mib(b.host.Size), tuningClients, runtime.NumCPU(), load())
	fmt.Printf("Four servers take turns, %d rounds of %s each, after %s to warm up. An iteration is a read of a group's state, a\nsync of a room (its last events and their JSON), and, in one of %d, an event that is written.\n", rounds, tuningSlice, tuningWarm, writeOneIn)
	for _, memory := range []int64{1 << 30, 4 << 30, 24 << 30} {
		if err := b.machine(ctx, memory); err != nil {
			return fmt.Errorf("%.0f GiB: %w", mib(memory)/1024, err)
		}
	}
	return nil
}

// contenders is how many sets of values are compared.
const contenders = 4

// contender is a server of its own, with the same database as the others.
type contender struct {
	server *pgtest.Server
	db     *pgtest.DB
	group  memoryGroup
	conns  []*pgx.Conn
}

func newContender(ctx context.Context, dump string, doublings int) (*contender, error) {
	server, err := pgtest.New(ctx, pgtest.Config{Settings: map[string]string{"autovacuum": "on", "synchronous_commit": "on", "full_page_writes": "on"}})
	if err != nil {
		return nil, fmt.Errorf("start a PostgreSQL server: %w", err)
	}
	c := &contender{server: server}
	if c.db, err = server.CreateDatabase(ctx, pgtest.WithDump(dump)); err == nil {
		err = c.db.Double(ctx, doublings)
	}
	if err != nil {
		server.Close()
		return nil, err
	}
	return c, nil
}

// disconnect ends the clients' sessions.
func (c *contender) disconnect(ctx context.Context) {
	for _, conn := range c.conns {
		conn.Close(context.WithoutCancel(ctx))
	}
	c.conns = nil
}

type tuningBench struct {
	servers []*contender
	rounds  int
	host    tuning.Host
	sample  struct {
		groups []int64
		rooms  []string
		events []string
	}
}

func (b *tuningBench) close() {
	for _, c := range b.servers {
		c.disconnect(context.Background())
		c.server.Close()
		c.group.remove()
	}
}

// look reads what the values depend on, and what the queries ask for.
func (b *tuningBench) look(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.servers[0].db.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	h := &b.host
	h.Disk, h.Connections, h.Workers = doctor.DiskSSD, 20, 3
	err = conn.QueryRow(ctx, `SELECT pg_database_size(current_database()), max(relpages) FILTER (WHERE relkind = 'i') * 8192::bigint, max(reltuples)::float8,
		current_setting('server_version_num')::int / 10000, current_setting('hash_mem_multiplier')::float8 FROM pg_class`).
		Scan(&h.Size, &h.Index, &h.Rows, &h.Major, &h.HashFactor)
	if err != nil {
		return err
	}
	return conn.QueryRow(ctx, `SELECT (SELECT array_agg(id) FROM (SELECT id FROM state_groups ORDER BY hashint8(id) LIMIT 5000) g),
		(SELECT array_agg(room_id) FROM (SELECT room_id FROM rooms ORDER BY hashtext(room_id) LIMIT 2000) r),
		(SELECT array_agg(event_id) FROM (SELECT event_id FROM events ORDER BY hashtext(event_id) LIMIT 5000) e)`).
		Scan(&b.sample.groups, &b.sample.rooms, &b.sample.events)
}

// machine compares the values for a machine of this size.
func (b *tuningBench) machine(ctx context.Context, memory int64) error {
	// A tenth is the operating system's. Synapse runs elsewhere, as pgtune takes for granted.
	b.host.Left = memory - max(memory/10, 100<<20)
	all := [contenders]values{{"defaults", nil}, {"the doctor's", b.host.Values()}, pgtune("web", memory), pgtune("mixed", memory)}
	for i, c := range b.servers {
		if err := c.start(ctx, all[i], memory, i); err != nil {
			return fmt.Errorf("%s: %w", all[i].name, err)
		}
		if _, err := b.load(ctx, c, tuningWarm, 0); err != nil {
			return fmt.Errorf("%s: %w", all[i].name, err)
		}
	}
	rates := make([][]float64, len(all))
	for round := range b.rounds {
		for i := range all {
			n := (round + i) % len(all)
			rate, err := b.load(ctx, b.servers[n], tuningSlice, uint64(round+1))
			if err != nil {
				return fmt.Errorf("%s: %w", all[n].name, err)
			}
			rates[n] = append(rates[n], rate)
		}
	}
	fmt.Printf("\nA machine of %.0f GiB (%s)\n", mib(memory)/1024, b.servers[0].group)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tshared_buffers\twork_mem\tper second, median\tlowest\thighest\tagainst defaults\t")
	for i, v := range all {
		base := paired(rates[i], rates[0])
		shown := func(name, otherwise string) string {
			if s, ok := v.settings[name]; ok {
				return s
			}
			return otherwise
		}
		verdict := ""
		if i == 1 {
			verdict = "holds"
			if base < 1-tuningNoise {
				verdict = "MISSED"
			}
		}
		sorted := slices.Sorted(slices.Values(rates[i]))
		fmt.Fprintf(w, "%s\t%s\t%s\t%.0f\t%.0f\t%.0f\t%.2f×\t%s\n", v.name, shown("shared_buffers", "128MB"), shown("work_mem", "4MB"),
			middle(rates[i]), sorted[0], sorted[len(sorted)-1], base, verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for i := 2; i < len(all); i++ {
		fmt.Printf("the doctor's ÷ %s: %.2f×\n", all[i].name, paired(rates[1], rates[i]))
	}
	return nil
}

// paired is the median of the ratios of the rounds.
func paired(ours, theirs []float64) float64 {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i] / theirs[i]
	}
	return middle(ratios)
}

// middle is the median.
func middle(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// start gives the server its values and the memory of the machine, and empties the kernel's cache of its files.
func (c *contender) start(ctx context.Context, v values, memory int64, number int) error {
	c.disconnect(ctx)
	statements := []string{"ALTER SYSTEM RESET ALL", "ALTER SYSTEM SET shared_buffers = '128MB'", "ALTER SYSTEM SET max_connections = 100", "ALTER SYSTEM SET fsync = on"}
	for name, value := range v.settings {
		statements = append(statements, fmt.Sprintf("ALTER SYSTEM SET %s = '%s'", name, value))
	}
	conn, err := pgx.Connect(ctx, c.server.Admin())
	if err != nil {
		return err
	}
	for _, s := range append(statements, "CHECKPOINT") {
		if _, err := conn.Exec(ctx, s); err != nil {
			conn.Close(context.WithoutCancel(ctx))
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	conn.Close(ctx)
	if err := c.server.Restart(ctx); err != nil {
		return err
	}
	c.group = newMemoryGroup(memory, number)
	text, err := os.ReadFile(filepath.Join(c.server.DataDir, "postmaster.pid"))
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return err
	}
	c.group.add(append(children(pid), pid))
	if err := forget(c.server.DataDir); err != nil {
		return err
	}
	for range tuningClients {
		conn, err := pgx.Connect(ctx, c.db.DSN())
		if err != nil {
			return err
		}
		c.conns = append(c.conns, conn)
	}
	return nil
}

// forget has the kernel drop what it has cached of the files in a directory.
func forget(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // the server has removed it meanwhile
			}
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer f.Close()
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}

// memoryGroup is a control group that limits memory; without a directory none could be made.
type memoryGroup struct {
	dir    string
	memory int64
	whole  bool // the machine has no more than that anyway
}

func (g memoryGroup) String() string {
	switch {
	case g.whole:
		return "this machine has less or as much, all of which the server may use"
	case g.dir == "":
		return "no control group could be made: the server may use all of this machine's memory"
	}
	return "the server's control group has as much"
}

// newMemoryGroup makes a group below that of this process: for version 1 of control groups, or for 2 where memory is delegated.
func newMemoryGroup(memory int64, number int) memoryGroup {
	g := memoryGroup{memory: memory}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil && uint64(memory) >= uint64(info.Totalram)*uint64(info.Unit) {
		g.whole = true
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return g
	}
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		root, file := "/sys/fs/cgroup", "memory.max"
		if strings.Contains(","+f[1]+",", ",memory,") {
			root, file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if f[0] != "0" {
			continue
		}
		for _, parent := range []string{filepath.Join(root, f[2]), root} {
			dir := filepath.Join(parent, fmt.Sprintf("synapse-doctor-bench-%d-%d", os.Getpid(), number))
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				continue
			}
			limit := strconv.FormatInt(memory, 10)
			if g.whole {
				limit = "-1"
				if file == "memory.max" {
					limit = "max"
				}
			}
			if os.WriteFile(filepath.Join(dir, file), []byte(limit), 0) == nil {
				g.dir = dir
				return g
			}
			os.Remove(dir)
		}
	}
	return g
}

// remove removes the group, in which nothing runs any more.
func (g memoryGroup) remove() {
	if g.dir != "" {
		os.Remove(g.dir)
	}
}

func (g *memoryGroup) add(pids []int) {
	for _, pid := range pids {
		if g.dir != "" && os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0) != nil {
			if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); err == nil {
				g.dir = ""
			}
		}
	}
}

// The queries, in their shape, are those that Synapse asks: the state of a group along its chain of differences; the last
// events of a room, and their content; the rows of an event.
const (
	stateQuery = `WITH RECURSIVE chain(state_group) AS (VALUES ($1::bigint) UNION ALL
  SELECT e.prev_state_group FROM state_group_edges e JOIN chain c ON e.state_group = c.state_group)
SELECT DISTINCT ON (type, state_key) type, state_key, event_id FROM state_groups_state
WHERE state_group IN (SELECT state_group FROM chain) ORDER BY type, state_key, state_group DESC`
	roomQuery  = `SELECT event_id FROM events WHERE room_id = $1 AND stream_ordering <= $2 AND NOT outlier ORDER BY stream_ordering DESC LIMIT 30`
	jsonQuery  = `SELECT event_id, internal_metadata, json FROM event_json WHERE event_id = ANY ($1)`
	eventCopy  = `INSERT INTO events SELECT (jsonb_populate_record(e, jsonb_build_object('event_id', $2::text, 'stream_ordering', nextval('events_stream_seq')))).* FROM events e WHERE event_id = $1`
	jsonCopy   = `INSERT INTO event_json SELECT (jsonb_populate_record(e, jsonb_build_object('event_id', $2::text))).* FROM event_json e WHERE event_id = $1`
	edgeCopy   = `INSERT INTO event_edges (event_id, prev_event_id, is_state) VALUES ($2, $1, false)`
	groupCopy  = `INSERT INTO event_to_state_groups SELECT (jsonb_populate_record(e, jsonb_build_object('event_id', $2::text))).* FROM event_to_state_groups e WHERE event_id = $1`
	writeOneIn = 4
)

// load has the clients of a server work, on the same requests in the same round, and returns how many iterations a second
// they got through.
func (b *tuningBench) load(ctx context.Context, c *contender, span time.Duration, seed uint64) (float64, error) {
	begin := time.Now()
	counts, errs := make([]int, tuningClients), make([]error, tuningClients)
	var wg sync.WaitGroup
	for i := range tuningClients {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for ; errs[i] == nil && time.Since(begin) < span; counts[i]++ {
				errs[i] = b.iterate(ctx, c.conns[i], random, counts[i]%writeOneIn == 0)
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(begin).Seconds(), errors.Join(errs...)
}

func pick[T any](random *rand.Rand, from []T) T { return from[random.IntN(len(from))] }

func (b *tuningBench) iterate(ctx context.Context, conn *pgx.Conn, random *rand.Rand, write bool) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL enable_seqscan = off"); err != nil { // as Synapse does for this query
			return err
		}
		return drain(tx.Query(ctx, stateQuery, pick(random, b.sample.groups)))
	})
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, roomQuery, pick(random, b.sample.rooms), int64(1)<<62)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		return drain(tx.Query(ctx, jsonQuery, ids))
	})
	if err != nil || !write {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		like, id := pick(random, b.sample.events), fmt.Sprintf("$%016x%016x", random.Uint64(), time.Now().UnixNano())
		for _, s := range []string{eventCopy, jsonCopy, edgeCopy, groupCopy} {
			if _, err := tx.Exec(ctx, s, like, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// drain reads rows to their end.
func drain(rows pgx.Rows, err error) error {
	if err != nil {
		return err
	}
	for rows.Next() {
		rows.RawValues()
	}
	return rows.Err()
}
