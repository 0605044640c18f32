// Package keepalives examines whether Synapse notices that a connection to PostgreSQL has died. It judges from the
// configuration alone, so it works when nothing can be connected to. It imports core/doctor, core/pgdb and core/synapse.
//
// Without keepalives a connection that a firewall or a network address translation has forgotten looks sound for more
// than two hours, and whatever waits for it waits as long.
package keepalives

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// The faults. An administrator may rely on each.
const (
	NotSet      = "keepalives/not-set"
	HalfSet     = "keepalives/half-set"
	SwitchedOff = "keepalives/switched-off"
	TooSlow     = "keepalives/too-slow"
	TooFast     = "keepalives/too-fast"
	Invalid     = "keepalives/invalid"
)

// Check is the check keepalives.
var Check = doctor.Check{
	ID:    "keepalives",
	Title: "Dead database connections are noticed",
	Why: "When the network drops a connection without a word, Synapse waits for an answer that never comes: " +
		"rooms hang for up to two hours.",
	Needs: doctor.NeedsConfig | doctor.NeedsPostgresEntry,
	Codes: []doctor.Code{
		{ID: Invalid, Title: "a keepalive setting keeps Synapse from connecting", Severity: doctor.Error},
		{ID: NotSet, Title: "no keepalives are set", Severity: doctor.Warning},
		{ID: SwitchedOff, Title: "keepalives are switched off", Severity: doctor.Warning},
		{ID: HalfSet, Title: "only some of the keepalive settings are there", Severity: doctor.Warning},
		{ID: TooSlow, Title: "keepalives take too long to notice a dead connection", Severity: doctor.Warning},
		{ID: TooFast, Title: "keepalives end sound connections after a short pause", Severity: doctor.Warning},
	},
	Thresholds: []doctor.Threshold{slowest, fastest},
	Run:        run,
	Plan:       plan,
}

func run(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
	config, err := synapse.Load(t.ConfigFiles...)
	if err != nil {
		return err
	}
	var unread []error
	for _, entry := range config.Databases {
		if entry.Name != synapse.Psycopg2 {
			continue
		}
		s, err := settings(entry, t)
		if err != nil {
			unread = append(unread, fmt.Errorf("%s:%d: %w", entry.File, entry.Line, err))
			continue
		}
		v, found := judge(s, limitsOf(t))
		if !found {
			continue
		}
		f := finding(entry, s, v)
		f.Fixable = tryEdit(entry, v.set) == nil
		addEvidence(ctx, t.Database(entry.Label), f.Evidence)
		r.Find(f)
	}
	return errors.Join(unread...)
}

// settings are what Synapse connects with: its arguments, and what libpq takes from the environment or a service file
// where they say nothing. The engine has resolved that already; without it the arguments alone are judged.
func settings(entry synapse.Entry, t *doctor.Target) (pgdb.Settings, error) {
	s, err := pgdb.FromArgs(entry.Args)
	if err != nil {
		return nil, err
	}
	d := t.Database(entry.Label)
	if d == nil {
		return s, nil
	}
	hostKnown := s["host"] != "" || s["hostaddr"] != ""
	for keyword, value := range d.Settings {
		isHost := keyword == "host" || keyword == "hostaddr"
		if _, there := s[keyword]; !there && (isHost && !hostKnown || strings.HasPrefix(keyword, "keepalives")) {
			s[keyword] = value
		}
	}
	return s, nil
}

func finding(entry synapse.Entry, s pgdb.Settings, v verdict) doctor.Finding {
	f := doctor.Finding{
		Code: v.code, Severity: doctor.Warning, Database: entry.Label,
		Object:   doctor.Object{Kind: "file", Name: fmt.Sprintf("%s:%d", entry.File, entry.Line)},
		Summary:  v.summary,
		Observed: observed(s),
		Expected: "keepalives_idle, keepalives_interval and keepalives_count, such as 10, 10 and 3: a dead connection is noticed after 40 seconds",
		Remedy:   remedy(entry, v.set),
		Evidence: map[string]string{"host": v.address},
	}
	switch {
	case v.code == Invalid:
		f.Severity = doctor.Error
	case v.place == loopback:
		f.Severity = doctor.Info
	}
	return f
}

func observed(s pgdb.Settings) string {
	var there []string
	for _, keyword := range []string{"keepalives", idle, interval, count, "tcp_user_timeout"} {
		if value, ok := s[keyword]; ok {
			there = append(there, keyword+": "+value)
		}
	}
	if len(there) == 0 {
		return "no keepalive setting"
	}
	return strings.Join(there, ", ")
}

func remedy(entry synapse.Entry, set []synapse.Setting) string {
	var b strings.Builder
	fmt.Fprintf(&b, "In %s, below args of the database (line %d), set:\n", entry.File, entry.Line)
	for _, s := range set {
		fmt.Fprintf(&b, "    %s: %v\n", s.Keyword, s.Value)
	}
	b.WriteString("Then restart Synapse and its workers. Keepalives watch only connections that are idle; tcp_user_timeout: 30000 (milliseconds, " +
		"Linux) does the same for what was sent and never acknowledged, and is worth setting too.")
	return b.String()
}
