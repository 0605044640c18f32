package connection

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// small is the least that makes a database Synapse's.
const small = `CREATE TABLE schema_version (version int NOT NULL, upgraded bool NOT NULL);
INSERT INTO schema_version VALUES (92, true);
CREATE TABLE users (name text PRIMARY KEY);
INSERT INTO users VALUES ('@alice:test.example');`

func login(db *pgtest.DB, changes pgdb.Settings) pgdb.Settings {
	s := pgdb.Settings{"host": db.Host, "port": strconv.Itoa(db.Port), "user": db.User, "password": db.Password, "dbname": db.Name}
	maps.Copy(s, changes)
	return s
}

// recorder keeps what the check reports.
type recorder struct {
	mu       sync.Mutex
	findings []doctor.Finding
}

func (r *recorder) Progress(doctor.Progress) {}
func (r *recorder) Covered(string)           {}
func (r *recorder) Measure(doctor.Measure)   {}
func (r *recorder) Find(f doctor.Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.findings = append(r.findings, f)
}

func check(t *testing.T, s pgdb.Settings, admin *pgtest.DB) []doctor.Finding {
	t.Helper()
	d := &doctor.Database{Label: "main", Engine: doctor.Postgres, DataStores: []string{"main", "state"}, Meets: doctor.NeedsPostgresEntry, Settings: s}
	target := &doctor.Target{RunID: "test", ServerName: "test.example", Databases: []*doctor.Database{d}}
	if admin != nil {
		settings, err := pgdb.Parse(admin.AdminDSN())
		if err != nil {
			t.Fatal(err)
		}
		target.Admin = &doctor.Database{Label: "admin", Engine: doctor.Postgres, Settings: settings}
	}
	target.Bind()
	defer target.Close()
	var r recorder
	if err := Check.Run(t.Context(), target, &r); err != nil {
		t.Fatal(err)
	}
	for _, f := range r.findings {
		wellFormed(t, f, s)
	}
	return r.findings
}

func wellFormed(t *testing.T, f doctor.Finding, s pgdb.Settings) {
	t.Helper()
	known := slices.ContainsFunc(Check.Codes, func(c doctor.Code) bool { return c.ID == f.Code })
	if !known || f.Severity == 0 || f.Database == "" || f.Object.Kind == "" || f.Object.Name == "" || f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" {
		t.Errorf("incomplete finding: %+v", f)
	}
	text := strings.Join(append(slices.Collect(maps.Values(f.Evidence)), f.Summary, f.Observed, f.Expected, f.Remedy), "\n")
	if p := s["password"]; p != "" && strings.Contains(text, p) {
		t.Errorf("%s holds the password", f.Code)
	}
}

func want(t *testing.T, findings []doctor.Finding, code string, severity doctor.Severity, object doctor.Object) {
	t.Helper()
	if len(findings) != 1 || findings[0].Code != code || findings[0].Severity != severity || findings[0].Object != object {
		t.Errorf("want %s (%s) for %v, got:", code, severity, object)
		for _, f := range findings {
			t.Errorf("  %s (%s) for %v: %s", f.Code, f.Severity, f.Object, f.Observed)
		}
	}
}

func role(name string) doctor.Object     { return doctor.Object{Kind: "role", Name: name} }
func database(name string) doctor.Object { return doctor.Object{Kind: "database", Name: name} }
func address(name string) doctor.Object  { return doctor.Object{Kind: "address", Name: name} }
func loopback(port string) doctor.Object { return address("127.0.0.1:" + port) }
func portOf(db *pgtest.DB) string        { return strconv.Itoa(db.Port) }
func closedPort(t *testing.T) string {
	t.Helper()
	l := listen(t)
	l.Close()
	return portOfListener(l)
}
func portOfListener(l net.Listener) string { return strconv.Itoa(l.Addr().(*net.TCPAddr).Port) }

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestASoundDatabaseHasNoFinding(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(small))
	for _, s := range []pgdb.Settings{nil, {"host": "localhost"}, {"host": "127.0.0.1,127.0.0.1"}} {
		if f := check(t, login(db, s), nil); len(f) > 0 {
			t.Errorf("%v: %s", s, f[0].Summary)
		}
	}
}

func TestARealDatabaseHasNoFinding(t *testing.T) {
	dump := filepath.Join(pgtest.Data(t), "synapse_ported.dump")
	db := pgtest.Start(t).Database(t, pgtest.WithDump(dump))
	var user string
	if err := db.Conn(t).QueryRow(t.Context(), `SELECT name FROM users LIMIT 1`).Scan(&user); err != nil {
		t.Fatal(err)
	}
	d := &doctor.Database{Label: "main", Engine: doctor.Postgres, Meets: doctor.NeedsPostgresEntry, Settings: login(db, nil)}
	_, name, _ := strings.Cut(user, ":")
	target := &doctor.Target{ServerName: name, Databases: []*doctor.Database{d}}
	defer target.Close()
	var r recorder
	if err := Check.Run(t.Context(), target, &r); err != nil || len(r.findings) > 0 {
		t.Errorf("got %v, %v", r.findings, err)
	}
}

func TestEachFailureIsNamed(t *testing.T) {
	s := pgtest.Start(t)
	db := s.Database(t, pgtest.WithSetup(small))
	closed, silent := closedPort(t), portOfListener(listen(t))
	sockets := t.TempDir()
	for name, test := range map[string]struct {
		change pgdb.Settings
		code   string
		object doctor.Object
	}{
		"name":         {pgdb.Settings{"host": "no-such-host.invalid"}, "connection/name-not-resolved", address("no-such-host.invalid")},
		"closed port":  {pgdb.Settings{"port": closed}, "connection/refused", loopback(closed)},
		"silence":      {pgdb.Settings{"port": silent, "connect_timeout": "2"}, "connection/timed-out", loopback(silent)},
		"plain, too":   {pgdb.Settings{"port": silent, "connect_timeout": "2", "sslmode": "disable"}, "connection/timed-out", loopback(silent)},
		"no socket":    {pgdb.Settings{"host": sockets}, "connection/no-socket", address(sockets + "/.s.PGSQL." + portOf(db))},
		"no TLS":       {pgdb.Settings{"sslmode": "require"}, "connection/tls-not-offered", loopback(portOf(db))},
		"bad setting":  {pgdb.Settings{"sslmode": "yes"}, "connection/settings-invalid", database(db.Name)},
		"bad list":     {pgdb.Settings{"host": "a,b", "port": "1,2,3"}, "connection/settings-invalid", database(db.Name)},
		"password":     {pgdb.Settings{"password": "wrong-password"}, "connection/password-refused", role(db.User)},
		"no password":  {pgdb.Settings{"password": ""}, "connection/no-password", role(db.User)},
		"no role":      {pgdb.Settings{"user": "nobody"}, "connection/password-refused", role("nobody")},
		"no database":  {pgdb.Settings{"dbname": "nothing"}, "connection/no-database", database("nothing")},
		"bad options":  {pgdb.Settings{"options": "-c nonsense=1"}, "connection/server-error", loopback(portOf(db))},
		"wrong server": {pgdb.Settings{"target_session_attrs": "standby"}, "connection/wrong-server", loopback(portOf(db))},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, check(t, login(db, test.change), nil), test.code, doctor.Error, test.object)
		})
	}
}

// On a server that was made with ICU's locales, a database has those unless it is told otherwise.
func TestTheDatabaseToCreateIsInTheLocaleCOfTheCLibrary(t *testing.T) {
	if pgtest.Start(t).Major(t) < 15 {
		t.Skip("before PostgreSQL 15 no database is in a locale of ICU's")
	}
	s := pgtest.StartWith(t, pgtest.Config{InitdbArgs: []string{"--locale-provider=icu", "--icu-locale=en-US"}})
	db := s.Database(t)
	f := check(t, login(db, pgdb.Settings{"dbname": "nothing"}), nil)
	want(t, f, "connection/no-database", doctor.Error, database("nothing"))
	_, command, _ := strings.Cut(f[0].Remedy, "    CREATE ")
	db.AdminExec(t, "CREATE "+command)
	var got string
	if err := db.AdminConn(t).QueryRow(t.Context(), `SELECT concat_ws(' ', datlocprovider, datcollate, datctype, pg_encoding_to_char(encoding))
		FROM pg_database WHERE datname = 'nothing'`).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if got != "c C C UTF8" {
		t.Errorf("provider, collation, character type and encoding are %s", got)
	}
}

func TestAnAdministratorsConnectionTellsAMissingRole(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(small))
	want(t, check(t, login(db, pgdb.Settings{"user": "nobody"}), db), "connection/no-role", doctor.Error, role("nobody"))
	other := pgtest.Start(t).Database(t, pgtest.WithOwner("locked_out"))
	other.AdminExec(t, "ALTER ROLE locked_out NOLOGIN")
	want(t, check(t, login(other, nil), db), "connection/role-cannot-login", doctor.Error, role("locked_out"))
}

func TestPrivilegesAndLimits(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(small), pgtest.WithOwner("poor_user"))
	db.AdminExec(t, "ALTER ROLE poor_user CONNECTION LIMIT 0")
	want(t, check(t, login(db, nil), nil), "connection/too-many-connections", doctor.Error, loopback(portOf(db)))
	db.AdminExec(t, "ALTER ROLE poor_user CONNECTION LIMIT -1; ALTER DATABASE "+db.Name+" OWNER TO postgres; REVOKE CONNECT ON DATABASE "+db.Name+" FROM PUBLIC, poor_user")
	want(t, check(t, login(db, nil), nil), "connection/no-connect-privilege", doctor.Error, database(db.Name))
}

func TestEveryRefusalOfHBAIsTheSameToAStranger(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{})
	db := s.Database(t, pgtest.WithSetup(small))
	for _, line := range []string{"host all all all ident", "host all all all reject", "hostssl all all all scram-sha-256"} {
		s.SetHBA(t, line)
		want(t, check(t, login(db, nil), nil), "connection/login-refused", doctor.Error, role(db.User))
	}
	s.SetHBA(t, "local all all peer")
	socket := pgdb.Settings{"host": s.SocketDir}
	found := check(t, login(db, socket), nil)
	want(t, found, "connection/login-refused", doctor.Error, role(db.User))
	if !strings.Contains(found[0].Remedy, "peer") {
		t.Errorf("the remedy for the socket does not speak of peer: %s", found[0].Remedy)
	}
}

func TestOneAddressOfSeveral(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{HBA: []string{"host all all 127.0.0.1/32 scram-sha-256", "host all all ::1/128 reject"}})
	db := s.Database(t, pgtest.WithSetup(small))
	port, closed := portOf(db), closedPort(t)
	two := func(first, second string) pgdb.Settings {
		return login(db, pgdb.Settings{"host": "127.0.0.1,127.0.0.1", "port": first + "," + second})
	}
	want(t, check(t, two(closed, port), nil), "connection/address-fails", doctor.Info, loopback(closed))
	silent := portOfListener(listen(t))
	quiet := two(silent, port)
	quiet["connect_timeout"] = "2"
	want(t, check(t, quiet, nil), "connection/address-fails", doctor.Warning, loopback(silent))

	v6 := login(db, pgdb.Settings{"host": "db,db", "hostaddr": "::1,127.0.0.1"})
	found := check(t, v6, nil)
	if len(found) == 1 && found[0].Code == "connection/refused" {
		t.Skip("this machine has no ::1")
	}
	want(t, found, "connection/login-refused", doctor.Error, role(db.User)) // libpq stops where a server says no
	v6["hostaddr"] = "127.0.0.1,::1"
	want(t, check(t, v6, nil), "connection/address-fails", doctor.Warning, address("[::1]:"+port))
}

// german is a server that answers every login with one error, in another language.
func german(t *testing.T, sqlstate string) (port string) {
	t.Helper()
	l := listen(t)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			go refuse(conn, sqlstate)
		}
	}()
	return portOfListener(l)
}

func refuse(conn net.Conn, sqlstate string) {
	defer conn.Close()
	backend := pgproto3.NewBackend(conn, conn)
	for {
		message, err := backend.ReceiveStartupMessage()
		if err != nil {
			return
		}
		if _, ok := message.(*pgproto3.SSLRequest); ok {
			_, _ = conn.Write([]byte{'N'}) // a client that is gone reads nothing
			continue
		}
		backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: sqlstate, Message: "das Datenbanksystem mag nicht"})
		_ = backend.Flush()
		return
	}
}

func TestServersOfAnyLanguageAreUnderstood(t *testing.T) {
	for sqlstate, code := range map[string]string{
		"57P03": "connection/server-not-ready", "53300": "connection/too-many-connections", "XX000": "connection/server-error", "08P01": "connection/server-error",
	} {
		port := german(t, sqlstate)
		s := pgdb.Settings{"host": "127.0.0.1", "port": port, "user": "u", "dbname": "d", "password": "planted"}
		found := check(t, s, nil)
		want(t, found, code, doctor.Error, loopback(port))
		if len(found) == 1 && found[0].Evidence["sqlstate"] != sqlstate {
			t.Errorf("evidence: %v", found[0].Evidence)
		}
	}
}

func TestAStandbyIsNoPlaceForSynapse(t *testing.T) {
	s := pgtest.StartWith(t, pgtest.Config{})
	db, err := s.CreateDatabase(t.Context(), pgtest.WithSetup(small))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.DataDir, "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, check(t, login(db, nil), nil), "connection/standby", doctor.Error, database(db.Name))
}

func TestWhoseDatabaseItIs(t *testing.T) {
	s := pgtest.Start(t)
	for name, test := range map[string]struct {
		setup    string
		code     string
		severity doctor.Severity
	}{
		"empty":          {"SELECT 1;", "connection/not-synapse", doctor.Warning},
		"another's":      {"CREATE TABLE posts ();", "connection/not-synapse", doctor.Error},
		"another server": {small + "INSERT INTO users VALUES ('@zoe:other.example');", "connection/other-server-name", doctor.Error},
	} {
		t.Run(name, func(t *testing.T) {
			db := s.Database(t, pgtest.WithSetup(test.setup))
			want(t, check(t, login(db, nil), nil), test.code, test.severity, database(db.Name))
		})
	}
}

func TestADatabaseThatCouldNotBeLookedAtIsNotHealthy(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(small))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, host := range []string{"127.0.0.1", "127.0.0.1,127.0.0.1"} {
		d := &doctor.Database{Label: "main", Engine: doctor.Postgres, Meets: doctor.NeedsPostgresEntry, Settings: login(db, pgdb.Settings{"host": host})}
		err := Check.Run(ctx, &doctor.Target{Databases: []*doctor.Database{d}}, &recorder{})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", host, err)
		}
	}
}
