package vacuum

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// snapshot makes a consistent copy of a SQLite file under a temporary name, proves it, and gives it its own name at the end.
func snapshot(ctx context.Context, _ *doctor.Target, step doctor.OperationStep, _ string, h doctor.OperationHost) error {
	m, err := newMaking(step, h)
	if err != nil {
		return err
	}
	if err := m.clear(); err != nil {
		return doctor.Unchanged("what an interrupted run has left could not be removed: %v", err)
	}
	if _, err := os.Lstat(m.to); err == nil {
		if done, err := m.finished(ctx); err != nil || done {
			return err
		}
		return doctor.Unchanged("%s is there already, and nothing is written over", m.to)
	}
	if m.state, err = sqlitedb.Look(ctx, m.file); err != nil {
		return doctor.Unchanged("%v", err)
	}
	if m.state.Truncated() {
		return doctor.Unchanged("%s is shorter than its own header says: it can't be copied to something sound", m.file)
	}
	m.way = wayOf(m.state)
	if err := m.room(); err != nil {
		return err
	}
	err = m.make(ctx)
	if err == nil {
		return nil
	}
	err = errors.Join(err, m.clear())
	if _, there := os.Lstat(m.to); there == nil || ctx.Err() != nil {
		return err
	}
	return doctor.Unchanged("no snapshot was made, and nothing is left of it: %v", err)
}

// making is a snapshot in the making.
type making struct {
	file, to string
	raw      string // a private copy that nobody else writes to; it may have auto_vacuum on
	out      string // what becomes the snapshot
	host     doctor.OperationHost
	state    sqlitedb.State // of the file, before
	way      way
	counts   map[string]int64 // rows by table, as the file has them
}

func newMaking(step doctor.OperationStep, h doctor.OperationHost) (*making, error) {
	m := &making{file: step.Params["file"], to: step.Params["snapshot"], host: h}
	if !filepath.IsAbs(m.file) || !isName(m.file, m.to) {
		return nil, doctor.Unchanged("%q is not a name for a snapshot of %q", m.to, m.file)
	}
	m.raw, m.out = m.to+".copy", m.to+".partial"
	return m, nil
}

// clear removes what is only needed on the way.
func (m *making) clear() error {
	var errs []error
	for _, path := range []string{m.raw, m.out} {
		for _, companion := range []string{"", "-wal", "-shm", "-journal"} {
			if err := os.Remove(path + companion); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// room makes sure of the free disk.
func (m *making) room() error {
	var f syscall.Statfs_t
	dir := filepath.Dir(m.to)
	if err := syscall.Statfs(dir, &f); err != nil {
		return doctor.Unchanged("how much of the disk of %s is free could not be asked: %v", dir, err)
	}
	need := m.way.disk(m.state)
	if free := int64(f.Bavail) * int64(f.Bsize); free < need+spare {
		return doctor.Unchanged("a snapshot in %s needs %d MiB of free disk and %d MiB to spare, and there are %d MiB", dir, need>>20, spare>>20, free>>20)
	}
	return nil
}

// spare is what is left free for whoever else writes there, Synapse above all.
const spare = 64 << 20

func (m *making) make(ctx context.Context) error {
	source := m.raw
	var err error
	switch m.way {
	case shared:
		err = m.share(ctx)
	case recovered:
		err = m.recover(ctx)
	case plain:
		err = m.copyQuiet(ctx)
	case vacuumed:
		source = m.file
	}
	if err != nil {
		return err
	}
	if m.state.Header.AutoVacuum == sqlitedb.AutoVacuumNone {
		err = os.Rename(m.raw, m.out)
	} else {
		err = m.writeAnew(ctx, source)
	}
	if err != nil {
		return err
	}
	if err := m.prove(ctx); err != nil {
		return err
	}
	return m.publish(ctx)
}

// share copies the file by SQLite's own protocol, in one read transaction. Nothing but that connection may open the file
// here meanwhile: the system drops a process's locks on a file when it closes any of its handles.
func (m *making) share(ctx context.Context) error {
	from, err := sqlitedb.OpenShared(m.file)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := from.Exec(ctx, `BEGIN`); err != nil {
		return err
	}
	if m.counts, err = m.count(ctx, from, "counting the rows of "+filepath.Base(m.file)); err != nil {
		return err
	}
	if err := m.create(m.raw); err != nil {
		return err
	}
	to, err := sqlitedb.OpenOwn(m.raw)
	if err != nil {
		return err
	}
	defer to.Close()
	for _, s := range []string{`PRAGMA journal_mode = OFF`, `PRAGMA synchronous = OFF`} {
		if err := to.Exec(ctx, s); err != nil {
			return err
		}
	}
	size := int64(m.state.Header.PageSize)
	err = from.Backup(ctx, to, func(done, total int) { m.progress("copying", int64(done)*size, int64(total)*size) })
	if err != nil {
		return err
	}
	if err := errors.Join(to.Close(), from.Close()); err != nil {
		return err
	}
	return m.settle(ctx)
}

// recover copies the file and what waits beside it, and has SQLite apply it to the copy.
func (m *making) recover(ctx context.Context) error {
	for _, companion := range []string{"-wal", "-journal", ""} {
		if err := m.copyFile(ctx, m.file+companion, m.raw+companion); err != nil && !(companion != "" && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	if err := m.stillQuiet(ctx); err != nil {
		return err
	}
	return m.settle(ctx)
}

// copyQuiet copies a file that nobody uses.
func (m *making) copyQuiet(ctx context.Context) error {
	if err := m.copyFile(ctx, m.file, m.raw); err != nil {
		return err
	}
	from, err := sqlitedb.Open(ctx, m.file)
	if err != nil {
		return err
	}
	m.counts, err = m.count(ctx, from, "counting the rows of "+filepath.Base(m.file))
	if err := errors.Join(err, from.Close(), m.stillQuiet(ctx)); err != nil {
		return err
	}
	return m.settle(ctx)
}

// settle has SQLite apply what waits beside the private copy, and leaves it without a journal of its own.
func (m *making) settle(ctx context.Context) error {
	db, err := sqlitedb.OpenOwn(m.raw)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Int(ctx, `SELECT count(*) FROM sqlite_schema`); err != nil { // a journal is applied by the first read
		return err
	}
	if err := db.Exec(ctx, `PRAGMA journal_mode = DELETE`); err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	for _, companion := range []string{"-wal", "-journal"} {
		if info, err := os.Stat(m.raw + companion); err == nil && info.Size() > 0 {
			return fmt.Errorf("SQLite did not apply the %s", m.file+companion)
		}
	}
	return nil
}

// writeAnew writes a file anew with auto_vacuum off. VACUUM INTO keeps the rowids of every table; a plain VACUUM does not.
func (m *making) writeAnew(ctx context.Context, path string) error {
	from, err := sqlitedb.Open(ctx, path)
	if err != nil {
		return err
	}
	defer from.Close()
	if m.counts == nil {
		if m.counts, err = m.count(ctx, from, "counting the rows of "+filepath.Base(m.file)); err != nil {
			return err
		}
	}
	if err := m.create(m.out); err != nil {
		return err
	}
	if err := from.Exec(ctx, `PRAGMA auto_vacuum = 0`); err != nil {
		return err
	}
	watching := m.watch(ctx, m.out)
	err = from.Exec(ctx, `VACUUM INTO `+literal(m.out))
	watching()
	if err := errors.Join(err, from.Close()); err != nil {
		return err
	}
	if path == m.file {
		return m.stillQuiet(ctx)
	}
	return nil
}

// stillQuiet makes sure that nobody has written to the file, or opened it, while it was read without a lock.
func (m *making) stillQuiet(ctx context.Context) error {
	now, err := sqlitedb.Look(ctx, m.file)
	if err != nil {
		return err
	}
	was := m.state
	if now.Size != was.Size || !now.Changed.Equal(was.Changed) || now.Header != was.Header || now.WAL != was.WAL || now.Journal != was.Journal || now.Users.Any() {
		return fmt.Errorf("somebody has opened or written to %s while it was copied: run this again", m.file)
	}
	return nil
}

// create makes an empty file that only its owner may read.
func (m *making) create(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(m.own(path), f.Close())
}

// own gives a file the owner of the original, where this user may.
func (m *making) own(path string) error {
	info, err := os.Stat(m.file)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		return os.Lchown(path, int(stat.Uid), int(stat.Gid))
	}
	return nil
}

// publish puts the snapshot on the disk and gives it its name, unless something has taken that.
func (m *making) publish(ctx context.Context) error {
	// Its time is that of the file's last change: by it the check knows what it is a snapshot of.
	if err := os.Chtimes(m.out, time.Time{}, m.state.Changed); err != nil {
		return err
	}
	if err := flush(m.out); err != nil {
		return err
	}
	if err := m.remember(ctx); err != nil {
		return err
	}
	err := renameNew(m.out, m.to)
	if err != nil {
		return fmt.Errorf("name the snapshot %s: %w", m.to, err)
	}
	return errors.Join(m.clear(), flush(filepath.Dir(m.to)))
}

// linkNew is renameNew by a second link, which fails where the name is taken.
func linkNew(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}

// flush puts a file, or the names in a folder, on the disk.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
