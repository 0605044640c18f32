//go:build synapse

package main_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// beginning is where a new administrator stands: a server as it was installed, without role and database, and a homeserver.yaml.
type beginning struct {
	major       int
	stock, host string // of pg_hba.conf, and in homeserver.yaml
}

// TestSynapseGettingIn takes a server as distributions install it to a Synapse that starts, in one fix. With
// SYNAPSE_DOCTOR_MATRIX=1 every major is met with every pg_hba.conf and every way of connecting, which takes long.
func TestSynapseGettingIn(t *testing.T) {
	synapse, doctor := installed(t), built(t)
	beginnings := []beginning{
		{14, "debian", "socket"}, {15, "redhat", "127.0.0.1"}, {16, "docker", "::1"}, {17, "redhat", "localhost"}, {18, "debian", "127.0.0.1"},
	}
	if os.Getenv("SYNAPSE_DOCTOR_MATRIX") == "1" {
		beginnings = nil
		for major := 14; major <= 18; major++ {
			for _, stock := range []string{"debian", "redhat", "docker"} {
				for _, host := range []string{"127.0.0.1", "::1", "localhost", "socket"} {
					beginnings = append(beginnings, beginning{major, stock, host})
				}
			}
		}
	}
	for _, b := range beginnings {
		t.Run(fmt.Sprintf("PostgreSQL%d/%s/%s", b.major, b.stock, b.host), func(t *testing.T) {
			if !slices.Contains(pgtest.Majors(t.Context()), b.major) && os.Getenv("SYNAPSE_DOCTOR_REQUIRE_MATRIX") != "1" {
				t.Skipf("PostgreSQL %d is not installed: make postgres-matrix", b.major)
			}
			gettingIn(t, synapse, doctor, b)
		})
	}
}

func gettingIn(t *testing.T, synapse installation, doctor program, b beginning) {
	server := pgtest.StartWith(t, pgtest.Config{Sound: true, Version: fmt.Sprint(b.major)})
	hba, stock := stockHBA(t, server, b.stock)
	db := &pgtest.DB{Server: server, Name: "synapse", Host: b.host, Port: server.Port, User: "synapse_user", Password: rand.Text()}
	if b.host == "socket" {
		db.Host = server.SocketDir
	}
	h := newHomeserver(t, synapse, db)
	doctor.state = filepath.Join(t.TempDir(), "state")
	p := patient{doctor, h.config, db}

	r := p.fix(t, 2, "--skip=keepalives") // what is left to find: the database is empty, as it should be
	for _, plan := range r.Plans {
		if plan.Status != "applied" {
			t.Errorf("%s is %s: %s", plan.ID, plan.Status, plan.Reason)
		}
	}
	if len(r.Plans) == 0 || r.Plans[0].ID != "database/create" && r.Plans[len(r.Plans)-1].ID != "database/create" {
		t.Errorf("the plans are %+v", r.Plans)
	}
	mended, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	keptAllOf(t, stock, mended)
	if again := p.fix(t, 2, "--skip=keepalives"); len(again.Plans) > 0 {
		t.Errorf("a second run has something to do: %+v", again.Plans)
	}

	if b.host == "socket" { // inside, the socket's folder is seen elsewhere
		h.seesSocket(t, server.SocketDir)
	}
	h.start(t)
	room, texts := h.traffic(t)
	h.login(t, "alice").reads(t, room, texts)
	h.stop(t)
	for _, c := range p.check(t, 0, "connection", "database", "ident", "encoding", "sequence").Checks {
		if c.Status != "ok" && c.Status != "info" {
			t.Errorf("%s is %s: %s", c.ID, c.Status, c.Reason)
		}
	}

	// The role and the database are in use: they stay. The file goes back, on its own, by hand and by undo.
	p.run(t, 2, "undo", "--yes")
	if after, err := os.ReadFile(hba); err != nil || len(r.Plans) > 1 && !bytes.Equal(after, stock) && !bytes.Equal(after, mended) {
		t.Errorf("undo left pg_hba.conf as\n%s (%v)", after, err)
	}
}

// stockHBA gives a server the pg_hba.conf of a distribution, with nothing of the tests' own in it.
func stockHBA(t *testing.T, server *pgtest.Server, name string) (path string, content []byte) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "checks", "ident", "testdata", name+".conf"))
	if err != nil {
		t.Fatal(err)
	}
	before := strings.Count(server.Log(), "SIGHUP")
	server.WriteFile(t, "pg_hba.conf", content)
	lock, err := os.ReadFile(filepath.Join(server.DataDir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(lock), &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for strings.Count(server.Log(), "SIGHUP") == before {
		time.Sleep(10 * time.Millisecond)
	}
	return filepath.Join(server.DataDir, "pg_hba.conf"), content
}

// keptAllOf makes sure that every line of before is in after, in its order.
func keptAllOf(t *testing.T, before, after []byte) {
	t.Helper()
	rest := bytes.SplitAfter(after, []byte("\n"))
	for line := range bytes.Lines(before) {
		i := slices.IndexFunc(rest, func(l []byte) bool { return bytes.Equal(l, line) })
		if i < 0 {
			t.Fatalf("the line %q is gone from pg_hba.conf:\n%s", line, after)
		}
		for _, added := range rest[:i] {
			if text := string(added); strings.Contains(text, "trust") || !strings.HasPrefix(text, "#") && !strings.Contains(text, "synapse_user") {
				t.Errorf("the line %q was added to pg_hba.conf", added)
			}
		}
		rest = rest[i+1:]
	}
}

// seesSocket makes the server's socket one that Synapse finds in its own folder.
func (h *homeserver) seesSocket(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(h.config)
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Dir(h.config)
	sockets, err := filepath.Glob(filepath.Join(dir, ".s.PGSQL.*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, socket := range sockets {
		if err := os.Link(socket, filepath.Join(home, filepath.Base(socket))); err != nil {
			t.Fatal(err)
		}
	}
	h.config = filepath.Join(home, "inside.yaml")
	inner := bytes.ReplaceAll(text, []byte("host: "+dir), []byte("host: "+inside))
	if err := os.WriteFile(h.config, inner, 0o600); err != nil {
		t.Fatal(err)
	}
}
