package locale

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// An operator class whose support function was exchanged: the other way to have an index out of order. The operators, by
// which the planner goes, stay as they were.
func TestAnIndexIsComparedByTheFunctionOfItsOperatorClass(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	for operator, function := range map[string]string{"#<": "text_lt", "#<=": "text_le", "#=": "texteq", "#>=": "text_ge", "#>": "text_gt"} {
		db.AdminExec(t, fmt.Sprintf("CREATE OPERATOR %s (LEFTARG = text, RIGHTARG = text, FUNCTION = %s)", operator, function))
	}
	db.AdminExec(t, `CREATE OPERATOR CLASS fickle_ops FOR TYPE text USING btree AS OPERATOR 1 #<, OPERATOR 2 #<=, OPERATOR 3 #=, OPERATOR 4 #>=, OPERATOR 5 #>, FUNCTION 1 bttextcmp(text, text);
		CREATE FUNCTION reversed(text, text) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT -bttextcmp($1, $2)'`)
	db.Exec(t, `CREATE TABLE d (v text NOT NULL, n int NOT NULL); INSERT INTO d SELECT 'x' || n, n FROM generate_series(1, 500) n;
		CREATE INDEX d_two_more ON d (v fickle_ops DESC NULLS LAST, n); CREATE INDEX d_up ON d (v fickle_ops, n); CREATE INDEX d_two ON d (n, v fickle_ops DESC); CREATE INDEX d_sound ON d (v); CREATE INDEX d_fickle ON d (v fickle_ops)`)
	db.Exec(t, "VACUUM ANALYZE d")
	for _, who := range whoLooks {
		wantDeep(t, lookingAs(t, db, who))
	}
	db.AdminExec(t, `UPDATE pg_amproc SET amproc = 'reversed'::regproc WHERE amprocfamily = (SELECT opcfamily FROM pg_opclass WHERE opcname = 'fickle_ops')`)
	for _, who := range whoLooks {
		r := wantDeep(t, lookingAs(t, db, who), "index-corrupt d_fickle", "index-corrupt d_two_more", "index-corrupt d_up")
		if f := r.finding(t, IndexCorrupt, "d_fickle"); who == "owner" && f.Evidence["inversions"] != "499" {
			t.Errorf("%+v", f)
		}
	}
}

func TestAnIndexThatLacksRowsIsFound(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	db.Exec(t, `CREATE TABLE d (v text NOT NULL, w text); CREATE INDEX d_v ON d (v); CREATE UNIQUE INDEX d_vw ON d (v, w); CREATE INDEX d_x ON d ((v || 'x'));
		INSERT INTO d SELECT 'x' || n FROM generate_series(1, 300) n`)
	db.AdminExec(t, `UPDATE pg_index SET indisready = false WHERE indrelid = 'd'::regclass`)
	db.Exec(t, `INSERT INTO d VALUES ('missed', 'y'), ('missed', 'y')`)
	db.AdminExec(t, `UPDATE pg_index SET indisready = true WHERE indrelid = 'd'::regclass`)
	for _, analyse := range []string{"ANALYZE d", "SET vacuum_freeze_min_age = 0; ANALYZE d"} {
		db.Exec(t, analyse)
		for _, who := range whoLooks {
			r := wantDeep(t, lookingAs(t, db, who), "duplicate-keys d_vw", "index-corrupt d_v", "index-corrupt d_vw", "index-corrupt d_x")
			if f := r.finding(t, IndexCorrupt, "d_v"); !strings.HasPrefix(f.Observed, "300 entries") || !strings.HasPrefix(f.Expected, "302") {
				t.Errorf("%s: %+v", who, f)
			}
		}
	}
}

func TestWhatCannotBeExaminedIsNamed(t *testing.T) {
	s := pgtest.Start(t)
	db := s.Database(t)
	db.Exec(t, `CREATE TABLE a (v text PRIMARY KEY); CREATE TABLE b (v text PRIMARY KEY); INSERT INTO a SELECT n::text FROM generate_series(1, 200) n; INSERT INTO b SELECT v FROM a;
		CREATE INDEX a_twin ON a (v)`)
	left := func(t *testing.T, target *doctor.Target, want ...string) *deepReport {
		t.Helper()
		r, err := lookDeep(t, target)
		if err == nil {
			t.Fatalf("complete: %s", r.covered)
		}
		for _, name := range want {
			if !strings.Contains(err.Error(), name) || !strings.Contains(r.covered, name) {
				t.Errorf("%s is not named: %v; %s", name, err, r.covered)
			}
		}
		return r
	}
	t.Run("no time", func(t *testing.T) {
		target := lookingAs(t, db, "owner")
		target.DeepBudget = time.Nanosecond
		r := left(t, target, "a_pkey", "b_pkey", "a_twin", budgetReason)
		if !strings.Contains(r.covered, "of 0 of 3 indexes") {
			t.Error(r.covered)
		}
	})
	t.Run("enough time", func(t *testing.T) {
		target := lookingAs(t, db, "superuser")
		target.DeepBudget = time.Hour
		r := wantDeep(t, target)
		if last := r.progress[len(r.progress)-1]; last.Done != last.Total || last.Total == 0 || last.Unit != "pages" {
			t.Errorf("%+v", last)
		}
	})
	t.Run("a twin that the server never reads", func(t *testing.T) {
		r := wantDeep(t, lookingAs(t, db, "owner"), "index-not-examined "+db.Name)
		if f := r.finding(t, IndexNotExamined, db.Name); f.Severity != doctor.Info || !strings.Contains(f.Evidence["a_pkey"], "a_twin in its place") {
			t.Errorf("%+v", f)
		}
		if !strings.Contains(r.covered, "of 2 of 3 indexes") || !strings.Contains(r.covered, "in 2 of 2 unique ones") {
			t.Error(r.covered)
		}
	})
	db.Exec(t, "DROP INDEX a_twin")
	t.Run("locked", func(t *testing.T) {
		tx, err := db.Conn(t).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(t.Context())
		if _, err := tx.Exec(t.Context(), "LOCK TABLE b IN ACCESS EXCLUSIVE MODE"); err != nil {
			t.Fatal(err)
		}
		r := left(t, lookingAs(t, db, "owner"), "b_pkey (locked by another session)")
		if !strings.Contains(r.covered, "of 1 of 2 indexes") {
			t.Error(r.covered)
		}
	})
	t.Run("not permitted", func(t *testing.T) {
		db.Exec(t, "REVOKE SELECT ON b FROM CURRENT_USER")
		defer db.Exec(t, "GRANT SELECT ON b TO CURRENT_USER")
		left(t, lookingAs(t, db, "owner"), "b_pkey (not permitted: ")
	})
	t.Run("rows that a policy hides", func(t *testing.T) {
		db.Exec(t, "ALTER TABLE b ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
		defer db.Exec(t, "ALTER TABLE b DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY")
		left(t, lookingAs(t, db, "owner"), "b_pkey (not permitted: ")
	})
	t.Run("a time limit of the database's", func(t *testing.T) {
		db.Exec(t, `ALTER DATABASE `+db.Name+` SET statement_timeout = '40ms'; CREATE FUNCTION slow(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(0.1); RETURN $1; END';
			CREATE TABLE c (v text); INSERT INTO c VALUES ('a'), ('b'); CREATE INDEX c_slow ON c (slow(v))`)
		wantDeep(t, lookingAs(t, db, "owner"))
	})
}

// Dropped, or exchanged by a REINDEX CONCURRENTLY, between the list and the examination.
func TestAnIndexThatIsGoneIsNoFault(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	db.Exec(t, `CREATE TABLE a (v text PRIMARY KEY, w text); CREATE INDEX a_w ON a (w) WHERE w > ''; CREATE TABLE b (v text PRIMARY KEY); CREATE TABLE c (v text PRIMARY KEY)`)
	for _, who := range whoLooks {
		target := lookingAs(t, db, who)
		r := &deepReport{}
		e := &examination{source: target.Databases[0], reporter: r, started: time.Now()}
		if admin := target.AdminIn(e.source); admin != nil {
			e.source = admin
		}
		if err := e.source.Read(t.Context(), func(tx pgx.Tx) error { return e.survey(t.Context(), tx) }); err != nil {
			t.Fatal(err)
		}
		db.Exec(t, "DROP INDEX a_w; DROP TABLE b; REINDEX TABLE c")
		e.work(t.Context())
		db.Exec(t, "CREATE INDEX a_w ON a (w) WHERE w > ''; CREATE TABLE b (v text PRIMARY KEY)")
		if err := e.shortfall(); err != nil || !strings.HasPrefix(e.coverage(), "order examined of 2 of 2 indexes") {
			t.Errorf("%s: %v; %s", who, err, e.coverage())
		}
	}
}

func TestFindingsBeyondWhatAReportTakesAreCounted(t *testing.T) {
	r := &deepReport{}
	e := &examination{reporter: r}
	for range maxDamage + 7 {
		e.find(doctor.Finding{})
	}
	if err := e.shortfall(); len(r.found) != maxDamage || err == nil || !strings.Contains(err.Error(), "7 more") || !strings.Contains(e.coverage(), "7 more") {
		t.Errorf("%d, %v, %s", len(r.found), err, e.coverage())
	}
}
