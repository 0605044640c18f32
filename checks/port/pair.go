package port

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/port"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// pair is a SQLite file and the PostgreSQL database that it is ported to.
type pair struct {
	t    *doctor.Target
	file *doctor.Database
	db   *doctor.Database
	r    doctor.Reporter

	source *source
	target *target
	record *port.Record
	match  *port.Match // nil while the target has no schema
	needed []string    // that --skip-table names, and that can't be left behind
	// refusal is why a run of the port would refuse the target; for one that Synapse's script has filled, why it would even
	// where that is to be replaced.
	refusal string
	written *port.WrittenError // since the port was complete; nil: nothing
	found   []doctor.Finding
}

// both examines a pair: before a port, between two runs, or after it.
func both(ctx context.Context, t *doctor.Target, file, db *doctor.Database, r doctor.Reporter) error {
	if !db.Meets.Has(doctor.NeedsPostgres) {
		return doctor.SkipFailed("no connection to %s", db.Where())
	}
	x := &pair{t: t, file: file, db: db, r: r}
	var err error
	if x.source, err = readSource(ctx, file.Path, t.ServerName); err != nil {
		return unreadable(file.Path, err)
	}
	err = db.Read(ctx, func(tx pgx.Tx) error {
		if x.target, err = readTarget(ctx, tx, t.ServerName); err != nil {
			return err
		}
		if err = x.readBoth(ctx, tx); err != nil {
			return err
		}
		if !x.target.Record {
			return nil
		}
		if x.record, err = port.ReadRecord(ctx, tx); err != nil || x.record == nil {
			return err
		}
		return x.look(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("database %s: %w", db.Label, err)
	}
	switch {
	case x.record == nil && x.target.Script:
		err = x.script(ctx)
	case x.record == nil:
		err = x.before(ctx)
	case !x.record.Complete():
		x.unfinished()
	default:
		err = x.after(ctx)
	}
	return err
}

// readBoth reads what takes the file and the target together.
func (x *pair) readBoth(ctx context.Context, tx pgx.Tx) error {
	f, err := sqlitedb.Open(ctx, x.file.Path)
	if err != nil {
		return unreadable(x.file.Path, err)
	}
	defer f.Close()
	h, err := port.ReadHomeserver(ctx, f, x.t.ServerName)
	if err == nil {
		_, err = port.Admit(ctx, tx, f, h, x.target.Script)
	}
	if u, ok := errors.AsType[*doctor.UnchangedError](err); ok {
		x.refusal = u.Reason
	} else if err != nil {
		return err
	}
	if !x.target.id.HasSchema {
		return nil
	}
	if x.match, err = port.ReadMatch(ctx, tx, f); err == nil {
		x.needed = x.match.Skip(x.t.SkipTables)
	}
	return err
}

// find reports a fault, and remembers it.
func (x *pair) find(findings ...doctor.Finding) {
	for _, f := range findings {
		if f.Database == "" {
			f.Database = x.db.Label
		}
		if f.Object.Kind == "file" && f.Object.Name == x.source.path {
			f.Database = x.file.Label
		}
		x.found = append(x.found, f)
		x.r.Find(f)
	}
}

// standing finds what stands in the way of a port.
func (x *pair) standing(began bool) {
	x.find(judgeSource(x.source, x.t.ServerName)...)
	x.schemas()
	x.find(judgeTarget(x.target, x.t.ServerName, began)...)
	x.refused(began)
	x.find(inUse(x.target)...)
	if !began {
		x.find(judgeRoom(measure(x.db, x.target, x.source), x.target)...)
	}
}

// schemas finds where the tables of the two sides are not the same.
func (x *pair) schemas() {
	if x.match == nil {
		return
	}
	differ := judgeSchemas(x.source, x.target)
	x.find(differ...)
	x.find(judgeSkipped(x.needed)...)
	if len(differ) == 0 { // tables and columns follow from that
		x.find(judgeColumns(x.match.Unequal, x.target)...)
		x.find(judgeModules(x.match.OnlySource, "PostgreSQL")...)
	}
}

// refused says what a run of the port would refuse the target for, where nothing that was found has said it.
func (x *pair) refused(began bool) {
	said := slices.ContainsFunc(x.found, func(f doctor.Finding) bool { return f.Code == Other || f.Code == TargetNotEmpty })
	if x.refusal == "" || said {
		return
	}
	code, expected := TargetNotEmpty, "an empty database, or a fresh schema of Synapse"
	if began {
		code, expected = Other, "a port of the same homeserver"
	}
	x.find(doctor.Finding{
		Code: code, Severity: doctor.Error, Object: doctor.Object{Kind: "database", Name: x.target.name},
		Summary: "Nothing is ported: " + x.refusal + ".", Observed: x.refusal, Expected: expected,
		Remedy: "Give the right SQLite file with --sqlite, or name a database in the configuration that is empty. \"synapse-doctor fix database\" prints how it is made.",
	})
}

// toBePorted is the finding that the plan of a copy answers.
func (x *pair) toBePorted(code string, severity doctor.Severity, summary, observed, expected string) {
	f := doctor.Finding{
		Code: code, Severity: severity, Database: x.db.Label, Object: doctor.Object{Kind: "database", Name: x.target.name},
		Summary: summary, Observed: observed, Expected: expected, Fixable: !blocked(x.found),
		Remedy: "Let the doctor copy it:\n\n" + command(x.t, x.source.path, ""),
	}
	if !f.Fixable {
		f.Remedy = "See to the errors first that this check has found beside it. Then let the doctor copy it:\n\n" + command(x.t, x.source.path, "")
	}
	x.find(f)
}

func (x *pair) before(ctx context.Context) error {
	x.standing(false)
	if x.target.id.ForeignUser != "" || x.target.occupied() != "" {
		if x.target.id.ForeignUser == "" && x.t.Deep && x.match != nil {
			return x.compare(ctx)
		}
		return nil
	}
	err := x.scan(ctx)
	x.toBePorted(NotPorted, doctor.Warning,
		fmt.Sprintf("%s has not been ported into the PostgreSQL database %s yet.", x.source.path, x.target.name),
		fmt.Sprintf("%s in SQLite, nothing of it in PostgreSQL", size(x.source.bytes)), "every table equal on both sides")
	return err
}

// look compares what was proved equal with what is there. On PostgreSQL 14, and after a crash, the server's counters don't
// tell, and tables are read again; those of a large file only with --deep.
func (x *pair) look(ctx context.Context, tx pgx.Tx) (err error) {
	if x.record == nil || !x.record.Complete() {
		return nil
	}
	m := x.match
	if !x.t.Deep && x.source.bytes > mostRead {
		m = nil
	}
	var unsure []string
	if x.written, unsure, err = x.record.Untouched(ctx, tx, m); err != nil {
		return err
	}
	if len(unsure) > 0 {
		x.r.Covered(fmt.Sprintf("whether %s is still as the port has left it can't be told from the server's counters: --deep reads what is there", tableCount(len(unsure))))
	}
	return nil
}
