package sqlitedb

import (
	"context"
	"fmt"
	"strings"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Class is the storage class of a value. SQLite has it per value, whatever the column was declared as.
type Class uint8

const (
	Null Class = iota
	Integer
	Real
	Text
	Blob
)

// String is the name that SQLite's typeof gives.
func (c Class) String() string {
	switch c {
	case Null:
		return "null"
	case Integer:
		return "integer"
	case Real:
		return "real"
	case Text:
		return "text"
	case Blob:
		return "blob"
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// Stmt is one prepared statement of one [DB], and for the same goroutine.
type Stmt struct {
	db      *DB
	handle  uintptr
	columns []string
	bound   []uintptr // memory of bound texts, by parameter
	steps   int       // since the context was looked at
}

// Prepare compiles exactly one statement.
func (d *DB) Prepare(sql string) (*Stmt, error) {
	if d.handle == 0 {
		return nil, fmt.Errorf("%s is closed", d.path)
	}
	text, err := libc.CString(sql)
	if err != nil {
		return nil, err
	}
	defer libc.Xfree(d.tls, text)
	slots := d.tls.Alloc(2 * pointerSize)
	defer d.tls.Free(2 * pointerSize)
	tail := slots + uintptr(pointerSize)
	if rc := sqlite3.Xsqlite3_prepare_v2(d.tls, d.handle, text, -1, slots, tail); rc != sqlite3.SQLITE_OK {
		return nil, d.failure(rc, "prepare "+sql)
	}
	s := &Stmt{db: d, handle: *(*uintptr)(address(slots))}
	if rest := libc.GoString(*(*uintptr)(address(tail))); s.handle == 0 || strings.TrimSpace(rest) != "" {
		s.Close()
		return nil, fmt.Errorf("%s: %q is not exactly one statement", d.path, sql)
	}
	for i := range sqlite3.Xsqlite3_column_count(d.tls, s.handle) {
		s.columns = append(s.columns, libc.GoString(sqlite3.Xsqlite3_column_name(d.tls, s.handle, i)))
	}
	return s, nil
}

// BindInt sets the i-th parameter, counted from 1.
func (s *Stmt) BindInt(i int, v int64) error {
	if rc := sqlite3.Xsqlite3_bind_int64(s.db.tls, s.handle, int32(i), v); rc != sqlite3.SQLITE_OK {
		return s.db.failure(rc, fmt.Sprintf("bind parameter %d", i))
	}
	return nil
}

// BindText sets the i-th parameter, counted from 1.
func (s *Stmt) BindText(i int, v string) error {
	p, err := libc.CString(v)
	if err != nil {
		return err
	}
	if rc := sqlite3.Xsqlite3_bind_text(s.db.tls, s.handle, int32(i), p, int32(len(v)), 0); rc != sqlite3.SQLITE_OK {
		libc.Xfree(s.db.tls, p)
		return s.db.failure(rc, fmt.Sprintf("bind parameter %d", i))
	}
	for len(s.bound) <= i {
		s.bound = append(s.bound, 0)
	}
	if s.bound[i] != 0 {
		libc.Xfree(s.db.tls, s.bound[i])
	}
	s.bound[i] = p
	return nil
}

// lookEvery is after how many rows the context is looked at; a single long step is interrupted by [DB.watch].
const lookEvery = 256

// Step goes to the next row, and returns false after the last one. When ctx has ended its error is ctx's.
func (s *Stmt) Step(ctx context.Context) (row bool, err error) {
	if ctx != s.db.watched || s.steps == 0 {
		s.db.watch(ctx)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
	if s.steps++; s.steps == lookEvery {
		s.steps = 0
	}
	switch rc := sqlite3.Xsqlite3_step(s.db.tls, s.handle); rc {
	case sqlite3.SQLITE_ROW:
		return true, nil
	case sqlite3.SQLITE_DONE:
		return false, nil
	default:
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, s.db.failure(rc, "read it")
	}
}

// Reset makes the statement ready to be run again; parameters keep their values.
func (s *Stmt) Reset() error {
	s.steps = 0
	sqlite3.Xsqlite3_reset(s.db.tls, s.handle) // its result repeats the error of the last step
	return nil
}

// Close ends the statement.
func (s *Stmt) Close() error {
	if s.handle == 0 || s.db.tls == nil {
		return nil
	}
	sqlite3.Xsqlite3_finalize(s.db.tls, s.handle) // its result repeats the error of the last step
	s.handle = 0
	for _, p := range s.bound {
		if p != 0 {
			libc.Xfree(s.db.tls, p)
		}
	}
	s.bound = nil
	return nil
}

// Columns are the names of the result's columns, in order.
func (s *Stmt) Columns() []string { return s.columns }

// The forms of a value in SQLite's memory: the bits of its flags that say what it is, when it is one thing only.
const (
	formBits = sqlite3.MEM_Null | sqlite3.MEM_Str | sqlite3.MEM_Int | sqlite3.MEM_Real | sqlite3.MEM_Blob | sqlite3.MEM_IntReal
	unfilled = sqlite3.MEM_Zero // zeros follow that are not written out
)

// value is column i of the current row as SQLite has it, or nil. Half of the time that the column functions take goes into
// locks and errors that are of no use here, and into copies of texts that end in no NUL. What is in any way unusual is left to
// them.
func (s *Stmt) value(i int) *sqlite3.TMem {
	row := (*sqlite3.TVdbe)(address(s.handle)).FpResultRow
	if row == 0 || uint(i) >= uint(len(s.columns)) {
		return nil
	}
	return (*sqlite3.TMem)(address(row + uintptr(i)*unsafe.Sizeof(sqlite3.TMem{})))
}

// Class is the storage class of column i of the current row, counted from 0.
func (s *Stmt) Class(i int) Class {
	if v := s.value(i); v != nil {
		switch v.Fflags & formBits {
		case sqlite3.MEM_Null:
			return Null
		case sqlite3.MEM_Int:
			return Integer
		case sqlite3.MEM_Real:
			return Real
		case sqlite3.MEM_Str:
			return Text
		case sqlite3.MEM_Blob:
			return Blob
		}
	}
	switch sqlite3.Xsqlite3_column_type(s.db.tls, s.handle, int32(i)) {
	case sqlite3.SQLITE_INTEGER:
		return Integer
	case sqlite3.SQLITE_FLOAT:
		return Real
	case sqlite3.SQLITE_TEXT:
		return Text
	case sqlite3.SQLITE_BLOB:
		return Blob
	}
	return Null
}

// Int is column i of the current row, which is an [Integer].
func (s *Stmt) Int(i int) int64 {
	if v := s.value(i); v != nil && v.Fflags&formBits == sqlite3.MEM_Int {
		return *(*int64)(unsafe.Pointer(&v.Fu))
	}
	return sqlite3.Xsqlite3_column_int64(s.db.tls, s.handle, int32(i))
}

// Real is column i of the current row, which is a [Real] or an [Integer].
func (s *Stmt) Real(i int) float64 {
	return sqlite3.Xsqlite3_column_double(s.db.tls, s.handle, int32(i))
}

// Bytes is column i of the current row, which is a [Text] or a [Blob], without a copy: it is valid until the next call of
// Step, Reset or Close. Text is in UTF-8 whatever the file's encoding; what is stored may still not be valid, and may hold NULs.
func (s *Stmt) Bytes(i int) []byte {
	if v := s.value(i); v != nil {
		f := v.Fflags & (formBits | unfilled)
		if f == sqlite3.MEM_Blob || f == sqlite3.MEM_Str && v.Fenc == sqlite3.SQLITE_UTF8 {
			return memory(v.Fz, v.Fn)
		}
	}
	column := int32(i)
	var p uintptr
	if sqlite3.Xsqlite3_column_type(s.db.tls, s.handle, column) == sqlite3.SQLITE_TEXT {
		p = sqlite3.Xsqlite3_column_text(s.db.tls, s.handle, column)
	} else {
		p = sqlite3.Xsqlite3_column_blob(s.db.tls, s.handle, column)
	}
	return memory(p, sqlite3.Xsqlite3_column_bytes(s.db.tls, s.handle, column))
}

func memory(p uintptr, n int32) []byte {
	if p == 0 || n <= 0 {
		return nil
	}
	return unsafe.Slice((*byte)(address(p)), int(n))
}

// String is a copy of [Stmt.Bytes].
func (s *Stmt) String(i int) string { return string(s.Bytes(i)) }
