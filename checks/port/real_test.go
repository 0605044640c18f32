package port

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestARealHomeserverIsPortedAndFoundEqual(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	db := pgtest.Start(t).Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_empty.dump")))
	b := &bench{t, pgtest.SQLite(t), db, filepath.Join(t.TempDir(), "state")}
	began := time.Now()
	b.finds(NotPorted + " " + db.Name)
	t.Logf("looked at in %s", time.Since(began))
	b.applied("port/copy")
	b.finds(UpdatesQueued + " background_updates")
	began = time.Now()
	c, _, err := examinePair(t, b.file, postgres(db), func(t *doctor.Target) { t.Deep = true })
	if err != nil || slices.Contains(c.only(), ContentDiffers) || slices.Contains(c.only(), RowsMissing) || slices.Contains(c.only(), RowsSurplus) {
		t.Errorf("compared row by row: %v, %v", c.codes(), err)
	}
	t.Logf("compared in %s", time.Since(began))
}

// Synapse's script has ported this very file, which has none of the values that it changes.
func TestARealPortBySynapsesScriptHasOnlyTheUserDirectoryFrozen(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	db := pgtest.Start(t).Database(t, pgtest.WithDump(filepath.Join(pgtest.Data(t), "synapse_ported.dump")))
	target := &doctor.Target{ServerName: "test.example", Databases: []*doctor.Database{postgres(db)}}
	defer target.Close()
	c := &collector{}
	if err := Check.Run(t.Context(), target, c); err != nil || !slices.Equal(c.only(), []string{DirectoryFrozen}) {
		t.Errorf("without the file: %v, %v", c.codes(), err)
	}
	c, _, err := examinePair(t, pgtest.SQLite(t), postgres(db), nil)
	if err != nil || !slices.Equal(c.only(), []string{DirectoryFrozen, ScriptRemains}) || c.one(t, ScriptRemains).Severity != doctor.Info {
		t.Errorf("with the file: %v, %v", c.codes(), err)
	}
}
