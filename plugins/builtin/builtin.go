// Package builtin is the one list of built-in checks. It may import checks/* and core/doctor.
package builtin

import (
	"github.com/synapse-doctor/synapse-doctor/checks/connection"
	"github.com/synapse-doctor/synapse-doctor/checks/database"
	"github.com/synapse-doctor/synapse-doctor/checks/encoding"
	"github.com/synapse-doctor/synapse-doctor/checks/ident"
	"github.com/synapse-doctor/synapse-doctor/checks/keepalives"
	"github.com/synapse-doctor/synapse-doctor/checks/locale"
	"github.com/synapse-doctor/synapse-doctor/checks/port"
	"github.com/synapse-doctor/synapse-doctor/checks/schema"
	"github.com/synapse-doctor/synapse-doctor/checks/sequence"
	"github.com/synapse-doctor/synapse-doctor/checks/tuning"
	"github.com/synapse-doctor/synapse-doctor/checks/upkeep"
	"github.com/synapse-doctor/synapse-doctor/checks/vacuum"
	"github.com/synapse-doctor/synapse-doctor/checks/version"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Name is how reports call the built-in checks' plugin.
const Name = "builtin"

// Checks are the built-in checks, in the order of a report.
func Checks() []doctor.Check {
	return []doctor.Check{
		connection.Check,
		database.Check,
		ident.Check,
		version.Check,
		encoding.Check,
		locale.Check,
		sequence.Check,
		schema.Check,
		keepalives.Check,
		tuning.Check,
		upkeep.Check,
		vacuum.Check,
		port.Check,
	}
}
