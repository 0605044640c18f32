package locale

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// What building an index is assumed to do in a second: write so much of it, sorting included, and read so much of its table.
// A desktop's disk did twice that (PostgreSQL 18, two million event ids); a busy or rotating one may do less.
const (
	indexRate = 20 << 20
	tableRate = 100 << 20
)

// rebuildEstimate is how long it takes to rebuild the indexes one after the other, and the disk that the largest needs
// meanwhile: its new copy stands beside the old one, and its keys are sorted in temporary files about as large.
func rebuildEstimate(affected []index) (time.Duration, int64) {
	seconds, largest := 0.0, int64(0)
	for _, x := range affected {
		seconds += float64(x.Bytes)/indexRate + float64(x.TableBytes)/tableRate
		largest = max(largest, x.Bytes)
	}
	return time.Duration(seconds * float64(time.Second)), 2 * largest
}

func rebuildText(affected []index) (duration, disk string) {
	d, bytes := rebuildEstimate(affected)
	return fmt.Sprintf("%s, assuming %s of index and %s of table a second", durationText(d), sizeText(indexRate), sizeText(tableRate)),
		fmt.Sprintf("%s free: the new copy of the largest, and as much for sorting", sizeText(bytes))
}

// durationText rounds up, for an estimate.
func durationText(d time.Duration) string {
	switch {
	case d <= time.Minute:
		return "less than a minute"
	case d < 90*time.Minute:
		return fmt.Sprintf("about %d minutes", int(math.Ceil(d.Minutes())))
	}
	return fmt.Sprintf("about %d hours", int(math.Ceil(d.Hours())))
}

// sizeText is a size in bytes as people read it, as pg_size_pretty counts: 12 MB is 12·2²⁰ bytes.
func sizeText(n int64) string {
	x, unit := float64(n), 0
	for units := []string{"bytes", "kB", "MB", "GB", "TB"}; unit < len(units); unit++ {
		if x < 1024 || unit == len(units)-1 {
			if unit == 0 || x >= 10 || x == math.Trunc(x) {
				return fmt.Sprintf("%.0f %s", x, units[unit])
			}
			return fmt.Sprintf("%.1f %s", x, units[unit])
		}
		x /= 1024
	}
	return ""
}

const (
	stopSynapse = "Stop Synapse and all its workers."
	asSuperuser = "as an administrator of the database server (sudo -u postgres -i)"
)

// createdb is the command that makes a database as Synapse wants it.
func (c *catalog) createdb(name string) string {
	provider := ""
	if c.Version >= 150000 {
		provider = " --locale-provider=libc"
	}
	return "createdb --template=template0 --encoding=UTF8 --lc-collate=C --lc-ctype=C" + provider +
		" --owner=" + shellWord(c.Owner) + " " + shellWord(name)
}

// moveToC is how the database becomes one in C: by the doctor, or by a new database that is filled from it.
func (c *catalog) moveToC() string {
	affected := c.byDefault()
	duration, disk := rebuildText(affected)
	doctorText := fmt.Sprintf("The doctor moves it to C with Synapse stopped, in one of two ways, and first shows all that it would do:\n\n    synapse-doctor fix locale\n\n"+
		"locale/rebuild fills a new database and keeps this one until you drop it: it needs disk for a second copy (this one has %s). "+
		"locale/in-place changes this one and rebuilds its %d text indexes: %s, and %s.", sizeText(c.Bytes), len(affected), duration, disk)
	if !c.UTF8 {
		doctorText = "Its encoding is not UTF8 either. The rebuild that changes that makes the new database one in C, too:\n\n    synapse-doctor fix encoding"
	}
	fresh, old := c.own.Name+"_c", c.own.Name+"_before"
	parts := []string{
		doctorText,
		"Never just edit pg_database by hand: Synapse would start, and every text index would be in the wrong order.",
		"By hand: " + stopSynapse + " Then, " + asSuperuser + ", in a directory with room for the dump:",
		"    pg_dump --format=directory --jobs=2 --encoding=UTF8 --file=synapse.dump " + shellWord(c.own.Name) +
			"\n    " + c.createdb(fresh) +
			"\n    pg_restore --exit-on-error --jobs=2 --dbname=" + shellWord(fresh) + " synapse.dump",
		"If pg_restore ends with \"could not create unique index\" (SQLSTATE 23505), an index has already let a key in twice. Nothing has changed then: " +
			"drop " + fresh + ", find the rows with\n\n    synapse-doctor check locale --deep\n\nand decide about each of them before you begin again.",
		"When all three have ended without an error, let the new database take the old one's place:",
		fmt.Sprintf("    psql --dbname=postgres --single-transaction --set=ON_ERROR_STOP=1 \\\n      --command=%s \\\n      --command=%s\n    vacuumdb --analyze-in-stages --dbname=%s",
			shellWord(fmt.Sprintf("ALTER DATABASE %s RENAME TO %s", identifier(c.own.Name), identifier(old))),
			shellWord(fmt.Sprintf("ALTER DATABASE %s RENAME TO %s", identifier(fresh), identifier(c.own.Name))), shellWord(c.own.Name)),
		"The dump has neither the settings of the database itself (\\drds in psql) nor the rights on it (\\l): give the new one the same.",
	}
	if c.own.Ctype != "C" || c.own.Provider != "c" {
		parts = append(parts, "The search index is copied as it is, made by the old CTYPE: old messages with capital letters beyond A to Z may then not be found by a search. The doctor's plans make it anew.")
	}
	return strings.Join(append(parts, "Before Synapse is started, look again:\n\n    synapse-doctor check locale --deep\n\nDrop "+old+" when nothing has been missing for a while."), "\n\n")
}

// byDefaultQuery writes a statement for every index that compares text as the database does, the largest first, for psql to
// run one after the other. It is a line or two of what [indexesQuery] says.
const byDefaultQuery = `SELECT format('REINDEX INDEX%s %%s', i.indexrelid::regclass)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE 100 = ANY (i.indcollation::oid[]) AND c.relkind = 'i' AND c.relpersistence <> 't'
  AND c.relnamespace::regnamespace::text !~ '^(pg_|information_schema$)'
ORDER BY pg_relation_size(c.oid) DESC \gexec`

func indented(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }

// reindexes are the statements that rebuild the indexes: each of them by name when they are few, and otherwise the query that
// writes them.
func reindexes(affected []index, concurrently bool) string {
	word := ""
	if concurrently {
		word = " CONCURRENTLY"
	}
	if len(affected) > shownIndexes {
		return indented(fmt.Sprintf(byDefaultQuery, word))
	}
	var lines []string
	for _, x := range affected {
		lines = append(lines, "REINDEX INDEX"+word+" "+x.qualified()+";")
	}
	return indented(strings.Join(lines, "\n"))
}

// psql is the command that begins a session of the administrator in a database.
func psql(database string) string { return "    sudo -u postgres psql -d " + shellWord(database) }

const whyNotConcurrently = "REINDEX … CONCURRENTLY is for a Synapse that must stay up. Over keys that are there twice it fails, and each time leaves an invalid index behind whose name ends in _ccnew."

// mendEdited is the only sound order for a database whose catalog was edited.
func (c *catalog) mendEdited() string {
	affected := c.byDefault()
	duration, disk := rebuildText(affected)
	name := identifier(c.own.Name)
	limit := c.Limit
	if limit == 0 { // shut already
		limit = -1
	}
	parts := []string{
		"The doctor mends it with Synapse stopped, keeps every row that it removes, and first shows all that it would do:\n\n    synapse-doctor fix locale",
		"By hand, in this order. " + stopSynapse + " No session may be left that began before the edit: it still has the old locale, and would put new keys in the old order. Make a backup with pg_dump. " +
			"Then find the keys that are there twice:\n\n    synapse-doctor check locale --deep",
		"As a superuser in the database, shut it for all others and see that nobody is left:\n\n" + psql(c.own.Name),
		indented(fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT 0;\nSELECT pid, usename, application_name FROM pg_stat_activity\nWHERE datname = current_database() AND pid <> pg_backend_pid();", name)),
		"For each table with keys that are there twice, in one transaction, so that nothing comes between. Look only with SET LOCAL enable_indexscan, enable_indexonlyscan and enable_bitmapscan = off: through the damaged index not all rows are seen.",
		"    BEGIN;\n    LOCK TABLE the_table IN ACCESS EXCLUSIVE MODE;\n    -- copy the rows that go into another table, then DELETE each by its ctid\n    REINDEX TABLE the_table;\n    COMMIT;",
		fmt.Sprintf("Then the %d text indexes (%s; %s):", len(affected), duration, disk),
		reindexes(affected, false),
		whyNotConcurrently,
		"Only now take away the recorded version (REFRESH COLLATION VERSION fails here: \"invalid collation version change\"), and let others in:",
		indented(fmt.Sprintf("UPDATE pg_database SET datcollversion = NULL WHERE datname = %s;\nALTER DATABASE %s CONNECTION LIMIT %d;", textLiteral(c.own.Name), name, limit)),
		"Before Synapse is started, look again: no connection may warn any more, and every index must be in order.\n\n    synapse-doctor check locale --deep",
	}
	return strings.Join(parts, "\n\n")
}

// mendVersion rebuilds what depends on the library that has changed, and then tells the server so.
func mendVersion(database string, affected []index, refresh string) string {
	parts := []string{"Rebuild first, REFRESH last: REFRESH alone only silences the warning and mends nothing."}
	if len(affected) > 0 {
		duration, disk := rebuildText(affected)
		parts = append(parts,
			"Look first whether keys are there twice already. It only reads, and Synapse may stay up:\n\n    synapse-doctor check locale --deep",
			fmt.Sprintf("If there are none, these statements rebuild the indexes while Synapse is up (%s; %s). Run them outside a transaction, as an administrator or the owner:\n\n%s", duration, disk, psql(database)),
			reindexes(affected, true),
			"Over keys that are there twice this fails, and each time leaves an invalid index behind whose name ends in _ccnew. Then stop Synapse, remove those rows table by table "+
				"(synapse-doctor fix locale does it and keeps them), and use REINDEX INDEX without CONCURRENTLY.")
	}
	parts = append(parts, "Then, in the same database:\n\n    "+refresh+";",
		"Afterwards no connection warns any more, and this finds nothing:\n\n    synapse-doctor check locale --deep")
	return strings.Join(parts, "\n\n")
}
