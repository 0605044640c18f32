package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// portFlags say how a homeserver is moved from SQLite to PostgreSQL.
type portFlags struct {
	config  string
	skip    []string
	command string
}

func (p *portFlags) register(f *pflag.FlagSet) {
	f.StringVar(&p.config, "postgres-config", "", "the `FILE` with the database section for PostgreSQL to which a homeserver on SQLite is moved: that section alone, or a whole homeserver.yaml")
	f.StringArrayVar(&p.skip, "skip-table", nil, "a `TABLE` that only the SQLite file has, such as a module's, and that need not be moved; may be repeated")
	f.StringVar(&p.command, "synapse-command", "", "the `COMMAND` before which a program of Synapse's is put where it runs in a container, such as \"docker exec -i synapse\" (default: Synapse is looked for on this machine)")
}

func (p *portFlags) repeated() []string {
	var flags []string
	if p.config != "" {
		flags = append(flags, "--postgres-config", p.config)
	}
	for _, t := range p.skip {
		flags = append(flags, "--skip-table", t)
	}
	if p.command != "" {
		flags = append(flags, "--synapse-command", p.command)
	}
	return flags
}

// merge gives the target what the flags say, and returns the configuration with the new database section in the place of
// SQLite's. A configuration that has it already is returned as it is.
func (p *portFlags) merge(config *synapse.Config, t *doctor.Target) (*synapse.Config, error) {
	t.SkipTables, t.SynapseCommand = slices.Clone(p.skip), p.command
	if p.config == "" {
		return config, nil
	}
	var err error
	if t.PostgresConfig, err = filepath.Abs(p.config); err != nil {
		return nil, fmt.Errorf("--postgres-config: %w", err)
	}
	var files []string
	if config != nil {
		files = config.Files
	}
	merged, err := synapse.Load(append(slices.Clone(files), p.config)...)
	if err != nil {
		return nil, fmt.Errorf("--postgres-config: %w", err)
	}
	for _, entry := range merged.Databases {
		if entry.Name != synapse.Psycopg2 {
			return nil, fmt.Errorf("--postgres-config: %s has no database section for PostgreSQL (name: psycopg2)", p.config)
		}
	}
	if config != nil && sqlitePath(config) == "" {
		for i, entry := range config.Databases {
			if i >= len(merged.Databases) || !sameDatabase(entry, merged.Databases[i]) {
				return nil, fmt.Errorf("--postgres-config: %s is on another PostgreSQL database already: leave the flag out to examine that one", entry.File)
			}
		}
		return config, nil
	}
	return merged, nil
}

// sameDatabase reports whether two entries lead to the same database.
func sameDatabase(a, b synapse.Entry) bool {
	one, err1 := database(a)
	two, err2 := database(b)
	if err1 != nil || err2 != nil {
		return false
	}
	for _, k := range []string{"host", "hostaddr", "port", "dbname"} {
		if one.Settings[k] != two.Settings[k] {
			return false
		}
	}
	return true
}

// sqlitePath is the SQLite file of a configuration; empty when it has none.
func sqlitePath(config *synapse.Config) string {
	for _, entry := range config.Databases {
		if entry.Name != synapse.Psycopg2 {
			return entry.SQLitePath()
		}
	}
	return ""
}
