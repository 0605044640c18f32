package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// The long work of the check locale, beside what an administrator would run instead: pg_amcheck, pg_dump with pg_restore,
// reindexdb. It is measured on the real homeserver's database, made larger; each run of a repair has a database of its own.

const jobs = 2 // the doctor's, and the others' -j

// duel is one thing to do, in two ways.
type duel struct {
	what          string
	doctor, other string // for people
	ours, theirs  func(context.Context) (spent, error)
	most          float64 // the ratio that is aimed at
}

func benchLocale(ctx context.Context, program string, rounds, doublings int) (err error) {
	data := os.Getenv("SYNAPSE_DOCTOR_DATA")
	if data == "" {
		fmt.Println("\nThe check locale was not timed: set SYNAPSE_DOCTOR_DATA to the directory of real Synapse databases.")
		return nil
	}
	server, err := pgtest.New(ctx, pgtest.Config{Locales: []string{"en_US.UTF-8"}, Settings: map[string]string{
		"shared_buffers": "1GB", "maintenance_work_mem": "256MB", "max_wal_size": "4GB", "autovacuum": "on",
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
	}})
	if err != nil {
		return fmt.Errorf("start a PostgreSQL server: %w", err)
	}
	defer server.Close()
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := localeBench{program: program, server: server, dir: dir}
	if b.template, err = server.CreateDatabase(ctx, pgtest.WithDump(filepath.Join(data, "synapse_ported.dump")),
		pgtest.WithCreate("ENCODING 'UTF8' LC_COLLATE 'en_US.UTF-8' LC_CTYPE 'en_US.UTF-8'")); err != nil {
		return err
	}
	if err := b.template.Double(ctx, doublings); err != nil {
		return err
	}
	if err := b.admin(ctx, b.template.Name, "CREATE EXTENSION amcheck"); err != nil {
		return err
	}
	if b.indexes, err = b.textIndexes(ctx); err != nil {
		return err
	}
	var size int64
	conn, err := pgx.Connect(ctx, b.template.AdminDSN())
	if err != nil {
		return err
	}
	err = conn.QueryRow(ctx, `SELECT pg_database_size(current_database())`).Scan(&size)
	conn.Close(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("\nThe check locale on synapse_ported.dump, made larger: %.0f MiB, %d indexes over text\n", mib(size), len(b.indexes))
	fmt.Printf("%d CPUs%s; %d rounds, after one to warm up\n\n", runtime.NumCPU(), load(), rounds)
	fmt.Printf("%-12s %-42s %9s %9s %9s   %s\n", "", "", "median", "fastest", "slowest", "ratio")
	for _, d := range b.duels() {
		if err := d.fight(ctx, os.Stdout, rounds); err != nil {
			return fmt.Errorf("%s: %w", d.what, err)
		}
	}
	return nil
}

func (d duel) fight(ctx context.Context, w io.Writer, rounds int) error {
	var ours, theirs times
	for round := range rounds + 1 {
		ways := []struct {
			run   func(context.Context) (spent, error)
			times *times
		}{{d.ours, &ours}, {d.theirs, &theirs}}
		for i := range ways {
			way := ways[(round+i)%len(ways)]
			took, err := way.run(ctx)
			if err != nil {
				return err
			}
			if round > 0 {
				way.times.add(took)
			}
		}
	}
	row := func(what, name string, t times) {
		fmt.Fprintf(w, "%-12s %-42s %9s %9s %9s", what, name, ms(median(t.wall)), ms(t.wall[0]), ms(t.wall[len(t.wall)-1]))
	}
	row(d.what, d.doctor, ours)
	verdict := "holds"
	if ratio(ours, theirs) > d.most {
		verdict = "MISSED"
	}
	fmt.Fprintf(w, "   %.2f× (aim: at most %.2f×)  %s\n", ratio(ours, theirs), d.most, verdict)
	row("", d.other, theirs)
	fmt.Fprintln(w)
	return nil
}

// localeBench makes databases and runs commands on them.
type localeBench struct {
	program  string
	server   *pgtest.Server
	dir      string
	template *pgtest.DB
	indexes  []string // pg_amcheck is given the same ones that the doctor looks at
	made     int
}

func (b *localeBench) duels() []duel {
	return []duel{
		{"deep check", "check locale --deep", fmt.Sprintf("pg_amcheck --heapallindexed -j%d", jobs), b.deep, b.amcheck, 1},
		{"rebuild", "fix locale --plan locale/rebuild --apply", fmt.Sprintf("pg_dump -Fd -j%d, pg_restore -j%d", jobs, jobs), b.fix("locale/rebuild"), b.dumpRestore, 1},
		{"in place", "fix locale --plan locale/in-place --apply", fmt.Sprintf("reindexdb -j%d", jobs), b.fix("locale/in-place"), b.reindexdb, 2},
	}
}

func (b *localeBench) admin(ctx context.Context, database, sql string) error {
	db := *b.template
	db.Name = database
	conn, err := pgx.Connect(ctx, db.AdminDSN())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

const textIndexesQuery = `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'btree' AND n.nspname = 'public' AND EXISTS (SELECT FROM unnest(i.indcollation::oid[]) k WHERE k <> 0)`

func (b *localeBench) textIndexes(ctx context.Context) ([]string, error) {
	conn, err := pgx.Connect(ctx, b.template.AdminDSN())
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, textIndexesQuery)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// fresh is a copy of the database, with what a checkpoint has to write already written.
func (b *localeBench) fresh(ctx context.Context) (*pgtest.DB, error) {
	b.made++
	db := *b.template
	db.Name = fmt.Sprintf("bench_%d", b.made)
	if err := b.admin(ctx, "postgres", fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s OWNER %s`, db.Name, b.template.Name, db.User)); err != nil {
		return nil, err
	}
	return &db, b.admin(ctx, "postgres", `CHECKPOINT`)
}

func (b *localeBench) drop(ctx context.Context, like string) error {
	conn, err := pgx.Connect(ctx, b.server.Admin())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database WHERE datname LIKE $1`, like+"%")
	if err != nil {
		return err
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// doctor is a command of the doctor on a database.
func (b *localeBench) doctor(db *pgtest.DB, args ...string) (command, error) {
	dir := filepath.Join(b.dir, db.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return command{}, err
	}
	config, err := db.WriteHomeserver(dir)
	if err != nil {
		return command{}, err
	}
	dsn := filepath.Join(dir, "admin")
	if err := os.WriteFile(dsn, []byte(b.server.Admin()), 0o600); err != nil {
		return command{}, err
	}
	return command{args: append(append([]string{b.program}, args...), "-c", config, "--admin-dsn", "@"+dsn),
		env: append(environment(), "SYNAPSE_DOCTOR_STATE_DIR="+filepath.Join(dir, "state"))}, nil
}

// deep is a deep check of the database itself, which is sound but for its locale.
func (b *localeBench) deep(ctx context.Context) (spent, error) {
	c, err := b.doctor(b.template, "check", "locale", "--deep", "--format", "json")
	if err != nil {
		return spent{}, err
	}
	c.mayExit = 2 // en_US is a finding
	return c.run(ctx)
}

func (b *localeBench) amcheck(ctx context.Context) (spent, error) {
	args := []string{b.tool("pg_amcheck"), "--heapallindexed", fmt.Sprintf("--jobs=%d", jobs), "--no-dependent-toast", "--host=" + b.server.SocketDir,
		fmt.Sprintf("--port=%d", b.server.Port), "--username=postgres", "--database=" + b.template.Name}
	for _, i := range b.indexes {
		args = append(args, "--index="+i)
	}
	return command{args: args, env: environment()}.run(ctx)
}

func (b *localeBench) fix(plan string) func(context.Context) (spent, error) {
	return func(ctx context.Context) (took spent, err error) {
		db, err := b.fresh(ctx)
		if err != nil {
			return spent{}, err
		}
		defer func() { err = errors.Join(err, b.drop(context.WithoutCancel(ctx), db.Name)) }()
		c, err := b.doctor(db, "fix", "locale", "--plan", plan, "--apply", "--yes-dangerous")
		if err != nil {
			return spent{}, err
		}
		return c.run(ctx)
	}
}

// dumpRestore does what the documentation tells, and verifies nothing.
func (b *localeBench) dumpRestore(ctx context.Context) (took spent, err error) {
	db, err := b.fresh(ctx)
	if err != nil {
		return spent{}, err
	}
	defer func() { err = errors.Join(err, b.drop(context.WithoutCancel(ctx), db.Name)) }()
	target := db.Name + "_new"
	if err := b.admin(ctx, "postgres", fmt.Sprintf(`CREATE DATABASE %s TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' OWNER %s`, target, db.User)); err != nil {
		return spent{}, err
	}
	dump := filepath.Join(b.dir, "dump")
	defer os.RemoveAll(dump)
	where := []string{"--host=" + b.server.SocketDir, fmt.Sprintf("--port=%d", b.server.Port), "--username=postgres"}
	for _, args := range [][]string{
		append([]string{b.tool("pg_dump"), "--format=directory", fmt.Sprintf("--jobs=%d", jobs), "--file=" + dump, "--dbname=" + db.Name}, where...),
		append([]string{b.tool("pg_restore"), fmt.Sprintf("--jobs=%d", jobs), "--dbname=" + target, dump}, where...),
		append([]string{b.tool("vacuumdb"), "--analyze-only", "--quiet", fmt.Sprintf("--jobs=%d", jobs), "--dbname=" + target}, where...),
	} {
		s, err := command{args: args, env: environment()}.run(ctx)
		if err != nil {
			return spent{}, err
		}
		took.wall, took.cpu = took.wall+s.wall, took.cpu+s.cpu
	}
	return took, nil
}

func (b *localeBench) reindexdb(ctx context.Context) (took spent, err error) {
	db, err := b.fresh(ctx)
	if err != nil {
		return spent{}, err
	}
	defer func() { err = errors.Join(err, b.drop(context.WithoutCancel(ctx), db.Name)) }()
	// Of several indexes reindexdb makes one after the other: of a database, as many as it has jobs.
	return command{args: []string{b.tool("reindexdb"), fmt.Sprintf("--jobs=%d", jobs), "--host=" + b.server.SocketDir,
		fmt.Sprintf("--port=%d", b.server.Port), "--username=postgres", "--dbname=" + db.Name}, env: environment()}.run(ctx)
}

// tool is the real program, not Debian's wrapper of the same name.
func (b *localeBench) tool(name string) string {
	if path := filepath.Join(b.server.BinDir, name); exec.Command(path, "--version").Run() == nil {
		return path
	}
	return name
}
