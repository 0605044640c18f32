// Package locale is the check that text is compared in the locale C, and that no index was built in another order. It may
// import core/doctor, core/synapse, core/pgdb and core/sqlitedb.
//
// Synapse reads two columns of the catalog, datcollate and datctype. What they say can be untrue in three ways: another
// provider than libc compares text, the columns were edited by hand, or the library that compares has changed under
// indexes that were built before. The catalog tells all three; whether an index was damaged only reading it tells.
package locale

import (
	"context"
	"errors"
	"fmt"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// The codes of the check.
const (
	NotC               = "locale/not-c"                     // COLLATE or CTYPE of the database is not C
	ProviderNotLibcC   = "locale/provider-not-libc-c"       // C by name, compared by ICU or the builtin provider
	CatalogEdited      = "locale/catalog-edited"            // C by a hand-edited catalog
	ObjectNotC         = "locale/object-not-c"              // a column or index with a collation of its own
	VersionChanged     = "locale/collation-version-changed" // recorded against actual version
	UnsafeAllowed      = "locale/unsafe-locale-allowed"     // allow_unsafe_locale is set
	ReplicaDiffers     = "locale/replica-differs"           // a replica compares text in another way
	ReplicaNotCompared = "locale/replica-not-compared"      // a streaming standby that nobody named
	IndexCorrupt       = "locale/index-corrupt"             // --deep: an index is not in order
	DuplicateKeys      = "locale/duplicate-keys"            // --deep: a unique key is there twice
	IndexNotExamined   = "locale/index-not-examined"        // --deep: one that only amcheck could examine
	IndexInvalid       = "locale/index-invalid"             // left by a CREATE INDEX or REINDEX CONCURRENTLY that failed
)

// Check finds locales that are not C, and what changes of locales have done to indexes.
var Check = doctor.Check{
	ID:    "locale",
	Title: "Text is compared in the locale C",
	Why: "In another locale the order of text depends on the operating system's library. When that changes, keys that exist are " +
		"not found and are stored again: rooms break, and Synapse refuses to start on such a database.",
	Needs: doctor.NeedsPostgres,
	Codes: []doctor.Code{
		{ID: NotC, Title: "COLLATE or CTYPE of the database is not C", Severity: doctor.Error},
		{ID: ProviderNotLibcC, Title: "C by name, but another provider compares text", Severity: doctor.Warning},
		{ID: CatalogEdited, Title: "the database became C by editing the catalog", Severity: doctor.Error},
		{ID: ObjectNotC, Title: "a column or index has a collation of its own", Severity: doctor.Warning},
		{ID: VersionChanged, Title: "the library that compares text has changed", Severity: doctor.Warning},
		{ID: UnsafeAllowed, Title: "allow_unsafe_locale is set", Severity: doctor.Warning},
		{ID: ReplicaDiffers, Title: "a replica compares text in another way", Severity: doctor.Warning},
		{ID: ReplicaNotCompared, Title: "a standby was not compared", Severity: doctor.Info},
		{ID: IndexCorrupt, Title: "an index is not in order", Severity: doctor.Error},
		{ID: DuplicateKeys, Title: "a unique key is there more than once", Severity: doctor.Error},
		{ID: IndexNotExamined, Title: "the order of an index could not be examined without amcheck", Severity: doctor.Info},
		{ID: IndexInvalid, Title: "an index is left over from a build that failed", Severity: doctor.Warning},
	},
	Run:        run,
	Plan:       plan,
	Operations: operations,
}

func run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	allowed, err := unsafeAllowed(t)
	errs := []error{err}
	var seen []*catalog
	for _, db := range t.Meeting(doctor.NeedsPostgres) {
		c, err := lookInto(ctx, db)
		if err != nil {
			errs = append(errs, fmt.Errorf("database %s: %w", db.Label, err))
			continue
		}
		c.allowed = allowed[db.Label]
		found := c.findings()
		if !onServerOf(seen, c) {
			found = append(found, c.neighbours()...)
		}
		seen = append(seen, c)
		for _, f := range found {
			f.Database = db.Label
			r.Find(f)
		}
	}
	errs = append(errs, compareReplicas(ctx, t, seen, r))
	if t.Deep {
		errs = append(errs, examineDeep(ctx, t, seen, r))
	}
	return errors.Join(errs...)
}

// examineDeep reads the indexes of every database that was looked at.
func examineDeep(ctx context.Context, t *doctor.Target, seen []*catalog, r doctor.Reporter) error {
	var errs []error
	covered := ""
	for _, c := range seen {
		if ctx.Err() != nil {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
		to := &covering{Reporter: r}
		if len(seen) > 1 {
			to.before = covered + "database " + c.db.Label + ": "
		}
		if err := deep(ctx, t, c.db, to); err != nil {
			errs = append(errs, fmt.Errorf("database %s: %w", c.db.Label, err))
		}
		covered = to.text + "; "
	}
	return errors.Join(errs...)
}

// covering keeps what was said to be covered of earlier databases: only the last line counts.
type covering struct {
	doctor.Reporter
	before, text string
}

func (c *covering) Covered(text string) {
	c.text = c.before + text
	c.Reporter.Covered(c.text)
}

// onServerOf reports whether one of those seen before is on the same server.
func onServerOf(seen []*catalog, c *catalog) bool {
	for _, s := range seen {
		if s.Started == c.Started && s.SystemID == c.SystemID {
			return true
		}
	}
	return false
}
