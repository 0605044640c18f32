//go:build synapse

package main_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// homeserver is a real Synapse with a folder and a database of its own.
type homeserver struct {
	installation
	db     *pgtest.DB
	config string // homeserver.yaml
	url    string
	log    string // the file with what it has said since the last start
	secret string // with which accounts are registered
	worker string // the worker's own file, for a worker; its program is another

	exited chan struct{} // closed when the process has been waited for; nil while there is none
	cmd    *exec.Cmd
}

// patience bounds waiting for a start or a stop, which take seconds, on a machine that is very busy.
const patience = 3 * time.Minute

func newHomeserver(t *testing.T, i installation, db *pgtest.DB) *homeserver {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	h := &homeserver{installation: i, db: db, config: filepath.Join(dir, "homeserver.yaml"), url: fmt.Sprintf("http://127.0.0.1:%d", port),
		log: filepath.Join(dir, "log"), secret: rand.Text()}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	for path, text := range map[string]string{
		filepath.Join(dir, "signing.key"): "ed25519 a_test " + base64.RawStdEncoding.EncodeToString(key) + "\n",
		h.config:                          fmt.Sprintf(homeserverYAML, port, inside, h.secret, db.User, db.Password, db.Name, db.Host, db.Port),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { h.stop(t) })
	return h
}

// homeserverYAML talks to no other server, and is not slowed down by limits.
const homeserverYAML = `# The homeserver of a test.
server_name: test.example
listeners:
  - {port: %d, bind_addresses: [127.0.0.1], type: http, tls: false, resources: [{names: [client]}]}
media_store_path: %[2]s/media
signing_key_path: %[2]s/signing.key
registration_shared_secret: %[3]q
macaroon_secret_key: %[3]q
form_secret: %[3]q
report_stats: false
trusted_key_servers: []
suppress_key_server_warning: true
federation_domain_whitelist: []
allow_guest_access: true
bcrypt_rounds: 4
rc_message: &fast {per_second: 1000, burst_count: 1000}
rc_registration: *fast
rc_room_creation: *fast
rc_joins: {local: *fast, remote: *fast}
rc_login: {address: *fast, account: *fast, failed_attempts: *fast}
database:
  name: psycopg2   # as Synapse's documentation has it
  args:
    user: %[4]q
    password: %[5]q
    dbname: %[6]q
    host: %[7]s
    port: %[8]d
    cp_min: 5
    cp_max: 10
`

// freePort is one below those that the system gives to outgoing connections: nobody takes it before Synapse does.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + mathrand.IntN(10000)
		if l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// start starts it and returns when it answers its clients.
func (h *homeserver) start(t *testing.T) {
	t.Helper()
	if !h.launch(t) {
		t.Fatalf("Synapse does not start: %v\n%s", h.cmd.ProcessState, h.said(t))
	}
}

// refuse starts it and returns what it says; it must end by itself.
func (h *homeserver) refuse(t *testing.T) string {
	t.Helper()
	if h.launch(t) {
		h.stop(t)
		t.Fatalf("Synapse starts, on a database that it should refuse:\n%s", h.said(t))
	}
	if h.cmd.ProcessState.Success() {
		t.Errorf("Synapse ended as if all were well:\n%s", h.said(t))
	}
	return h.said(t)
}

// launch starts the process and waits until it answers or has ended.
func (h *homeserver) launch(t *testing.T) (answers bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	log, err := os.Create(h.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	// It lives until stop, not until the end of the context.
	program := []string{"synapse_homeserver", "-c", inside + "/" + filepath.Base(h.config)}
	if h.worker != "" {
		program = append(program, "-c", inside+"/"+filepath.Base(h.worker))
		program[0] = "synapse_worker"
	}
	h.cmd = h.command(context.WithoutCancel(ctx), filepath.Dir(h.config), program[0], program[1:]...)
	h.cmd.Env = append(h.cmd.Env, "PYTHONPATH="+inside)
	h.cmd.Stdout, h.cmd.Stderr = log, log
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	h.exited = make(chan struct{})
	started := make(chan error)
	go func() {
		// The child is killed when the thread that started it ends, and Go ends idle threads: this one waits for the child.
		runtime.LockOSThread()
		err := h.cmd.Start()
		started <- err
		if err == nil {
			_ = h.cmd.Wait() // ProcessState says how it ended
			close(h.exited)
		}
	}()
	if err := <-started; err != nil {
		h.exited = nil
		t.Fatal(err)
	}
	health, err := http.NewRequestWithContext(ctx, "GET", h.url+"/health", nil)
	if err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case <-h.exited:
			h.exited = nil
			return false
		case <-ctx.Done():
			t.Fatalf("Synapse does not answer: %v\n%s", ctx.Err(), h.said(t))
		case <-time.After(50 * time.Millisecond):
		}
		if response, err := http.DefaultClient.Do(health); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return true
			}
		}
	}
}

// stop ends it as an administrator does, and returns when it is gone. It may be called when none runs.
func (h *homeserver) stop(t *testing.T) {
	t.Helper()
	if h.exited == nil {
		return
	}
	_ = h.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has already ended
	select {
	case <-h.exited:
	case <-time.After(patience):
		t.Errorf("Synapse does not stop, and is killed:\n%s", h.said(t))
		_ = h.cmd.Process.Kill()
		<-h.exited
	}
	h.exited = nil
}

// said is the end of its log.
func (h *homeserver) said(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(h.log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}
