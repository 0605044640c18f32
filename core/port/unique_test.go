package port

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// Large tables are filled without what keeps their keys unique. Where the file has a key twice all the same, the first row
// stays, the others go into quarantine, and every constraint is back; also when the run is cut off in between.
func TestAKeyThatIsThereTwiceInALargeTableCostsNoOtherRow(t *testing.T) {
	server := pgtest.Start(t)
	path := filepath.Join(t.TempDir(), "homeserver.db")
	sqlite(t, path, `CREATE TABLE a (id INTEGER, v TEXT);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO a SELECT i, 'v' || i FROM n;
UPDATE a SET v = 'v10' WHERE rowid IN (4000, 4999);
UPDATE a SET id = 77 WHERE rowid = 2500;
CREATE TABLE b (a INTEGER);
INSERT INTO b VALUES (77), (2500), (1)`)
	for _, cut := range []string{"", "restored", "cleared", "chunk"} {
		t.Run("cut off at "+cut, func(t *testing.T) {
			db := server.Database(t, pgtest.WithSetup(`CREATE TABLE a (id bigint PRIMARY KEY, v text CONSTRAINT once UNIQUE DEFERRABLE); CREATE TABLE b (a bigint REFERENCES a (id))`))
			l := newLoad(t, db)
			var mu sync.Mutex
			cleared, points := 0, 0
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			l.w = Work{rows: 300, workers: 3, trace: func(point string) {
				mu.Lock()
				defer mu.Unlock()
				if point == "cleared" {
					cleared++
				}
				if point == cut {
					if points++; points == 2 || cut == "cleared" {
						cancel(errors.New("cut off"))
					}
				}
			}}
			conn := db.Conn(t)
			defer conn.Close(context.Background())
			before := schemaOfTarget(t, conn)
			if _, err := l.run(t, ctx, path); cut == "" && err != nil || cut != "" && err == nil {
				t.Fatal(err)
			}
			if cut != "" {
				l.must(t, path)
			}
			if cleared == 0 {
				t.Error("the table was not filled without its keys")
			}
			wantSameSchema(t, before, schemaOfTarget(t, conn))
			if got := scalar[string](t, conn, `SELECT count(*) || ' ' || sum(id) FROM a`); got != fmt.Sprintf("4997 %d", 5000*5001/2-4000-4999-2500) {
				t.Errorf("a holds %s", got)
			}
			if got := scalar[string](t, conn, `SELECT string_agg(name || ' ' || coalesce(rowid_::text, 'orphan'), ', ' ORDER BY name, rowid_) FROM synapse_doctor.port_quarantine`); got != "a 2500, a 4000, a 4999, b orphan" {
				t.Errorf("in quarantine: %s", got)
			}
			if got := scalar[string](t, conn, `SELECT string_agg(a::text, ' ' ORDER BY a) FROM b`); got != "1 77" {
				t.Errorf("b holds %s", got)
			}
			if again := l.must(t, path); len(again) > 0 {
				t.Errorf("a further run loads %v", again)
			}
		})
	}
}

func TestAColumnThatTheFileComputesIsCopiedWhereTheTargetKeepsIt(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(`CREATE TABLE a (x int, y int, z int); CREATE TABLE b (x int)`))
	path := filepath.Join(t.TempDir(), "homeserver.db")
	sqlite(t, path, `CREATE TABLE a (x INT, y INT AS (x * 3), z INT AS (x * 5) STORED); INSERT INTO a (x) VALUES (7);
		CREATE TABLE b (x INT, y INT AS (x * 3)); INSERT INTO b (x) VALUES (8)`)
	newLoad(t, db).must(t, path)
	conn := db.Conn(t)
	defer conn.Close(context.Background())
	if got := scalar[string](t, conn, `SELECT concat_ws(' ', a.x, y, z, b.x) FROM a, b`); got != "7 21 35 8" {
		t.Error(got)
	}
}
