package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// targetFlags say what is to be examined.
type targetFlags struct {
	configs  []string
	sqlite   string
	adminDSN string
	hbaFile  string
	python   string
	replicas []string
	deep     bool
	budget   time.Duration
	encoding string
	port     portFlags
	skip     []string
	timeout  time.Duration
	stateDir string
	plugins  pluginFlags
	machine  machineFlags
	verbose  bool
}

func (t *targetFlags) register(f *pflag.FlagSet) {
	f.StringArrayVarP(&t.configs, "config", "c", nil, "Synapse's configuration, a `PATH` of a file or a directory; may be repeated, and is merged as Synapse does (default: the usual places)")
	f.StringVar(&t.sqlite, "sqlite", "", "also examine the SQLite database in `FILE`, a snapshot say; a port reads it")
	f.StringVar(&t.adminDSN, "admin-dsn", "", "an administrator's connection `DSN` to the PostgreSQL server, or @FILE that holds it; a password goes into PGPASSFILE or that file, never here (default: $SYNAPSE_DOCTOR_ADMIN_DSN, else as root or the server's own user the server's socket; none: do without)")
	f.StringVar(&t.hbaFile, "hba-file", "", "the server's pg_hba.conf as this machine sees it, a `FILE`, where the server is in a container")
	f.StringVar(&t.python, "synapse-python", "", "the `PYTHON` that runs Synapse, an interpreter or a virtualenv (default: it is looked for)")
	f.StringArrayVar(&t.replicas, "replica", nil, "the `DSN` of a replica, or @FILE that holds it; may be repeated")
	f.StringArrayVar(&t.skip, "skip", nil, "leave out a `CHECK`; may be repeated")
	f.BoolVar(&t.deep, "deep", false, "read data too, which may take long")
	f.DurationVar(&t.budget, "deep-budget", 0, "end --deep after this `TIME`; what is left out is named, and makes the check unknown (default: as long as it takes)")
	f.StringVar(&t.encoding, "source-encoding", "", "what the bytes of a database in SQL_ASCII are taken to be when it is rebuilt, an `ENCODING` such as latin1 (default: UTF8, and anything else is an error)")
	f.DurationVar(&t.timeout, "timeout", time.Minute, "give up on a check after this `TIME` (with --deep: never, unless given)")
	f.StringVar(&t.stateDir, "state-dir", "", "where the journal, locks and backups are kept (default: $SYNAPSE_DOCTOR_STATE_DIR, /var/lib/synapse-doctor for root, else $XDG_STATE_HOME/synapse-doctor)")
	t.port.register(f)
	t.plugins.register(f)
	t.machine.register(f)
	f.BoolVarP(&t.verbose, "verbose", "v", false, "more detail, and what the plugins log")
}

// assembled is a target with what belongs beside it.
type assembled struct {
	target   *doctor.Target
	pidFiles []string
	redactor *doctor.Redactor
	timeout  time.Duration
}

// assemble reads the configuration and makes the target of it. It connects to nothing.
func (t *targetFlags) assemble(f *pflag.FlagSet) (*assembled, error) {
	a := &assembled{target: &doctor.Target{Deep: t.deep, RunID: engine.NewRunID(time.Now())}, timeout: t.timeout}
	if t.timeout < 0 {
		return nil, errors.New("--timeout must not be negative")
	}
	if t.budget < 0 || t.budget > 0 && !t.deep {
		return nil, errors.New("--deep-budget is a time longer than nothing, and goes with --deep")
	}
	if t.deep && !f.Changed("timeout") {
		a.timeout = 0
	}
	a.target.DeepBudget, a.target.SourceEncoding = t.budget, t.encoding
	var err error
	if a.target.Machine, err = t.machine.machine(); err != nil {
		return nil, err
	}
	var secrets, public []string
	config, err := t.load()
	if err != nil {
		return nil, err
	}
	files := config
	if config, err = t.port.merge(config, a.target); err != nil {
		return nil, err
	}
	if config != nil {
		a.pidFiles = config.PIDFiles
		a.target.ServerName = config.ServerName
		for _, file := range files.Files {
			absolute, err := filepath.Abs(file)
			if err != nil {
				return nil, fmt.Errorf("find %s: %w", file, err)
			}
			a.target.ConfigFiles = append(a.target.ConfigFiles, absolute)
		}
		secrets = config.Secrets()
		public = append(public, config.ServerName)
		for _, entry := range config.Databases {
			d, err := database(entry)
			if err != nil {
				return nil, &synapse.ConfigError{File: entry.File, Line: entry.Line, Msg: err.Error()}
			}
			d.OSUser = socketUser(d, config)
			a.target.Databases = append(a.target.Databases, d)
		}
	}
	file := t.sqlite
	if file == "" && files != nil && config != files {
		file = sqlitePath(files)
	}
	if file != "" {
		d := &doctor.Database{Label: "main", Engine: doctor.SQLite, Path: file, DataStores: []string{"main", "state"}}
		if len(a.target.Databases) > 0 {
			d.Label, d.DataStores = "sqlite", []string{"sqlite"}
		}
		a.target.Databases = append(a.target.Databases, d)
	}
	if t.hbaFile != "" {
		if a.target.HBAFile, err = filepath.Abs(t.hbaFile); err != nil {
			return nil, fmt.Errorf("--hba-file: %w", err)
		}
		if _, err := os.Stat(t.hbaFile); err != nil {
			return nil, fmt.Errorf("--hba-file: %w", err)
		}
	}
	a.target.SynapsePython = t.python
	if dsn := t.admin(); dsn != "" && dsn != noAdmin {
		if a.target.Admin, err = fromDSN("--admin-dsn", dsn); err != nil {
			return nil, err
		}
	}
	for _, dsn := range t.replicas {
		d, err := fromDSN("--replica", dsn)
		if err != nil {
			return nil, err
		}
		a.target.Replicas = append(a.target.Replicas, d)
	}
	for _, d := range append(append([]*doctor.Database{a.target.Admin}, a.target.Databases...), a.target.Replicas...) {
		if d != nil && d.Settings != nil {
			secrets = append(secrets, d.Settings["password"], d.Settings["sslpassword"])
			public = append(public, d.Settings["user"], d.Settings["dbname"], d.Settings["host"])
		}
	}
	a.redactor = doctor.NewRedactor(secrets, public)
	return a, nil
}

// load reads the configuration that was named, or that stands in one of the usual places. Without any, a SQLite file
// alone can still be examined.
func (t *targetFlags) load() (*synapse.Config, error) {
	paths := t.configs
	if len(paths) == 0 {
		paths, _ = synapse.Places{}.Find()
	}
	if len(paths) == 0 {
		if t.sqlite != "" {
			return nil, nil
		}
		return nil, errors.New("no homeserver.yaml in the usual places (/etc/matrix-synapse, /data, ~/synapse and the working directory): say where it is with -c PATH")
	}
	return synapse.Load(paths...)
}

// database makes a target of one entry of the configuration.
func database(entry synapse.Entry) (*doctor.Database, error) {
	d := &doctor.Database{Label: entry.Label, Engine: doctor.SQLite, DataStores: entry.DataStores, Path: entry.SQLitePath()}
	if entry.Name != synapse.Psycopg2 {
		return d, nil
	}
	d.Engine, d.Path = doctor.Postgres, ""
	settings, err := pgdb.FromArgs(entry.Args)
	if err != nil {
		return nil, err
	}
	if d.Settings, err = settings.Resolve(); err != nil {
		return nil, err
	}
	return d, nil
}

// admin is the administrator's connection string; empty when one is to be looked for.
func (t *targetFlags) admin() string {
	return cmp.Or(t.adminDSN, os.Getenv("SYNAPSE_DOCTOR_ADMIN_DSN"))
}

// noAdmin is the --admin-dsn of who wants no administrator's connection to be looked for.
const noAdmin = "none"

// socketUser is the user of the system as whom root connects to a socket in Synapse's place, since a peer record lets in
// nobody else: the owner of Synapse's files, or the one that packages make. It is empty for other users and for TCP.
func socketUser(d *doctor.Database, config *synapse.Config) string {
	host := d.Settings["host"]
	if os.Geteuid() != 0 || d.Engine != doctor.Postgres || host != "" && !strings.HasPrefix(host, "/") {
		return ""
	}
	for _, file := range slices.Concat(config.PIDFiles, config.Files) {
		if info, err := os.Stat(file); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 {
				return strconv.Itoa(int(stat.Uid))
			}
		}
	}
	for _, name := range []string{"matrix-synapse", "synapse"} {
		if u, err := user.Lookup(name); err == nil {
			return u.Uid
		}
	}
	return ""
}

// fromDSN reads a connection string from the command line, where every user of the machine can read it.
func fromDSN(flag, dsn string) (*doctor.Database, error) {
	file, isFile := strings.CutPrefix(dsn, "@")
	if isFile {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
		dsn = strings.TrimSpace(string(text))
	}
	settings, err := pgdb.Parse(dsn)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	if !isFile && settings.HasSecret() {
		return nil, fmt.Errorf("%s must not hold a password or a key, since every user of this machine can read a command line: put it into PGPASSFILE, or the whole string into a file and write %s @FILE", flag, flag)
	}
	if settings, err = settings.Resolve(); err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return &doctor.Database{Label: strings.TrimPrefix(flag, "--"), Engine: doctor.Postgres, Settings: settings}, nil
}

// state is the directory of the journal.
func (t *targetFlags) state() (string, error) {
	if t.stateDir != "" {
		return t.stateDir, nil
	}
	if dir := os.Getenv("SYNAPSE_DOCTOR_STATE_DIR"); dir != "" {
		return dir, nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/synapse-doctor", nil
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the state directory: %w: give --state-dir", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "synapse-doctor"), nil
}

// repeated are the flags that a command suggested in a report needs to examine the same target.
func (t *targetFlags) repeated() []string {
	var flags []string
	for _, c := range t.configs {
		flags = append(flags, "-c", c)
	}
	if t.sqlite != "" {
		flags = append(flags, "--sqlite", t.sqlite)
	}
	if t.adminDSN != "" {
		flags = append(flags, "--admin-dsn", t.adminDSN)
	}
	if t.hbaFile != "" {
		flags = append(flags, "--hba-file", t.hbaFile)
	}
	if t.python != "" {
		flags = append(flags, "--synapse-python", t.python)
	}
	for _, r := range t.replicas {
		flags = append(flags, "--replica", r)
	}
	flags = append(flags, t.port.repeated()...)
	flags = append(flags, t.machine.repeated()...)
	flags = append(flags, t.plugins.repeated()...)
	if t.stateDir != "" {
		flags = append(flags, "--state-dir", t.stateDir)
	}
	return flags
}
