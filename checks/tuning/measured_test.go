package tuning

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// What a server has counted is what the check rests on; here it really counts.
func TestWhatAServerHasMeasured(t *testing.T) {
	pgtest.EachOf(t, []int{18}, nil, func(t *testing.T, s *pgtest.Server) {
		b := newBench(t, s, "fsync = off", "shared_buffers = 1MB", "max_wal_size = 32MB", "checkpoint_completion_target = 0.9")
		b.machine = doctor.Machine{Memory: 4 * gib}
		b.limits = map[string]float64{temporaryFiles.ID: 1 << 20}
		work := func(statements ...string) {
			c := b.db.AdminConn(t)
			for _, statement := range statements {
				if _, err := c.Exec(t.Context(), statement); err != nil {
					t.Fatal(err)
				}
			}
			c.Close(t.Context())
		}
		work(`CREATE TABLE large AS SELECT n, repeat('x', 200) AS filler FROM generate_series(1, 40000) n`, `CREATE INDEX ON large (n)`, `VACUUM ANALYZE large`,
			`SET enable_seqscan = off`, `SET enable_bitmapscan = off`,
			`DO $$ BEGIN FOR i IN 1 .. 4 LOOP PERFORM count(filler) FROM large WHERE n > 0; END LOOP; END $$`,
			`SET work_mem = '64kB'`, `DO $$ BEGIN FOR i IN 1 .. 12 LOOP PERFORM * FROM large ORDER BY filler, n DESC; END LOOP; END $$`,
			`DO $$ BEGIN FOR i IN 1 .. 250 LOOP PERFORM pg_logical_emit_message(false, 'x', repeat('x', 1000000)); END LOOP; END $$`)
		want := map[string]string{SharedBuffers: "", WorkMem: "", MaxWALSize: ""}
		// The server's counts are a moment late, and its checkpoints come as it gets round to them.
		for range 100 {
			for _, f := range b.check(t).Findings {
				if _, wanted := want[f.Code]; wanted {
					want[f.Code] = f.Remedy
				}
			}
			if want[SharedBuffers] != "" && want[WorkMem] != "" && want[MaxWALSize] != "" {
				break
			}
			work(`DO $$ BEGIN FOR i IN 1 .. 20 LOOP PERFORM pg_logical_emit_message(false, 'x', repeat('x', 1000000)); END LOOP; END $$`)
			time.Sleep(50 * time.Millisecond)
		}
		for code, says := range map[string]string{SharedBuffers: " reads answered = ", WorkMem: "within ", MaxWALSize: "of log written meanwhile"} {
			if !strings.Contains(want[code], says) {
				t.Errorf("%s: %q", code, want[code])
			}
		}
		if got := want[SharedBuffers]; s.Major(t) >= 16 && !strings.Contains(got, "(pg_stat_io)") {
			t.Errorf("what pg_stat_io tells is not said: %s", got)
		}
		if measures := b.check(t).Measures; len(measures) != 7 {
			t.Errorf("measures: %+v", measures)
		}
	})
}

// Compiling is measured by an extension, which need not be there, or not loaded.
func TestCompilingIsMeasuredWhereItCanBe(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{Settings: map[string]string{"shared_preload_libraries": "pg_stat_statements", "jit_above_cost": "0"}, Version: "15"})
	db := s.Database(t)
	b := &bench{server: s, db: db, config: db.Homeserver(t), admin: true}
	if b.look(t)[0].jit.Known {
		t.Error("known without the extension")
	}
	db.AdminExec(t, `CREATE SCHEMA "an other"; CREATE EXTENSION pg_stat_statements SCHEMA "an other"; GRANT USAGE ON SCHEMA "an other" TO synapse_user`)
	if j := b.look(t)[0].jit; !j.Known || j.Total <= 0 {
		t.Errorf("with it: %+v", j)
	}
	conf := read(t, filepath.Join(s.DataDir, "postgresql.conf"))
	s.WriteFile(t, "postgresql.conf", []byte(strings.Replace(conf, "shared_preload_libraries = 'pg_stat_statements'", "", 1)))
	b.restart(t)
	if j := b.look(t)[0].jit; j.Known {
		t.Errorf("not loaded: %+v", j)
	}
}
