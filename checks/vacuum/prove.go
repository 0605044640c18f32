package vacuum

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// count counts the rows of every table, in one transaction or of a file that nobody changes.
func (m *making) count(ctx context.Context, db *sqlitedb.DB, text string) (map[string]int64, error) {
	tables, err := tablesOf(ctx, db)
	if err != nil {
		return nil, err
	}
	counts := map[string]int64{}
	for i, table := range tables {
		if counts[table], err = db.Int(ctx, `SELECT count(*) FROM `+identifier(table)); err != nil {
			return nil, err
		}
		m.host.Progress(doctor.Progress{Text: text, Done: int64(i + 1), Total: int64(len(tables)), Unit: "tables"})
	}
	return counts, nil
}

// prove makes sure that the snapshot can be read by itself, has auto_vacuum off, and has as many rows in every table as the
// file has. Where the file could only be read after SQLite's recovery, the recovered copy is what there is to compare with.
func (m *making) prove(ctx context.Context) error {
	h, err := sqlitedb.ReadHeader(m.out)
	if err != nil {
		return err
	}
	info, err := os.Stat(m.out)
	if err != nil {
		return err
	}
	if h.AutoVacuum != sqlitedb.AutoVacuumNone || h.WAL || info.Size() != h.Pages*int64(h.PageSize) {
		return fmt.Errorf("the snapshot is not as it ought to be: auto_vacuum %s, %d bytes for %d pages of %d", h.AutoVacuum, info.Size(), h.Pages, h.PageSize)
	}
	db, err := sqlitedb.Open(ctx, m.out)
	if err != nil {
		return err
	}
	defer db.Close()
	counts, err := m.count(ctx, db, "counting the rows of the snapshot")
	if err != nil || m.counts == nil {
		return err
	}
	for table, n := range m.counts {
		if counts[table] != n {
			return fmt.Errorf("the snapshot has %d rows in %s, and the file %d", counts[table], table, n)
		}
	}
	if len(counts) != len(m.counts) {
		return fmt.Errorf("the snapshot has %d tables, and the file %d", len(counts), len(m.counts))
	}
	return nil
}

// made is what the journal keeps of a snapshot, so that an undo removes nothing else.
type made struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// remember has the host keep what the snapshot is, before it gets its name.
func (m *making) remember(ctx context.Context) error {
	sum, err := m.sum(ctx, m.out)
	if err != nil {
		return err
	}
	row, err := json.Marshal(made{m.to, sum})
	if err != nil {
		return err
	}
	return m.host.Save(ctx, "made", []doctor.SavedRow{{Table: "snapshot", JSON: string(row)}})
}

func (m *making) sum(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for done := int64(0); ; {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := io.CopyN(sum, f, copyPiece)
		done += n
		m.progress("reading the snapshot once more", done, info.Size())
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(sum.Sum(nil)), nil
		}
		if err != nil {
			return "", fmt.Errorf("read %s: %w", path, err)
		}
	}
}

// finished reports whether the snapshot that is there is the very one that an interrupted run made.
func (m *making) finished(ctx context.Context) (bool, error) {
	want, err := m.remembered(ctx)
	if err != nil || want == "" {
		return false, err
	}
	sum, err := m.sum(ctx, m.to)
	return sum == want, err
}

// remembered is the hash of the snapshot that this step made; empty when it made none.
func (m *making) remembered(ctx context.Context) (sum string, err error) {
	err = m.host.Rows(ctx, func(r doctor.SavedRow) error {
		var x made
		if err := json.Unmarshal([]byte(r.JSON), &x); err != nil {
			return fmt.Errorf("read what the journal keeps of the snapshot: %w", err)
		}
		if x.Path == m.to {
			sum = x.SHA256
		}
		return nil
	})
	return sum, err
}

// removeSnapshot undoes [snapshot]: it removes the file that was made, if it is still that very file.
func removeSnapshot(ctx context.Context, _ *doctor.Target, step doctor.OperationStep, _ string, h doctor.OperationHost) error {
	m, err := newMaking(step, h)
	if err != nil {
		return err
	}
	if err := m.clear(); err != nil {
		return err
	}
	info, err := os.Lstat(m.to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	want, err := m.remembered(ctx)
	if err != nil || want == "" {
		return err // nothing of ours has that name
	}
	if !info.Mode().IsRegular() {
		return doctor.Unchanged("%s is no longer the snapshot that was made: remove it yourself if it is not needed", m.to)
	}
	sum, err := m.sum(ctx, m.to)
	if err != nil {
		return err
	}
	if users := sqlitedb.FindUsers(m.to); sum != want || users.Any() {
		return doctor.Unchanged("%s is no longer as it was made, or is in use: remove it yourself if it is not needed", m.to)
	}
	if err := os.Remove(m.to); err != nil {
		return err
	}
	return flush(filepath.Dir(m.to))
}
