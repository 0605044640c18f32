package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

// DB is a database owned by an ordinary role that logs in with a password over TCP.
type DB struct {
	Server   *Server
	Name     string
	Host     string
	Port     int
	User     string
	Password string
}

// Option says how a database differs from an empty one in UTF8 and the locale C, owned by synapse_user.
type Option func(*options)

type options struct{ owner, create, setup, dump string }

// WithOwner names the role that owns the database and everything in it.
func WithOwner(role string) Option { return func(o *options) { o.owner = role } }

// WithCreate replaces the options of CREATE DATABASE: ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'.
func WithCreate(clauses string) Option { return func(o *options) { o.create = clauses } }

// WithSetup runs the script as the owner. It runs once; databases with the same script are clones.
func WithSetup(sql string) Option { return func(o *options) { o.setup += sql + "\n" } }

// WithDump restores a custom-format dump, once, before any script.
func WithDump(file string) Option { return func(o *options) { o.dump = file } }

// CreateDatabase makes a database. The roles and templates that it needs are made once for the server.
func (s *Server) CreateDatabase(ctx context.Context, opts ...Option) (*DB, error) {
	o := options{owner: "synapse_user", create: "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"}
	for _, opt := range opts {
		opt(&o)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	admin, err := pgx.Connect(ctx, s.Admin())
	if err != nil {
		return nil, err
	}
	defer admin.Close(ctx)
	password, err := s.role(ctx, admin, o.owner)
	if err != nil {
		return nil, err
	}
	s.cloned++
	db := &DB{Server: s, Name: fmt.Sprintf("synapse_%d", s.cloned), Host: s.Host, Port: s.Port, User: o.owner, Password: password}
	if o.setup == "" && o.dump == "" {
		return db, db.create(ctx, admin, "template0 "+o.create)
	}
	template, err := s.template(ctx, admin, db, o)
	if err != nil {
		return nil, err
	}
	return db, db.create(ctx, admin, template)
}

// create makes the database from a template, and whatever clauses follow its name.
func (db *DB) create(ctx context.Context, admin *pgx.Conn, template string) error {
	_, err := admin.Exec(ctx, fmt.Sprintf("CREATE DATABASE %s OWNER %s TEMPLATE %s", ident(db.Name), ident(db.User), template))
	if err != nil {
		return fmt.Errorf("create database %s: %w", db.Name, err)
	}
	return nil
}

func (s *Server) role(ctx context.Context, admin *pgx.Conn, name string) (password string, err error) {
	if password, ok := s.passwords[name]; ok {
		return password, nil
	}
	password = rand.Text()
	if _, err := admin.Exec(ctx, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", ident(name), password)); err != nil {
		return "", fmt.Errorf("create role %s: %w", name, err)
	}
	s.passwords[name] = password
	return password, nil
}

func (s *Server) template(ctx context.Context, admin *pgx.Conn, like *DB, o options) (string, error) {
	key := strings.Join([]string{o.owner, o.create, o.dump, o.setup}, "\x00")
	if name, ok := s.templates[key]; ok {
		return name, nil
	}
	t := *like
	t.Name = fmt.Sprintf("template_%d", s.cloned)
	if err := t.create(ctx, admin, "template0 "+o.create); err != nil {
		return "", err
	}
	if o.dump != "" {
		if err := t.restore(ctx, o.dump); err != nil {
			return "", err
		}
	}
	if o.setup != "" {
		if err := t.run(ctx, o.setup); err != nil {
			return "", fmt.Errorf("set-up script: %w", err)
		}
	}
	s.templates[key] = t.Name
	return t.Name, nil
}

// run executes a script as the owner, whatever pg_hba.conf lets the owner do.
func (db *DB) run(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, db.Server.adminTo(db.Name))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "SET SESSION AUTHORIZATION "+ident(db.User)); err != nil {
		return err
	}
	_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

func (db *DB) restore(ctx context.Context, dump string) error {
	s := db.Server
	major, err := s.major()
	if err != nil {
		return err
	}
	program, err := clientProgram("pg_restore", s.BinDir, major)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "--no-owner", "--no-privileges", "--role="+db.User,
		"--exit-on-error", "--host="+s.SocketDir, fmt.Sprintf("--port=%d", s.Port), "--username="+superuser, "--dbname="+db.Name, dump)
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_restore %s: %w\n%s", dump, err, out)
	}
	return nil
}

// Drop removes the database and ends whatever is connected to it.
func (db *DB) Drop(ctx context.Context) error {
	admin, err := pgx.Connect(ctx, db.Server.Admin())
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	_, err = admin.Exec(ctx, "DROP DATABASE IF EXISTS "+ident(db.Name)+" WITH (FORCE)")
	return err
}

// DSN is the owner's connection string, over TCP.
func (db *DB) DSN() string {
	return fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s", db.Host, db.Port, quote(db.User), db.Password, quote(db.Name))
}

// AdminDSN is the superuser's connection string to this database, over the socket.
func (db *DB) AdminDSN() string { return db.Server.adminTo(db.Name) }

// WriteHomeserver writes a homeserver.yaml that uses the database into dir, and returns its path.
func (db *DB) WriteHomeserver(dir string) (string, error) {
	path := filepath.Join(dir, "homeserver.yaml")
	text := fmt.Sprintf(`server_name: test.example
pid_file: %q
database:
  name: psycopg2
  args:
    user: %q
    password: %q
    dbname: %q
    host: %q
    port: %d
    cp_min: 1
    cp_max: 2
`, filepath.Join(dir, "homeserver.pid"), db.User, db.Password, db.Name, db.Host, db.Port)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

func ident(name string) string { return pgx.Identifier{name}.Sanitize() }
