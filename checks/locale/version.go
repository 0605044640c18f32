package locale

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// collation is a named collation whose recorded version is not the library's.
type collation struct {
	OID      uint32
	Schema   string
	Name     string
	Provider string
	Recorded string
	Actual   *string
	Indexes  []uint32 // that are in its order; none: nothing stored depends on it
}

// collationsQuery lists the named collations whose version has changed. It asks a library for the version of each
// of some 700 locales, 30 ms in all. Collations that were there before initdb was done are pinned and not in pg_depend.
const collationsQuery = `WITH uses AS (
  SELECT i.indexrelid AS index, c.coll FROM pg_index i, unnest(i.indcollation::oid[]) AS c(coll)
  UNION SELECT d.objid, d.refobjid FROM pg_depend d JOIN pg_index i ON i.indexrelid = d.objid
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_collation'::regclass
)
SELECT l.oid, n.nspname::text, l.collname::text, l.collprovider::text, l.collversion, v.actual,
  ARRAY(SELECT u.index FROM uses u JOIN pg_class x ON x.oid = u.index WHERE u.coll = l.oid AND x.relkind = 'i' AND x.relpersistence <> 't' ORDER BY 1)
FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace, LATERAL pg_collation_actual_version(l.oid) AS v(actual)
WHERE l.collprovider IN ('c', 'i', 'b') AND l.collencoding IN (-1, (SELECT encoding FROM pg_database WHERE datname = current_database()))
  AND l.collversion <> coalesce(v.actual, '')
ORDER BY 2, 3`

func driftedCollations(ctx context.Context, tx pgx.Tx) ([]collation, error) {
	rows, err := tx.Query(ctx, collationsQuery)
	if err != nil {
		return nil, fmt.Errorf("compare the versions of the named collations: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[collation])
	if err != nil {
		return nil, fmt.Errorf("compare the versions of the named collations: %w", err)
	}
	return found, nil
}

// judgeVersions compares recorded with actual versions: of the database's own collation, and of the named ones. Hundreds
// of those that nothing uses may differ after an update of the system; they are told once.
func (c *catalog) judgeVersions() []doctor.Finding {
	var found []doctor.Finding
	var unused []string
	for _, l := range c.drifted {
		if affected := c.byOID(l.Indexes); len(affected) > 0 {
			found = append(found, c.collationChanged(l, affected))
		} else {
			unused = append(unused, l.Name)
		}
	}
	switch {
	case c.own.changed():
		f := c.ownChanged()
		if len(unused) > 0 {
			f.Evidence["collations that no index uses"] = fmt.Sprintf("%d have another version too: %s", len(unused), someOf(unused))
		}
		found = append(found, f)
	case len(unused) > 0:
		found = append(found, c.unusedChanged(unused))
	}
	return found
}

func changedText(recorded string, actual *string) string {
	if actual == nil {
		return fmt.Sprintf("recorded %s, now a library that tells no version", recorded)
	}
	return fmt.Sprintf("recorded %s, now %s", recorded, *actual)
}

func (c *catalog) ownChanged() doctor.Finding {
	f := doctor.Finding{
		Code: VersionChanged, Severity: doctor.Warning, Object: c.object(), Fixable: true,
		Observed: "collation version: " + changedText(*c.own.Recorded, c.own.Actual), Expected: "the version with which the indexes were built",
		Evidence: c.evidence(),
	}
	library := "the system's C library"
	if c.own.Provider == "i" {
		library = "the library ICU"
	}
	f.Summary = fmt.Sprintf("The database %s was in use with another version of %s: text indexes that were built then may be out of order.", c.own.Name, library)
	if c.own.Provider == "b" {
		f.Summary = fmt.Sprintf("The database %s was in use with another version of PostgreSQL's builtin locale.", c.own.Name)
	}
	if c.own.Actual == nil {
		f.Evidence["likely cause"] = "an image with musl (Alpine) in the place of one with glibc (Debian)"
	}
	refresh := "ALTER DATABASE " + identifier(c.own.Name) + " REFRESH COLLATION VERSION"
	f.Remedy = "Show what the doctor would do, with Synapse stopped:\n\n    synapse-doctor fix locale\n\n"
	if !c.own.sound() && !c.own.bytewise() {
		f.Remedy += "A move to C, which is to be made anyway, rebuilds these indexes too: then nothing else is needed here. "
	}
	f.Remedy += "By hand. " + mendVersion(c.own.Name, c.byDefault(), refresh)
	return f
}

func (c *catalog) collationChanged(l collation, affected []index) doctor.Finding {
	f := doctor.Finding{
		Code: VersionChanged, Severity: doctor.Warning, Object: doctor.Object{Kind: "collation", Name: l.Name}, Fixable: true,
		Summary:  fmt.Sprintf("The collation %s has another version than when the indexes that use it were built: they may be out of order.", l.Name),
		Observed: "collation version: " + changedText(l.Recorded, l.Actual), Expected: "the version with which the indexes were built",
		Evidence: map[string]string{"provider": providerName(l.Provider)},
	}
	affectedEvidence(f.Evidence, affected)
	f.Remedy = "Show what the doctor would do, with Synapse stopped:\n\n    synapse-doctor fix locale\n\nBy hand. " +
		mendVersion(c.own.Name, affected, "ALTER COLLATION "+identifier(l.Schema, l.Name)+" REFRESH VERSION")
	return f
}

func (c *catalog) unusedChanged(names []string) doctor.Finding {
	return doctor.Finding{
		Code: VersionChanged, Severity: doctor.Info, Object: c.object(),
		Summary:  fmt.Sprintf("The library of %d named collations has changed since they were recorded; no index uses them.", len(names)),
		Observed: fmt.Sprintf("%d collations with another version", len(names)), Expected: "nothing has to be done while no index uses them",
		Remedy: "Nothing has to be done. To bring the records up to date, as a superuser:\n\n" + psql(c.own.Name) + "\n" + indented(
			"SELECT format('ALTER COLLATION %s REFRESH VERSION', l.oid::regcollation)\nFROM pg_collation l\nWHERE l.collversion <> pg_collation_actual_version(l.oid) \\gexec"),
		Evidence: map[string]string{"collations": someOf(names)},
	}
}

func someOf(names []string) string {
	if len(names) > shownIndexes {
		return strings.Join(names[:shownIndexes], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// neighbours judges template1 and postgres, for which the server warns too, and from which databases are made.
func (c *catalog) neighbours() []doctor.Finding {
	var found []doctor.Finding
	for _, r := range c.others {
		if r.Recorded == nil || r.Actual != nil && *r.Actual == *r.Recorded {
			continue
		}
		f := doctor.Finding{
			Code: VersionChanged, Severity: doctor.Warning, Object: doctor.Object{Kind: "database", Name: r.Name},
			Summary:  fmt.Sprintf("The database %s has another collation version than recorded: every connection to it warns.", r.Name),
			Observed: "collation version: " + changedText(*r.Recorded, r.Actual), Expected: "the version of the present library",
			Evidence: map[string]string{"provider": providerName(r.Provider), "locale": r.String()},
		}
		if r.Name == "template1" {
			f.Summary = "The database template1 has another collation version than recorded: no database can be made from it until that is mended."
		}
		refresh := "ALTER DATABASE " + identifier(r.Name) + " REFRESH COLLATION VERSION"
		if r.edited() {
			f.Observed = fmt.Sprintf("COLLATE %s with the recorded collation version %s", r.Collate, *r.Recorded)
			f.Summary = fmt.Sprintf("The database %s became %s by editing the catalog: every connection to it warns.", r.Name, r.Collate)
			refresh = "UPDATE pg_database SET datcollversion = NULL WHERE datname = " + textLiteral(r.Name)
		}
		f.Remedy = "It is not Synapse's, and usually holds nothing that has to be rebuilt. As a superuser, the second statement only after the first:\n\n" + psql(r.Name) +
			"\n    REINDEX DATABASE " + identifier(r.Name) + ";\n    " + refresh + ";"
		found = append(found, f)
	}
	return found
}
