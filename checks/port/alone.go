package port

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// traces are what a port leaves in its target.
type traces struct {
	Script    bool // port_from_sqlite3, the table in which Synapse's own script keeps its place
	Record    bool // synapse_doctor.port, the doctor's
	Directory bool // user_directory_stream_pos is there
	Pushers   bool // pushers.enabled, and ts
	Approved  bool // users.approved, and creation_ts
	Updates   bool // background_updates
}

// to_regclass would be refused to a role that may not use the schema synapse_doctor.
const tracesQuery = `SELECT to_regclass('port_from_sqlite3') IS NOT NULL, EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'synapse_doctor' AND c.relname = 'port'),
  to_regclass('user_directory_stream_pos') IS NOT NULL,
  (SELECT count(*) = 2 FROM pg_attribute WHERE attrelid = to_regclass('pushers') AND (attname = 'enabled' AND atttypid = 'bool'::regtype OR attname = 'ts')),
  (SELECT count(*) = 2 FROM pg_attribute WHERE attrelid = to_regclass('users') AND (attname = 'approved' AND atttypid = 'bool'::regtype OR attname = 'creation_ts')),
  to_regclass('background_updates') IS NOT NULL`

func readTraces(ctx context.Context, tx pgx.Tx) (t traces, err error) {
	if err := tx.QueryRow(ctx, tracesQuery).Scan(&t.Script, &t.Record, &t.Directory, &t.Pushers, &t.Approved, &t.Updates); err != nil {
		return t, fmt.Errorf("look for the traces of a port: %w", err)
	}
	return t, nil
}

// A port leaves the position NULL and relies on four background updates to fill the directory; Synapse's script has run
// them on the empty tables by then. Until the position is set, Synapse passes every change over.
const directoryQuery = `SELECT EXISTS (SELECT FROM user_directory_stream_pos WHERE stream_id IS NULL),
  ARRAY(SELECT update_name FROM background_updates WHERE update_name LIKE 'populate\_user\_directory\_%' ORDER BY ordering, update_name)`

// directory is how far the user directory is.
type directory struct {
	unset  bool // no position
	queued []string
}

func (d directory) frozen() bool { return d.unset && len(d.queued) == 0 }

func readDirectory(ctx context.Context, tx pgx.Tx, t traces) (d directory, err error) {
	if !t.Directory || !t.Updates {
		return d, nil
	}
	if err := tx.QueryRow(ctx, directoryQuery).Scan(&d.unset, &d.queued); err != nil {
		return d, fmt.Errorf("read the position of the user directory: %w", err)
	}
	return d, nil
}

// populate are the updates that fill the directory, each after the one before it, as Synapse's schema delta 73/22 queues them.
var populate = []string{
	"populate_user_directory_createtables", "populate_user_directory_process_rooms",
	"populate_user_directory_process_users", "populate_user_directory_cleanup",
}

// populateStatement queues the updates.
func populateStatement() string {
	var rows []string
	after := "NULL"
	for _, name := range populate {
		rows = append(rows, fmt.Sprintf("  (7322, '%s', '{}', %s)", name, after))
		after = "'" + name + "'"
	}
	return "INSERT INTO background_updates (ordering, update_name, progress_json, depends_on) VALUES\n" + strings.Join(rows, ",\n")
}

func frozenFinding(target *doctor.Target) doctor.Finding {
	return doctor.Finding{
		Code: DirectoryFrozen, Severity: doctor.Error, Object: doctor.Object{Kind: "table", Name: "user_directory_stream_pos"},
		Summary:  "The user directory is frozen: it has no position, and nothing is queued that would give it one. Searches for people find nobody new.",
		Observed: "stream_id is NULL, and no update populate_user_directory_* is queued",
		Expected: "a position, or the four updates that fill the directory",
		Remedy: "Queue what fills the directory:\n\n    " + strings.TrimSpace(install(target, "").doctor("fix port/directory-frozen --apply", "")) + "\n\nand restart Synapse. Or, while Synapse runs, as an administrator of the homeserver:\n\n" +
			"    curl -X POST -H 'Authorization: Bearer ACCESS_TOKEN' -d '{\"job_name\": \"regenerate_directory\"}' http://localhost:8008/_synapse/admin/v1/background_updates/start_job",
		Fixable: true,
	}
}

func queuedFinding(d directory) doctor.Finding {
	return doctor.Finding{
		Code: UpdatesQueued, Severity: doctor.Info, Object: doctor.Object{Kind: "table", Name: "background_updates"},
		Summary:  "The user directory is not filled yet: the port has queued what fills it, and Synapse works that off while it runs.",
		Observed: strings.Join(d.queued, ", "), Expected: "none, some time after Synapse was started",
		Remedy: "Nothing needs to be done but to start Synapse. Look again later:\n\n    SELECT update_name, progress_json FROM background_updates ORDER BY ordering, update_name;",
	}
}

// switchedOff is how many of a table's rows a boolean column is FALSE in.
type switchedOff struct {
	All, Off int64
	// Before is how many of those that are off are older than the column. Nothing but a port can have written FALSE there.
	Before int64
}

// suspicious: where a row is older than the column, or where more rows than not are off.
func (s switchedOff) suspicious() bool { return s.Before > 0 || s.Off > 0 && 2*s.Off >= s.All }

// nullable is when Synapse 1.69.0 came out, the first release with pushers.enabled and users.approved. A row from before has
// NULL in both, which Synapse takes for true.
var nullable = time.Date(2022, time.October, 17, 0, 0, 0, 0, time.UTC)

// The time of a pusher is in milliseconds and is set anew whenever the pusher is; that of a user in seconds.
const (
	pushersQuery = `SELECT count(*), count(*) FILTER (WHERE NOT enabled), count(*) FILTER (WHERE NOT enabled AND ts < $1 * 1000::bigint) FROM pushers`
	usersQuery   = `SELECT count(*), count(*) FILTER (WHERE NOT approved), count(*) FILTER (WHERE NOT approved AND creation_ts < $1::bigint) FROM users`
)

// readBooleans tells, without the SQLite file, where Synapse's script is likely to have made FALSE of NULL.
func readBooleans(ctx context.Context, tx pgx.Tx, t traces) (found []doctor.Finding, err error) {
	for _, c := range []struct {
		there                 bool
		query, table, summary string
		remedy                string
	}{
		{t.Pushers, pushersQuery, "pushers", "%d of %d pushers are switched off: the people who own them get no notifications.",
			"Where you still have the SQLite file, give it with --sqlite: then the doctor tells each pusher that was not off there. Otherwise switch on those that nobody can have " +
				"switched off, and restart Synapse. An app sets its pusher anew from time to time, which mends it too:\n\n" +
				"    UPDATE pushers SET enabled = NULL WHERE NOT enabled AND ts < %d;"},
		{t.Approved, usersQuery, "users", "%d of %d users are not approved: where the homeserver asks for approval, they can't log in.",
			"It matters only where new accounts need approval. Where you still have the SQLite file, give it with --sqlite: then the doctor tells each user. Otherwise, with Synapse stopped:\n\n" +
				"    UPDATE users SET approved = NULL WHERE NOT approved AND creation_ts < %d;"},
	} {
		if !c.there {
			continue
		}
		var s switchedOff
		if err := tx.QueryRow(ctx, c.query, nullable.Unix()).Scan(&s.All, &s.Off, &s.Before); err != nil {
			return nil, fmt.Errorf("read %s: %w", c.table, err)
		}
		if !s.suspicious() {
			continue
		}
		column, limit := "enabled", nullable.UnixMilli()
		if c.table == "users" {
			column, limit = "approved", nullable.Unix()
		}
		f := doctor.Finding{
			Code: BooleanNullLost, Severity: doctor.Warning, Object: doctor.Object{Kind: "column", Name: c.table + "." + column},
			Summary:  fmt.Sprintf(c.summary, s.Off, s.All),
			Observed: fmt.Sprintf("%d are FALSE, %d of these older than Synapse 1.69.0, which knew the column first", s.Off, s.Before),
			Expected: "NULL, which means true, in rows that are older than the column",
			Remedy:   fmt.Sprintf(c.remedy, limit),
			Evidence: map[string]string{"rows": fmt.Sprint(s.All), "FALSE": fmt.Sprint(s.Off), "FALSE and older than the column": fmt.Sprint(s.Before)},
		}
		if s.Before > 0 {
			f.Summary += " Synapse's port script has made FALSE of NULL."
		} else {
			f.Summary += " Synapse's port script may have made FALSE of NULL; without the SQLite file it can't be told from what people have chosen."
		}
		found = append(found, f)
	}
	return found, nil
}

// texts are the columns that hold JSON as text, which a port by Synapse's script may have escaped where SQLite had them as
// BLOBs. Keys never name a secret.
var texts = []struct {
	table   string
	key     []string
	columns []string
}{
	{"event_json", []string{"event_id"}, []string{"json", "internal_metadata"}},
	{"pushers", []string{"id"}, []string{"data"}},
	{"account_data", []string{"user_id", "account_data_type"}, []string{"content"}},
	{"room_account_data", []string{"user_id", "room_id", "account_data_type"}, []string{"content"}},
	{"receipts_linearized", []string{"user_id", "room_id", "receipt_type"}, []string{"data"}},
	{"room_tags", []string{"user_id", "room_id", "tag"}, []string{"content"}},
	{"push_rules", []string{"user_name", "rule_id"}, []string{"conditions", "actions"}},
	{"e2e_device_keys_json", []string{"user_id", "device_id"}, []string{"key_json"}},
	{"device_lists_remote_cache", []string{"user_id", "device_id"}, []string{"content"}},
}

// rowsLooked is how many rows of each table are looked at without --deep. Rows lie in the order of the port, the oldest
// first; and Synapse has not written BLOBs into these columns for years.
const rowsLooked = 50_000

// mostNamed is how many rows are named as evidence.
const mostNamed = 10

// escaped are the rows of one table whose JSON was escaped.
type escaped struct {
	table  string
	rows   int
	keys   []string // the first, for people
	mends  []string
	column map[string]int
}

// readEscaped looks for JSON that is none until the escapes of bytea are taken away. looked says how much was looked at.
func readEscaped(ctx context.Context, tx pgx.Tx, deep bool, progress func(doctor.Progress)) (found []escaped, looked string, err error) {
	var partly []string
	for i, t := range texts {
		progress(doctor.Progress{Text: "looking for escaped JSON in " + t.table, Done: int64(i), Total: int64(len(texts)), Unit: "tables"})
		var there bool
		columns := slices.Concat(t.key, t.columns)
		if err := tx.QueryRow(ctx, `SELECT count(*) = $2 FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = ANY ($3)`,
			t.table, len(columns), columns).Scan(&there); err != nil {
			return nil, "", fmt.Errorf("look for %s: %w", t.table, err)
		}
		if !there {
			continue
		}
		e := escaped{table: t.table, column: map[string]int{}}
		for _, column := range t.columns {
			all, err := e.look(ctx, tx, t.key, column, deep)
			if err != nil {
				return nil, "", err
			}
			if !all && !slices.Contains(partly, t.table) {
				partly = append(partly, t.table)
			}
		}
		if e.rows > 0 {
			found = append(found, e)
		}
	}
	if len(partly) > 0 {
		looked = fmt.Sprintf("of %s only the first %d rows were searched for escaped JSON: --deep searches them all", strings.Join(partly, ", "), rowsLooked)
	}
	return found, looked, nil
}

// look reads what has a backslash in it, since what was escaped has. all is false where there are more rows than were read.
func (e *escaped) look(ctx context.Context, tx pgx.Tx, key []string, column string, deep bool) (all bool, err error) {
	var quoted []string
	for _, k := range key {
		quoted = append(quoted, k+"::text")
	}
	limit := ""
	if !deep {
		limit = fmt.Sprintf(" LIMIT %d", rowsLooked)
		if err := tx.QueryRow(ctx, fmt.Sprintf(`SELECT count(*) <= %d FROM (SELECT FROM ONLY %s LIMIT %d) t`, rowsLooked, e.table, rowsLooked+1)).Scan(&all); err != nil {
			return false, fmt.Errorf("count %s: %w", e.table, err)
		}
	}
	rows, err := tx.Query(ctx, fmt.Sprintf(`SELECT ARRAY[%s], %s FROM (SELECT * FROM ONLY %s%s) t WHERE strpos(%s, E'\\') > 0`,
		strings.Join(quoted, ", "), column, e.table, limit, column))
	if err != nil {
		return false, fmt.Errorf("read %s.%s: %w", e.table, column, err)
	}
	defer rows.Close()
	for rows.Next() {
		var values []string
		var text string
		if err := rows.Scan(&values, &text); err != nil {
			return false, fmt.Errorf("read %s.%s: %w", e.table, column, err)
		}
		how := escapedHow(text)
		if how == "" {
			continue
		}
		e.rows++
		e.column[column]++
		if len(e.keys) < mostNamed {
			e.keys = append(e.keys, column+" of "+strings.Join(values, ", "))
			e.mends = append(e.mends, mend(e.table, column, how, key, values))
		}
	}
	if err := rows.Err(); err != nil {
		return false, fmt.Errorf("read %s.%s: %w", e.table, column, err)
	}
	return all || deep, nil
}

// escapedHow is the format of bytea in which JSON was written into a text: hex, escape, or empty when it was not.
func escapedHow(text string) string {
	if json.Valid([]byte(text)) {
		return ""
	}
	if raw, ok := fromHex(text); ok && json.Valid(raw) {
		return "hex"
	}
	if raw, ok := fromEscape(text); ok && json.Valid(raw) {
		return "escape"
	}
	return ""
}

// fromHex reads \x7b22….
func fromHex(text string) ([]byte, bool) {
	digits, ok := strings.CutPrefix(text, `\x`)
	if !ok || len(digits)%2 != 0 {
		return nil, false
	}
	raw := make([]byte, 0, len(digits)/2)
	for i := 0; i < len(digits); i += 2 {
		high, low := hexDigit(digits[i]), hexDigit(digits[i+1])
		if high < 0 || low < 0 {
			return nil, false
		}
		raw = append(raw, byte(high<<4|low))
	}
	return raw, true
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// fromEscape reads \\ as a backslash and \303 as the byte of this octal number.
func fromEscape(text string) ([]byte, bool) {
	raw := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			raw = append(raw, text[i])
			continue
		}
		rest := text[i+1:]
		switch {
		case strings.HasPrefix(rest, `\`):
			raw = append(raw, '\\')
			i++
		case len(rest) >= 3 && rest[0] >= '0' && rest[0] <= '3' && isOctal(rest[1]) && isOctal(rest[2]):
			raw = append(raw, (rest[0]-'0')<<6|(rest[1]-'0')<<3|(rest[2]-'0'))
			i += 3
		default:
			return nil, false
		}
	}
	return raw, true
}

func isOctal(c byte) bool { return '0' <= c && c <= '7' }

// mend is the statement that gives one row its text back.
func mend(table, column, how string, key, values []string) string {
	var is []string
	for i, k := range key {
		is = append(is, k+" = "+literal(values[i]))
	}
	bytes := column + "::bytea"
	if how == "escape" {
		bytes = "decode(" + column + ", 'escape')"
	}
	return fmt.Sprintf("UPDATE %s SET %s = convert_from(%s, 'UTF8') WHERE %s;", table, column, bytes, strings.Join(is, " AND "))
}

func literal(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

func (e escaped) finding() doctor.Finding {
	evidence := map[string]string{}
	for column, n := range e.column {
		evidence["rows with escaped "+column] = fmt.Sprint(n)
	}
	more := ""
	if e.rows > len(e.keys) {
		more = fmt.Sprintf(" These are the first %d of %d.", len(e.keys), e.rows)
	}
	evidence["rows"] = strings.Join(e.keys, "; ")
	return doctor.Finding{
		Code: EscapedJSON, Severity: doctor.Error, Object: doctor.Object{Kind: "table", Name: e.table},
		Summary:  fmt.Sprintf("%s of %s %s JSON that a port has escaped: Synapse can't read it.", rowCount(int64(e.rows)), e.table, verb(int64(e.rows), "has", "have")),
		Observed: `JSON in which bytes stand as \303 or \x7b, or backslashes are doubled`, Expected: "JSON as Synapse wrote it",
		Remedy: "Synapse's port script did this to values that SQLite had as BLOBs. With Synapse stopped, take the escapes away row by row." + more + "\n\n    " +
			strings.Join(e.mends, "\n    "),
		Evidence: evidence,
	}
}

func verb(n int64, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func rowCount(n int64) string {
	if n == 1 {
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}

// alone examines a PostgreSQL database without the file that it came from.
func alone(ctx context.Context, t *doctor.Target, db *doctor.Database, r doctor.Reporter) (ported bool, err error) {
	find := func(f doctor.Finding) {
		f.Database = db.Label
		r.Find(f)
	}
	err = db.Read(ctx, func(tx pgx.Tx) error {
		id, err := synapse.Identify(ctx, tx, t.ServerName)
		if err != nil || !id.HasSchema {
			return err
		}
		traces, err := readTraces(ctx, tx)
		if err != nil {
			return err
		}
		d, err := readDirectory(ctx, tx, traces)
		if err != nil {
			return err
		}
		// Nothing but a port leaves it like that.
		if ported = traces.Script || traces.Record || d.frozen(); !ported {
			return nil
		}
		return examineAlone(ctx, tx, t, traces, d, find, r)
	})
	return ported, err
}

// examineAlone says what a port has left, as far as the target tells.
func examineAlone(ctx context.Context, tx pgx.Tx, t *doctor.Target, traces traces, d directory, find func(doctor.Finding), r doctor.Reporter) error {
	ours, err := afterOurs(ctx, tx, t, traces, d, find)
	if err != nil {
		return err
	}
	if d.frozen() {
		find(frozenFinding(t))
	}
	if ours {
		return nil // NULL stayed NULL, and no text was escaped
	}
	if traces.Script {
		booleans, err := readBooleans(ctx, tx, traces)
		if err != nil {
			return err
		}
		for _, f := range booleans {
			find(f)
		}
	}
	escaped, looked, err := readEscaped(ctx, tx, t.Deep, r.Progress)
	if err != nil {
		return err
	}
	for _, e := range escaped {
		find(e.finding())
	}
	if looked != "" {
		r.Covered(looked)
	}
	return nil
}
