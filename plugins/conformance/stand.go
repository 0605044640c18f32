package conformance

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// stand is the homeserver that plugins are handed: its configuration and its database, or, where there is no PostgreSQL, an
// address that nothing listens at.
type stand struct {
	dir        string // of its files
	config     string // homeserver.yaml
	sqlite     string // an empty SQLite database
	serverName string
	settings   pgdb.Settings // of a database that answers; nil: there is none
	without    string        // why there is none
	synapse    bool          // it holds Synapse's schema
	password   string        // of settings, and of every other login that is handed over
	secrets    *doctor.Redactor

	own   *pgtest.Server
	watch *pgx.Conn // sees whether anybody writes
	first string    // the next transaction that changes anything, before any plugin ran
	noisy bool      // others write as well
}

const howToGive = "--dsn gives a database for tests, on a server that nobody else uses"

// newStand makes it. Its server lives as long as ctx.
func newStand(ctx context.Context, o Options) (*stand, error) {
	s := &stand{serverName: "test.example", password: "planted-" + rand.Text()}
	if err := s.make(ctx, o); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stand) make(ctx context.Context, o Options) (err error) {
	switch {
	case o.DSN != nil:
		s.settings = maps.Clone(o.DSN)
		err = s.open(ctx, s.settings)
	case o.NoServer:
		s.without = "no PostgreSQL was given"
	default:
		err = s.makeServer(ctx)
	}
	if err != nil {
		return err
	}
	if s.settings != nil {
		// A server that asks for no password takes the planted one.
		s.password = cmp.Or(s.settings["password"], s.password)
		s.settings["password"] = s.password
	}
	s.secrets = doctor.NewRedactor([]string{s.password}, nil)
	if err := s.listen(ctx); err != nil {
		return err
	}
	return s.makeFiles()
}

func (s *stand) makeServer(ctx context.Context) error {
	var err error
	if s.own, err = pgtest.New(ctx, pgtest.Config{}); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.without = "no PostgreSQL server could be made (" + clip(err.Error()) + ")"
		if errors.Is(err, pgtest.ErrNoServer) {
			s.without = "no PostgreSQL server programs are installed"
		}
		return nil
	}
	db, err := s.own.CreateDatabase(ctx, pgtest.WithSetup(pgtest.Fixture()))
	if err != nil {
		return fmt.Errorf("make a database: %w", err)
	}
	if s.settings, err = pgdb.Parse(db.DSN()); err != nil {
		return err
	}
	admin, err := pgdb.Parse(db.AdminDSN())
	if err != nil {
		return err
	}
	return s.open(ctx, admin)
}

// open connects, and learns whose database it is.
func (s *stand) open(ctx context.Context, settings pgdb.Settings) (err error) {
	if s.watch, err = pgdb.Connect(ctx, settings, pgdb.Options{ApplicationName: "synapse-doctor/plugin-test"}); err != nil {
		return fmt.Errorf("connect to the database for tests: %w", err)
	}
	if err := s.watch.QueryRow(ctx, `SELECT to_regclass('public.schema_version') IS NOT NULL AND to_regclass('public.users') IS NOT NULL`).Scan(&s.synapse); err != nil {
		return fmt.Errorf("look at the database for tests: %w", err)
	}
	if s.synapse {
		var user string
		err := s.watch.QueryRow(ctx, `SELECT name FROM public.users WHERE name LIKE '@%:%' LIMIT 1`).Scan(&user)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("look at the database for tests: %w", err)
		}
		if _, server, ok := strings.Cut(user, ":"); ok {
			s.serverName = server
		}
	}
	return nil
}

// makeFiles writes what a homeserver has beside its database.
func (s *stand) makeFiles() (err error) {
	if s.dir, err = os.MkdirTemp("", "synapse-doctor-plugin-test-"); err != nil {
		return err
	}
	for _, name := range []string{"home", "tmp", "etc"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
			return err
		}
	}
	s.sqlite = filepath.Join(s.dir, "etc", "homeserver.db")
	if err := os.WriteFile(s.sqlite, nil, 0o600); err != nil { // SQLite takes it for a database without tables
		return err
	}
	settings := s.settings
	if settings == nil {
		settings = s.login("127.0.0.1:1")
	}
	s.config = filepath.Join(s.dir, "etc", "homeserver.yaml")
	return os.WriteFile(s.config, []byte(homeserver(s.serverName, settings)), 0o600)
}

// homeserver is a homeserver.yaml. JSON's strings are YAML's.
func homeserver(serverName string, settings pgdb.Settings) string {
	var b strings.Builder
	word := func(s string) string { text, _ := json.Marshal(s); return string(text) }
	fmt.Fprintf(&b, "server_name: %s\ndatabase:\n  name: psycopg2\n  args:\n", word(serverName))
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "    %s: %s\n", key, word(settings[key]))
	}
	return b.String()
}

// login is the login of a database at an address, with the planted password.
func (s *stand) login(address string) pgdb.Settings {
	host, port, _ := net.SplitHostPort(address)
	return pgdb.Settings{"host": host, "port": port, "user": "synapse_user", "dbname": "synapse", "password": s.password, "sslmode": "disable", "gssencmode": "disable"}
}

// target is what a check is handed: the database that answers, or none.
func (s *stand) target(checks []doctor.CheckInfo) *doctor.Target {
	if s.settings != nil {
		return s.targetAt(s.settings, s.synapse, checks)
	}
	return s.refusing(checks)
}

// refusing is a target whose database nothing answers for.
func (s *stand) refusing(checks []doctor.CheckInfo) *doctor.Target {
	return s.targetAt(s.login("127.0.0.1:1"), true, checks) // port 1 is nobody's
}

func (s *stand) targetAt(settings pgdb.Settings, synapse bool, checks []doctor.CheckInfo) *doctor.Target {
	meets := doctor.NeedsConfig | doctor.NeedsPostgresEntry | doctor.NeedsPostgres
	if synapse {
		meets |= doctor.NeedsSynapse
	}
	t := &doctor.Target{
		RunID: "plugin-test", ServerName: s.serverName, ConfigFiles: []string{s.config},
		Databases: []*doctor.Database{{Label: "main", Engine: doctor.Postgres, DataStores: []string{"main", "state"}, Meets: meets, Settings: settings}},
	}
	if slices.ContainsFunc(checks, func(c doctor.CheckInfo) bool { return c.Needs.Has(doctor.NeedsSQLite) }) {
		t.Databases = append(t.Databases, &doctor.Database{Label: "sqlite", Engine: doctor.SQLite, DataStores: []string{"sqlite"},
			Meets: doctor.NeedsConfig | doctor.NeedsSQLite, Path: s.sqlite})
	}
	return t.ReadOnly()
}

// listen remembers where the server stands, and whether others write to it.
func (s *stand) listen(ctx context.Context) (err error) {
	if s.watch == nil {
		return nil
	}
	if s.first, err = s.next(ctx); err != nil || s.own != nil {
		return err
	}
	select {
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	now, err := s.next(ctx)
	s.noisy = now != s.first
	return err
}

// next is the number of the next transaction that changes anything: whoever writes, or locks a row, moves it on.
func (s *stand) next(ctx context.Context) (number string, err error) {
	if err = s.watch.QueryRow(ctx, `SELECT pg_snapshot_xmax(pg_current_snapshot())::text`).Scan(&number); err != nil {
		err = fmt.Errorf("look whether anything was written: %w", err)
	}
	return number, err
}

func (s *stand) close() {
	if s == nil {
		return
	}
	if s.watch != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.watch.Close(ctx)
	}
	if s.own != nil {
		s.own.Close()
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}
