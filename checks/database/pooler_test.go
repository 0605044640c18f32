package database

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// An administrator who asks the server for the pooler's name finds no such database, and would create it.
func TestADatabaseThatAPoolerGivesAnotherNameIsNotMissing(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithOwner("pooled"))
	h := of(db)
	h.entries[0].name, h.entries[0].extra = "alias", pgdb.Settings{"port": pgbouncer(t, db, "alias"), "sslmode": "disable"}
	h.finds(t)
	asAdminDo(t, db.Server, db.Name, "CREATE SCHEMA other AUTHORIZATION pooled", "ALTER DATABASE "+db.Name+" CONNECTION LIMIT 3")
	found := h.finds(t, "database/connection-limit warning database "+db.Name)
	if len(found) > 0 && !strings.Contains(found[0].Remedy, "a pooler such as PgBouncer stands between") {
		t.Error(found[0].Remedy)
	}
}

// pgbouncer runs a real PgBouncer before the database, under another name, and returns its port.
func pgbouncer(t *testing.T, db *pgtest.DB, alias string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("PgBouncer is not installed: what is seen through it was not tested (Debian: apt-get install pgbouncer)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	dir := t.TempDir()
	users, ini := filepath.Join(dir, "users.txt"), filepath.Join(dir, "pgbouncer.ini")
	for path, text := range map[string]string{
		users: fmt.Sprintf("%q %q\n", db.User, db.Password),
		ini: fmt.Sprintf("[databases]\n%s = dbname=%s host=127.0.0.1 port=%d\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nunix_socket_dir =\n"+
			"auth_type = scram-sha-256\nauth_file = %s\npool_mode = session\n", alias, db.Name, db.Port, port, users),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, ini)
	if os.Geteuid() == 0 { // it refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid) // a number on every Unix
		gid, _ := strconv.Atoi(u.Gid)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		for _, path := range []string{dir, filepath.Dir(dir), users, ini} {
			if err := os.Chown(path, uid, gid); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }() // killed below
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-exited })
	for {
		if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			conn.Close()
			return port
		}
		select {
		case <-exited:
			t.Fatal("PgBouncer did not start")
		default:
		}
	}
}
