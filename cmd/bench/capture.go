package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// What psql is to send is what the server saw of a check: the server logs one, and only that one, with every statement.

var captureSettings = map[string]string{"logging_collector": "on", "log_destination": "csvlog", "log_rotation_size": "0", "log_rotation_age": "0"}

// Columns of the server's csvlog, in the same places in every version.
const (
	csvDatabase = 2
	csvSession  = 5
	csvMessage  = 13
	csvDetail   = 14
)

// script is what psql sends.
type script struct {
	text       string
	statements int
	sessions   int // how many the doctor opened for them
}

// capture has the server log the statements of one check, and makes a script of them: session after session, since
// transactions of sessions that were open at the same time can't be sent in the order of the clock over one connection.
func capture(ctx context.Context, program string, h homeserver) (script, error) {
	admin, err := pgx.Connect(ctx, h.db.AdminDSN())
	if err != nil {
		return script{}, err
	}
	defer admin.Close(ctx)
	role := pgx.Identifier{h.db.User}.Sanitize()
	if _, err := admin.Exec(ctx, `ALTER ROLE `+role+` SET log_statement = 'all'`); err != nil {
		return script{}, err
	}
	_, failed := h.check(program, "--in-process").run(ctx)
	if _, err := admin.Exec(ctx, `ALTER ROLE `+role+` RESET log_statement`); err != nil || failed != nil {
		return script{}, errors.Join(failed, err)
	}
	// All that was written to the log before this sentence is in the file when it is.
	mark := "end of " + h.dir
	if _, err := admin.Exec(ctx, `DO $$ BEGIN RAISE LOG '`+mark+`'; END $$`); err != nil {
		return script{}, err
	}
	records, err := h.log(ctx, mark)
	if err != nil {
		return script{}, err
	}
	return statements(records)
}

// log returns the records of this database in the server's log, once the mark is there.
func (h homeserver) log(ctx context.Context, mark string) ([][]string, error) {
	for {
		text, err := readFiles(filepath.Join(h.db.Server.DataDir, "log", "*.csv"))
		if err != nil {
			return nil, err
		}
		if strings.Contains(text, mark) && strings.HasSuffix(text, "\n") {
			records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
			if err != nil {
				return nil, fmt.Errorf("read the server's log: %w", err)
			}
			return slices.DeleteFunc(records, func(r []string) bool { return r[csvDatabase] != h.db.Name }), nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func readFiles(pattern string) (string, error) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	slices.Sort(files)
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		all.Write(text)
	}
	return all.String(), nil
}

// statements are those of the log, each session's in its order, with the parameters written into them: psql has none.
func statements(records [][]string) (script, error) {
	var order []string
	bySession := map[string][]string{}
	count := 0
	for _, r := range records {
		sql, ok := statement(r[csvMessage])
		if !ok {
			continue
		}
		sql, err := withParameters(sql, r[csvDetail])
		if err != nil {
			return script{}, err
		}
		id := r[csvSession]
		if _, seen := bySession[id]; !seen {
			order = append(order, id)
		}
		bySession[id] = append(bySession[id], strings.TrimRight(sql, "; \n")+";\n")
		count++
	}
	if count == 0 {
		return script{}, errors.New("the server's log has no statement of the doctor's")
	}
	var text strings.Builder
	for _, id := range order {
		text.WriteString(strings.Join(bySession[id], ""))
	}
	return script{text: text.String(), statements: count, sessions: len(order)}, nil
}

// The server logs what came by the simple protocol as "statement: SQL", and by the extended one as "execute NAME: SQL",
// in the language of lc_messages, which is C here.
var logged = regexp.MustCompile(`(?s)^(?:statement|execute [^:]*): (.*)$`)

func statement(message string) (string, bool) {
	m := logged.FindStringSubmatch(message)
	if m == nil {
		return "", false
	}
	return m[1], true
}

var (
	// The detail of an executed statement: parameters: $1 = 'it''s', $2 = NULL. Later versions write a capital letter.
	detail    = regexp.MustCompile(`(?s)^[Pp]arameters: (.*)$`)
	parameter = regexp.MustCompile(`(?s)\$(\d+) = (NULL|'(?:[^']|'')*')(?:, |$)`)
	// A placeholder, or what looks like one inside a string or a quoted name, which stays.
	placeholder = regexp.MustCompile(`(?s)'(?:[^']|'')*'|"(?:[^"]|"")*"|\$\d+`)
)

func withParameters(sql, text string) (string, error) {
	m := detail.FindStringSubmatch(text)
	if m == nil {
		return sql, nil
	}
	values := map[string]string{}
	for _, p := range parameter.FindAllStringSubmatch(m[1], -1) {
		values["$"+p[1]] = p[2]
	}
	var unknown error
	sql = placeholder.ReplaceAllStringFunc(sql, func(s string) string {
		if !strings.HasPrefix(s, "$") {
			return s
		}
		value, ok := values[s]
		if !ok {
			unknown = fmt.Errorf("the server's log has no value for %s of: %s", s, sql)
		}
		return value
	})
	return sql, unknown
}
