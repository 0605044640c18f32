package upkeep

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// session is one that has a transaction open in this database.
type session struct {
	PID               int
	User, Application string
	State             string
	Open, Idle        float64 // seconds since its transaction began, and since it last did anything
	Snapshot          int64   // age of backend_xmin, in transactions
	Holds             bool    // a snapshot, or a transaction number
	Hidden            bool    // this role can see no more of it
	Building          bool    // an index
}

// sessionsQuery leaves out vacuum, whose snapshots hold nothing back, and the doctor's own reading. Of other roles' sessions
// everybody may see the snapshot's age, but not since when or what for.
const sessionsQuery = `SELECT pid, coalesce(usename, '')::text, coalesce(application_name, ''), coalesce(state, ''),
  coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8, coalesce(extract(epoch FROM clock_timestamp() - state_change), 0)::float8,
  coalesce(age(backend_xmin), 0)::bigint, backend_xmin IS NOT NULL OR backend_xid IS NOT NULL, xact_start IS NULL,
  pid IN (SELECT pid FROM pg_stat_progress_create_index)
FROM pg_stat_activity
WHERE datname = current_database() AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL AND usesysid IS NOT NULL) AND pid <> pg_backend_pid()
  AND coalesce(backend_type, '') NOT IN ('autovacuum worker', 'parallel worker', 'walsender')
  AND coalesce(application_name, '') NOT LIKE 'synapse-doctor/%' AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
ORDER BY greatest(age(backend_xmin), 0) DESC, xact_start, pid LIMIT 200`

// hiddenQuery counts the sessions in this database of which this role sees no more than that they are there.
const hiddenQuery = `SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND query = '<insufficient privilege>' AND usesysid IS NOT NULL`

const preparedQuery = `SELECT gid, owner::text, extract(epoch FROM clock_timestamp() - prepared)::float8, age(transaction)::bigint
FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared LIMIT 50`

// slot is a replication slot.
type slot struct {
	Name, Type  string
	Database    string
	Active      bool
	Status      string // wal_status, since 13
	Kept        *int64 // bytes of write-ahead log since restart_lsn
	Held        int64  // age of its xmin or catalog_xmin, in transactions
	Since       string // inactive_since, since 17
	Invalidated string // invalidation_reason, since 17
}

// slotsQuery takes what only newer servers have from the row as JSON.
const slotsQuery = `SELECT slot_name::text, slot_type, coalesce(database, '')::text, active, coalesce(to_jsonb(s) ->> 'wal_status', ''),
  pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint, greatest(coalesce(age(xmin), 0), coalesce(age(catalog_xmin), 0))::bigint,
  coalesce(to_jsonb(s) ->> 'inactive_since', ''), coalesce(to_jsonb(s) ->> 'invalidation_reason', '')
FROM pg_replication_slots s WHERE NOT temporary ORDER BY 1`

// standbysQuery lists the standbys that tell what they still need without having a slot; with one, the slot says it.
const standbysQuery = `SELECT coalesce(application_name, ''), coalesce(host(client_addr), 'the local socket'), age(backend_xmin)::bigint
FROM pg_stat_replication WHERE backend_xmin IS NOT NULL AND pid NOT IN (SELECT active_pid FROM pg_replication_slots WHERE active_pid IS NOT NULL)
ORDER BY 3 DESC`

type prepared struct {
	GID, Owner string
	Age        float64
	Held       int64
}

type standby struct {
	Name, Address string
	Held          int64
}

// holders are what may keep dead rows from being removed.
type holders struct {
	sessions []session
	hidden   int
	prepared []prepared
	slots    []slot
	standbys []standby
}

func readHolders(ctx context.Context, tx pgx.Tx) (h holders, err error) {
	if h.sessions, err = collect[session](ctx, tx, sessionsQuery); err != nil {
		return h, fmt.Errorf("read the open sessions: %w", err)
	}
	if err := tx.QueryRow(ctx, hiddenQuery).Scan(&h.hidden); err != nil {
		return h, fmt.Errorf("read the open sessions: %w", err)
	}
	if h.prepared, err = collect[prepared](ctx, tx, preparedQuery); err != nil {
		return h, fmt.Errorf("read the prepared transactions: %w", err)
	}
	if h.slots, err = collect[slot](ctx, tx, slotsQuery); err != nil {
		return h, fmt.Errorf("read the replication slots: %w", err)
	}
	if h.standbys, err = collect[standby](ctx, tx, standbysQuery); err != nil {
		return h, fmt.Errorf("read the standbys: %w", err)
	}
	return h, nil
}

func collect[T any](ctx context.Context, tx pgx.Tx, sql string, args ...any) ([]T, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[T])
}

func (e *examination) lookAtHolders(ctx context.Context) error {
	var h holders
	if err := e.admin().Read(ctx, func(tx pgx.Tx) (err error) {
		h, err = readHolders(ctx, tx)
		return err
	}); err != nil {
		return err
	}
	e.hidden = h.hidden
	var oldest int64
	for _, s := range h.sessions {
		oldest = max(oldest, s.Snapshot)
		if f, found := e.judgeSession(s); found {
			e.find(f)
		}
	}
	for _, p := range h.prepared {
		oldest = max(oldest, p.Held)
		if f, found := e.judgePrepared(p); found {
			e.find(f)
		}
	}
	for _, s := range h.slots {
		if f, found := e.judgeSlot(s); found {
			e.find(f)
		}
	}
	for _, s := range h.standbys {
		if f, found := e.judgeStandby(s); found {
			e.find(f)
		}
	}
	e.measure(doctor.Measure{Object: e.object(), Name: "oldest-snapshot", Value: float64(oldest), Unit: "transactions"})
	return nil
}

func (s session) object() doctor.Object {
	return doctor.Object{Kind: "session", Name: fmt.Sprintf("pid %d", s.PID)}
}

func (s session) who() string {
	if s.Application == "" {
		return fmt.Sprintf("session %d of %s", s.PID, s.User)
	}
	return fmt.Sprintf("session %d of %s (%s)", s.PID, s.User, s.Application)
}

func (s session) evidence() map[string]string {
	return map[string]string{"role": s.User, "application_name": s.Application, "state": s.State, "transaction open for": age(seconds(s.Open)),
		"age of its snapshot": fmt.Sprintf("%d transactions", s.Snapshot)}
}

func (s session) idle() bool {
	return s.State == "idle in transaction" || s.State == "idle in transaction (aborted)"
}

// old reports whether it holds something back that it should have let go.
func (e *examination) old(s session) bool {
	held := float64(s.Snapshot) >= e.threshold(heldBack)
	if s.Hidden {
		return held
	}
	if s.idle() {
		return held || s.Idle >= e.threshold(idleMinutes)*60
	}
	return held || s.Holds && s.Open >= e.threshold(snapshotHours)*3600
}

func (e *examination) judgeSession(s session) (doctor.Finding, bool) {
	if !e.old(s) {
		return doctor.Finding{}, false
	}
	switch {
	case s.Building:
		return e.buildingFinding(s), true
	case s.Hidden:
		return e.hiddenFinding(s), true
	}
	if s.idle() {
		harm := "its locks stay, and with its next query it holds back vacuum"
		if s.Holds {
			harm = "no row that died since then can be removed, and its locks stay"
		}
		return doctor.Finding{
			Code: IdleInTransaction, Severity: doctor.Warning, Object: s.object(),
			Summary:  fmt.Sprintf("The %s has had a transaction open for %s and does nothing: %s.", s.who(), age(seconds(s.Open)), harm),
			Observed: fmt.Sprintf("%s for %s", s.State, age(seconds(s.Idle))),
			Expected: fmt.Sprintf("less than %.0f minutes", e.threshold(idleMinutes)),
			Remedy: "Find the program that has forgotten it, and end that. If it is a psql in somebody's terminal, or nobody knows, end the session; what it had " +
				"not committed is rolled back:\n\n" + fmt.Sprintf("    SELECT pg_terminate_backend(%d);\n\n", s.PID) +
				"The server ends such sessions itself when it is told to:\n\n    ALTER SYSTEM SET idle_in_transaction_session_timeout = '1h';\n    SELECT pg_reload_conf();",
			Evidence: s.evidence(),
		}, true
	}
	return doctor.Finding{
		Code: OldSnapshot, Severity: doctor.Warning, Object: s.object(),
		Summary:  fmt.Sprintf("The %s has been at one transaction for %s: no row that died since then can be removed, in any table.", s.who(), age(seconds(s.Open))),
		Observed: fmt.Sprintf("its snapshot is %s old, %d transactions", age(seconds(s.Open)), s.Snapshot),
		Expected: fmt.Sprintf("less than %.0f hours and %s transactions", e.threshold(snapshotHours), number(e.threshold(heldBack))),
		Remedy: "If it is a backup, let it finish, and see that it need not take so long. If it is a query that nobody waits for any more, such as a search, cancel it; " +
			"Synapse goes on:\n\n" + fmt.Sprintf("    SELECT pg_cancel_backend(%d);\n\n", s.PID) +
			"Synapse has its own queries ended after ten minutes, or what statement_timeout in its database section says; one that is older is not Synapse's, or that was changed.",
		Evidence: s.evidence(),
	}, true
}

// hiddenFinding is about a session of which no more can be seen than what it holds.
func (e *examination) hiddenFinding(s session) doctor.Finding {
	return doctor.Finding{
		Code: OldSnapshot, Severity: doctor.Warning, Object: s.object(),
		Summary: fmt.Sprintf("The %s, which this role can't look into, holds a snapshot from %s transactions ago: no row that died since then can be removed, in any table.",
			s.who(), number(float64(s.Snapshot))),
		Observed: fmt.Sprintf("its snapshot is %d transactions old", s.Snapshot),
		Expected: fmt.Sprintf("less than %s transactions", number(e.threshold(heldBack))),
		Remedy: "See what it does, as an administrator, or give the doctor --admin-dsn:\n\n" +
			fmt.Sprintf("    SELECT usename, application_name, state, now() - xact_start AS open, query FROM pg_stat_activity WHERE pid = %d;\n\n", s.PID) +
			"If it is a backup or the build of an index, let it finish. If nobody waits for it, end it:\n\n" + fmt.Sprintf("    SELECT pg_terminate_backend(%d);", s.PID),
		Evidence: map[string]string{"role": s.User, "application_name": s.Application, "age of its snapshot": fmt.Sprintf("%d transactions", s.Snapshot)},
	}
}

// builds says that it builds an index, and for how long, where that can be seen.
func (s session) builds() string {
	if s.Hidden {
		return s.who() + " is building an index"
	}
	return s.who() + " has been building an index for " + age(seconds(s.Open))
}

// buildingFinding is about the build of an index, which is of use and takes as long as it takes; Synapse builds its own so.
func (e *examination) buildingFinding(s session) doctor.Finding {
	return doctor.Finding{
		Code: OldSnapshot, Severity: doctor.Info, Object: s.object(),
		Summary:  fmt.Sprintf("The %s: let it finish. Rows that died since it began may have to stay until then.", s.builds()),
		Observed: fmt.Sprintf("its snapshot is %d transactions old", s.Snapshot),
		Expected: fmt.Sprintf("less than %.0f hours and %s transactions", e.threshold(snapshotHours), number(e.threshold(heldBack))),
		Remedy: "Let it finish: cancelled, it leaves an index that is not valid, and has to be begun anew. See how far it is:\n\n" +
			fmt.Sprintf("    SELECT index_relid::regclass, phase, blocks_done, blocks_total, lockers_done, lockers_total FROM pg_stat_progress_create_index WHERE pid = %d;", s.PID),
		Evidence: s.evidence(),
	}
}

func (e *examination) judgePrepared(p prepared) (doctor.Finding, bool) {
	if p.Age < e.threshold(preparedMinutes)*60 && float64(p.Held) < e.threshold(heldBack) {
		return doctor.Finding{}, false
	}
	return doctor.Finding{
		Code: PreparedTransaction, Severity: doctor.Warning, Object: doctor.Object{Kind: "prepared transaction", Name: p.GID},
		Summary:  fmt.Sprintf("The transaction %q was prepared %s ago and neither committed nor rolled back: no dead row since then can be removed, and its locks stay, after a restart too.", p.GID, age(seconds(p.Age))),
		Observed: fmt.Sprintf("prepared %s ago by %s", age(seconds(p.Age)), p.Owner),
		Expected: "none: Synapse prepares no transactions",
		Remedy: "Ask whoever uses two-phase commit here which of the two it should have been. If there is nobody, roll it back; only as its owner or a superuser, " +
			"connected to this database:\n\n    ROLLBACK PREPARED " + literal(p.GID) + ";",
		Evidence: map[string]string{"owner": p.Owner, "age": fmt.Sprintf("%d transactions", p.Held)},
	}, true
}

// live reports whether it still keeps something.
func (s slot) live() bool { return s.Status != "lost" && s.Invalidated == "" }

func (e *examination) judgeSlot(s slot) (doctor.Finding, bool) {
	kept := 0.0
	if s.Kept != nil {
		kept = float64(*s.Kept)
	}
	f := doctor.Finding{
		Code: SlotKeepsWAL, Severity: doctor.Warning, Object: doctor.Object{Kind: "replication slot", Name: s.Name},
		Observed: fmt.Sprintf("not in use, keeps %s of write-ahead log", size(kept)),
		Evidence: map[string]string{"type": s.Type, "active": fmt.Sprint(s.Active), "wal_status": s.Status, "keeps": size(kept), "age of its xmin": fmt.Sprintf("%d transactions", s.Held)},
	}
	if s.Database != "" {
		f.Evidence["database"] = s.Database
	}
	if s.Since != "" {
		f.Evidence["not in use since"] = s.Since
	}
	drop := "If the standby or the program that used it is gone for good, drop the slot; a standby that comes back later must then be made anew:\n\n    SELECT pg_drop_replication_slot(" + literal(s.Name) + ");"
	f.Remedy = "Start what uses it, if that is only down. " + drop + "\n\nThe server lets go of a slot by itself when it is told how much it may keep:\n\n" +
		"    ALTER SYSTEM SET max_slot_wal_keep_size = '20GB';\n    SELECT pg_reload_conf();"
	f.Expected = fmt.Sprintf("in use, or less than %s", size(e.threshold(slotWAL)))
	held := float64(s.Held) >= e.threshold(heldBack)
	switch {
	case !s.live():
		f.Summary = fmt.Sprintf("The replication slot %s is lost: what it should have kept is gone, and what used it can't go on.", s.Name)
		f.Observed, f.Expected = "wal_status is lost", "no such slot"
		if s.Invalidated != "" {
			f.Evidence["invalidated"] = s.Invalidated
		}
		f.Remedy = "Make the standby, or the subscription, anew. " + drop
	case held:
		f.Summary = fmt.Sprintf("The replication slot %s keeps dead rows from being removed, since %s transactions.", s.Name, number(float64(s.Held)))
		f.Observed = fmt.Sprintf("what it holds is %s transactions old", number(float64(s.Held)))
		f.Expected = fmt.Sprintf("less than %s", number(e.threshold(heldBack)))
	case s.Active && kept >= e.threshold(slotBehind):
		f.Summary = fmt.Sprintf("What reads the replication slot %s is far behind: the server keeps %s of write-ahead log for it.", s.Name, size(kept))
		f.Observed, f.Expected = fmt.Sprintf("in use, keeps %s", size(kept)), fmt.Sprintf("less than %s", size(e.threshold(slotBehind)))
		f.Remedy = "See why the standby or the program that reads it can't keep up: its disk, its network, a long query on it. " + drop
	case s.Active || s.Kept == nil:
		return doctor.Finding{}, false
	case kept >= e.threshold(slotWAL):
		f.Summary = fmt.Sprintf("Nobody uses the replication slot %s, and the server keeps %s of write-ahead log for it: it does so until the disk is full.", s.Name, size(kept))
	default:
		f.Severity = doctor.Info
		f.Summary = fmt.Sprintf("Nobody uses the replication slot %s just now: the server keeps all write-ahead log for it from here on, until the disk is full.", s.Name)
	}
	return f, true
}

func (e *examination) judgeStandby(s standby) (doctor.Finding, bool) {
	if float64(s.Held) < e.threshold(heldBack) {
		return doctor.Finding{}, false
	}
	return doctor.Finding{
		Code: StandbyHoldsBack, Severity: doctor.Warning, Object: doctor.Object{Kind: "standby", Name: s.Name},
		Summary:  fmt.Sprintf("The standby %s at %s says that it still needs rows that died %s transactions ago: they can't be removed here.", s.Name, s.Address, number(float64(s.Held))),
		Observed: fmt.Sprintf("its oldest snapshot is %s transactions old", number(float64(s.Held))),
		Expected: fmt.Sprintf("less than %s", number(e.threshold(heldBack))),
		Remedy: "On the standby, look for the long query, and cancel it:\n\n" +
			"    SELECT pid, now() - xact_start AS open, application_name FROM pg_stat_activity WHERE backend_xmin IS NOT NULL ORDER BY 2 DESC;\n    SELECT pg_cancel_backend(PID);\n\n" +
			"With hot_standby_feedback = off there it could not hold anything back here; its long queries would be cancelled instead.",
		Evidence: map[string]string{"address": s.Address},
	}, true
}
