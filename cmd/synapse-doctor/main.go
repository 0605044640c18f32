// Synapse-doctor examines, explains and mends the database of a Matrix Synapse homeserver.
//
// main dispatches to a subcommand and turns its error into an exit code; no other place exits. The report goes to
// standard output, everything else to standard error.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
	"github.com/synapse-doctor/synapse-doctor/plugins/builtin"
	"github.com/synapse-doctor/synapse-doctor/plugins/sdk"
)

func main() {
	// Host and plugin live for a tenth of a second. The garbage collector's usual pace, every 4 MiB at first, takes a sixth
	// of a check's processor time and lowers its peak memory by nothing.
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(memoryLimit)
	if sdk.Launched() {
		sdk.Serve(sdk.Plugin{Name: builtin.Name, Version: version(), Checks: builtin.Checks()})
	}
	os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr, &engine.Stopper{}}))
}

// memoryLimit is how much memory, in bytes, either process takes before the garbage collector runs as often as it needs to. A
// process that cannot do with it takes more. SQLite's own memory does not count.
const memoryLimit = 40 << 20

// Exit codes. A command that could not complete wins over what it found.
const (
	exitOK       = 0
	exitFailed   = 1 // could not complete: usage, configuration, an unknown status, a fix that failed
	exitFindings = 2 // completed, and something is left to do
)

// streams are where a command reads and writes, and how it is asked to stop.
type streams struct {
	in       *os.File
	out, err io.Writer
	stopper  *engine.Stopper // what Ctrl-C asks first
}

// command is one subcommand: it writes its report and returns the exit code, or an error, which is exit code 1.
type command struct {
	name, args, summary string
	run                 func(ctx context.Context, args []string, s streams) (int, error)
}

func commands() []command {
	return []command{
		{"check", "[CHECK|CODE …]", "examine the homeserver's database; change nothing", runCheck},
		{"fix", "[CHECK|CODE …]", "show what would mend it; with --apply, do it", runFix},
		{"undo", "[RUN]", "put back what a fix has changed", runUndo},
		{"history", "[RUN]", "what was found, applied and undone", runHistory},
		{"explain", "CHECK|CODE", "what a check or a finding means", runExplain},
		{"list", "", "the checks, and the codes of what they find", runList},
		{"plugin", "COMMAND", "plugins of third parties: which there are, and which are trusted", runPlugin},
		{"version", "", "the version of this program", runVersion},
	}
}

func run(args []string, s streams) int {
	ctx, stop := interruptible(s.stopper)
	defer stop()

	if len(args) == 0 {
		usage(s.err)
		return exitFailed
	}
	switch args[0] {
	case "help", "-h", "--help":
		if len(args) == 1 {
			usage(s.out)
			return exitOK
		}
		args = append(slices.Clone(args[1:]), "--help")
	case "--version":
		args = []string{"version"}
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		code, err := c.run(ctx, args[1:], s)
		switch {
		case errors.Is(err, pflag.ErrHelp):
			return exitOK
		case err != nil && ctx.Err() != nil:
			fmt.Fprintln(s.err, "synapse-doctor: interrupted")
			return exitFailed
		case err != nil:
			fmt.Fprintln(s.err, "synapse-doctor:", doctor.CleanText(err.Error()))
			return exitFailed
		}
		return code
	}
	fmt.Fprintf(s.err, "synapse-doctor: there is no command %q: synapse-doctor help lists them\n", doctor.Clean(args[0]))
	return exitFailed
}

// interruptible is a context that a signal ends. Where an operation stops at a point from which it goes on, the first
// signal only asks it to, and the next one ends the context. One more ends the process at once.
func interruptible(stopper *engine.Stopper) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		defer signal.Stop(signals)
		defer cancel()
		for {
			select {
			case <-signals:
				if !stopper.Stop() {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}

func usage(w io.Writer) {
	fmt.Fprint(w, "synapse-doctor examines, explains and mends the database of a Matrix Synapse homeserver.\n\nUsage:\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  synapse-doctor %-28s %s\n", strings.TrimSpace(c.name+" "+c.args), c.summary)
	}
	fmt.Fprint(w, `
A check only reads. A fix shows exactly what it would do, and does it with --apply.
Exit codes: 0 nothing found, 2 something found or left to do, 1 could not complete.
synapse-doctor COMMAND --help lists a command's options.
`)
}

// finishTheWork keeps the process alive when whoever reads its output goes away: what was begun on a database is worth more
// than the report of it.
func finishTheWork() { signal.Ignore(syscall.SIGPIPE) }

// newFlags makes a command's flag set. Its help, which goes to standard output, says what the exit codes mean.
func newFlags(name, args, about string, s streams) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SetOutput(s.err)
	f.SortFlags = false
	f.Usage = func() {
		fmt.Fprintf(s.out, "Usage: synapse-doctor %s\n\n%s\n\nOptions:\n%s", strings.TrimSpace(name+" [OPTIONS] "+args), about, f.FlagUsagesWrapped(80))
	}
	return f
}
