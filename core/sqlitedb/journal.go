package sqlitedb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Journal is what a -journal, the undo of a transaction that was cut off or still runs, holds.
type Journal struct {
	Path   string
	Exists bool
	Size   int64
	// Valid: it has a header that SQLite would roll back by. One that was emptied or zeroed at its transaction's end has not.
	Valid bool
}

const journalMagic = "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"

func readJournal(path string) (Journal, error) {
	j := Journal{Path: path + "-journal"}
	f, err := os.Open(j.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return j, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return j, err
	}
	j.Exists, j.Size = true, info.Size()
	b := make([]byte, len(journalMagic))
	switch _, err := io.ReadFull(f, b); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return j, nil
	case err != nil:
		return j, fmt.Errorf("read %s: %w", j.Path, err)
	}
	j.Valid = string(b) == journalMagic
	return j, nil
}
