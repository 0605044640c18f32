package rebuild

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// workers is how many sessions read, and as many write, at the same time.
const workers = 2

// closeConn ends a session of the work.
func closeConn(conn *pgx.Conn) { pgdb.Close(conn) }

// mismatchError is a difference between the two databases.
type mismatchError struct{ text string }

func (e *mismatchError) Error() string { return e.text }

func mismatch(format string, args ...any) error { return &mismatchError{fmt.Sprintf(format, args...)} }

// filling is the work on the new database, from empty to complete.
type filling struct {
	*task
	source   facts
	programs programs
	place    *workplace
	archive  string // the dump of the schema
	snapshot string // in which everything is read
	old      *pgx.Conn
	tables   []table
	vectors  map[string]synapse.SearchVector // that are made anew, by the table's qualified name
	reads    [2]reading                      // how the old and the new database are added up
	sums     map[string]sum                  // of the old one
	done     atomic.Int64                    // bytes of tables that are copied
	total    int64
}

func (k *task) fill(ctx context.Context) (err error) {
	f := &filling{task: k, sums: map[string]sum{}}
	if f.source, err = readFacts(ctx, k.main, k.p.database); err != nil {
		return err
	}
	if err := k.spendMemory(ctx); err != nil {
		return err
	}
	if f.programs, err = findPrograms(ctx, f.source.Version, k.db.DataDir); err != nil {
		return err
	}
	if f.place, err = k.newWorkplace(); err != nil {
		return err
	}
	defer func() {
		if removed := f.place.remove(); err == nil {
			err = removed
		}
	}()
	if f.old, err = k.session(ctx, k.p.database); err != nil {
		return err
	}
	defer closeConn(f.old)
	if err := f.hold(ctx); err != nil {
		return err
	}
	if err := f.old.QueryRow(ctx, `SELECT pg_export_snapshot()`).Scan(&f.snapshot); err != nil {
		return fmt.Errorf("begin to read the database %s: %w", k.p.database, err)
	}
	for _, part := range []func(context.Context) error{f.dump, f.preData, f.plan, f.copy, f.sequences, f.renewVectors, f.postData, f.analyze, f.compare, k.equip} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return k.setStage(ctx, stageComplete)
}

// hold begins the transaction in whose snapshot everything is read, and keeps even superusers from writing to the tables
// until it ends, which is just before the names are exchanged. The locks come first: the snapshot is then of what they hold.
func (f *filling) hold(ctx context.Context) error {
	tables, err := listTables(ctx, f.old)
	if err != nil {
		return err
	}
	statements := []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}
	for _, t := range tables {
		statements = append(statements, "LOCK TABLE ONLY "+t.qualified()+" IN SHARE MODE")
	}
	for _, statement := range statements {
		if _, err := f.old.Exec(ctx, statement); err != nil {
			return fmt.Errorf("keep others from writing to the database %s: %s: %w", f.p.database, statement, err)
		}
	}
	return nil
}

const memoryQuery = `SELECT least(524288, greatest(pg_size_bytes(current_setting('maintenance_work_mem')) / 1024, pg_size_bytes(current_setting('shared_buffers')) / 4096))`

// spendMemory lets an index be sorted in a quarter of what the server keeps for everybody, since nobody else is there.
func (k *task) spendMemory(ctx context.Context) error {
	var kilobytes int64
	if err := k.main.QueryRow(ctx, memoryQuery).Scan(&kilobytes); err != nil {
		return fmt.Errorf("ask for the server's memory: %w", err)
	}
	k.memory = fmt.Sprintf(" -c maintenance_work_mem=%dkB -c synchronous_commit=off", kilobytes)
	return nil
}

func (f *filling) say(text string) {
	f.task.say(doctor.Progress{Text: text, Done: f.done.Load(), Total: f.total, Unit: "bytes"})
}

// dump writes the schema into a file, in the snapshot. What it can't write in UTF8 stops it.
func (f *filling) dump(ctx context.Context) error {
	f.say("read the schema")
	f.archive = filepath.Join(f.place.dir, "schema.dump")
	return f.run(ctx, f.place, nil, f.p.database, f.programs.dump, "--format=custom", "--schema-only", "--encoding=UTF8", "--snapshot="+f.snapshot,
		"--exclude-table=synapse_doctor.rebuild", "--file="+f.archive)
}

// preData makes the tables and whatever they need, without indexes, constraints and triggers.
func (f *filling) preData(ctx context.Context) error {
	f.w.point("dumped")
	f.say("make the tables")
	if err := f.extensions(ctx); err != nil {
		return err
	}
	if err := f.run(ctx, f.place, nil, f.p.fresh, f.programs.restore, "--exit-on-error", "--single-transaction", "--section=pre-data", "--dbname=service=doctor", f.archive); err != nil {
		return fmt.Errorf("make the tables of the new database: %w", err)
	}
	f.w.point("pre-data")
	return nil
}

const extensionsQuery = `SELECT e.extname::text, n.nspname::text, e.extversion FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql' ORDER BY e.oid`

// extensions makes the extensions in the version that they have: pg_dump leaves it to the server, which takes the newest.
// One in a schema of its own is left to pg_dump, for which the schema must not be there yet.
func (f *filling) extensions(ctx context.Context) error {
	rows, err := f.old.Query(ctx, extensionsQuery)
	if err != nil {
		return fmt.Errorf("list the extensions: %w", err)
	}
	var statements []string
	var name, schema, version string
	_, err = pgx.ForEachRow(rows, []any{&name, &schema, &version}, func() error {
		if schema == "public" || schema == "pg_catalog" {
			statements = append(statements, fmt.Sprintf("CREATE EXTENSION IF NOT EXISTS %s SCHEMA %s VERSION %s", ident(name), ident(schema), literal(version)))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the extensions: %w", err)
	}
	if len(statements) == 0 {
		return nil
	}
	conn, err := f.session(ctx, f.p.fresh)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// plan decides how the tables are carried and compared.
func (f *filling) plan(ctx context.Context) error {
	var err error
	if f.tables, err = listTables(ctx, f.old); err != nil {
		return err
	}
	f.reads[0], f.reads[1] = f.p.readings(f.source)
	f.vectors = map[string]synapse.SearchVector{}
	if !f.source.sameCtype() {
		f.vectors = vectorsOf(f.tables)
	}
	skip := map[string]string{}
	for name := range f.vectors {
		skip[name] = "vector"
	}
	f.reads[0].skip, f.reads[1].skip = skip, skip
	f.reads[0].without = f.left
	for _, t := range f.tables {
		f.total += t.Bytes
	}
	return nil
}

// vectorsOf are the search vectors of the tables that are there.
func vectorsOf(tables []table) map[string]synapse.SearchVector {
	found := map[string]synapse.SearchVector{}
	there := map[string]bool{}
	for _, t := range tables {
		there[t.qualified()] = true
	}
	needs := map[string][]string{"event_search": {"event_json"}, "user_directory_search": {"user_directory", "schema_version"}}
	for _, t := range tables {
		for _, v := range synapse.SearchVectors(t.Schema) {
			if v.Table == t.Name && !slices.ContainsFunc(needs[v.Table], func(n string) bool { return !there[qualified(t.Schema, n)] }) {
				found[t.qualified()] = v
			}
		}
	}
	return found
}

// sequences sets every sequence to where the old one stands, called or not.
func (f *filling) sequences(ctx context.Context) error {
	states, err := sequences(ctx, f.old)
	if err != nil {
		return err
	}
	conn, err := f.session(ctx, f.p.fresh)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	for name, s := range states {
		if _, err := conn.Exec(ctx, `SELECT setval($1::text::regclass, $2, $3)`, name, s.last, s.called); err != nil {
			return fmt.Errorf("set the sequence %s: %w", name, err)
		}
	}
	f.w.point("sequences")
	return nil
}

// renewVectors makes the search vectors from their text, by the rules of the new database.
func (f *filling) renewVectors(ctx context.Context) error {
	if len(f.vectors) == 0 {
		return nil
	}
	f.say("make the search index anew")
	return inParallel(ctx, workers, func(ctx context.Context, part int) error {
		conn, err := f.session(ctx, f.p.fresh)
		if err != nil {
			return err
		}
		defer closeConn(conn)
		if _, err := conn.Exec(ctx, "SET synchronous_commit = off"); err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(f.vectors)) {
			v := f.vectors[name]
			if _, err := conn.Exec(ctx, v.Prepare); err != nil {
				return fmt.Errorf("prepare to make the search vectors of %s: %w", name, err)
			}
			if _, err := conn.Exec(ctx, v.Update, workers, part); err != nil {
				return fmt.Errorf("make the search vectors of %s: %w", name, err)
			}
		}
		f.w.point("vectors")
		return nil
	})
}

// postData makes indexes, constraints and triggers.
func (f *filling) postData(ctx context.Context) error {
	f.say("build the indexes")
	if err := f.run(ctx, f.place, nil, f.p.fresh, f.programs.restore, "--exit-on-error", fmt.Sprintf("--jobs=%d", workers), "--section=post-data", "--dbname=service=doctor", f.archive); err != nil {
		return fmt.Errorf("build the indexes of the new database: %w", err)
	}
	f.w.point("post-data")
	return nil
}

// analyze lets the planner know the new tables.
func (f *filling) analyze(ctx context.Context) error {
	f.say("gather statistics")
	next := queue(f.tables)
	return inParallel(ctx, workers, func(ctx context.Context, _ int) error {
		conn, err := f.session(ctx, f.p.fresh)
		if err != nil {
			return err
		}
		defer closeConn(conn)
		for t, ok := next(); ok; t, ok = next() {
			if _, err := conn.Exec(ctx, "ANALYZE "+t.qualified()); err != nil {
				return fmt.Errorf("analyze %s: %w", t.qualified(), err)
			}
		}
		return nil
	})
}
