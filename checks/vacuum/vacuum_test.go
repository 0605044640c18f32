package vacuum_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

func TestASoundFileIsSilent(t *testing.T) {
	begin(t, ``).finds()
	b := begin(t, ``)
	b.deep = true
	if r := b.finds(); !strings.Contains(r.Coverage, "5 tables") {
		t.Errorf("covered: %s", r.Coverage)
	}
	if plans := b.fix(false).Plans; len(plans) > 0 {
		t.Errorf("%d plans for a sound file", len(plans))
	}
}

func TestAReadOnlyFolderIsExamined(t *testing.T) {
	b := begin(t, `PRAGMA auto_vacuum=FULL`)
	if err := os.Chmod(filepath.Dir(b.path), 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Dir(b.path), 0o700) })
	b.finds("auto-vacuum-on error")
}

func TestAutoVacuumIsFoundInTheHeader(t *testing.T) {
	for _, mode := range []string{"FULL", "INCREMENTAL"} {
		r := begin(t, `PRAGMA auto_vacuum=`+mode).finds("auto-vacuum-on error")
		if f := r.Findings[0]; f.Evidence["auto_vacuum"] != strings.ToLower(mode) || !f.Fixable || f.Object.Kind != "file" {
			t.Errorf("%s: %+v", mode, f)
		}
	}
}

// withWAL leaves committed rows in the -wal alone.
func withWAL(t *testing.T, pragmas string) *bench {
	t.Helper()
	b := begin(t, pragmas)
	db := b.open(b.path)
	b.exec(db, `PRAGMA journal_mode=WAL`, `INSERT INTO users VALUES ('@c:test.example', 'z')`)
	return b.killed("-wal")
}

// withJournal leaves a transaction cut off, half of it in the file.
func withJournal(t *testing.T, pragmas string) *bench {
	t.Helper()
	b := begin(t, pragmas)
	db := b.open(b.path)
	b.exec(db, `PRAGMA cache_size=5`, `BEGIN`, `UPDATE events SET body = hex(randomblob(150))`)
	return b.killed("-journal")
}

func TestCommittedRowsInTheWALAreFound(t *testing.T) {
	withWAL(t, ``).finds("wal-not-checkpointed warning")
}

func TestAHotJournalIsFound(t *testing.T) {
	withJournal(t, ``).finds("hot-journal error")
}

func TestACopyThatWasTakenWithoutItsWALIsAdviceWithoutProof(t *testing.T) {
	b := begin(t, ``)
	db := b.open(b.path)
	b.exec(db, `PRAGMA journal_mode=WAL`, `INSERT INTO users VALUES ('@c:test.example', 'z')`)
	b.killed().finds("wal-missing info")
	b.killed("-shm").finds("wal-missing warning")
	db.Close()
	b.finds("wal-missing info") // the very same file, closed as it ought to be
}

func TestTheHomeserversOwnFileNeedsNoWAL(t *testing.T) {
	b := begin(t, `PRAGMA journal_mode=WAL`)
	config := filepath.Join(t.TempDir(), "homeserver.yaml")
	text := fmt.Sprintf("server_name: test.example\ndatabase:\n  name: sqlite3\n  args:\n    database: %s\n", b.path)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.config = config
	b.finds()
	if err := os.Remove(b.path); err != nil {
		t.Fatal(err)
	}
	f := b.finds("absent error").Findings[0]
	if !strings.Contains(f.Summary, config+":5") && !strings.Contains(f.Summary, config+":4") || !strings.Contains(f.Summary, "empty one") {
		t.Errorf("%s", f.Summary)
	}
}

func TestAProcessThatUsesTheFileIsNamed(t *testing.T) {
	b := begin(t, `PRAGMA journal_mode=WAL`)
	pid := used(t, b.path)
	r := b.check()
	if r.Status != doctor.StatusInfo {
		t.Errorf("%s: %s", r.Status, r.Reason)
	}
	named := false
	for _, f := range r.Findings {
		named = named || f.Code == "vacuum/in-use" && strings.Contains(f.Observed, fmt.Sprintf("process %d (/proc/self/exe", pid)) && f.Fixable
	}
	if !named {
		t.Errorf("%+v", r.Findings)
	}
	for _, suffix := range []string{"-journal", ".snapshot"} {
		if _, err := os.Stat(b.path + suffix); err == nil {
			t.Errorf("there is %s", suffix)
		}
	}
	b.deep = true
	if r := b.check(); r.Status != doctor.StatusUnknown || !strings.Contains(r.Reason, "snapshot") {
		t.Errorf("--deep on a file that is written to is %s: %s", r.Status, r.Reason)
	}
}

func TestWhatIsNotTheHomeserversDatabaseIsFound(t *testing.T) {
	b := begin(t, ``)
	b.exec(b.open(b.path), `UPDATE users SET name = '@z:other.example' WHERE name = '@b:test.example'`)
	if f := b.finds("not-synapse error").Findings[0]; !strings.Contains(f.Summary, "@z:other.example") {
		t.Errorf("%s", f.Summary)
	}
	b = begin(t, ``, `DROP TABLE users`)
	b.finds("not-synapse error")
	for want, content := range map[string]string{"empty-file error": "", "not-sqlite error": strings.Repeat("\x1f\x8b gzip ", 100)} {
		if err := os.WriteFile(b.path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		b.finds(want)
	}
	if err := os.Remove(b.path); err != nil {
		t.Fatal(err)
	}
	b.finds("absent error")
	if _, err := os.Stat(b.path); err == nil {
		t.Error("the check made the file")
	}
}

func TestAFileThatWasCutOffIsFound(t *testing.T) {
	b := begin(t, ``)
	info, err := os.Stat(b.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(b.path, info.Size()*2/3); err != nil {
		t.Fatal(err)
	}
	b.finds("truncated error")
}

func TestADamagedPageIsFoundByDeepReading(t *testing.T) {
	b := begin(t, ``)
	f, err := os.OpenFile(b.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(strings.Repeat("\xee", 64)), 60*4096); err != nil { // the head of a page of a table
		t.Fatal(err)
	}
	b.finds()
	b.deep = true
	r := b.finds("corrupt error")
	if f := r.Findings[0]; !strings.Contains(f.Evidence["event_json"]+f.Evidence["events"], "page 61") {
		t.Errorf("%+v", f)
	}
}

// Page by page a file is sound that has a page in two tables; only the whole of it is not.
func TestAPageThatIsFreeAndInUseIsFoundByDeepReading(t *testing.T) {
	b := begin(t, ``, `DELETE FROM event_json`)
	header, err := sqlitedb.ReadHeader(b.path)
	if err != nil || header.FreePages < 3 {
		t.Fatalf("%+v, %v", header, err)
	}
	f, err := os.OpenFile(b.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	trunk := make([]byte, 4)
	if _, err := f.ReadAt(trunk, 32); err != nil {
		t.Fatal(err)
	}
	first := int64(binary.BigEndian.Uint32(trunk)-1)*int64(header.PageSize) + 8 // the first free page in the list
	if _, err := f.WriteAt([]byte{0, 0, 0, 2}, first); err != nil {
		t.Fatal(err)
	}
	b.deep = true
	b.finds("corrupt error")
}

func TestRowsWithoutTheirParentsAreCountedAndNamed(t *testing.T) {
	b := begin(t, ``, `DELETE FROM events WHERE stream_ordering BETWEEN 100 AND 199`)
	b.finds()
	b.deep = true
	f := b.finds("orphaned-rows warning").Findings[0]
	if f.Object.Kind != "table" || f.Object.Name != "event_json" || !strings.HasPrefix(f.Summary, "67 rows of event_json") {
		t.Errorf("%+v", f)
	}
	if got := f.Evidence["rowids without events"]; !strings.HasPrefix(got, "100, 101, 103, ") || !strings.HasSuffix(got, ", …") {
		t.Errorf("examples: %s", got)
	}
}

func TestTheRealHomeserversFileIsSound(t *testing.T) {
	b := &bench{t: t, path: pgtest.SQLite(t), state: filepath.Join(t.TempDir(), "state"), deep: true}
	if r := b.finds("wal-missing info"); !strings.Contains(r.Coverage, "foreign keys of 182 tables") {
		t.Errorf("covered: %s", r.Coverage)
	}
}
