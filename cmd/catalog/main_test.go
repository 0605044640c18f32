package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/checks/schema"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestAFreshSchemaIsWrittenAndNoOther(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_empty.dump")))
	dir := t.TempDir()
	try := func(version string) string {
		if err := write(t.Context(), db.DSN(), version, dir, "", false); err != nil {
			return err.Error()
		}
		return ""
	}
	if got := try("1.160"); got != "" {
		t.Fatal(got)
	}
	got, err := os.ReadFile(filepath.Join(dir, "1.160.json"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("../../checks/schema/catalog/1.160.json")
	if err != nil {
		t.Fatal(err)
	}
	source := func(text []byte) string { // names the server
		before, after, _ := strings.Cut(string(text), ` "source": `)
		_, after, _ = strings.Cut(after, "\n")
		return before + after
	}
	if source(got) != source(want) {
		t.Error("the catalog is not the one of 1.160")
	}
	for change, why := range map[string]string{
		`INSERT INTO users (name) VALUES ('@a:b')`:                                       "the database has users",
		`INSERT INTO background_updates (update_name, progress_json) VALUES ('x', '{}')`: "1 background updates are queued",
		`CREATE TABLE port_from_sqlite3 (i int)`:                                         "the table port_from_sqlite3 is none of the schema",
		`CREATE TABLE _temp_populate_user_directory_rooms (i int)`:                       "the table _temp_populate_user_directory_rooms is none",
	} {
		db.Exec(t, change)
		if got := try("1.161"); !strings.Contains(got, why) {
			t.Errorf("%q", got)
		}
		db.Exec(t, `DELETE FROM users; DELETE FROM background_updates; DROP TABLE IF EXISTS port_from_sqlite3, _temp_populate_user_directory_rooms`)
	}
	if got := try("1.161"); !strings.Contains(got, "the same as that of 1.160") {
		t.Errorf("%q", got)
	}
	if got := try("../x"); !strings.Contains(got, "VERSION=1.161") {
		t.Errorf("%q", got)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(files) != 1 || len(hidden) != 0 {
		t.Errorf("a file was written of what is not fresh, or left: %v %q %q", err, files, hidden)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v %v", info, err)
	}
}

func TestWhatDiffersIsHintedAt(t *testing.T) {
	table := func(indexes ...string) *schema.Table {
		t := &schema.Table{}
		for _, name := range indexes {
			t.Indexes = append(t.Indexes, schema.Index{Name: name})
		}
		return t
	}
	c := &schema.Catalog{Tables: map[string]*schema.Table{"a": table("a_key", "a_new"), "b": table()}}
	newest := &schema.Catalog{Tables: map[string]*schema.Table{"a": table("a_key"), "gone": table()}}
	got := hints(c, newest)
	for i, want := range []string{"new: the index a_new of a.", "new: the table b.", "vanished: the table gone."} {
		if len(got) != 3 || !strings.HasPrefix(got[i], want) {
			t.Fatalf("%q", got)
		}
	}
	if got := hints(c, c); got != nil {
		t.Errorf("%q", got)
	}
}
