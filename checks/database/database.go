// Package database is the check that Synapse's role and database are there and that the role may do in it what Synapse
// does: log in, connect often enough, and make and change tables. It may import core/doctor, core/synapse, core/pgdb and
// core/sqlitedb.
//
// Everything is read from catalogs that every role may read, so that Synapse's own login sees the same as an
// administrator. Only the administrator sees it while that login does not work, and only the administrator can mend it.
package database

import (
	"context"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// The codes of the check.
const (
	RoleMissing            = "database/role-missing"
	RoleCannotLogin        = "database/role-cannot-login"
	DatabaseMissing        = "database/database-missing"
	NotAllowingConnections = "database/not-allowing-connections"
	ConnectRevoked         = "database/connect-revoked"
	OwnerWrong             = "database/owner-wrong"
	NoCreateOnSchema       = "database/no-create-on-schema"
	TablesNotOwned         = "database/tables-not-owned"
	SearchPathSet          = "database/search-path-set"
	ClientEncodingSet      = "database/client-encoding-set"
	ConnectionLimit        = "database/connection-limit"
	MaxConnections         = "database/max-connections"
)

// Check finds what keeps Synapse's role from using its database, and the settings and limits that hinder it there.
var Check = doctor.Check{
	ID:    "database",
	Title: "Synapse's role may use its database",
	Why: "Synapse makes and changes tables as it is updated. Without its role and database, the right to do that, and enough " +
		"connections, it stops at its start, at an update, or when it is busiest.",
	Needs: doctor.NeedsConfig | doctor.NeedsPostgresEntry,
	Codes: []doctor.Code{
		{ID: RoleMissing, Title: "the role does not exist", Severity: doctor.Error},
		{ID: RoleCannotLogin, Title: "the role may not log in", Severity: doctor.Error},
		{ID: DatabaseMissing, Title: "the database does not exist", Severity: doctor.Error},
		{ID: NotAllowingConnections, Title: "the database lets nobody in", Severity: doctor.Error},
		{ID: ConnectRevoked, Title: "the role may not connect to the database", Severity: doctor.Error},
		{ID: OwnerWrong, Title: "the database belongs to another role", Severity: doctor.Warning},
		{ID: NoCreateOnSchema, Title: "the role may not make tables", Severity: doctor.Error},
		{ID: TablesNotOwned, Title: "Synapse's tables belong to another role", Severity: doctor.Error},
		{ID: SearchPathSet, Title: "a setting leads to another schema", Severity: doctor.Warning},
		{ID: ClientEncodingSet, Title: "a role or database sets another client_encoding", Severity: doctor.Warning},
		{ID: ConnectionLimit, Title: "the role or the database is limited to too few connections", Severity: doctor.Warning},
		{ID: MaxConnections, Title: "the server has fewer connections than Synapse may open", Severity: doctor.Warning},
	},
	Run:  run,
	Plan: plan,
}

func run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	seen, err := look(ctx, t)
	for _, e := range seen {
		for _, f := range e.faults {
			if !f.latent {
				r.Find(f.Finding)
			}
		}
	}
	return err
}
