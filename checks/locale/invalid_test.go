package locale

import (
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestIndexesThatABuildLeftBehindAreFound(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	db.Exec(t, `CREATE TABLE t (a text, n int); CREATE INDEX t_n ON t (n); CREATE UNIQUE INDEX "t A" ON t (a) WHERE n > 0;
		CREATE TABLE part (k text, n int) PARTITION BY RANGE (n); CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10); CREATE INDEX part_k ON ONLY part (k);
		INSERT INTO t VALUES ('x', 1)`)
	conn := db.Conn(t)
	fails := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err == nil {
			t.Fatalf("%s succeeded", sql)
		}
	}
	// Two equal keys that the index does not see: its catalog row is made to say that it is not maintained meanwhile.
	db.AdminExec(t, `UPDATE pg_index SET indisready = false WHERE indexrelid = '"t A"'::regclass`)
	if _, err := db.Conn(t).Exec(t.Context(), `INSERT INTO t VALUES ('x', 2)`); err != nil {
		t.Fatal(err)
	}
	db.AdminExec(t, `UPDATE pg_index SET indisready = true WHERE indexrelid = '"t A"'::regclass`)
	fails(`REINDEX INDEX CONCURRENTLY "t A"`)
	fails(`CREATE UNIQUE INDEX CONCURRENTLY t_a ON t (a)`)
	found := examined(t, targetOf(t, db), "locale/index-invalid warning index t A_ccnew", "locale/index-invalid warning index t_a")
	if f := found[0]; !f.Fixable || f.Evidence["valid index over the same keys"] != `"t A"` || commands(f.Remedy)[1] != `DROP INDEX CONCURRENTLY "public"."t A_ccnew";` {
		t.Errorf("%+v", f)
	}
	if f := found[1]; f.Fixable || commands(f.Remedy)[0] != `REINDEX INDEX CONCURRENTLY "public"."t_a";` {
		t.Errorf("%+v", f)
	}
	// By hand.
	if _, err := conn.Exec(t.Context(), strings.TrimSuffix(commands(found[0].Remedy)[1], ";")); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `DELETE FROM t WHERE n = 2`)
	if _, err := conn.Exec(t.Context(), strings.TrimSuffix(commands(found[1].Remedy)[0], ";")); err != nil {
		t.Fatal(err)
	}
	examined(t, targetOf(t, db))
}

// Another role's build, of which Synapse's role sees no more than that there is one.
func TestAnIndexThatIsBeingBuiltIsNotInvalid(t *testing.T) {
	s := pgtest.Start(t)
	db := s.Database(t)
	db.Exec(t, `CREATE TABLE t (a text); INSERT INTO t VALUES ('x')`)
	holder := db.Conn(t)
	if _, err := holder.Exec(t.Context(), `BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO t VALUES ('y')`); err != nil {
		t.Fatal(err)
	}
	builder := db.AdminConn(t)
	done := make(chan error, 1)
	go func() {
		_, err := builder.Exec(t.Context(), `CREATE INDEX CONCURRENTLY t_a ON t (a)`)
		done <- err
	}()
	watch := db.AdminConn(t)
	for invalid := false; !invalid; time.Sleep(10 * time.Millisecond) {
		if err := watch.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_index WHERE NOT indisvalid)`).Scan(&invalid); err != nil {
			t.Fatal(err)
		}
	}
	examined(t, targetOf(t, db))
	// The one who waits is ended: what is left is a fault.
	if _, err := watch.Exec(t.Context(), `SELECT pg_cancel_backend($1)`, int32(builder.PgConn().PID())); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Fatal("the index was built")
	}
	examined(t, targetOf(t, db), "locale/index-invalid warning index t_a")
}
