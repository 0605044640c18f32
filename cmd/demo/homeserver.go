package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// homeserver is the patient: a database and the homeserver.yaml that uses it.
type homeserver struct {
	db   *pgtest.DB
	file string
	// What homeserver.yaml and the tables held before anything was mended.
	text []byte
	rows contents
}

// found makes a homeserver in dir that is sound but for its locale: it was made as the machine's language has it.
func found(ctx context.Context, server *pgtest.Server, dir string) (*homeserver, error) {
	db, err := server.CreateDatabase(ctx, pgtest.WithSetup(pgtest.Fixture()), pgtest.WithCreate("ENCODING 'UTF8' LC_COLLATE 'en_US.UTF-8' LC_CTYPE 'en_US.UTF-8'"))
	if err != nil {
		return nil, fmt.Errorf("make the homeserver's database: %w", err)
	}
	h := &homeserver{db: db, file: filepath.Join(dir, "homeserver.yaml")}
	h.text = fmt.Appendf(nil, configuration, db.User, db.Password, db.Name, db.Host, db.Port)
	return h, os.WriteFile(h.file, h.text, 0o600)
}

// configuration is written as people write it: the doctor's edit must keep all of it.
const configuration = `# The homeserver of test.example.  Ask Ada before you change anything here!
server_name: "test.example"
pid_file: homeserver.pid

database:
    name: psycopg2
    args:
        user: %s
        password: '%s'   # also in the safe
        dbname: %s
        host: %s     # moved here from SQLite
        port: %d
        cp_min: 5
        cp_max: 10

enable_registration: false   # family and friends only
`

// illness is what happens to homeservers: sequences that stand where they stood when an old backup was made, and a role
// whose sessions speak another encoding. That the file sets no keepalives is the third thing to find.
const illness = `
SELECT setval('state_group_id_seq', 52), setval('events_backfill_stream_seq', 40), setval('presence_stream_sequence', 32);
ALTER ROLE CURRENT_USER SET client_encoding = 'LATIN1';`

func (h *homeserver) fallIll(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, h.db.AdminDSN()) // its own role gets in only once that is mended
	if err != nil {
		return fmt.Errorf("break the database: %w", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.PgConn().Exec(ctx, "SET SESSION AUTHORIZATION "+pgx.Identifier{h.db.User}.Sanitize()+";"+illness).ReadAll(); err != nil {
		return fmt.Errorf("break the database: %w", err)
	}
	h.rows, err = h.readAll(ctx)
	return err
}

// whileSynapseRuns calls fn while a session is open as a running Synapse has it.
func (h *homeserver) whileSynapseRuns(ctx context.Context, fn func() error) error {
	conn, err := pgx.Connect(ctx, h.db.DSN()+" application_name=synapse")
	if err != nil {
		return fmt.Errorf("open a session as Synapse does: %w", err)
	}
	return errors.Join(fn(), conn.Close(context.WithoutCancel(ctx)))
}

// numbering is a sequence that was set back: to where, and what asks for the greatest number in use.
type numbering struct {
	sequence string
	behind   int64
	inUse    string
}

var numberings = []numbering{
	{"state_group_id_seq", 52, `SELECT max(id) FROM state_groups`},
	{"events_backfill_stream_seq", 40, `SELECT -min(stream_ordering) FROM events`},
	{"presence_stream_sequence", 32, `SELECT max(stream_id) FROM stream_positions WHERE stream_name = 'presence_stream'`},
}

const setEncoding = `SELECT coalesce((SELECT substr(entry, 17) FROM pg_db_role_setting, unnest(setconfig) AS c(entry)
  WHERE entry LIKE 'client\_encoding=%'), '')`

// untouched makes sure that what only shows, or refuses, has changed nothing.
func (h *homeserver) untouched(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, h.db.AdminDSN())
	if err != nil {
		return fmt.Errorf("see that nothing has changed: %w", err)
	}
	defer conn.Close(ctx)
	for _, n := range numberings {
		var last int64
		if err := conn.QueryRow(ctx, `SELECT last_value FROM `+n.sequence).Scan(&last); err != nil {
			return fmt.Errorf("see that nothing has changed: %w", err)
		}
		if last != n.behind {
			return fmt.Errorf("%s was moved from %d to %d, and nothing should have changed yet", n.sequence, n.behind, last)
		}
	}
	var encoding string
	if err := conn.QueryRow(ctx, setEncoding).Scan(&encoding); err != nil {
		return fmt.Errorf("see that nothing has changed: %w", err)
	}
	if encoding != "LATIN1" {
		return errors.New("the setting of client_encoding has changed, and nothing should have changed yet")
	}
	text, err := os.ReadFile(h.file)
	if err != nil {
		return err
	}
	if !bytes.Equal(text, h.text) {
		return errors.New("homeserver.yaml has changed, and nothing should have changed yet")
	}
	return nil
}

// prove looks without the doctor's help whether the homeserver is sound again, and says what it saw.
func (h *homeserver) prove(ctx context.Context) ([]string, error) {
	rows, err := h.readAll(ctx)
	if err != nil {
		return nil, err
	}
	if err := h.rows.same(rows); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, h.db.DSN())
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	for _, n := range numberings {
		var inUse, next int64
		if err := conn.QueryRow(ctx, n.inUse).Scan(&inUse); err != nil {
			return nil, fmt.Errorf("look at the numbers of %s: %w", n.sequence, err)
		}
		if err := conn.QueryRow(ctx, `SELECT nextval($1)`, n.sequence).Scan(&next); err != nil {
			return nil, fmt.Errorf("draw from %s: %w", n.sequence, err)
		}
		if next != inUse+1 {
			return nil, fmt.Errorf("%s gave the number %d, and %d are in use", n.sequence, next, inUse)
		}
	}
	var encoding string
	if err := conn.QueryRow(ctx, `SHOW client_encoding`).Scan(&encoding); err != nil {
		return nil, err
	}
	if encoding != "UTF8" {
		return nil, fmt.Errorf("the sessions of Synapse's role still speak %s", encoding)
	}
	var collate string
	var inOrder bool
	if err := conn.QueryRow(ctx, `SELECT datcollate, 'B' < 'a' FROM pg_database WHERE datname = current_database()`).Scan(&collate, &inOrder); err != nil {
		return nil, err
	}
	if collate != "C" || !inOrder {
		return nil, fmt.Errorf("the database has the collation %s", collate)
	}
	added, err := h.added()
	if err != nil {
		return nil, err
	}
	return []string{
		"the database compares text as C does, whatever the machine's language",
		fmt.Sprintf("each of the %d sequences gives a number that is free", len(numberings)),
		"Synapse logs in with its password, and its sessions speak UTF8",
		fmt.Sprintf("homeserver.yaml has %d lines more, and every other byte as before", added),
		fmt.Sprintf("all %d rows of the %d tables are there, unchanged", rows.count(), len(rows)),
	}, nil
}

// added counts the lines that homeserver.yaml has gained, and fails unless they are keepalives and all else is kept.
func (h *homeserver) added() (int, error) {
	text, err := os.ReadFile(h.file)
	if err != nil {
		return 0, err
	}
	var kept strings.Builder
	added := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(strings.TrimSpace(line), "keepalives_") {
			added++
			continue
		}
		kept.WriteString(line)
	}
	if added != 3 || kept.String() != string(h.text) {
		return 0, errors.New("homeserver.yaml has not gained just the three keepalives settings")
	}
	return added, nil
}
