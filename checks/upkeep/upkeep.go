// Package upkeep is the check that a database stays healthy while it grows: that vacuum runs and can clean up, that the
// planner has statistics, that the disk lasts, and that Synapse's own cleaning gets done. It may import core/doctor,
// core/synapse and core/pgdb.
//
// Without --deep it asks catalogs and statistics views, reads tables of a few pages, and looks up a bounded number of rows
// by an index: it costs the same on a small and on a large database. With --deep it reads tables, some pages at a time,
// each in a transaction of its own, so that it does not itself hold vacuum back.
//
//	c := upkeep.Check
//	err := c.Run(ctx, target, reporter)
package upkeep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// The faults. An administrator may rely on each.
const (
	WraparoundNear      = "upkeep/wraparound-near"
	AutovacuumOff       = "upkeep/autovacuum-off"
	AutovacuumOffTable  = "upkeep/autovacuum-off-on-table"
	DeadRows            = "upkeep/dead-rows"
	NeverAnalyzed       = "upkeep/never-analyzed"
	StatisticsOld       = "upkeep/statistics-old"
	IdleInTransaction   = "upkeep/idle-in-transaction"
	OldSnapshot         = "upkeep/old-snapshot"
	PreparedTransaction = "upkeep/prepared-transaction"
	SlotKeepsWAL        = "upkeep/slot-keeps-wal"
	StandbyHoldsBack    = "upkeep/standby-holds-back"
	DiskLow             = "upkeep/disk-low"
	TableDominates      = "upkeep/table-dominates"
	TableGrows          = "upkeep/table-grows"
	UpdateStuck         = "upkeep/background-update-stuck"
	PrunerLate          = "upkeep/pruner-late"
	ForwardExtremities  = "upkeep/forward-extremities"
	StaleWriters        = "upkeep/stale-writers"
	StaleLocks          = "upkeep/stale-locks"
	DirectoryFrozen     = "upkeep/user-directory-frozen"
	UnreferencedGroups  = "upkeep/unreferenced-state-groups"
	MissingGroups       = "upkeep/missing-state-groups"
	EventsWithoutJSON   = "upkeep/events-without-json"
	JSONWithoutEvent    = "upkeep/json-without-event"
	MembershipMoved     = "upkeep/membership-moved"
	MangledJSON         = "upkeep/mangled-json"
)

const checkID = "upkeep"

// Check finds what keeps a database from staying healthy.
var Check = doctor.Check{
	ID:    checkID,
	Title: "The database is kept clean, and has room to grow",
	Why: "PostgreSQL has to clean up behind Synapse all the time. Where it can't, tables swell, queries get slow, the disk fills, " +
		"and in the end the server stops accepting writes.",
	Needs: doctor.NeedsSynapse,
	Codes: []doctor.Code{
		{ID: WraparoundNear, Title: "old transaction numbers are not cleared away", Severity: doctor.Warning},
		{ID: AutovacuumOff, Title: "autovacuum is off", Severity: doctor.Warning},
		{ID: AutovacuumOffTable, Title: "autovacuum is off for a table", Severity: doctor.Warning},
		{ID: DeadRows, Title: "a large table is full of dead rows", Severity: doctor.Warning},
		{ID: NeverAnalyzed, Title: "the planner has no statistics", Severity: doctor.Warning},
		{ID: StatisticsOld, Title: "the planner's statistics of a large table are old", Severity: doctor.Warning},
		{ID: IdleInTransaction, Title: "a session has left its transaction open", Severity: doctor.Warning},
		{ID: OldSnapshot, Title: "a query keeps vacuum from cleaning up", Severity: doctor.Warning},
		{ID: PreparedTransaction, Title: "a prepared transaction was forgotten", Severity: doctor.Warning},
		{ID: SlotKeepsWAL, Title: "a replication slot keeps write-ahead log", Severity: doctor.Warning},
		{ID: StandbyHoldsBack, Title: "a standby keeps vacuum from cleaning up", Severity: doctor.Warning},
		{ID: DiskLow, Title: "the disk is getting full", Severity: doctor.Warning},
		{ID: TableDominates, Title: "a table takes up most of the database", Severity: doctor.Info},
		{ID: TableGrows, Title: "a table grows fast", Severity: doctor.Info},
		{ID: UpdateStuck, Title: "background updates get nowhere", Severity: doctor.Warning},
		{ID: PrunerLate, Title: "rows that Synapse should have deleted are still there", Severity: doctor.Info},
		{ID: ForwardExtremities, Title: "rooms have many forward extremities", Severity: doctor.Info},
		{ID: StaleWriters, Title: "positions of workers that are no longer configured", Severity: doctor.Info},
		{ID: StaleLocks, Title: "workers' locks that nobody renews", Severity: doctor.Info},
		{ID: DirectoryFrozen, Title: "the user directory is not kept up to date", Severity: doctor.Info},
		{ID: UnreferencedGroups, Title: "state groups that no event needs", Severity: doctor.Info},
		{ID: MissingGroups, Title: "state groups are built on missing ones", Severity: doctor.Warning},
		{ID: EventsWithoutJSON, Title: "events have lost their content", Severity: doctor.Error},
		{ID: JSONWithoutEvent, Title: "content of events that are not there", Severity: doctor.Warning},
		{ID: MembershipMoved, Title: "memberships point to the wrong place among the events", Severity: doctor.Warning},
		{ID: MangledJSON, Title: "stored JSON can't be read", Severity: doctor.Error},
	},
	Thresholds: thresholds,
	Run:        run,
	Plan:       plan,
	Operations: map[string]doctor.OperationFunc{opVacuum: vacuum},
}

func run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	var unread []error
	var covered, standbys []string
	databases := t.Meeting(doctor.NeedsSynapse)
	var deadline time.Time
	if t.DeepBudget > 0 {
		deadline = time.Now().Add(t.DeepBudget)
	}
	for _, db := range databases {
		e := &examination{target: t, db: db, reporter: r, now: time.Now(), deadline: deadline}
		err := e.run(ctx)
		if e.server.Recovering {
			standbys = append(standbys, db.Where()+": a standby, which is vacuumed and analyzed on its primary")
			continue
		}
		text := e.coverage()
		if len(databases) > 1 {
			text = db.Label + ": " + text
		}
		covered = append(covered, text)
		if err != nil {
			unread = append(unread, fmt.Errorf("database %s: %w", db.Label, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(standbys) > 0 && len(standbys) == len(databases) {
		return doctor.Skip("%s", strings.Join(standbys, "; "))
	}
	r.Covered(strings.Join(append(covered, standbys...), "; "))
	return errors.Join(unread...)
}

// examination is one look at one database.
type examination struct {
	target   *doctor.Target
	db       *doctor.Database
	reporter doctor.Reporter
	now      time.Time
	deadline time.Time // of --deep; zero: none

	server   server
	tables   []table // the largest first
	bytes    int64   // of all tables
	known    map[string]*known
	bases    map[doctor.Object]base
	worked   bool // Synapse has stored an event since the earlier run
	measures int
	hidden   int      // sessions of other roles that this role can't look into
	read     []string // what --deep has read
	left     []leftOut
	notDeep  []string // what only --deep reads, because it is large
	notes    []string // what else was not looked at, of which nothing can be made out here
}

func (e *examination) run(ctx context.Context) error {
	if err := e.db.Read(ctx, func(tx pgx.Tx) error { return e.lookAtServer(ctx, tx) }); err != nil {
		return err
	}
	if e.server.Recovering {
		return nil
	}
	e.judgeServer()
	if err := e.db.Read(ctx, func(tx pgx.Tx) error { return e.lookAtTables(ctx, tx) }); err != nil {
		return err
	}
	e.measureTables()
	e.judgeTables()
	if err := e.lookAtHolders(ctx); err != nil {
		return err
	}
	if err := e.lookAtDisk(ctx); err != nil {
		return err
	}
	if err := e.db.Read(ctx, func(tx pgx.Tx) error { return e.lookAtSynapse(ctx, tx) }); err != nil {
		return err
	}
	if e.target.Deep {
		e.deep(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if len(e.left) > 0 {
		return fmt.Errorf("not wholly looked at: %s", leftOuts(e.left, 3))
	}
	return nil
}

// admin is the administrator's login to the database, which sees what other roles do; Synapse's own where there is none.
func (e *examination) admin() *doctor.Database {
	if admin := e.target.AdminIn(e.db); admin != nil {
		return admin
	}
	return e.db
}

// object is the database itself.
func (e *examination) object() doctor.Object {
	return doctor.Object{Kind: "database", Name: e.server.Name}
}

func (e *examination) threshold(of doctor.Threshold) float64 { return e.target.Threshold(of) }

func (e *examination) find(f doctor.Finding) {
	f.Database = e.db.Label
	e.reporter.Find(f)
}

// maxMeasures is fewer than a check may tell, so that several databases have room.
const maxMeasures = 300

func (e *examination) measure(m doctor.Measure) {
	if e.measures++; e.measures > maxMeasures {
		return
	}
	m.Database = e.db.Label
	e.reporter.Measure(m)
}

// earlier is what the earlier run measured under the same name.
func (e *examination) earlier(object doctor.Object, name string) (doctor.Measure, bool) {
	return e.target.Earlier.Find(doctor.MeasureKey{Check: checkID, Database: e.db.Label, Object: object, Name: name})
}

// since is how long ago a measure was taken. Other checks, and runs of another database, have times of their own.
func (e *examination) since(m doctor.Measure) time.Duration {
	if m.At.IsZero() {
		return 0
	}
	return max(e.now.Sub(m.At), 0)
}

// leftOut is what was to be looked at and was not.
type leftOut struct{ what, why string }

func (e *examination) leave(what, why string) {
	l := leftOut{what, doctor.Clean(why)}
	if !slices.Contains(e.left, l) {
		e.left = append(e.left, l)
	}
}

// leftOuts names a few for each reason.
func leftOuts(left []leftOut, limit int) string {
	var reasons []string
	byReason := map[string][]string{}
	for _, l := range left {
		if byReason[l.why] == nil {
			reasons = append(reasons, l.why)
		}
		byReason[l.why] = append(byReason[l.why], l.what)
	}
	for i, why := range reasons {
		reasons[i] = fmt.Sprintf("%s (%s)", shortened(byReason[why], limit), why)
	}
	return strings.Join(reasons, ", ")
}

// coverage is the line that says how much was examined.
func (e *examination) coverage() string {
	parts := []string{fmt.Sprintf("%d tables, %s", len(e.tables), size(float64(e.bytes)))}
	if e.hidden > 0 {
		parts = append(parts, fmt.Sprintf("what %s of other roles were doing could not be seen (pg_read_all_stats, or an administrator's login, lets it)", count(e.hidden, "session")))
	}
	if len(e.read) > 0 {
		parts = append(parts, "read: "+strings.Join(e.read, ", "))
	}
	if len(e.notDeep) > 0 {
		parts = append(parts, "only with --deep, because it is large: "+strings.Join(e.notDeep, ", "))
	}
	parts = append(parts, e.notes...)
	if len(e.left) > 0 {
		parts = append(parts, "left out: "+leftOuts(e.left, 20))
	}
	return strings.Join(parts, "; ")
}
