package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// shuts reports whether a plan works behind shut doors: the doctor then keeps no session of its own in the database, and
// its lock is in the one where the administrator logs in to.
func shuts(p doctor.Plan) bool { return slices.Contains(p.Requires, doctor.RequireShut) }

// isShut reports whether a step is the one that shuts the plan's database.
func (e *Engine) isShut(p doctor.Plan, s doctor.Step) bool {
	d := e.Target.Database(p.Database)
	return d != nil && s.SQL != nil && s.SQL.Statement == doctor.ShutStatement(d.Settings["dbname"])
}

// validateShut refuses a plan that requires its database shut and does not shut it before it changes something there.
func (e *Engine) validateShut(p doctor.Plan) error {
	if !shuts(p) {
		return nil
	}
	if !needsAdmin(p) || !slices.Contains(p.Requires, doctor.RequireStopped) {
		return fmt.Errorf("shuts a database without requiring an administrator and Synapse stopped")
	}
	for i, s := range p.Steps {
		switch {
		case e.isShut(p, s):
			return nil
		case s.SQL != nil, s.EditFile != nil, s.Operation != nil && len(s.Operation.Effects.Databases) > 0:
			return fmt.Errorf("step %d changes something before the database is shut", i+1)
		}
	}
	return fmt.Errorf("requires the database shut, and no step shuts it")
}

const superuserQuery = `SELECT rolsuper FROM pg_roles WHERE rolname = current_user`

// mayShut refuses an administrator whom a shut database would shut out as well.
func (a *application) mayShut(ctx context.Context) error {
	c, err := a.anySession(ctx)
	if err != nil {
		return err
	}
	var super bool
	if err := c.QueryRow(ctx, superuserQuery).Scan(&super); err != nil {
		return fmt.Errorf("ask who the administrator is: %w", err)
	}
	if !super {
		return refuse("it needs a superuser: the database is shut to everybody else while it is mended. Give --admin-dsn with the login of one, such as postgres")
	}
	return nil
}

const limitQuery = `SELECT datconnlimit = 0 FROM pg_database WHERE datname = $1`

// stillShut makes sure, before an operation goes to work, that the database which was shut has not been opened, and that
// nobody is in it.
func (a *application) stillShut(ctx context.Context, i int) error {
	if !shuts(a.plan) || !slices.ContainsFunc(a.steps[:i], func(s doctor.Step) bool { return a.engine.isShut(a.plan, s) }) {
		return nil
	}
	a.leaveDatabases(ctx)
	c, err := a.anySession(ctx)
	if err != nil {
		return err
	}
	name := a.engine.Target.Database(a.plan.Database).Settings["dbname"]
	var shut bool
	if err := c.QueryRow(ctx, limitQuery, name).Scan(&shut); err != nil {
		return fmt.Errorf("ask whether the database %s is shut: %w", name, err)
	}
	if !shut {
		return refuse("somebody has opened the database %s while it was being mended: shut it (%s) and see that nothing is connected, then run this again", name, doctor.ShutStatement(name))
	}
	return a.engine.synapseStopped(ctx, a.plan)
}
