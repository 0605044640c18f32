package upkeep

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// table is what catalogs and statistics say of one.
type table struct {
	OID            uint32
	Schema, Name   string
	Heap, Total    int64   // bytes; Total with its indexes and what is stored out of line
	Rows           float64 // the planner's estimate, or what was counted as it was written; -1: not known
	XID, Multixact int64   // age of the oldest that it, or its toast table, may hold
	Off, ToastOff  bool    // autovacuum, by an option of the table
	Live, Dead     int64   // rows, as counted since the statistics were last lost
	Changed        int64   // rows since it was analyzed
	Vacuumed       *time.Time
	Analyzed       *time.Time
	HasStatistics  bool
	BeingVacuumed  bool
	MayAlter       bool // by this login
	MayVacuum      bool // by this login
}

func (t table) object() doctor.Object {
	if t.Schema == "public" {
		return doctor.Object{Kind: "table", Name: t.Name}
	}
	return doctor.Object{Kind: "table", Name: t.Schema + "." + t.Name}
}

func (t table) name() string { return name(t.Schema, t.Name) }

// tablesQuery asks nothing of the tables themselves. The size of one that somebody has to himself, or of which somebody has an index
// or what is stored out of line, can't be asked without waiting; there the pages at the last vacuum have to do. The view pg_stats has rows
// only of tables that the login may read.
const tablesQuery = `WITH held AS MATERIALIZED (SELECT l.relation FROM pg_locks l WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
    AND l.pid <> pg_backend_pid() AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())),
  whole AS MATERIALIZED (SELECT relation AS oid FROM held UNION SELECT indrelid FROM pg_index WHERE indexrelid IN (SELECT relation FROM held)),
  taken AS MATERIALIZED (SELECT oid FROM whole UNION SELECT oid FROM pg_class WHERE reltoastrelid IN (SELECT oid FROM whole)),
  analyzed AS MATERIALIZED (SELECT DISTINCT schemaname, tablename FROM pg_stats)
SELECT c.oid, n.nspname::text, c.relname::text,
  CASE WHEN t.oid IS NOT NULL THEN c.relpages::bigint * current_setting('block_size')::int ELSE coalesce(pg_relation_size(c.oid), 0) END,
  CASE WHEN t.oid IS NOT NULL THEN c.relpages::bigint * current_setting('block_size')::int ELSE coalesce(pg_total_relation_size(c.oid), 0) END,
  CASE WHEN c.reltuples > 0 THEN c.reltuples::float8 WHEN pg_stat_get_live_tuples(c.oid) > 0 THEN pg_stat_get_live_tuples(c.oid)::float8 ELSE c.reltuples::float8 END,
  greatest(age(c.relfrozenxid), coalesce(age(nullif(o.relfrozenxid, '0')), 0))::bigint, greatest(mxid_age(c.relminmxid), coalesce(mxid_age(nullif(o.relminmxid, '0')), 0))::bigint,
  coalesce((SELECT NOT option_value::bool FROM pg_options_to_table(c.reloptions) WHERE option_name = 'autovacuum_enabled'), false),
  coalesce((SELECT NOT option_value::bool FROM pg_options_to_table(o.reloptions) WHERE option_name = 'autovacuum_enabled'), false),
  pg_stat_get_live_tuples(c.oid), pg_stat_get_dead_tuples(c.oid), pg_stat_get_mod_since_analyze(c.oid),
  greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)),
  greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)),
  a.tablename IS NOT NULL OR NOT coalesce(has_table_privilege(c.oid, 'SELECT'), false),
  c.oid IN (SELECT relid FROM pg_stat_progress_vacuum WHERE datname = current_database() AND relid IS NOT NULL),
  pg_has_role(c.relowner, 'USAGE'), pg_has_role(c.relowner, 'USAGE') OR NOT c.relisshared AND pg_has_role((SELECT datdba FROM pg_database WHERE datname = current_database()), 'USAGE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class o ON o.oid = c.reltoastrelid
LEFT JOIN taken t ON t.oid = c.oid LEFT JOIN analyzed a ON a.schemaname = n.nspname AND a.tablename = c.relname
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND ($1 OR n.nspname <> 'information_schema' AND n.nspname !~ '^pg_')
ORDER BY 5 DESC, 2, 3`

// readTables reads of all tables, the largest first; of the system's own only when they are asked for.
func readTables(ctx context.Context, tx pgx.Tx, system bool) ([]table, error) {
	rows, err := tx.Query(ctx, tablesQuery, system)
	if err != nil {
		return nil, fmt.Errorf("read the sizes of the tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
	if err != nil {
		return nil, fmt.Errorf("read the sizes of the tables: %w", err)
	}
	return tables, nil
}

func (e *examination) lookAtTables(ctx context.Context, tx pgx.Tx) (err error) {
	if e.tables, err = readTables(ctx, tx, false); err != nil {
		return err
	}
	for _, t := range e.tables {
		e.bytes += t.Total
	}
	return nil
}

func (e *examination) judgeTables() {
	var bare, off []table
	for _, t := range e.tables {
		if t.Off || t.ToastOff {
			off = append(off, t)
		}
		if float64(t.Heap) >= e.threshold(largeTable) {
			if f, found := e.judgeDead(t); found {
				e.find(f) // what removes the dead rows brings new statistics too
			} else if f, found := e.judgeStatistics(t); found {
				e.find(f)
			}
		}
		if !t.HasStatistics && t.Analyzed == nil && t.Heap > 0 {
			bare = append(bare, t)
		}
	}
	if f, found := e.judgeBare(bare); found {
		e.find(f)
	}
	if len(off) > oneByOne {
		e.find(e.offEverywhere(off))
		return
	}
	for _, t := range off {
		e.find(e.offFinding(t))
	}
}

// oneByOne is how many tables with autovacuum off are told one by one. Where there are more, somebody did it to all.
const oneByOne = 20

func (e *examination) offEverywhere(off []table) doctor.Finding {
	f := doctor.Finding{
		Code: AutovacuumOffTable, Severity: doctor.Warning, Object: e.object(), Fixable: true,
		Summary:  fmt.Sprintf("Autovacuum is off for %d tables, %s among them: their dead rows stay, and their statistics get old.", len(off), off[0].Name),
		Observed: fmt.Sprintf("autovacuum_enabled = off, for %d of %d tables", len(off), len(e.tables)), Expected: "the option is not set",
		Remedy: "Take the option away from all of them; nobody is held up by that:\n\n    synapse-doctor fix upkeep\n\nor, for each of them:\n\n" +
			fmt.Sprintf("    ALTER TABLE %s RESET (autovacuum_enabled, toast.autovacuum_enabled);", off[0].name()),
		Evidence: map[string]string{},
	}
	for _, t := range off[:min(len(off), doctor.MaxEvidence)] {
		f.Evidence[t.object().Name] = size(float64(t.Total))
	}
	return f
}

// tiny is what a table is without anybody's minding whether it is vacuumed.
const tiny = mib

func (e *examination) offFinding(t table) doctor.Finding {
	option := "autovacuum_enabled"
	if !t.Off {
		option = "toast.autovacuum_enabled"
	}
	f := doctor.Finding{
		Code: AutovacuumOffTable, Severity: doctor.Warning, Object: t.object(), Fixable: true,
		Summary:  fmt.Sprintf("Autovacuum is off for the table %s: its dead rows stay, and its statistics get old.", t.Name),
		Observed: option + " = off", Expected: "the option is not set",
		Remedy: "Take the option away; nobody is held up by that:\n\n    synapse-doctor fix upkeep\n\nor:\n\n" +
			fmt.Sprintf("    ALTER TABLE %s RESET (%s);", t.name(), option),
		Evidence: e.tableEvidence(t),
	}
	if t.Total < tiny {
		f.Severity = doctor.Info
	}
	return f
}

// judgeDead speaks of what autovacuum should have removed: by default it begins when a fifth of the rows is dead.
func (e *examination) judgeDead(t table) (doctor.Finding, bool) {
	// After a crash, a failover, or a reset of the statistics, the counters know only of what has been changed since.
	all := max(float64(t.Live+t.Dead), t.Rows)
	if all <= 0 || !t.HasStatistics && t.Vacuumed == nil && t.Analyzed == nil { // which is a finding of its own
		return doctor.Finding{}, false
	}
	share := 100 * float64(t.Dead) / all
	e.measure(doctor.Measure{Object: t.object(), Name: "dead-rows", Value: share, Unit: "percent"})
	if share < e.threshold(deadShare) {
		return doctor.Finding{}, false
	}
	f := doctor.Finding{
		Code: DeadRows, Severity: doctor.Warning, Object: t.object(), Fixable: true,
		Summary:  fmt.Sprintf("%.0f %% of the rows of %s are dead: every query over it reads past them, and it grows more than it would have to.", share, t.Name),
		Observed: fmt.Sprintf("%s dead rows beside %s live ones, %s", number(float64(t.Dead)), number(all-float64(t.Dead)), e.vacuumed(t)),
		Expected: fmt.Sprintf("fewer than %.0f %%; autovacuum begins at 20 %% by default", e.threshold(deadShare)),
		Remedy: "Vacuum it, while Synapse goes on running; the space is used again, but not given back to the disk:\n\n    synapse-doctor fix upkeep\n\nor:\n\n" +
			fmt.Sprintf("    VACUUM (ANALYZE, VERBOSE) %s;\n\n", t.name()) +
			"If the dead rows are still there afterwards, something holds them: an old session, a prepared transaction, a replication slot. This check names what it sees.",
		Evidence: e.tableEvidence(t),
	}
	if t.BeingVacuumed {
		f.Severity = doctor.Info
		f.Summary += " It is being vacuumed just now."
	}
	return f, true
}

func (e *examination) judgeStatistics(t table) (doctor.Finding, bool) {
	if !t.HasStatistics || t.Rows < 1 || e.server.Recovering {
		return doctor.Finding{}, false
	}
	share := 100 * float64(t.Changed) / t.Rows
	if share < e.threshold(changedShare) {
		return doctor.Finding{}, false
	}
	return doctor.Finding{
		Code: StatisticsOld, Severity: doctor.Warning, Object: t.object(), Fixable: true,
		Summary:  fmt.Sprintf("The planner's statistics of %s are old: it may choose slow plans.", t.Name),
		Observed: fmt.Sprintf("%s of about %s rows have changed since it was analyzed", number(float64(t.Changed)), number(t.Rows)),
		Expected: fmt.Sprintf("fewer than %.0f %%; autovacuum analyzes at 10 %% by default", e.threshold(changedShare)),
		Remedy: "Analyze it, while Synapse goes on running:\n\n    synapse-doctor fix upkeep\n\nor:\n\n" +
			fmt.Sprintf("    ANALYZE (VERBOSE) %s;", t.name()),
		Evidence: e.tableEvidence(t),
	}, true
}

// judgeBare is one finding for the database: what is missing is missing everywhere, after an upgrade or a restore.
func (e *examination) judgeBare(bare []table) (doctor.Finding, bool) {
	bare = slices.DeleteFunc(bare, func(t table) bool { return t.Rows == 0 })
	slices.SortStableFunc(bare, func(a, b table) int { return cmp.Compare(b.Heap, a.Heap) })
	if len(bare) == 0 || float64(bare[0].Heap) < e.threshold(analyzeFrom) {
		return doctor.Finding{}, false
	}
	f := doctor.Finding{
		Code: NeverAnalyzed, Severity: doctor.Warning, Object: e.object(), Fixable: true,
		Summary:  fmt.Sprintf("The planner knows nothing of %s, %s among them: queries may take minutes instead of milliseconds.", count(len(bare), "table"), bare[0].Name),
		Observed: fmt.Sprintf("no statistics of %s, up to %s", count(len(bare), "table"), size(float64(bare[0].Heap))),
		Expected: "every table has been analyzed",
		Remedy: "After pg_upgrade or a restore, tables have to be analyzed once. Do it at once, while Synapse goes on running:\n\n    synapse-doctor fix upkeep\n\n" +
			"or:\n\n    ANALYZE (VERBOSE);",
		Evidence: map[string]string{},
	}
	for i, t := range bare {
		if i == doctor.MaxEvidence-1 {
			f.Evidence["…"] = fmt.Sprintf("%d more", len(bare)-i)
			break
		}
		f.Evidence[t.object().Name] = size(float64(t.Heap))
	}
	return f, true
}

func (e *examination) vacuumed(t table) string {
	if t.Vacuumed == nil {
		return "not vacuumed since the server began to count"
	}
	return "vacuumed " + age(max(e.now.Sub(*t.Vacuumed), 0)) + " ago"
}

func (e *examination) tableEvidence(t table) map[string]string {
	ev := map[string]string{
		"size": size(float64(t.Total)), "live rows": fmt.Sprint(t.Live), "dead rows": fmt.Sprint(t.Dead), "changed since analyzed": fmt.Sprint(t.Changed),
		"last vacuum": "none seen", "last analyze": "none seen",
	}
	if t.Vacuumed != nil {
		ev["last vacuum"] = t.Vacuumed.UTC().Format(time.RFC3339)
	}
	if t.Analyzed != nil {
		ev["last analyze"] = t.Analyzed.UTC().Format(time.RFC3339)
	}
	return ev
}

// shownTables is how many of the largest tables are measured, beside those that are known to swell.
const shownTables = 12

// measureTables tells the sizes, and what is remarkable about them.
func (e *examination) measureTables() {
	e.measure(doctor.Measure{Object: e.object(), Name: sizeMeasure, Value: float64(e.bytes), Unit: "bytes"})
	e.takeBase(e.object(), float64(e.bytes))
	for i, t := range e.tables {
		a, known := advice[t.Name]
		if i >= shownTables && (!known || a.history || t.Schema != "public") {
			continue
		}
		share := 0.0
		if e.bytes > 0 {
			share = 100 * float64(t.Total) / float64(e.bytes)
		}
		e.measure(doctor.Measure{Object: t.object(), Name: sizeMeasure, Value: float64(t.Total), Unit: "bytes"})
		e.measure(doctor.Measure{Object: t.object(), Name: "share", Value: float64(int(share*10+0.5)) / 10, Unit: "percent"})
		if t.Rows >= 0 {
			e.measure(doctor.Measure{Object: t.object(), Name: "rows", Value: t.Rows, Unit: "rows"})
		}
		if float64(t.Total) >= e.threshold(shareFrom) {
			e.judgeShare(t, share)
			e.judgeGrowth(t)
		}
	}
}

func (e *examination) judgeShare(t table, share float64) {
	a, known := advice[t.Name]
	limit := e.threshold(tableShare)
	if t.Name == stateTable {
		limit = e.threshold(stateShare)
	}
	if !known || a.history || share < limit {
		return
	}
	e.find(doctor.Finding{
		Code: TableDominates, Severity: doctor.Info, Object: t.object(),
		Summary:  fmt.Sprintf("%s takes up %.0f %% of the database: %s.", t.Name, share, a.holds),
		Observed: fmt.Sprintf("%s of %s", size(float64(t.Total)), size(float64(e.bytes))),
		Expected: fmt.Sprintf("less than %.0f %%", limit),
		Remedy:   a.text(e),
		Evidence: map[string]string{"rows, estimated": number(max(t.Rows, 0)), "without indexes": size(float64(t.Heap))},
	})
}

func (e *examination) judgeGrowth(t table) {
	b, ok := e.takeBase(t.object(), float64(t.Total))
	if !ok || b.age < apart {
		return
	}
	grown := float64(t.Total) - b.size
	monthly := grown * float64(month) / float64(b.age)
	if 100*monthly/b.size < e.threshold(growth) {
		return
	}
	remedy := "See what fills it. If it is to be so (a new large room, many new users), make sure that the disk lasts."
	if a, known := advice[t.Name]; known {
		remedy = a.text(e)
	}
	e.find(doctor.Finding{
		Code: TableGrows, Severity: doctor.Info, Object: t.object(),
		Summary:  fmt.Sprintf("%s has grown by %s in %s, which makes %.0f %% in a month.", t.Name, size(grown), age(b.age), 100*monthly/b.size),
		Observed: fmt.Sprintf("%s, and %s before", size(float64(t.Total)), size(b.size)),
		Expected: fmt.Sprintf("growth of less than %.0f %% in 30 days", e.threshold(growth)),
		Remedy:   remedy,
		Evidence: map[string]string{"compared with": e.now.Add(-b.age).UTC().Format(time.RFC3339), "in 30 days": size(monthly)},
	})
}
