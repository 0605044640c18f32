// Package sequence knows the sequences from which Synapse draws the numbers of events, receipts, state groups and much else,
// and reads where each of them, and everything that uses its numbers, stands. It may import core/doctor and core/pgdb.
//
// facts.go lists what feeds on what; catalog.go and examine.go read; statement.go moves one forward. The check sequence
// judges what was read, and a port sets what it has filled.
//
//	e, err := sequence.Examine(ctx, tx, db, false)
//	for _, s := range e.Sequences {
//		if s.Needed() > s.Last() { … s.Setval(s.LastExpression()) … }
//	}
package sequence
