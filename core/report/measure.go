package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// measured is what a check has measured of one kind of object: a row for each object, a column for each measure.
type measured struct {
	check   string
	header  []string // the kind of object, then the names of the measures
	rows    [][]string
	since   time.Time // what the changes are counted from; zero when there are none
	changes int       // values that differ from the earlier ones
}

// fingerprint is the unit of numbers that mean nothing to a person.
const fingerprint = "fingerprint"

// measures lays out what the checks have measured. Those that were not asked for by name come only when every is set.
func measures(r *doctor.Report, every bool) []measured {
	var out []measured
	for _, c := range r.Checks {
		if len(c.Measures) > 0 && (c.Asked || every) {
			out = append(out, tablesOf(r, c)...)
		}
	}
	return out
}

func tablesOf(r *doctor.Report, c doctor.CheckResult) []measured {
	c.Measures = slices.DeleteFunc(slices.Clone(c.Measures), func(m doctor.Measure) bool { return m.Unit == fingerprint })
	type object struct {
		database string
		doctor.Object
	}
	var kinds []string
	for _, m := range c.Measures {
		if !slices.Contains(kinds, m.Object.Kind) {
			kinds = append(kinds, m.Object.Kind)
		}
	}
	var out []measured
	for _, kind := range kinds {
		t := measured{check: c.ID, header: []string{kind}}
		var names []string
		var objects []object
		cells := map[object]map[string]string{}
		for _, m := range c.Measures {
			if m.Object.Kind != kind {
				continue
			}
			o := object{m.Database, m.Object}
			if !slices.Contains(names, m.Name) {
				names = append(names, m.Name)
			}
			if cells[o] == nil {
				cells[o] = map[string]string{}
				objects = append(objects, o)
			}
			text := amount(m.Value, m.Unit)
			if was, ok := r.Earlier.Find(m.Key()); ok {
				t.since = was.At
				if change := change(m.Value-was.Value, m.Unit); change != "" {
					t.changes++
					text += " (" + change + ")"
				}
			}
			cells[o][m.Name] = text
		}
		for _, name := range names {
			t.header = append(t.header, strings.ReplaceAll(name, "-", " "))
		}
		for _, o := range objects {
			label := o.Name
			if o.database != "" && len(r.Target.Databases) > 1 {
				label += " (" + o.database + ")"
			}
			row := []string{label}
			for _, name := range names {
				row = append(row, cells[o][name])
			}
			t.rows = append(t.rows, row)
		}
		out = append(out, t)
	}
	return out
}

// title says what is measured, and since when the changes are.
func (m measured) title() string {
	s := "Measured by " + m.check
	switch {
	case m.since.IsZero():
		return s
	case m.changes == 0:
		return s + ", the same as on " + moment(m.since)
	}
	return s + ", and the change since " + moment(m.since)
}

// moment is a date and time where the reader is.
func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

// amount is a number with its unit, in three or four digits.
func amount(v float64, unit string) string {
	switch unit {
	case "bytes":
		return sizeWords(int64(v))
	case "percent":
		return rounded(v) + " %"
	case "seconds":
		return lapse(v)
	case "", "rows", "transactions":
		return short(v)
	}
	return short(v) + " " + unit
}

// change is a difference with its sign; empty when it would read as none.
func change(d float64, unit string) string {
	sign := "+"
	if d < 0 {
		sign, d = "−", -d
	}
	s := amount(d, unit)
	if s == amount(0, unit) {
		return ""
	}
	return sign + s
}

func rounded(v float64) string {
	digits := 0
	if math.Abs(v) < 10 {
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// short writes a count as people say it: 9,999 and less in full.
func short(v float64) string {
	if math.Abs(v) < 10_000 {
		if v == math.Trunc(v) {
			return strconv.FormatInt(int64(v), 10)
		}
		return rounded(v)
	}
	names := []string{"k", "M", "G", "T"}
	i := -1
	for math.Abs(v) >= 1000 && i < len(names)-1 {
		v, i = v/1000, i+1
	}
	if math.Abs(v) < 100 {
		return strconv.FormatFloat(v, 'f', 1, 64) + names[i]
	}
	return strconv.FormatFloat(v, 'f', 0, 64) + names[i]
}

// lapse is a time in its largest unit.
func lapse(seconds float64) string {
	switch {
	case seconds < 120:
		return short(math.Round(seconds)) + " s"
	case seconds < 7200:
		return short(math.Round(seconds/60)) + " min"
	case seconds < 2*86400:
		return short(math.Round(seconds/3600)) + " h"
	}
	return short(math.Round(seconds/86400)) + " days"
}

// mostMeasured is how many objects are shown before -v is needed.
const mostMeasured = 20

func (p *paper) measures(r *doctor.Report) {
	said := ""
	for _, m := range measures(r, p.Verbose) {
		if title := m.title(); title != said {
			p.heading(title)
			said = title
		}
		g := grid{header: capitals(m.header)}
		for i := range m.header[1:] {
			g.right = append(g.right, i+1)
		}
		left := 0
		for i, row := range m.rows {
			if i == mostMeasured && !p.Verbose {
				left = len(m.rows) - i
				break
			}
			var cells []cell
			for _, text := range row {
				cells = append(cells, cell{text: text})
			}
			g.rows = append(g.rows, cells)
		}
		p.grid(g)
		if left > 0 {
			p.prose(0, plain, fmt.Sprintf("and %d more, which -v shows", left))
		}
	}
}

func capitals(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		if w != "" {
			w = strings.ToUpper(w[:1]) + w[1:]
		}
		out[i] = w
	}
	return out
}

// since tells what has come and gone since a recorded run.
func (p *paper) since(r *doctor.Report) {
	if r.Since == nil {
		return
	}
	p.heading("Since " + moment(r.Since.At) + ", run " + r.Since.Run)
	for _, k := range r.Since.New {
		p.field(2, 8, "new", plain, keyWords(k))
	}
	for _, k := range r.Since.Resolved {
		p.field(2, 8, "resolved", plain, keyWords(k))
	}
	p.prose(2, plain, sinceSummary(r.Since))
}

func keyWords(k doctor.FindingKey) string {
	return strings.TrimSpace(k.Code + " · " + strings.TrimSpace(k.Object.Kind+" "+k.Object.Name))
}

func sinceSummary(s *doctor.Since) string {
	text := fmt.Sprintf("%d new, %d resolved, %d as before", len(s.New), len(s.Resolved), s.Persisting)
	if s.NotComparable > 0 {
		text += fmt.Sprintf("; %s of checks that examined nothing then", plural(s.NotComparable, "finding", "findings"))
	}
	return text
}

func (p *sheet) measures(r *doctor.Report) {
	for _, m := range measures(r, true) {
		p.heading(3, escape(m.title()))
		header := capitals(m.header)
		for i := range header {
			header[i] = escape(header[i])
		}
		p.header(header...)
		for _, row := range m.rows {
			cells := slices.Clone(row)
			for i := range cells {
				cells[i] = escape(cells[i])
			}
			p.row(cells...)
		}
	}
}

func (p *sheet) since(r *doctor.Report) {
	if r.Since == nil {
		return
	}
	p.heading(3, escape("Since "+moment(r.Since.At)+", run "+r.Since.Run))
	for _, k := range r.Since.New {
		p.printf("- new: %s\n", escape(keyWords(k)))
	}
	for _, k := range r.Since.Resolved {
		p.printf("- resolved: %s\n", escape(keyWords(k)))
	}
	p.printf("- %s\n", escape(sinceSummary(r.Since)))
}
