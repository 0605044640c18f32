package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
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
		if probe.Admin {
			if d = a.engine.Target.Admin; probe.Database != "" {
				d = a.engine.Target.AdminIn(a.engine.Target.Database(probe.Database))
			}
			if d == nil {
				return a.failed(ctx, span(i, i+1), refuse("there is no administrator's connection any more"))
			}
		}
		err = d.Read(ctx, func(tx pgx.Tx) error { return holds(ctx, tx, probe.Holds) })
	}
	if err != nil {
		return a.failed(ctx, span(i, i+1), fmt.Errorf("%s: %w", a.steps[i].Title, err))
	}
	return a.mark(ctx, span(i, i+1), journal.Step{Status: journal.StepApplied})
}

// afterAuthentication are the errors of a server that knows by then that the role is who it says: there is no such
// database, the role may not use it, or it has no connection left (InitPostgres comes to them in that order).
var afterAuthentication = []string{"3D000", "42501", "53300"}

// probeLogin connects afresh as Synapse would.
func (e *Engine) probeLogin(ctx context.Context, d *doctor.Database, l doctor.Login) error {
	settings := maps.Clone(d.Settings)
	if l.Address != "" {
		settings["hostaddr"] = l.Address
	}
	if l.WrongPassword {
		settings["password"] = "wrong-" + rand.Text()
	}
	options := d.Options()
	options.ReadOnly = true
	c, err := pgdb.Connect(ctx, settings, options)
	if err == nil {
		c.Close(context.WithoutCancel(ctx))
		if l.MustFail {
			return errors.New("the login works, and it must not")
		}
		return nil
	}
	var failed *pgdb.ConnectError
	if l.Accepted && errors.As(err, &failed) && slices.Contains(afterAuthentication, failed.SQLSTATE) {
		err = nil
	}
	switch {
	case err == nil && l.MustFail:
		return errors.New("the server accepts the login, and it must not")
	case err == nil:
		return nil
	case !l.MustFail:
		return fmt.Errorf("the login does not work: %w", err)
	}
	// Refused by the server is what was wanted; a server that did not answer proves nothing.
	if errors.As(err, &failed) && (failed.SQLSTATE == "28P01" || failed.SQLSTATE == "28000") {
		return nil
	}
	return fmt.Errorf("whether the login fails could not be seen: %w", err)
}
