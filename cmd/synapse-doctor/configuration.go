package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/synapse-doctor/synapse-doctor/core/config"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// defaultable are the options that the doctor's configuration may set. What agrees to something is not among them.
var defaultable = []string{"admin-dsn", "config", "deep", "deep-budget", "fail-on", "hba-file", "no-color", "plugin-dir", "postgres-config",
	"record", "replica", "skip", "sqlite", "state-dir", "synapse-command", "synapse-python", "timeout", "verbose"}

// parse reads the command line, and takes what it does not give from the doctor's configuration.
func parse(f *pflag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		return err
	}
	c, err := config.Load()
	if err != nil {
		return err
	}
	for _, d := range c.Defaults {
		if !slices.Contains(defaultable, d.Option) {
			return fmt.Errorf("%s: %q can have no default: the options that can are %s", d.Where, d.Option, strings.Join(defaultable, ", "))
		}
		option := f.Lookup(d.Option)
		if option == nil || option.Changed { // another command's, or given
			continue
		}
		if d.Option == "skip" && f.NArg() > 0 { // what is asked for by name is wanted
			continue
		}
		if _, many := option.Value.(pflag.SliceValue); len(d.Values) > 1 && !many {
			return fmt.Errorf("%s: --%s takes one value, not %d", d.Where, d.Option, len(d.Values))
		}
		for _, v := range d.Values {
			if err := f.Set(d.Option, v); err != nil {
				return fmt.Errorf("%s: %w", d.Where, err)
			}
		}
	}
	return nil
}

// ignoring says which findings are lived with on a day.
func ignoring(c *config.Config, now time.Time) func(doctor.Finding) *doctor.Ignored {
	return func(f doctor.Finding) *doctor.Ignored {
		for _, i := range c.Ignore {
			if i.Matches(f.Code, f.Object.Name, now) {
				return &doctor.Ignored{Why: i.Why, Until: i.Until}
			}
		}
		return nil
	}
}
