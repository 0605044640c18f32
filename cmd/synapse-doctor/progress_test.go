package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

func TestTheLineOfProgressTellsHowFarItIsAndFitsATerminal(t *testing.T) {
	for want, m := range map[string]moment{
		"examining … 2s": {what: "examining"},
		"locale: reading a_pkey 40 % of 1000 pages … 2s, about 15s left": {what: "locale",
			Progress: doctor.Progress{Text: "reading a_pkey", Done: 400, Total: 1000, Unit: "pages"}},
		"locale: reading 1 % of 1000 pages … 2s":                 {what: "locale", Progress: doctor.Progress{Text: "reading", Done: 10, Total: 1000, Unit: "pages"}},
		"Rebuilding a_pkey 50 % of 2048 MB … 2s, about 10s left": {what: "Put 255 text indexes into order", Progress: doctor.Progress{Text: "Rebuilding a_pkey", Done: 1 << 30, Total: 2 << 30, Unit: "bytes"}},
		"Rebuilding an index with a very long name that goes on … 0 % of 20 rows … 2s": {what: "Put 255 text indexes into order",
			Progress: doctor.Progress{Text: "Rebuilding an index with a very long name that goes on and on for ever", Total: 20, Unit: "rows"}},
	} {
		m.took, m.this = 2*time.Second, 10*time.Second
		if got := m.line(); got != want || len([]rune(got)) > progressWidth {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

var copying = moment{
	what: "Copy /var/lib/matrix-synapse/homeserver.db into the database \"synapse\" at 127.0.0.1:5432, and prove that it is equal",
	Progress: doctor.Progress{Text: "copying", Done: 600 << 20, Total: 1900 << 20, Unit: "bytes", Rows: 2_345_678, Parts: []doctor.Part{
		{Name: "event_json", Done: 300 << 20, Total: 736 << 20},
		{Name: "index event_push_actions_highlights_index_of_a_long_name"},
	}},
	took: 71 * time.Second, this: 30 * time.Second, rows: 203_456, units: 81 << 20,
}

func TestTheLiveViewHasABarForEachTableAndFitsEveryTerminal(t *testing.T) {
	got := strings.Join(live(copying, 79, 23), "\n")
	want := `Copy /var/lib/matrix-synapse/homeserver.db into the database "synapse" …  1m11s
  event_json                     ███████████░░░░░░░░░░░░░░░░░  41 %  736 MB
  index event_push_actions_hig…  ···
  all                            █████████░░░░░░░░░░░░░░░░░░░  32 %  1900 MB
  203 k rows/s · 81.0 MB/s · about 1m5s left · copying`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for width := 19; width < 200; width += 7 {
		for height := 2; height < 30; height += 5 {
			lines := live(copying, width, height)
			if len(lines) > height && height >= 3 {
				t.Errorf("%d lines on %d", len(lines), height)
			}
			for _, line := range lines {
				if len([]rune(line)) > width {
					t.Errorf("%d columns on %d: %s", len([]rune(line)), width, line)
				}
			}
		}
	}
}

func TestAPipeGetsPlainLinesOnlyOfWhatGoesRowByRow(t *testing.T) {
	var b bytes.Buffer
	v := &plainView{w: &b}
	v.show(moment{what: "locale", Progress: doctor.Progress{Text: "reading", Done: 1, Total: 2, Unit: "pages"}})
	v.show(copying)
	v.note("3 rows of event_search went into quarantine")
	want := `synapse-doctor: 1m11s: 31 % of 1900 MB · 2.3 M rows · 203 k rows/s · 81.0 MB/s · about 1m5s left · copying (event_json, index event_push_actions_highlights_index_of_a_long_name)
synapse-doctor: note: 3 rows of event_search went into quarantine
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &b, want)
	}
}

func TestWithJSONAPipeGetsEvents(t *testing.T) {
	var b bytes.Buffer
	v := &eventView{w: &b}
	v.show(copying)
	v.note("a note")
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), &b)
	}
	var e event
	if err := json.Unmarshal([]byte(lines[0]), &e); err != nil {
		t.Fatal(err)
	}
	if e.Event != "progress" || e.Rows != copying.Rows || e.ElapsedMS != 71000 || e.RowsPerSecond != 203456 ||
		!slices.Equal(e.Parts, []part{{"event_json", 300 << 20, 736 << 20}, {Name: "index event_push_actions_highlights_index_of_a_long_name"}}) {
		t.Errorf("%+v", e)
	}
	if lines[1] != `{"event":"note","text":"a note"}` {
		t.Error(lines[1])
	}
}

func TestThePaceIsThatOfTheLastSeconds(t *testing.T) {
	var p pace
	begin := time.Unix(0, 0)
	for i := range 200 {
		now := begin.Add(time.Duration(i) * 100 * time.Millisecond)
		done := int64(i * 10)
		if i > 100 {
			done = 1000 + int64(i-100)*100 // ten times as fast since the tenth second
		}
		p.add(now, done, done*2)
	}
	if units, rows := p.rates(); units < 990 || units > 1010 || rows != 2*units {
		t.Errorf("%.0f units/s and %.0f rows/s", units, rows)
	}
	if units, rows := (&pace{}).rates(); units != 0 || rows != 0 {
		t.Error("a pace without samples")
	}
}

func TestANoteIsToldOnce(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b, false)
	for range 3 {
		p.update("step", doctor.Progress{Text: "copying", Note: "a NUL was replaced"})
	}
	p.end()
	if b.String() != "synapse-doctor: note: a NUL was replaced\n" {
		t.Errorf("%q", b.String())
	}
}
