package version

import (
	"fmt"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// schemaEvidence is what the schema says of the Synapse that uses it.
func schemaEvidence(f facts) map[string]string {
	e := map[string]string{
		"schema_version": fmt.Sprint(f.schema),
		"schema made":    "at this version",
		"server_version": f.version,
	}
	if f.upgraded {
		e["schema made"] = "by an upgrade"
	}
	if f.compat > 0 {
		e["schema_compat_version"] = fmt.Sprint(f.compat)
	}
	if same := synapse.ReleasesOf(f.schema, f.compat); len(same) > 0 {
		e["schema of"] = span(same)
	}
	if oldest, ok := synapse.OldestAble(f.schema, f.compat); ok {
		e["oldest Synapse that can still start"] = oldest.Version
	}
	return e
}

func noSchemaVersion(f facts) doctor.Finding {
	return doctor.Finding{
		Code: NoSchemaVersion, Severity: doctor.Error, Object: doctor.Object{Kind: "table", Name: "schema_version"},
		Summary:  "The table schema_version is empty, so Synapse takes the database for a new one and fails to create tables that are there.",
		Observed: "schema_version has no row",
		Expected: "one row with the version of the schema",
		Remedy: "This is what an import that stopped, or a restore without all data, leaves. Restore a whole backup into an empty database. " +
			"Do not start Synapse on this one.",
		Evidence: map[string]string{"server_version": f.version},
	}
}

func judgeSchema(f facts) []doctor.Finding {
	switch {
	// Synapse raises compat before it applies the changes, and some of these commit what precedes them.
	case f.compat > f.schema:
		return []doctor.Finding{{
			Code: CompatAhead, Severity: doctor.Error, Object: doctor.Object{Kind: "table", Name: "schema_compat_version"},
			Summary: fmt.Sprintf("An upgrade of the schema stopped half way: it is at version %d, but marked as unfit for any Synapse whose schema is below %d.",
				f.schema, f.compat),
			Observed: fmt.Sprintf("schema_version %d, schema_compat_version %d", f.schema, f.compat),
			Expected: "a compat version that is not above the schema's version",
			Remedy: "Start the newest Synapse that was tried on this database (the main process, not a worker): it goes on with the upgrade. " +
				"If it stops again its log names the change that fails. If no upgrade was tried, the two tables come from different backups; restore one whole backup.",
			Evidence: schemaEvidence(f),
		}}
	case len(synapse.ReleasesOf(f.schema, f.compat)) > 0:
		return nil
	}
	newest := synapse.NewestRelease()
	finding := doctor.Finding{
		Code: UnknownSchema, Severity: doctor.Info, Object: doctor.Object{Kind: "table", Name: "schema_version"},
		Observed: fmt.Sprintf("schema_version %d", f.schema),
		Evidence: schemaEvidence(f),
	}
	if f.schema > newest.Schema {
		finding.Summary = fmt.Sprintf("The schema's version %d is newer than this doctor knows, so what newer releases of Synapse require was not looked at.", f.schema)
		finding.Expected = fmt.Sprintf("schema version %d or older, or a newer synapse-doctor", newest.Schema)
		finding.Remedy = "Look for a newer release of synapse-doctor."
	} else {
		finding.Summary = fmt.Sprintf("No final release of Synapse that this doctor knows has schema version %d.", f.schema)
		finding.Expected = "the version of a final release"
		finding.Remedy = "A release candidate, a release before 1.0 or an upgrade that stopped half way leaves this. " +
			"Start a current Synapse (the main process, not a worker): it finishes the upgrade."
	}
	return []doctor.Finding{finding}
}
