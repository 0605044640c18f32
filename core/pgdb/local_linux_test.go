package pgdb

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func endpointsOf(t *testing.T, s Settings) []Endpoint {
	t.Helper()
	endpoints, err := s.Endpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return endpoints
}

func TestTheServerBehindAnEndpointIsFoundWithoutLoggingIn(t *testing.T) {
	server := pgtest.Start(t)
	other := pgtest.StartWith(t, pgtest.Config{})
	db := server.Database(t)
	id := ask[string](t, connect(t, login(db, Settings{"host": server.SocketDir, "user": "postgres"}), Options{}), "SELECT system_identifier::text FROM pg_control_system()")
	for _, host := range []string{"127.0.0.1", "::1", "localhost", server.SocketDir} {
		for _, e := range endpointsOf(t, login(db, Settings{"host": host})) {
			found, err := FindServer(e)
			if err != nil {
				t.Errorf("%s: %v", e, err)
				continue
			}
			if found.DataDir != server.DataDir || found.SystemID != id || found.Port != server.Port || found.SocketDir != server.SocketDir {
				t.Errorf("%s: %+v, want %s in %s", e, found, id, server.DataDir)
			}
			if found.Owner == "" || found.DataDir == other.DataDir {
				t.Errorf("%s: %+v", e, found)
			}
		}
	}
	link := filepath.Join(t.TempDir(), "run")
	if err := os.Symlink(server.SocketDir, link); err != nil {
		t.Fatal(err)
	}
	if found, err := FindServer(endpointsOf(t, login(db, Settings{"host": link}))[0]); err != nil || found.DataDir != server.DataDir {
		t.Errorf("through a link: %+v, %v", found, err)
	}
}

func TestWhatIsNoServerOfThisMachineIsNotFound(t *testing.T) {
	free := pgtest.Start(t).Port
	for _, e := range []Endpoint{
		{Addr: netip.MustParseAddr("192.0.2.1"), Port: uint16(free)},
		{Addr: netip.MustParseAddr("127.0.0.1"), Port: 1},
		{Socket: "/nowhere/.s.PGSQL.5432"},
	} {
		if found, err := FindServer(e); !errors.Is(err, ErrNotLocal) {
			t.Errorf("%v: %+v, %v", e, found, err)
		}
	}
}

func TestRootComesInAsTheServersUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can connect as another user")
	}
	server := pgtest.StartWith(t, pgtest.Config{})
	// The line that pgtest keeps would let anybody in: peer must be what decides about this database.
	hba := filepath.Join(server.DataDir, "pg_hba.conf")
	if err := os.WriteFile(hba, []byte("local postgres postgres trust\nlocal all all peer\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server.Reload(t)
	found, err := FindServer(Endpoint{Addr: netip.MustParseAddr("127.0.0.1"), Port: uint16(server.Port)})
	if err != nil {
		t.Fatal(err)
	}
	settings := Settings{"host": found.SocketDir, "port": "", "user": "postgres", "dbname": "template1"}
	settings["port"] = login(&pgtest.DB{Port: found.Port}, nil)["port"]
	if _, err := Connect(t.Context(), settings, Options{}); err == nil {
		t.Error("root itself was let in by peer")
	}
	for range 20 {
		conn := connect(t, settings, Options{OSUser: found.Owner})
		if who := ask[string](t, conn, "SELECT session_user"); who != "postgres" {
			t.Errorf("logged in as %s", who)
		}
	}
	if os.Geteuid() != 0 {
		t.Error("the process is no longer root")
	}
	status, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range status {
		text, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(text), "Uid:\t0\t0\t0\t0\n") {
			t.Errorf("a thread has kept other rights:\n%s", text)
		}
	}
	if _, err := Connect(t.Context(), settings, Options{OSUser: "nobody-of-this-name"}); err == nil {
		t.Error("a user that does not exist was accepted")
	}
}
