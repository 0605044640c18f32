package upkeep

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// server is what concerns all of its databases.
type server struct {
	Version         int // server_version_num
	Recovering      bool
	Autovacuum      bool
	AutovacuumFrom  string // pg_settings.source
	TrackCounts     bool
	TrackCountsFrom string
	FreezeMaxAge    int64 // autovacuum_freeze_max_age
	MultixactMaxAge int64 // autovacuum_multixact_freeze_max_age
	Name            string

	ages []databaseAge // the oldest first
	// The oldest of this database's tables: those that can be vacuumed, and temporary ones, which only their own session can vacuum.
	lasting, temporary tableAge
}

type tableAge struct {
	Name           string
	XID, Multixact int64
}

// databaseAge is how far a database's oldest transaction and multixact are behind.
type databaseAge struct {
	Name            string
	XID, Multixact  int64
	Ours, Connected bool
}

const serverQuery = `SELECT current_setting('server_version_num')::int, pg_is_in_recovery(),
  current_setting('autovacuum')::bool, (SELECT source FROM pg_settings WHERE name = 'autovacuum'),
  current_setting('track_counts')::bool, (SELECT source FROM pg_settings WHERE name = 'track_counts'),
  current_setting('autovacuum_freeze_max_age')::bigint, current_setting('autovacuum_multixact_freeze_max_age')::bigint,
  current_database()::text`

const agesQuery = `SELECT datname::text, age(datfrozenxid)::bigint, mxid_age(datminmxid)::bigint, datname = current_database(), datallowconn
FROM pg_database ORDER BY 2 DESC, 1`

// oldestQuery takes the ages of transactions and of multixacts each from the table where it is highest.
const oldestQuery = `SELECT coalesce((array_agg(quote_ident(n.nspname) || '.' || quote_ident(c.relname) ORDER BY greatest(xid, multi) DESC))[1], ''),
  coalesce(max(xid), 0)::bigint, coalesce(max(multi), 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT age(nullif(c.relfrozenxid, '0')) AS xid, mxid_age(nullif(c.relminmxid, '0')) AS multi) a
WHERE (c.relkind IN ('r', 'm') OR c.relkind = 't' AND NOT $1) AND (c.relpersistence = 't') = $1`

func (e *examination) lookAtServer(ctx context.Context, tx pgx.Tx) error {
	s := &e.server
	if err := tx.QueryRow(ctx, serverQuery).Scan(&s.Version, &s.Recovering, &s.Autovacuum, &s.AutovacuumFrom, &s.TrackCounts, &s.TrackCountsFrom,
		&s.FreezeMaxAge, &s.MultixactMaxAge, &s.Name); err != nil {
		return fmt.Errorf("read the server's settings: %w", err)
	}
	rows, err := tx.Query(ctx, agesQuery)
	if err != nil {
		return fmt.Errorf("read the ages of the databases: %w", err)
	}
	if s.ages, err = pgx.CollectRows(rows, pgx.RowToStructByPos[databaseAge]); err != nil {
		return fmt.Errorf("read the ages of the databases: %w", err)
	}
	for temporary, to := range map[bool]*tableAge{false: &s.lasting, true: &s.temporary} {
		err := tx.QueryRow(ctx, oldestQuery, temporary).Scan(&to.Name, &to.XID, &to.Multixact)
		if err != nil {
			return fmt.Errorf("read the ages of the tables: %w", err)
		}
	}
	return nil
}

func (e *examination) judgeServer() {
	s := e.server
	if !s.Autovacuum {
		e.find(settingOff("autovacuum", s.AutovacuumFrom, "Autovacuum is off: dead rows stay in every table, and the planner's statistics get old."))
	}
	if !s.TrackCounts {
		e.find(settingOff("track_counts", s.TrackCountsFrom, "track_counts is off, and so autovacuum is too: nobody counts what there is to clean up."))
	}
	for _, d := range s.ages {
		if d.Ours {
			e.measure(doctor.Measure{Object: e.object(), Name: "transaction-age", Value: float64(d.XID), Unit: "transactions"})
			e.measure(doctor.Measure{Object: e.object(), Name: "multixact-age", Value: float64(d.Multixact), Unit: "transactions"})
		}
		if f, found := e.judgeAge(d); found {
			e.find(f)
		}
	}
}

func settingOff(setting, source, summary string) doctor.Finding {
	return doctor.Finding{
		Code: AutovacuumOff, Severity: doctor.Warning, Object: doctor.Object{Kind: "setting", Name: setting},
		Summary: summary, Observed: setting + " = off", Expected: setting + " = on, PostgreSQL's default",
		Remedy: fmt.Sprintf("Turn it on, as an administrator of the server; neither needs a restart:\n\n    ALTER SYSTEM SET %s = on;\n    SELECT pg_reload_conf();\n\n"+
			"ALTER SYSTEM can't help where the server's command line says otherwise; then change that. If vacuum runs at night by a job of yours, "+
			"keep the job and turn autovacuum on all the same.", setting),
		Evidence: map[string]string{"set by": source},
	}
}

// The server warns when 40 million numbers are left, and stops giving them out at 3 million. From vacuum_failsafe_age on
// vacuum itself drops everything for this.
const (
	lastNumber  = 1<<31 - 1
	failsafeAge = 1_600_000_000
)

// tooOld reports whether a table alone would make the database too old.
func (e *examination) tooOld(t tableAge) bool {
	return t.XID > e.limit(e.server.FreezeMaxAge) || t.Multixact > e.limit(e.server.MultixactMaxAge)
}

// limit is the age from which it is said.
func (e *examination) limit(maxAge int64) int64 {
	return min(int64(float64(maxAge)*e.threshold(wraparoundShare)/100), failsafeAge)
}

func (e *examination) judgeAge(d databaseAge) (doctor.Finding, bool) {
	age, maxAge, what, setting := d.XID, e.server.FreezeMaxAge, "transactions", "autovacuum_freeze_max_age"
	// The one that is further on its way counts.
	if float64(d.Multixact)/float64(e.server.MultixactMaxAge) > float64(age)/float64(maxAge) {
		age, maxAge, what, setting = d.Multixact, e.server.MultixactMaxAge, "multixacts", "autovacuum_multixact_freeze_max_age"
	}
	if age <= e.limit(maxAge) {
		return doctor.Finding{}, false
	}
	f := doctor.Finding{
		Code: WraparoundNear, Severity: doctor.Warning, Object: doctor.Object{Kind: "database", Name: d.Name},
		Summary:  fmt.Sprintf("The oldest of the %s that the database %s still has to remember is %s back, though vacuum should have cleared it away.", what, d.Name, number(float64(age))),
		Observed: fmt.Sprintf("%s %s, %.0f %% of the way to the end of the numbers", number(float64(age)), what, 100*float64(age)/lastNumber),
		Expected: fmt.Sprintf("not much more than %s = %d", setting, maxAge),
		Evidence: map[string]string{"age of datfrozenxid": fmt.Sprint(d.XID), "age of datminmxid": fmt.Sprint(d.Multixact), setting: fmt.Sprint(maxAge)},
		Fixable:  d.Ours && e.tooOld(e.server.lasting),
	}
	if age >= failsafeAge {
		f.Severity = doctor.Error
		f.Summary = fmt.Sprintf("The database %s is about to stop: %s numbers for %s are left, and then the server accepts no more writes.", d.Name, number(float64(lastNumber-age)), what)
	}
	f.Remedy = e.ageRemedy(d, f.Fixable)
	if t := e.server.temporary; d.Ours && e.tooOld(t) {
		f.Evidence["temporary table"] = t.Name
	}
	return f, true
}

const endHolders = "First end what keeps vacuum from it (old sessions, prepared transactions, replication slots: this check names what it sees of them). "

func (e *examination) ageRemedy(d databaseAge, fixable bool) string {
	all := fmt.Sprintf("    vacuumdb --freeze --echo %s", d.Name)
	if !d.Ours {
		remedy := endHolders + "Then, as an administrator:\n\n" + all
		if !d.Connected {
			remedy += fmt.Sprintf("\n\nIt accepts no connections, so that these have to be allowed meanwhile:\n\n    ALTER DATABASE %s ALLOW_CONNECTIONS true;", name(d.Name))
		}
		return remedy
	}
	remedy := ""
	if t := e.server.temporary; e.tooOld(t) {
		remedy = fmt.Sprintf("A temporary table, %s, is as old as that, and only the session that made it can vacuum it: end that session, or drop the table:\n\n    DROP TABLE %s;\n\n", t.Name, t.Name)
	}
	if !fixable {
		return remedy + "No other table is that old. Have the server look anew, as an administrator:\n\n" + fmt.Sprintf("    vacuumdb --echo --table pg_catalog.pg_class %s", d.Name)
	}
	return remedy + endHolders + "Then vacuum the oldest tables; Synapse can go on running:\n\n    synapse-doctor fix upkeep\n\nor all of the database, as an administrator:\n\n" + all
}
