package sqlitedb

import (
	"context"
	"os"
	"time"
)

// State is what can be told of a file from the bytes of it and its companions, and from who has it open.
type State struct {
	Path    string
	Header  Header
	Size    int64
	Changed time.Time // the newest of the times at which the file, its -wal and its -journal were written
	WAL     WAL
	Journal Journal
	Index   WALIndex
	Users   Users
}

// Truncated is true when the file is shorter than its own header says, beyond doubt.
func (s State) Truncated() bool {
	if s.WAL.Pending > 0 {
		return false // the -wal may have what is not there yet
	}
	return s.Header.PagesKnown() && s.Size < s.Header.Pages*int64(s.Header.PageSize)
}

// Hot is true when a transaction was cut off: what it has written is in the file, and the undo is in the journal.
// Where a process has the file open, that transaction may be its own.
func (s State) Hot() bool { return s.Journal.Valid && !s.Users.Any() }

// Pending is true when reading the file by itself would give something else than SQLite gives.
func (s State) Pending() bool { return s.WAL.Pending > 0 || s.Journal.Valid }

// WALLost is true when the -shm beside the file knows of committed frames that were not checkpointed, and there is no -wal.
func (s State) WALLost() bool {
	return !s.WAL.Exists && s.Index.Exists && s.Index.Frames > s.Index.Checkpointed && !s.Users.Any()
}

// Look tells the state of a file without a call of SQLite. An absent file is an error that wraps fs.ErrNotExist; one that is
// no database is a [*NotSQLiteError].
func Look(ctx context.Context, path string) (State, error) {
	s := State{Path: path}
	var err error
	if s.Header, err = ReadHeader(path); err != nil {
		return s, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return s, err
	}
	s.Size, s.Changed = info.Size(), info.ModTime()
	if s.WAL, err = readWAL(ctx, path); err != nil {
		return s, err
	}
	if s.Journal, err = readJournal(path); err != nil {
		return s, err
	}
	if s.Index, err = readIndex(path); err != nil {
		return s, err
	}
	s.Changed = latest(s.Changed, s.WAL.Path, s.Journal.Path)
	s.Users = FindUsers(path)
	return s, nil
}

// latest is the newest time of modification; files that are not there, or empty, have none.
func latest(t time.Time, paths ...string) time.Time {
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.Size() > 0 && info.ModTime().After(t) {
			t = info.ModTime()
		}
	}
	return t
}

// nothingPending is nil when the file can be read by itself.
func nothingPending(ctx context.Context, path string) error {
	j, err := readJournal(path)
	if err != nil {
		return err
	}
	if j.Valid {
		return &PendingError{Path: path, Companion: j.Path}
	}
	w, err := readWAL(ctx, path)
	if err != nil {
		return err
	}
	if w.Pending > 0 {
		return &PendingError{Path: path, Companion: w.Path, Frames: w.Pending}
	}
	return nil
}
