// Command bench times a whole check in one run, in rounds that take turns: with the built-in checks in a plugin process
// as usual, with --in-process, and psql sending the same statements. It prints medians, ratios, the peak memory, and
// whether the targets hold. Then it times a check with one more plugin, in Go and in Python. It exits 1 only when something
// failed to run.
//
// With -tuning it times PostgreSQL itself, under a load such as Synapse's: with its defaults, with the values that the check
// tuning would choose, and with pgtune's, for machines of 1, 4 and 24 GiB. It takes seven minutes.
//
// With -port it times the port of a large SQLite database instead, which it makes out of a real homeserver's.
//
// The homeserver's database is the one of the project's fixture; with $SYNAPSE_DOCTOR_DATA, that of a real one as well.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func main() {
	program := flag.String("doctor", "bin/synapse-doctor", "the synapse-doctor to time")
	rounds := flag.Int("n", 20, "how many rounds")
	long := flag.Int("long", 3, "how many rounds of what takes seconds; 0: none")
	doublings := flag.Int("doublings", 5, "how often the database of the long ones is doubled: 5 makes 0.7 GB of it")
	port := flag.Bool("port", false, "time the port from SQLite, and nothing else")
	tuned := flag.Bool("tuning", false, "time PostgreSQL with several settings, and nothing else")
	size := flag.Float64("size", 1.9, "with -port: how large a SQLite database is made for it, in GB")
	file := flag.String("sqlite", "", "with -port: a homeserver's SQLite database that exists, instead")
	script := flag.Bool("script", false, "with -port: time Synapse's own script, too, which takes nine minutes for 1.9 GB")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	var err error
	switch {
	case *tuned:
		err = benchTuning(ctx, 4*max(*long, 1), *doublings)
	case *port:
		err = benchPort(ctx, *program, portOptions{rounds: *long, bytes: int64(*size * 1e9), file: *file, script: *script})
	default:
		err = bench(ctx, *program, *rounds, *long, *doublings)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, program string, rounds, long, doublings int) (err error) {
	if rounds < 0 || long < 0 {
		return errors.New("-n and -long must not be negative")
	}
	if program, err = filepath.Abs(program); err != nil {
		return err
	}
	if rounds > 0 {
		if err := benchChecks(ctx, program, rounds); err != nil {
			return err
		}
		if err := benchPlugins(ctx, program, rounds); err != nil {
			return err
		}
	}
	if long > 0 {
		return benchLocale(ctx, program, long, doublings)
	}
	return nil
}

func benchChecks(ctx context.Context, program string, rounds int) (err error) {
	server, err := pgtest.New(ctx, pgtest.Config{Sound: true, Settings: captureSettings})
	if err != nil {
		return fmt.Errorf("start a PostgreSQL server: %w", err)
	}
	defer server.Close()
	psql, err := findPsql(server)
	if err != nil {
		return err
	}
	homes, err := homeservers(ctx, server)
	defer func() {
		for _, h := range homes {
			err = errors.Join(err, os.RemoveAll(h.dir))
		}
	}()
	if err != nil {
		return err
	}
	for _, h := range homes {
		script, err := capture(ctx, program, h)
		if err != nil {
			return fmt.Errorf("%s: see what the doctor asks: %w", h.name, err)
		}
		t, err := measure(ctx, program, psql, h, script, rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
		m, err := peakMemory(ctx, h.check(program))
		if err != nil {
			return fmt.Errorf("%s: measure the memory: %w", h.name, err)
		}
		printResult(os.Stdout, h, script, t, m)
	}
	return nil
}
