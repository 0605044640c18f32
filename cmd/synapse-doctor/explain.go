package main

import (
	"context"
	"fmt"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/report"
	"github.com/synapse-doctor/synapse-doctor/docs"
)

func runExplain(ctx context.Context, args []string, s streams) (int, error) {
	var p pluginFlags
	var o outputFlags
	f := newFlags("explain", "CHECK|CODE", "What a check looks at, or what a finding means, how it comes about and how it is mended.", s)
	p.register(f)
	f.BoolVar(&o.noColor, "no-color", false, "no colours, also with the environment variable NO_COLOR")
	if err := parse(f, args); err != nil {
		return exitFailed, err
	}
	if f.NArg() != 1 {
		return exitFailed, fmt.Errorf("explain takes one check or code; synapse-doctor list shows them")
	}
	name := f.Arg(0)
	page, ok := docs.Code(name)
	if !ok {
		page, ok = docs.Check(name)
	}
	if !ok {
		var err error
		if page, err = describedPage(ctx, &p, name, s); err != nil {
			return exitFailed, err
		}
	}
	return exitOK, report.Page(s.out, page, o.options(s.out))
}

// describedPage is made of what a plugin says of its own checks, which have no page in this program.
func describedPage(ctx context.Context, p *pluginFlags, name string, s streams) (string, error) {
	p.wanted = []string{name}
	_, checks, err := catalogue(ctx, p, s.err)
	if err != nil {
		return "", err
	}
	for _, c := range checks {
		if c.ID != doctor.CheckID(name) {
			continue
		}
		if c.ID == name {
			return listPage([]doctor.CheckInfo{c}, true), nil
		}
		for _, k := range c.Codes {
			if k.ID == name {
				return fmt.Sprintf("# %s\n\n%s (%s).\n\n%s\n", doctor.Clean(k.ID), doctor.Clean(k.Title), k.Severity, doctor.Clean(c.Why)), nil
			}
		}
	}
	return "", fmt.Errorf("there is no check or code %q; synapse-doctor list shows them", name)
}
