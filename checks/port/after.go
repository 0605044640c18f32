package port

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/port"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// unfinished is a port of the doctor's that was begun, with the file at hand.
func (x *pair) unfinished() {
	x.standing(true)
	x.toBePorted(Unfinished, doctor.Error,
		fmt.Sprintf("A port into the PostgreSQL database %s was begun and is not finished: Synapse must not be started on it.", x.target.name),
		unfinishedText(x.record), "a port that is complete and proved equal")
	x.left()
}

func unfinishedText(r *port.Record) string {
	whole := 0
	for _, t := range r.Tables {
		if t.Whole {
			whole++
		}
	}
	return fmt.Sprintf("begun on %s from %s; of %s begun %d %s whole", r.Started.Local().Format("2006-01-02 15:04"), r.Path, tableCount(len(r.Tables)), whole, verb(int64(whole), "is", "are"))
}

// after is a complete port, with the file at hand.
func (x *pair) after(ctx context.Context) error {
	same, why := x.record.SameFile(x.source.path)
	switch {
	case x.written != nil:
		x.writtenSince(same)
	case !same:
		x.standing(true)
		x.toBePorted(FileChanged, doctor.Warning,
			fmt.Sprintf("%s is not as it was when it was ported last: run the port again before Synapse is started on PostgreSQL.", x.source.path),
			why, "the file that was ported last, unchanged")
	default:
		x.find(judgeSource(x.source, x.t.ServerName)...)
		x.find(judgeSkipped(x.needed)...)
		x.refused(true)
		if names := x.unported(); len(names) > 0 {
			x.toBePorted(Unfinished, doctor.Error,
				fmt.Sprintf("%s of the SQLite file came into the PostgreSQL database %s after the port, and %s not been ported.", tableCount(len(names)), x.target.name, verb(int64(len(names)), "has", "have")),
				named(names), "every table of both sides ported, and proved equal")
		}
	}
	x.left()
	if same {
		if err := x.configured(ctx); err != nil {
			return err
		}
	}
	if x.target.directory.frozen() {
		x.find(frozenFinding(x.t))
	} else if x.target.directory.unset {
		x.find(queuedFinding(x.target.directory))
	}
	if err := x.indexes(ctx); err != nil {
		return err
	}
	if same && x.written == nil && x.t.Deep && !x.t.Applying {
		return x.compare(ctx)
	}
	return nil
}

// writtenSince: with the very file that was ported, it is how things should be once Synapse runs on PostgreSQL. With a newer
// one both databases have been used, and no port brings the two together.
func (x *pair) writtenSince(same bool) {
	f := doctor.Finding{
		Code: WrittenSince, Severity: doctor.Info, Object: doctor.Object{Kind: "database", Name: x.target.name},
		Summary:  "A Synapse, or somebody else, has written to the PostgreSQL database since the port: it can't be run again, and need not be where Synapse runs on it.",
		Observed: writtenText(x.written), Expected: "nothing to do, once Synapse runs on PostgreSQL",
		Remedy: "Leave out --sqlite and --postgres-config from now on. Keep the SQLite file for some days, then put it away. " +
			"If no Synapse has been started on PostgreSQL yet, somebody has changed the copy: drop the PostgreSQL database, make it anew, empty, and run the port again.",
	}
	if !same {
		f.Severity = doctor.Error
		f.Summary = "A Synapse has used the PostgreSQL database since the port, and the SQLite file has changed too: a port would throw away what is only in PostgreSQL."
		f.Expected = "only one of the two in use"
		f.Remedy = "Decide which of the two is to be kept, and do not let Synapse run on the other. To keep SQLite: stop Synapse, drop the PostgreSQL database, make it anew, empty, and run the port. " +
			"To keep PostgreSQL: leave out --sqlite and --postgres-config; what was written to SQLite since the port is not carried over."
	}
	x.find(f)
}

// unported are tables that no run has taken, since there was no place for them then.
func (x *pair) unported() []string {
	if x.match == nil {
		return nil
	}
	return x.match.Unported(x.record)
}

func writtenText(w *port.WrittenError) string {
	var names []string
	for _, t := range w.Tables {
		names = append(names, t.Table)
	}
	return "otherwise than the port has left them: " + named(names)
}

// left says what a port has put aside or changed.
func (x *pair) left() {
	for _, f := range recorded(x.record) {
		x.find(f)
	}
}

// recorded are the findings of what the port's own record holds of rows that it could not store as they were.
func recorded(r *port.Record) (found []doctor.Finding) {
	for _, table := range tablesOf(r.Lost) {
		total, evidence := ofTable(r.Lost, table)
		found = append(found, doctor.Finding{
			Code: RowsQuarantined, Severity: doctor.Warning, Object: doctor.Object{Kind: "table", Name: table},
			Summary:  fmt.Sprintf("%s of %s could not be stored, and %s in quarantine.", rowCount(total), table, verb(total, "is", "are")),
			Observed: rowCount(total) + " in synapse_doctor.port_quarantine", Expected: "none",
			Remedy:   fmt.Sprintf("They are kept whole, each with its reason. Look at them, and enter by hand what is still wanted:\n\n    SELECT key, reason, row FROM synapse_doctor.port_quarantine WHERE name = %s;", literal(table)),
			Evidence: evidence,
		})
	}
	for _, table := range tablesOf(r.Changed) {
		total, evidence := ofTable(r.Changed, table)
		found = append(found, doctor.Finding{
			Code: CellsChanged, Severity: doctor.Warning, Object: doctor.Object{Kind: "table", Name: table},
			Summary:  fmt.Sprintf("%s of %s could not be stored as %s changed.", valueCount(total), table, verb(total, "it was, and was", "they were, and were")),
			Observed: valueCount(total) + " in synapse_doctor.port_change", Expected: "none",
			Remedy:   fmt.Sprintf("Nothing needs to be done where what stands there now is good enough. Look at them:\n\n    SELECT key, column_, change FROM synapse_doctor.port_change WHERE name = %s;", literal(table)),
			Evidence: evidence,
		})
	}
	return found
}

func valueCount(n int64) string {
	if n == 1 {
		return "1 value"
	}
	return fmt.Sprintf("%d values", n)
}

func tablesOf(list []port.Oddities) []string {
	tables := map[string]bool{}
	for _, o := range list {
		tables[o.Table] = true
	}
	return slices.Sorted(maps.Keys(tables))
}

// ofTable counts the rows or values of one table, and gives their reasons as evidence.
func ofTable(list []port.Oddities, table string) (total int64, evidence map[string]string) {
	evidence = map[string]string{}
	for _, o := range list {
		if o.Table != table {
			continue
		}
		total += o.Count
		if len(evidence) == doctor.MaxEvidence {
			continue
		}
		why := o.Reason
		if o.Column != "" {
			why = o.Column + ": " + why
		}
		evidence[why] = fmt.Sprintf("%d: %s", o.Count, strings.Join(o.Keys, "; "))
	}
	return total, evidence
}

// configured finds a homeserver.yaml that still leads to the file which has been ported.
func (x *pair) configured(ctx context.Context) error {
	if x.t.PostgresConfig == "" || !configuredFile(x.t, x.file.Path) {
		return nil
	}
	state, err := sqlitedb.Look(ctx, x.file.Path)
	if err != nil {
		return fmt.Errorf("see who uses %s: %w", x.file.Path, err)
	}
	x.find(stillOnSQLite(x.t, sqliteEntry(x.t), state.Users.String()))
	return nil
}

// afterOurs examines a target, without the file, by the record of a port of the doctor's. ours: that port is complete.
func afterOurs(ctx context.Context, tx pgx.Tx, target *doctor.Target, t traces, d directory, find func(doctor.Finding)) (ours bool, err error) {
	if !t.Record {
		return false, nil
	}
	record, err := port.ReadRecord(ctx, tx)
	if err != nil || record == nil {
		return false, err
	}
	for _, f := range recorded(record) {
		find(f)
	}
	if !record.Complete() {
		find(doctor.Finding{
			Code: Unfinished, Severity: doctor.Error, Object: doctor.Object{Kind: "table", Name: "synapse_doctor.port"},
			Summary:  "A port into this database was begun and is not finished: Synapse must not be started on it.",
			Observed: unfinishedText(record), Expected: "a port that is complete and proved equal",
			Remedy: "Run the port again, with the SQLite file; it goes on where it was:\n\n" + command(target, record.Path, ""),
		})
		return false, nil
	}
	missing, err := pendingObjects(ctx, tx)
	if err != nil {
		return false, err
	}
	for _, f := range missing {
		find(f)
	}
	if d.unset && len(d.queued) > 0 {
		find(queuedFinding(d))
	}
	return true, nil
}
