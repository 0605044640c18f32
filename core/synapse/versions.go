package synapse

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// Release is one final release of Synapse and what its code asks of a database when it starts.
type Release struct {
	Version     string // 1.157.1
	Date        string // 2026-07-22
	Schema      int    // the schema version that it makes and upgrades to
	Compat      int    // the oldest schema-writing release it still works beside; 0 before 1.37, which had no such number
	MinPostgres string // 14 or 9.6; empty when not tested
	MinSQLite   string // 3.37.2; empty when not tested
	LocaleCheck string // empty, warn, or mandatory
}

// MinPostgresNum is MinPostgres as server_version_num counts: 90600, 140000; 0 when not tested.
func (r Release) MinPostgresNum() int {
	major, minor, _ := strings.Cut(r.MinPostgres, ".")
	n, _ := strconv.Atoi(major)
	m, _ := strconv.Atoi(minor)
	return n*10000 + m*100
}

//go:embed versions.csv
var versionsCSV string

// Releases lists the final releases that this version of the doctor knows, oldest first. The slice is shared: do not change it.
var Releases = sync.OnceValue(func() []Release {
	releases, err := parseReleases(versionsCSV)
	if err != nil {
		panic(err) // the table is part of the program, and a test reads it
	}
	return releases
})

func parseReleases(table string) ([]Release, error) {
	rows, err := csv.NewReader(strings.NewReader(table)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("versions.csv: %w", err)
	}
	var releases []Release
	for i, row := range rows[1:] {
		r := Release{Version: row[0], Date: row[1], MinPostgres: row[4], MinSQLite: row[5], LocaleCheck: row[6]}
		if r.Schema, err = strconv.Atoi(row[2]); err != nil {
			return nil, fmt.Errorf("versions.csv:%d: schema: %w", i+2, err)
		}
		if row[3] != "" {
			if r.Compat, err = strconv.Atoi(row[3]); err != nil {
				return nil, fmt.Errorf("versions.csv:%d: compat: %w", i+2, err)
			}
		}
		releases = append(releases, r)
	}
	return releases, nil
}

// NewestRelease is the newest that this version of the doctor knows.
func NewestRelease() Release {
	all := Releases()
	return all[len(all)-1]
}

// ReleasesOf lists the releases that leave a database with this schema version and compat version, oldest first. A compat
// version of 0 means that it is not recorded, as before 1.37. It is empty for a schema that no final release has.
//
// The schema of the newest release may be that of releases still to come, too.
func ReleasesOf(schema, compat int) []Release {
	var same, sameSchema []Release
	for _, r := range Releases() {
		if r.Schema != schema {
			continue
		}
		sameSchema = append(sameSchema, r)
		if r.Compat == compat {
			same = append(same, r)
		}
	}
	if len(same) == 0 {
		// A database keeps the highest compat version that it was ever given, so it need not be any release's own.
		return sameSchema
	}
	return same
}

// OldestAble is the oldest release that still starts on a database with this schema version and compat version: the
// end of the way back. Releases before 1.37 have no notion of compat and refuse every schema newer than their own.
func OldestAble(schema, compat int) (Release, bool) {
	for _, r := range Releases() {
		if r.Schema >= schema || r.Compat > 0 && compat > 0 && r.Schema >= compat {
			return r, true
		}
	}
	return Release{}, false
}
