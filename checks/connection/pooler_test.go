package connection

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// pgbouncer runs a real PgBouncer before the database and returns its port.
func pgbouncer(t *testing.T, db *pgtest.DB, mode string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("PgBouncer is not installed: what the doctor sees through it was not tested (Debian: apt-get install pgbouncer)")
	}
	dir, port := t.TempDir(), closedPort(t)
	users, ini := filepath.Join(dir, "users.txt"), filepath.Join(dir, "pgbouncer.ini")
	write(t, users, fmt.Sprintf("%q %q\n", db.User, db.Password))
	write(t, ini, fmt.Sprintf("[databases]\n%s = host=127.0.0.1 port=%d\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nunix_socket_dir =\n"+
		"auth_type = scram-sha-256\nauth_file = %s\npool_mode = %s\n", db.Name, db.Port, port, users, mode))
	cmd := exec.Command(program, ini)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 { // it refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid) // a number on every Unix
		gid, _ := strconv.Atoi(u.Gid)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
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
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
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

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPgBouncerInTransactionModeIsFound(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(small))
	port := pgbouncer(t, db, "transaction")
	want(t, check(t, login(db, pgdb.Settings{"port": port}), nil), "connection/transaction-pooling", doctor.Warning, database(db.Name))

	// And nothing of the doctor's stays in the sessions that Synapse gets next.
	conn, err := pgdb.Connect(t.Context(), login(db, pgdb.Settings{"port": port}), pgdb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var readOnly, lockTimeout string
	if err := conn.QueryRow(t.Context(), `SELECT current_setting('default_transaction_read_only'), current_setting('lock_timeout')`).Scan(&readOnly, &lockTimeout); err != nil {
		t.Fatal(err)
	}
	if readOnly != "off" || lockTimeout != "0" {
		t.Errorf("left behind: default_transaction_read_only=%s lock_timeout=%s", readOnly, lockTimeout)
	}
}

func TestPgBouncerInSessionModeIsNoFault(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(small))
	port := pgbouncer(t, db, "session")
	if f := check(t, login(db, pgdb.Settings{"port": port}), nil); len(f) > 0 {
		t.Errorf("%s: %s", f[0].Code, f[0].Observed)
	}
}
