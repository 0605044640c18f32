package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	} {
		db.Exec(t, change)
		if got := try("1.161"); !strings.Contains(got, why) {
			t.Errorf("%q", got)
		}
		db.Exec(t, `DELETE FROM users; DELETE FROM background_updates`)
	}
	if got := try("1.161"); !strings.Contains(got, "the same as that of 1.160") {
		t.Errorf("%q", got)
	}
	if got := try("../x"); !strings.Contains(got, "VERSION=1.161") {
		t.Errorf("%q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "1.161.json")); err == nil {
		t.Error("a file was written of what is not fresh")
	}
}
