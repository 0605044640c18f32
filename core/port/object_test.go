package port

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// emptySchema is a database with the schema of a real Synapse and no homeserver.
func emptySchema(t *testing.T) *pgtest.DB {
	return pgtest.Start(t).Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_empty.dump")))
}

// plainTables are tables of the target with what the catalog says of them; none of their columns is hashed.
func plainTables(t *testing.T, conn *pgx.Conn, names ...string) []Table {
	t.Helper()
	rows, err := conn.Query(t.Context(), `SELECT relname::text, format('%I.%I', relnamespace::regnamespace, relname), oid FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND (cardinality($1::text[]) = 0 OR relname = ANY ($1)) ORDER BY 1`, append([]string{}, names...))
	if err != nil {
		t.Fatal(err)
	}
	var tables []Table
	var one Table
	if _, err := pgx.ForEachRow(rows, []any{&one.Name, &one.Ident, &one.OID}, func() error { tables = append(tables, one); return nil }); err != nil {
		t.Fatal(err)
	}
	return tables
}

// copiedTable is a table with every column hashed as it is.
func copiedTable(t *testing.T, conn *pgx.Conn, name string) Table {
	t.Helper()
	table := plainTables(t, conn, name)[0]
	rows, err := conn.Query(t.Context(), `SELECT attname::text FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY 1`, table.OID)
	if err != nil {
		t.Fatal(err)
	}
	columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range columns {
		table.Columns = append(table.Columns, Column{Name: c, Hashed: quote(c)})
	}
	return table
}

const schemaQuery = `SELECT kind || ' ' || name || ': ' || text FROM (
SELECT 'index' AS kind, i.indexrelid::regclass::text AS name, concat_ws(' ', pg_get_indexdef(i.indexrelid), to_jsonb(i) - '{indexrelid,indrelid,indpred,indexprs}'::text[], ts.spcname, x.reloptions,
  obj_description(i.indexrelid, 'pg_class'), x.relowner::regrole, (SELECT string_agg(a.attnum || '=' || a.attstattarget, ',') FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0)) AS text
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid LEFT JOIN pg_tablespace ts ON ts.oid = x.reltablespace WHERE x.relnamespace <> ALL ('{pg_catalog,pg_toast}'::regnamespace[])
UNION ALL SELECT 'constraint', k.conrelid::regclass || ' ' || k.conname, concat_ws(' ', pg_get_constraintdef(k.oid), k.convalidated, k.condeferrable, k.condeferred, k.confupdtype, k.confdeltype, obj_description(k.oid, 'pg_constraint'))
FROM pg_constraint k WHERE k.connamespace = 'public'::regnamespace
UNION ALL SELECT 'triggers', g.tgrelid::regclass::text, string_agg(concat_ws(' ', CASE WHEN g.tgisinternal THEN g.tgfoid::regproc::text ELSE g.tgname END, g.tgenabled, g.tgdeferrable, g.tginitdeferred), ',' ORDER BY g.tgfoid::regproc::text, g.tgname !~ '^RI_', g.tgdeferrable, g.tginitdeferred)
FROM pg_trigger g GROUP BY g.tgrelid) s ORDER BY 1`

func schemaOfTarget(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), schemaQuery)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func wantSameSchema(t *testing.T, before, after []string) {
	t.Helper()
	for _, line := range before {
		if !slices.Contains(after, line) {
			t.Errorf("gone: %s", line)
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			t.Errorf("new: %s", line)
		}
	}
}

func restoreAll(t *testing.T, conn *pgx.Conn, m *Match) (orphans int64) {
	t.Helper()
	pending, err := pendingObjects(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range pending {
		n, err := o.restore(t.Context(), conn, "16MB", m)
		if err != nil {
			t.Fatal(err)
		}
		orphans += n
	}
	if left, err := pendingObjects(t.Context(), conn); err != nil || len(left) > 0 {
		t.Errorf("%d objects are left: %v %v", len(left), left, err)
	}
	return orphans
}

func mustMakeState(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	if err := makeState(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
}

func scalar[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) (v T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestEveryIndexAndForeignKeyOfTheRealSchemaComesBackAsItWas(t *testing.T) {
	long(t)
	db := emptySchema(t)
	db.Exec(t, `COMMENT ON INDEX events_order_room IS 'a "quoted"; comment
of ''two'' lines \ with more';
CREATE INDEX "Odd ""Name" ON events (lower(type), (length(content)) DESC NULLS LAST) WHERE sender <> 'a;
b';
ALTER INDEX "Odd ""Name" ALTER COLUMN 1 SET STATISTICS 77;
CREATE INDEX half_full ON rooms (creator) WITH (fillfactor = 50);
ALTER TABLE rooms CLUSTER ON half_full;
CREATE SCHEMA "Odd one";
CREATE TABLE "Odd one"."T'x" ("A b" text REFERENCES public.rooms (room_id) MATCH FULL ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, c int);
CREATE INDEX ON "Odd one"."T'x" (c);
COMMENT ON CONSTRAINT "T'x_A b_fkey" ON "Odd one"."T'x" IS 'of a module';
CREATE TABLE excluded (r int4range, EXCLUDE USING gist (r WITH &&));
ALTER TABLE excluded REPLICA IDENTITY DEFAULT;
COMMENT ON CONSTRAINT events_event_id_key ON events IS 'of ''events''';
COMMENT ON INDEX events_event_id_key IS 'the index';
CREATE TABLE "Keys" ("A b" int, c int, d text, e text CONSTRAINT late UNIQUE DEFERRABLE INITIALLY DEFERRED, f int UNIQUE DEFERRABLE, PRIMARY KEY ("A b", c) INCLUDE (d) WITH (fillfactor = 60));
CREATE UNIQUE INDEX part ON "Keys" (lower(d)) WHERE c > 0;
ALTER TABLE "Keys" CLUSTER ON late;
CREATE TABLE replicated (a int NOT NULL);
CREATE UNIQUE INDEX goes_by ON replicated (a);
ALTER TABLE replicated REPLICA IDENTITY USING INDEX goes_by;
CREATE TABLE viewed (a int PRIMARY KEY, b text);
CREATE VIEW groups AS SELECT a, b FROM viewed GROUP BY a`)
	if db.Server.Major(t) >= 15 {
		db.Exec(t, `CREATE UNIQUE INDEX nulls ON "Keys" (f, c) NULLS NOT DISTINCT`)
	}
	conn := db.Conn(t)
	mustMakeState(t, conn)
	if db.Server.Major(t) >= 15 {
		admin := db.AdminConn(t)
		for _, sql := range []string{`SET allow_in_place_tablespaces = on`, `CREATE TABLESPACE spare LOCATION ''`, `CREATE TABLESPACE shut LOCATION ''`, `GRANT CREATE ON TABLESPACE spare TO synapse_user`,
			`ALTER INDEX events_order_room SET TABLESPACE spare`, `ALTER INDEX received_ts_idx SET TABLESPACE shut`} {
			if _, err := admin.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := conn.Exec(t.Context(), `SET default_tablespace = spare`); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = db.Drop(context.Background())
			admin, err := pgx.Connect(context.Background(), db.Server.Admin())
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close(context.Background())
			for _, sql := range []string{`DROP TABLESPACE spare`, `DROP TABLESPACE shut`} {
				if _, err := admin.Exec(context.Background(), sql); err != nil {
					t.Error(err)
				}
			}
		})
	}
	before := schemaOfTarget(t, conn)
	notValid := scalar[int](t, conn, `SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated`)
	if notValid != 3 {
		t.Errorf("the schema has %d foreign keys that are not valid, want 3", notValid)
	}
	tables := plainTables(t, conn)
	if err := dropObjects(t.Context(), conn, tables, map[string]bool{"half_full": true}, tables, nil); err != nil {
		t.Fatal(err)
	}
	dropped := schemaOfTarget(t, conn)
	pending, err := pendingObjects(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	keys := 0
	for i, o := range pending {
		if o.kind == kindConstraint {
			keys++
		}
		if i > 0 && (pending[i-1].kind == kindConstraint && o.kind != kindConstraint || pending[i-1].kind == kindIndex && o.kind == kindUnique) {
			t.Errorf("%s comes after %s", o, pending[i-1])
		}
		if o.table == 0 || o.kind == kindConstraint && o.parentTable == 0 {
			t.Errorf("%s has no table: %+v", o, o)
		}
	}
	if keys < 47 || len(pending) < 200 {
		t.Errorf("only %d objects were dropped, of them %d foreign keys", len(pending), keys)
	}
	if n := scalar[int](t, conn, `SELECT count(*) FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE k.contype = 'f' AND c.relnamespace = 'public'::regnamespace`); n != 0 {
		t.Errorf("%d foreign keys are still there", n)
	}
	if !slices.ContainsFunc(dropped, func(s string) bool { return strings.Contains(s, "half_full") }) {
		t.Error("the index that was to stay is gone")
	}
	if unique := scalar[string](t, conn, `SELECT string_agg(x.relname, ' ' ORDER BY x.relname) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
		WHERE i.indisunique AND c.relnamespace = 'public'::regnamespace`); unique != "goes_by viewed_pkey" {
		t.Errorf("the unique indexes that are left: %s", unique)
	}
	if err := dropObjects(t.Context(), conn, tables, nil, tables, nil); err != nil { // as after a kill
		t.Fatal(err)
	}
	// Half of them, then a kill in the middle of a key, then all that is left, dropped again between.
	pending, _ = pendingObjects(t.Context(), conn)
	for _, o := range pending[:len(pending)/2] {
		if _, err := o.restore(t.Context(), conn, "", &Match{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range pending {
		if o.kind == kindConstraint && o.validate {
			if done, err := o.make(t.Context(), conn, ""); done || err != nil {
				t.Fatalf("%s: %t %v", o, done, err)
			}
		}
	}
	if err := dropObjects(t.Context(), conn, tables, nil, tables, nil); err != nil {
		t.Fatal(err)
	}
	restoreAll(t, conn, &Match{})
	wantSameSchema(t, before, schemaOfTarget(t, conn))
}

func TestAnObjectThatIsThereAlreadyIsComparedNotMadeTwice(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	db.Exec(t, `CREATE TABLE a (x int, y int); CREATE INDEX i ON a (x)`)
	conn := db.Conn(t)
	mustMakeState(t, conn)
	if err := dropObjects(t.Context(), conn, plainTables(t, conn), nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `CREATE INDEX i ON a (x)`)
	restoreAll(t, conn, &Match{})
	if err := dropObjects(t.Context(), conn, plainTables(t, conn), nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `CREATE INDEX i ON a (y)`)
	pending, _ := pendingObjects(t.Context(), conn)
	if _, err := pending[0].restore(t.Context(), conn, "", &Match{}); err == nil || !strings.Contains(err.Error(), "there is one of that name already") {
		t.Errorf("another index under the name: %v", err)
	}
}

func TestWhoHoldsATableIsNamed(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a lock")
	}
	db := pgtest.Start(t).Database(t)
	db.Exec(t, `CREATE TABLE a (x int); CREATE INDEX i ON a (x)`)
	holder, conn := db.Conn(t), db.Conn(t)
	mustMakeState(t, conn)
	if _, err := holder.Exec(t.Context(), `SET application_name = 'the holder'; BEGIN; SELECT * FROM a`); err != nil {
		t.Fatal(err)
	}
	err := dropObjects(t.Context(), conn, plainTables(t, conn), nil, nil, nil)
	if want := fmt.Sprintf("synapse_user, process %d as the holder", holder.PgConn().PID()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not name %s", err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := dropObjects(ctx, conn, plainTables(t, conn), nil, nil, nil); err == nil {
		t.Error("a cancelled context was not noticed")
	}
}
