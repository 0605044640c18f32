package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/core/report"
)

// catalogue asks the plugins which checks they have. No configuration is read and nothing is connected to.
func catalogue(ctx context.Context, p *pluginFlags, w io.Writer) ([]doctor.PluginInfo, []doctor.CheckInfo, error) {
	_, sources, err := p.start(ctx, slog.New(slog.DiscardHandler), w)
	if err != nil {
		return nil, nil, err
	}
	defer closeAll(sources)
	e := engine.New(engine.Options{Version: version(), Target: &doctor.Target{}, Sources: sources})
	plugins, checks := e.Catalogue(ctx)
	return plugins, checks, nil
}

func runList(ctx context.Context, args []string, s streams) (int, error) {
	var p pluginFlags
	var o outputFlags
	f := newFlags("list", "", "The checks, what each is for, and the codes of what they find.", s)
	p.register(f)
	f.BoolVar(&o.noColor, "no-color", false, "no colours, also with the environment variable NO_COLOR")
	verbose := f.BoolP("verbose", "v", false, "also the thresholds, which the doctor's configuration can set")
	format := f.String("format", "table", "table or json")
	if err := parse(f, args); err != nil {
		return exitFailed, err
	}
	if f.NArg() > 0 {
		return exitFailed, fmt.Errorf("list takes no argument; synapse-doctor explain %s tells about it", f.Arg(0))
	}
	p.every = true
	plugins, checks, err := catalogue(ctx, &p, s.err)
	if err != nil {
		return exitFailed, err
	}
	switch *format {
	case "table":
		if err := report.Page(s.out, listPage(checks, *verbose), o.options(s.out)); err != nil {
			return exitFailed, fmt.Errorf("print the list: %w", err)
		}
	case "json":
		if err := writeCatalogue(s.out, checks); err != nil {
			return exitFailed, err
		}
	default:
		return exitFailed, fmt.Errorf("--format: %q is not a format of list: table or json", *format)
	}
	for _, p := range plugins {
		if p.Status == doctor.StatusUnknown {
			fmt.Fprintf(s.err, "synapse-doctor: plugin %s could not be asked: %s\n", p.Name, p.Reason)
			return exitFailed, nil
		}
	}
	return exitOK, nil
}

// listPage is the list in the plain markdown of the documentation.
func listPage(checks []doctor.CheckInfo, thresholds bool) string {
	var page strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&page, "# %s\n\n%s. %s\n\n", inPage(c.ID), inPage(c.Title), inPage(c.Why))
		for _, k := range c.Codes {
			fmt.Fprintf(&page, "- `%s` (%s): %s\n", inPage(k.ID), k.Severity, inPage(k.Title))
		}
		if thresholds && len(c.Thresholds) > 0 {
			page.WriteString("\nThresholds:\n\n")
			for _, t := range c.Thresholds {
				fmt.Fprintf(&page, "- `%s` (%s): %s\n", inPage(t.ID), strings.TrimSpace(doctor.Number(t.Default)+" "+inPage(t.Unit)), inPage(t.Title))
			}
		}
		page.WriteString("\n")
	}
	return page.String()
}

func writeCatalogue(w io.Writer, checks []doctor.CheckInfo) error {
	type code struct {
		Code     string `json:"code"`
		Severity string `json:"severity"`
		Title    string `json:"title"`
	}
	type threshold struct {
		ID      string  `json:"id"`
		Title   string  `json:"title"`
		Unit    string  `json:"unit"`
		Default float64 `json:"default"`
		Min     float64 `json:"min"`
		Max     float64 `json:"max"`
	}
	type check struct {
		ID         string      `json:"id"`
		Title      string      `json:"title"`
		Why        string      `json:"why"`
		Codes      []code      `json:"codes"`
		Thresholds []threshold `json:"thresholds"`
	}
	out := struct {
		SchemaVersion int     `json:"schema_version"`
		Checks        []check `json:"checks"`
	}{SchemaVersion: 1, Checks: []check{}}
	for _, c := range checks {
		entry := check{doctor.Clean(c.ID), doctor.Clean(c.Title), doctor.Clean(c.Why), []code{}, []threshold{}}
		for _, k := range c.Codes {
			entry.Codes = append(entry.Codes, code{doctor.Clean(k.ID), k.Severity.String(), doctor.Clean(k.Title)})
		}
		for _, t := range c.Thresholds {
			entry.Thresholds = append(entry.Thresholds, threshold{doctor.Clean(t.ID), doctor.Clean(t.Title), doctor.Clean(t.Unit), t.Default, t.Min, t.Max})
		}
		out.Checks = append(out.Checks, entry)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(out)
}
