package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// The formats of this file are for machines that watch: they tell what check found, and know nothing of plans.

// NotForFixError is returned by a format that can't show plans.
type NotForFixError struct{ Format string }

func (e *NotForFixError) Error() string {
	return e.Format + " is a format of check: it can't show plans"
}

// junit is for build servers: a test case for each check.
type junit struct{ Options }

type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name       string          `xml:"name,attr"`
	Tests      int             `xml:"tests,attr"`
	Failures   int             `xml:"failures,attr"`
	Errors     int             `xml:"errors,attr"`
	Skipped    int             `xml:"skipped,attr"`
	Time       string          `xml:"time,attr"`
	Timestamp  string          `xml:"timestamp,attr"`
	Properties []junitProperty `xml:"properties>property,omitempty"`
	Cases      []junitCase     `xml:"testcase"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type junitCase struct {
	Name    string     `xml:"name,attr"`
	Class   string     `xml:"classname,attr"`
	Time    string     `xml:"time,attr"`
	Skipped *junitText `xml:"skipped,omitempty"`
	Error   *junitText `xml:"error,omitempty"`
	Failure *junitText `xml:"failure,omitempty"`
	Out     string     `xml:"system-out,omitempty"`
}

type junitText struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

func (f junit) Fix(io.Writer, *doctor.FixReport) error { return &NotForFixError{"junit"} }

func (f junit) Check(w io.Writer, r *doctor.Report) error {
	r = cleaner{f.Redact}.report(r)
	suite := junitSuite{Name: "synapse-doctor", Time: decimal(r.Duration), Timestamp: r.StartedAt.UTC().Format("2006-01-02T15:04:05"),
		Properties: []junitProperty{{"server_name", r.Target.ServerName}, {"doctor_version", r.DoctorVersion}}}
	for _, c := range r.Checks {
		suite.Cases = append(suite.Cases, junitCaseOf(c))
	}
	for _, p := range r.Plugins {
		if p.Status == doctor.StatusUnknown {
			suite.Cases = append(suite.Cases, junitCase{Name: "plugin " + p.Name, Class: "synapse-doctor.plugins", Time: "0.000",
				Error: &junitText{Message: p.Reason, Type: "unknown"}})
		}
	}
	for _, c := range suite.Cases {
		suite.Tests++
		switch {
		case c.Error != nil:
			suite.Errors++
		case c.Failure != nil:
			suite.Failures++
		case c.Skipped != nil:
			suite.Skipped++
		}
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	e := xml.NewEncoder(&b)
	e.Indent("", "  ")
	if err := e.Encode(junitSuites{Suites: []junitSuite{suite}}); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

func junitCaseOf(c doctor.CheckResult) junitCase {
	out := junitCase{Name: c.ID, Class: "synapse-doctor", Time: decimal(c.Duration)}
	var failed, told []string
	for _, f := range c.Findings {
		text := fmt.Sprintf("%s %s · %s: %s", findingLook(f).word, f.Code, strings.TrimSpace(f.Object.Kind+" "+f.Object.Name), wrong(f))
		if f.Severity >= doctor.Warning && f.Ignored == nil {
			failed = append(failed, joinLines(text, labelled("found: ", f.Observed), labelled("expected: ", f.Expected), f.Remedy))
			continue
		}
		told = append(told, text)
	}
	switch {
	case c.Status == doctor.StatusUnknown:
		out.Error = &junitText{Message: c.Reason, Type: "unknown", Text: strings.Join(failed, "\n\n")}
	case c.Status == doctor.StatusSkipped:
		out.Skipped = &junitText{Message: c.Reason}
	case len(failed) > 0:
		out.Failure = &junitText{Message: result(c), Type: c.Status.String(), Text: strings.Join(failed, "\n\n")}
	}
	out.Out = strings.Join(told, "\n")
	return out
}

func labelled(label, s string) string {
	if s == "" {
		return ""
	}
	return label + s
}

func joinLines(lines ...string) string {
	return strings.Join(slices.DeleteFunc(lines, func(s string) bool { return s == "" }), "\n")
}

func decimal(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }

// prometheus is the text format of Prometheus, for node_exporter's textfile collector.
type prometheus struct{ Options }

func (f prometheus) Fix(io.Writer, *doctor.FixReport) error { return &NotForFixError{"prometheus"} }

func (f prometheus) Check(w io.Writer, r *doctor.Report) error {
	r = cleaner{f.Redact}.report(r)
	b := &exposition{}
	server := []string{"server_name", r.Target.ServerName}
	b.metric("synapse_doctor_run_timestamp_seconds", "When the homeserver was examined.")
	b.sample(float64(r.StartedAt.Unix()), server...)
	b.metric("synapse_doctor_run_duration_seconds", "How long that took.")
	b.sample(r.Duration.Seconds(), server...)
	b.metric("synapse_doctor_info", "The synapse-doctor that did it.")
	b.sample(1, slices.Concat(server, []string{"version", r.DoctorVersion})...)
	b.metric("synapse_doctor_check_status", "1 for the status that the check has, 0 for the others.")
	for _, c := range r.Checks {
		for _, s := range doctor.Statuses {
			b.sample(truth(c.Status == s), slices.Concat(server, []string{"check", c.ID, "status", s.String()})...)
		}
	}
	b.metric("synapse_doctor_check_duration_seconds", "How long the check took.")
	for _, c := range r.Checks {
		b.sample(c.Duration.Seconds(), slices.Concat(server, []string{"check", c.ID})...)
	}
	b.metric("synapse_doctor_plugin_up", "Whether the plugin could be asked for its checks.")
	for _, p := range r.Plugins {
		b.sample(truth(p.Status != doctor.StatusUnknown), slices.Concat(server, []string{"plugin", p.Name})...)
	}
	b.metric("synapse_doctor_findings", "Findings of the check; severity ignored: those that the administrator lives with.")
	for _, c := range r.Checks {
		n := map[string]int{}
		for _, f := range c.Findings {
			n[severityWord(f)]++
		}
		for _, s := range []string{"info", "warning", "error", "ignored"} {
			b.sample(float64(n[s]), slices.Concat(server, []string{"check", c.ID, "severity", s})...)
		}
	}
	b.metric("synapse_doctor_finding", "1 for each finding.")
	for _, c := range r.Checks {
		for _, f := range c.Findings {
			b.sample(1, slices.Concat(server, []string{"code", f.Code, "severity", severityWord(f), "database", f.Database, "kind", f.Object.Kind, "object", f.Object.Name})...)
		}
	}
	b.metric("synapse_doctor_measure", "A number that the check took, in the unit of its label.")
	for _, c := range r.Checks {
		for _, m := range c.Measures {
			b.sample(m.Value, slices.Concat(server, []string{"check", c.ID, "database", m.Database, "kind", m.Object.Kind, "object", m.Object.Name, "measure", m.Name, "unit", m.Unit})...)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func severityWord(f doctor.Finding) string {
	if f.Ignored != nil {
		return "ignored"
	}
	return f.Severity.String()
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// exposition is a page of metrics, all of them gauges. One without a sample is left out.
type exposition struct {
	bytes.Buffer
	name, help string
}

func (b *exposition) metric(name, help string) { b.name, b.help = name, help }

var labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// sample writes one line; labels are names and values in turn.
func (b *exposition) sample(value float64, labels ...string) {
	if b.help != "" {
		fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s gauge\n", b.name, b.help, b.name)
		b.help = ""
	}
	b.WriteString(b.name)
	for i := 0; i < len(labels); i += 2 {
		sign := ","
		if i == 0 {
			sign = "{"
		}
		fmt.Fprintf(b, `%s%s="%s"`, sign, labels[i], labelEscapes.Replace(labels[i+1]))
	}
	fmt.Fprintf(b, "} %s\n", strconv.FormatFloat(value, 'f', -1, 64))
}

// nagios is what Nagios, Icinga and their like read from a plugin: a line, its numbers, then more lines.
type nagios struct{ Options }

func (f nagios) Fix(io.Writer, *doctor.FixReport) error { return &NotForFixError{"nagios"} }

// The states of Nagios, as exit codes.
const (
	NagiosOK = iota
	NagiosWarning
	NagiosCritical
	NagiosUnknown
)

// NagiosState is what a report means to Nagios: CRITICAL for an error and WARNING for a warning, as far as it is at or above
// failOn, and UNKNOWN where not everything could be examined and no error was found.
func NagiosState(r *doctor.Report, failOn doctor.Severity, complete bool) int {
	worst := doctor.Severity(0)
	for _, f := range alarming(findings(r)) {
		worst = max(worst, f.Severity)
	}
	switch {
	case worst >= doctor.Error:
		return NagiosCritical
	case !complete:
		return NagiosUnknown
	case worst >= failOn:
		return NagiosWarning
	}
	return NagiosOK
}

var nagiosWords = []string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}

func (f nagios) Check(w io.Writer, r *doctor.Report) error {
	r = cleaner{f.Redact}.report(r)
	_, words := verdict(r)
	_, words, _ = strings.Cut(words, " ") // without its sign
	n := r.Summary()
	complete := n[doctor.StatusUnknown] == 0 && !slices.ContainsFunc(r.Plugins, func(p doctor.PluginInfo) bool { return p.Status == doctor.StatusUnknown })
	if f.Incomplete != nil && f.Incomplete(r) {
		complete = false
	}
	var b strings.Builder
	line := func(s string) string { return strings.NewReplacer("|", "/", "\n", " ").Replace(s) } // a bar begins the numbers
	found := map[string]int{}
	for _, finding := range findings(r) {
		found[severityWord(finding)]++
	}
	fmt.Fprintf(&b, "SYNAPSE-DOCTOR %s - %s | errors=%d;;1 warnings=%d;1 notes=%d ignored=%d unknown=%d skipped=%d time=%ss\n",
		nagiosWords[NagiosState(r, f.FailOn, complete)], line(words), found["error"], found["warning"], found["info"], found["ignored"],
		n[doctor.StatusUnknown], n[doctor.StatusSkipped], decimal(r.Duration))
	for _, finding := range findings(r) {
		why := ""
		if finding.Ignored != nil {
			why = " (" + finding.Ignored.Words() + ")"
		}
		fmt.Fprintf(&b, "%s %s · %s: %s\n", severityWord(finding), finding.Code, line(objectWords(r, finding)), line(finding.Summary+why))
	}
	for _, c := range r.Checks {
		if c.Status == doctor.StatusUnknown {
			fmt.Fprintf(&b, "unknown %s: %s\n", c.ID, line(c.Reason))
		}
	}
	for _, p := range r.Plugins {
		if p.Status == doctor.StatusUnknown {
			fmt.Fprintf(&b, "unknown plugin %s: %s\n", line(p.Name), line(p.Reason))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
