// Package port is the check that a homeserver's database has been moved from SQLite to PostgreSQL whole, or can be. It may
// import core/doctor, core/synapse, core/pgdb, core/sqlitedb and core/port.
//
// A homeserver on SQLite is shown the way (walk.go). With the file and the database at hand it says what stands in the way
// before the copy (source.go, target.go, before.go) and what became of it after (after.go), for a port by Synapse's own script
// too (script.go). What such a port has done to a database is told without the file as well, as far as it can be (alone.go).
// plan.go has the copy itself, which is in core/port, and switch.go the edit of homeserver.yaml.
package port

import (
	"context"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/port"
)

// The codes of the check.
const (
	OnSQLite       = "port/on-sqlite"
	UpdatesPending = "port/updates-pending"
	SchemaDiffers  = "port/schema-differs"
	TargetNotEmpty = "port/target-not-empty"
	TargetInUse    = "port/target-in-use"
	TargetLocale   = "port/target-locale"
	NoRoom         = "port/no-room"
	RoomNotSeen    = "port/room-not-seen"
	ModuleTables   = "port/module-tables"
	Other          = "port/other-homeserver"
	Split          = "port/split-databases"
	ScriptRemains  = "port/script-remains"
	OddCells       = "port/odd-cells"
	Unstorable     = "port/unstorable-rows"
	NotPorted      = "port/not-ported"

	FileChanged     = "port/file-changed"
	RowsQuarantined = "port/rows-quarantined"
	CellsChanged    = "port/cells-changed"
	WrittenSince    = "port/written-since"
	Unfinished      = "port/unfinished"
	StillOnSQLite   = "port/still-on-sqlite"
	RowsMissing     = "port/rows-missing"
	RowsSurplus     = "port/rows-surplus"
	ContentDiffers  = "port/content-differs"

	BooleanNullLost = "port/boolean-null-lost"
	EscapedJSON     = "port/escaped-json"
	DirectoryFrozen = "port/directory-frozen"
	IndexMissing    = "port/index-missing"
	UpdatesQueued   = "port/updates-queued"
)

// Check is the check port.
var Check = doctor.Check{
	ID:    "port",
	Title: "The move from SQLite to PostgreSQL is whole",
	Why: "Rows that a port has lost or changed are missed years later, as rooms that can't be read and notifications that never come; " +
		"SQLite itself is only meant for trying Synapse out.",
	Codes: []doctor.Code{
		{ID: OnSQLite, Title: "the homeserver is on SQLite", Severity: doctor.Info},
		{ID: UpdatesPending, Title: "background updates are pending in the SQLite file", Severity: doctor.Error},
		{ID: SchemaDiffers, Title: "the two databases have schemas of different releases", Severity: doctor.Error},
		{ID: Other, Title: "one of the databases is another homeserver's", Severity: doctor.Error},
		{ID: Split, Title: "the data stores are in several databases", Severity: doctor.Error},
		{ID: ModuleTables, Title: "tables that only the SQLite file has", Severity: doctor.Error},
		{ID: TargetNotEmpty, Title: "the PostgreSQL database is not empty", Severity: doctor.Error},
		{ID: TargetInUse, Title: "somebody is connected to the PostgreSQL database", Severity: doctor.Error},
		{ID: TargetLocale, Title: "the PostgreSQL database has another encoding or locale", Severity: doctor.Error},
		{ID: NoRoom, Title: "there is not enough free disk", Severity: doctor.Error},
		{ID: RoomNotSeen, Title: "the free disk of the server can't be seen", Severity: doctor.Info},
		{ID: OddCells, Title: "values that PostgreSQL can't hold as they are", Severity: doctor.Warning},
		{ID: Unstorable, Title: "rows that PostgreSQL can't hold", Severity: doctor.Warning},
		{ID: ScriptRemains, Title: "Synapse's script has begun or made a port", Severity: doctor.Warning},
		{ID: NotPorted, Title: "the SQLite file has not been ported", Severity: doctor.Warning},
		{ID: Unfinished, Title: "a port was begun and is not finished", Severity: doctor.Error},
		{ID: FileChanged, Title: "the SQLite file has changed since it was ported", Severity: doctor.Warning},
		{ID: WrittenSince, Title: "a Synapse has used the PostgreSQL database since the port", Severity: doctor.Error},
		{ID: RowsQuarantined, Title: "rows that could not be stored are in quarantine", Severity: doctor.Warning},
		{ID: CellsChanged, Title: "values were changed so that they could be stored", Severity: doctor.Warning},
		{ID: StillOnSQLite, Title: "homeserver.yaml still names the SQLite file", Severity: doctor.Warning},
		{ID: RowsMissing, Title: "rows of the SQLite file are not in PostgreSQL", Severity: doctor.Error},
		{ID: RowsSurplus, Title: "PostgreSQL has rows that the SQLite file has not", Severity: doctor.Error},
		{ID: ContentDiffers, Title: "rows differ between SQLite and PostgreSQL", Severity: doctor.Error},
		{ID: IndexMissing, Title: "indexes or constraints are missing after a port", Severity: doctor.Error},
		{ID: BooleanNullLost, Title: "a port has made FALSE of NULL", Severity: doctor.Warning},
		{ID: EscapedJSON, Title: "a port has escaped JSON", Severity: doctor.Error},
		{ID: DirectoryFrozen, Title: "the user directory is frozen", Severity: doctor.Error},
		{ID: UpdatesQueued, Title: "the user directory is still to be filled", Severity: doctor.Info},
	},
	Run:        run,
	Plan:       plan,
	Operations: port.Operations(),
}

func run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	file, db := port.Pair(t)
	if file != nil {
		if split, err := split(t, file, r); split || err != nil {
			return err
		}
	}
	switch {
	case file != nil && db != nil:
		return both(ctx, t, file, db, r)
	case file != nil:
		return onSQLite(ctx, t, file, r)
	}
	if db == nil {
		return doctor.Skip("there is neither a SQLite file nor the PostgreSQL database of the main store")
	}
	if !db.Meets.Has(doctor.NeedsPostgres) {
		return doctor.SkipFailed("no connection to %s", db.Where())
	}
	ported, err := alone(ctx, t, db, r)
	if err == nil && !ported {
		return doctor.Skip("nothing in %s tells of a port from SQLite", db.Where())
	}
	return err
}

// split finds a homeserver that no port can take, since its data stores are in several databases.
func split(t *doctor.Target, file *doctor.Database, r doctor.Reporter) (bool, error) {
	why, err := port.Split(t)
	if err != nil || why == "" {
		return false, err
	}
	r.Find(doctor.Finding{
		Code: Split, Severity: doctor.Error, Database: file.Label, Object: doctor.Object{Kind: "file", Name: file.Path},
		Summary:  "The homeserver's data stores are, or are to be, in several databases: no port is made.",
		Observed: why, Expected: "one SQLite file, and one PostgreSQL database for all data stores",
		Remedy: "Where PostgreSQL's section is a databases section, write it as one section database for the port. Where the SQLite files are several, the homeserver can't be moved by this program, nor by Synapse's script.",
	})
	return true, nil
}
