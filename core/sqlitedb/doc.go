// Package sqlitedb reads SQLite files without touching them: no journal is made beside them, no lock is taken, no byte is
// written. It also tells what state a file is in, from its bytes and from /proc, without SQLite's help. It imports nothing of
// this repository.
//
// The engine is modernc.org/sqlite/lib, called directly: through database/sql a row costs eight allocations, here none.
//
//	db, err := sqlitedb.Open(ctx, "/var/lib/matrix-synapse/homeserver.db")
//	…
//	defer db.Close()
//	users, err := db.Prepare(`SELECT rowid, name FROM users ORDER BY rowid`)
//	…
//	for {
//		row, err := users.Step(ctx)
//		if err != nil || !row {
//			return err
//		}
//		fmt.Printf("%d %s\n", users.Int(0), users.Bytes(1))
//	}
package sqlitedb
