// Package version examines whether the PostgreSQL server, Synapse's schema and the Synapse that uses them fit together,
// whether the Python that runs Synapse has a PostgreSQL client, and whether the schema's background work is getting done.
// It imports core/doctor and core/synapse.
//
// Where a database holds no schema of Synapse it only speaks of the server, and is skipped or unknown: never ok.
package version

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// The faults. An administrator may rely on each.
const (
	TooOld           = "version/too-old-for-synapse"
	NoPsycopg2       = "version/no-psycopg2"
	BrokenPsycopg2   = "version/psycopg2-broken"
	OldLibPQ         = "version/libpq-too-old"
	InRecovery       = "version/in-recovery"
	EndOfLife        = "version/end-of-life"
	EndOfLifeSoon    = "version/end-of-life-soon"
	TooOldForUpgrade = "version/too-old-for-newer-synapse"
	UnknownPostgres  = "version/unknown-postgres"
	NoSchemaVersion  = "version/no-schema-version"
	CompatAhead      = "version/compat-ahead-of-schema"
	UnknownSchema    = "version/unknown-schema"
	UpdatesStuck     = "version/background-updates-stuck"
	UpdatesPending   = "version/background-updates-pending"
)

// notice is how long before its end of life a server is reported.
var notice = doctor.Threshold{ID: "version/end-of-life-notice", Title: "how long before its last release a PostgreSQL is reported", Unit: "days",
	Default: 183, Max: 3650}

// Check is the check version.
var Check = At(time.Now, synapse.PythonPlaces{})

// At is the check as of another time than now, since what has reached its end of life depends on the day, and with
// Synapse's Python looked for in other places than this machine's.
func At(now func() time.Time, places synapse.PythonPlaces) doctor.Check {
	return doctor.Check{
		ID:    "version",
		Title: "PostgreSQL, Synapse and the schema fit together",
		Why: "Synapse refuses to start on a PostgreSQL that is too old for it, and a schema whose upgrade or background " +
			"updates never finished is slow, or breaks at the next upgrade. Without psycopg2 it can't use PostgreSQL at all.",
		Needs: doctor.NeedsPostgres,
		Codes: []doctor.Code{
			{ID: TooOld, Title: "PostgreSQL is older than the Synapse of this schema accepts", Severity: doctor.Error},
			{ID: NoPsycopg2, Title: "Synapse's Python has no PostgreSQL client", Severity: doctor.Error},
			{ID: BrokenPsycopg2, Title: "Synapse's PostgreSQL client can't be loaded", Severity: doctor.Error},
			{ID: OldLibPQ, Title: "Synapse's PostgreSQL client is too old to log in with SCRAM", Severity: doctor.Error},
			{ID: InRecovery, Title: "the server is a standby, or still recovering", Severity: doctor.Error},
			{ID: NoSchemaVersion, Title: "Synapse's tables are there but not the schema's version", Severity: doctor.Error},
			{ID: CompatAhead, Title: "an upgrade of the schema stopped half way", Severity: doctor.Error},
			{ID: EndOfLife, Title: "PostgreSQL gets no more fixes", Severity: doctor.Warning},
			{ID: UpdatesStuck, Title: "background updates cannot finish", Severity: doctor.Warning},
			{ID: EndOfLifeSoon, Title: "PostgreSQL will soon get no more fixes", Severity: doctor.Info},
			{ID: TooOldForUpgrade, Title: "the next upgrade of Synapse needs a newer PostgreSQL", Severity: doctor.Info},
			{ID: UnknownPostgres, Title: "a PostgreSQL newer than this doctor knows", Severity: doctor.Info},
			{ID: UnknownSchema, Title: "a schema that no release known to this doctor has", Severity: doctor.Info},
			{ID: UpdatesPending, Title: "background updates are queued", Severity: doctor.Info},
		},
		Thresholds: []doctor.Threshold{notice},
		Run: func(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
			var unread []error
			var bare []string // the databases without Synapse's schema
			seen, reported, alarmed, needsSCRAM := false, false, false, false
			for _, db := range t.Meeting(doctor.NeedsPostgres) {
				facts, err := look(ctx, db)
				if err != nil {
					unread = append(unread, fmt.Errorf("database %s: %w", db.Label, err))
					continue
				}
				if facts.hasSchema {
					seen = true
				} else {
					bare = append(bare, db.Where())
				}
				needsSCRAM = needsSCRAM || facts.scram && db.Settings["password"] != ""
				for _, f := range judge(facts, now(), int(t.Threshold(notice))) {
					reported, alarmed = true, alarmed || f.Severity > doctor.Info
					f.Database = db.Label
					r.Find(f)
				}
			}
			found, err := examineClient(ctx, t, places, needsSCRAM)
			if err != nil {
				unread = append(unread, err)
			}
			for _, f := range found {
				reported, alarmed = true, alarmed || f.Severity > doctor.Info
				r.Find(f)
			}
			if len(bare) > 0 {
				reason := strings.Join(bare, ", ") + ": Synapse's schema was not seen there, so only the server was examined"
				if !seen && !reported && len(unread) == 0 {
					return doctor.Skip("%s", reason)
				}
				if !seen && alarmed && len(unread) == 0 {
					return nil // what was found does not read as healthy
				}
				unread = append(unread, errors.New(reason))
			}
			return errors.Join(unread...)
		},
	}
}

// judge concludes from what was seen.
func judge(f facts, now time.Time, noticeDays int) []doctor.Finding {
	found := judgeServer(f, now, noticeDays)
	if !f.hasSchema {
		return found
	}
	if !f.hasVersion {
		return append(found, noSchemaVersion(f))
	}
	found = append(found, judgeSchema(f)...)
	return append(found, judgeUpdates(f)...)
}
