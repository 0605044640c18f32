package doctor

import (
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ShutStatement is the statement that shuts a database to everybody but superusers. Not ALLOW_CONNECTIONS false: that shuts
// out the superuser too, so that an interrupted plan could not be gone on with.
func ShutStatement(database string) string { return limitStatement(database, 0) }

func limitStatement(database string, limit int) string {
	return fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT %d", pgx.Identifier{database}.Sanitize(), limit)
}

const limitIs = `SELECT datconnlimit = $2 FROM pg_database WHERE datname = $1`

// Shut is the step with which a plan that requires [RequireShut] shuts its database, whose connection limit is limit
// (-1: none). A second step, [Open], ends what has to be done behind shut doors.
func Shut(database string, limit int) Step {
	return setLimit("Shut the database to everybody but the administrator", database, limit, 0)
}

// Open is the step that takes [Shut] back.
func Open(database string, limit int) Step {
	return setLimit("Open the database again", database, 0, limit)
}

func setLimit(title, database string, from, to int) Step {
	is := func(limit int) *Guard {
		return &Guard{Query: limitIs, Args: []Value{{database}, {int64(limit)}},
			Else: fmt.Sprintf("the connection limit of the database %s is no longer %d", database, limit)}
	}
	return Step{Title: title, SQL: &SQLStep{
		Admin: true, Statement: limitStatement(database, to), Mode: ModeAlone, Guard: is(from),
		Undo: []UndoSQL{{Statement: limitStatement(database, from), Guard: is(to)}},
	}}
}
