package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
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
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"

	_ "modernc.org/sqlite"
)

func ownServerCommand(_ *testscript.TestScript, s *scene, _ []string) error {
	// Nothing but a statement writes WAL: no vacuum, no snapshots for standbys, no hint bits.
	s.server = pgtest.StartWith(s.t, pgtest.Config{Sound: true, Settings: map[string]string{
		"wal_level": "minimal", "max_wal_senders": "0", "wal_log_hints": "off", "checkpoint_timeout": "1d",
	}})
	s.own = true
	s.secrets = append(s.secrets, s.server.Password)
	return nil
}

func hbaCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if !s.own {
		return errors.New("pg_hba.conf is changed on an ownserver only")
	}
	s.server.SetHBA(s.t, args...)
	ts.Setenv("hba", filepath.Join(s.server.DataDir, "pg_hba.conf"))
	return nil
}

var planting sync.Mutex

func newDBCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "NAME fixture|empty|synapse|ported"); err != nil {
		return err
	}
	var opts []pgtest.Option
	switch args[1] {
	case "fixture":
		opts = append(opts, pgtest.WithSetup(pgtest.Fixture()))
	case "synapse":
		opts = append(opts, pgtest.WithDump(filepath.Join(pgtest.Data(s.t), "synapse_empty.dump")))
	case "ported":
		opts = append(opts, pgtest.WithDump(filepath.Join(pgtest.Data(s.t), "synapse_ported.dump")))
	}
	if len(args) > 2 {
		opts = append(opts, pgtest.WithCreate(args[2]))
	}
	db := s.server.Database(s.t, opts...)
	planting.Lock() // two at the same time change the same row
	defer planting.Unlock()
	if err := s.admin(db, fmt.Sprintf(`ALTER ROLE %s PASSWORD '%s'`, db.User, strings.ReplaceAll(plantedPassword, "'", "''"))); err != nil {
		return err
	}
	db.Password = plantedPassword
	s.dbs[args[0]] = db
	s.names = append(s.names, args[0])
	ts.Setenv(args[0]+"_name", db.Name)
	ts.Setenv(args[0]+"_host", db.Host)
	ts.Setenv(args[0]+"_port", strconv.Itoa(db.Port))
	ts.Setenv(args[0]+"_socket", db.Server.SocketDir)
	if s.own {
		// The first reader after a load prunes pages and sets hint bits: let that be done.
		return s.admin(db, `VACUUM (FREEZE, ANALYZE); CHECKPOINT`)
	}
	return nil
}

func (s *scene) db(name string) (*pgtest.DB, error) {
	if db := s.dbs[name]; db != nil {
		return db, nil
	}
	return nil, fmt.Errorf("there is no database %q", name)
}

// login connects as Synapse does.
func login(ctx context.Context, db *pgtest.DB) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", db.Host, db.Port, db.User, db.Name))
	if err != nil {
		return nil, err
	}
	c.Password = db.Password
	return pgx.ConnectConfig(ctx, c)
}

func (s *scene) admin(db *pgtest.DB, statements string) error {
	ctx := context.Background()
	c, err := pgx.Connect(ctx, db.AdminDSN())
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for statement := range strings.SplitSeq(statements, ";") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := c.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// exec runs statements as the owner, in a session that has ended when it returns.
func (s *scene) exec(name, statements string) error {
	db, err := s.db(name)
	if err != nil {
		return err
	}
	return s.admin(db, "SET SESSION AUTHORIZATION "+db.User+";"+statements)
}

func sqlCommand(_ *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "DB SQL"); err != nil {
		return err
	}
	return s.exec(args[0], args[1])
}

func adminSQLCommand(_ *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "DB SQL"); err != nil {
		return err
	}
	db, err := s.db(args[0])
	if err != nil {
		return err
	}
	return s.admin(db, args[1])
}

func queryCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "DB SQL"); err != nil {
		return err
	}
	db, err := s.db(args[0])
	if err != nil {
		return err
	}
	ctx := context.Background()
	c, err := pgx.Connect(ctx, db.AdminDSN())
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	rows, err := c.Query(ctx, args[1])
	if err != nil {
		return err
	}
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return err
		}
		fmt.Fprintln(ts.Stdout(), values...)
	}
	return rows.Err()
}

func sessionCommand(_ *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "DB open|close"); err != nil {
		return err
	}
	db, err := s.db(args[0])
	if err != nil {
		return err
	}
	if args[1] == "open" {
		s.sessions[args[0]], err = login(context.Background(), db)
		return err
	}
	if err := s.sessions[args[0]].Close(context.Background()); err != nil {
		return err
	}
	delete(s.sessions, args[0])
	return s.alone(db)
}

// alone waits until the server has noticed that everybody has left the database.
func (s *scene) alone(db *pgtest.DB) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := pgx.Connect(ctx, db.Server.Admin())
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for {
		var busy bool
		if err := c.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1)`, db.Name).Scan(&busy); err != nil || !busy {
			return err
		}
	}
}

// silence is a port that takes connections and never answers.
type silence struct {
	net.Listener
	came chan net.Conn
}

func silenceCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "NAME"); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	h := &silence{l, make(chan net.Conn, 100)}
	go func() {
		defer close(h.came)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.came <- c
		}
	}()
	s.silences[args[0]] = h
	ts.Setenv(args[0]+"_port", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	return nil
}

func (l *silence) Close() {
	l.Listener.Close()
	for c := range l.came {
		c.Close()
	}
}

// awaitCommand waits for a connection, and says by a packet of the protocol that it was one of PostgreSQL's.
func awaitCommand(_ *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "NAME"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case c := <-s.silences[args[0]].came:
		s.t.Cleanup(func() { c.Close() })
		_, err := c.Read(make([]byte, 1))
		return err
	case <-ctx.Done():
		return errors.New("nobody came")
	}
}

// soundArgs are what a homeserver.yaml without a fault says of its database.
func soundArgs(db *pgtest.DB) map[string]string {
	return map[string]string{
		"user": db.User, "password": db.Password, "dbname": db.Name, "host": db.Host, "port": strconv.Itoa(db.Port),
		"cp_min": "1", "cp_max": "2", "keepalives": "1", "keepalives_idle": "10", "keepalives_interval": "10", "keepalives_count": "3",
	}
}

func homeserverCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "FILE DB"); err != nil {
		return err
	}
	db, err := s.db(args[1])
	if err != nil {
		return err
	}
	settings := soundArgs(db)
	for _, arg := range args[2:] {
		k, v, _ := strings.Cut(arg, "=")
		settings[k] = v
	}
	var text strings.Builder
	fmt.Fprintf(&text, "server_name: test.example\npid_file: %q\n", filepath.Join(s.dir, "homeserver.pid"))
	fmt.Fprintf(&text, "macaroon_secret_key: %q\nregistration_shared_secret: %q\n", plantedKey, plantedKey)
	text.WriteString("database:\n  name: psycopg2\n  args:\n")
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		v := settings[k]
		if v == "" {
			continue
		}
		if _, err := strconv.Atoi(v); err != nil {
			v = strconv.Quote(v)
		}
		fmt.Fprintf(&text, "    %s: %s\n", k, v)
	}
	return os.WriteFile(ts.MkAbs(args[0]), []byte(text.String()), 0o600)
}

func fillCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "FILE DB"); err != nil {
		return err
	}
	db, err := s.db(args[1])
	if err != nil {
		return err
	}
	other := ""
	if len(args) > 2 {
		second, err := s.db(args[2])
		if err != nil {
			return err
		}
		other = second.Name
	}
	text := strings.NewReplacer("{{other}}", other, "{{user}}", db.User, "{{password}}", strconv.Quote(db.Password), "{{dbname}}", db.Name,
		"{{host}}", db.Host, "{{port}}", strconv.Itoa(db.Port), "{{key}}", plantedKey).Replace(ts.ReadFile(args[0]))
	return os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600)
}

// adminDSNCommand writes the superuser's connection string, with its password, into one of the administrator's files.
func adminDSNCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "FILE DB"); err != nil {
		return err
	}
	db, err := s.db(args[1])
	if err != nil {
		return err
	}
	return os.WriteFile(ts.MkAbs(args[0]), []byte(db.AdminDSN()), 0o600)
}

func sqliteCommand(ts *testscript.TestScript, _ *scene, args []string) error {
	if err := need(args, "FILE SQL"); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	if err != nil {
		return err
	}
	_, err = db.Exec(args[1])
	return errors.Join(err, db.Close())
}

func homeserverDBCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "FILE"); err != nil {
		return err
	}
	return os.Rename(pgtest.SQLite(s.t), ts.MkAbs(args[0]))
}

// tlsCommand gives the server a certificate of its own making. With hostssl in hba it takes nothing else over TCP.
func tlsCommand(_ *testscript.TestScript, s *scene, _ []string) error {
	if !s.own {
		return errors.New("TLS is for an ownserver only")
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	s.server.WriteFile(s.t, "server.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	s.server.WriteFile(s.t, "server.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	c, err := pgx.Connect(s.t.Context(), s.server.Admin())
	if err != nil {
		return err
	}
	defer c.Close(context.Background())
	if _, err := c.Exec(s.t.Context(), `ALTER SYSTEM SET ssl = on`); err != nil {
		return err
	}
	s.server.Reload(s.t)
	return nil
}

// Before and after ---------------------------------------------------------------------------------------------------

func snapshotCommand(ts *testscript.TestScript, s *scene, _ []string) (err error) {
	s.snapshot, err = s.everything()
	return err
}

func unchangedCommand(_ *testscript.TestScript, s *scene, args []string) error {
	now, err := s.everything()
	if err != nil {
		return err
	}
	var changed []string
	for name := range now {
		if was, ok := s.snapshot[name]; !ok || was != now[name] {
			changed = append(changed, fmt.Sprintf("%s\n  was %.300q\n  is  %.300q", name, was, now[name]))
		}
	}
	for name := range s.snapshot {
		if _, ok := now[name]; !ok {
			changed = append(changed, name+" is gone")
		}
	}
	changed = slices.DeleteFunc(changed, func(c string) bool {
		// A refused fix may leave its journal: unchanged state but it.
		return slices.Contains(args, "-state") && strings.HasPrefix(c, filepath.Join(s.dir, "state"))
	})
	if len(changed) > 0 {
		slices.Sort(changed)
		return fmt.Errorf("changed:\n%s", strings.Join(changed, "\n"))
	}
	return nil
}

// everything is all that a check could have written to: each file with its metadata, each database as text.
func (s *scene) everything() (map[string]string, error) {
	all := map[string]string{}
	err := filepath.Walk(s.dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%s %d:%d %d %s ", info.Mode(), stat.Uid, stat.Gid, stat.Ino, info.ModTime())
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += string(content)
		}
		all[path] = text
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, name := range s.names {
		db := s.dbs[name]
		if all["database "+name], err = dump(db); err != nil {
			return nil, err
		}
	}
	if s.own {
		c, err := pgx.Connect(context.Background(), s.server.Admin())
		if err != nil {
			return nil, err
		}
		defer c.Close(context.Background())
		var lsn string
		if err := c.QueryRow(context.Background(), `SELECT pg_current_wal_insert_lsn()::text`).Scan(&lsn); err != nil {
			return nil, err
		}
		all["write-ahead log"] = lsn
	}
	return all, nil
}

func dump(db *pgtest.DB) (string, error) {
	cmd := exec.Command(filepath.Join(db.Server.BinDir, "pg_dump"), "--host="+db.Server.SocketDir, "--port="+strconv.Itoa(db.Port),
		"--username=postgres", "--dbname="+db.Name)
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("pg_dump %s: %w\n%s", db.Name, err, out)
	}
	lines := strings.Split(string(out), "\n")
	// Newer releases guard a dump with a random word.
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool {
		return strings.HasPrefix(l, `\restrict `) || strings.HasPrefix(l, `\unrestrict `)
	}), "\n"), nil
}

// onlyAddedCommand wants the second file to hold every byte of the first, and one addition in one place.
func onlyAddedCommand(ts *testscript.TestScript, _ *scene, args []string) error {
	if err := need(args, "BEFORE AFTER"); err != nil {
		return err
	}
	before, after := ts.ReadFile(args[0]), ts.ReadFile(args[1])
	head := 0
	for head < len(before) && head < len(after) && before[head] == after[head] {
		head++
	}
	tail := 0
	for tail < len(before)-head && tail < len(after)-head && before[len(before)-1-tail] == after[len(after)-1-tail] {
		tail++
	}
	if head+tail != len(before) || len(after) == len(before) {
		return fmt.Errorf("more than one addition:\n%s\n---\n%s", before, after)
	}
	return nil
}
