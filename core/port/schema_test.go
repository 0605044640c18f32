package port

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// stage is a database without a schema, and a program in the place of Synapse's.
type stage struct {
	db      *pgtest.DB
	d       *doctor.Database
	target  *doctor.Target
	started string // the program writes a line to it each time
	told    toldHost
}

// toldHost remembers the progress that it is told of.
type toldHost struct {
	doctor.OperationHost
	texts []string
}

func (h *toldHost) Progress(p doctor.Progress) { h.texts = append(h.texts, p.Text) }

// newStage has a program that is a shell script; pg_restore and psql in it reach the database.
func newStage(t *testing.T, script string) *stage {
	t.Helper()
	server := pgtest.Start(t)
	db := server.Database(t)
	dir := t.TempDir()
	s := &stage{db: db, started: filepath.Join(dir, "started")}
	settings, err := pgdb.Settings{"host": db.Host, "port": fmt.Sprint(db.Port), "user": db.User, "password": db.Password, "dbname": db.Name}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	program, config := filepath.Join(dir, "synapse"), filepath.Join(dir, "homeserver.yaml")
	for path, text := range map[string]string{
		program: fmt.Sprintf("#!/bin/sh\nexport PGHOST=%s PGPORT=%d PGUSER=%s PGPASSWORD='%s' PGDATABASE=%s PATH=%s:$PATH\necho \"$@\" >>%s\ncat >%s/config\n%s\n",
			db.Host, db.Port, db.User, db.Password, db.Name, server.BinDir, s.started, dir, script),
		config: "server_name: test.example\ndatabase: {name: sqlite3, args: {database: /nowhere.db}}\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.d = &doctor.Database{Label: "main", Engine: doctor.Postgres, Settings: settings}
	s.target = &doctor.Target{RunID: "r1", ServerName: "test.example", ConfigFiles: []string{config}, Databases: []*doctor.Database{s.d}, SynapseCommand: "sh " + program}
	s.target.Bind()
	t.Cleanup(s.target.Close)
	return s
}

func (s *stage) make(t *testing.T) error {
	t.Helper()
	return makeSchema(t.Context(), s.target, s.d, &s.told)
}

// starts is how often the program was started.
func (s *stage) starts(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(s.started)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// restoring puts Synapse's schema in, as it is when all background updates are done.
func restoring(t *testing.T) string {
	t.Helper()
	return "psql -XAtc \"SELECT to_regclass('users')\" | grep -q users || { pg_restore --no-owner --dbname=$PGDATABASE " +
		filepath.Join(pgtest.Data(t), "synapse_empty.dump") + " && psql -Xqc 'DELETE FROM background_updates'; }"
}

func unchanged(err error) bool {
	_, ok := err.(*doctor.UnchangedError)
	return ok
}

func TestSynapseMakesTheSchemaWhereThereIsNone(t *testing.T) {
	long(t)
	s := newStage(t, `echo "Starting update batch on background update 'events_index'"`+"\n"+restoring(t))
	for range 2 {
		if err := s.make(t); err != nil {
			t.Fatal(err)
		}
		if n := s.starts(t); n != 1 {
			t.Fatalf("Synapse was started %d times", n)
		}
	}
	config, err := os.ReadFile(filepath.Join(filepath.Dir(s.started), "config"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"password": "` + s.db.Password + `"`, `"application_name": "synapse-doctor/r1"`, `"dbname": "` + s.db.Name + `"`, `"server_name": "test.example"`} {
		if !strings.Contains(string(config), want) {
			t.Errorf("Synapse is not told %s", want)
		}
	}
	if !slices.Contains(s.told.texts, "Synapse makes its schema: background update events_index") {
		t.Errorf("the administrator is told %q", s.told.texts)
	}
	// What a newer Synapse has queued in a schema without a homeserver is worked off as well.
	s.db.Exec(t, `INSERT INTO background_updates (update_name, progress_json) VALUES ('new_index', '{}')`)
	if err := s.make(t); err == nil || !strings.Contains(err.Error(), "left background updates undone: new_index") {
		t.Errorf("the error is %v", err)
	}
	if n := s.starts(t); n != 2 {
		t.Errorf("Synapse was started %d times", n)
	}
}

func TestADatabaseThatAHomeserverIsInIsLeftAlone(t *testing.T) {
	s := newStage(t, restoring(t))
	if err := s.make(t); err != nil {
		t.Fatal(err)
	}
	s.db.Exec(t, `INSERT INTO users (name) VALUES ('@alice:test.example')`)
	if err := s.make(t); err != nil {
		t.Errorf("there is nothing to do: %v", err)
	}
	s.db.Exec(t, `INSERT INTO background_updates (update_name, progress_json) VALUES ('new_index', '{}')`)
	if err := s.make(t); !unchanged(err) || !strings.Contains(err.Error(), "new_index") || s.starts(t) != 1 {
		t.Errorf("Synapse was started %d times: %v", s.starts(t), err)
	}
}

func TestWhatSynapseSaidIsTold(t *testing.T) {
	s := newStage(t, `echo "my password is $PGPASSWORD"; echo "ModuleNotFoundError: No module named 'ldap'"; exit 1`)
	err := s.make(t)
	if !unchanged(err) {
		t.Fatalf("the error is %v", err)
	}
	text := err.Error()
	for _, want := range []string{"Synapse could not make its schema. update_synapse_database: ModuleNotFoundError: No module named 'ldap'", "\n    my password is " + doctor.Masked + "\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not told:\n%s", want, text)
		}
	}
	if strings.Contains(text, s.db.Password) {
		t.Errorf("the password is told:\n%s", text)
	}
}

func TestHalfASchemaIsNotCalledUnchanged(t *testing.T) {
	s := newStage(t, restoring(t)+"\necho RuntimeError: no; exit 1")
	if err := s.make(t); err == nil || unchanged(err) {
		t.Errorf("the error is %v", err)
	}
}

func TestASchemaIsNotMadeWithout(t *testing.T) {
	for name, tt := range map[string]struct {
		without func(*doctor.Target)
		want    string
	}{
		"a configuration":     {func(t *doctor.Target) { t.ConfigFiles = nil }, "with -c"},
		"a command":           {func(t *doctor.Target) { t.SynapseCommand = "docker 'exec" }, "--synapse-command: a ' is never closed"},
		"a schema in the end": {func(t *doctor.Target) { t.SynapseCommand = "true" }, "there is no schema"},
	} {
		s := newStage(t, "")
		tt.without(s.target)
		if err := s.make(t); !unchanged(err) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestAnInterruptionOfSynapseIsOne(t *testing.T) {
	s := newStage(t, "sleep 600")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- makeSchema(ctx, s.target, s.d, &s.told) }()
	for s.starts(t) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("the error is %v", err)
	}
}
