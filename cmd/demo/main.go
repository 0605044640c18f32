// Command demo shows what synapse-doctor does: it makes a small homeserver's database on a PostgreSQL server of its own,
// breaks it in several ways, and has the real program examine, explain and mend it. Then it looks for itself whether all
// is well. It leaves nothing behind, and exits 1 when something is not as it should be.
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
	program := flag.String("doctor", "bin/synapse-doctor", "the synapse-doctor to show")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := demonstrate(ctx, *program); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demonstrate(ctx context.Context, program string) (err error) {
	program, err = filepath.Abs(program)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := newScreen(os.Stdout)
	s.scene("A small, sick homeserver is made on a PostgreSQL server of its own …")
	// As Red Hat's packages install it: nobody gets in over TCP with a password.
	server, err := pgtest.New(ctx, pgtest.Config{Sound: true, Locales: []string{"en_US.UTF-8"}, HBA: []string{
		"local   all             all                                     peer",
		"host    all             all             127.0.0.1/32            ident",
		"host    all             all             ::1/128                 ident",
	}})
	if err != nil {
		return fmt.Errorf("start a PostgreSQL server: %w", err)
	}
	defer server.Close()
	h, err := found(ctx, server, dir)
	if err != nil {
		return err
	}
	if err := h.fallIll(ctx); err != nil {
		return err
	}
	return play(ctx, s, &doctor{program: program, dir: dir, admin: fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", server.SocketDir, server.Port)}, h)
}

// play is the demonstration itself. Each scene's exit code is part of what it shows.
func play(ctx context.Context, s *screen, d *doctor, h *homeserver) error {
	s.scene("Synapse does not even get in. A check only looks, and exits 2 because it finds something:")
	if err := d.run(ctx, s, 2, "check connection ident -c homeserver.yaml"); err != nil {
		return err
	}
	s.scene("One record more in pg_hba.conf, and the proof: Synapse gets in, a wrong password does not:")
	if err := d.run(ctx, s, 0, "fix ident -c homeserver.yaml --apply --yes"); err != nil {
		return err
	}
	s.scene("Now the whole of it can be seen:")
	if err := d.run(ctx, s, 2, "check -c homeserver.yaml --skip version --skip tuning --skip schema"); err != nil {
		return err
	}
	s.scene("A fix without --apply shows what it would do, and changes nothing:")
	if err := d.run(ctx, s, 2, "fix -c homeserver.yaml --skip version --skip tuning --skip schema"); err != nil {
		return err
	}
	if err := h.untouched(ctx); err != nil {
		return err
	}
	s.scene("Applied while somebody has forgotten to stop Synapse, it refuses:")
	if err := h.whileSynapseRuns(ctx, func() error {
		return d.run(ctx, s, 2, "fix sequence -c homeserver.yaml --apply --yes")
	}); err != nil {
		return err
	}
	if err := h.untouched(ctx); err != nil {
		return err
	}
	s.scene("Applied once Synapse is stopped, it mends, and the checks run again as proof. A database in another locale is filled anew and compared, row by row:")
	if err := d.run(ctx, s, 0, "fix -c homeserver.yaml --skip version --skip tuning --skip schema --apply --yes-dangerous"); err != nil {
		return err
	}
	s.scene("Nothing wrong is left to find, and a check exits 0:")
	if err := d.run(ctx, s, 0, "check -c homeserver.yaml --skip version --skip tuning --skip schema"); err != nil {
		return err
	}
	s.scene("The journal has all of it, and what synapse-doctor undo needs to put it back:")
	if err := d.run(ctx, s, 0, "history"); err != nil {
		return err
	}
	s.scene("The demonstration has looked for itself, without the doctor:")
	proofs, err := h.prove(ctx)
	if err != nil {
		return err
	}
	s.list(proofs)
	return nil
}
