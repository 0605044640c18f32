package locale

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// deepReport keeps what deep says, from both of its sessions.
type deepReport struct {
	mu       sync.Mutex
	found    []doctor.Finding
	progress []doctor.Progress
	covered  string
}

func (d *deepReport) Find(f doctor.Finding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.found = append(d.found, f)
}

func (d *deepReport) Progress(p doctor.Progress) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.progress = append(d.progress, p)
}

func (d *deepReport) Covered(text string)    { d.covered = text }
func (d *deepReport) Measure(doctor.Measure) {}

// list is what was found: code and index, sorted.
func (d *deepReport) list() string {
	var list []string
	for _, f := range d.found {
		list = append(list, strings.TrimPrefix(f.Code, "locale/")+" "+f.Object.Name)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func (d *deepReport) finding(t *testing.T, code, name string) doctor.Finding {
	t.Helper()
	for _, f := range d.found {
		if f.Code == code && f.Object.Name == name {
			return f
		}
	}
	t.Fatalf("no %s of %s among %s", code, name, d.list())
	return doctor.Finding{}
}

// whoLooks are the two logins: the plain owner, who has SQL alone, and the superuser, who also has amcheck.
var whoLooks = []string{"owner", "superuser"}

func lookingAs(t *testing.T, db *pgtest.DB, who string) *doctor.Target {
	t.Helper()
	entry := entryOf(db)
	target := &doctor.Target{ServerName: "test.example", Deep: true, Databases: []*doctor.Database{entry}}
	if who == "superuser" {
		s := db.Server
		entry.Meets |= doctor.NeedsAdmin
		target.Admin = &doctor.Database{Label: "admin", Engine: doctor.Postgres,
			Settings: pgdb.Settings{"host": s.SocketDir, "port": fmt.Sprint(s.Port), "user": "postgres", "dbname": "postgres"}}
		db.AdminExec(t, "CREATE EXTENSION IF NOT EXISTS amcheck")
	}
	t.Cleanup(target.Close)
	return target
}

func lookDeep(t *testing.T, target *doctor.Target) (*deepReport, error) {
	t.Helper()
	r := &deepReport{}
	err := deep(t.Context(), target, target.Databases[0], r)
	target.Close() // sessions keep the locale that they began with
	return r, err
}

// wantDeep runs deep, wants it to be complete, and to find these.
func wantDeep(t *testing.T, target *doctor.Target, want ...string) *deepReport {
	t.Helper()
	r, err := lookDeep(t, target)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.list(); got != strings.Join(want, ", ") {
		t.Fatalf("found %s\nwant  %s", got, strings.Join(want, ", "))
	}
	return r
}

// everyKind has an index of each kind that an order can have, 900 rows each, with NULLs where a column takes them. The keys
// of en_US and of C are in different orders.
const everyKind = `
CREATE TABLE k (v text NOT NULL, w text, n int NOT NULL, b boolean NOT NULL DEFAULT true, c character varying(40), f char(12), a text[]);
INSERT INTO k (v, w, n, c, f, a) SELECT s, CASE WHEN n % 7 > 0 THEN s END, n, s, CASE WHEN n % 5 > 0 THEN s END, ARRAY[s]
  FROM generate_series(1, 900) n, LATERAL (SELECT CASE n % 3 WHEN 0 THEN '@' WHEN 1 THEN '#' ELSE '' END || CASE n % 2 WHEN 0 THEN 'A' ELSE 'a' END || n) q(s);
CREATE UNIQUE INDEX k_plain ON k (v);
CREATE UNIQUE INDEX k_nullable ON k (w);
CREATE UNIQUE INDEX k_desc ON k (v DESC, n);
CREATE UNIQUE INDEX k_nulls_first ON k (w NULLS FIRST, n);
CREATE INDEX k_desc_nulls_last ON k (w DESC NULLS LAST);
CREATE UNIQUE INDEX k_partial ON k (v) WHERE n % 2 = 0 AND b;
CREATE UNIQUE INDEX k_expression ON k ((v || 'x'));
CREATE INDEX k_function ON k (upper(v), n);
CREATE UNIQUE INDEX k_several ON k (n, v, b);
CREATE UNIQUE INDEX k_include ON k (c) INCLUDE (n);
CREATE INDEX k_char ON k (f);
CREATE INDEX k_array ON k (a);
VACUUM ANALYZE k;`

// misplaced are the indexes of everyKind that are in another order in C than in en_US. The others hold numbers first.
var misplaced = []string{"k_array", "k_char", "k_desc", "k_desc_nulls_last", "k_expression", "k_function", "k_include", "k_nullable", "k_nulls_first", "k_partial", "k_plain"}

// What facts/collation.md describes, on each version: found with amcheck and without, and before that nothing is.
func TestACorruptedDatabaseIsFoundOut(t *testing.T) {
	pgtest.EachMajor(t, english, func(t *testing.T, s *pgtest.Server) {
		db := s.Database(t, pgtest.WithCreate(inEnUS))
		for _, statement := range strings.SplitAfter(everyKind, ";\n") {
			db.Exec(t, statement)
		}
		db.Exec(t, `CREATE TABLE twice (v text PRIMARY KEY, n int); INSERT INTO twice SELECT v, 1 FROM k`)
		// Comparing bytes, whatever the locale: never out of order.
		db.Exec(t, `CREATE INDEX k_pattern ON k (v text_pattern_ops); CREATE INDEX k_c ON k (v COLLATE "C", w COLLATE "C")`)
		want := slices.Concat(misplaced, []string{"twice_pkey"})
		if s.Major(t) >= 15 {
			db.Exec(t, `CREATE UNIQUE INDEX k_nulls_once ON k (w, n) NULLS NOT DISTINCT`)
			want = append(want, "k_nulls_once")
		}
		for _, who := range whoLooks {
			wantDeep(t, lookingAs(t, db, who))
		}
		if err := db.Corrupt(t.Context()); err != nil {
			t.Fatal(err)
		}
		db.Exec(t, `INSERT INTO twice SELECT v, 2 FROM k ON CONFLICT DO NOTHING`)
		for i, name := range want {
			want[i] = "index-corrupt " + name
		}
		want = append(want, "duplicate-keys twice_pkey")
		slices.Sort(want)
		var surplus int64
		if err := db.Conn(t).QueryRow(t.Context(), `SELECT count(*) FROM twice WHERE n + 0 = 2`).Scan(&surplus); err != nil || surplus == 0 {
			t.Fatalf("%d keys are there twice: %v", surplus, err)
		}
		for _, who := range whoLooks {
			r := wantDeep(t, lookingAs(t, db, who), want...)
			f := r.finding(t, DuplicateKeys, "twice_pkey")
			if f.Evidence["surplus rows"] != fmt.Sprint(surplus) || f.Evidence["keys"] != fmt.Sprint(surplus) || !strings.Contains(f.Evidence["duplicate 1"], "(0,1)") || !f.Fixable {
				t.Errorf("%s: want %d of each: %+v", who, surplus, f)
			}
			ways := map[string][]string{"owner": {"inversions", "place 1"}, "superuser": {}}
			for _, name := range ways[who] {
				if f := r.finding(t, IndexCorrupt, "k_plain"); f.Evidence[name] == "" {
					t.Errorf("%s: no %s in %+v", who, name, f)
				}
			}
		}
	})
}

func TestASoundHomeserverIsExaminedWhole(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_ported.dump")))
	db.Exec(t, "ANALYZE")
	for _, who := range whoLooks {
		t.Run(who, func(t *testing.T) {
			if r := wantDeep(t, lookingAs(t, db, who)); !strings.HasPrefix(r.covered, "order examined of 255 of 255 indexes") || !strings.HasSuffix(r.covered, "in 148 of 148 unique ones") {
				t.Error(r.covered)
			}
		})
	}
}
