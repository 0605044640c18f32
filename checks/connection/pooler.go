package connection

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// poolerPatience bounds the search. A pooler that has no server connection left lets a second client wait.
const poolerPatience = 3 * time.Second

// pooler tells whether the pooler hands server connections round between transactions (PgBouncer's pool_mode
// transaction or statement). Two clients that are connected at the same time never share a server connection unless it
// does, and one client keeps its own: so the process id is enough to know, and nothing is set in anybody's session.
// A pooler that keeps its connections where they are, or keeps us waiting, is no finding.
func (e *examination) pooler(ctx context.Context, tx pgx.Tx, first uint32) error {
	ctx, cancel := context.WithTimeout(ctx, poolerPatience)
	defer cancel()
	one, err := pgdb.Connect(ctx, e.database.Settings, e.options())
	if err != nil {
		return nil
	}
	defer pgdb.Close(one)
	two, err := pgdb.Connect(ctx, e.database.Settings, e.options())
	if err != nil {
		return nil
	}
	defer pgdb.Close(two)
	// tx holds its server process all the while; the two others meet on what is left.
	clients := map[uint32]*pgx.Conn{first: tx.Conn()}
	processes := map[*pgx.Conn]uint32{tx.Conn(): first}
	shared := false
	for _, conn := range []*pgx.Conn{one, two, one, two} {
		var pid uint32
		if err := conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
			return nil
		}
		client, known := clients[pid]
		before, had := processes[conn]
		shared = shared || known && client != conn || had && before != pid
		clients[pid], processes[conn] = conn, pid
	}
	if !shared {
		return nil
	}
	e.find(doctor.Finding{
		Code:     "connection/transaction-pooling",
		Severity: doctor.Warning,
		Object:   e.object(),
		Summary:  "A pooler gives Synapse another session for each transaction.",
		Observed: "of three clients that were connected at the same time, not each kept a server process of its own",
		Expected: "a pooler in session mode, or none",
		Remedy: "Synapse sets its isolation level and time limits once for each session; they get lost, or reach other programs' transactions. In pgbouncer.ini, for Synapse's database:\n\n" +
			fmt.Sprintf("    [databases]\n    %s = … pool_mode=session\n\n", e.database.Settings["dbname"]) +
			"Then RELOAD on PgBouncer's console, and restart Synapse. Synapse pools its connections itself (cp_max) and needs no pooler.",
	})
	return nil
}
