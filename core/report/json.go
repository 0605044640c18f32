package report

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// The JSON is an interface: every key is always there, lists and maps are never null, new keys may be added, and a
// change that breaks a reader raises schema_version.
const jsonSchemaVersion = 1

type jsonFormat struct{ Options }

type jsonReport struct {
	SchemaVersion int          `json:"schema_version"`
	DoctorVersion string       `json:"doctor_version"`
	StartedAt     string       `json:"started_at"`
	DurationMS    int64        `json:"duration_ms"`
	Target        jsonTarget   `json:"target"`
	Plugins       []jsonPlugin `json:"plugins"`
	Checks        []jsonCheck  `json:"checks"`
	Summary       jsonSummary  `json:"summary"`
	Since         *jsonSince   `json:"since,omitempty"` // with --since
}

type jsonTarget struct {
	ServerName  string         `json:"server_name"`
	ConfigFiles []string       `json:"config_files"`
	Databases   []jsonDatabase `json:"databases"`
}

type jsonDatabase struct {
	Label         string `json:"label"`
	Engine        string `json:"engine"`
	Host          string `json:"host"`
	Port          int    `json:"port"`
	Database      string `json:"database"`
	ServerVersion string `json:"server_version"`
}

type jsonPlugin struct {
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Protocol int      `json:"protocol"`
	Path     string   `json:"path"`
	Checks   []string `json:"checks"`
	Status   string   `json:"status"`
	Reason   string   `json:"reason"`
}

type jsonCheck struct {
	ID         string        `json:"id"`
	Title      string        `json:"title"`
	Status     string        `json:"status"`
	Reason     string        `json:"reason"`
	Coverage   string        `json:"coverage,omitempty"` // how much was examined, where that does not go without saying
	DurationMS int64         `json:"duration_ms"`
	Findings   []jsonFinding `json:"findings"`
	Measures   []jsonMeasure `json:"measures,omitempty"` // numbers that it took, whether or not it complains of them
}

type jsonFinding struct {
	Code     string            `json:"code"`
	Severity string            `json:"severity"`
	Database string            `json:"database"`
	Summary  string            `json:"summary"`
	Object   jsonObject        `json:"object"`
	Observed string            `json:"observed"`
	Expected string            `json:"expected"`
	Remedy   string            `json:"remedy"`
	Fixable  bool              `json:"fixable"`
	Evidence map[string]string `json:"evidence"`
	Ignored  *jsonIgnored      `json:"ignored,omitempty"`
}

type jsonMeasure struct {
	Database string       `json:"database"`
	Object   jsonObject   `json:"object"`
	Name     string       `json:"name"`
	Value    float64      `json:"value"`
	Unit     string       `json:"unit"`
	Earlier  *jsonEarlier `json:"earlier,omitempty"` // of the newest recorded run that has it
}

type jsonEarlier struct {
	At    string  `json:"at"`
	Value float64 `json:"value"`
}

// jsonSince is how the report stands against a recorded run.
type jsonSince struct {
	Run           string    `json:"run"`
	At            string    `json:"at"`
	New           []jsonKey `json:"new"`
	Resolved      []jsonKey `json:"resolved"`
	Persisting    int       `json:"persisting"`
	NotComparable int       `json:"not_comparable"` // found by checks that did not examine anything then
}

type jsonKey struct {
	Code     string     `json:"code"`
	Database string     `json:"database"`
	Object   jsonObject `json:"object"`
}

func measuresJSON(measures []doctor.Measure, earlier doctor.Earlier) []jsonMeasure {
	var out []jsonMeasure
	for _, m := range measures {
		j := jsonMeasure{Database: m.Database, Object: jsonObject(m.Object), Name: m.Name, Value: m.Value, Unit: m.Unit}
		if was, ok := earlier.Find(m.Key()); ok {
			j.Earlier = &jsonEarlier{was.At.UTC().Format(time.RFC3339), was.Value}
		}
		out = append(out, j)
	}
	return out
}

func sinceJSON(s *doctor.Since) *jsonSince {
	if s == nil {
		return nil
	}
	keys := func(in []doctor.FindingKey) []jsonKey {
		out := []jsonKey{}
		for _, k := range in {
			out = append(out, jsonKey{k.Code, k.Database, jsonObject(k.Object)})
		}
		return out
	}
	return &jsonSince{s.Run, s.At.UTC().Format(time.RFC3339), keys(s.New), keys(s.Resolved), s.Persisting, s.NotComparable}
}

type jsonIgnored struct {
	Why   string `json:"why"`
	Until string `json:"until,omitempty"` // a day
}

func ignoredOf(i *doctor.Ignored) *jsonIgnored {
	if i == nil {
		return nil
	}
	out := &jsonIgnored{Why: i.Why}
	if !i.Until.IsZero() {
		out.Until = i.Until.Format(time.DateOnly)
	}
	return out
}

type jsonObject struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

type jsonSummary struct {
	OK      int `json:"ok"`
	Info    int `json:"info"`
	Warning int `json:"warning"`
	Error   int `json:"error"`
	Skipped int `json:"skipped"`
	Unknown int `json:"unknown"`
}

type jsonFix struct {
	SchemaVersion int         `json:"schema_version"`
	Applied       bool        `json:"applied"`
	Plans         []jsonPlan  `json:"plans"`
	Before        *jsonReport `json:"before"`
	After         *jsonReport `json:"after"` // null when nothing was applied
}

type jsonPlan struct {
	ID         string     `json:"id"`
	Check      string     `json:"check"`
	Codes      []string   `json:"codes"`
	Title      string     `json:"title"`
	Risk       string     `json:"risk"`
	Expects    string     `json:"expects"`
	Requires   []string   `json:"requires"`
	Chosen     bool       `json:"chosen"`
	Reversible bool       `json:"reversible"`
	Status     string     `json:"status"`
	Reason     string     `json:"reason"`
	Steps      []jsonStep `json:"steps"`
}

type jsonStep struct {
	Kind   string `json:"kind"`
	Title  string `json:"title"`
	SQL    string `json:"sql"`  // of an sql step its statement, of an operation its statements, of a probe its query, arguments put in as literals
	Path   string `json:"path"` // of an edit-file step, and its diff
	Diff   string `json:"diff"`
	Status string `json:"status"`
}

func (f jsonFormat) Check(w io.Writer, r *doctor.Report) error {
	return writeJSON(w, checkJSON(cleaner{f.Redact}.report(r)))
}

func (f jsonFormat) Fix(w io.Writer, r *doctor.FixReport) error {
	r = cleaner{f.Redact}.fix(r)
	out := jsonFix{SchemaVersion: jsonSchemaVersion, Applied: r.Applied, Plans: []jsonPlan{},
		Before: checkJSON(r.Before), After: checkJSON(r.After)}
	for _, p := range r.Plans {
		out.Plans = append(out.Plans, planJSON(p))
	}
	return writeJSON(w, out)
}

func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

func checkJSON(r *doctor.Report) *jsonReport {
	if r == nil {
		return nil
	}
	n := r.Summary()
	out := &jsonReport{
		SchemaVersion: jsonSchemaVersion,
		DoctorVersion: r.DoctorVersion,
		StartedAt:     r.StartedAt.UTC().Format(time.RFC3339),
		DurationMS:    r.Duration.Milliseconds(),
		Target:        jsonTarget{r.Target.ServerName, list(r.Target.ConfigFiles), []jsonDatabase{}},
		Plugins:       []jsonPlugin{},
		Checks:        []jsonCheck{},
		Summary: jsonSummary{n[doctor.StatusOK], n[doctor.StatusInfo], n[doctor.StatusWarning], n[doctor.StatusError],
			n[doctor.StatusSkipped], n[doctor.StatusUnknown]},
		Since: sinceJSON(r.Since),
	}
	for _, d := range r.Target.Databases {
		out.Target.Databases = append(out.Target.Databases,
			jsonDatabase{d.Label, string(d.Engine), d.Host, d.Port, d.Database, d.ServerVersion})
	}
	for _, p := range r.Plugins {
		out.Plugins = append(out.Plugins,
			jsonPlugin{p.Name, p.Version, p.Protocol, p.Path, list(p.Checks), p.Status.String(), p.Reason})
	}
	for _, c := range r.Checks {
		check := jsonCheck{c.ID, c.Title, c.Status.String(), c.Reason, c.Coverage, c.Duration.Milliseconds(), []jsonFinding{}, measuresJSON(c.Measures, r.Earlier)}
		for _, f := range c.Findings {
			check.Findings = append(check.Findings, jsonFinding{
				Code: f.Code, Severity: f.Severity.String(), Database: f.Database, Summary: f.Summary,
				Object: jsonObject(f.Object), Observed: f.Observed, Expected: f.Expected,
				Remedy: f.Remedy, Fixable: f.Fixable, Evidence: f.Evidence, Ignored: ignoredOf(f.Ignored),
			})
		}
		out.Checks = append(out.Checks, check)
	}
	return out
}

func planJSON(r doctor.PlanResult) jsonPlan {
	p := r.Plan
	out := jsonPlan{ID: p.ID, Check: p.Check(), Codes: list(p.Codes()), Title: p.Title, Risk: p.Risk.String(),
		Expects: string(p.Expects), Requires: []string{}, Chosen: r.Chosen, Reversible: p.Reversible,
		Status: string(r.Status), Reason: r.Reason, Steps: []jsonStep{}}
	for _, q := range p.Requires {
		out.Requires = append(out.Requires, string(q))
	}
	for i, s := range p.Steps {
		result := stepResult(r, i)
		step := jsonStep{Kind: string(s.Kind()), Title: s.Title, Diff: result.Diff, Status: string(result.Status)}
		switch {
		case s.SQL != nil:
			step.SQL = s.SQL.Statement
		case s.EditFile != nil:
			step.Path = s.EditFile.Path
		case s.Operation != nil:
			step.SQL = strings.Join(s.Operation.Statements, ";\n")
		case s.Probe != nil && s.Probe.Holds != nil:
			step.SQL = s.Probe.Holds.Query
		}
		out.Steps = append(out.Steps, step)
	}
	return out
}

// list is never null in JSON.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
