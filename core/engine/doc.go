// Package engine selects checks, runs them, plans fixes, applies plans and verifies the result.
//
// It knows plugins only as [doctor.Source] and imports core/doctor, core/synapse, core/journal and core/pgdb. It prints
// nothing: progress and consent are functions in [Options], and the outcome is a [doctor.Report] or a [doctor.FixReport].
//
//	e := engine.New(engine.Options{Target: target, Sources: sources})
//	report, err := e.Check(ctx, engine.Selection{})
//
// A check runs in three moves: examine.go finds out which needs the target meets, run.go asks each source for its checks,
// collect.go bounds and cleans what comes back. A fix is planned in plan.go and applied in apply.go, through the gates of
// gate.go and lock.go, for a third party's also of guest.go, a file for each kind of step; settle.go finishes or undoes what a killed run left, undo.go puts a
// finished one back.
package engine
