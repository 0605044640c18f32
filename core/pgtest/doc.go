// Package pgtest makes throw-away PostgreSQL clusters, for tests and for the demonstration. It imports nothing of this
// repository.
//
// A test binary shares one server, and each test has a database of its own, cloned from a template that is built once:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()))
//		db.Exec(t, `DELETE FROM stream_positions`)
//		…
//	}
//
// A test that needs a server to itself, with its own settings or pg_hba.conf, calls [StartWith]. What PostgreSQL's major
// versions do differently is tested with [EachMajor]. Programs that are no tests use [New] and [Server.CreateDatabase].
//
// Every server is a child of the process that made it and dies with it, even when that is killed. Where no server
// programs are installed, tests are skipped and say so; with CI=true in the environment they fail instead.
package pgtest
