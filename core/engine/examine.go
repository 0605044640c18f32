package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// examined is what the engine found out of one database before any check runs.
type examined struct {
	err      error // why it could not be connected to
	version  string
	systemID string           // empty when the server does not tell this role
	started  string           // when the server was started, as [server] has it; empty without a login
	local    pgdb.LocalServer // what listens there, when that is a server of this machine
	identity synapse.Identity
}

const serverQuery = `SELECT current_setting('server_version'), extract(epoch FROM pg_postmaster_start_time())::text,
  CASE WHEN has_function_privilege('pg_control_system()', 'EXECUTE') THEN (SELECT system_identifier::text FROM pg_control_system()) ELSE '' END`

// examine finds out which needs each database meets. The connection check explains what failed; the engine only decides.
func (e *Engine) examine(ctx context.Context) {
	limit := connectLimit
	if e.Timeout > 0 {
		limit = min(limit, e.Timeout)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, noAnswer{limit})
	defer cancel()
	e.examined = make([]*examined, len(e.Target.Databases))
	var wg sync.WaitGroup
	for i, d := range e.Target.Databases {
		x := &examined{}
		e.examined[i] = x
		d.Meets = 0
		if d.Engine == doctor.SQLite {
			d.Meets |= doctor.NeedsSQLite
			continue
		}
		d.Meets |= doctor.NeedsPostgresEntry
		if d.Settings == nil {
			d.NoAdmin = "no login was handed over"
		} else {
			wg.Go(func() { x.local = findLocal(ctx, d) })
		}
		wg.Go(func() {
			x.err = d.Read(ctx, func(tx pgx.Tx) (err error) {
				if err := tx.QueryRow(ctx, serverQuery).Scan(&x.version, &x.started, &x.systemID); err != nil {
					return fmt.Errorf("ask the server for its version: %w", err)
				}
				x.identity, err = synapse.Identify(ctx, tx, e.Target.ServerName)
				return err
			})
			if cause := context.Cause(ctx); cause != nil && errors.Is(x.err, context.DeadlineExceeded) {
				x.err = cause // the engine's patience ended, not the setting's
			}
		})
	}
	wg.Wait()
	for i, d := range e.Target.Databases {
		x := e.examined[i]
		d.SystemID, d.DataDir = x.systemID, ""
		if x.systemID == "" || x.systemID == x.local.SystemID {
			d.SystemID, d.DataDir = x.local.SystemID, x.local.DataDir
		}
		if d.Engine != doctor.Postgres || x.err != nil {
			continue
		}
		d.Meets |= doctor.NeedsPostgres
		if x.identity.Belongs() {
			d.Meets |= doctor.NeedsSynapse
		}
	}
	e.examineAdmin(ctx)
}

// connectLimit bounds how long the engine waits for a database that does not answer.
const connectLimit = 15 * time.Second

// noAnswer is a server that did not answer while the engine waited.
type noAnswer struct{ within time.Duration }

func (n noAnswer) Error() string { return fmt.Sprintf("no connection within %s", n.within) }

// gate says whether a check with these needs may run.
type gate struct {
	skip    string // why not; empty when it may
	failed  bool   // a need failed, and not merely does not apply
	unknown string // why it could not be run; empty when it could
	// partly names databases that a check which runs can't look at.
	partly []string
}

func (e *Engine) gate(n doctor.Needs) gate {
	if n.Has(doctor.NeedsConfig) && len(e.Target.ConfigFiles) == 0 {
		return gate{skip: "no homeserver.yaml was given"}
	}
	for _, engine := range []struct {
		need doctor.Needs
		is   doctor.Engine
		none string
	}{
		{doctor.NeedsPostgresEntry | doctor.NeedsPostgres | doctor.NeedsSynapse | doctor.NeedsAdmin, doctor.Postgres, "the homeserver does not use PostgreSQL"},
		{doctor.NeedsSQLite, doctor.SQLite, "the homeserver does not use SQLite"},
	} {
		if n&engine.need == 0 {
			continue
		}
		var missing []string
		found, met, given := false, false, false
		for i, d := range e.Target.Databases {
			if d.Engine != engine.is {
				continue
			}
			found = true
			if d.Meets.Has(n & engine.need) {
				met = true
				continue
			}
			if without := n & engine.need &^ doctor.NeedsAdmin; d.Meets.Has(without) {
				missing = append(missing, "needs an administrator's connection: "+d.NoAdmin)
				given = given || e.Target.Admin != nil
				continue
			}
			missing, given = append(missing, e.unmet(d, e.examined[i])), true
		}
		switch {
		case !found:
			return gate{skip: engine.none}
		case !met:
			return gate{skip: strings.Join(missing, "; "), failed: given}
		case len(missing) > 0:
			return gate{partly: missing}
		}
	}
	return gate{}
}

// unmet says why a PostgreSQL database does not meet the needs.
func (e *Engine) unmet(d *doctor.Database, x *examined) string {
	switch {
	case d.Settings == nil:
		return fmt.Sprintf("no login to %s was handed over", d.Where())
	case x.err != nil:
		_, refused := errors.AsType[*pgdb.ConnectError](x.err)
		_, silent := errors.AsType[noAnswer](x.err)
		if refused || silent {
			return fmt.Sprintf("no connection to %s", d.Where())
		}
		return fmt.Sprintf("what is in %s could not be read", d.Where())
	case !x.identity.HasSchema:
		return fmt.Sprintf("%s does not hold Synapse's schema", d.Where())
	case x.identity.ForeignUser != "":
		return fmt.Sprintf("%s belongs to another homeserver than %s", d.Where(), e.Target.ServerName)
	}
	return fmt.Sprintf("%s could not be used", d.Where())
}

func (e *Engine) targetInfo() doctor.TargetInfo {
	info := doctor.TargetInfo{ServerName: e.Target.ServerName, ConfigFiles: e.Target.ConfigFiles}
	for i, d := range e.Target.Databases {
		db := doctor.DatabaseInfo{Label: d.Label, Engine: d.Engine, Database: d.Path}
		if d.Engine == doctor.Postgres {
			db.Host, db.Port = address(d)
			db.Database = d.Settings["dbname"]
			db.ServerVersion, _, _ = strings.Cut(e.examined[i].version, " ")
		}
		info.Databases = append(info.Databases, db)
	}
	return info
}

// address is the first host and port of a database's settings.
func address(d *doctor.Database) (string, int) {
	host, port := d.Settings["host"], d.Settings["port"]
	if host == "" {
		host = d.Settings["hostaddr"]
	}
	host, _, _ = strings.Cut(host, ",")
	port, _, _ = strings.Cut(port, ",")
	if ip := net.ParseIP(host); ip != nil {
		host = ip.String()
	}
	n, _ := strconv.Atoi(port)
	return host, n
}
