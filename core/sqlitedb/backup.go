package sqlitedb

import (
	"context"
	"time"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// backupPages is how many pages are copied before the context is looked at: a few milliseconds' worth.
const backupPages = 2048

// Backup copies the database into to, page by page, and calls progress with how many of its pages are done. When d is in a
// transaction the copy is of what that transaction sees, whatever others write meanwhile.
func (d *DB) Backup(ctx context.Context, to *DB, progress func(done, total int)) error {
	name, err := libc.CString("main")
	if err != nil {
		return err
	}
	defer libc.Xfree(to.tls, name)
	b := sqlite3.Xsqlite3_backup_init(to.tls, to.handle, name, d.handle, name)
	if b == 0 {
		return to.failure(sqlite3.Xsqlite3_extended_errcode(to.tls, to.handle), "copy into it")
	}
	rc := int32(sqlite3.SQLITE_OK)
	waited := time.Duration(0)
	for rc == sqlite3.SQLITE_OK && ctx.Err() == nil {
		rc = sqlite3.Xsqlite3_backup_step(to.tls, b, backupPages)
		total := int(sqlite3.Xsqlite3_backup_pagecount(to.tls, b))
		progress(total-int(sqlite3.Xsqlite3_backup_remaining(to.tls, b)), total)
		if (rc == sqlite3.SQLITE_BUSY || rc == sqlite3.SQLITE_LOCKED) && waited < busyMillis*time.Millisecond {
			time.Sleep(busyPause)
			waited += busyPause
			rc = sqlite3.SQLITE_OK
		}
	}
	end := sqlite3.Xsqlite3_backup_finish(to.tls, b)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case rc != sqlite3.SQLITE_DONE:
		return d.failure(rc, "copy it")
	case end != sqlite3.SQLITE_OK:
		return to.failure(end, "copy into it")
	}
	return nil
}

const busyPause = 20 * time.Millisecond

// Version is the version of SQLite that reads the files: 3.50.4.
func Version() string {
	tls := libc.NewTLS()
	defer tls.Close()
	return libc.GoString(sqlite3.Xsqlite3_libversion(tls))
}
