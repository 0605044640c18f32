package port

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// FileIdentity is by what a SQLite file, and a state of it, is known again.
type FileIdentity struct {
	Size    int64     `json:"size"`
	ModTime time.Time `json:"mtime"`
	Device  uint64    `json:"device"` // 0 where the system has none
	Inode   uint64    `json:"inode"`

	PageSize      int    `json:"page_size"`
	Pages         int64  `json:"page_count"`
	FreePages     int64  `json:"free_pages"`
	ChangeCounter uint32 `json:"change_counter"`
	SchemaCookie  uint32 `json:"schema_cookie"`
	AutoVacuum    string `json:"auto_vacuum"`

	Schema  string           `json:"schema"`  // digest of the names and statements of its schema, whatever their order
	Roots   map[string]int64 `json:"roots"`   // the first page of each table and index
	Compact bool             `json:"compact"` // the first pages lie one after the other in the order of the schema, as VACUUM leaves them
}

// fileIdentity reads what identifies the file. It must not be written to meanwhile.
func fileIdentity(ctx context.Context, path string) (FileIdentity, error) {
	id, err := statFile(path)
	if err != nil {
		return id, err
	}
	file, err := sqlitedb.Open(ctx, path)
	if err != nil {
		return id, err
	}
	defer file.Close()
	return id, id.readSchema(ctx, file)
}

// statFile is what can be told of the file without SQLite.
func statFile(path string) (id FileIdentity, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return id, err
	}
	header, err := sqlitedb.ReadHeader(path)
	if err != nil {
		return id, err
	}
	id = FileIdentity{Size: info.Size(), ModTime: info.ModTime().UTC(), PageSize: header.PageSize, Pages: header.Pages, FreePages: header.FreePages,
		ChangeCounter: header.ChangeCounter, SchemaCookie: header.SchemaCookie, AutoVacuum: header.AutoVacuum.String()}
	id.Device, id.Inode = inode(info)
	return id, nil
}

// readSchema reads where everything begins.
func (id *FileIdentity) readSchema(ctx context.Context, file *sqlitedb.DB) error {
	digest := sha256.New()
	err := eachRow(ctx, file, "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name", func(s *sqlitedb.Stmt) error {
		for i := range 4 {
			fmt.Fprintf(digest, "%d:", len(s.Bytes(i)))
			digest.Write(s.Bytes(i))
		}
		return nil
	})
	if err != nil {
		return err
	}
	id.Schema = hex.EncodeToString(digest.Sum(nil))
	id.Roots = map[string]int64{}
	last := int64(1)
	id.Compact = true
	// VACUUM makes the tables, with what their constraints need, before the indexes.
	err = eachRow(ctx, file, "SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 1 ORDER BY type = 'index' AND sql IS NOT NULL, rowid", func(s *sqlitedb.Stmt) error {
		root := s.Int(1)
		id.Roots[s.String(0)] = root
		id.Compact = id.Compact && root > last
		last = root
		return nil
	})
	// Between them lie pages of the schema itself, and none of rows.
	id.Compact = id.Compact && last <= 2*int64(len(id.Roots))+16
	return err
}

// same reports whether the file at path is the same, in the same state.
func (id FileIdentity) same(path string) (bool, string) {
	now, err := statFile(path)
	if err == nil {
		var state sqlitedb.State
		if state, err = sqlitedb.Look(context.Background(), path); err == nil && state.Pending() {
			return false, "there are changes beside it that are not in it yet (-wal or -journal)"
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, fmt.Sprintf("there is no file %s any more", path)
	case err != nil:
		return false, err.Error()
	case id.Inode != 0 && (now.Inode != id.Inode || now.Device != id.Device):
		return false, "it is another file than the one that was read last"
	case now.Size != id.Size:
		return false, fmt.Sprintf("it has %d bytes, and had %d when it was read", now.Size, id.Size)
	case !now.ModTime.Equal(id.ModTime):
		return false, fmt.Sprintf("it was written to at %s, after it was read", now.ModTime.Format(time.RFC3339))
	case now.ChangeCounter != id.ChangeCounter || now.SchemaCookie != id.SchemaCookie || now.FreePages != id.FreePages:
		return false, "its header has changed since it was read"
	}
	return true, ""
}
