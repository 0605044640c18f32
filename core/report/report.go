// Package report prints what the doctor found and what it would do: a file for each format. It imports only core/doctor
// of this repository, and decides nothing: statuses, order and counts come from the report.
//
//	f, err := report.New("table", report.Options{Width: 80})
//	…
//	err = f.Check(os.Stdout, result)
//
// Whatever it prints has been through the redactor and [doctor.CleanText], for every format in one place (clean.go).
package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Formatter prints reports in one format.
type Formatter interface {
	// Check prints the outcome of examining.
	Check(w io.Writer, r *doctor.Report) error
	// Fix prints plans, and what became of them.
	Fix(w io.Writer, r *doctor.FixReport) error
}

// Options say how to print.
type Options struct {
	Width   int  // columns; 0 is 80, and less than 40 counts as 40. Only tables and pages look at it.
	Color   bool // with terminal colours
	Verbose bool // evidence, guards and undo statements too

	// Flags are repeated in every command that the report suggests, so that it examines the same target: -c and the
	// like as they were given. They are printed; leave out what holds a password.
	Flags []string
	// PluginFlags are those of Flags that say which plugins there are. Some commands take no others.
	PluginFlags []string
	// Redact is applied to everything. Nil when no secret is known.
	Redact *doctor.Redactor

	// FailOn is the least severity that alarms, 0 for a warning, and Incomplete says that something that was asked for could not be looked
	// at. Only nagios looks at them.
	FailOn     doctor.Severity
	Incomplete func(*doctor.Report) bool
}

// formats are all of them, in the order of the documentation.
var formats = []struct {
	name string
	fix  bool // it can show plans
	make func(Options) Formatter
}{
	{"table", true, func(o Options) Formatter { return table{o} }},
	{"json", true, func(o Options) Formatter { return jsonFormat{o} }},
	{"markdown", true, func(o Options) Formatter { return markdown{o} }},
	{"html", true, func(o Options) Formatter { return page{o} }},
	{"junit", false, func(o Options) Formatter { return junit{o} }},
	{"prometheus", false, func(o Options) Formatter { return prometheus{o} }},
	{"nagios", false, func(o Options) Formatter { return nagios{o} }},
}

// Formats are the names that [New] knows.
func Formats() []string {
	var names []string
	for _, f := range formats {
		names = append(names, f.name)
	}
	return names
}

// FixFormats are those of them that can show plans.
func FixFormats() []string {
	var names []string
	for _, f := range formats {
		if f.fix {
			names = append(names, f.name)
		}
	}
	return names
}

// New returns the formatter with this name.
func New(name string, o Options) (Formatter, error) {
	for _, f := range formats {
		if f.name == name {
			return f.make(o.normal()), nil
		}
	}
	return nil, fmt.Errorf("%q is not a report format: %s", name, strings.Join(Formats(), ", "))
}

const (
	defaultWidth = 80
	leastWidth   = 40
)

func (o Options) normal() Options {
	if o.Width <= 0 {
		o.Width = defaultWidth
	}
	o.Width = max(o.Width, leastWidth)
	if o.FailOn == 0 {
		o.FailOn = doctor.Warning
	}
	return o
}

// command is a command line of the doctor that looks at the same target.
func (o Options) command(subcommand string, args ...string) string {
	return o.commandWith(o.Flags, subcommand, args...)
}

func (o Options) commandWith(flags []string, subcommand string, args ...string) string {
	words := []string{"synapse-doctor", subcommand}
	for _, a := range slices.Concat(args, flags) {
		words = append(words, shellQuote(doctor.Clean(o.Redact.String(a))))
	}
	return strings.Join(words, " ")
}

func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,@%+", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// plural counts things in words: 1 error, 2 errors.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
