package database

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// entry is what was seen of one database of the configuration, and what is wrong with it.
type entry struct {
	target *doctor.Target
	db     *doctor.Database
	need   need

	admin   bool   // seen by the administrator, who can mend it
	noAdmin string // why not

	server   server
	login    role // that Synapse logs in with
	acting   role // that its sessions then are: another one after ALTER ROLE … SET role
	name     string
	ident    string
	database *database // nil when there is none
	others   []string  // then, what else the role owns
	settings []setting // of pg_db_role_setting, those that win first
	inside   *inside   // nil when nobody can go in

	faults []fault
}

// fault is a finding. A latent one is not reported, since it follows from another: what a role that is missing may not do.
type fault struct {
	doctor.Finding
	latent bool
}

// look examines every database that can be. The error says which could not, and why.
func look(ctx context.Context, t *doctor.Target) ([]*entry, error) {
	config, err := synapse.Load(t.ConfigFiles...)
	if err != nil {
		return nil, err
	}
	var seen []*entry
	var unseen []string
	var errs []error
	for _, d := range t.Meeting(doctor.NeedsPostgresEntry) {
		e := &entry{target: t, db: d, need: needOf(config, d.Label), admin: t.AdminIn(d) != nil, noAdmin: d.NoAdmin}
		if !e.admin && !d.Meets.Has(doctor.NeedsPostgres) {
			unseen = append(unseen, fmt.Sprintf("Synapse's login to %s does not work, and without an administrator's connection nothing else can be seen of it: %s", d.Where(), d.NoAdmin))
			continue
		}
		if err := e.look(ctx); err != nil {
			errs = append(errs, fmt.Errorf("database %s: %w", d.Label, err))
		}
		if e.server.version > 0 {
			seen = append(seen, e)
		}
	}
	judge(seen)
	if len(errs) == 0 && len(seen) == 0 && len(unseen) > 0 {
		return nil, doctor.SkipFailed("%s", strings.Join(unseen, "; "))
	}
	for _, why := range unseen {
		errs = append(errs, errors.New(why))
	}
	return seen, errors.Join(errs...)
}

// look fills in the entry, from outside the database and then from inside.
func (e *entry) look(ctx context.Context) error {
	role, name := e.db.Settings["user"], e.db.Settings["dbname"]
	if e.db.Meets.Has(doctor.NeedsPostgres) {
		realRole, realName, err := sessionNames(ctx, e.db)
		switch {
		case err == nil:
			if e.admin && realName != name {
				// A pooler gives databases other names than the server does.
				e.admin, e.noAdmin = false, fmt.Sprintf("the server calls the database %s, the configuration %s: a pooler such as PgBouncer stands between", realName, name)
			}
			role, name = realRole, realName
		case !e.admin:
			return err
		}
	}
	from, within := e.db, e.db
	if e.admin {
		from, within = e.target.Admin, e.target.AdminIn(e.db)
	}
	if err := from.Read(ctx, func(tx pgx.Tx) error { return e.lookOutside(ctx, tx, role, name) }); err != nil {
		return err
	}
	switch {
	case e.database == nil:
		e.inside = fresh()
		return nil
	case e.database.shut() != "":
		return nil // reported; and nobody gets in to see more
	}
	in := &inside{}
	if err := within.Read(ctx, func(tx pgx.Tx) error { return e.lookInside(ctx, tx, in) }); err != nil {
		return err
	}
	if e.admin {
		in.identify(ctx, e.target, within)
	}
	e.inside = in
	return nil
}

const namesQuery = `SELECT session_user::text, current_database()::text`

// sessionNames are the role and the database as the server calls them.
func sessionNames(ctx context.Context, d *doctor.Database) (role, database string, err error) {
	err = d.Read(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, namesQuery).Scan(&role, &database) })
	return role, database, err
}

// fixable says why the doctor can't mend what is wrong here; empty when it can.
func (e *entry) fixable() (whyNot string) {
	switch {
	case !e.admin && e.noAdmin == "":
		return "there is no administrator's connection"
	case !e.admin:
		return e.noAdmin
	case e.server.standby:
		return "the server is a standby, on which nothing can be changed"
	case e.database == nil:
		return ""
	case e.inside == nil:
		return "nobody can look into the database, to see whether it is this homeserver's"
	}
	return e.inside.whyNot
}

// expects is what the engine is to make sure of before the plan is applied.
func (e *entry) expects() doctor.Expectation {
	switch {
	case e.database == nil:
		return doctor.ExpectAbsent
	case e.inside.tables == 0:
		return doctor.ExpectEmpty
	}
	return doctor.ExpectSynapse
}
