// Package rebuild makes a database anew: a new one in UTF8 and the locale C, filled from the old one, compared with it table
// by table, and put in its place by exchanging the two names. The checks of encoding and of locale both mend with it. It may
// import core/doctor, core/pgdb and core/synapse.
//
// A check adds the plan and the operations to its own:
//
//	plan, err := rebuild.Plan(ctx, t, db, "encoding", covers)
//	maps.Copy(operations, rebuild.Operations)
//
// The old database is only read. It is shut from the first byte that is read until it is put back or dropped by the
// administrator, so that nothing is written to it that the new one does not get. Where an operation stands is never
// remembered but seen on the server: which name the old database has (it is known by its OID), and what the comment on the
// new one says (it is known by that; nothing else is ever dropped). An operation that is called again after a kill goes on
// from there.
package rebuild
