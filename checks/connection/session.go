package connection

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

const sessionQuery = `SELECT pg_is_in_recovery(), pg_backend_pid()`

// session looks at what Synapse would find once it is logged in.
func (e *examination) session(ctx context.Context, tx pgx.Tx) error {
	var standby bool
	var pid uint32
	if err := tx.QueryRow(ctx, sessionQuery).Scan(&standby, &pid); err != nil {
		return fmt.Errorf("ask for the session's server: %w", err)
	}
	if standby {
		e.find(e.standby())
	}
	if err := e.identity(ctx, tx); err != nil {
		return err
	}
	if pid != tx.Conn().PgConn().PID() { // the process that greeted us is not the one that answers: a pooler
		return e.pooler(ctx, tx, pid)
	}
	return nil
}

func (e *examination) standby() doctor.Finding {
	return doctor.Finding{
		Code:     "connection/standby",
		Severity: doctor.Error,
		Object:   e.object(),
		Summary:  "The server is a standby: Synapse cannot write to it.",
		Observed: "SELECT pg_is_in_recovery() is true",
		Expected: "a primary",
		Remedy: "Point host under database: args: in homeserver.yaml at the primary. With several hosts, let libpq find it:\n\n    target_session_attrs: read-write\n\n" +
			"Only if the primary is gone for good, make this server the primary:\n\n    SELECT pg_promote();",
	}
}

func (e *examination) object() doctor.Object {
	return doctor.Object{Kind: "database", Name: e.database.Settings["dbname"]}
}

// identity tells whose database it is. One that holds only the state store has no users.
func (e *examination) identity(ctx context.Context, tx pgx.Tx) error {
	id, err := synapse.Identify(ctx, tx, e.target.ServerName)
	if err != nil {
		return err
	}
	f := doctor.Finding{Severity: doctor.Error, Object: e.object()}
	const remedy = "Correct dbname under database: args: in homeserver.yaml. These are the databases of the server:\n\n    sudo -u postgres psql -l"
	switch {
	case id.ForeignUser != "":
		f.Code = "connection/other-server-name"
		f.Summary = fmt.Sprintf("The database holds another homeserver's users: %s.", id.ForeignUser)
		f.Observed = "the user " + id.ForeignUser
		f.Expected = "only users of " + e.target.ServerName
		f.Remedy = "Synapse does not start with it. Either dbname or server_name in homeserver.yaml is wrong; a server_name cannot be changed once there are users. " + remedy
	case id.Tables == 0:
		f.Code, f.Severity = "connection/not-synapse", doctor.Warning
		f.Summary = "The database is empty."
		f.Observed = "no table"
		f.Expected = "Synapse's tables"
		f.Remedy = "For a new homeserver that is right: Synapse makes its tables when it first starts. Otherwise it would start without any of your messages. " + remedy
	case !id.HasSchema && e.database.Holds("main"):
		f.Code = "connection/not-synapse"
		f.Summary = "The database is not Synapse's."
		f.Observed = fmt.Sprintf("%d tables, but no schema_version and users", id.Tables)
		f.Expected = "Synapse's tables"
		f.Remedy = "Synapse would add its tables to another program's. " + remedy + "\n\nTables in a schema other than public are found only when the role's search_path names it:\n\n    SHOW search_path;"
	default:
		return nil
	}
	e.find(f)
	return nil
}
