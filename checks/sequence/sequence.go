// Package sequence is the check that no sequence of the database is behind the numbers in use. It may import
// core/doctor, core/synapse, core/pgdb, core/sqlitedb and core/sequence.
//
// Synapse draws the numbers of events, receipts, state groups and much else from 26 sequences. A port, a restored backup
// or a failover can leave one behind: Synapse then refuses to start, or gives a number twice. core/sequence
// lists what feeds on what, and reads where everything stands; finding.go says what is wrong, stray.go what is not
// Synapse's; plan.go mends it.
package sequence

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/sequence"
)

// The codes of the check.
const (
	BehindTable          = "sequence/behind-table"
	BehindStreamPosition = "sequence/behind-stream-position"
	NotCalled            = "sequence/not-called"
	Unknown              = "sequence/unknown"
)

// Check finds sequences that would give out numbers which are taken.
var Check = doctor.Check{
	ID:    "sequence",
	Title: "Every sequence is ahead of the numbers in use",
	Why:   "A sequence that is behind gives numbers out twice: Synapse refuses to start, or messages fail to send and are missed.",
	Needs: doctor.NeedsSynapse,
	Codes: []doctor.Code{
		{ID: BehindTable, Title: "a sequence is behind a table that it numbers", Severity: doctor.Error},
		{ID: BehindStreamPosition, Title: "a sequence is behind a recorded position in its stream", Severity: doctor.Error},
		{ID: NotCalled, Title: "a reader has passed the number that a sequence gives next", Severity: doctor.Info},
		{ID: Unknown, Title: "a sequence that Synapse does not make", Severity: doctor.Info},
	},
	Run:  run,
	Plan: plan,
}

func run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	var unread []error
	for _, db := range t.Meeting(doctor.NeedsSynapse) {
		e, err := look(ctx, t, db)
		if err != nil {
			return errors.Join(append(unread, err)...)
		}
		for _, s := range e.Sequences {
			if f, found := judge(s); found {
				f.Database = db.Label
				r.Find(f)
			}
		}
		for _, f := range judgeStrays(e.Strays) {
			f.Database = db.Label
			r.Find(f)
		}
		for _, err := range e.Unread {
			unread = append(unread, fmt.Errorf("database %s: %w", db.Label, err))
		}
	}
	return errors.Join(unread...)
}

func look(ctx context.Context, t *doctor.Target, db *doctor.Database) (e *sequence.Examined, err error) {
	err = db.Read(ctx, func(tx pgx.Tx) error {
		e, err = sequence.Examine(ctx, tx, db, t.Deep)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", db.Label, err)
	}
	return e, nil
}
