package sqlitedb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// HeaderSize is the length of a SQLite file's header, in bytes.
const HeaderSize = 100

const magic = "SQLite format 3\x00"

// AutoVacuum is how a file gives freed pages back.
type AutoVacuum int

const (
	AutoVacuumNone AutoVacuum = iota
	AutoVacuumFull
	AutoVacuumIncremental
)

// String is the word that PRAGMA auto_vacuum takes.
func (a AutoVacuum) String() string {
	switch a {
	case AutoVacuumFull:
		return "full"
	case AutoVacuumIncremental:
		return "incremental"
	}
	return "none"
}

// Encoding is how a file stores text.
type Encoding string

const (
	UTF8    Encoding = "UTF-8"
	UTF16LE Encoding = "UTF-16le"
	UTF16BE Encoding = "UTF-16be"
)

// Header is what the first 100 bytes of a file say.
type Header struct {
	PageSize      int
	Pages         int64 // as the header has it; see PagesKnown
	ChangeCounter uint32
	VersionFor    uint32 // the change counter for which Pages was written
	SchemaCookie  uint32
	FreePages     int64
	AutoVacuum    AutoVacuum
	WAL           bool // the file was last used with a write-ahead log
	Encoding      Encoding
}

// PagesKnown reports whether Pages can be relied on: SQLite before 3.7.0 did not keep it.
func (h Header) PagesKnown() bool { return h.Pages > 0 && h.ChangeCounter == h.VersionFor }

// ReadHeader reads a file's header. An absent file is an error that wraps fs.ErrNotExist; any other that is not SQLite's is
// a [*NotSQLiteError].
func ReadHeader(path string) (Header, error) {
	f, err := os.Open(path)
	if err != nil {
		return Header{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Header{}, err
	}
	if !info.Mode().IsRegular() {
		return Header{}, &NotSQLiteError{Path: path, Why: "it is not a regular file"}
	}
	b := make([]byte, HeaderSize)
	switch n, err := io.ReadFull(f, b); {
	case n == 0 && errors.Is(err, io.EOF):
		return Header{}, &NotSQLiteError{Path: path, Why: "it is empty"}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Header{}, &NotSQLiteError{Path: path, Why: fmt.Sprintf("it has only %d bytes", n)}
	case err != nil:
		return Header{}, fmt.Errorf("read %s: %w", path, err)
	}
	h, err := ParseHeader(b)
	if e, ok := errors.AsType[*NotSQLiteError](err); ok {
		e.Path = path
	}
	return h, err
}

// ParseHeader reads the first 100 bytes of a file.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize || string(b[:16]) != magic {
		return Header{}, &NotSQLiteError{Why: "it does not begin as one"}
	}
	h := Header{
		PageSize:      int(binary.BigEndian.Uint16(b[16:])),
		WAL:           b[18] == 2 || b[19] == 2,
		ChangeCounter: binary.BigEndian.Uint32(b[24:]),
		Pages:         int64(binary.BigEndian.Uint32(b[28:])),
		FreePages:     int64(binary.BigEndian.Uint32(b[36:])),
		SchemaCookie:  binary.BigEndian.Uint32(b[40:]),
		VersionFor:    binary.BigEndian.Uint32(b[92:]),
	}
	if h.PageSize == 1 {
		h.PageSize = 65536
	}
	if h.PageSize < 512 || h.PageSize&(h.PageSize-1) != 0 {
		return Header{}, &NotSQLiteError{Why: fmt.Sprintf("its header gives pages of %d bytes", h.PageSize)}
	}
	// The largest root page is kept only where pages are moved.
	if binary.BigEndian.Uint32(b[52:]) != 0 {
		h.AutoVacuum = AutoVacuumFull
		if binary.BigEndian.Uint32(b[64:]) != 0 {
			h.AutoVacuum = AutoVacuumIncremental
		}
	}
	switch e := binary.BigEndian.Uint32(b[56:]); e {
	case 0, 1: // 0: nothing was ever stored
		h.Encoding = UTF8
	case 2:
		h.Encoding = UTF16LE
	case 3:
		h.Encoding = UTF16BE
	default:
		return Header{}, &NotSQLiteError{Why: fmt.Sprintf("its header gives the text encoding %d", e)}
	}
	return h, nil
}
