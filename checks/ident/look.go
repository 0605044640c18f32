package ident

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// seen is all that was learnt of the ways into one database.
type seen struct {
	target   *doctor.Target
	database *doctor.Database
	ways     []way

	asked  bool   // the administrator's connection answered; otherwise only what stands in files is known
	server server // what it said
	role   role
	own    bool   // the password is the configuration's, and not of whoever runs the doctor
	rules  *rules // nil when they could not be read
	local  string // the path of pg_hba.conf on this machine, proved to be the server's; empty when it is not here
	proven string // the data directory that proved it
	blind  string // why rules is nil
}

// server is what the administrator's connection says of the server.
type server struct {
	major   int
	ssl     bool
	hbaFile string
	loaded  time.Time // when new connections last got new rules
	changed time.Time // of the newest of the files
	newest  string    // which that is
	differs string    // what the server reads otherwise than we do
}

// role is Synapse's, as the administrator sees it.
type role struct {
	exists, canLogin, expired bool
	validUntil                string
	hashSeen                  bool // the administrator may read pg_authid
	hash                      pgdb.HashKind
	fits                      bool // the configured password is the role's
	damaged                   error
}

// look asks. Without an administrator's connection, and where Synapse gets in, there is nothing that it may see.
func look(ctx context.Context, t *doctor.Target, d *doctor.Database) (*seen, error) {
	if d.Settings == nil {
		return nil, errors.New("no login was handed to this plugin")
	}
	admin := d.Meets.Has(doctor.NeedsAdmin)
	if !admin && t.Admin != nil {
		return nil, errors.New(d.NoAdmin) // one was asked for
	}
	if !admin && d.Meets.Has(doctor.NeedsPostgres) {
		return nil, doctor.Skip("Synapse's role can log in, and nobody else may look at what decides that: %s", d.NoAdmin)
	}
	s := &seen{target: t, database: d, asked: admin}
	var err error
	if s.own, err = ownPassword(t, d); err != nil {
		return nil, err
	}
	if s.ways, err = ways(ctx, d); err != nil {
		return nil, err
	}
	if !admin {
		return s, s.readFiles()
	}
	if err := s.ask(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// ownPassword reports whether the password stands in Synapse's configuration, or in a file that it names. One that the
// doctor's own environment or home directory gives need not be Synapse's.
func ownPassword(t *doctor.Target, d *doctor.Database) (bool, error) {
	if len(t.ConfigFiles) == 0 {
		return d.Settings["password"] != "", nil
	}
	config, err := synapse.Load(t.ConfigFiles...)
	if err != nil {
		return false, err
	}
	entry := config.Entry(d.Label)
	if entry == nil {
		return false, fmt.Errorf("the configuration has no database %s", d.Label)
	}
	args, err := pgdb.FromArgs(entry.Args)
	if err != nil {
		return false, err
	}
	return d.Settings["password"] != "" && (args["password"] != "" || args["passfile"] != "" || args["service"] != ""), nil
}

const serverQuery = `SELECT current_setting('server_version_num')::int / 10000, current_setting('ssl') = 'on',
  coalesce((SELECT setting FROM pg_settings WHERE name = 'hba_file'), ''), pg_conf_load_time()`

const roleQuery = `SELECT rolcanlogin, rolvaliduntil IS NOT NULL AND rolvaliduntil < now(), coalesce(rolvaliduntil::text, 'infinity')
  FROM pg_roles WHERE rolname = $1`

const hashQuery = `SELECT coalesce(rolpassword, '') FROM pg_authid WHERE rolname = $1`

// ask reads everything over the administrator's connection: it sees the files that the server sees, wherever that is.
func (s *seen) ask(ctx context.Context) error {
	err := s.target.Admin.Read(ctx, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, serverQuery).Scan(&s.server.major, &s.server.ssl, &s.server.hbaFile, &s.server.loaded); err != nil {
			return fmt.Errorf("ask the server for its settings: %w", err)
		}
		if err := s.askRole(ctx, tx); err != nil {
			return err
		}
		return s.askRules(ctx, tx)
	})
	if notAllowed(err) {
		s.blind = fmt.Sprintf("the administrator's role may not read pg_hba.conf: it takes a superuser (%v)", err)
		return nil
	}
	if err != nil {
		return err
	}
	for i := range s.ways {
		if err := s.decide(ctx, &s.ways[i]); err != nil {
			return err
		}
	}
	return s.findLocal()
}

// notAllowed is SQLSTATE insufficient_privilege.
func notAllowed(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "42501"
}

func (s *seen) askRole(ctx context.Context, tx pgx.Tx) error {
	name := s.database.Settings["user"]
	err := tx.QueryRow(ctx, roleQuery, name).Scan(&s.role.canLogin, &s.role.expired, &s.role.validUntil)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the role %s: %w", name, err)
	}
	s.role.exists = true
	var stored string
	// In a transaction of its own: a refusal must not end the one that asks on.
	err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, hashQuery, name).Scan(&stored) })
	if notAllowed(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look how the password of %s is kept: %w", name, err)
	}
	s.role.hashSeen, s.role.hash = true, pgdb.KindOfHash(stored)
	if password := s.database.Settings["password"]; s.own {
		s.role.fits, s.role.damaged = pgdb.PasswordFits(password, name, stored)
	}
	return nil
}

// askRules reads pg_hba.conf through the server, and compares with what the server makes of it.
func (s *seen) askRules(ctx context.Context, tx pgx.Tx) (err error) {
	s.rules, err = parse(s.server.hbaFile, s.server.major, serverFiles(ctx, tx))
	if err != nil {
		return err
	}
	query := viewQuery
	if s.server.major < 16 {
		query = viewQueryBefore16
	}
	rows, err := tx.Query(ctx, query)
	if err != nil {
		return fmt.Errorf("ask for pg_hba_file_rules: %w", err)
	}
	view, err := pgx.CollectRows(rows, pgx.RowToStructByPos[viewRow])
	if err != nil {
		return fmt.Errorf("ask for pg_hba_file_rules: %w", err)
	}
	s.server.differs = s.rules.compare(view)
	for _, file := range s.rules.Files {
		var changed *time.Time
		if err := tx.QueryRow(ctx, `SELECT modification FROM pg_stat_file($1, true)`, file).Scan(&changed); err != nil {
			return fmt.Errorf("ask when %s was changed: %w", file, err)
		}
		if changed != nil && changed.After(s.server.changed) {
			s.server.changed, s.server.newest = *changed, file
		}
	}
	return nil
}

// serverFiles reads files on the server's machine.
func serverFiles(ctx context.Context, tx pgx.Tx) files {
	missing := func(err error) error {
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "58P01" {
			return os.ErrNotExist
		}
		return err
	}
	return files{
		Read: func(path string) (content []byte, err error) {
			err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
				return tx.QueryRow(ctx, `SELECT pg_read_binary_file($1)`, path).Scan(&content)
			})
			return content, missing(err)
		},
		List: func(dir string) (names []string, err error) {
			err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
				rows, err := tx.Query(ctx, `SELECT n FROM pg_ls_dir($1) n WHERE NOT (pg_stat_file($1 || '/' || n)).isdir`, dir)
				if err == nil {
					names, err = pgx.CollectRows(rows, pgx.RowTo[string])
				}
				return err
			})
			return names, missing(err)
		},
	}
}

// decide finds the records that decide about a way.
func (s *seen) decide(ctx context.Context, w *way) error {
	w.tls = encryptions(s.database.Settings, w.endpoint, s.server.ssl)
	var world world
	if s.asked {
		if w.unsure != "" {
			s.askClient(ctx, w)
		}
		world = s.world(ctx)
	}
	for _, tls := range w.tls {
		p := path{Database: s.database.Settings["dbname"], User: s.database.Settings["user"], Addr: w.client, TLS: tls}
		w.decisions = append(w.decisions, s.rules.match(p, world))
	}
	return ctx.Err()
}

// askClient lets the server say how it sees this machine, where the administrator's connection takes the same way.
func (s *seen) askClient(ctx context.Context, w *way) {
	endpoints, err := s.target.Admin.Settings.Endpoints(ctx)
	if err != nil || len(endpoints) != 1 || endpoints[0].Addr != w.endpoint.Addr {
		return
	}
	var client netip.Addr
	err = s.target.Admin.Read(ctx, func(tx pgx.Tx) (err error) {
		client, err = clientAddress(ctx, tx)
		return err
	})
	if err == nil && client.IsValid() {
		w.client, w.unsure = client, ""
	}
}

const memberQuery = `WITH RECURSIVE within AS (
    SELECT oid FROM pg_roles WHERE rolname = $1
    UNION SELECT m.roleid FROM pg_auth_members m JOIN within w ON m.member = w.oid)
  SELECT EXISTS (SELECT FROM within JOIN pg_roles USING (oid) WHERE rolname = $2)`

func (s *seen) world(ctx context.Context) world {
	ask := func(query string, args ...any) (is bool, err error) {
		err = s.target.Admin.Read(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, query, args...).Scan(&is) })
		return is, err
	}
	w := world{
		Member: func(user, role string) (bool, error) { return ask(memberQuery, user, role) },
		Regexp: func(pattern, subject string) (bool, error) {
			return ask(`SELECT $2::text COLLATE "C" ~ $1::text`, pattern, subject)
		},
	}
	if s.database.DataDir != "" { // the server has this machine's interfaces and names
		w.Networks, w.Hostname = networks(), hostname(ctx)
	}
	return w
}

func networks() []netip.Prefix {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var list []netip.Prefix
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			addr, ok := netip.AddrFromSlice(n.IP)
			if bits, _ := n.Mask.Size(); ok {
				list = append(list, netip.PrefixFrom(addr.Unmap(), bits))
			}
		}
	}
	return list
}

func hostname(ctx context.Context) func(netip.Addr) (string, bool, error) {
	return func(addr netip.Addr) (string, bool, error) {
		names, err := net.DefaultResolver.LookupAddr(ctx, addr.String())
		if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound || err == nil && len(names) == 0 {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
		name := strings.TrimSuffix(names[0], ".")
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
			return name, false, nil
		}
		for _, a := range addrs {
			if a.Unmap() == addr {
				return name, true, nil
			}
		}
		return name, false, err
	}
}

// findLocal finds pg_hba.conf on this machine. It is the server's when the system identifier in its data directory is.
func (s *seen) findLocal() error {
	path, dir := s.server.hbaFile, s.database.DataDir
	if s.target.HBAFile != "" {
		path, dir = s.target.HBAFile, filepath.Dir(s.target.HBAFile)
		if s.target.HBAFile == s.server.hbaFile && s.database.DataDir != "" {
			dir = s.database.DataDir
		}
	}
	if dir == "" {
		return nil
	}
	if id, err := pgdb.SystemID(dir); err != nil || id != s.database.SystemID {
		if s.target.HBAFile != "" {
			return fmt.Errorf("--hba-file %s is not shown to be the file of the server behind %s: the data directory beside it would hold the same system identifier", path, s.database.Where())
		}
		return nil
	}
	if !sameOwner(path, dir) {
		return nil
	}
	s.local, s.proven = path, dir
	for _, file := range s.rules.Files { // the server gives whole seconds
		if info, err := os.Stat(file); err == nil && s.database.DataDir != "" && info.ModTime().After(s.server.changed) {
			s.server.changed, s.server.newest = info.ModTime(), file
		}
	}
	return nil
}

// sameOwner reports whether a file is there and belongs to whom the data directory does. The path comes from the server, and
// a server of a stranger's could name any file.
func sameOwner(file, dir string) bool {
	f, err := os.Stat(file)
	if err != nil {
		return false
	}
	d, err := os.Stat(dir)
	if err != nil {
		return false
	}
	a, ok := f.Sys().(*syscall.Stat_t)
	b, ok2 := d.Sys().(*syscall.Stat_t)
	return ok && ok2 && a.Uid == b.Uid
}

// readFiles reads pg_hba.conf itself, where no administrator's connection is to be had but the files are in reach.
func (s *seen) readFiles() error {
	path, dir := s.target.HBAFile, s.database.DataDir
	if path == "" && dir != "" {
		path = hbaFileOf(dir)
	}
	if path == "" {
		s.blind = s.database.NoAdmin
		return nil
	}
	if dir == "" {
		dir = filepath.Dir(path)
	}
	text, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err != nil {
		s.blind = fmt.Sprintf("%s; and the version of the server whose file %s is could not be read: %v", s.database.NoAdmin, path, err)
		return nil
	}
	if s.server.major, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, "PG_VERSION"), err)
	}
	s.rules, err = parse(path, s.server.major, localFiles)
	if err != nil {
		s.rules, s.blind = nil, fmt.Sprintf("%s; and %v", s.database.NoAdmin, err)
		return nil
	}
	s.server.hbaFile = path
	for i := range s.ways {
		if err := s.decide(context.Background(), &s.ways[i]); err != nil {
			return err
		}
	}
	return nil
}

var localFiles = files{
	Read: os.ReadFile,
	List: func(dir string) ([]string, error) {
		entries, err := os.ReadDir(dir)
		var names []string
		for _, e := range entries {
			if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && !info.IsDir() {
				names = append(names, e.Name())
			}
		}
		return names, err
	},
}

// hbaFileOf is where a server keeps pg_hba.conf: with its configuration, which Debian has elsewhere than its data.
func hbaFileOf(dataDir string) string {
	config := filepath.Join(dataDir, "postgresql.conf")
	if opts, err := os.ReadFile(filepath.Join(dataDir, "postmaster.opts")); err == nil {
		for _, option := range strings.Split(string(opts), `"`) {
			if file, ok := strings.CutPrefix(option, "hba_file="); ok {
				return file
			}
			if file, ok := strings.CutPrefix(option, "config_file="); ok {
				config = file
			}
		}
	}
	path := filepath.Join(dataDir, "pg_hba.conf")
	text, err := os.ReadFile(config)
	if err != nil {
		return path
	}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(line, "=")
		if !ok || strings.TrimSpace(name) != "hba_file" {
			continue
		}
		if _, rest, ok := strings.Cut(value, "'"); ok {
			if value, _, ok = strings.Cut(rest, "'"); ok {
				path = value
				if !filepath.IsAbs(path) {
					path = filepath.Join(dataDir, path)
				}
			}
		}
	}
	return path
}
