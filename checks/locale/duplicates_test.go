package locale

import (
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// asUnique makes the catalog call indexes unique, over whatever their tables hold: an index that is in order, and has keys twice.
const asUnique = `UPDATE pg_index SET indisunique = true WHERE indexrelid::regclass::text ~ '^u_'`

func TestKeysThatAreThereTwiceAreCountedAsTheirIndexWouldCountThem(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	db.Exec(t, `CREATE TABLE d (v text NOT NULL, w text, n int);
		INSERT INTO d VALUES ('a', NULL, 1), ('a', NULL, 2), ('b', 'x', 3), ('b', 'x', 4), ('b', 'y', 5), ('c', NULL, 6), ('D', 'z', 7), ('d', '', 8);
		CREATE INDEX u_nullable ON d (w, v DESC);
		CREATE INDEX u_partial ON d (v) WHERE n > 3;
		CREATE INDEX u_expression ON d (lower(v));
		CREATE INDEX u_sound ON d (v, n);
		CREATE INDEX u_plain ON d (v); -- of two that begin alike, on a page each, the server reads the younger
		CREATE TABLE access_tokens (token text NOT NULL); INSERT INTO access_tokens VALUES ('syt_secret'), ('syt_secret'), ('syt_other');
		CREATE INDEX u_token ON access_tokens (token)`)
	want := []string{"duplicate-keys u_expression", "duplicate-keys u_nullable", "duplicate-keys u_partial", "duplicate-keys u_plain", "duplicate-keys u_token"}
	counts := map[string][2]string{"u_plain": {"2", "3"}, "u_nullable": {"1", "1"}, "u_partial": {"1", "1"}, "u_expression": {"3", "4"}, "u_token": {"1", "1"}}
	if db.Server.Major(t) >= 15 {
		db.Exec(t, `CREATE INDEX u_one_null ON d (w, v); CREATE UNIQUE INDEX sound_one_null ON d (n, w) NULLS NOT DISTINCT`)
		db.AdminExec(t, `UPDATE pg_index SET indnullsnotdistinct = true WHERE indexrelid = 'u_one_null'::regclass`)
		want = append(want[:2], append([]string{"duplicate-keys u_one_null"}, want[2:]...)...)
		counts["u_one_null"] = [2]string{"2", "2"}
	}
	db.AdminExec(t, asUnique)
	db.Exec(t, "ANALYZE")
	for _, who := range whoLooks {
		r := wantDeep(t, lookingAs(t, db, who), want...)
		for name, count := range counts {
			f := r.finding(t, DuplicateKeys, name)
			if f.Evidence["keys"] != count[0] || f.Evidence["surplus rows"] != count[1] {
				t.Errorf("%s: %s: %s keys, %s rows too many; want %v", who, name, f.Evidence["keys"], f.Evidence["surplus rows"], count)
			}
		}
		if f := r.finding(t, DuplicateKeys, "u_plain"); f.Evidence["duplicate 1"] != `("a") at (0,1), (0,2)` || f.Evidence["duplicate 2"] != `("b") at (0,3), (0,4), (0,5)` {
			t.Errorf("%s: %v", who, f.Evidence)
		}
		for _, f := range r.found {
			if strings.Contains(f.Summary+f.Observed+f.Remedy, "syt_") {
				t.Errorf("%s: a token is printed: %+v", who, f)
			}
			for name, text := range f.Evidence {
				if strings.Contains(text, "syt_") {
					t.Errorf("%s: a token is printed as %s", who, name)
				}
			}
			_, after, ok := strings.Cut(f.Remedy, "    BEGIN;")
			if !ok {
				t.Fatalf("%s: nothing to run in %s", who, f.Remedy)
			}
			db.Exec(t, "BEGIN;"+after) // what people are told to run is SQL
		}
		if f := r.finding(t, DuplicateKeys, "u_token"); f.Evidence["duplicate 1"] != "(0,1), (0,2)" {
			t.Errorf("%s: %v", who, f.Evidence)
		}
	}
}

// The index that a failed build left is not used, and its keys are looked for all the same; of two of the same kind once.
func TestDuplicatesBehindAnInvalidIndexAreFound(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	db.Exec(t, `CREATE TABLE d (v text NOT NULL); INSERT INTO d SELECT 'x' || n % 50 FROM generate_series(1, 100) n`)
	if _, err := db.Conn(t).Exec(t.Context(), `CREATE UNIQUE INDEX CONCURRENTLY d_once ON d (v)`); err == nil {
		t.Fatal("an index was made over duplicates")
	}
	r := wantDeep(t, lookingAs(t, db, "owner"), "duplicate-keys d_once")
	if f := r.found[0]; f.Evidence["keys"] != "50" || f.Evidence["surplus rows"] != "50" {
		t.Errorf("%+v", f)
	}
	if !strings.Contains(r.covered, "1 invalid") {
		t.Error(r.covered)
	}
}
