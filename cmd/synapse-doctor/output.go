package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/report"
)

// The report goes to standard output or -o FILE, and nothing else does. COLUMNS wins, otherwise the terminal's width,
// otherwise 80. Colour only on a terminal, unless NO_COLOR or --no-color forbids it.

// outputFlags say how the report is printed.
type outputFlags struct {
	format  string
	file    string
	noColor bool
	formats []string // that the command has
	failOn  doctor.Severity
	// incomplete says that something that was asked for could not be looked at; nil: the report itself says it.
	incomplete func(*doctor.Report) bool
}

func (o *outputFlags) register(f *pflag.FlagSet, formats []string) {
	o.formats = formats
	f.StringVar(&o.format, "format", "table", "how to print the report: "+strings.Join(formats, ", "))
	f.StringVarP(&o.file, "output", "o", "", "write the report to `FILE`")
	f.BoolVar(&o.noColor, "no-color", false, "no colours, also with the environment variable NO_COLOR")
}

// formatter is made before anything is examined, so that a misspelt format costs nothing.
func (o *outputFlags) formatter(t *targetFlags, a *assembled, s streams) (report.Formatter, error) {
	opts := o.options(s.out)
	opts.Verbose, opts.Flags = t.verbose, t.repeated()
	opts.PluginFlags = t.plugins.repeated()
	opts.FailOn, opts.Incomplete = o.failOn, o.incomplete
	if !slices.Contains(o.formats, o.format) {
		return nil, fmt.Errorf("--format: %q is not a format of this report: %s", o.format, strings.Join(o.formats, ", "))
	}
	if a != nil {
		opts.Redact = a.redactor
	}
	f, err := report.New(o.format, opts)
	if err != nil {
		return nil, fmt.Errorf("--format: %w", err)
	}
	return f, nil
}

// options are those of the stream that the report goes to.
func (o *outputFlags) options(out io.Writer) report.Options {
	opts := report.Options{Width: 80}
	terminal := isTerminal(out) && o.file == ""
	if terminal {
		if width, _, err := term.GetSize(int(out.(*os.File).Fd())); err == nil && width > 0 {
			opts.Width = width
		}
		opts.Color = !o.noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	if columns, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && columns > 0 {
		opts.Width = columns
	}
	return opts
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// write prints the report whole, or leaves no half-written file behind.
func (o *outputFlags) write(s streams, print func(io.Writer) error) error {
	if o.file == "" {
		if err := print(s.out); err != nil {
			return fmt.Errorf("print the report: %w", err)
		}
		return nil
	}
	var b strings.Builder
	if err := print(&b); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	if err := writeFile(o.file, b.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
