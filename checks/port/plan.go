package port

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/port"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// The parameters of the operation.
const (
	paramFile    = "file"    // that is read
	paramReplace = "replace" // true: what Synapse's script has put into the tables goes
)

func plan(ctx context.Context, t *doctor.Target, findings []doctor.Finding) ([]doctor.Plan, error) {
	file, db := port.Pair(t)
	var plans []doctor.Plan
	if f, ok := fixable(findings, OnSQLite); ok && file != nil {
		plans = append(plans, walkPlan(install(t, file.Path), f))
	}
	if f, ok := fixable(findings, DirectoryFrozen); ok && db != nil {
		plans = append(plans, queuePlan(db.Label, f))
	}
	if file == nil || db == nil {
		return plans, nil
	}
	w, err := newWork(ctx, t, file, db)
	if err != nil {
		return nil, err
	}
	var due []doctor.FindingKey
	for _, code := range []string{NotPorted, Unfinished, FileChanged} {
		if f, ok := fixable(findings, code); ok {
			due = append(due, f.Key())
		}
	}
	if len(due) > 0 {
		plans = append(plans, w.copy(due))
	}
	if f, ok := fixable(findings, ScriptRemains); ok {
		plans = append(plans, w.keep(f), w.replace(f))
	}
	if f, ok := fixable(findings, StillOnSQLite); ok {
		p, err := w.switchOver(f)
		if err != nil {
			return nil, err
		}
		plans = append(plans, p)
	}
	return plans, nil
}

func fixable(findings []doctor.Finding, code string) (doctor.Finding, bool) {
	i := slices.IndexFunc(findings, func(f doctor.Finding) bool { return f.Code == code && f.Fixable })
	if i < 0 {
		return doctor.Finding{}, false
	}
	return findings[i], true
}

func walkPlan(i installation, f doctor.Finding) doctor.Plan {
	return doctor.Plan{
		ID: "port/walk", Covers: []doctor.FindingKey{f.Key()}, Title: "Move the homeserver to PostgreSQL, step by step",
		Risk: doctor.Safe, Expects: doctor.ExpectNone, Irreversible: "it is done by hand, and the SQLite file is not changed",
		Steps: i.manual(), Duration: speed(i.bytes), DiskBytes: i.bytes * most,
	}
}

// queuePlan fills the user directory again.
func queuePlan(label string, f doctor.Finding) doctor.Plan {
	names := "'" + strings.Join(populate, "', '") + "'"
	return doctor.Plan{
		ID: "port/queue-directory", Covers: []doctor.FindingKey{f.Key()}, Title: "Queue the background updates that fill the user directory",
		Risk: doctor.Careful, Expects: doctor.ExpectSynapse, Database: label, Reversible: true, UndoOnFailure: true,
		Steps: []doctor.Step{
			{Title: "Queue the four updates, each after the one before it", SQL: &doctor.SQLStep{
				Database: label, Mode: doctor.ModeAlone, Statement: populateStatement(), MaxRows: int64(len(populate)),
				Guard: &doctor.Guard{Query: "SELECT NOT EXISTS (SELECT FROM background_updates WHERE update_name IN (" + names + ")) AND EXISTS (SELECT FROM user_directory_stream_pos WHERE stream_id IS NULL)",
					Else: "The user directory is no longer frozen: somebody has mended it since."},
				Undo: []doctor.UndoSQL{{Statement: "DELETE FROM background_updates WHERE update_name IN (" + names + ")",
					Guard: &doctor.Guard{Query: "SELECT count(*) = 4 FROM background_updates WHERE update_name IN (" + names + ") AND progress_json = '{}'",
						Else: "Synapse has begun to fill the user directory."}}},
			}},
			{Title: "Restart Synapse", Manual: &doctor.ManualStep{Text: "Synapse looks for queued updates when it starts. Restart it, with Debian's package:\n    systemctl restart matrix-synapse"}},
		},
	}
}

// work is what the plans of a pair are made from.
type work struct {
	installation
	t        *doctor.Target
	sqlite   *doctor.Database
	db       *doctor.Database
	name     string // of the database
	hasTable bool   // Synapse's schema is there
	live     bool   // the file is the very one that homeserver.yaml names
	record   *port.Record
}

func newWork(ctx context.Context, t *doctor.Target, file, db *doctor.Database) (*work, error) {
	w := &work{installation: install(t, file.Path), t: t, sqlite: file, db: db, live: configuredFile(t, file.Path)}
	err := db.Read(ctx, func(tx pgx.Tx) (err error) {
		if err := tx.QueryRow(ctx, `SELECT current_database()::text, to_regclass('schema_version') IS NOT NULL`).Scan(&w.name, &w.hasTable); err != nil {
			return err
		}
		w.record, err = port.ReadRecord(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", db.Label, err)
	}
	w.seconds = learnt(w.record, w.bytes)
	return w, nil
}

// configuredFile reports whether homeserver.yaml names this very file.
func configuredFile(t *doctor.Target, path string) bool {
	entry := sqliteEntry(t)
	return entry != nil && sameFile(entry.SQLitePath(), path)
}

// sqliteEntry is the database of a configuration that is on SQLite.
func sqliteEntry(t *doctor.Target) *synapse.Entry {
	if len(t.ConfigFiles) == 0 {
		return nil
	}
	config, err := synapse.Load(t.ConfigFiles...)
	if err != nil {
		return nil
	}
	entry := config.Entry(synapse.MainLabel)
	if entry == nil || entry.Name != synapse.SQLite3 {
		return nil
	}
	return entry
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

const irreversible = "the SQLite file is not touched, and nothing else was in the database: to begin anew, drop the database and make it again"

func (w *work) copy(covers []doctor.FindingKey) doctor.Plan {
	title := fmt.Sprintf("Copy %s into the database %s, and prove every table equal", filepath.Base(w.file), w.name)
	p := w.base("port/copy", title, covers)
	p.Steps = append(p.Steps, w.rest()...)
	return p
}

func (w *work) base(id, title string, covers []doctor.FindingKey) doctor.Plan {
	p := doctor.Plan{
		ID: id, Covers: covers, Title: title, Risk: doctor.Careful, Expects: doctor.ExpectEmpty, Database: w.db.Label,
		Irreversible: irreversible, Resumes: true, Duration: w.seconds, DiskBytes: w.bytes * most,
		Steps: []doctor.Step{{Title: title, Operation: &doctor.OperationStep{
			Name: port.Port, Params: map[string]string{paramFile: w.file}, Effects: doctor.Effects{Databases: []string{w.name}},
			Statements: w.statements(), Stops: true,
			Resumes: "Interrupted at any moment, by the next run: what is stored it knows by hashes, in the schema synapse_doctor of the database. Tables that have changed in the file since are loaded anew, each in one transaction.",
		}}},
	}
	if p.Duration == 0 {
		p.Duration = speed(w.bytes)
	}
	if w.live {
		p.Requires = append(p.Requires, doctor.RequireStopped)
	}
	return p
}

// statements are what the operation runs, in order, as they are printed.
func (w *work) statements() []string {
	var out []string
	if !w.hasTable {
		out = append(out, "update_synapse_database --run-background-updates")
	}
	return append(out,
		"CREATE SCHEMA IF NOT EXISTS synapse_doctor",
		"DROP INDEX each index that is not unique; of a table with many rows, of which none is there yet, also those that are",
		"ALTER TABLE each table DROP CONSTRAINT each foreign key",
		"TRUNCATE each table that is loaded anew",
		"COPY each table (each column) FROM STDIN (FORMAT binary)",
		"INSERT INTO event_search SELECT …, to_tsvector('english', …) FROM unnest($1, …)",
		"CREATE INDEX each index, as it was; ALTER TABLE … ADD PRIMARY KEY or UNIQUE likewise",
		"ALTER TABLE each table ADD CONSTRAINT each foreign key, as it was",
		"DELETE FROM each table the rows whose parent is missing, into synapse_doctor.port_quarantine",
		"ANALYZE each table",
		"SELECT count(*), sum(hash_record_extended(ROW(each column), 0)) FROM ONLY each table",
		"SELECT setval(each sequence, the greatest number in use, true)",
		"UPDATE user_directory_stream_pos SET stream_id = NULL",
		"INSERT INTO background_updates the four updates populate_user_directory_*",
	)
}

// rest is what remains of the walk after the copy.
func (w *work) rest() []doctor.Step {
	var steps []step
	switch {
	case w.live && w.t.PostgresConfig != "":
		steps = w.after()
	case sqliteEntry(w.t) != nil && w.t.PostgresConfig != "": // the file is a snapshot
		walk := w.walk()
		for i, s := range walk {
			if strings.HasPrefix(s.title, "Stop") {
				steps = walk[i:]
			}
		}
	default:
		steps = []step{{"Start Synapse on PostgreSQL", "If this was a snapshot: stop Synapse first, and run this once more with the file itself, so that what has been written since comes too; it only takes as long as what has changed.\n" +
			"Then start Synapse with the configuration that has the PostgreSQL database section. With Debian's package:\n" + w.systemctl("start") +
			"\nKeep the SQLite file until you have seen it run for some days."}}
	}
	var out []doctor.Step
	for _, s := range steps {
		out = append(out, doctor.Step{Title: s.title, Manual: &doctor.ManualStep{Text: strings.TrimSpace(s.text)}})
	}
	return out
}

// keep is the plan for those who want to keep what Synapse's script has made.
func (w *work) keep(f doctor.Finding) doctor.Plan {
	return doctor.Plan{
		ID: "port/keep", Covers: []doctor.FindingKey{f.Key()}, Title: "Decide whether what Synapse's script has ported is kept",
		Risk: doctor.Safe, Expects: doctor.ExpectNone, Irreversible: "it is done by hand",
		Steps: []doctor.Step{{Title: "Keep it, or have it replaced", Manual: &doctor.ManualStep{Text: "Where Synapse runs on this database already, keep it: what the findings name is mended one by one, and what has come since would be lost with a new port.\n" +
			"Where Synapse still runs on SQLite, have everything that the script has copied replaced by a port that is proved equal:\n" +
			command(w.t, w.file, " --plan port/replace")}}},
	}
}

func (w *work) replace(f doctor.Finding) doctor.Plan {
	p := w.base("port/replace", fmt.Sprintf("Empty the tables that Synapse's script has filled in %s, copy %s into them and prove them equal", w.name, filepath.Base(w.file)), []doctor.FindingKey{f.Key()})
	p.Risk = doctor.Dangerous
	p.Irreversible = "what the script has copied is deleted; the SQLite file that it came from is not touched"
	p.Requires = []doctor.Requirement{doctor.RequireStopped}
	p.Steps[0].Operation.Params[paramReplace] = "true"
	p.Steps = append(p.Steps, w.rest()...)
	return p
}

// learnt is how long a port of a file of this size takes here; 0 where none was finished.
func learnt(r *port.Record, bytes int64) time.Duration {
	if r == nil || r.File.Size == 0 {
		return 0
	}
	total := r.Seconds["total"]
	if total == 0 {
		for _, s := range r.Seconds {
			total += s
		}
	}
	return time.Duration(total * float64(bytes) / float64(r.File.Size) * float64(time.Second))
}
