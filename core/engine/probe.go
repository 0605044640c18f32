package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/journal"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

const probePatience = 30 * time.Second

// runProbe carries out a probe step. It changes nothing.
func (a *application) runProbe(ctx context.Context, i int) error {
	// What is done is done: that the administrator no longer waits is no reason to undo it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probePatience)
	defer cancel()
	probe := a.steps[i].Probe
	d := a.engine.Target.Database(probe.Database)
	var err error
	if probe.Login != nil {
		err = a.engine.probeLogin(ctx, d, *probe.Login)
	} else {
		err = d.Read(ctx, func(tx pgx.Tx) error { return holds(ctx, tx, probe.Holds) })
	}
	if err != nil {
		return a.failed(ctx, span(i, i+1), fmt.Errorf("%s: %w", a.steps[i].Title, err))
	}
	return a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepApplied})
}

// probeLogin connects afresh as Synapse would.
func (e *Engine) probeLogin(ctx context.Context, d *doctor.Database, l doctor.Login) error {
	settings := maps.Clone(d.Settings)
	if l.Address != "" {
		settings["hostaddr"] = l.Address
	}
	if l.WrongPassword {
		settings["password"] = "wrong-" + rand.Text()
	}
	c, err := pgdb.Connect(ctx, settings, pgdb.Options{ApplicationName: doctor.ApplicationName(e.Target.RunID), ReadOnly: true})
	if err == nil {
		c.Close(context.WithoutCancel(ctx))
		if l.MustFail {
			return errors.New("the login works, and it must not")
		}
		return nil
	}
	if !l.MustFail {
		return fmt.Errorf("the login does not work: %w", err)
	}
	// Refused by the server is what was wanted; a server that did not answer proves nothing.
	var failed *pgdb.ConnectError
	if errors.As(err, &failed) && (failed.SQLSTATE == "28P01" || failed.SQLSTATE == "28000") {
		return nil
	}
	return fmt.Errorf("whether the login fails could not be seen: %w", err)
}
