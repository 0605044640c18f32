package host

import (
	"fmt"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
)

// CrashError is a plugin whose process ended while it was asked something.
type CrashError struct {
	Plugin string
	State  string // exit status 2, signal: killed, or what else is known
	Stderr string // the end of what it wrote to stderr, clean, at most 8 KiB

	restartable bool
}

func (e *CrashError) Error() string {
	return withStderr(fmt.Sprintf("plugin %s crashed (%s)", e.Plugin, e.State), e.Stderr)
}

// Restartable reports whether the next call starts the plugin again.
func (e *CrashError) Restartable() bool { return e.restartable }

// StartError is a plugin that could not be started, or that did not get as far as answering.
type StartError struct {
	Plugin string
	Reason string
	Stderr string // the end of what it wrote to stderr, clean, at most 8 KiB
	Err    error  // where one caused it
}

func (e *StartError) Error() string { return withStderr("plugin "+e.Plugin+" "+e.Reason, e.Stderr) }
func (e *StartError) Unwrap() error { return e.Err }

// maxSaid is how much of a line of stderr, in characters, an error quotes.
const maxSaid = 300

// withStderr adds the line of stderr that says most: a panic's first, else the last.
func withStderr(text, stderr string) string {
	said := ""
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		said = line
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			break
		}
	}
	if said == "" {
		return text
	}
	if runes := []rune(said); len(runes) > maxSaid {
		said = string(runes[:maxSaid]) + "…"
	}
	return text + ": " + said
}

// VersionError is a plugin that speaks no version of the protocol that this program speaks.
type VersionError struct {
	Plugin  string
	Version string // empty when the plugin did not say
	Speaks  int

	ours wire.Versions
}

func (e *VersionError) Error() string {
	who, upgrade := e.Plugin, "synapse-doctor"
	if e.Version != "" {
		who += " " + e.Version
	}
	if e.Speaks < e.ours.Oldest() {
		upgrade = "the plugin"
	}
	return fmt.Sprintf("plugin %s speaks protocol %d; this synapse-doctor speaks %s: upgrade %s", who, e.Speaks, e.ours, upgrade)
}

func seconds(d time.Duration) string {
	if d == time.Second {
		return "1 second"
	}
	return fmt.Sprintf("%g seconds", d.Seconds())
}
