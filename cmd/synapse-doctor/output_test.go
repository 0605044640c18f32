package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/clipperhouse/displaywidth"
	"github.com/rogpeppe/go-internal/testscript"
)

// The JSON that the documentation promises, written down a second time: what a reader of it may rely on.

type wantReport struct {
	SchemaVersion int    `json:"schema_version"`
	DoctorVersion string `json:"doctor_version"`
	StartedAt     string `json:"started_at"`
	DurationMS    int64  `json:"duration_ms"`
	Target        struct {
		ServerName  string   `json:"server_name"`
		ConfigFiles []string `json:"config_files"`
		Databases   []struct {
			Label         string `json:"label"`
			Engine        string `json:"engine"`
			Host          string `json:"host"`
			Port          int    `json:"port"`
			Database      string `json:"database"`
			ServerVersion string `json:"server_version"`
		} `json:"databases"`
	} `json:"target"`
	Since *struct {
		Run           string           `json:"run"`
		At            string           `json:"at"`
		New           []map[string]any `json:"new"`
		Resolved      []map[string]any `json:"resolved"`
		Persisting    int              `json:"persisting"`
		NotComparable int              `json:"not_comparable"`
	} `json:"since,omitempty"`
	Plugins []struct {
		Name     string   `json:"name"`
		Version  string   `json:"version"`
		Protocol int      `json:"protocol"`
		Path     string   `json:"path"`
		Checks   []string `json:"checks"`
		Status   string   `json:"status"`
		Reason   string   `json:"reason"`
	} `json:"plugins"`
	Checks []struct {
		ID       string `json:"id"`
		Title    string `json:"title"`
		Status   string `json:"status"`
		Reason   string `json:"reason"`
		Coverage string `json:"coverage,omitempty"`
		Measures []struct {
			Database string `json:"database"`
			Object   struct {
				Kind string `json:"kind"`
				Name string `json:"name"`
			} `json:"object"`
			Name    string  `json:"name"`
			Value   float64 `json:"value"`
			Unit    string  `json:"unit"`
			Earlier *struct {
				At    string  `json:"at"`
				Value float64 `json:"value"`
			} `json:"earlier,omitempty"`
		} `json:"measures,omitempty"`
		DurationMS int64 `json:"duration_ms"`
		Findings   []struct {
			Code     string `json:"code"`
			Severity string `json:"severity"`
			Database string `json:"database"`
			Summary  string `json:"summary"`
			Object   struct {
				Kind string `json:"kind"`
				Name string `json:"name"`
			} `json:"object"`
			Observed string                       `json:"observed"`
			Expected string                       `json:"expected"`
			Remedy   string                       `json:"remedy"`
			Fixable  bool                         `json:"fixable"`
			Evidence map[string]string            `json:"evidence"`
			Ignored  *struct{ Why, Until string } `json:"ignored,omitempty"`
		} `json:"findings"`
	} `json:"checks"`
	Summary map[string]int `json:"summary"`
}

type wantFix struct {
	SchemaVersion int  `json:"schema_version"`
	Applied       bool `json:"applied"`
	Plans         []struct {
		ID         string   `json:"id"`
		Check      string   `json:"check"`
		Codes      []string `json:"codes"`
		Title      string   `json:"title"`
		Risk       string   `json:"risk"`
		Expects    string   `json:"expects"`
		Requires   []string `json:"requires"`
		Chosen     bool     `json:"chosen"`
		Reversible bool     `json:"reversible"`
		Status     string   `json:"status"`
		Reason     string   `json:"reason"`
		Steps      []struct {
			Kind   string `json:"kind"`
			Title  string `json:"title"`
			SQL    string `json:"sql"`
			Path   string `json:"path"`
			Diff   string `json:"diff"`
			Status string `json:"status"`
		} `json:"steps"`
	} `json:"plans"`
	Before wantReport  `json:"before"`
	After  *wantReport `json:"after"`
}

// decode reads text into out and is strict in both directions: no key but the known ones, and every known key.
func decode(text string, out any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(out); err != nil {
		return fmt.Errorf("stdout is not the promised JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("stdout goes on after the JSON")
	}
	var raw any
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return err
	}
	return complete("", raw, reflect.TypeOf(out).Elem())
}

// complete reports the first key of t that v lacks, or that is null. A key that may be omitted may not be there and empty.
func complete(path string, v any, t reflect.Type) error {
	switch t.Kind() {
	case reflect.Pointer:
		if v == nil { // only "after"
			return nil
		}
		return complete(path, v, t.Elem())
	case reflect.Struct:
		m, ok := v.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is %v, not an object", path, v)
		}
		for i := range t.NumField() {
			key, omissible, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			value, ok := m[key]
			if omissible != "" {
				if ok && value == "" {
					return fmt.Errorf("%s.%s is empty", path, key)
				}
				continue
			}
			if !ok {
				return fmt.Errorf("%s.%s is missing", path, key)
			}
			if err := complete(path+"."+key, value, t.Field(i).Type); err != nil {
				return err
			}
		}
	case reflect.Slice:
		list, ok := v.([]any)
		if !ok {
			return fmt.Errorf("%s is %v, not a list", path, v)
		}
		for i, e := range list {
			if err := complete(fmt.Sprintf("%s[%d]", path, i), e, t.Elem()); err != nil {
				return err
			}
		}
	case reflect.Map:
		if _, ok := v.(map[string]any); !ok {
			return fmt.Errorf("%s is %v, not an object", path, v)
		}
	}
	return nil
}

// readReport reads the report of a check and looks for contradictions in it.
func readReport(text string) (*wantReport, error) {
	var r wantReport
	if err := decode(text, &r); err != nil {
		return nil, err
	}
	return &r, r.consistent()
}

func (r *wantReport) consistent() error {
	if r.SchemaVersion != 1 {
		return fmt.Errorf("schema_version %d", r.SchemaVersion)
	}
	counted := map[string]int{"ok": 0, "info": 0, "warning": 0, "error": 0, "skipped": 0, "unknown": 0}
	for _, c := range r.Checks {
		if _, ok := counted[c.Status]; !ok {
			return fmt.Errorf("check %s has the status %q", c.ID, c.Status)
		}
		counted[c.Status]++
		if withReason := c.Status == "skipped" || c.Status == "unknown"; withReason != (c.Reason != "") {
			return fmt.Errorf("check %s is %s with the reason %q", c.ID, c.Status, c.Reason)
		}
		for _, f := range c.Findings {
			if !strings.HasPrefix(f.Code, c.ID+"/") || f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" || f.Object.Kind == "" {
				return fmt.Errorf("an incomplete finding: %+v", f)
			}
		}
	}
	if !reflect.DeepEqual(counted, r.Summary) {
		return fmt.Errorf("summary %v, but the checks are %v", r.Summary, counted)
	}
	return nil
}

func reportCommand(ts *testscript.TestScript, _ *scene, _ []string) error {
	_, err := readReport(ts.ReadFile("stdout"))
	return err
}

// plansCommand takes ID=STATUS… and wants exactly these chosen plans.
func plansCommand(ts *testscript.TestScript, _ *scene, args []string) error {
	var f wantFix
	if err := decode(ts.ReadFile("stdout"), &f); err != nil {
		return err
	}
	reports := []*wantReport{&f.Before}
	if f.After != nil {
		reports = append(reports, f.After)
	}
	for _, r := range reports {
		if err := r.consistent(); err != nil {
			return err
		}
	}
	got := []string{}
	for _, p := range f.Plans {
		if p.Chosen {
			got = append(got, p.ID+"="+p.Status)
		}
		if len(p.Steps) == 0 {
			return fmt.Errorf("plan %s has no step", p.ID)
		}
	}
	return same(got, args)
}

func statusesCommand(ts *testscript.TestScript, _ *scene, args []string) error {
	r, err := readReport(ts.ReadFile("stdout"))
	if err != nil {
		return err
	}
	got := []string{}
	for _, c := range r.Checks {
		if advises(c.ID, c.Status) && !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, c.ID+"=") }) {
			continue
		}
		if is := c.ID + "=" + c.Status; len(args) == 0 || args[0] != "all="+c.Status || slices.Contains(args, is) {
			got = append(got, is)
		}
	}
	if len(args) > 0 && strings.HasPrefix(args[0], "all=") {
		args = args[1:]
		if len(r.Checks) == 0 {
			return errors.New("the report holds no check")
		}
	}
	return same(got, args)
}

// advises reports whether a check has nothing to say but advice that depends on this machine.
func advises(check, status string) bool {
	return (check == "tuning" || check == "upkeep") && (status == "ok" || status == "info")
}

func findingsCommand(ts *testscript.TestScript, _ *scene, args []string) error {
	r, err := readReport(ts.ReadFile("stdout"))
	if err != nil {
		return err
	}
	got := []string{}
	for _, c := range r.Checks {
		for _, f := range c.Findings {
			if f.Severity != "info" {
				got = append(got, f.Code+":"+f.Object.Name)
			}
		}
	}
	return same(got, args)
}

func same(got, want []string) error {
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		return fmt.Errorf("got  %q\nwant %q", got, want)
	}
	return nil
}

func widthCommand(ts *testscript.TestScript, _ *scene, args []string) error {
	if err := need(args, "N"); err != nil {
		return err
	}
	var limit int
	if _, err := fmt.Sscan(args[0], &limit); err != nil {
		return err
	}
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		line = strings.TrimSuffix(line, "\n")
		if n := displaywidth.String(line); n > limit {
			return fmt.Errorf("%d columns: %s", n, line)
		}
	}
	return nil
}

// explainedCommand has every check and every code that list prints explained.
func explainedCommand(ts *testscript.TestScript, s *scene, _ []string) error {
	var list struct {
		SchemaVersion int `json:"schema_version"`
		Checks        []struct {
			ID    string `json:"id"`
			Title string `json:"title"`
			Why   string `json:"why"`
			Codes []struct {
				Code     string `json:"code"`
				Severity string `json:"severity"`
				Title    string `json:"title"`
			} `json:"codes"`
			Thresholds []struct {
				ID      string  `json:"id"`
				Title   string  `json:"title"`
				Unit    string  `json:"unit"`
				Default float64 `json:"default"`
				Min     float64 `json:"min"`
				Max     float64 `json:"max"`
			} `json:"thresholds"`
		} `json:"checks"`
	}
	if err := decode(ts.ReadFile("stdout"), &list); err != nil {
		return err
	}
	n := 0
	for _, c := range list.Checks {
		names := []string{c.ID}
		for _, k := range c.Codes {
			names = append(names, k.Code)
		}
		for _, name := range names {
			n++
			p, err := prepare(ts, []string{"explain", name})
			if err != nil {
				return err
			}
			if err := p.start(); err != nil {
				return err
			}
			if code, err := p.wait(s); err != nil || code != 0 || !strings.Contains(p.out.String(), name) {
				return fmt.Errorf("explain %s: %d %v\n%s%s", name, code, err, p.out.String(), p.err.String())
			}
		}
	}
	if n < 10 {
		return fmt.Errorf("only %d pages", n)
	}
	return nil
}

// exampleDir is the plugin that an outsider would write, in a module of its own.
const exampleDir = "../../plugins/examples/published-rooms"

// exampleCommand builds it as its author would.
func exampleCommand(ts *testscript.TestScript, _ *scene, args []string) error {
	if err := need(args, "FILE"); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-o", ts.MkAbs(args[0]), ".")
	build.Dir = exampleDir
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build in %s: %w\n%s", exampleDir, err, out)
	}
	return nil
}

// onelineCommand wants a stream to hold a single line, which matches.
func onelineCommand(ts *testscript.TestScript, _ *scene, args []string) error {
	if err := need(args, "stdout|stderr PATTERN"); err != nil {
		return err
	}
	text := ts.ReadFile(args[0])
	if strings.Count(text, "\n") != 1 {
		return fmt.Errorf("%s is not one line: %q", args[0], text)
	}
	if ok, err := regexp.MatchString(args[1], text); err != nil || !ok {
		return fmt.Errorf("%q does not match %s (%v)", text, args[1], err)
	}
	return nil
}

// runCommand puts the newest run that history lists on stdout into $run.
func runCommand(ts *testscript.TestScript, _ *scene, _ []string) error {
	lines := strings.Split(ts.ReadFile("stdout"), "\n")
	if len(lines) < 2 || !strings.HasPrefix(lines[0], "RUN ") {
		return fmt.Errorf("stdout is no history: %q", lines)
	}
	id, _, _ := strings.Cut(lines[1], " ")
	ts.Setenv("run", id)
	return nil
}

// modeCommand wants a file to have this mode, and this owner where one is given.
func modeCommand(ts *testscript.TestScript, _ *scene, args []string) error {
	if err := need(args, "FILE MODE"); err != nil {
		return err
	}
	info, err := os.Lstat(ts.MkAbs(args[0]))
	if err != nil {
		return err
	}
	got := fmt.Sprintf("%v", info.Mode())
	if len(args) > 2 {
		got += " " + owner(info)
	}
	if want := strings.Join(args[1:], " "); got != want {
		return fmt.Errorf("%s is %s, not %s", args[0], got, want)
	}
	return nil
}

// eventsCommand reads the objects on stderr, between whose lines plans may be shown, as a program would.
func eventsCommand(ts *testscript.TestScript, _ *scene, args []string) error {
	found := map[string]bool{}
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var e struct {
			Event string `json:"event"`
			Step  string `json:"step"`
			Text  string `json:"text"`
			Done  int64  `json:"done"`
			Total int64  `json:"total"`
			Unit  string `json:"unit"`
			Rows  int64  `json:"rows"`

			RowsPerSecond int64 `json:"rows_per_second"`
			ElapsedMS     int64 `json:"elapsed_ms"`
			Parts         []struct {
				Name  string `json:"name"`
				Done  int64  `json:"done"`
				Total int64  `json:"total"`
			} `json:"parts"`
		}
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
		if !slices.Contains([]string{"progress", "note", "plan"}, e.Event) || e.Event != "progress" && e.Text == "" || e.Event != "note" && e.Step == "" {
			return fmt.Errorf("an incomplete event: %s", line)
		}
		found[e.Event] = true
	}
	for _, kind := range args {
		if !found[kind] {
			return fmt.Errorf("there is no %s", kind)
		}
	}
	return nil
}
