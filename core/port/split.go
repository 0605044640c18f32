package port

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// Split says why a homeserver whose data stores are in several databases can't be ported: a port takes one file into one
// database, and would leave the rest behind, or put it where Synapse does not look for it. Empty where there is one on each side.
// The error is that of a configuration that can't be read.
func Split(t *doctor.Target) (string, error) {
	var files, databases []string
	if len(t.ConfigFiles) > 0 {
		config, err := synapse.Load(t.ConfigFiles...)
		if err != nil {
			return "", err
		}
		sqlite := false
		for _, e := range config.Databases {
			sqlite = sqlite || e.Name == synapse.SQLite3
			where := "PostgreSQL"
			if e.Name == synapse.SQLite3 {
				where = e.SQLitePath()
			}
			files = append(files, fmt.Sprintf("%s (%s)", e.Label, where))
		}
		if sqlite && len(files) > 1 {
			return fmt.Sprintf("the configuration spreads the homeserver's data stores over %d databases, %s, and a port takes all of them from one SQLite file: "+
				"it would leave the others behind. Synapse itself has no way to join them", len(files), strings.Join(files, " and ")), nil
		}
	}
	whole := true
	for _, d := range t.Databases {
		if d.Engine == doctor.Postgres {
			databases = append(databases, fmt.Sprintf("%s (%s)", d.Label, d.Where()))
			whole = whole && d.Holds("main") && d.Holds("state")
		}
	}
	if len(databases) > 0 && (len(databases) > 1 || !whole) {
		return fmt.Sprintf("the data stores main and state are to go into different PostgreSQL databases, %s, and a port fills one: "+
			"name one in a section database, without databases; Synapse's documentation says how it is split later", strings.Join(databases, " and ")), nil
	}
	return "", nil
}

// undivided refuses what [Split] speaks of.
func undivided(t *doctor.Target) error {
	why, err := Split(t)
	if err == nil && why != "" {
		err = doctor.Unchanged("%s", why)
	}
	return err
}
