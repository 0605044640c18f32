package sqlitedb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// DB is one connection to one file. It is for one goroutine; several may be open on the same file, each for its own.
type DB struct {
	path string
	tls  *libc.TLS

	mu      sync.Mutex // guards handle and watches against a context that ends meanwhile
	handle  uintptr
	watches int // that were begun; only the end of the last one's context interrupts

	lost atomic.Bool // a page was not there: what SQLite holds in memory is unfit for anything

	watched context.Context // whose end interrupts what runs
	unwatch func() bool
}

// Open opens a file for reading, as one that nobody changes: SQLite takes no lock and looks for no journal. Where that would
// read something else than SQLite itself would, because of a -wal or a journal that has not been applied, the error is a
// [*PendingError]; for a file that is not SQLite's it is a [*NotSQLiteError], and for an absent one it wraps [fs.ErrNotExist].
// Whoever reads a file that may be in use has to notice by other means that it has changed.
func Open(ctx context.Context, path string) (*DB, error) {
	if _, err := ReadHeader(path); err != nil {
		return nil, err
	}
	if err := nothingPending(ctx, path); err != nil {
		return nil, err
	}
	return open(path, "mode=ro&immutable=1", sqlite3.SQLITE_OPEN_READONLY)
}

// OpenShared opens a file that other processes use, by SQLite's own protocol: it takes SQLite's shared lock while it reads,
// sees what is only in the -wal, and uses the -shm beside it. A file that nobody uses is opened with [Open] instead. Until it
// is closed, this process must not open and close the file or its companions by other means, [Look] and [ReadHeader]
// included: the system would drop the locks.
func OpenShared(path string) (*DB, error) {
	if _, err := ReadHeader(path); err != nil {
		return nil, err
	}
	d, err := open(path, "mode=ro", sqlite3.SQLITE_OPEN_READONLY)
	if err != nil {
		return nil, err
	}
	sqlite3.Xsqlite3_busy_timeout(d.tls, d.handle, busyMillis)
	return d, nil
}

// OpenOwn opens a file of the doctor's own for writing, such as a private copy; a journal beside it is applied as SQLite does.
func OpenOwn(path string) (*DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	return open(path, "mode=rw", sqlite3.SQLITE_OPEN_READWRITE)
}

// busyMillis is how long a lock of another process is waited for.
const busyMillis = 10_000

func open(path, query string, flags int32) (*DB, error) {
	uri, err := fileURI(path, query)
	if err != nil {
		return nil, err
	}
	name, err := libc.CString(uri)
	if err != nil {
		return nil, err
	}
	d := &DB{path: path, tls: libc.NewTLS()}
	defer libc.Xfree(d.tls, name)
	slot := d.tls.Alloc(pointerSize)
	defer d.tls.Free(pointerSize)
	rc := sqlite3.Xsqlite3_open_v2(d.tls, name, slot, flags|sqlite3.SQLITE_OPEN_URI|sqlite3.SQLITE_OPEN_NOMUTEX|sqlite3.SQLITE_OPEN_EXRESCODE, 0)
	d.handle = *(*uintptr)(address(slot))
	if rc != sqlite3.SQLITE_OK {
		err := d.failure(rc, "open it")
		d.Close()
		return nil, err
	}
	return d, nil
}

const pointerSize = int(unsafe.Sizeof(uintptr(0)))

// address is memory of SQLite's own, which the garbage collector neither moves nor frees.
func address(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

func fileURI(path, query string) (string, error) {
	if strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("the path of the SQLite file holds a NUL: %w", fs.ErrInvalid)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", path, err)
	}
	return (&url.URL{Scheme: "file", Path: absolute, RawQuery: query}).String(), nil
}

// Path is the file's path as it was given.
func (d *DB) Path() string { return d.path }

// Map reads the first bytes of the file, at most so many, through mapped memory instead of copies; 0 ends that. A scan takes a
// fifth less time; the pages count as the process's memory, and the kernel takes them back whenever it needs them. Where
// another process cuts the file off meanwhile, the system ends this one, unless what reads is in [DB.Shield].
func (d *DB) Map(bytes int64) error {
	if d.lost.Load() {
		return nil
	}
	s, err := d.Prepare(fmt.Sprintf("PRAGMA mmap_size=%d", bytes))
	if err != nil {
		return err
	}
	_, err = s.Step(context.Background())
	return errors.Join(err, s.Close())
}

// Shield runs f, in which a mapped file is read by this goroutine: a page that is not there any more, or can't be read, is an
// error then. After that the connection can only be closed.
func (d *DB) Shield(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if _, isFault := r.(interface{ Addr() uintptr }); !isFault {
			panic(r)
		}
		d.lost.Store(true)
		err = fmt.Errorf("a part of %s is not there any more, or can't be read", d.path)
	}()
	return f()
}

// Exec runs one statement to its end and drops its rows.
func (d *DB) Exec(ctx context.Context, sql string) error {
	s, err := d.Prepare(sql)
	if err != nil {
		return err
	}
	for row := true; row && err == nil; {
		row, err = s.Step(ctx)
	}
	return errors.Join(err, s.Close())
}

// Int is the first column of a statement's first row, as a whole number.
func (d *DB) Int(ctx context.Context, sql string) (int64, error) {
	s, err := d.Prepare(sql)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	row, err := s.Step(ctx)
	if err != nil {
		return 0, err
	}
	if !row {
		return 0, fmt.Errorf("%s: %s gave no row", d.path, sql)
	}
	return s.Int(0), nil
}

// Close ends the connection. Statements that were not closed become invalid.
func (d *DB) Close() error {
	if d.unwatch != nil {
		d.unwatch()
		d.unwatch, d.watched = nil, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tls == nil {
		return nil
	}
	var err error
	if d.lost.Load() { // what SQLite holds may be locked, or half changed: it is left to the end of the process
		d.handle, d.tls = 0, nil
		return nil
	}
	if d.handle != 0 {
		if rc := sqlite3.Xsqlite3_close_v2(d.tls, d.handle); rc != sqlite3.SQLITE_OK {
			err = d.failure(rc, "close it")
		}
	}
	d.handle = 0
	d.tls.Close()
	d.tls = nil
	return err
}

// watch has the end of ctx interrupt what runs. A context is watched until another one comes, and interrupts nothing from then on.
func (d *DB) watch(ctx context.Context) {
	if ctx == d.watched {
		return
	}
	if d.unwatch != nil {
		d.unwatch()
		d.unwatch = nil
	}
	d.watched = ctx
	watch := d.nextWatch()
	if ctx.Done() != nil {
		d.unwatch = context.AfterFunc(ctx, func() { d.interrupt(watch) })
	}
}

// nextWatch makes an end to the watch before, whose context may be ending just now. SQLite itself takes an interrupt back only
// when no statement is in the middle of its rows.
func (d *DB) nextWatch() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watches++
	if d.handle != 0 && sqlite3.Xsqlite3_is_interrupted(d.tls, d.handle) != 0 {
		(*sqlite3.Tsqlite3)(address(d.handle)).Fu1.FisInterrupted = 0
	}
	return d.watches
}

func (d *DB) interrupt(watch int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.handle != 0 && d.watches == watch {
		sqlite3.Xsqlite3_interrupt(d.tls, d.handle)
	}
}
