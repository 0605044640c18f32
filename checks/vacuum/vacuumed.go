package vacuum

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/port"
)

// vacuumed asks the record of a port, in the database that the file is moved to, whether the file was VACUUMed since.
func (x *examination) vacuumed(ctx context.Context) error {
	file, database := port.Pair(x.target)
	if file != x.database || database == nil {
		return nil
	}
	if x.state.Pending() {
		x.covered = append(x.covered, fmt.Sprintf("whether %s was VACUUMed since it was ported was not looked at", x.name()))
		return nil
	}
	var v *port.Vacuum
	err := database.Read(ctx, func(tx pgx.Tx) (err error) {
		v, err = port.Vacuumed(ctx, tx, x.database.Path)
		return err
	})
	if failed, ok := errors.AsType[*pgdb.ConnectError](err); ok {
		if failed.SQLSTATE == "3D000" {
			return nil // the database is still to be made
		}
		return fmt.Errorf("whether %s was VACUUMed since it was ported could not be asked of %s: no connection", x.database.Path, database.Where())
	}
	if x.changed(ctx) {
		x.covered = append(x.covered, fmt.Sprintf("whether %s was VACUUMed since it was ported was not looked at, since it is being written to", x.name()))
		return nil
	}
	if err != nil {
		return fmt.Errorf("whether %s was VACUUMed since it was ported could not be told: %w", x.database.Path, err)
	}
	if v == nil || !v.Happened {
		return nil
	}
	x.find(vacuumedFinding(v, x.name()))
	return nil
}

func vacuumedFinding(v *port.Vacuum, name string) doctor.Finding {
	f := doctor.Finding{
		Code: Vacuumed, Severity: doctor.Warning,
		Summary:  fmt.Sprintf("%s was VACUUMed since it was ported, and rows of %s have other numbers now", name, some(v.Moved, 5)),
		Observed: fmt.Sprintf("rows have moved in %d tables", len(v.Moved)),
		Expected: "every row at the rowid at which the port has read it",
		Remedy: "Run the doctor's port once more: it notices which rows have moved and makes these tables right:\n    synapse-doctor fix port --apply\n" +
			"Don't go on with Synapse's own script: it would miss rows, or store some twice. Where it did the port, begin again with an empty database.",
		Evidence: maps.Clone(v.Evidence),
	}
	if f.Evidence == nil {
		f.Evidence = map[string]string{}
	}
	if len(v.Moved) == 0 {
		f.Severity = doctor.Info
		f.Summary = fmt.Sprintf("%s was VACUUMed since it was ported; no row that the port knows has moved", name)
		f.Observed = "the schema's number and the places of tables in the file have changed, and its schema has not"
		f.Remedy = "Nothing is lost by it: the next run of synapse-doctor fix port --apply compares every table anyway. Leave the file as it is until the port is done."
	} else {
		f.Evidence["moved"] = strings.Join(v.Moved, ", ")
	}
	return f
}
