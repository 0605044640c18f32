package version

import (
	"fmt"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// lifetimes are PostgreSQL's major versions, by their server_version_num without the minor part, and the day of the
// last release of each, as https://www.postgresql.org/support/versioning/ has them.
var lifetimes = []struct {
	num  int
	name string
	end  string
}{
	{90500, "9.5", "2021-02-11"}, {90600, "9.6", "2021-11-11"},
	{100000, "10", "2022-11-10"}, {110000, "11", "2023-11-09"}, {120000, "12", "2024-11-21"}, {130000, "13", "2025-11-13"},
	{140000, "14", "2026-11-12"}, {150000, "15", "2027-11-11"}, {160000, "16", "2028-11-09"}, {170000, "17", "2029-11-08"},
	{180000, "18", "2030-11-14"},
}

// major is the part of a server_version_num that an upgrade with pg_upgrade changes: two numbers before 10.
func major(num int) int {
	if num < 100000 {
		return num / 100 * 100
	}
	return num / 10000 * 10000
}

func majorName(num int) string {
	if num < 100000 {
		return fmt.Sprintf("%d.%d", num/10000, num/100%100)
	}
	return fmt.Sprint(num / 10000)
}

func judgeServer(f facts, now time.Time, noticeDays int) []doctor.Finding {
	var found []doctor.Finding
	if f.inRecovery {
		found = append(found, inRecovery(f))
	}
	if f.hasVersion {
		if finding, ok := judgeRequirement(f); ok {
			found = append(found, finding)
		}
	}
	if finding, ok := judgeLifetime(f, now, noticeDays); ok {
		found = append(found, finding)
	}
	return found
}

func inRecovery(f facts) doctor.Finding {
	return doctor.Finding{
		Code: InRecovery, Severity: doctor.Error, Object: doctor.Object{Kind: "database", Name: f.database},
		Summary:  "This server is a standby or has not finished its recovery: it accepts no writes, and Synapse cannot run on it.",
		Observed: "pg_is_in_recovery() is true",
		Expected: "pg_is_in_recovery() is false",
		Remedy: "Point host and port of Synapse's database settings at the primary. If the primary is lost and this standby is " +
			"to take its place, make sure that the old primary can't come back, then, as the administrator:\n    SELECT pg_promote();",
	}
}

// judgeRequirement compares the server with what releases of Synapse ask for when they start.
func judgeRequirement(f facts) (doctor.Finding, bool) {
	object := doctor.Object{Kind: "server", Name: "PostgreSQL " + majorName(f.versionNum)}
	if who, least, ok := requirement(f.schema, f.compat); ok && f.versionNum < least.MinPostgresNum() {
		return doctor.Finding{
			Code: TooOld, Severity: doctor.Error, Object: object,
			Summary: fmt.Sprintf("PostgreSQL %s is too old: %s, which this schema belongs to, needs PostgreSQL %s and refuses to start.",
				majorName(f.versionNum), who, least.MinPostgres),
			Observed: "server version " + f.version,
			Expected: fmt.Sprintf("PostgreSQL %s or newer", least.MinPostgres),
			Remedy:   upgradeRemedy(f.versionNum),
			Evidence: schemaEvidence(f),
		}, true
	}
	newest := synapse.NewestRelease()
	if f.versionNum >= newest.MinPostgresNum() {
		return doctor.Finding{}, false
	}
	last := ""
	for _, r := range synapse.Releases() {
		if f.versionNum >= r.MinPostgresNum() {
			last = r.Version
		}
	}
	return doctor.Finding{
		Code: TooOldForUpgrade, Severity: doctor.Info, Object: object,
		Summary: fmt.Sprintf("PostgreSQL %s works with Synapse up to %s only; newer releases refuse to start on it.",
			majorName(f.versionNum), last),
		Observed: "server version " + f.version,
		Expected: fmt.Sprintf("PostgreSQL %s or newer, before Synapse is upgraded past %s", newest.MinPostgres, last),
		Remedy:   upgradeRemedy(f.versionNum),
		Evidence: schemaEvidence(f),
	}, true
}

// requirement is the least that any Synapse with this schema asks of the server, and that Synapse in words. Of a schema
// that no known release has, it is what the release before it asks: requirements only ever rise.
func requirement(schema, compat int) (who string, least synapse.Release, ok bool) {
	if same := synapse.ReleasesOf(schema, compat); len(same) > 0 {
		return span(same), same[0], true
	}
	for _, r := range synapse.Releases() {
		if r.Schema < schema {
			least, ok = r, true
		}
	}
	return "a Synapse newer than " + least.Version, least, ok
}

// span is a range of releases in words. The newest known schema may be that of later releases too.
func span(releases []synapse.Release) string {
	oldest, newest := releases[0], releases[len(releases)-1]
	switch {
	case newest == synapse.NewestRelease():
		return fmt.Sprintf("Synapse %s or newer", oldest.Version)
	case oldest == newest:
		return "Synapse " + oldest.Version
	}
	return fmt.Sprintf("Synapse %s to %s", oldest.Version, newest.Version)
}

func judgeLifetime(f facts, now time.Time, noticeDays int) (doctor.Finding, bool) {
	object := doctor.Object{Kind: "server", Name: "PostgreSQL " + majorName(f.versionNum)}
	known, newest := lifetimes[0], lifetimes[len(lifetimes)-1]
	switch {
	case major(f.versionNum) > newest.num:
		return doctor.Finding{
			Code: UnknownPostgres, Severity: doctor.Info, Object: object,
			Summary: fmt.Sprintf("PostgreSQL %s is newer than this doctor knows: what it says of this server was not tried there.",
				majorName(f.versionNum)),
			Observed: "server version " + f.version,
			Expected: fmt.Sprintf("PostgreSQL %s or older, or a newer synapse-doctor", newest.name),
			Remedy:   "Look for a newer release of synapse-doctor.",
		}, true
	case major(f.versionNum) < known.num:
		known.name = majorName(f.versionNum) // all older ones ended before the first known
	default:
		for _, l := range lifetimes {
			if l.num == major(f.versionNum) {
				known = l
			}
		}
	}
	// The day of the last release is still in support.
	end, err := time.Parse(time.DateOnly, known.end)
	if err != nil {
		panic(err) // a constant of this file
	}
	end = end.AddDate(0, 0, 1)
	finding := doctor.Finding{
		Object:   object,
		Observed: fmt.Sprintf("server version %s, maintained until %s", f.version, known.end),
		Expected: "a PostgreSQL that its makers maintain",
		Remedy:   "If your distribution still maintains this version itself, there is no hurry. " + upgradeRemedy(f.versionNum),
	}
	switch {
	case !now.Before(end):
		finding.Code, finding.Severity = EndOfLife, doctor.Warning
		finding.Summary = fmt.Sprintf("PostgreSQL %s has had no fixes since %s, neither for security nor against loss of data.", known.name, known.end)
	case !now.Before(end.AddDate(0, 0, -noticeDays)):
		finding.Code, finding.Severity = EndOfLifeSoon, doctor.Info
		finding.Summary = fmt.Sprintf("PostgreSQL %s gets its last fixes on %s.", known.name, known.end)
	default:
		return doctor.Finding{}, false
	}
	return finding, true
}

func upgradeRemedy(num int) string {
	return strings.ReplaceAll("Take a backup, stop Synapse, and upgrade PostgreSQL to a newer major version. On Debian and Ubuntu, with the new version "+
		"installed and its own empty cluster dropped:\n"+
		"    pg_upgradecluster VERSION main\n"+
		"Elsewhere use pg_upgrade, or pg_dump and pg_restore. In Docker a newer image alone does not start on the old data: dump with the old "+
		"image first. A database that is created anew needs UTF8 and the locale C (before PostgreSQL 15 without --locale-provider=libc):\n"+
		"    createdb --encoding=UTF8 --locale-provider=libc --locale=C --template=template0 --owner=synapse_user synapse\n"+
		"Afterwards give the planner its statistics back:\n"+
		"    vacuumdb --all --analyze-in-stages", "VERSION", majorName(num))
}
