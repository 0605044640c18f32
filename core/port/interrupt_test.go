package port

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// longFile has enough rows for many chunks of a few hundred: some of them odd, with keys that are there twice, far apart.
func longFile(t testing.TB) string {
	path := oddFile(t)
	sqlite(t, path, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) INSERT INTO events SELECT 100 + i, '$e' || i, '!r', i FROM n;
		INSERT INTO event_search_content SELECT 100 + stream_ordering, event_id, room_id, '@u', 'content.body', 'word' || stream_ordering FROM events WHERE stream_ordering > 100;
		INSERT INTO event_search_content SELECT 10000 + stream_ordering, event_id, room_id, '@u', 'content.body', 'later' FROM events WHERE stream_ordering % 500 = 0;
		INSERT INTO doubled SELECT 'n' || (stream_ordering % 2479), stream_ordering % 101 FROM events WHERE stream_ordering > 100;
		INSERT INTO children SELECT stream_ordering, CASE WHEN stream_ordering % 700 = 0 THEN '$nobody' ELSE event_id END, room_id FROM events WHERE stream_ordering > 100;
		INSERT INTO shadowed SELECT CASE WHEN stream_ordering % 333 = 0 THEN CAST(x'6100' AS TEXT) ELSE event_id END, stream_ordering FROM events;
		INSERT INTO profiles SELECT '@p' || stream_ordering, '{"n": ' || stream_ordering || CASE WHEN stream_ordering % 900 = 0 THEN '' ELSE '}' END FROM events WHERE stream_ordering > 100`)
	return path
}

// changes are what may happen to the file between two runs.
var changes = []string{
	``, ``, `DELETE FROM shadowed WHERE oid % 400 = 0; VACUUM`, `UPDATE events SET origin_server_ts = 0 WHERE event_id = '$e77'`,
	`INSERT INTO events VALUES (-100, '$nobody', '!r', 1), (9999, '$new', '!r', 2)`, `DELETE FROM events WHERE stream_ordering = 600`, `INSERT INTO shadowed VALUES ('one', 1)`,
}

func copyOf(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

// How often TestARunThatIsCutOffAnywhereIsGoneOnWith does it: SYNAPSE_DOCTOR_KILLS=100 for a long look.
func rounds(t *testing.T) int {
	if s := os.Getenv("SYNAPSE_DOCTOR_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() {
		return 1
	}
	return 4
}

func TestARunThatIsCutOffAnywhereIsGoneOnWith(t *testing.T) {
	s := pgtest.Start(t)
	original := longFile(t)
	want := map[string]map[string][]string{}
	points := 0
	for i := range 1 + rounds(t) {
		path := copyOf(t, original)
		l := newLoad(t, oddTarget(t, s))
		l.w = Work{workers: 3, rows: 200}
		if i == 0 { // how many points there are
			var n atomic.Int64
			l.w.trace = func(string) { n.Add(1) }
			l.must(t, path)
			points = int(n.Load())
			want[``] = l.dump(t)
			continue
		}
		said := ""
		for range 1 + i%3 {
			ctx, cancel := context.WithCancel(t.Context())
			at := 1 + rand.IntN(points)
			var n atomic.Int64
			l.w.trace = func(point string) {
				if n.Add(1) == int64(at) {
					said += fmt.Sprintf(" %s(%d)", point, at)
					if i%2 == 0 {
						cancel()
					} else { // the server ends the sessions
						go l.AdminExec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
						time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
					}
				}
			}
			_, err := l.run(t, ctx, path)
			cancel()
			if err == nil {
				said += " (too late)"
			}
		}
		l.w.trace = nil
		change := changes[rand.IntN(len(changes))]
		if change != "" {
			sqlite(t, path, change)
		}
		l.must(t, path)
		got := l.dump(t)
		if want[change] == nil {
			fresh := newLoad(t, oddTarget(t, s))
			fresh.w = Work{workers: 1}
			fresh.must(t, path)
			want[change] = fresh.dump(t)
		}
		if same(t, got, want[change]); t.Failed() {
			t.Fatalf("cut off at%s, then %q", said, change)
		}
	}
}

func TestAServerThatCrashesLosesNothing(t *testing.T) {
	long(t)
	s := pgtest.StartWith(t, pgtest.Config{})
	l := newLoad(t, oddTarget(t, s))
	path := longFile(t)
	l.w = Work{workers: 2, rows: 200}
	var n atomic.Int64
	l.w.trace = func(string) {
		if n.Add(1) == 40 {
			if err := s.Crash(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := l.run(t, t.Context(), path); err == nil {
		t.Fatal("the run did not notice")
	}
	l.w.trace = nil
	l.must(t, path)
	if found := l.compared(t, path); len(found) > 0 {
		t.Errorf("%s", strings.Join(found, "\n"))
	}
}

func TestAStopEndsTheChunkAndSaysHowToGoOn(t *testing.T) {
	l := newLoad(t, oddTarget(t, pgtest.Start(t)))
	path := longFile(t)
	l.w = Work{workers: 2, rows: 200}
	var n atomic.Int64
	l.w.trace = func(point string) {
		if point == "chunk" && n.Add(1) == 20 {
			close(l.stop)
		}
	}
	_, err := l.run(t, t.Context(), path)
	if _, ok := errors.AsType[*doctor.StoppedError](err); !ok || !strings.Contains(err.Error(), "run the same command again") {
		t.Fatalf("%v", err)
	}
	if chunks := column(t, l.Conn(t), `SELECT count(*)::text FROM synapse_doctor.port_chunk`); chunks[0] < "10" {
		t.Errorf("%s chunks are kept", chunks[0])
	}
	l.stop, l.w.trace = make(chan struct{}), nil
	l.must(t, path)
	if found := l.compared(t, path); len(found) > 0 {
		t.Errorf("%s", strings.Join(found, "\n"))
	}
}

func TestAFileThatChangesWhileItIsReadStopsTheRun(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"written to": func(path string) error { return os.Chtimes(path, time.Now(), time.Now()) },
		"cut off":    func(path string) error { return os.Truncate(path, 8192) },
		"a wal":      func(path string) error { return os.WriteFile(path+"-wal", make([]byte, 100), 0o600) },
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("x"), 0o600), os.Rename(path+".new", path))
		},
	} {
		l := newLoad(t, oddTarget(t, pgtest.Start(t)))
		path := longFile(t)
		l.w = Work{workers: 2, rows: 200}
		var n atomic.Int64
		l.w.trace = func(string) {
			if n.Add(1) == 30 {
				if err := change(path); err != nil {
					t.Error(err)
				}
			}
		}
		_, err := l.run(t, t.Context(), path)
		if err == nil || !strings.Contains(err.Error(), "while it is read") && !strings.Contains(err.Error(), "while it was read") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
