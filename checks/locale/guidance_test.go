package locale

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestEstimates(t *testing.T) {
	d, disk := rebuildEstimate([]index{{Bytes: 4 << 30, TableBytes: 10 << 30}, {Bytes: 1 << 30, TableBytes: 10 << 30}})
	if want := 460800 * time.Millisecond; d != want || disk != 8<<30 { // 5 GiB at 20 MiB, 20 GiB at 100 MiB a second
		t.Errorf("%s and %d bytes, want %s", d, disk, want)
	}
	for d, want := range map[time.Duration]string{
		0: "less than a minute", time.Minute: "less than a minute", 61 * time.Second: "about 2 minutes", 89 * time.Minute: "about 89 minutes", 91 * time.Minute: "about 2 hours",
	} {
		if got := durationText(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 8192: "8 kB", 1536 << 10: "1.5 MB", 20 << 20: "20 MB", 123456 << 20: "121 GB", 3 << 50: "3072 TB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// sh runs a command line of a remedy as the administrator of the server would.
func sh(t *testing.T, s *pgtest.Server, dir, line, stdin string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.TrimPrefix(line, "sudo -u postgres "))
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = []string{"PATH=" + s.BinDir + ":" + os.Getenv("PATH"), "PGHOST=" + s.SocketDir, fmt.Sprintf("PGPORT=%d", s.Port), "PGUSER=postgres", "PSQLRC=/nowhere"}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "ERROR") {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// With more indexes than are named, and with one whose name needs quotes.
const rows = `CREATE TABLE k (v text UNIQUE, "W w" text, n int);
INSERT INTO k SELECT CASE n % 3 WHEN 0 THEN '@' WHEN 1 THEN '#' ELSE '' END || CASE n % 2 WHEN 0 THEN 'A' ELSE 'a' END || n, 'w', n FROM generate_series(1, 3000) n;
CREATE INDEX "K w" ON k ("W w", v);`

// What remedies say, done as it stands.
func TestWhatIsSaidToDoByHandHelps(t *testing.T) {
	s := pgtest.StartWith(t, english(0))
	major := s.Major(t)
	if major < 15 {
		t.Skip("PostgreSQL 14 records no versions")
	}
	if _, err := os.Stat(s.BinDir + "/psql"); err != nil {
		t.Skip("this server has no psql beside it")
	}
	sound := func(t *testing.T, db *pgtest.DB) {
		t.Helper()
		admin := db.AdminConn(t)
		if _, err := admin.Exec(t.Context(), `CREATE EXTENSION IF NOT EXISTS amcheck; SELECT bt_index_check(indexrelid, true) FROM pg_index WHERE 100 = ANY (indcollation::oid[])`); err != nil {
			t.Error(err)
		}
		var n int
		if err := db.Conn(t).QueryRow(t.Context(), `SELECT count(*) FROM k`).Scan(&n); err != nil || n != 3000 {
			t.Errorf("%d rows, %v", n, err)
		}
	}
	t.Run("a new database", func(t *testing.T) {
		db := s.Database(t, pgtest.WithCreate(inEnUS))
		db.Exec(t, rows)
		t.Cleanup(func() {
			old := *db
			old.Name += "_before"
			_ = old.Drop(context.Background()) // there only when the commands got that far
		})
		target := targetOf(t, db)
		remedy := examined(t, target, "locale/not-c error database "+db.Name)[0].Remedy
		target.Close() // a database that somebody is in can't be renamed
		dir := t.TempDir()
		var script []string
		for _, c := range commands(remedy) {
			if !strings.HasPrefix(c, "synapse-doctor ") {
				script = append(script, c)
			}
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		sh(t, s, dir, "set -e\n"+strings.Join(script, "\n"), "")
		examined(t, targetOf(t, db))
		sound(t, db)
	})
	t.Run("a catalog edited by hand", func(t *testing.T) {
		db := s.Database(t, pgtest.WithCreate(inEnUS))
		db.Exec(t, rows)
		if err := db.Corrupt(t.Context()); err != nil {
			t.Fatal(err)
		}
		remedy := examined(t, targetOf(t, db), "locale/catalog-edited error database "+db.Name)[0].Remedy
		sh(t, s, ".", sqlOf(t, remedy), strings.Join(statements(remedy, "the_table"), "\n"))
		examined(t, targetOf(t, db))
		sound(t, db)
	})
	t.Run("a library that has changed", func(t *testing.T) {
		for _, more := range []string{"", "CREATE TABLE m (a text UNIQUE, b text UNIQUE, c text UNIQUE, d text UNIQUE, e text UNIQUE, f text UNIQUE, g text UNIQUE, h text UNIQUE, i text UNIQUE)"} {
			db := s.Database(t, pgtest.WithCreate(inEnUS))
			db.Exec(t, rows+more)
			if err := db.Drift(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := filenodes(t, db)
			remedy := examined(t, targetOf(t, db), "locale/not-c error database "+db.Name, "locale/collation-version-changed warning database "+db.Name)[1].Remedy
			sh(t, s, ".", sqlOf(t, remedy), strings.Join(statements(remedy, ""), "\n"))
			examined(t, targetOf(t, db), "locale/not-c error database "+db.Name)
			for name, node := range filenodes(t, db) {
				if before[name] == node {
					t.Errorf("the index %s was not rebuilt", name)
				}
			}
			sound(t, db)
		}
	})
	t.Run("template1 and postgres", func(t *testing.T) {
		db := s.Database(t)
		db.AdminExec(t, `UPDATE pg_database SET datcollversion = '2.28' WHERE datname IN ('template1', 'postgres')`)
		for _, f := range examined(t, targetOf(t, db), "locale/collation-version-changed warning database template1", "locale/collation-version-changed warning database postgres") {
			sh(t, s, ".", sqlOf(t, f.Remedy), strings.Join(statements(f.Remedy, ""), "\n"))
		}
		examined(t, targetOf(t, db))
	})
}

// sqlOf is the command of a remedy that begins psql.
func sqlOf(t *testing.T, remedy string) string {
	t.Helper()
	for _, c := range commands(remedy) {
		if strings.HasPrefix(c, "sudo -u postgres psql ") {
			return c + " --set=ON_ERROR_STOP=1"
		}
	}
	t.Fatalf("no psql in\n%s", remedy)
	return ""
}

// statements are the lines for psql, those left out that are an example for the table without a name.
func statements(remedy, example string) []string {
	var found []string
	skip := false
	for _, c := range commands(remedy) {
		if strings.HasPrefix(c, "synapse-doctor ") || strings.HasPrefix(c, "sudo ") {
			continue
		}
		if example != "" && c == "BEGIN;" {
			skip = true
		}
		if !skip {
			found = append(found, c)
		}
		if c == "COMMIT;" {
			skip = false
		}
	}
	return found
}

func filenodes(t *testing.T, db *pgtest.DB) map[string]uint32 {
	t.Helper()
	rows, err := db.Conn(t).Query(t.Context(), `SELECT indexrelid::regclass::text, pg_relation_filenode(indexrelid) FROM pg_index WHERE 100 = ANY (indcollation::oid[])`)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]uint32{}
	for rows.Next() {
		var name string
		var node uint32
		if err := rows.Scan(&name, &node); err != nil {
			t.Fatal(err)
		}
		found[name] = node
	}
	return found
}
