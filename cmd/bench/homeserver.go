package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// homeserver is a sound one, whose check exits 0.
type homeserver struct {
	name   string
	server string // PostgreSQL's version
	db     *pgtest.DB
	dir    string
	config string
}

func homeservers(ctx context.Context, server *pgtest.Server) ([]homeserver, error) {
	fixture, err := newHomeserver(ctx, server, "the project's fixture", pgtest.WithSetup(pgtest.Fixture()))
	if err != nil {
		return nil, err
	}
	all := []homeserver{fixture}
	if data := os.Getenv("SYNAPSE_DOCTOR_DATA"); data != "" {
		const dump = "synapse_ported.dump"
		ported, err := newHomeserver(ctx, server, dump, pgtest.WithDump(filepath.Join(data, dump)))
		if err != nil {
			return all, err
		}
		all = append(all, ported)
	}
	return all, nil
}

func newHomeserver(ctx context.Context, server *pgtest.Server, name string, content pgtest.Option) (homeserver, error) {
	h := homeserver{name: name}
	var err error
	if h.db, err = server.CreateDatabase(ctx, content); err != nil {
		return h, fmt.Errorf("make the database of %s: %w", name, err)
	}
	conn, err := pgx.Connect(ctx, h.db.DSN())
	if err != nil {
		return h, err
	}
	defer conn.Close(ctx)
	var serverName string
	const question = `SELECT current_setting('server_version'), substr(name, strpos(name, ':') + 1) FROM users LIMIT 1`
	if err := conn.QueryRow(ctx, question).Scan(&h.server, &serverName); err != nil {
		return h, fmt.Errorf("find the server_name of %s: %w", name, err)
	}
	h.server, _, _ = strings.Cut(h.server, " ")
	// The usual maintenance has been done: statistics, and no hint bits left for the first reader to write.
	if _, err := conn.Exec(ctx, `VACUUM ANALYZE`); err != nil {
		return h, fmt.Errorf("vacuum %s: %w", name, err)
	}
	if h.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return h, err
	}
	if h.config, err = h.db.WriteHomeserver(h.dir); err != nil {
		return h, err
	}
	text, err := os.ReadFile(h.config)
	if err != nil {
		return h, err
	}
	text = []byte(strings.Replace(string(text), "server_name: test.example", "server_name: "+serverName, 1))
	return h, os.WriteFile(h.config, text, 0o600)
}

// check is the command that is timed. Its report goes nowhere.
func (h homeserver) check(program string, flags ...string) command {
	return command{
		args: append([]string{program, "check", "-c", h.config}, flags...),
		env:  append(environment(), "SYNAPSE_DOCTOR_STATE_DIR="+filepath.Join(h.dir, "state")),
	}
}

// environment is ours without settings that lead to another server.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "SYNAPSE_DOCTOR_") {
			env = append(env, v)
		}
	}
	return env
}
