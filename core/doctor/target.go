package doctor

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// Target is what is examined: a homeserver's configuration, its databases and their replicas.
// It travels to a plugin inside the request, never through the environment or arguments.
type Target struct {
	RunID       string   // names this run in every database connection: synapse-doctor/RUN
	ServerName  string   // of the merged configuration; empty without one
	ConfigFiles []string // in the order in which they were merged; read them with core/synapse.Load
	Databases   []*Database
	Replicas    []*Database // from --replica
	// Admin is the administrator's connection, as it was given or found; nil when there is none. Whether it works, and
	// leads to a database's server, is for that database's Meets (NeedsAdmin) to say.
	Admin *Database
	Deep  bool // --deep: data may be read at length
	// DeepBudget is how long --deep may read; 0: as long as it takes. What it leaves out is named.
	DeepBudget time.Duration
	Writable   bool // true only while an approved operation is executed

	HBAFile       string // --hba-file: pg_hba.conf as this machine sees it
	SynapsePython string // --synapse-python: the Python that runs Synapse; empty: it is looked for
	SetPassword   bool   // --set-password: a password may be made where none is configured
	// SourceEncoding is --source-encoding: what the bytes of a database that is not in UTF8 are taken to be.
	SourceEncoding string

	// PostgresConfig is --postgres-config: the file whose database section a SQLite homeserver is moved to.
	PostgresConfig string
	SkipTables     []string // --skip-table: tables of the SQLite file that need not be moved
	// SynapseCommand is --synapse-command: what runs a program of Synapse's, such as docker exec -i synapse; empty: it is looked for.
	SynapseCommand string
	// Applying: a fix is about to be applied. What its operation looks at anyway need not be looked at before.
	Applying bool

	Machine Machine // of the database server, as far as the administrator has told
	// Thresholds are those that the administrator has set, by their id; see [Target.Threshold].
	Thresholds map[string]float64
	// Earlier is what the last recorded run, or the one that --since names, has measured.
	Earlier Earlier
}

// Threshold is the value of a threshold that the check has declared: the administrator's, or its default.
func (t *Target) Threshold(of Threshold) float64 {
	if v, ok := t.Thresholds[of.ID]; ok {
		return v
	}
	return of.Default
}

// Main is the database that holds the main data store: the only one of nearly every homeserver. Nil when there is none.
func (t *Target) Main() *Database {
	for _, d := range t.Databases {
		if d.Holds("main") {
			return d
		}
	}
	return nil
}

// Database returns the database entry with this label, or nil.
func (t *Target) Database(label string) *Database {
	for _, d := range t.Databases {
		if d.Label == label {
			return d
		}
	}
	return nil
}

// Meeting lists the databases that meet the needs, in the order of the configuration.
// A check loops over these; the engine says which databases it could not look at.
func (t *Target) Meeting(n Needs) []*Database {
	var met []*Database
	for _, d := range t.Databases {
		if d.Meets.Has(n &^ NeedsConfig) {
			met = append(met, d)
		}
	}
	return met
}

// AdminIn is the administrator's connection to the database of this entry. Nil without one to its server.
func (t *Target) AdminIn(d *Database) *Database {
	if t.Admin == nil || !d.Meets.Has(NeedsAdmin) {
		return nil
	}
	return t.Admin.in(d.Settings["dbname"])
}

// Close ends the sessions that were opened on the target's databases.
func (t *Target) Close() {
	for _, d := range t.all() {
		d.Close()
	}
}

func (t *Target) all() []*Database {
	all := append(append([]*Database{}, t.Databases...), t.Replicas...)
	if t.Admin != nil {
		all = append(all, t.Admin)
	}
	return all
}

// ReadOnly is the target as it is handed to a third party's check or plan: without the administrator's connection, and
// with logins whose sessions default to read-only transactions. That stops accidents, not an enemy.
func (t *Target) ReadOnly() *Target {
	out := t.copied()
	out.Databases, out.Replicas = readOnly(t.Databases), readOnly(t.Replicas)
	return out
}

// ForOperation is the target as it is handed to an approved operation.
func (t *Target) ForOperation() *Target {
	out := t.copied()
	out.Databases, out.Replicas, out.Admin, out.Writable = t.Databases, t.Replicas, t.Admin, true
	return out
}

// copied is the target without its databases.
func (t *Target) copied() *Target {
	return &Target{
		RunID: t.RunID, ServerName: t.ServerName, ConfigFiles: t.ConfigFiles, Deep: t.Deep, DeepBudget: t.DeepBudget,
		HBAFile: t.HBAFile, SynapsePython: t.SynapsePython, SetPassword: t.SetPassword, SourceEncoding: t.SourceEncoding,
		PostgresConfig: t.PostgresConfig, SkipTables: t.SkipTables, SynapseCommand: t.SynapseCommand, Applying: t.Applying,
		Machine: t.Machine, Thresholds: t.Thresholds, Earlier: t.Earlier,
	}
}

func readOnly(databases []*Database) []*Database {
	var out []*Database
	for _, d := range databases {
		settings := maps.Clone(d.Settings)
		if settings != nil {
			settings["options"] = strings.TrimSpace(settings["options"] + " -c default_transaction_read_only=on")
		}
		out = append(out, &Database{Label: d.Label, Engine: d.Engine, DataStores: d.DataStores, Meets: d.Meets &^ NeedsAdmin,
			Settings: settings, Path: d.Path, NoAdmin: "a plugin of a third party is handed none",
			OSUser: d.OSUser, SystemID: d.SystemID, DataDir: d.DataDir, runID: d.runID})
	}
	return out
}

// Engine is the kind of a database.
type Engine string

const (
	Postgres Engine = "postgres"
	SQLite   Engine = "sqlite"
)

// ParseEngine accepts the two words.
func ParseEngine(s string) (Engine, error) {
	switch e := Engine(s); e {
	case Postgres, SQLite:
		return e, nil
	}
	return "", fmt.Errorf("%q is not a database engine: postgres or sqlite", s)
}

// Database is one entry of the configuration's database or databases section.
type Database struct {
	Label      string // main, or the key under databases
	Engine     Engine
	DataStores []string // main, state, or both
	Meets      Needs    // what the engine found to hold of it

	// Settings are the libpq settings, resolved; nil for SQLite, and for a plugin that was not handed any.
	Settings pgdb.Settings
	// Path is the SQLite file.
	Path string

	// OSUser is the user of the operating system as whom the socket is connected to; empty: the process's own.
	OSUser string
	// NoAdmin says why there is no administrator's connection to its server; empty when Meets has NeedsAdmin.
	NoAdmin string
	// SystemID identifies its server (pg_control_system); empty when it could not be learnt.
	SystemID string
	// DataDir is its server's data directory, when that is on this machine and was found; SystemID is in it.
	DataDir string

	runID    string
	mu       sync.Mutex
	sessions *pgdb.Pool
	others   map[string]*Database // the same login to other databases of its server, by name
}

// Holds reports whether the entry carries the data store (main or state).
func (d *Database) Holds(store string) bool {
	for _, s := range d.DataStores {
		if s == store {
			return true
		}
	}
	return len(d.DataStores) == 0
}

// sessionsPerDatabase bounds how many connections one process of the doctor holds to one database.
// A homeserver in trouble may be short of them.
const sessionsPerDatabase = 2

// Read calls fn in a read-only, repeatable-read transaction of a session that is shared with the other checks.
// A failure to connect is a *pgdb.ConnectError.
func (d *Database) Read(ctx context.Context, fn func(pgx.Tx) error) error {
	if d.Engine != Postgres {
		return fmt.Errorf("database %q is %s, not PostgreSQL", d.Label, d.Engine)
	}
	if d.Settings == nil {
		return fmt.Errorf("database %q: no login was handed to this plugin", d.Label)
	}
	d.mu.Lock()
	if d.sessions == nil {
		d.sessions = pgdb.NewPool(d.Settings, d.Options(), sessionsPerDatabase)
	}
	pool := d.sessions
	d.mu.Unlock()
	return pool.Read(ctx, fn)
}

// Options are how the doctor opens a session of its own with the database's settings.
func (d *Database) Options() pgdb.Options {
	return pgdb.Options{ApplicationName: ApplicationName(d.runID), OSUser: d.OSUser}
}

// in is the same login to another database of the server.
func (d *Database) in(name string) *Database {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.others[name] == nil {
		if d.others == nil {
			d.others = map[string]*Database{}
		}
		settings := maps.Clone(d.Settings)
		settings["dbname"] = name
		d.others[name] = &Database{Label: d.Label, Engine: d.Engine, Settings: settings, OSUser: d.OSUser, runID: d.runID}
	}
	return d.others[name]
}

// Close ends the sessions that Read opened.
func (d *Database) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, other := range d.others {
		other.Close()
	}
	if d.sessions != nil {
		d.sessions.Close()
		d.sessions = nil
	}
}

// Where says, for people, which database this is: host, port and name, or the file; never a password.
func (d *Database) Where() string {
	if d.Engine == SQLite {
		return d.Path
	}
	name := d.Settings["dbname"]
	host, port := d.Settings["host"], d.Settings["port"]
	if host == "" {
		host = d.Settings["hostaddr"]
	}
	switch {
	case host == "":
		return fmt.Sprintf("database %q", name)
	case strings.HasPrefix(host, "/"):
		return fmt.Sprintf("database %q at the socket in %s, port %s", name, host, port)
	case strings.Contains(host, ","):
		return fmt.Sprintf("database %q at %s", name, host)
	}
	return fmt.Sprintf("database %q at %s", name, net.JoinHostPort(host, port))
}

// Bind gives every database of the target the run's name for its connections. The engine and the wire call it.
func (t *Target) Bind() {
	for _, d := range t.all() {
		d.Bind(t.RunID)
	}
}

// Bind gives the database the run's name for its connections.
func (d *Database) Bind(runID string) { d.runID = runID }

// ApplicationName is the application_name of every connection that the doctor and its plugins open in a run.
func ApplicationName(runID string) string {
	if runID == "" {
		runID = fmt.Sprint(os.Getpid())
	}
	return "synapse-doctor/" + runID
}
