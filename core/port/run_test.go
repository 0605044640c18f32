package port

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// portHost is the host of an operation that is not interrupted.
type portHost struct {
	doctor.OperationHost
	mu    sync.Mutex
	texts []string
	notes []string
	last  doctor.Progress
	text  string // of the report
}

func (h *portHost) Document(_, text string) { h.text = text }

func (h *portHost) Progress(p doctor.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.Note != "" {
		h.notes = append(h.notes, p.Note)
	}
	if len(h.texts) == 0 || h.texts[len(h.texts)-1] != p.Text {
		h.texts = append(h.texts, p.Text)
	}
	h.last = p
}

func (h *portHost) Stopping() <-chan struct{} { return nil }

// operate carries out the operation as the host would.
func (l *load) operate(t testing.TB, path string, w Work, params map[string]string, skip ...string) (*portHost, error) {
	t.Helper()
	h := &portHost{}
	target := &doctor.Target{RunID: "r1", ServerName: "test.example", SkipTables: skip,
		Databases: []*doctor.Database{{Label: "sqlite", Engine: doctor.SQLite, Path: path}, {Label: "main", Engine: doctor.Postgres, Settings: l.database.Settings}}}
	target.Bind()
	defer target.Close()
	err := w.Operations()[Port](t.Context(), target.ForOperation(), doctor.OperationStep{Name: Port, Params: params}, "", h)
	return h, err
}

// bare is a database without the doctor's record.
func bare(t testing.TB, db *pgtest.DB) *load {
	l := newLoad(t, db)
	db.Exec(t, "DROP SCHEMA synapse_doctor CASCADE")
	return l
}

// restores has pg_restore in the place of the installed Synapse.
func restores(t testing.TB, db *pgtest.DB) Work {
	return Work{MakeSchema: func(context.Context, *doctor.Target, *doctor.Database, doctor.OperationHost) error {
		pgtest.Restore(t, db, filepath.Join(pgtest.Data(t), "synapse_empty.dump"))
		db.Exec(t, "DELETE FROM background_updates")
		return nil
	}}
}

func TestAPortIsRunAndRunAgain(t *testing.T) {
	long(t)
	path := pgtest.SQLite(t)
	l := bare(t, pgtest.Start(t).Database(t))
	w := restores(t, l.DB)
	h, err := l.operate(t, path, w, nil)
	if err != nil {
		t.Fatal(err)
	}
	if h.last.Rows == 0 || h.last.Done == 0 || h.last.Done > h.last.Total {
		t.Errorf("progress: %+v", h.last)
	}
	conn := l.Conn(t)
	state := func() string {
		return column(t, conn, `SELECT format('%s %s runs, %s tables, %s whole, %s verified, %s objects pending, %s queued', stage, runs, count(t), count(*) FILTER (WHERE whole),
			count(*) FILTER (WHERE verified), (SELECT count(*) FROM synapse_doctor.port_object), (SELECT count(*) FROM background_updates)) FROM synapse_doctor.port, synapse_doctor.port_table t GROUP BY stage, runs`)[0]
	}
	tables := len(match(t, conn, path).Tables)
	if got, want := state(), fmt.Sprintf("complete 1 runs, %d tables, %[1]d whole, %[1]d verified, 0 objects pending, 4 queued", tables); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, q := range []string{`SELECT last_value::text FROM events_stream_seq`, `SELECT last_value::text FROM state_group_id_seq`} {
		if n := column(t, conn, q)[0]; len(n) < 3 {
			t.Errorf("%s: %s", q, n)
		}
	}
	_ = conn.Close(t.Context())
	alone(t, l.DB)
	makeNone := Work{MakeSchema: func(context.Context, *doctor.Target, *doctor.Database, doctor.OperationHost) error {
		return errors.New("not again")
	}}
	if _, err := l.operate(t, path, makeNone, nil); err != nil {
		t.Errorf("the second run: %v", err)
	}
	// What Synapse changes in place between two runs: a password, an event that is redacted.
	sqlite(t, path, `UPDATE users SET password_hash = '$2b$new', deactivated = 1 WHERE name = '@bob:test.example'; UPDATE event_json SET json = '{}' WHERE event_id = (SELECT min(event_id) FROM event_json);
		DELETE FROM device_lists_stream WHERE rowid = 3; INSERT INTO presence_stream (stream_id, user_id) VALUES (999999, '@bob:test.example')`)
	if _, err := l.operate(t, path, makeNone, nil); err != nil {
		t.Fatalf("the third run: %v", err)
	}
	if found := l.compared(t, path); len(found) > 0 {
		t.Errorf("after the third run:\n%s", strings.Join(found, "\n"))
	}
	conn = l.Conn(t)
	if got, want := state(), fmt.Sprintf("complete 3 runs, %d tables, %[1]d whole, %[1]d verified, 0 objects pending, 4 queued", tables); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	_ = conn.Close(t.Context())
	l.Exec(t, `UPDATE users SET password_hash = 'x' WHERE name = '@bob:test.example'`)
	alone(t, l.DB)
	_, err = l.operate(t, path, makeNone, nil)
	if _, ok := errors.AsType[*doctor.UnchangedError](err); !ok || !strings.Contains(err.Error(), "written to the target") {
		t.Errorf("a target that was written to: %v", err)
	}
}

func TestWhatWouldBeLeftBehindIsRefused(t *testing.T) {
	long(t)
	s := pgtest.Start(t)
	for _, c := range []struct{ file, target, says string }{
		{`CREATE TABLE module_rooms (x); INSERT INTO module_rooms VALUES (1)`, ``, "--skip-table module_rooms"},
		{`ALTER TABLE users ADD COLUMN module_flag TEXT; UPDATE users SET module_flag = 'x'`, ``, "the column module_flag of the table users of the file has no place in the target"},
		{``, `ALTER TABLE users ADD COLUMN needed int NOT NULL`, "has no column needed, which the target needs"},
		{`INSERT INTO background_updates (update_name, progress_json) VALUES ('some_update', '{}')`, ``, "background updates that are not finished: some_update"},
		{`DELETE FROM applied_schema_deltas WHERE file = '94/07_profile_updates.sql'`, ``, "the SQLite file lacks 94/07_profile_updates.sql"},
		{`UPDATE schema_version SET version = 95`, ``, "95 in the SQLite file, 94 in the target"},
		{`UPDATE users SET name = replace(name, ':test.example', ':elsewhere')`, ``, "another homeserver"},
	} {
		path := pgtest.SQLite(t)
		if c.file != "" {
			sqlite(t, path, "PRAGMA foreign_keys = off; "+c.file)
		}
		l := bare(t, synapseSchema(t, s))
		if c.target != "" {
			l.Exec(t, c.target)
		}
		_, err := l.operate(t, path, Work{MakeSchema: func(context.Context, *doctor.Target, *doctor.Database, doctor.OperationHost) error { return nil }}, nil)
		if _, ok := errors.AsType[*doctor.UnchangedError](err); !ok || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s%s: %v", c.file, c.target, err)
		}
		if there := column(t, l.Conn(t), `SELECT nspname::text FROM pg_namespace WHERE nspname = 'synapse_doctor'`); len(there) > 0 {
			t.Errorf("%s%s: the target was changed", c.file, c.target)
		}
	}
}

func TestATableThatIsSkippedIsLeftBehind(t *testing.T) {
	long(t)
	path := pgtest.SQLite(t)
	sqlite(t, path, `CREATE TABLE module_rooms (x); INSERT INTO module_rooms VALUES (1)`)
	l := bare(t, pgtest.Start(t).Database(t))
	if _, err := l.operate(t, path, restores(t, l.DB), nil, "module_rooms"); err != nil {
		t.Fatal(err)
	}
}

func TestAnOddRowIsToldAtOnce(t *testing.T) {
	long(t)
	path := pgtest.SQLite(t)
	sqlite(t, path, `UPDATE local_media_repository SET media_length = 5000000000; INSERT INTO local_media_repository (media_id, media_type, media_length) VALUES ('huge', 'image/png', 5000000000)`)
	l := bare(t, pgtest.Start(t).Database(t))
	h, err := l.operate(t, path, restores(t, l.DB), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(h.notes, func(s string) bool {
		return strings.Contains(s, "local_media_repository") && strings.Contains(s, "out of the range of integer")
	}) {
		t.Errorf("%q", h.notes)
	}
	if want := `- local\_media\_repository, media\_id="huge": column media\_length: the number 5000000000 is out of the range of integer`; !strings.Contains(h.text, want) {
		t.Errorf("the report does not name it:\n%s", h.text)
	}
}
