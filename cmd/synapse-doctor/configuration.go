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

// accepting judges what the configuration says of checks, codes and thresholds, once it is known which there are.
func accepting(c *config.Config, notice func(string)) func([]doctor.CheckInfo) error {
	said := false
	return func(checks []doctor.CheckInfo) error {
		unknown := func(where, name string) {
			installed := slices.ContainsFunc(c.Plugins, func(p config.Plugin) bool { return slices.Contains(p.Checks, doctor.CheckID(name)) })
			if !installed && !said {
				notice(fmt.Sprintf("%s: there is no check %q here: %s has no effect", where, doctor.CheckID(name), name))
			}
		}
		defer func() { said = true }()
		for _, i := range c.Ignore {
			info := find(checks, i.Code)
			switch {
			case info == nil:
				unknown(i.Where, i.Code)
			case !slices.ContainsFunc(info.Codes, func(k doctor.Code) bool { return k.ID == i.Code }):
				return fmt.Errorf("%s: the check %s has no code %q: synapse-doctor list shows them", i.Where, info.ID, i.Code)
			}
		}
		for _, set := range c.Thresholds {
			info := find(checks, set.ID)
			if info == nil {
				unknown(set.Where, set.ID)
				continue
			}
			k := slices.IndexFunc(info.Thresholds, func(t doctor.Threshold) bool { return t.ID == set.ID })
			if k < 0 {
				return fmt.Errorf("%s: the check %s has no threshold %q: synapse-doctor list -v shows them", set.Where, info.ID, set.ID)
			}
			if err := info.Thresholds[k].Allows(set.Value); err != nil {
				return fmt.Errorf("%s: %w", set.Where, err)
			}
		}
		return nil
	}
}

// find is the check that has a code, or a threshold, of this name; nil when there is none.
func find(checks []doctor.CheckInfo, name string) *doctor.CheckInfo {
	i := slices.IndexFunc(checks, func(c doctor.CheckInfo) bool { return c.ID == doctor.CheckID(name) })
	if i < 0 {
		return nil
	}
	return &checks[i]
}
