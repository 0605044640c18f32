package locale

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

const ownCollations = `
CREATE TABLE t (a text, b varchar(20) COLLATE "en-x-icu", c text COLLATE "C", d text COLLATE "ucs_basic", e text COLLATE "POSIX");
CREATE INDEX t_a ON t (a);
CREATE INDEX t_a_german ON t (a COLLATE "de-x-icu");
CREATE UNIQUE INDEX t_b ON t (b);
CREATE INDEX t_e ON t (lower(e) COLLATE "fr-x-icu") WHERE a > 'x' COLLATE "da-x-icu";
CREATE INDEX t_c ON t (c, d, e);
CREATE TABLE p (k text COLLATE "en-x-icu", n int) PARTITION BY RANGE (n);
CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE INDEX p_k ON p (k);
CREATE TEMP TABLE passing (k text COLLATE "en-x-icu" UNIQUE);`

// Columns and indexes with a collation of their own are each found once, and the versions of what they use.
func findsOwnCollations(t *testing.T, s *pgtest.Server) {
	db := s.Database(t)
	db.Exec(t, ownCollations)
	want := []string{
		"locale/object-not-c warning column p.k", "locale/object-not-c warning column t.b",
		"locale/object-not-c warning index t_a_german", "locale/object-not-c warning index t_e",
	}
	if s.Major(t) >= 17 {
		db.Exec(t, `CREATE TABLE u (a text COLLATE "pg_c_utf8" UNIQUE)`)
		want = append(want[:2:2], append([]string{"locale/object-not-c info column u.a"}, want[2:]...)...)
	}
	found := examined(t, targetOf(t, db), want...)
	if f := found[1]; !strings.Contains(f.Remedy, `ALTER TABLE "public"."t" ALTER COLUMN "b" TYPE character varying(20) COLLATE "default";`) ||
		!strings.HasPrefix(f.Evidence["text indexes"], "1, of which 1 unique") {
		t.Errorf("%+v", f)
	}
	if f := found[len(found)-1]; f.Observed != "collation da-x-icu, fr-x-icu" {
		t.Errorf("observed %q", f.Observed)
	}
	// The library behind two of them changes, and behind two that no index uses.
	db.AdminExec(t, `UPDATE pg_collation SET collversion = '1.2.3' WHERE collname IN ('en-x-icu', 'da-x-icu', 'nl-x-icu', 'pl-x-icu')`)
	found = examined(t, targetOf(t, db), append([]string{
		"locale/collation-version-changed warning collation da-x-icu", "locale/collation-version-changed warning collation en-x-icu",
		"locale/collation-version-changed info database " + db.Name}, want...)...)
	if f := found[0]; !f.Fixable || !strings.Contains(f.Remedy, "\n    REINDEX INDEX CONCURRENTLY \"public\".\"t_e\";\n") ||
		!strings.Contains(f.Remedy, "\n    ALTER COLLATION \"pg_catalog\".\"da-x-icu\" REFRESH VERSION;") || !strings.HasPrefix(f.Evidence["text indexes"], "1, of which 0 unique") {
		t.Errorf("%+v", f)
	}
	if f := found[1]; !strings.HasPrefix(f.Evidence["text indexes"], "2, of which 1 unique") {
		t.Errorf("%+v", f)
	}
	if f := found[2]; f.Fixable || f.Evidence["collations"] != "nl-x-icu, pl-x-icu" {
		t.Errorf("%+v", f)
	}
	// By hand, as the remedies of the objects say.
	for _, f := range found[3:] {
		db.Exec(t, commands(f.Remedy)[0])
	}
	examined(t, targetOf(t, db), "locale/collation-version-changed info database "+db.Name)
}

// commands are the lines of a remedy that are to be copied.
func commands(remedy string) []string {
	var found []string
	for line := range strings.Lines(remedy) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			found = append(found, strings.TrimSuffix(command, "\n"))
		}
	}
	return found
}

func TestWhereUnsafeLocalesAreAllowed(t *testing.T) {
	s := pgtest.StartWith(t, english(0))
	sound, unsound := s.Database(t), s.Database(t, pgtest.WithCreate(inEnUS))
	write := func(content string) string {
		path := filepath.Join(t.TempDir(), "homeserver.yaml")
		if err := os.WriteFile(path, []byte("server_name: test.example\n"+content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := write("database:\n  name: psycopg2\n  # allow_unsafe_locale: once it was\n  allow_unsafe_locale: true\n  args:\n    host: x\n")
	target := targetOf(t, sound)
	target.ConfigFiles = []string{one}
	if f := examined(t, target, "locale/unsafe-locale-allowed info setting allow_unsafe_locale")[0]; f.Evidence["file"] != one+":5" || f.Database != "main" {
		t.Errorf("%+v", f)
	}
	target = targetOf(t, unsound)
	target.ConfigFiles = []string{one}
	examined(t, target, "locale/not-c warning database "+unsound.Name, "locale/unsafe-locale-allowed warning setting allow_unsafe_locale")
	target.ConfigFiles = []string{write("database:\n  name: psycopg2\n  allow_unsafe_locale: false\n  args: {}\n")}
	examined(t, target, "locale/not-c error database "+unsound.Name)

	// Each of two databases has its own, and what they share is said once.
	target = targetOf(t, sound)
	target.Databases[0].DataStores = []string{"main"}
	target.Databases = append(target.Databases, entryOf(unsound))
	target.Databases[1].Label, target.Databases[1].DataStores = "second", []string{"state"}
	two := write("databases:\n  main: {name: psycopg2, data_stores: [main], args: {}, allow_unsafe_locale: yes}\n  second:\n    name: psycopg2\n    data_stores: [state]\n    args: {}\n    allow_unsafe_locale: on\n")
	target.ConfigFiles = []string{two}
	sound.AdminExec(t, `UPDATE pg_database SET datcollversion = '2.28' WHERE datname = 'postgres'`)
	found := examined(t, target, "locale/unsafe-locale-allowed info setting allow_unsafe_locale", "locale/collation-version-changed warning database postgres",
		"locale/not-c warning database "+unsound.Name, "locale/unsafe-locale-allowed warning setting allow_unsafe_locale")
	if found[0].Evidence["file"] != two+":3" || found[3].Evidence["file"] != two+":8" || found[3].Database != "second" {
		t.Errorf("%+v", found)
	}

	// A configuration that can't be read hides nothing of the database.
	target = targetOf(t, unsound)
	target.ConfigFiles = []string{filepath.Join(t.TempDir(), "absent.yaml")}
	var c collector
	if err := run(t.Context(), target, &c); err == nil || !strings.Contains(err.Error(), "absent.yaml") {
		t.Errorf("error %v", err)
	}
	wants(t, c.found, fmt.Sprintf("locale/not-c error database %s", unsound.Name), "locale/collation-version-changed warning database postgres")
}
