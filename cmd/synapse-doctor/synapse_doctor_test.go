//go:build synapse

package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// program is the doctor, as an administrator runs it.
type program struct{ path, state, temp string }

// built makes the program from this package, with a state directory and a directory for temporary files of its own.
func built(t *testing.T) program {
	t.Helper()
	dir := t.TempDir()
	p := program{filepath.Join(dir, "synapse-doctor"), filepath.Join(dir, "state"), t.TempDir()}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", p.path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return p
}

// patient is a homeserver that the doctor looks at.
type patient struct {
	program
	config string
	db     *pgtest.DB
}

// run runs a command, which must end with that code, print no password and leave nothing in TMPDIR.
func (p patient) run(t *testing.T, code int, args ...string) (stdout []byte) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.path, append(args, "-c", p.config)...)
	cmd.Env = append(os.Environ(), "SYNAPSE_DOCTOR_STATE_DIR="+p.state, "TMPDIR="+p.temp)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	if exit, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed || failed && exit.ExitCode() != code || err == nil && code != 0 {
		t.Fatalf("synapse-doctor %s: %v, want exit code %d\n%s%s", strings.Join(args, " "), err, code, stdout, stderr.Bytes())
	}
	if bytes.Contains(stdout, []byte(p.db.Password)) || bytes.Contains(stderr.Bytes(), []byte(p.db.Password)) {
		t.Errorf("synapse-doctor %s prints the password of the database", strings.Join(args, " "))
	}
	left, err := os.ReadDir(p.temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		t.Errorf("synapse-doctor %s leaves %s in TMPDIR", strings.Join(args, " "), entry.Name())
	}
	return stdout
}

// report is what the tests read of a check's JSON.
type report struct {
	SchemaVersion int `json:"schema_version"`
	Target        struct {
		ServerName string `json:"server_name"`
		Databases  []struct {
			Engine, Database string
		} `json:"databases"`
	} `json:"target"`
	Checks []struct {
		ID, Status, Reason string
		Findings           []struct {
			Code, Severity, Summary string
			Object                  struct{ Kind, Name string }
			Evidence                map[string]string
		}
	} `json:"checks"`
	Summary map[string]int `json:"summary"`
}

// fixReport is what the tests read of a fix's JSON.
type fixReport struct {
	Applied bool `json:"applied"`
	Plans   []struct {
		ID, Status, Reason string
	} `json:"plans"`
	After *report `json:"after"`
}

// found are a check's findings, as "code of object".
func (r report) found(check string) []string {
	var list []string
	for _, c := range r.Checks {
		for _, f := range c.Findings {
			if c.ID == check {
				list = append(list, f.Code+" of "+f.Object.Name)
			}
		}
	}
	slices.Sort(list)
	return list
}

func (p patient) check(t *testing.T, code int, args ...string) report {
	t.Helper()
	var r report
	if err := json.Unmarshal(p.run(t, code, append([]string{"check", "--format", "json"}, args...)...), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (p patient) fix(t *testing.T, code int, check string) fixReport {
	t.Helper()
	var r fixReport
	if err := json.Unmarshal(p.run(t, code, "fix", check, "--apply", "--yes", "--format", "json"), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// sound makes sure that a check of everything examines everything that can be examined here, and alarms nobody. It
// says which advice there was.
func (p patient) sound(t *testing.T) {
	t.Helper()
	r := p.check(t, 0)
	if r.SchemaVersion != 1 || r.Target.ServerName != "test.example" || len(r.Target.Databases) != 1 ||
		r.Target.Databases[0].Engine != "postgres" || r.Target.Databases[0].Database != p.db.Name {
		t.Errorf("the report is not about the homeserver: %+v", r.Target)
	}
	for _, status := range []string{"warning", "error", "unknown"} {
		if r.Summary[status] != 0 {
			t.Errorf("%d checks are %s", r.Summary[status], status)
		}
	}
	statuses := map[string]string{}
	for _, c := range r.Checks {
		statuses[c.ID] = c.Status
		aboutSQLite := c.ID == "vacuum" || c.ID == "port"
		if c.Status != "ok" && c.Status != "info" && !(c.Status == "skipped" && aboutSQLite) {
			t.Errorf("%s is %s: %s", c.ID, c.Status, c.Reason)
		}
		for _, f := range c.Findings {
			if f.Severity != "info" || c.ID == "sequence" {
				t.Errorf("%s: %s: %s %v", f.Severity, f.Code, f.Summary, f.Evidence)
			} else {
				t.Logf("%s: %s: %s", f.Severity, f.Code, f.Summary)
			}
		}
	}
	for _, id := range []string{"connection", "encoding", "sequence", "version"} {
		if statuses[id] == "" {
			t.Errorf("the report has no check %s", id)
		}
	}
	if statuses["keepalives"] != "info" {
		t.Errorf("keepalives is %q; the configuration sets none, on a loopback address", statuses["keepalives"])
	}
}

// wantFound makes sure that the check of sequences finds exactly these.
func (p patient) wantFound(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := p.check(t, 2, "sequence").found("sequence"); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

// mend applies the fix of the sequences and makes sure that nothing is left to be found.
func (p patient) mend(t *testing.T) {
	t.Helper()
	r := p.fix(t, 0, "sequence")
	if !r.Applied || len(r.Plans) != 1 || r.Plans[0].Status != "applied" || r.After == nil || len(r.After.found("sequence")) > 0 {
		t.Errorf("the fix says %+v", r)
	}
	if r := p.check(t, 0, "sequence"); len(r.found("sequence")) > 0 {
		t.Errorf("after the fix: %q", r.found("sequence"))
	}
}

// thaw mends what Synapse's own script always leaves behind, and nothing else.
func (p patient) thaw(t *testing.T) {
	t.Helper()
	const code = "port/directory-frozen"
	if found := p.check(t, 2, "port").found("port"); !slices.Equal(found, []string{code + " of user_directory_stream_pos"}) {
		t.Fatalf("found %q", found)
	}
	if r := p.fix(t, 0, code); !r.Applied || len(r.Plans) != 1 || r.Plans[0].Status != "applied" {
		t.Fatalf("the fix says %+v", r)
	}
}

// standing is where a sequence stands.
func standing(t *testing.T, db *pgtest.DB, sequence string) (at string) {
	t.Helper()
	query := fmt.Sprintf("SELECT format('%%s,%%s', last_value, is_called) FROM %s", sequence)
	conn := db.AdminConn(t)
	if err := conn.QueryRow(t.Context(), query).Scan(&at); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
	return at
}
