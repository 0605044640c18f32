package port

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/port"
	"github.com/synapse-doctor/synapse-doctor/core/sqlitedb"
)

// script examines a port that Synapse's own script has made or begun, with the file at hand.
func (x *pair) script(ctx context.Context) error {
	x.find(judgeSource(x.source, x.t.ServerName)...)
	x.find(judgeTarget(x.target, x.t.ServerName, true)...)
	if x.target.id.ForeignUser != "" || x.match == nil {
		return nil
	}
	x.schemas()
	x.match.Tables = slices.DeleteFunc(x.match.Tables, func(t port.Table) bool { return slices.Contains(refilled, t.Name) })
	if x.target.directory.frozen() {
		x.find(frozenFinding(x.t))
	}
	var unread []error
	if err := x.nulls(ctx); err != nil {
		unread = append(unread, err)
	}
	err := x.db.Read(ctx, func(tx pgx.Tx) error {
		escaped, looked, err := readEscaped(ctx, tx, x.t.Deep, x.r.Progress)
		for _, e := range escaped {
			x.find(e.finding())
		}
		if looked != "" {
			x.r.Covered(looked)
		}
		return err
	})
	unread = append(unread, err, x.indexes(ctx), x.compare(ctx))
	x.scriptRemains()
	return errors.Join(unread...)
}

// refilled are the tables that Synapse's script leaves empty and Synapse fills itself, or that only matter for minutes.
var refilled = []string{
	"user_directory", "users_in_public_rooms", "users_who_share_private_rooms",
	"ui_auth_sessions", "ui_auth_sessions_credentials", "ui_auth_sessions_ips",
}

// scriptRemains says whose port it is, and that it can be made anew where nothing would be lost.
func (x *pair) scriptRemains() {
	f := doctor.Finding{
		Code: ScriptRemains, Severity: doctor.Info, Object: doctor.Object{Kind: "table", Name: "port_from_sqlite3"},
		Summary:  "Synapse's own script has ported into this database.",
		Observed: "the table port_from_sqlite3, in which it keeps its place", Expected: "no trace of it, or a port that is equal to the file",
		Remedy:   "Nothing needs to be done: what is in the database is what is in the file.",
		Evidence: map[string]string{"not compared": "what Synapse fills itself: " + strings.Join(refilled, ", ")},
	}
	at := func(codes ...string) bool {
		return slices.ContainsFunc(x.found, func(f doctor.Finding) bool { return slices.Contains(codes, f.Code) })
	}
	switch {
	case x.refusal != "":
		f.Summary = "Synapse's own script has ported into this database, and a Synapse has been used with it since."
		f.Remedy = "A new port would throw away what has come since: " + x.refusal + ". Mend what this check names one by one."
	case at(RowsMissing, RowsSurplus, ContentDiffers, BooleanNullLost, EscapedJSON):
		f.Severity, f.Fixable = doctor.Warning, !blocked(x.found) && len(x.target.sessions) == 0
		f.Summary = "Synapse's own script has ported into this database, and what is there is not what is in the SQLite file."
		f.Remedy = "If Synapse runs on PostgreSQL already, mend what this check names one by one. If it still runs on SQLite, have what the script has copied replaced by a port that is proved equal:\n\n" + command(x.t, x.source.path, " --plan port/replace")
	}
	x.find(f)
}

// mostRead bounds the size of a file that is read whole without --deep: more would take longer than people wait for a check.
const mostRead = 2 << 30

// tooLarge reports, and says, that the file is not read whole.
func (x *pair) tooLarge(what string) bool {
	if x.t.Deep || x.source.bytes <= mostRead {
		return false
	}
	x.r.Covered(fmt.Sprintf("%s was not looked at, since the file has %s: --deep does", what, size(x.source.bytes)))
	return true
}

// compare finds the tables whose rows are not the same on both sides.
func (x *pair) compare(ctx context.Context) error {
	if x.tooLarge("whether both databases have the same rows") {
		return nil
	}
	differences, err := port.Compare(ctx, x.db, x.source.path, x.match, x.r.Progress)
	for _, d := range differences {
		x.find(differing(d)...)
	}
	if err != nil {
		return fmt.Errorf("compare the file with the database: %w", err)
	}
	return nil
}

// differing are the findings of one table.
func differing(d port.Difference) (found []doctor.Finding) {
	evidence := map[string]string{"rows in SQLite": fmt.Sprint(d.Source), "rows in PostgreSQL": fmt.Sprint(d.Target)}
	if len(d.MissingKeys) > 0 {
		evidence["only in SQLite"] = strings.Join(d.MissingKeys, "; ")
	}
	if len(d.SurplusKeys) > 0 {
		evidence["only in PostgreSQL"] = strings.Join(d.SurplusKeys, "; ")
	}
	changed := d.Source == d.Target && (len(d.MissingKeys) == 0 && len(d.SurplusKeys) == 0 || slices.Equal(sorted(d.MissingKeys), sorted(d.SurplusKeys)))
	object := doctor.Object{Kind: "table", Name: d.Table}
	observed := fmt.Sprintf("%s in SQLite, %d in PostgreSQL", rowCount(d.Source), d.Target)
	if changed {
		return []doctor.Finding{{
			Code: ContentDiffers, Severity: doctor.Error, Object: object,
			Summary:  fmt.Sprintf("%s has as many rows on both sides, and they are not the same.", d.Table),
			Observed: observed, Expected: "the same content",
			Remedy:   "A port has changed values, or Synapse has changed rows on one side since. Where Synapse does not run on PostgreSQL yet, have it ported anew; otherwise compare the rows.",
			Evidence: evidence,
		}}
	}
	if d.Source > d.Target || len(d.MissingKeys) > 0 {
		f := doctor.Finding{
			Code: RowsMissing, Severity: doctor.Error, Object: object,
			Summary:  fmt.Sprintf("Rows of %s that are in the SQLite file are not in PostgreSQL.", d.Table),
			Observed: observed, Expected: "every row of the file",
			Remedy:   "A port has lost them, or Synapse has deleted them since. Where Synapse does not run on PostgreSQL yet, have it ported anew; otherwise enter by hand what is still wanted.",
			Evidence: evidence,
		}
		if d.Source > d.Target && len(d.SurplusKeys) == 0 {
			f.Summary = fmt.Sprintf("%s of %s %s missing in PostgreSQL.", rowCount(d.Source-d.Target), d.Table, verb(d.Source-d.Target, "is", "are"))
		}
		found = append(found, f)
	}
	if d.Target > d.Source || len(d.SurplusKeys) > 0 {
		found = append(found, doctor.Finding{
			Code: RowsSurplus, Severity: doctor.Error, Object: object,
			Summary:  fmt.Sprintf("PostgreSQL has rows of %s that the SQLite file has not.", d.Table),
			Observed: observed, Expected: "no row that is not in the file",
			Remedy:   "Where Synapse runs on PostgreSQL already, that is how it should be. Otherwise they were deleted in SQLite after a first port, which Synapse's script does not see, or the file is not the one that was ported last.",
			Evidence: evidence,
		})
	}
	return found
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

// lost are columns in which NULL means true, and FALSE does harm.
var lost = []struct{ table, column, key, harm string }{
	{"pushers", "enabled", "id", "the people who own them get no notifications"},
	{"users", "approved", "name", "where the homeserver asks for approval, they can't log in"},
}

// nulls tells which rows have NULL in the file and FALSE in the target.
func (x *pair) nulls(ctx context.Context) error {
	f, err := sqlitedb.Open(ctx, x.source.path)
	if err != nil {
		return unreadable(x.source.path, err)
	}
	defer f.Close()
	for _, l := range lost {
		there, err := firstColumn(ctx, f, fmt.Sprintf(`SELECT name FROM pragma_table_info('%s') WHERE name = '%s'`, l.table, l.column))
		if err != nil {
			return err
		}
		if len(there) == 0 || l.table == "pushers" && !x.target.Pushers || l.table == "users" && !x.target.Approved {
			continue
		}
		keys, err := firstColumn(ctx, f, fmt.Sprintf(`SELECT CAST(%s AS TEXT) FROM %s WHERE %s IS NULL`, l.key, l.table, l.column))
		if err != nil {
			return err
		}
		var off []string
		err = x.db.Read(ctx, func(tx pgx.Tx) (err error) {
			off, err = column1(ctx, tx, fmt.Sprintf(`SELECT %s::text FROM %s WHERE NOT %s AND %s::text = ANY ($1) ORDER BY %s`, l.key, l.table, l.column, l.key, l.key), keys)
			return err
		})
		if err != nil {
			return fmt.Errorf("read %s: %w", l.table, err)
		}
		if len(off) > 0 {
			x.find(nullLost(l.table, l.column, l.key, l.harm, off))
		}
	}
	return nil
}

func nullLost(table, column, key, harm string, off []string) doctor.Finding {
	words := off
	if key != "id" {
		words = nil
		for _, o := range off {
			words = append(words, literal(o))
		}
	}
	if len(words) > mostMended {
		words = words[:mostMended]
	}
	remedy := fmt.Sprintf("    UPDATE %s SET %s = NULL WHERE NOT %s AND %s IN (%s);", table, column, column, key, strings.Join(words, ", "))
	if len(off) > mostMended {
		remedy += fmt.Sprintf("\n\nThese are the first %d of %d; this check names the next ones then.", mostMended, len(off))
	}
	return doctor.Finding{
		Code: BooleanNullLost, Severity: doctor.Warning, Object: doctor.Object{Kind: "column", Name: table + "." + column},
		Summary:  fmt.Sprintf("%s of %s %s NULL in SQLite, which means true, and FALSE in PostgreSQL: %s. Synapse's port script has done that.", rowCount(int64(len(off))), table, verb(int64(len(off)), "is", "are"), harm),
		Observed: "FALSE", Expected: "NULL, as in the SQLite file",
		Remedy:   "Have it ported anew where Synapse does not run on PostgreSQL yet. Otherwise, with Synapse stopped, unless somebody has switched one of them off since:\n\n" + remedy,
		Evidence: map[string]string{"rows": strconv.Itoa(len(off)), "some of them": strings.Join(off[:min(len(off), mostNamed)], ", ")},
	}
}

// mostMended bounds the rows that one statement of a remedy names.
const mostMended = 200
