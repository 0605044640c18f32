package rebuild

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// bytesPerSecond is how fast a database is rebuilt, of its size on disk, indexes, search vectors and comparison included: 2.3 GB
// took 42 s on 2 cores with everything in memory, and a disk that has to be waited for takes longer.
const bytesPerSecond = 20 << 20

// Plan is the plan to rebuild a database for a check, which covers these findings. Its operations are [Operations].
func Plan(ctx context.Context, t *doctor.Target, db *doctor.Database, check string, covers []doctor.FindingKey) (doctor.Plan, error) {
	var f facts
	name := db.Settings["dbname"]
	encoding := ""
	err := db.Read(ctx, func(tx pgx.Tx) (err error) {
		if err := tx.QueryRow(ctx, `SELECT current_database()::text`).Scan(&name); err != nil {
			return err
		}
		if f, err = readFacts(ctx, tx, name); err != nil {
			return err
		}
		encoding, err = sourceEncoding(ctx, tx, t.SourceEncoding, f)
		return err
	})
	if err != nil {
		return doctor.Plan{}, fmt.Errorf("plan the rebuild of the database %s: %w", db.Label, err)
	}
	p := newParams(db.Label, name, f.OID, encoding, time.Now())
	id := check + "/rebuild"
	if db.Label != "main" {
		id += "-" + db.Label
	}
	return doctor.Plan{
		ID: id, Covers: covers, Title: title(p, f), Risk: doctor.Dangerous, Expects: doctor.ExpectSynapse, Database: db.Label,
		Requires:   []doctor.Requirement{doctor.RequireStopped, doctor.RequireAdmin, doctor.RequireDisk, doctor.RequireShut},
		Reversible: true, Resumes: true,
		Duration:  time.Minute + time.Duration(f.Bytes/bytesPerSecond)*time.Second,
		DiskBytes: f.Bytes + f.Bytes/10,
		Steps:     []doctor.Step{examineStep(p, f), doctor.Shut(name, int(f.Limit)), rebuildStep(p, f), doctor.Open(name, int(f.Limit))},
	}, nil
}

const encodingQuery = `SELECT pg_encoding_to_char(pg_char_to_encoding($1))::text, EXISTS (SELECT FROM pg_conversion WHERE conforencoding = pg_char_to_encoding($1) AND contoencoding = pg_char_to_encoding('UTF8') AND condefault)`

// sourceEncoding is what the bytes of a SQL_ASCII database are converted from, in the server's spelling; empty for UTF8.
func sourceEncoding(ctx context.Context, tx pgx.Tx, asked string, f facts) (string, error) {
	if asked == "" || f.Encoding != asciiName {
		return "", nil
	}
	var encoding string
	var converts bool
	if err := tx.QueryRow(ctx, encodingQuery, asked).Scan(&encoding, &converts); err != nil {
		return "", fmt.Errorf("look for the encoding %q: %w", asked, err)
	}
	switch {
	case encoding == utf8Name:
		return "", nil
	case encoding == "" || !converts:
		return "", fmt.Errorf("PostgreSQL has no conversion from %q, which --source-encoding says, to UTF8", asked)
	}
	return encoding, nil
}

func title(p params, f facts) string {
	switch {
	case p.sourceEncoding != "":
		return fmt.Sprintf("Fill a new database in UTF8 and the locale C from %s, all text converted from %s, and give it the name", p.database, p.sourceEncoding)
	case f.Encoding != utf8Name:
		return fmt.Sprintf("Fill a new database in UTF8 and the locale C from %s, which is in %s, and give it the name", p.database, f.Encoding)
	}
	return fmt.Sprintf("Fill a new database in the locale C from %s, and give it the name", p.database)
}

func examineStep(p params, f facts) doctor.Step {
	statements := []string{"pg_dump --schema-only --encoding=UTF8"}
	if f.Encoding != utf8Name {
		statements = append(statements, "COPY (SELECT ctid, every column with text FROM ONLY each table) TO STDOUT (FORMAT binary)")
	}
	return doctor.Step{Title: "See that nothing stands in the way: duplicate keys, text that is not valid, what a copy would not have", Operation: &doctor.OperationStep{
		Name: Examine, Params: p.toMap(),
		Statements: append(statements, "SELECT count(*) FROM (SELECT FROM ONLY each table GROUP BY the keys of each unique index HAVING count(*) > 1) d"),
		Resumes:    "it begins anew; it only reads",
	}}
}

func rebuildStep(p params, f facts) doctor.Step {
	source, fresh := p.readings(f)
	compared := func(r reading) string {
		text := "each column"
		if r.utf8 != "" {
			text = strings.ReplaceAll(r.utf8, "%s", text)
		}
		return fmt.Sprintf("SELECT count(*), sum(hash_record_extended(ROW(%s), 0)) FROM ONLY each table", text)
	}
	statements := []string{
		createStatement(p.fresh, f),
		"pg_dump --format=custom --schema-only --encoding=UTF8 | pg_restore --section=pre-data",
		"COPY (SELECT each column FROM ONLY each table) TO STDOUT (FORMAT binary)",
	}
	if p.sourceEncoding != "" {
		statements = append(statements, "SET client_encoding = "+literal(p.sourceEncoding))
	}
	statements = append(statements, "COPY each table FROM STDIN (FORMAT binary, FREEZE)", compared(source))
	if fresh.utf8 != source.utf8 {
		statements = append(statements, compared(fresh))
	}
	statements = append(statements, "SELECT setval(each sequence, last_value, is_called)")
	if !f.sameCtype() {
		statements = append(statements, "UPDATE event_search, user_directory_search SET vector = to_tsvector(the text that it was made of)")
	}
	statements = append(statements, "pg_restore --section=post-data", "ANALYZE each table",
		"BEGIN",
		"ALTER DATABASE "+ident(p.database)+" RENAME TO "+ident(p.before),
		"ALTER DATABASE "+ident(p.fresh)+" RENAME TO "+ident(p.database),
		"COMMIT")
	title := fmt.Sprintf("Make the database %s, fill and compare it, and exchange the names; the old one stays as %s", p.fresh, p.before)
	if p.sourceEncoding != "" {
		title += fmt.Sprintf(". All text is converted from %s, also what happens to be UTF-8 already", p.sourceEncoding)
	}
	return doctor.Step{Title: title, Operation: &doctor.OperationStep{
		Name: Rebuild, Params: p.toMap(),
		Effects:    doctor.Effects{Databases: []string{p.database, p.fresh, p.before, p.rebuilt}},
		Statements: statements,
		Resumes:    "a new database that is not complete is dropped and filled anew; a complete one takes the name",
		Undo:       Undo,
	}}
}
