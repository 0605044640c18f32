package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/plugins/conformance"
)

func runPluginTest(ctx context.Context, args []string, s streams) (int, error) {
	f := newFlags("plugin test", "FILE", `Try a plugin, point by point, for what synapse-doctor relies on. This is for its
author: the file is run as it is, unverified. It is handed a small homeserver's
database, on a server that is made for the occasion where PostgreSQL's server
programs are installed.
Exit codes: 0 every point that could be tried passes, 2 some fail, 1 the plugin
could not be tried.`, s)
	dsn := f.String("dsn", "", "try it on this database for tests, a `DSN` or @FILE that holds it, on a server that nobody else uses meanwhile; its owner's login")
	format := f.String("format", "table", "table or json")
	if err := f.Parse(args); err != nil {
		return exitFailed, err
	}
	switch {
	case f.NArg() != 1:
		return exitFailed, errors.New("plugin test takes the file of one plugin: synapse-doctor plugin test ./synapse-doctor-plugin-acme")
	case *format != "table" && *format != "json":
		return exitFailed, fmt.Errorf("--format: %q is not a format of plugin test: table or json", *format)
	}
	file, err := filepath.Abs(f.Arg(0))
	if err != nil {
		return exitFailed, err
	}
	var o conformance.Options
	if *dsn != "" {
		d, err := fromDSN("--dsn", *dsn)
		if err != nil {
			return exitFailed, err
		}
		o.DSN = pgdb.Settings(d.Settings)
	}
	width := (&outputFlags{}).options(s.out).Width
	tell := func(r conformance.Result) { writePoint(s.out, r, width) }
	if *format == "json" {
		tell = nil
	}
	results, err := conformance.Run(ctx, file, o, tell)
	if err != nil {
		return exitFailed, err
	}
	counts := map[conformance.Status]int{}
	for _, r := range results {
		counts[r.Status]++
	}
	if *format == "json" {
		err = writePoints(s.out, file, results, counts)
	} else {
		_, err = fmt.Fprintf(s.out, "\n%d passed, %d failed, %d skipped\n", counts[conformance.Pass], counts[conformance.Fail], counts[conformance.Skipped])
	}
	switch {
	case err != nil:
		return exitFailed, fmt.Errorf("print the result: %w", err)
	case counts[conformance.Fail] > 0:
		return exitFindings, nil
	}
	return exitOK, nil
}

var pointWords = map[conformance.Status]string{conformance.Pass: "PASS", conformance.Fail: "FAIL", conformance.Skipped: "SKIP"}

// writePoint prints a line for a point, and below it what was seen and what its author can do.
func writePoint(w io.Writer, r conformance.Result, width int) {
	fmt.Fprintf(w, "%s  %2d  %s\n", pointWords[r.Status], r.Number, r.Title)
	for line := range strings.Lines(r.Reason) {
		writeIndented(w, strings.TrimSpace(line), width)
	}
	if r.Hint != "" {
		writeIndented(w, "Hint: "+r.Hint, width)
	}
}

// writeIndented wraps by word, below a point's title.
func writeIndented(w io.Writer, text string, width int) {
	const indent = "          "
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len([]rune(indent+line+" "+word)) > width {
			fmt.Fprintln(w, indent+line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	fmt.Fprintln(w, indent+line)
}

func writePoints(w io.Writer, file string, results []conformance.Result, counts map[conformance.Status]int) error {
	type point struct {
		Number     int    `json:"number"`
		ID         string `json:"id"`
		Title      string `json:"title"`
		Status     string `json:"status"`
		Reason     string `json:"reason"`
		Hint       string `json:"hint"`
		DurationMS int64  `json:"duration_ms"`
	}
	out := struct {
		SchemaVersion int            `json:"schema_version"`
		DoctorVersion string         `json:"doctor_version"`
		Path          string         `json:"path"`
		Points        []point        `json:"points"`
		Summary       map[string]int `json:"summary"`
	}{1, version(), doctor.Clean(file), []point{}, map[string]int{}}
	for _, r := range results {
		out.Points = append(out.Points, point{r.Number, r.ID, r.Title, string(r.Status), r.Reason, r.Hint, r.Duration.Milliseconds()})
	}
	for status := range pointWords {
		out.Summary[string(status)] = counts[status]
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(out)
}
