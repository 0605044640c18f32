package port

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// blocking are the faults with which no port can be begun, or gone on with.
var blocking = []string{UpdatesPending, SchemaDiffers, Other, Split, ModuleTables, TargetNotEmpty, TargetInUse, TargetLocale, NoRoom, WrittenSince}

// judgeSource says what is wrong with the file.
func judgeSource(s *source, serverName string) (found []doctor.Finding) {
	object := doctor.Object{Kind: "file", Name: s.path}
	if s.foreign {
		found = append(found, doctor.Finding{
			Code: Other, Severity: doctor.Error, Object: object,
			Summary:  fmt.Sprintf("%s belongs to another homeserver than %s.", s.path, serverName),
			Observed: "it has the user " + s.user, Expected: "users of " + serverName,
			Remedy: "Give the SQLite file of this homeserver: with --sqlite FILE, or in its homeserver.yaml.",
		})
	}
	if s.user == "" {
		found = append(found, doctor.Finding{
			Code: Other, Severity: doctor.Error, Object: object,
			Summary:  fmt.Sprintf("%s has no user: it is not the database of a homeserver in use.", s.path),
			Observed: "the table users is empty", Expected: "users",
			Remedy: "Synapse makes an empty file like this one where its configuration names a path that does not exist. Look for the real one, and give it with --sqlite FILE.",
		})
	}
	if len(s.updates) > 0 {
		found = append(found, updatesPending(s))
	}
	return found
}

func updatesPending(s *source) doctor.Finding {
	return doctor.Finding{
		Code: UpdatesPending, Severity: doctor.Error, Object: doctor.Object{Kind: "file", Name: s.path},
		Summary:  fmt.Sprintf("%s in the SQLite file: it can't be ported before Synapse has worked them off.", pendingCount(len(s.updates))),
		Observed: named(s.updates), Expected: "no row in background_updates",
		Remedy: "Start Synapse on the SQLite file and wait until this returns nothing. With a snapshot, make a new one then. Never delete the rows: what they were to do would be missing for ever.\n\n" +
			fmt.Sprintf("    sqlite3 -readonly %s 'SELECT update_name, progress_json FROM background_updates'", quote(s.path)),
		Evidence: map[string]string{"pending": named(s.updates)},
	}
}

func pendingCount(n int) string {
	if n == 1 {
		return "One background update is pending"
	}
	return fmt.Sprintf("%d background updates are pending", n)
}

// mostListed bounds the names in one sentence.
const mostListed = 20

func named(list []string) string {
	if len(list) > mostListed {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:mostListed], ", "), len(list)-mostListed)
	}
	return strings.Join(list, ", ")
}

// judgeSchemas compares how far both schemas are. A target without one gets it from the installed Synapse.
func judgeSchemas(s *source, t *target) []doctor.Finding {
	if !t.id.HasSchema {
		return nil
	}
	fileLacks, targetLacks := s.schema.behind(t.schema), t.schema.behind(s.schema)
	if len(fileLacks) == 0 && len(targetLacks) == 0 && s.schema.version == t.schema.version {
		return nil
	}
	f := doctor.Finding{
		Code: SchemaDiffers, Severity: doctor.Error, Object: doctor.Object{Kind: "database", Name: t.name},
		Observed: fmt.Sprintf("schema version %d in SQLite, %d in PostgreSQL", s.schema.version, t.schema.version),
		Expected: "the same changes of the schema on both sides",
		Evidence: map[string]string{},
	}
	if len(fileLacks) > 0 {
		f.Evidence["missing in SQLite"] = named(fileLacks)
	}
	if len(targetLacks) > 0 {
		f.Evidence["missing in PostgreSQL"] = named(targetLacks)
	}
	fileOlder := s.schema.version < t.schema.version || s.schema.version == t.schema.version && len(targetLacks) == 0
	targetOlder := s.schema.version > t.schema.version || s.schema.version == t.schema.version && len(fileLacks) == 0
	switch {
	case fileOlder:
		f.Summary = "The schema of the SQLite file is older than that of the PostgreSQL database: they are not of the same Synapse."
		f.Remedy = "Start the newer Synapse, the one that made the PostgreSQL database's schema, once on the SQLite file. It brings the file's schema up to date; wait until its background updates are done. " +
			"With a snapshot, make a new one then."
	case targetOlder:
		f.Summary = "The schema of the PostgreSQL database is older than that of the SQLite file: they are not of the same Synapse."
		f.Remedy = "Nothing of a homeserver is in the PostgreSQL database yet. Drop it and make it anew, empty: the port then makes the schema with the Synapse that is installed. \"synapse-doctor fix database\" prints how a database is made."
	default:
		f.Summary = "The schemas of the SQLite file and the PostgreSQL database come from different releases of Synapse."
		f.Remedy = "Start the newest Synapse that either of them has seen once on the SQLite file, and wait until its background updates are done. " +
			"Then drop the PostgreSQL database and make it anew, empty: the port makes the schema with the Synapse that is installed."
	}
	return []doctor.Finding{f}
}

// judgeTarget says what is wrong with a database that is to be ported to. began: a port of the doctor's has begun there.
func judgeTarget(t *target, serverName string, began bool) (found []doctor.Finding) {
	object := doctor.Object{Kind: "database", Name: t.name}
	switch {
	case t.id.ForeignUser != "":
		found = append(found, doctor.Finding{
			Code: Other, Severity: doctor.Error, Object: object,
			Summary:  fmt.Sprintf("The PostgreSQL database %s belongs to another homeserver than %s.", t.name, serverName),
			Observed: "it has the user " + t.id.ForeignUser, Expected: "an empty database",
			Remedy: "Name another database in the configuration, one that is empty. \"synapse-doctor fix database\" prints how it is made.",
		})
	case !began && !t.Script && t.occupied() != "":
		found = append(found, doctor.Finding{
			Code: TargetNotEmpty, Severity: doctor.Error, Object: object,
			Summary:  fmt.Sprintf("The PostgreSQL database %s is not empty, and no port has filled it: nothing is ported into it.", t.name),
			Observed: t.occupied(), Expected: "an empty database, or a fresh schema of Synapse",
			Remedy: "If this homeserver already runs on it, there is nothing to port: leave out --sqlite, and --postgres-config. " +
				"Otherwise name another database in the configuration, one that is empty. \"synapse-doctor fix database\" prints how it is made.",
		})
	}
	if !t.inUTF8AndC() {
		found = append(found, doctor.Finding{
			Code: TargetLocale, Severity: doctor.Error, Object: object,
			Summary:  fmt.Sprintf("The PostgreSQL database %s is not in UTF8 and the locale C: Synapse refuses to start on it.", t.name),
			Observed: t.localeText(), Expected: "encoding UTF8, LC_COLLATE C, LC_CTYPE C",
			Remedy: "While it is empty, drop it and make it anew, as an administrator of the database server:\n\n" +
				fmt.Sprintf("    sudo -u postgres dropdb %s\n    sudo -u postgres createdb --encoding=UTF8 --locale=C --template=template0 --owner=%s %s", quote(t.name), quote(t.role), quote(t.name)) +
				"\n\nOne with something in it is mended by synapse-doctor fix encoding, or fix locale.",
		})
	}
	return found
}

func inUse(t *target) []doctor.Finding {
	if len(t.sessions) == 0 {
		return nil
	}
	return []doctor.Finding{{
		Code: TargetInUse, Severity: doctor.Error, Object: doctor.Object{Kind: "database", Name: t.name},
		Summary:  fmt.Sprintf("Somebody is connected to the PostgreSQL database %s with Synapse's role: nothing is ported into a database in use.", t.name),
		Observed: named(t.sessions), Expected: "nobody but the doctor",
		Remedy: "If that is Synapse, it runs on PostgreSQL already. Otherwise end the session: an open psql, a PgBouncer that keeps idle connections.",
	}}
}

// judgeRoom compares the free disk with what a port needs.
func judgeRoom(rooms []room, t *target) (found []doctor.Finding) {
	for _, r := range rooms {
		if !r.seen {
			found = append(found, doctor.Finding{
				Code: RoomNotSeen, Severity: doctor.Info, Object: doctor.Object{Kind: "database", Name: t.name},
				Summary:  "How much disk is free on the database's host can't be seen from here.",
				Observed: "the server's files are on another machine, or may not be looked at",
				Expected: fmt.Sprintf("%s to %s free", size(max(r.least, 0)+min(t.maxWAL, r.most)), size(max(r.most, 0)+t.maxWAL)),
				Remedy:   "See on that host that there is room enough, the write-ahead log included:\n\n    df -h",
			})
			continue
		}
		if r.free >= r.most {
			continue
		}
		f := doctor.Finding{
			Code: NoRoom, Severity: doctor.Error, Object: doctor.Object{Kind: "directory", Name: r.dir},
			Summary:  fmt.Sprintf("There is not enough free disk in %s for the port.", r.dir),
			Observed: size(r.free) + " free", Expected: fmt.Sprintf("%s to %s", size(r.least), size(r.most)),
			Remedy: "Make room there, or put the database into a tablespace on another disk. In PostgreSQL a database takes 1.25 to 2 times what it takes in SQLite, and the write-ahead log grows meanwhile.",
		}
		if r.free >= r.least {
			f.Severity = doctor.Warning
			f.Summary = fmt.Sprintf("The free disk in %s may not be enough for the port.", r.dir)
		}
		found = append(found, f)
	}
	return found
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", (n+1023)>>10)
}

// judgeColumns says where tables of the same schema have other columns.
func judgeColumns(unequal []string, t *target) []doctor.Finding {
	if len(unequal) == 0 {
		return nil
	}
	return []doctor.Finding{{
		Code: SchemaDiffers, Severity: doctor.Error, Object: doctor.Object{Kind: "database", Name: t.name},
		Summary:  "Tables of the SQLite file and of the PostgreSQL database do not have the same columns.",
		Observed: strings.Join(unequal[:min(len(unequal), mostListed)], "; "), Expected: "the same columns on both sides",
		Remedy: "Somebody has changed a table by hand, or a module has another version on one side. Where PostgreSQL is wrong, drop that database, which holds nothing yet, and make it anew, empty. " +
			"A module's table that nobody needs any more is dropped in PostgreSQL, and then left behind with --skip-table.",
	}}
}

// judgeModules says which tables would be left behind.
func judgeModules(only []string, target string) (found []doctor.Finding) {
	for _, name := range only {
		found = append(found, doctor.Finding{
			Code: ModuleTables, Severity: doctor.Error, Object: doctor.Object{Kind: "table", Name: name},
			Summary:  fmt.Sprintf("The table %s is only in the SQLite file, and has rows: a port would leave them behind.", name),
			Observed: "no such table in " + target, Expected: "the same table on both sides",
			Remedy: fmt.Sprintf("A module of Synapse has made it. Install the module where the PostgreSQL schema is made, or make the table there yourself; then it is ported too. Where nobody needs it any more:\n\n    --skip-table %s", quote(name)),
		})
	}
	return found
}

// judgeSkipped says what can't be left behind.
func judgeSkipped(names []string) (found []doctor.Finding) {
	for _, name := range names {
		found = append(found, doctor.Finding{
			Code: ModuleTables, Severity: doctor.Error, Object: doctor.Object{Kind: "table", Name: name},
			Summary:  fmt.Sprintf("--skip-table names %s, which both databases have: a port does not leave it behind.", name),
			Observed: "the table is in SQLite and in PostgreSQL", Expected: "a table that only the SQLite file has",
			Remedy: "Take it out of the command: Synapse, or the module that it is of, would find it empty. A module's table that nobody needs any more can be dropped in PostgreSQL first; then it is only in the file, and may be left behind.",
		})
	}
	return found
}

// blocked reports whether one of the findings keeps a port from being begun.
func blocked(findings []doctor.Finding) bool {
	return slices.ContainsFunc(findings, func(f doctor.Finding) bool {
		return slices.Contains(blocking, f.Code) && f.Severity == doctor.Error
	})
}

// quote makes a word of a shell of s.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,@%+", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
