package sqlitedb_test

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// killed is a copy of what a process that died at this instant would leave of the database at path.
func killed(t *testing.T, path string, companions ...string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "homeserver.db")
	for _, suffix := range append([]string{""}, companions...) {
		content, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+suffix, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func look(t *testing.T, path string) sqlitedb.State {
	t.Helper()
	s, err := sqlitedb.Look(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// living is a database in WAL mode with a checkpointed table and rows that are only in the -wal.
func living(t *testing.T) (*sql.DB, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "homeserver.db")
	db := writer(t, path)
	run(t, db, `PRAGMA journal_mode=WAL`, `PRAGMA wal_autocheckpoint=0`, `CREATE TABLE t (v TEXT)`, `INSERT INTO t VALUES ('old')`,
		`PRAGMA wal_checkpoint(TRUNCATE)`, `INSERT INTO t VALUES ('new')`, `CREATE TABLE u (v)`)
	return db, path
}

func TestCommittedFramesOfAWALArePending(t *testing.T) {
	_, path := living(t)
	copied := killed(t, path, "-wal")
	s := look(t, copied)
	if !s.Pending() || s.WAL.Pending == 0 || s.WAL.Frames < 2 || !s.Header.WAL {
		t.Errorf("%+v", s.WAL)
	}
	_, err := sqlitedb.Open(t.Context(), copied)
	if e, ok := errors.AsType[*sqlitedb.PendingError](err); !ok || e.Frames != s.WAL.Pending || e.Companion != copied+"-wal" {
		t.Errorf("%v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(copied)); len(left) != 2 {
		t.Errorf("looking left %v", left)
	}
}

func TestFramesThatWereCheckpointedAreNotPending(t *testing.T) {
	db, path := living(t)
	run(t, db, `PRAGMA wal_checkpoint(FULL)`) // the frames stay in the -wal
	copied := killed(t, path, "-wal")
	if s := look(t, copied); s.Pending() || s.WAL.Frames == 0 {
		t.Errorf("%+v", s.WAL)
	}
	n, err := open(t, copied).Int(t.Context(), `SELECT count(*) FROM t`)
	if err != nil || n != 2 {
		t.Errorf("%d rows, %v", n, err)
	}
}

func TestFramesOfAnEarlierRoundAndOfAnOpenTransactionDoNotCount(t *testing.T) {
	db, path := living(t)
	run(t, db, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO t SELECT 'text ' || i FROM n`,
		`PRAGMA wal_checkpoint(FULL)`, `PRAGMA wal_checkpoint(RESTART)`, `INSERT INTO t VALUES ('x')`)
	one := look(t, killed(t, path, "-wal"))
	if one.WAL.Frames == 0 || one.WAL.Frames > 3 || one.WAL.Pending == 0 || one.WAL.Size < 5*4096 {
		t.Errorf("after a new round %+v", one.WAL)
	}
	copied := killed(t, path, "-wal")
	wal, err := os.OpenFile(copied+"-wal", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer wal.Close()
	if _, err := wal.WriteAt([]byte{0xff}, 32+24+17); err != nil { // within the first frame's page
		t.Fatal(err)
	}
	if s := look(t, copied); s.WAL.Frames != 0 || s.Pending() {
		t.Errorf("a frame with a wrong checksum counts: %+v", s.WAL)
	}
}

func TestFramesOfPagesThatWereCutOffLaterAreNotPending(t *testing.T) {
	path := filepath.Join(t.TempDir(), "homeserver.db")
	db := writer(t, path)
	run(t, db, `PRAGMA auto_vacuum=FULL`, `PRAGMA journal_mode=WAL`, `PRAGMA wal_autocheckpoint=0`, `CREATE TABLE t (v)`,
		`INSERT INTO t VALUES (zeroblob(100000))`, `DELETE FROM t`, `PRAGMA wal_checkpoint(FULL)`)
	if s := look(t, killed(t, path, "-wal")); s.WAL.Frames < 25 || s.WAL.PagesAfter > 5 || s.Pending() {
		t.Errorf("%+v", s.WAL)
	}
}

// What the doctor says is pending must be what SQLite recovers.
func TestSQLiteRecoversWhatIsSaidToBePending(t *testing.T) {
	db, path := living(t)
	for i := range 12 {
		run(t, db, fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO t SELECT 'text ' || i FROM n`, 50*i+1))
		if i%3 == 2 {
			run(t, db, `PRAGMA wal_checkpoint(PASSIVE)`)
		}
		if i%5 == 4 {
			run(t, db, `DELETE FROM t WHERE rowid % 2 = 0`)
		}
		copied := killed(t, path, "-wal")
		s := look(t, copied)
		without, err := os.ReadFile(copied)
		if err != nil {
			t.Fatal(err)
		}
		recovered := writer(t, copied)
		run(t, recovered, `PRAGMA wal_checkpoint(TRUNCATE)`)
		recovered.Close()
		with, err := os.ReadFile(copied)
		if err != nil {
			t.Fatal(err)
		}
		if differ := string(without) != string(with); differ != s.Pending() {
			t.Errorf("round %d: pending %v, and SQLite's recovery changes the file: %v (%+v)", i, s.Pending(), differ, s.WAL)
		}
	}
}

func TestAnIndexWithoutItsWALTellsThatRowsWereLeftBehind(t *testing.T) {
	db, path := living(t)
	if s := look(t, killed(t, path, "-shm")); !s.WALLost() {
		t.Errorf("%+v", s.Index)
	}
	run(t, db, `PRAGMA wal_checkpoint(FULL)`)
	if s := look(t, killed(t, path, "-shm")); s.WALLost() {
		t.Errorf("after a checkpoint %+v", s.Index)
	}
}

func TestAJournalIsHotUntilItsHeaderIsGone(t *testing.T) {
	path := create(t, `CREATE TABLE t (v TEXT)`, `INSERT INTO t VALUES ('old')`)
	db := writer(t, path)
	run(t, db, `PRAGMA cache_size=5`, `PRAGMA cache_spill=1`, `BEGIN`,
		`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT hex(randomblob(100)) FROM n`)
	copied := killed(t, path, "-journal")
	if s := look(t, copied); !s.Hot() || !s.Pending() {
		t.Errorf("%+v", s.Journal)
	}
	if _, err := sqlitedb.Open(t.Context(), copied); err == nil || !strings.Contains(err.Error(), "-journal") {
		t.Errorf("%v", err)
	}
	run(t, db, `ROLLBACK`, `PRAGMA journal_mode=PERSIST`, `DELETE FROM t`)
	copied = killed(t, path, "-journal")
	if s := look(t, copied); s.Journal.Size == 0 || s.Hot() || s.Pending() {
		t.Errorf("a journal that was zeroed: %+v", s.Journal)
	}
	if err := os.Truncate(copied+"-journal", 0); err != nil {
		t.Fatal(err)
	}
	if look(t, copied).Pending() {
		t.Error("an empty journal is pending")
	}
}

func TestTheHeaderSaysHowFreedPagesAreGivenBack(t *testing.T) {
	for word, want := range map[string]sqlitedb.AutoVacuum{"none": sqlitedb.AutoVacuumNone, "full": sqlitedb.AutoVacuumFull, "incremental": sqlitedb.AutoVacuumIncremental} {
		path := create(t, `PRAGMA auto_vacuum=`+word, `CREATE TABLE t (v)`, `INSERT INTO t VALUES (zeroblob(100000))`, `DELETE FROM t`)
		h := look(t, path).Header
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if h.AutoVacuum != want || h.AutoVacuum.String() != word || !h.PagesKnown() || h.Pages*int64(h.PageSize) != info.Size() {
			t.Errorf("%s: %+v, %d bytes", word, h, info.Size())
		}
		if (h.FreePages > 0) != (want != sqlitedb.AutoVacuumFull) {
			t.Errorf("%s: %d free pages", word, h.FreePages)
		}
	}
}

func TestAFileThatEndsTooEarlyIsTruncated(t *testing.T) {
	path := create(t, `CREATE TABLE t (v)`, `INSERT INTO t VALUES (zeroblob(100000))`)
	if look(t, path).Truncated() {
		t.Error("a whole file is truncated")
	}
	if err := os.Truncate(path, 50_000); err != nil {
		t.Fatal(err)
	}
	if !look(t, path).Truncated() {
		t.Error("half a file is not truncated")
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(binary.BigEndian.AppendUint32(nil, 7), 92); err != nil { // an old SQLite has written since
		t.Fatal(err)
	}
	if look(t, path).Truncated() {
		t.Error("a page count that nobody kept was believed")
	}
}

func TestAProcessThatHasTheFileOpenIsNamed(t *testing.T) {
	path := create(t, `CREATE TABLE t (v)`)
	if u := look(t, path).Users; u.Any() {
		t.Errorf("used by %s", u)
	}
	linked := filepath.Join(t.TempDir(), "linked.db")
	if err := os.Symlink(path, linked); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	other := exec.Command("sleep", "600")
	other.ExtraFiles = []*os.File{f}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Process.Kill(); other.Wait() })
	for _, p := range []string{path, linked} {
		u := look(t, p).Users
		if len(u.Seen) != 1 || u.Seen[0].PID != other.Process.Pid || u.Seen[0].Command != "sleep" {
			t.Errorf("%s: used by %s", p, u)
		}
	}
}

func FuzzAHeaderNeverPanics(f *testing.F) {
	f.Add([]byte("SQLite format 3\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := sqlitedb.ParseHeader(b)
		if err == nil && (h.PageSize < 512 || h.PageSize > 65536) {
			t.Errorf("pages of %d bytes", h.PageSize)
		}
	})
}

func FuzzAWALNeverPanics(f *testing.F) {
	f.Add(make([]byte, 32))
	f.Fuzz(func(t *testing.T, wal []byte) {
		path := filepath.Join(t.TempDir(), "x.db")
		header := make([]byte, 4096)
		copy(header, "SQLite format 3\x00\x10\x00\x02\x02")
		if err := errors.Join(os.WriteFile(path, header, 0o600), os.WriteFile(path+"-wal", wal, 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := sqlitedb.Look(t.Context(), path); err != nil {
			t.Fatal(err)
		}
	})
}
