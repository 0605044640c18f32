package locale

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestHowAReplicaDiffers(t *testing.T) {
	v := func(s string) *string { return &s }
	glibc := dbRow{Name: "d", Provider: "c", Collate: "en_US.UTF-8", Ctype: "en_US.UTF-8", Actual: v("2.36")}
	c := dbRow{Name: "d", Provider: "c", Collate: "C", Ctype: "C"}
	icu := dbRow{Name: "d", Provider: "i", Collate: "C", Ctype: "C", Locale: "en-US", Actual: v("153.80")}
	with := func(r dbRow, actual *string) dbRow { r.Actual = actual; return r }
	for name, tt := range map[string]struct {
		primary, replica dbRow
		version          int
		want             string
	}{
		"C on both":                    {c, c, 180000, ""},
		"the same library":             {glibc, glibc, 180000, ""},
		"another glibc":                {glibc, with(glibc, v("2.41")), 180000, "collation version 2.41, and 2.36 on the primary"},
		"musl":                         {glibc, with(glibc, nil), 180000, "collation version none, and 2.36 on the primary"},
		"unknown in PostgreSQL 14":     {glibc, with(glibc, nil), 140000, ""},
		"another glibc behind 14":      {glibc, with(glibc, v("2.41")), 140000, "collation version 2.41, and 2.36 on the primary"},
		"another ICU":                  {icu, with(icu, v("153.14")), 180000, "collation version 153.14, and 153.80 on the primary"},
		"another locale, as by copies": {c, glibc, 180000, "COLLATE en_US.UTF-8, CTYPE en_US.UTF-8, provider libc"},
		"another provider":             {c, icu, 180000, "COLLATE C, CTYPE C, provider icu with the locale en-US"},
	} {
		if got := strings.Join(tt.replica.differences(tt.primary, tt.version), "; "); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// replicaOf is what --replica gives.
func replicaOf(host string, port int, db *pgtest.DB) *doctor.Database {
	return &doctor.Database{Label: "replica", Engine: doctor.Postgres,
		Settings: pgdb.Settings{"host": host, "port": fmt.Sprint(port), "user": db.User, "password": db.Password, "dbname": db.Name}}
}

func TestReplicasAreComparedAndThoseThatNobodyNamedAreMentioned(t *testing.T) {
	primary := pgtest.StartWith(t, pgtest.Config{Locales: []string{"en_US.UTF-8"}, Settings: map[string]string{"wal_level": "logical", "max_wal_senders": "5"}})
	db := primary.Database(t)
	sound := db.Name

	t.Run("what is no replica", func(t *testing.T) {
		other := pgtest.Start(t)
		stranger := other.Database(t)
		target := targetOf(t, db)
		target.Replicas = []*doctor.Database{replicaOf(primary.Host, primary.Port, db), replicaOf(other.Host, other.Port, stranger), replicaOf("127.0.0.1", 1, db)}
		var c collector
		err := run(t.Context(), target, &c)
		if err == nil || !strings.Contains(err.Error(), "the replica 127.0.0.1:1 was not compared") || !errors.As(err, new(*pgdb.ConnectError)) {
			t.Errorf("error %v", err)
		}
		wants(t, c.found, fmt.Sprintf("locale/replica-differs warning replica %s:%d", primary.Host, primary.Port), fmt.Sprintf("locale/replica-differs warning replica %s:%d", other.Host, other.Port))
		if f := c.found[0]; !strings.Contains(f.Summary, "is the primary itself") || f.Database != "main" {
			t.Errorf("%+v", f)
		}
		if f := c.found[1]; !strings.Contains(f.Observed, "another system identifier") || !strings.Contains(f.Observed, "pg_is_in_recovery() is false") {
			t.Errorf("%+v", f)
		}
	})
	t.Run("no primary to compare with", func(t *testing.T) {
		target := targetOf(t, db)
		target.Databases[0].Settings["password"] = "wrong"
		target.Replicas = []*doctor.Database{replicaOf(primary.Host, primary.Port, db)}
		if err := run(t.Context(), target, &collector{}); err == nil || !strings.Contains(err.Error(), "no replica was compared") {
			t.Errorf("error %v", err)
		}
	})

	host, port := follow(t, primary)
	notCompared := "locale/replica-not-compared info database " + sound
	t.Run("a standby that nobody named", func(t *testing.T) {
		f := examined(t, targetOf(t, db), notCompared)[0]
		if f.Evidence["standbys whose names this role may not see"] != "1" || !strings.HasPrefix(f.Summary, "A standby streams") {
			t.Errorf("%+v", f)
		}
		target := targetOf(t, db)
		target.Databases[0].Meets |= doctor.NeedsAdmin
		target.Admin = &doctor.Database{Label: "admin", Engine: doctor.Postgres, Settings: pgdb.Settings{"host": primary.SocketDir, "port": fmt.Sprint(primary.Port), "user": "postgres", "dbname": "postgres"}}
		if f := examined(t, target, notCompared)[0]; f.Evidence["standbys"] != "walreceiver through a socket" {
			t.Errorf("%+v", f)
		}
	})
	t.Run("the standby", func(t *testing.T) {
		target := targetOf(t, db)
		target.Replicas = []*doctor.Database{replicaOf(host, port, db)}
		examined(t, target)
	})
	t.Run("another library under the standby", func(t *testing.T) {
		// The library of both is this machine's; what the primary has is told otherwise.
		target := targetOf(t, db)
		x := &replica{name: "standby"}
		c, err := lookInto(t.Context(), target.Databases[0])
		if err != nil {
			t.Fatal(err)
		}
		d := replicaOf(host, port, db)
		defer d.Close()
		if _, err := x.look(t.Context(), d, c, []*catalog{c}); err != nil {
			t.Fatal(err)
		}
		if f, differs := x.compare(c); differs {
			t.Errorf("%+v", f)
		}
		old, fresh := "153.14", "153.80"
		c.own.Provider, c.own.Actual = "i", &old
		x.row.Provider, x.row.Actual = "i", &fresh
		f, differs := x.compare(c)
		if !differs || f.Severity != doctor.Warning || !strings.Contains(f.Summary, "compares text in another way") {
			t.Errorf("%+v", f)
		}
	})
	t.Run("an unreachable one is counted among those that stream", func(t *testing.T) {
		target := targetOf(t, db)
		target.Replicas = []*doctor.Database{replicaOf("127.0.0.1", 1, db)}
		var c collector
		if err := run(t.Context(), target, &c); err == nil {
			t.Error("no error")
		}
		wants(t, c.found)
	})
}

// follow makes a standby of the server, which ends with the test: a server of its own, whose data directory is exchanged for a
// base backup of the primary.
func follow(t *testing.T, primary *pgtest.Server) (host string, port int) {
	t.Helper()
	program := filepath.Join(primary.BinDir, "pg_basebackup")
	if _, err := os.Stat(program); err != nil {
		t.Skip("this server has no pg_basebackup beside it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	standby := pgtest.StartWith(t, pgtest.Config{Locales: []string{"en_US.UTF-8"}})
	backup := standby.DataDir + ".backup"
	cmd := exec.CommandContext(t.Context(), program, "--pgdata="+backup, "--checkpoint=fast", "--write-recovery-conf", "--no-sync",
		"--host="+primary.SocketDir, fmt.Sprintf("--port=%d", primary.Port), "--username=postgres")
	cmd.Dir = standby.SocketDir
	if info, err := os.Stat(standby.DataDir); err != nil {
		t.Fatal(err)
	} else if owner := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	stop(t, standby) // or it would write its last word into the new directory
	conf, err := os.OpenFile(filepath.Join(backup, "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(conf, "unix_socket_directories = '%s'\n", standby.SocketDir)
	if err := errors.Join(err, conf.Close(), os.Rename(standby.DataDir, standby.DataDir+".old"), os.Rename(backup, standby.DataDir), standby.Restart(ctx)); err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(ctx, primary.Admin())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	for streams := false; !streams; time.Sleep(10 * time.Millisecond) {
		if err := admin.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')`).Scan(&streams); err != nil {
			t.Fatal(err)
		}
	}
	return standby.Host, standby.Port
}

// stop ends the server and returns when it has ended.
func stop(t *testing.T, s *pgtest.Server) {
	t.Helper()
	path := filepath.Join(s.DataDir, "postmaster.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		time.Sleep(10 * time.Millisecond)
		_, err = os.Stat(path)
	}
}
