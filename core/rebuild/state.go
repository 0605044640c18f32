package rebuild

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// state is where the work stands, as the server shows it.
type state struct {
	source  string     // the present name of the old database; empty when it was dropped
	current *database  // what has the name that Synapse uses
	fresh   *database  // what has the name under which the new one is filled
	rebuilt *database  // what has the name that an undo gives the new one
	others  []database // what else has one of the names that the plan uses, the old database left out
}

// database is one row of pg_database.
type database struct {
	OID     uint32
	Name    string
	Owner   string
	Limit   int32
	Comment string
}

const stateQuery = `SELECT d.oid, d.datname::text, pg_get_userbyid(d.datdba)::text, d.datconnlimit, coalesce(shobj_description(d.oid, 'pg_database'), '')
FROM pg_database d WHERE d.oid = $1 OR d.datname = ANY ($2)`

func (k *task) look(ctx context.Context) (state, error) {
	var s state
	rows, err := k.main.Query(ctx, stateQuery, k.p.oid, []string{k.p.database, k.p.fresh, k.p.before, k.p.rebuilt})
	if err != nil {
		return s, fmt.Errorf("look at the server's databases: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[database])
	if err != nil {
		return s, fmt.Errorf("look at the server's databases: %w", err)
	}
	for _, d := range found {
		if d.OID == k.p.oid {
			s.source = d.Name
		}
		switch {
		case d.Name == k.p.database:
			s.current = &d
		case d.OID == k.p.oid:
		case d.Name == k.p.fresh:
			s.fresh = &d
		case d.Name == k.p.rebuilt:
			s.rebuilt = &d
		default:
			s.others = append(s.others, d)
		}
	}
	return s, nil
}

// The comment on the new database says whose it is and how far it is, until it gets the old one's comment.
const (
	stageFilling  = "filling"
	stageComplete = "complete"
)

func (k *task) comment(stage string) string {
	return fmt.Sprintf("synapse-doctor: rebuild of %s (%d) as %s, %s", k.p.database, k.p.oid, k.p.fresh, stage)
}

// stage is how far a database is that this very plan has made; empty for any other.
func (k *task) stage(d *database) string {
	for _, stage := range []string{stageFilling, stageComplete} {
		if d.Comment == k.comment(stage) {
			return stage
		}
	}
	return ""
}

// tokenCreating is saved before the new database is made, for the instant in which it has no comment yet.
const tokenCreating = "creating"

// mayDrop refuses a database that this plan has not provably made. One without a comment is ours when the name was free
// before the plan said that it would take it, and nobody has put anything into it.
func (k *task) mayDrop(ctx context.Context, d *database, resume string) error {
	if k.stage(d) != "" {
		return nil
	}
	foreign := fmt.Errorf("there is a database %s that this plan has not made: it is not touched. Rename or drop it, then run this again", d.Name)
	if resume != tokenCreating || d.Comment != "" || d.Limit != 0 {
		return foreign
	}
	conn, err := k.session(ctx, d.Name)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	var empty bool
	if err := conn.QueryRow(ctx, emptyQuery).Scan(&empty); err != nil {
		return fmt.Errorf("look into the database %s: %w", d.Name, err)
	}
	if !empty {
		return foreign
	}
	return nil
}

const emptyQuery = `SELECT NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND c.relpersistence <> 't')`

// drop drops the new database and ends whatever an earlier call has left in it.
func (k *task) drop(ctx context.Context) error {
	if _, err := k.main.Exec(ctx, "DROP DATABASE IF EXISTS "+ident(k.p.fresh)+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop the unfinished database %s: %w", k.p.fresh, err)
	}
	return nil
}

// swap exchanges the names in one transaction. Both databases are shut by their connection limit and stay so.
func (k *task) swap(ctx context.Context) error {
	k.w.point("before-swap")
	k.say(doctor.Progress{Text: "exchange the names of the two databases"})
	var comment *string
	if err := k.main.QueryRow(ctx, `SELECT shobj_description($1::oid, 'pg_database')`, k.p.oid).Scan(&comment); err != nil {
		return fmt.Errorf("read the comment on the database %s: %w", k.p.database, err)
	}
	text := "NULL"
	if comment != nil {
		text = literal(*comment)
	}
	err := k.exchange(ctx, k.p.database, k.p.before, k.p.fresh, "COMMENT ON DATABASE "+ident(k.p.database)+" IS "+text)
	if err != nil {
		return err
	}
	k.w.point("after-swap")
	return nil
}

// exchange gives the database current the name away, and its name to the database next. A session in either forbids it.
func (k *task) exchange(ctx context.Context, current, away, next string, more ...string) error {
	statements := append([]string{
		"ALTER DATABASE " + ident(current) + " CONNECTION LIMIT 0",
		"ALTER DATABASE " + ident(next) + " CONNECTION LIMIT 0",
		"ALTER DATABASE " + ident(current) + " RENAME TO " + ident(away),
		"ALTER DATABASE " + ident(next) + " RENAME TO " + ident(current),
	}, more...)
	if err := k.evict(ctx, current, next); err != nil {
		return err
	}
	err := pgx.BeginFunc(ctx, k.main, func(tx pgx.Tx) error {
		for i, statement := range statements {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
			k.w.point(fmt.Sprintf("swap-%d", i))
		}
		return nil
	})
	const objectInUse = "55006"
	if sqlState(err) == objectInUse {
		return fmt.Errorf("the databases %s and %s can't be renamed while somebody is connected: %s", current, next, k.connected(ctx, current, next))
	}
	if err != nil {
		return fmt.Errorf("exchange the names of the databases %s and %s: %w", current, next, err)
	}
	return nil
}

const evictQuery = `SELECT count(pg_terminate_backend(pid, 2000)) FROM pg_stat_activity
WHERE datname = ANY ($1) AND pid <> pg_backend_pid() AND application_name LIKE 'synapse-doctor/%'`

// evict ends the sessions that calls of the doctor have left in the databases. Whatever they were doing is over.
func (k *task) evict(ctx context.Context, databases ...string) error {
	if _, err := k.main.Exec(ctx, evictQuery, databases); err != nil {
		return fmt.Errorf("end the doctor's own sessions in %s: %w", strings.Join(databases, " and "), err)
	}
	return nil
}

const connectedQuery = `SELECT coalesce(string_agg(format('%s in %s, process %s', usename, datname, pid), '; ' ORDER BY pid), 'nobody any more: run this again')
FROM pg_stat_activity WHERE datname = ANY ($1) AND pid <> pg_backend_pid()`

// connected names who is in the databases.
func (k *task) connected(ctx context.Context, databases ...string) string {
	var who string
	if err := k.main.QueryRow(ctx, connectedQuery, databases).Scan(&who); err != nil {
		return err.Error()
	}
	return who
}

// swapped makes sure that what has the name now is the database that this plan has filled.
func (k *task) swapped(ctx context.Context, s state) error {
	if s.current == nil {
		return fmt.Errorf("the old database is called %s, and there is no database %s: somebody has renamed or dropped it", k.p.before, k.p.database)
	}
	conn, err := k.session(ctx, k.p.database)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	ours, err := k.hasMarker(ctx, conn)
	if err != nil {
		return err
	}
	if !ours {
		return fmt.Errorf("the database %s is not the one that was filled from %s", k.p.database, k.p.before)
	}
	return nil
}
