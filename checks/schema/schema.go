// Package schema is the check that the database has what Synapse's schema has: tables, columns, indexes, constraints, triggers
// and the few settings of columns that queries depend on. It may import core/doctor and core/pgdb.
//
// catalog/ holds what releases of Synapse make, in a file each; cmd/catalog writes one from a live schema. read.go reads the same from
// a database, in one query of the system catalogs; release.go finds out which release it is to be compared with; compare.go compares,
// loss.go says what a difference means, foreign.go what is none of Synapse's; plan.go and build.go mend. No table is read but
// those in which Synapse keeps its notes on the schema.
package schema

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// The codes of the check.
const (
	MissingTable      = "schema/missing-table"
	MissingColumn     = "schema/missing-column"
	ColumnType        = "schema/column-type"
	Nullability       = "schema/nullability"
	DefaultLost       = "schema/default-lost"
	IdentityLost      = "schema/identity-lost"
	ColumnInTheWay    = "schema/column-in-the-way"
	MissingIndex      = "schema/missing-index"
	InvalidIndex      = "schema/invalid-index"
	BeingBuilt        = "schema/index-being-built"
	Overdue           = "schema/update-overdue"
	MissingConstraint = "schema/missing-constraint"
	NotValid          = "schema/constraint-not-valid"
	MissingTrigger    = "schema/missing-trigger"
	TriggerDisabled   = "schema/trigger-disabled"
	TriggerFunction   = "schema/trigger-function"
	MissingSequence   = "schema/missing-sequence"
	SequenceOwner     = "schema/sequence-owner"
	OptionLost        = "schema/option-lost"
	Unlogged          = "schema/unlogged"
	ReplicaIdentity   = "schema/replica-identity"
	DeltaNotNoted     = "schema/delta-not-noted"
	ForeignObject     = "schema/foreign-object"
)

// waiting is how long it may take until a background update has made one of the things that wait. On a large server one
// update can take weeks.
var waiting = doctor.Threshold{ID: "schema/waiting", Title: "how long background updates may make nothing of what waits for " +
	"them", Unit: "days", Default: 30, Min: 1, Max: 3650}

// Check compares the schema with Synapse's.
var Check = examiner{Catalogs}.check()

// examiner compares with the catalogs that it is given.
type examiner struct {
	known func() ([]*Catalog, error)
}

func (e examiner) check() doctor.Check {
	c := description
	c.Run, c.Plan = e.run, e.plan
	return c
}

var description = doctor.Check{
	ID:    "schema",
	Title: "The database has what Synapse's schema has",
	Why: "A lost index makes Synapse slow or lets rows in twice, a lost table or column makes it fail, and nothing but such a comparison " +
		"tells before users do.",
	Needs: doctor.NeedsSynapse,
	Codes: []doctor.Code{
		{ID: MissingTable, Title: "a table is missing", Severity: doctor.Error},
		{ID: MissingColumn, Title: "a column is missing", Severity: doctor.Error},
		{ID: ColumnType, Title: "a column has another type", Severity: doctor.Error},
		{ID: Nullability, Title: "a column's NOT NULL was lost, or added", Severity: doctor.Warning},
		{ID: DefaultLost, Title: "a column's default was lost", Severity: doctor.Error},
		{ID: IdentityLost, Title: "a column no longer numbers its rows", Severity: doctor.Error},
		{ID: ColumnInTheWay, Title: "a foreign column refuses Synapse's rows", Severity: doctor.Error},
		{ID: MissingIndex, Title: "an index is missing", Severity: doctor.Warning},
		{ID: InvalidIndex, Title: "an index of Synapse's is not valid", Severity: doctor.Warning},
		{ID: BeingBuilt, Title: "an index is being built, or queued to be", Severity: doctor.Info},
		{ID: Overdue, Title: "background updates have made nothing for long", Severity: doctor.Warning},
		{ID: MissingConstraint, Title: "a constraint is missing", Severity: doctor.Error},
		{ID: NotValid, Title: "a constraint holds for new rows only", Severity: doctor.Warning},
		{ID: MissingTrigger, Title: "a trigger is missing", Severity: doctor.Error},
		{ID: TriggerDisabled, Title: "a trigger is disabled", Severity: doctor.Error},
		{ID: TriggerFunction, Title: "a trigger's function is missing or another", Severity: doctor.Error},
		{ID: MissingSequence, Title: "a sequence is missing", Severity: doctor.Error},
		{ID: SequenceOwner, Title: "a sequence no longer belongs to its column", Severity: doctor.Info},
		{ID: OptionLost, Title: "a column lost its n_distinct", Severity: doctor.Warning},
		{ID: Unlogged, Title: "a table is unlogged", Severity: doctor.Error},
		{ID: ReplicaIdentity, Title: "a published table can't be changed", Severity: doctor.Error},
		{ID: DeltaNotNoted, Title: "a step of the schema's upgrades is not noted", Severity: doctor.Info},
		{ID: ForeignObject, Title: "something that Synapse did not make", Severity: doctor.Info},
	},
	Thresholds: []doctor.Threshold{waiting},
	Operations: operations,
}

func (e examiner) run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	var failed []error
	for _, db := range t.Meeting(doctor.NeedsSynapse) {
		if err := e.examine(ctx, t, db, r); err != nil {
			failed = append(failed, fmt.Errorf("database %s: %w", db.Label, err))
		}
	}
	if len(failed) == 1 {
		return failed[0]
	}
	return errors.Join(failed...)
}

func (e examiner) examine(ctx context.Context, t *doctor.Target, db *doctor.Database, r doctor.Reporter) error {
	have, want, err := e.look(ctx, db)
	if err != nil {
		return err
	}
	if want.Newer != "" {
		return doctor.Skip("%s", want.lacking(compare(have, want)))
	}
	r.Covered(fmt.Sprintf("compared with %s: %d tables, %d indexes, %d constraints, %d triggers", want.Label, len(want.Tables),
		want.sum(func(t *Table) int { return len(t.Indexes) }), want.sum(func(t *Table) int { return len(t.Constraints) }),
		want.sum(func(t *Table) int { return len(t.Triggers) })))
	losses := compare(have, want)
	if l, is := overdue(t, db, r, losses); is {
		losses = append(losses, l)
	}
	for _, l := range told(losses, want) {
		f := l.finding()
		f.Database = db.Label
		r.Find(f)
	}
	for _, f := range foreign(have, want) {
		f.Database = db.Label
		r.Find(f)
	}
	if f, is := notNoted(want); is {
		f.Database = db.Label
		r.Find(f)
	}
	return nil
}

func (c *Catalog) sum(of func(*Table) int) int {
	n := 0
	for _, t := range c.Tables {
		n += of(t)
	}
	return n
}

// look reads a database, and what it is to be compared with.
func (e examiner) look(ctx context.Context, db *doctor.Database) (*live, wanted, error) {
	known, err := e.known()
	if err != nil {
		return nil, wanted{}, err
	}
	parts := make([]*Catalog, len(known))
	for i, c := range known {
		parts[i] = c.of(db.Holds("main"), db.Holds("state"))
	}
	var have *live
	var want wanted
	err = db.Read(ctx, func(tx pgx.Tx) error {
		have, want, err = lookIn(ctx, tx, parts)
		return err
	})
	return have, want, err
}

// lookIn does it in a transaction, by the known catalogs.
func lookIn(ctx context.Context, tx pgx.Tx, known []*Catalog) (*live, wanted, error) {
	have := &live{}
	if err := have.readState(ctx, tx); err != nil {
		return nil, wanted{}, err
	}
	want, err := release(have, known)
	if err != nil {
		return nil, wanted{}, err
	}
	tables := slices.Collect(maps.Keys(want.Tables))
	for name := range known[len(known)-1].both().Tables { // what Synapse has got since, or in the other store, is nothing foreign
		if want.Tables[name] == nil {
			tables = append(tables, name)
		}
	}
	slices.Sort(tables)
	l, err := readLive(ctx, tx, tables, slices.Sorted(maps.Keys(want.Sequences)))
	if err != nil {
		return nil, wanted{}, err
	}
	l.Schema, l.Deltas, l.Steps, l.Queue = have.Schema, have.Deltas, have.Steps, have.Queue
	return l, want, nil
}

func (l loss) finding() doctor.Finding {
	return doctor.Finding{Code: l.code, Severity: l.severity, Object: l.object, Summary: l.summary, Observed: l.observed, Expected: l.expected,
		Remedy: l.remedy, Evidence: l.evidence, Fixable: l.mend != nil}
}

// maxLosses bounds how many are told one by one: the host takes a thousand. A schema that lost more is not mended in pieces.
const maxLosses = 600

// maxWaiting bounds how many are told one by one that wait for a background update: a fresh schema has 35.
const maxWaiting = 3

// told are the losses as they are told: many that wait together, and no more than a host takes.
func told(losses []loss, want wanted) []loss {
	var waiting, out []loss
	for _, l := range losses {
		if l.waits && l.severity == doctor.Info {
			waiting = append(waiting, l)
		} else {
			out = append(out, l)
		}
	}
	if len(waiting) > maxWaiting {
		waiting = []loss{together(waiting)}
	}
	if rest := len(out) - maxLosses; rest > 0 {
		out = out[:maxLosses]
		out[maxLosses-1].summary += fmt.Sprintf(" %d more differences to %s are not told.", rest, want.Label)
	}
	return append(out, waiting...)
}

// together tells many that wait for a background update as one.
func together(waiting []loss) loss {
	var indexes, constraints, updates []string
	for _, l := range waiting {
		if l.object.Kind == "index" {
			indexes = append(indexes, l.object.Name)
		} else {
			constraints = append(constraints, l.object.Name)
		}
		if u := l.evidence["background update"]; !slices.Contains(updates, u) {
			updates = append(updates, u)
		}
	}
	one := waiting[0]
	one.object, one.table = doctor.Object{Kind: "table", Name: "background_updates"}, ""
	one.code = BeingBuilt
	one.evidence = map[string]string{"background updates": few(updates, maxNamed)}
	var what []string
	if len(indexes) > 0 {
		one.evidence["indexes"] = few(indexes, maxNamed)
		what = append(what, count(len(indexes), "index")+" not there yet")
	}
	if len(constraints) > 0 {
		one.evidence["constraints"] = few(constraints, maxNamed)
		what = append(what, count(len(constraints), "constraint")+" not validated yet")
	}
	one.summary = strings.Join(what, ", ") + ": Synapse's background updates, which are queued, see to them."
	one.observed = fmt.Sprintf("%d of the queued background updates", len(updates))
	one.expected = "none, some hours or days after an upgrade"
	one.remedy = "Nothing needs to be done while the queue gets shorter; Synapse works it off while it runs. If it does not " +
		"change from one day to the next, look for \"background update\" in Synapse's log:\n\n" +
		"    SELECT update_name, depends_on, progress_json FROM background_updates ORDER BY ordering, update_name;"
	return one
}

// awaited is the measure of each thing that waits for a background update.
const awaited = "awaited"

// stalled reports whether all that waited in an earlier run is lacking still. The number does not tell: an upgrade can queue
// more than was made meanwhile. What is being built at this moment, or has lost its update, was not made.
func stalled(t *doctor.Target, db *doctor.Database, losses []loss) bool {
	waited := 0
	for _, m := range t.Earlier.Measures {
		if m.Check != "schema" || m.Database != db.Label || m.Name != awaited {
			continue
		}
		if !slices.ContainsFunc(losses, func(l loss) bool { return l.object == m.Object }) {
			return false
		}
		waited++
	}
	return waited > 0
}

// overdue measures how many things wait for background updates, and for how long none of them has been made, as far as
// recorded runs can tell; and complains when that is too long.
func overdue(t *doctor.Target, db *doctor.Database, r doctor.Reporter, losses []loss) (loss, bool) {
	var names []string
	for _, l := range losses {
		if l.waits {
			names = append(names, l.object.Name)
		}
	}
	if len(names) == 0 {
		return loss{}, false
	}
	object := doctor.Object{Kind: "table", Name: "background_updates"}
	since := doctor.Measure{Check: "schema", Database: db.Label, Object: object, Name: "stalled-for", Unit: "seconds"}
	if was, ok := t.Earlier.Find(since.Key()); ok && stalled(t, db, losses) {
		since.Value = was.Value + max(0, time.Since(was.At).Seconds())
	}
	r.Measure(doctor.Measure{Check: "schema", Database: db.Label, Object: object, Name: "waiting", Value: float64(len(names))})
	r.Measure(since)
	for _, l := range losses {
		if l.waits {
			r.Measure(doctor.Measure{Check: "schema", Database: db.Label, Object: l.object, Name: awaited, Value: 1, Unit: "fingerprint"})
		}
	}
	days := since.Value / 86400
	if days < t.Threshold(waiting) {
		return loss{}, false
	}
	return loss{
		code: Overdue, severity: doctor.Warning, object: object,
		summary: fmt.Sprintf("For %.0f days at least, Synapse's background updates have made nothing of what waits for them: "+
			"%s.", days, few(names, 3)),
		observed: fmt.Sprintf("%d indexes and constraints wait, and none that waited then was made", len(names)),
		expected: fmt.Sprintf("one more made after %s days at most", doctor.Number(t.Threshold(waiting))),
		remedy: "Look for \"background update\" in Synapse's log: it says what the update at work does, or why it fails. Synapse " +
			"gives up after five failures until it is started again. " +
			"Do not delete rows of background_updates: what they make would be missing for ever. What is queued:\n\n" +
			"    SELECT update_name, depends_on, progress_json FROM background_updates ORDER BY ordering, update_name;",
		evidence: map[string]string{"waiting": few(names, maxNamed)},
	}, true
}

// notNoted tells of deltas that the version of the schema implies, and that are not noted. Synapse looks at the notes of its
// present version and above alone, so it never makes up for them.
func notNoted(want wanted) (doctor.Finding, bool) {
	if len(want.Unnoted) == 0 {
		return doctor.Finding{}, false
	}
	return doctor.Finding{
		Code: DeltaNotNoted, Severity: doctor.Info, Object: doctor.Object{Kind: "table", Name: "applied_schema_deltas"},
		Summary:  fmt.Sprintf("The schema went through %s without a note of it: %s.", count(len(want.Unnoted), "upgrade step"), few(want.Unnoted, 3)),
		Observed: few(want.Unnoted, maxNamed) + " not in applied_schema_deltas", Expected: "every delta below the schema's version",
		Remedy: "The table was changed, or restored without all of its rows. What the steps make is compared like everything else; " +
			"if nothing of it is missing, only the notes are. " +
			"If Synapse was set to a later version by hand, go back to a backup from before that.",
		Evidence: map[string]string{"deltas": few(want.Unnoted, maxNamed)},
	}, true
}
