package pgdb

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func login(db *pgtest.DB, more Settings) Settings {
	s := Settings{"host": db.Host, "port": strconv.Itoa(db.Port), "user": db.User, "password": db.Password, "dbname": db.Name}
	maps.Copy(s, more)
	return s
}

func connect(t *testing.T, s Settings, o Options) *pgx.Conn {
	t.Helper()
	conn, err := Connect(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // a test may have closed it
	return conn
}

func ask[T any](t *testing.T, conn *pgx.Conn, sql string) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestASessionHasTheDoctorsSettings(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	conn := connect(t, login(db, Settings{"options": "-c work_mem=5MB", "client_encoding": "LATIN1"}), Options{ApplicationName: "synapse-doctor/1", ReadOnly: true})
	for setting, want := range map[string]string{
		"application_name": "synapse-doctor/1", "default_transaction_read_only": "on", "lock_timeout": "5s",
		"client_connection_check_interval": "5s", "work_mem": "5MB", "client_encoding": "UTF8",
	} {
		if got := ask[string](t, conn, "SHOW "+setting); got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}
}

func TestAWriterSessionMayWrite(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	if _, err := connect(t, login(db, nil), Options{}).Exec(t.Context(), "CREATE TABLE t ()"); err != nil {
		t.Error(err)
	}
}

func TestClientKeywordsNeverReachTheServer(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	all := login(db, nil)
	for name, k := range keywords {
		if k.ignored != "" {
			all[name] = "1"
		}
	}
	delete(all, "sslrootcert")
	maps.Copy(all, Settings{"keepalives": "1", "fallback_application_name": "x", "channel_binding": "prefer", "require_auth": "scram-sha-256",
		"load_balance_hosts": "random", "sslcertmode": "allow", "connect_timeout": "5", "sslsni": "1", "ssl_min_protocol_version": "TLSv1.2"})
	connect(t, all, Options{})
}

// The environment is as hostile as it can be: pgx would look at each of these.
func TestNothingIsTakenFromTheEnvironmentWhenConnecting(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	s := login(db, nil)
	for name, value := range map[string]string{"PGHOST": "192.0.2.1", "PGPORT": "1", "PGUSER": "nobody", "PGSSLMODE": "verify-full", "PGCONNECT_TIMEOUT": "x",
		"PGSERVICE": "none", "PGTZ": "Nowhere", "PGOPTIONS": "-c nonsense=1", "PGREQUIREAUTH": "x", "PGTARGETSESSIONATTRS": "x", "PGAPPNAME": "environment"} {
		t.Setenv(name, value)
	}
	config, err := parseBlank()
	if err != nil {
		t.Fatal(err)
	}
	if config.SSLNegotiation != "" || config.TLSConfig != nil || config.ConnectTimeout != 0 {
		t.Errorf("pgx took something from the environment")
	}
	if got := ask[string](t, connect(t, s, Options{}), "SHOW application_name"); got != "" {
		t.Errorf("application_name is %q", got)
	}
}

func TestEachPhaseIsToldApart(t *testing.T) {
	s := pgtest.Start(t)
	db := s.Database(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closedPort := strconv.Itoa(closed.Addr().(*net.TCPAddr).Port)
	closed.Close()
	for name, test := range map[string]struct {
		change   Settings
		phase    Phase
		sqlstate string
		is       error
	}{
		"name":         {Settings{"host": "no-such-host.invalid"}, PhaseResolve, "", nil},
		"refused":      {Settings{"port": closedPort}, PhaseDial, "", syscall.ECONNREFUSED},
		"no socket":    {Settings{"host": t.TempDir()}, PhaseDial, "", syscall.ENOENT},
		"no TLS":       {Settings{"sslmode": "require"}, PhaseTLS, "", ErrTLSRefused},
		"bad sslmode":  {Settings{"sslmode": "yes"}, PhaseSettings, "", nil},
		"no root":      {Settings{"sslmode": "verify-full"}, PhaseSettings, "", nil},
		"bad number":   {Settings{"keepalives": "True"}, PhaseSettings, "", nil},
		"password":     {Settings{"password": planted}, PhaseAuth, "28P01", nil},
		"no password":  {Settings{"password": ""}, PhaseAuth, "", ErrNoPassword},
		"no database":  {Settings{"dbname": "nothing"}, PhaseAuth, "3D000", nil},
		"bad options":  {Settings{"options": "-c nonsense=1"}, PhaseAuth, "42704", nil},
		"wrong server": {Settings{"target_session_attrs": "standby"}, PhaseSession, "", ErrWrongServer},
		"wrong peer":   {Settings{"host": s.SocketDir, "requirepeer": "nobody"}, PhaseDial, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Connect(t.Context(), login(db, test.change), Options{})
			failure, ok := errors.AsType[*ConnectError](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			if failure.Phase != test.phase || failure.SQLSTATE != test.sqlstate || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got phase %s, SQLSTATE %q: %v", failure.Phase, failure.SQLSTATE, err)
			}
			if text := fmt.Sprintf("%v %+v", err, failure.Err); strings.Contains(text, planted) || strings.Contains(text, db.Password) {
				t.Errorf("the error holds the password: %s", text)
			}
		})
	}
}

// silent accepts connections and never answers.
func silent(t *testing.T) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func TestASilentServerTimesOutAndTheNextHostIsTried(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	s := login(db, Settings{"port": silent(t)})
	for phase, mode := range map[Phase]string{PhaseTLS: "prefer", PhaseAuth: "disable"} {
		s["sslmode"] = mode
		_, err := Connect(t.Context(), s, Options{ConnectTimeout: 50 * time.Millisecond})
		failure, ok := errors.AsType[*ConnectError](err)
		if !ok || !failure.Timeout() || failure.Phase != phase {
			t.Errorf("sslmode=%s: %v", mode, err)
		}
	}
	s["host"], s["port"] = "127.0.0.1,127.0.0.1", s["port"]+","+strconv.Itoa(db.Port)
	connect(t, s, Options{ConnectTimeout: 500 * time.Millisecond})
}

func TestALoginThatIsRefusedIsNotTriedElsewhere(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	_, err := Connect(t.Context(), login(db, Settings{"host": "127.0.0.1,127.0.0.1", "password": "wrong"}), Options{})
	failure, ok := errors.AsType[*ConnectError](err)
	if !ok || len(failure.Attempts) != 1 {
		t.Errorf("got %v", err)
	}
}

func TestTLSModes(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{HBA: []string{"hostssl all all all scram-sha-256"}})
	certificate, key := selfSigned(t, "db.example")
	s.WriteFile(t, "server.crt", certificate)
	s.WriteFile(t, "server.key", key)
	db := s.Database(t)
	db.AdminExec(t, "ALTER SYSTEM SET ssl = on")
	s.Reload(t)
	root := write(t, filepath.Join(t.TempDir(), "root.crt"), string(certificate), 0o600)
	for name, test := range map[string]struct {
		change Settings
		ok     bool
		phase  Phase
	}{
		"prefer":                 {nil, true, ""},
		"allow":                  {Settings{"sslmode": "allow"}, true, ""},
		"require":                {Settings{"sslmode": "require"}, true, ""},
		"disable":                {Settings{"sslmode": "disable"}, false, PhaseAuth},
		"the right authority":    {Settings{"sslmode": "verify-ca", "sslrootcert": root}, true, ""},
		"the wrong name":         {Settings{"sslmode": "verify-full", "sslrootcert": root}, false, PhaseTLS},
		"the right name":         {Settings{"sslmode": "verify-full", "sslrootcert": root, "host": "db.example", "hostaddr": "127.0.0.1"}, true, ""},
		"the wrong authority":    {Settings{"sslmode": "verify-full", "sslrootcert": "system", "host": "db.example", "hostaddr": "127.0.0.1"}, false, PhaseTLS},
		"require with authority": {Settings{"sslmode": "require", "sslrootcert": root}, true, ""},
		"channel binding":        {Settings{"channel_binding": "require"}, true, ""},
		"client certificate":     {Settings{"sslcertmode": "require"}, false, PhaseTLS},
		"from the first byte":    {Settings{"sslmode": "require", "sslnegotiation": "direct"}, s.Major(t) >= 17, PhaseTLS},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := Connect(t.Context(), login(db, test.change), Options{})
			if err == nil {
				defer conn.Close(t.Context())
				if _, encrypted := conn.PgConn().Conn().(*tls.Conn); !encrypted {
					t.Error("not encrypted")
				}
			}
			failure, _ := errors.AsType[*ConnectError](err)
			if (err == nil) != test.ok || err != nil && failure.Phase != test.phase {
				t.Errorf("got %v", err)
			}
		})
	}
}

func selfSigned(t *testing.T, name string) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func TestAReaderCannotWrite(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	pool := NewPool(login(db, nil), Options{}, 1)
	defer pool.Close()
	err := pool.Read(t.Context(), func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "CREATE TABLE t ()")
		return err
	})
	if err == nil {
		t.Error("a table was created")
	}
	err = pool.Read(t.Context(), func(tx pgx.Tx) error { // the session goes on after a failure
		var level string
		if err := tx.QueryRow(t.Context(), "SHOW transaction_isolation").Scan(&level); err != nil || level != "repeatable read" {
			return fmt.Errorf("isolation %q: %w", level, err)
		}
		_ = tx.Rollback(t.Context())
		_, err := tx.Conn().Exec(t.Context(), "CREATE TABLE t ()")
		return err
	})
	if err == nil {
		t.Error("a table was created outside the transaction")
	}
}

func TestReadersShareABoundedNumberOfSessions(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	pool := NewPool(login(db, nil), Options{ApplicationName: "bounded"}, 2)
	defer pool.Close()
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			err := pool.Read(t.Context(), func(tx pgx.Tx) error {
				var n int
				if err := tx.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bounded'").Scan(&n); err != nil {
					return err
				}
				if n > 2 {
					return fmt.Errorf("%d sessions", n)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	pool.Close()
	if err := pool.Read(t.Context(), func(pgx.Tx) error { return nil }); !errors.Is(err, ErrPoolClosed) {
		t.Errorf("got %v", err)
	}
}

func TestASessionThatTheServerEndedIsReplaced(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	pool := NewPool(login(db, nil), Options{ApplicationName: "ended"}, 1)
	defer pool.Close()
	nothing := func(pgx.Tx) error { return nil }
	if err := pool.Read(t.Context(), nothing); err != nil {
		t.Fatal(err)
	}
	db.AdminExec(t, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'ended'")
	if err := pool.Read(t.Context(), nothing); err != nil {
		t.Error(err)
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	pool := NewPool(login(db, nil), Options{ApplicationName: "waiting"}, 1)
	defer pool.Close()
	ctx, cancel := context.WithCancel(t.Context())
	err := pool.Read(ctx, func(tx pgx.Tx) error {
		if err := pool.Read(cancelled(t), func(pgx.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("waiting for a session: %v", err)
		}
		var seen bool
		if err := tx.QueryRow(ctx, "SELECT true").Scan(&seen); err != nil {
			return err
		}
		go cancel()
		_, err := tx.Exec(ctx, "SELECT pg_sleep(600)")
		return err
	})
	if err == nil {
		t.Error("a statement went on for ten minutes")
	}
	// The server does not go on with it either: the statement was cancelled, not just left.
	admin := db.AdminConn(t)
	for ask[int](t, admin, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND state = 'active'") > 0 {
	}
}

func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
