package sqlitedb_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// create makes a database and closes it.
func create(t *testing.T, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a file.db")
	db := writer(t, path)
	run(t, db, statements...)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// writer is one connection of SQLite's usual kind.
func writer(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

func run(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func open(t *testing.T, path string) *sqlitedb.DB {
	t.Helper()
	db, err := sqlitedb.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func prepare(t *testing.T, db *sqlitedb.DB, text string) *sqlitedb.Stmt {
	t.Helper()
	s, err := db.Prepare(text)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestEachValueIsReadInItsOwnStorageClass(t *testing.T) {
	path := create(t, `CREATE TABLE t (n INTEGER PRIMARY KEY, "Lock" TEXT)`,
		`INSERT INTO t VALUES (1, NULL), (2, CAST(x'610062' AS TEXT)), (3, x'00ff'), (4, CAST(x'ff41' AS TEXT)), (5, ''), (6, x'')`,
		`CREATE TABLE u (v)`, `INSERT INTO u VALUES (-9223372036854775808), (1.5), (9e999), ('12'), (9007199254740993)`)
	db := open(t, path)
	s := prepare(t, db, `SELECT n, "Lock" FROM t ORDER BY rowid`)
	if got := strings.Join(s.Columns(), ","); got != "n,Lock" {
		t.Errorf("columns %s", got)
	}
	var got []string
	for {
		row, err := s.Step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !row {
			break
		}
		got = append(got, fmt.Sprintf("%d %s %q", s.Int(0), s.Class(1), s.Bytes(1)))
	}
	want := []string{`1 null ""`, `2 text "a\x00b"`, `3 blob "\x00\xff"`, `4 text "\xffA"`, `5 text ""`, `6 blob ""`}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	v := prepare(t, db, `SELECT v FROM u ORDER BY rowid`)
	next := func() {
		t.Helper()
		if row, err := v.Step(t.Context()); err != nil || !row {
			t.Fatalf("%v %v", row, err)
		}
	}
	if next(); v.Class(0) != sqlitedb.Integer || v.Int(0) != math.MinInt64 {
		t.Errorf("%s %d", v.Class(0), v.Int(0))
	}
	if next(); v.Class(0) != sqlitedb.Real || v.Real(0) != 1.5 {
		t.Errorf("%s %g", v.Class(0), v.Real(0))
	}
	if next(); v.Class(0) != sqlitedb.Real || !math.IsInf(v.Real(0), 1) {
		t.Errorf("%s %g", v.Class(0), v.Real(0))
	}
	if next(); v.Class(0) != sqlitedb.Text || v.String(0) != "12" {
		t.Errorf("%s %s", v.Class(0), v.String(0))
	}
	if next(); v.Int(0) != 9007199254740993 {
		t.Errorf("%d", v.Int(0))
	}
}

func TestTextOfAUTF16DatabaseIsReadAsUTF8(t *testing.T) {
	for _, encoding := range []string{"UTF-16le", "UTF-16be"} {
		path := create(t, `PRAGMA encoding='`+encoding+`'`, `CREATE TABLE t (v TEXT)`, `INSERT INTO t VALUES ('häß€😀')`)
		h, err := sqlitedb.ReadHeader(path)
		if err != nil || string(h.Encoding) != encoding {
			t.Errorf("%s: header says %s, %v", encoding, h.Encoding, err)
		}
		s := prepare(t, open(t, path), `SELECT v FROM t`)
		if row, err := s.Step(t.Context()); err != nil || !row {
			t.Fatal(row, err)
		}
		if got := s.String(0); s.Class(0) != sqlitedb.Text || got != "häß€😀" {
			t.Errorf("%s: %q", encoding, got)
		}
	}
}

func TestParametersKeepTheirValuesWhenAStatementIsRunAgain(t *testing.T) {
	path := create(t, `CREATE TABLE t (v TEXT)`, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO t SELECT 'a' || i FROM n`)
	s := prepare(t, open(t, path), `SELECT rowid FROM t WHERE rowid > ? AND v <> ? LIMIT 2`)
	for range 3 {
		for _, bind := range []struct {
			after   int64
			without string
			want    int64
		}{{10, "a11", 12}, {20, "", 21}, {98, "a99", 100}} {
			if err := errors.Join(s.Reset(), s.BindInt(1, bind.after), s.BindText(2, bind.without)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if row, err := s.Step(t.Context()); err != nil || !row || s.Int(0) != bind.want {
					t.Fatalf("after %d: %v %v %d, want %d", bind.after, row, err, s.Int(0), bind.want)
				}
				s.Reset()
			}
		}
	}
	if _, err := open(t, path).Prepare(`SELECT 1; SELECT 2`); err == nil {
		t.Error("two statements were taken for one")
	}
	if _, err := open(t, path).Prepare(`SELECT nothing FROM t`); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("an unknown column: %v", err)
	}
}

func TestARowCostsNoAllocation(t *testing.T) {
	path := create(t, `CREATE TABLE t (v TEXT, b BLOB)`, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO t SELECT 'text ' || i, randomblob(20) FROM n`)
	s := prepare(t, open(t, path), `SELECT rowid, v, b FROM t ORDER BY rowid`)
	ctx, sum := t.Context(), 0
	if n := testing.AllocsPerRun(10000, func() {
		if row, err := s.Step(ctx); err != nil || !row {
			t.Fatal(row, err)
		}
		sum += int(s.Int(0)) + len(s.Bytes(1)) + len(s.Bytes(2)) + int(s.Class(1))
	}); n != 0 {
		t.Errorf("%g allocations a row", n)
	}
}

func TestTheEndOfAContextEndsALongStep(t *testing.T) {
	path := create(t, `CREATE TABLE t (v)`)
	db := open(t, path)
	s := prepare(t, db, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n`)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errors.New("enough"))
	defer cancel()
	if _, err := s.Step(ctx); err == nil || err.Error() != "enough" {
		t.Errorf("ended with %v", err)
	}
	s.Reset()
	if n, err := db.Int(t.Context(), `SELECT count(*) FROM t`); err != nil || n != 0 {
		t.Errorf("after it: %d, %v", n, err)
	}
	rows := prepare(t, db, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n`)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for i := 0; ; i++ {
		if i == 1000 {
			stop()
		}
		if _, err := rows.Step(ctx); err != nil {
			if !errors.Is(err, context.Canceled) || i > 1000+256 {
				t.Errorf("row %d: %v", i, err)
			}
			break
		}
	}
}

func TestAContextThatHasEndedInterruptsNothingOfAnother(t *testing.T) {
	db := open(t, create(t, `CREATE TABLE t (v)`))
	// Long enough that the goroutine of a context that ended just before gets to run.
	long := prepare(t, db, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT count(*) FROM n`)
	rows := prepare(t, db, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n`)
	for i := range 100 {
		ctx, end := context.WithCancel(t.Context())
		if _, err := rows.Step(ctx); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			rows.Reset()
		} // otherwise it stays in the middle of its rows
		go end()
		runtime.Gosched()
		other, done := context.WithCancel(t.Context())
		if row, err := long.Step(other); err != nil || !row {
			t.Fatalf("round %d: %v", i, err)
		}
		long.Reset()
		rows.Reset()
		<-ctx.Done()
		done()
	}
}

func TestSeveralConnectionsReadAtOnce(t *testing.T) {
	path := create(t, `CREATE TABLE t (v TEXT)`, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) INSERT INTO t SELECT 'text ' || i FROM n`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for range 3 {
				db, err := sqlitedb.Open(ctx, path)
				if err != nil {
					t.Error(err)
					return
				}
				if i%2 == 0 {
					if err := db.Map(1 << 30); err != nil {
						t.Error(err)
					}
				}
				n, err := db.Int(ctx, `SELECT sum(length(v)) FROM t`)
				if want := int64(30000*5 + 9 + 180 + 2700 + 36000 + 20001*5); err != nil || n != want {
					t.Errorf("%d, want %d: %v", n, want, err)
				}
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestAMappedFileThatIsCutOffIsAnError(t *testing.T) {
	path := create(t, `CREATE TABLE t (v TEXT)`, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) INSERT INTO t SELECT 'text ' || i FROM n`)
	db, err := sqlitedb.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Map(1 << 30); err != nil {
		t.Fatal(err)
	}
	err = db.Shield(func() error {
		s, err := db.Prepare(`SELECT v FROM t`)
		if err != nil {
			return err
		}
		defer s.Close()
		for i := 0; ; i++ {
			if row, err := s.Step(t.Context()); err != nil || !row {
				return err
			}
			if i == 100 {
				if err := os.Truncate(path, 8192); err != nil {
					return err
				}
			}
		}
	})
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if err := errors.Join(db.Map(0), db.Close()); err != nil {
		t.Error(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a fault of another kind was swallowed")
		}
	}()
	_ = db.Shield(func() error { panic("something else") })
}

func TestWhatIsNoDatabaseIsSaidSo(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, path := range map[string]string{
		"empty": write("empty", ""), "short": write("short", "SQLite format 3\x00"), "text": write("text", strings.Repeat("hello ", 100)), "folder": dir,
		"encrypted": write("encrypted", string(bytes.Repeat([]byte{0xa5}, 4096))),
	} {
		_, err := sqlitedb.Open(t.Context(), path)
		if e, ok := errors.AsType[*sqlitedb.NotSQLiteError](err); !ok || e.Path != path || e.Why == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := sqlitedb.Open(t.Context(), filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 4 {
		t.Errorf("files were made: %v", entries)
	}
}
