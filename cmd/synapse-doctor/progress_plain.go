package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

const plainEvery = 5 * time.Second

// plainView writes a plain line every few seconds of what reads or writes row by row, and of nothing else: a log tells
// afterwards how it went, and cron stays quiet.
type plainView struct{ w io.Writer }

func (v *plainView) every() (first, then time.Duration) { return plainEvery, plainEvery }
func (v *plainView) erase()                             {}
func (v *plainView) note(text string)                   { fmt.Fprintln(v.w, "synapse-doctor: note:", text) }

func (v *plainView) show(m moment) {
	if len(m.Parts) == 0 && m.Rows == 0 {
		return
	}
	fmt.Fprintln(v.w, "synapse-doctor:", m.plain())
}

// plain is the moment in one line of any length.
func (m moment) plain() string {
	var said []string
	if m.Total > 0 {
		said = append(said, fmt.Sprintf("%d %% of %s", 100*m.Done/m.Total, amount(m.Total, m.Unit)))
	}
	if m.Rows > 0 {
		said = append(said, count(float64(m.Rows))+" rows")
	}
	said = append(said, m.sum())
	var names []string
	for _, p := range m.Parts {
		names = append(names, p.Name)
	}
	line := m.took.Round(time.Second).String() + ": " + strings.Join(said, " · ")
	if len(names) > 0 {
		line += " (" + strings.Join(names, ", ") + ")"
	}
	return line
}

// eventView writes an object a line: progress once a second, notes at once.
type eventView struct{ w io.Writer }

func (v *eventView) every() (first, then time.Duration) { return time.Second, time.Second }
func (v *eventView) erase()                             {}
func (v *eventView) note(text string)                   { v.write(event{Event: "note", Text: text}) }

// event is one line. Amounts are in Unit; fields that do not apply are absent.
type event struct {
	Event string `json:"event"` // progress, note, or plan: one is begun to be applied
	Step  string `json:"step,omitempty"`
	Text  string `json:"text,omitempty"`
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"`
	Unit  string `json:"unit,omitempty"`
	Rows  int64  `json:"rows,omitempty"`

	RowsPerSecond int64  `json:"rows_per_second,omitempty"`
	ElapsedMS     int64  `json:"elapsed_ms,omitempty"`
	Parts         []part `json:"parts,omitempty"`
}

type part struct {
	Name  string `json:"name"`
	Done  int64  `json:"done"`
	Total int64  `json:"total,omitempty"`
}

func (v *eventView) show(m moment) {
	e := event{Event: "progress", Step: m.what, Text: m.Text, Done: m.Done, Total: m.Total, Unit: m.Unit, Rows: m.Rows,
		RowsPerSecond: int64(m.rows), ElapsedMS: m.took.Milliseconds()}
	for _, p := range m.Parts {
		e.Parts = append(e.Parts, part(p))
	}
	v.write(e)
}

func (v *eventView) write(e event) {
	line, err := json.Marshal(e)
	if err == nil {
		fmt.Fprintf(v.w, "%s\n", line)
	}
}
