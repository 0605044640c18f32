package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// What one more plugin costs the whole of check: the example in Go, and the one in Python, each a process of its own beside
// the built-in one. They look at small tables, so that what is seen is the plugin and not its work.

const (
	goExample     = "plugins/examples/published-rooms"
	pythonExample = "plugins/examples/account-emails/plugin"
	python        = "/usr/bin/python3" // Debian's, with Debian's grpcio and psycopg2
)

// lookedAt are the tables that the examples look at and the fixture does not have.
const lookedAt = `
CREATE TABLE room_stats_current (room_id text PRIMARY KEY, joined_members int NOT NULL, local_users_in_room int NOT NULL);
INSERT INTO room_stats_current SELECT room_id, 3, 2 FROM rooms;
CREATE TABLE user_threepids (user_id text NOT NULL, medium text NOT NULL, address text NOT NULL, validated_at bigint NOT NULL, added_at bigint NOT NULL);
INSERT INTO user_threepids SELECT name, 'email', 'user' || creation_ts || '@example.org', 1, 1 FROM users;
`

func benchPlugins(ctx context.Context, program string, rounds int) (err error) {
	server, err := pgtest.New(ctx, pgtest.Config{Sound: true})
	if err != nil {
		return fmt.Errorf("start a PostgreSQL server: %w", err)
	}
	defer server.Close()
	h, err := newHomeserver(ctx, server, "the project's fixture", pgtest.WithSetup(pgtest.Fixture()+lookedAt))
	if h.dir != "" {
		defer func() { err = errors.Join(err, os.RemoveAll(h.dir)) }()
	}
	if err != nil {
		return err
	}
	inGo := filepath.Join(h.dir, "synapse-doctor-plugin-published-rooms")
	if err := build(ctx, goExample, "go", "build", "-trimpath", "-o", inGo, "."); err != nil {
		return err
	}
	plain := pluginWay{name: "check", flags: nil}
	ways := []*pluginWay{&plain, {name: "and a plugin in Go", flags: []string{"--dev-plugin", inGo}}}
	if exec.CommandContext(ctx, python, "-I", "-c", "import grpc, google.protobuf, psycopg2").Run() == nil {
		inPython := filepath.Join(h.dir, "synapse-doctor-plugin-account-emails")
		if err := build(ctx, ".", python, "-m", "zipapp", pythonExample, "-p", python+" -I", "-o", inPython); err != nil {
			return err
		}
		ways = append(ways, &pluginWay{name: "and a plugin in Python", flags: []string{"--dev-plugin", inPython}},
			&pluginWay{name: "and both", flags: []string{"--dev-plugin", inGo, "--dev-plugin", inPython}})
	}
	for round := range rounds + 1 {
		for i := range ways {
			way := ways[(round+i)%len(ways)]
			took, err := h.check(program, way.flags...).run(ctx)
			if err != nil {
				return err
			}
			if round > 0 {
				way.times.add(took)
			}
		}
	}
	printPlugins(os.Stdout, ways, rounds)
	return nil
}

// pluginWay is a check with some plugins.
type pluginWay struct {
	name  string
	flags []string
	times times
}

func build(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the plugin of %s: %w\n%s", dir, err, out)
	}
	return nil
}

func printPlugins(w io.Writer, ways []*pluginWay, rounds int) {
	fmt.Fprintf(w, "\nOne more plugin: the examples, each a process of its own\n%d CPUs%s; %d rounds, after one to warm up\n\n", runtime.NumCPU(), load(), rounds)
	fmt.Fprintf(w, "%-30s %9s %9s %9s %9s %9s %9s\n", "", "median", "fastest", "slowest", "cpu", "more", "of check")
	for _, way := range ways {
		t, plain := way.times, ways[0].times
		fmt.Fprintf(w, "%-30s %9s %9s %9s %9s %9s %8.2f×\n", way.name, ms(median(t.wall)), ms(t.wall[0]), ms(t.wall[len(t.wall)-1]), ms(median(t.cpu)),
			fmt.Sprintf("%+.1f ms", milliseconds(median(t.wall)-median(plain.wall))), ratio(t, plain))
	}
	if len(ways) == 2 {
		fmt.Fprintf(w, "The one in Python was not timed: %s has no grpcio, protobuf and psycopg2 (make python-grpc).\n", python)
	}
}
