package upkeep

import "github.com/synapse-doctor/synapse-doctor/core/doctor"

const (
	mib = 1 << 20
	gib = 1 << 30
	// huge is beyond any database.
	huge = 1 << 50
)

// The numbers that decide. Their defaults are chosen so that a server that is looked after complains of nothing.
var (
	wraparoundShare = doctor.Threshold{ID: "upkeep/wraparound", Title: "age of the oldest transaction, in percent of autovacuum_freeze_max_age", Unit: "percent",
		Default: 150, Min: 1, Max: 1000}
	largeTable = doctor.Threshold{ID: "upkeep/large-table", Title: "size from which dead rows and old statistics of a table matter", Unit: "bytes",
		Default: 100 * mib, Min: 0, Max: huge}
	deadShare   = doctor.Threshold{ID: "upkeep/dead-rows", Title: "dead rows of a large table", Unit: "percent", Default: 40, Min: 1, Max: 100}
	analyzeFrom = doctor.Threshold{ID: "upkeep/analyze-from", Title: "size from which a table without statistics matters", Unit: "bytes",
		Default: 16 * mib, Min: 0, Max: huge}
	changedShare = doctor.Threshold{ID: "upkeep/changed-rows", Title: "rows of a large table changed since it was analyzed", Unit: "percent",
		Default: 50, Min: 1, Max: 1000}
	idleMinutes = doctor.Threshold{ID: "upkeep/idle-transaction", Title: "how long a transaction may be left open with nothing done", Unit: "minutes",
		Default: 60, Min: 0, Max: 1e6}
	snapshotHours = doctor.Threshold{ID: "upkeep/old-snapshot", Title: "how long a query may run", Unit: "hours", Default: 6, Min: 0, Max: 1e5}
	heldBack      = doctor.Threshold{ID: "upkeep/held-back", Title: "transactions for which anything may keep dead rows from being removed",
		Unit: "transactions", Default: 10e6, Min: 1, Max: 2e9}
	preparedMinutes = doctor.Threshold{ID: "upkeep/prepared-transaction", Title: "how long a transaction may stay prepared", Unit: "minutes",
		Default: 60, Min: 0, Max: 1e6}
	slotWAL = doctor.Threshold{ID: "upkeep/slot-wal", Title: "write-ahead log kept by an unused replication slot", Unit: "bytes",
		Default: gib, Min: 0, Max: huge}
	slotBehind = doctor.Threshold{ID: "upkeep/slot-behind", Title: "write-ahead log kept by a replication slot in use", Unit: "bytes",
		Default: 10 * gib, Min: 0, Max: huge}
	diskFree = doctor.Threshold{ID: "upkeep/disk-free", Title: "free disk, in percent of the database's size", Unit: "percent", Default: 10, Min: 0, Max: 1e7}
	diskDays = doctor.Threshold{ID: "upkeep/disk-days", Title: "days until the disk is full, if the database goes on growing", Unit: "days",
		Default: 14, Min: 0, Max: 1e4}
	shareFrom   = doctor.Threshold{ID: "upkeep/share-from", Title: "size from which a table's share and growth matter", Unit: "bytes", Default: 5 * gib, Min: 0, Max: huge}
	stateShare  = doctor.Threshold{ID: "upkeep/state-share", Title: "share of state_groups_state in the database", Unit: "percent", Default: 60, Min: 0, Max: 100}
	tableShare  = doctor.Threshold{ID: "upkeep/table-share", Title: "share of another table that is known to swell", Unit: "percent", Default: 25, Min: 0, Max: 100}
	growth      = doctor.Threshold{ID: "upkeep/growth", Title: "growth of a table in 30 days", Unit: "percent", Default: 50, Min: 0, Max: 1e6}
	updateHours = doctor.Threshold{ID: "upkeep/update-hours", Title: "hours in which background updates must have got on", Unit: "hours", Default: 24, Min: 0, Max: 1e5}
	prunerDays  = doctor.Threshold{ID: "upkeep/pruner-days", Title: "days by which a row may outlive the time for which Synapse keeps it", Unit: "days",
		Default: 30, Min: 0, Max: 1e4}
	prunerRows = doctor.Threshold{ID: "upkeep/pruner-rows", Title: "rows that have outlived it, among the oldest 1000", Unit: "rows",
		Default: 500, Min: 1, Max: lookAhead}
	extremities  = doctor.Threshold{ID: "upkeep/forward-extremities", Title: "forward extremities of a room", Default: 10, Min: 1, Max: 1e6}
	lockHours    = doctor.Threshold{ID: "upkeep/stale-lock", Title: "hours since a worker's lock was renewed", Unit: "hours", Default: 24, Min: 1, Max: 1e5}
	unreferenced = doctor.Threshold{ID: "upkeep/unreferenced-groups", Title: "state groups that no event needs", Unit: "rows", Default: 1000, Min: 0, Max: 1e12}
)

var thresholds = []doctor.Threshold{wraparoundShare, largeTable, deadShare, analyzeFrom, changedShare, idleMinutes, snapshotHours, heldBack,
	preparedMinutes, slotWAL, slotBehind, diskFree, diskDays, shareFrom, stateShare, tableShare, growth, updateHours, prunerDays, prunerRows,
	extremities, lockHours, unreferenced}
