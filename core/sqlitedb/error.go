package sqlitedb

import (
	"fmt"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// NotSQLiteError is a file that is not a SQLite database.
type NotSQLiteError struct {
	Path string
	Why  string // it is empty, it begins otherwise, …
}

func (e *NotSQLiteError) Error() string {
	return fmt.Sprintf("%s is not a SQLite database: %s", e.Path, e.Why)
}

// PendingError is a file beside which lies what SQLite would have to apply first.
type PendingError struct {
	Path      string
	Companion string // the -wal or -journal
	Frames    int    // committed ones of the -wal whose pages are not yet in the file; 0 for a journal
}

func (e *PendingError) Error() string {
	if e.Frames > 0 {
		return fmt.Sprintf("%s can't be read by itself: what was committed last, on %d pages, is only in %s. "+
			"Make a snapshot with synapse-doctor fix vacuum --apply, and read that", e.Path, e.Frames, e.Companion)
	}
	return fmt.Sprintf("%s can't be read by itself: a transaction that was cut off, or still runs, has its undo in %s. "+
		"Make a snapshot with synapse-doctor fix vacuum --apply, and read that", e.Path, e.Companion)
}

// Error is what SQLite answered.
type Error struct {
	Path    string
	Doing   string
	Code    int // SQLite's extended result code
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %s", e.Path, e.Doing, e.Message) }

// Corrupt reports whether SQLite found the file damaged, or not to be one of its own.
func (e *Error) Corrupt() bool {
	return e.Code&0xff == sqlite3.SQLITE_CORRUPT || e.Code&0xff == sqlite3.SQLITE_NOTADB
}

// Busy reports whether another process held a lock for too long.
func (e *Error) Busy() bool { return e.Code&0xff == sqlite3.SQLITE_BUSY }

func (d *DB) failure(rc int32, doing string) error {
	message := libc.GoString(sqlite3.Xsqlite3_errstr(d.tls, rc))
	if d.handle != 0 {
		if said := libc.GoString(sqlite3.Xsqlite3_errmsg(d.tls, d.handle)); said != "" && said != "not an error" && said != message {
			message += " (" + said + ")"
		}
	}
	return &Error{Path: d.path, Doing: doing, Code: int(rc), Message: message}
}
