package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// The reports say times where the reader is.
func init() { time.Local = time.UTC }

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not as it was (go test -update writes it anew); got:\n%s", path, got)
	}
}

type sample struct {
	name  string
	fix   bool
	print func(Formatter, *bytes.Buffer) error
}

func samples() []sample {
	check := func(name string, r *doctor.Report) sample {
		return sample{name, false, func(f Formatter, b *bytes.Buffer) error { return f.Check(b, r) }}
	}
	fix := func(name string, r *doctor.FixReport) sample {
		return sample{name, true, func(f Formatter, b *bytes.Buffer) error { return f.Fix(b, r) }}
	}
	return []sample{
		check("sound", soundReport()), check("sick", sickReport()), check("hostile", hostileReport()),
		check("empty", &doctor.Report{}),
		fix("planned", plannedFix()), fix("applied", appliedFix()), fix("refused", refusedFix()), fix("failed", failedFix()),
		fix("manual", manualFix()), fix("operation", longFix()),
		fix("nothing", &doctor.FixReport{Before: soundReport()}),
		fix("no-plan", &doctor.FixReport{Before: sickReport()}),
		check("ignored", ignoredReport()), check("measured", measuredReport()),
	}
}

var sampleOptions = Options{
	Flags:  []string{"-c", "/etc/matrix-synapse"},
	Redact: doctor.NewRedactor([]string{"hunter2-secret"}, []string{"synapse"}),
}

func render(t *testing.T, format string, o Options, s sample) string {
	t.Helper()
	f, err := New(format, o)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := s.print(f, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReportsLookAsTheyDid(t *testing.T) {
	for _, s := range samples() {
		for _, w := range []int{60, 80, 120} {
			o := sampleOptions
			o.Width = w
			golden(t, fmt.Sprintf("%s.%d.txt", s.name, w), []byte(render(t, "table", o, s)))
		}
		golden(t, s.name+".json", []byte(render(t, "json", sampleOptions, s)))
		golden(t, s.name+".md", []byte(render(t, "markdown", sampleOptions, s)))
		golden(t, s.name+".html", []byte(render(t, "html", sampleOptions, s)))
		if !s.fix {
			golden(t, s.name+".xml", []byte(render(t, "junit", sampleOptions, s)))
			golden(t, s.name+".prom", []byte(render(t, "prometheus", sampleOptions, s)))
			golden(t, s.name+".nagios", []byte(render(t, "nagios", sampleOptions, s)))
		}
	}
	o := sampleOptions
	o.Verbose = true
	golden(t, "sick.verbose.txt", []byte(render(t, "table", o, samples()[1])))
	golden(t, "planned.verbose.txt", []byte(render(t, "table", o, samples()[4])))
	o.Verbose, o.Color = false, true
	golden(t, "sick.color.txt", []byte(render(t, "table", o, samples()[1])))
}

// A line may be too wide only when breaking it would break what it says.
func TestNoTableIsWiderThanTheTerminal(t *testing.T) {
	for _, s := range samples() {
		for w := 40; w <= 160 && !t.Failed(); w++ {
			for _, color := range []bool{false, true} {
				o := sampleOptions
				o.Width, o.Color = w, color
				for line := range strings.SplitSeq(unpaint(render(t, "table", o, s)), "\n") {
					if width(line) <= w || whole.MatchString(line) {
						continue
					}
					t.Errorf("%s at %d: %d columns: %s", s.name, w, width(line), line)
				}
			}
		}
	}
}

// whole are the lines that stay in one piece: commands, lines of files, and SQL whose single words are too long.
var whole = regexp.MustCompile(`^ {2,}(mend +)?(synapse-doctor |sudo |[-+]{3} /|[-+ ][ a-z_]+: |REINDEX INDEX|keepalives_)|^ +[^ ]+$`)

var escapeSequence = regexp.MustCompile("\x1b\\[[0-9;]*m")

func unpaint(s string) string { return escapeSequence.ReplaceAllString(s, "") }

func TestColourIsOnlyDecoration(t *testing.T) {
	for _, s := range samples() {
		o := sampleOptions
		colourless := render(t, "table", o, s)
		if strings.Contains(colourless, "\x1b") {
			t.Errorf("%s has escapes without colour", s.name)
		}
		o.Color = true
		if got := unpaint(render(t, "table", o, s)); got != colourless {
			t.Errorf("%s reads differently in colour:\n%s\nagainst\n%s", s.name, got, colourless)
		}
	}
}

func TestNothingHostileReachesTheTerminalAndNoSecretAnything(t *testing.T) {
	for _, s := range samples() {
		formats := Formats()
		if s.fix {
			formats = FixFormats()
		}
		for _, format := range formats {
			o := sampleOptions
			o.Verbose = true
			got := render(t, format, o, s)
			if strings.Contains(got, "hunter2") {
				t.Errorf("%s in %s shows the secret", s.name, format)
			}
			if doctor.CleanText(got) != got {
				t.Errorf("%s in %s has control characters", s.name, format)
			}
			if format != "json" {
				continue
			}
			walk(t, s.name, mustParse(t, got))
		}
	}
}

func mustParse(t *testing.T, s string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// walk looks at decoded JSON: nothing null except what was not applied, and no string that a terminal would obey.
func walk(t *testing.T, at string, v any) {
	switch v := v.(type) {
	case nil:
		if !strings.HasSuffix(at, ".after") {
			t.Errorf("%s is null", at)
		}
	case string:
		if doctor.CleanText(v) != v {
			t.Errorf("%s holds control characters: %q", at, v)
		}
	case []any:
		for _, e := range v {
			walk(t, at+"[]", e)
		}
	case map[string]any:
		for k, e := range v {
			walk(t, at+"."+k, e)
		}
	}
}

func TestJSONHasExactlyTheKeysOfTheInterface(t *testing.T) {
	keys := map[string]bool{}
	var collect func(at string, v any)
	collect = func(at string, v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				collect(at+"[]", e)
			}
		case map[string]any:
			for k, e := range v {
				if at == "checks[].findings[].evidence" {
					return
				}
				path := strings.TrimPrefix(at+"."+k, ".")
				keys[path] = true
				collect(path, e)
			}
		}
	}
	compare := func(name, want string) {
		t.Helper()
		for k := range strings.FieldsSeq(want) {
			if !keys[k] {
				t.Errorf("%s has no %s", name, k)
			}
			delete(keys, k)
		}
		for k := range keys {
			t.Errorf("%s has %s, which is not in the interface", name, k)
		}
		clear(keys)
	}
	const check = `schema_version doctor_version started_at duration_ms target target.server_name target.config_files
		target.databases target.databases[].label target.databases[].engine target.databases[].host target.databases[].port
		target.databases[].database target.databases[].server_version plugins plugins[].name plugins[].version
		plugins[].protocol plugins[].path plugins[].checks plugins[].status plugins[].reason checks checks[].id checks[].title
		checks[].status checks[].reason checks[].duration_ms checks[].findings checks[].findings[].code
		checks[].findings[].severity checks[].findings[].database checks[].findings[].summary checks[].findings[].object
		checks[].findings[].object.kind checks[].findings[].object.name checks[].findings[].observed
		checks[].findings[].expected checks[].findings[].remedy checks[].findings[].fixable checks[].findings[].evidence
		summary summary.ok summary.info summary.warning summary.error summary.skipped summary.unknown`
	const fix = `schema_version applied plans plans[].id plans[].check plans[].codes plans[].title plans[].risk
		plans[].expects plans[].requires plans[].chosen plans[].reversible plans[].status plans[].reason plans[].steps
		plans[].steps[].kind plans[].steps[].title plans[].steps[].sql plans[].steps[].path plans[].steps[].diff
		plans[].steps[].status before after`
	for _, s := range samples() {
		v := mustParse(t, render(t, "json", sampleOptions, s)).(map[string]any)
		_, isFix := v["before"]
		switch {
		case isFix && s.name == "applied":
			v["before"], v["after"] = nil, nil
			collect("", v)
			compare("fix", fix)
		case s.name == "sick":
			collect("", v)
			compare("check", check)
		}
	}
}

func TestUnknownFormatNamesTheKnownOnes(t *testing.T) {
	_, err := New("yaml", Options{})
	if err == nil || !strings.Contains(err.Error(), `"yaml"`) || !strings.Contains(err.Error(), "table, json, markdown") {
		t.Errorf("got %v", err)
	}
}

func TestWhatWasNotLookedAtIsNeverCalledWell(t *testing.T) {
	unknown := soundReport()
	unknown.Checks[2].Status, unknown.Checks[2].Reason = doctor.StatusUnknown, "timeout"
	unasked := soundReport()
	unasked.Plugins = append(unasked.Plugins[:1:1], doctor.PluginInfo{Name: "x", Status: doctor.StatusUnknown, Reason: "crashed"})
	skipped := soundReport()
	for i := range skipped.Checks {
		skipped.Checks[i].Status, skipped.Checks[i].Reason = doctor.StatusSkipped, "no connection"
	}
	for _, r := range []*doctor.Report{unknown, unasked, skipped, {}} {
		for _, format := range []string{"table", "markdown"} {
			f, _ := New(format, Options{})
			var b bytes.Buffer
			if err := f.Check(&b, r); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(b.String(), "✓ Nothing") {
				t.Errorf("%s:\n%s", format, b.String())
			}
			b.Reset()
			if err := f.Fix(&b, &doctor.FixReport{Before: r}); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(b.String(), "Nothing wrong") {
				t.Errorf("fix %s:\n%s", format, b.String())
			}
		}
	}
}

func TestTheFormattersLeaveTheReportAsItWas(t *testing.T) {
	r := hostileReport()
	before := fmt.Sprintf("%#v", r.Checks)
	for _, format := range Formats() {
		f, _ := New(format, sampleOptions)
		if err := f.Check(&bytes.Buffer{}, r); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprintf("%#v", r.Checks) != before {
		t.Error("the report was changed")
	}
}

func TestJSONOfAlmostNothingHasNoNulls(t *testing.T) {
	bare := &doctor.Report{Plugins: []doctor.PluginInfo{{}}, Checks: []doctor.CheckResult{{Findings: []doctor.Finding{{}}}}}
	fix := &doctor.FixReport{Before: bare, Plans: []doctor.PlanResult{{}}}
	f, _ := New("json", Options{})
	var b bytes.Buffer
	if err := f.Fix(&b, fix); err != nil {
		t.Fatal(err)
	}
	walk(t, "fix", mustParse(t, b.String()))
}

func TestThePlanThatWasPickedIsNamedAgain(t *testing.T) {
	key := doctor.FindingKey{Code: "a/b"}
	plan := func(id string, chosen bool) doctor.PlanResult {
		return doctor.PlanResult{Chosen: chosen, Status: doctor.PlanPlanned,
			Plan: doctor.Plan{ID: id, Covers: []doctor.FindingKey{key}, Steps: []doctor.Step{{SQL: &doctor.SQLStep{Statement: "SELECT 1"}}}}}
	}
	for _, c := range []struct {
		plans []doctor.PlanResult
		want  string
	}{
		{[]doctor.PlanResult{plan("a/first", true), plan("a/second", false)}, "synapse-doctor fix a --apply\n"},
		{[]doctor.PlanResult{plan("a/first", false), plan("a/second", true)}, "synapse-doctor fix a --plan a/second --apply\n"},
	} {
		f, _ := New("table", Options{})
		var b bytes.Buffer
		if err := f.Fix(&b, &doctor.FixReport{Plans: c.plans}); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(b.String(), c.want) {
			t.Errorf("want %s at the end of\n%s", c.want, b.String())
		}
	}
}

func TestSynapseIsToldToStartOnlyWhenNothingSpeaksAgainstIt(t *testing.T) {
	for what, tt := range map[string]struct {
		after *doctor.Report
		want  bool
	}{
		"sound":                 {soundReport(), true},
		"only a warning":        {&doctor.Report{Checks: []doctor.CheckResult{{ID: "locale", Status: doctor.StatusWarning}}}, true},
		"does not apply":        {&doctor.Report{Checks: []doctor.CheckResult{{ID: "vacuum", Status: doctor.StatusSkipped}}}, true},
		"an error":              {&doctor.Report{Checks: []doctor.CheckResult{{ID: "locale", Status: doctor.StatusError}}}, false},
		"unknown":               {&doctor.Report{Checks: []doctor.CheckResult{{ID: "sequence", Status: doctor.StatusUnknown}}}, false},
		"no connection":         {&doctor.Report{Checks: []doctor.CheckResult{{ID: "sequence", Status: doctor.StatusSkipped, NeedFailed: true}}}, false},
		"a plugin did not tell": {&doctor.Report{Plugins: []doctor.PluginInfo{{Name: "rooms", Status: doctor.StatusUnknown}}}, false},
		"not examined":          {nil, false},
	} {
		r := appliedFix()
		r.After = tt.after
		text := render(t, "table", sampleOptions, sample{what, false, func(f Formatter, b *bytes.Buffer) error { return f.Fix(b, r) }})
		if got := strings.Contains(text, "can be started again"); got != tt.want {
			t.Errorf("%s: told %t:\n%s", what, got, text)
		}
	}
	r := appliedFix()
	r.After = soundReport()
	r.Plans[0].Plan.Steps = append(slices.Clone(r.Plans[0].Plan.Steps), doctor.Step{Title: "Name the new database", Manual: &doctor.ManualStep{Text: "in homeserver.yaml"}})
	r.Plans[0].Steps = append(slices.Clone(r.Plans[0].Steps), doctor.StepResult{Status: doctor.StepManual})
	text := render(t, "table", sampleOptions, sample{"a step by hand", true, func(f Formatter, b *bytes.Buffer) error { return f.Fix(b, r) }})
	if strings.Contains(text, "can be started again") {
		t.Errorf("told although a step is left to do by hand:\n%s", text)
	}
}
