package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Config says how a cluster differs from the usual one.
type Config struct {
	// Version is the major version wanted (15); empty for the newest installed.
	Version string
	// Settings go to postgresql.conf.
	Settings map[string]string
	// Sound: with the settings of a server that nobody would complain about, at the price of speed; see [Server.MakeSound].
	Sound bool
	// HBA replaces the lines of pg_hba.conf. The superuser's way in through the socket is always kept.
	// Without it, the socket trusts everyone and TCP asks for a password.
	HBA []string
	// Ident is the lines of pg_ident.conf.
	Ident []string
	// InitdbArgs are added to initdb's arguments; the last of a kind wins.
	InitdbArgs []string
	// Shared: [EachMajor] and [StartWith] start the server once for all the tests of this binary whose Config is the same. None may change
	// anything outside databases of its own.
	Shared bool
	// Locales are compiled for this server alone, in UTF-8: en_US.UTF-8. Databases can then be made in them.
	Locales []string
}

// Server is a running cluster.
type Server struct {
	Host      string // 127.0.0.1; it also listens on ::1 where the machine has it
	Port      int
	SocketDir string
	Password  string // of the superuser postgres
	BinDir    string
	DataDir   string
	LogFile   string

	dir     string
	account *account
	lock    *os.File
	process *process
	locales string // LOCPATH; empty for the machine's own

	mu        sync.Mutex
	passwords map[string]string // of the ordinary roles, by name
	templates map[string]string // databases to clone, by what they were made from
	cloned    int
}

const superuser = "postgres"

// New makes a cluster and starts it. The caller ends it with Close; if it dies without that, the server goes with it.
func New(ctx context.Context, c Config) (*Server, error) {
	bin, err := BinDir(ctx, c.Version)
	if err != nil {
		return nil, err
	}
	acct, err := serverAccount()
	if err != nil {
		return nil, err
	}
	s := &Server{
		Host: "127.0.0.1", Password: rand.Text(), BinDir: bin, account: acct,
		passwords: map[string]string{}, templates: map[string]string{},
	}
	if err := s.create(ctx, c); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) create(ctx context.Context, c Config) error {
	if err := s.makeDir(); err != nil {
		return err
	}
	if err := s.makeLocales(ctx, c.Locales); err != nil {
		return err
	}
	if err := s.initdb(ctx, c); err != nil {
		return err
	}
	var err error
	// Between choosing a free port and the server's listening on it, another process may take it.
	for range 3 {
		if s.Port, err = freePort(); err != nil {
			return err
		}
		if err = s.start(ctx); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// longestBase leaves room for "/pgtest-1234567890/.s.PGSQL.65535" in the 107 bytes of a socket's path.
const longestBase = 70

// makeDir makes the cluster's directory, and removes those that killed processes have left behind.
func (s *Server) makeDir() error {
	base := os.TempDir()
	if len(base) > longestBase {
		base = "/tmp"
	}
	sweep(base)
	dir, err := os.MkdirTemp(base, "pgtest-")
	if err != nil {
		return err
	}
	s.dir, s.SocketDir, s.DataDir, s.LogFile = dir, dir, filepath.Join(dir, "data"), filepath.Join(dir, "log")
	// Locked under another name first: a sweep never sees an owner.lock that nobody holds yet.
	unlocked := filepath.Join(dir, "owner.new")
	if s.lock, err = os.Create(unlocked); err != nil {
		return err
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := os.Rename(unlocked, filepath.Join(dir, lockName)); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // other users of the machine may be let in through the socket
		return err
	}
	return s.account.give(dir)
}

const lockName = "owner.lock"

// command prepares one of the server's programs.
func (s *Server) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := s.account.command(ctx, s.dir, filepath.Join(s.BinDir, program), args...)
	if s.locales != "" {
		cmd.Env = append(cmd.Env, "LOCPATH="+s.locales)
	}
	return cmd
}

func (s *Server) adminConn(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.Admin())
}

// sweep removes the directories whose owner no longer holds its lock.
func sweep(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, "pgtest-*")) // a strange base has nothing to sweep
	for _, dir := range dirs {
		f, err := os.Open(filepath.Join(dir, lockName))
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(dir) // another user's stays
		}
		f.Close()
	}
}

func (s *Server) initdb(ctx context.Context, c Config) error {
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte(s.Password+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(secret)
	if err := s.account.give(secret); err != nil {
		return err
	}
	args := []string{"--pgdata=" + s.DataDir, "--username=" + superuser, "--pwfile=" + secret, "--encoding=UTF8", "--locale=C",
		"--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync"}
	initdb := s.command(ctx, "initdb", append(args, c.InitdbArgs...)...)
	out, err := initdb.CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	listen := "127.0.0.1"
	if hasIPv6() {
		listen += ",::1"
	}
	settings := map[string]string{
		"listen_addresses": listen, "unix_socket_directories": s.SocketDir,
		"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
		"shared_buffers": "16MB", "max_connections": "50", "log_statement": "none",
		// On, as a sound server has it, and yet it never wakes while a test looks.
		"autovacuum": "on", "autovacuum_naptime": "2147483",
	}
	if c.Sound {
		maps.Copy(settings, soundSettings)
	}
	maps.Copy(settings, c.Settings)
	var conf strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	if err := appendFile(filepath.Join(s.DataDir, "postgresql.conf"), conf.String()); err != nil {
		return err
	}
	if c.HBA != nil {
		if err := s.writeHBA(c.HBA); err != nil {
			return err
		}
	}
	if c.Ident != nil {
		return appendFile(filepath.Join(s.DataDir, "pg_ident.conf"), strings.Join(c.Ident, "\n")+"\n")
	}
	return nil
}

func (s *Server) writeHBA(lines []string) error {
	text := "local all " + superuser + " trust\n" + strings.Join(lines, "\n") + "\n"
	return os.WriteFile(filepath.Join(s.DataDir, "pg_hba.conf"), []byte(text), 0o600)
}

// soundSettings are what an administrator keeps and most tests do without. They take effect with a reload.
var soundSettings = map[string]string{"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// start runs the server and returns when it answers.
func (s *Server) start(ctx context.Context) error {
	log, err := os.OpenFile(s.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	// The server outlives the context it was started under: Close ends it.
	cmd := s.command(context.WithoutCancel(ctx), "postgres", "-D", s.DataDir, "-p", strconv.Itoa(s.Port))
	cmd.Stdout, cmd.Stderr = log, log
	if s.process, err = start(cmd); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	for {
		conn, err := pgx.Connect(ctx, s.Admin())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.process.exited:
			return fmt.Errorf("postgres ended: %w\n%s", s.process.err, s.Log())
		case <-ctx.Done():
			s.stop()
			return fmt.Errorf("postgres did not answer: %w; %w\n%s", ctx.Err(), err, s.Log())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *Server) stop() {
	if s.process != nil {
		s.process.stop(20 * time.Second)
	}
}

// Restart stops the server and starts it again on the same port, so that changed files in DataDir count.
func (s *Server) Restart(ctx context.Context) error {
	s.stop()
	return s.start(ctx)
}

// Close stops the server and removes all that is left of it. It may be called twice.
func (s *Server) Close() {
	s.stop()
	if s.dir != "" {
		_ = os.RemoveAll(s.dir) // what cannot be removed is swept by the next run
	}
	if s.lock != nil {
		s.lock.Close()
	}
}

func (s *Server) major() (int, error) {
	text, err := os.ReadFile(filepath.Join(s.DataDir, "PG_VERSION"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// Log is what the server has written so far.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.LogFile)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Admin is the superuser's connection string. It uses the socket, which works whatever pg_hba.conf says.
func (s *Server) Admin() string { return s.adminTo("postgres") }

func (s *Server) adminTo(database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable", s.SocketDir, s.Port, superuser, s.Password, quote(database))
}

// quote makes s a value in a connection string.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// freePort finds a port that nobody listens on, at either loopback address: a server that gets only one of them goes on
// with a warning.
func freePort() (int, error) {
	for range 20 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if !hasIPv6() {
			return port, nil
		}
		if l, err = net.Listen("tcp6", net.JoinHostPort("::1", strconv.Itoa(port))); err == nil {
			l.Close()
			return port, nil
		}
	}
	return 0, errors.New("no port is free at both 127.0.0.1 and ::1")
}

var hasIPv6 = sync.OnceValue(func() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
})
