package port

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// tracker adds up how far the work is, and tells it a few times a second.
type tracker struct {
	tell func(doctor.Progress)

	mu    sync.Mutex
	text  string
	unit  string // of the total
	total int64
	done  int64
	rows  int64
	parts map[string]*doctor.Part
	told  time.Time
}

// tellEvery is the least time between two reports.
const tellEvery = 200 * time.Millisecond

func newTracker(tell func(doctor.Progress)) *tracker {
	return &tracker{tell: tell, unit: "bytes", parts: map[string]*doctor.Part{}}
}

// say names the step that begins.
func (k *tracker) say(text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.text = text
	k.report(true)
}

// count begins to count anew, in this unit.
func (k *tracker) count(unit string, total int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unit, k.total, k.done, k.rows = unit, total, 0, 0
}

// note tells something at once.
func (k *tracker) note(text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.progress()
	p.Note = text
	k.tell(p)
}

// expect adds to what is to be done.
func (k *tracker) expect(bytes int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.total += bytes
}

// begin shows a part until it ends. Several workers may have begun the same one.
func (k *tracker) begin(name string, total int64) (end func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.parts[name]
	if p == nil {
		p = &doctor.Part{Name: name}
		k.parts[name] = p
	}
	p.Total += total
	k.report(false)
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if p.Total -= total; p.Total <= 0 {
			delete(k.parts, name)
		}
	}
}

// advance counts what was done of a part. What goes beyond its estimate counts no further in the whole.
func (k *tracker) advance(name string, bytes, rows int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unit == "rows" {
		bytes = rows
	}
	k.done, k.rows = k.done+bytes, k.rows+rows
	if p := k.parts[name]; p != nil {
		p.Done = min(p.Done+bytes, max(p.Total, p.Done))
	}
	k.report(false)
}

func (k *tracker) progress() doctor.Progress {
	p := doctor.Progress{Text: k.text, Done: min(k.done, k.total), Total: k.total, Unit: k.unit, Rows: k.rows}
	for _, part := range slices.SortedFunc(maps.Values(k.parts), func(a, b *doctor.Part) int { return strings.Compare(a.Name, b.Name) }) {
		if len(p.Parts) < doctor.MaxParts {
			p.Parts = append(p.Parts, *part)
		}
	}
	return p
}

func (k *tracker) report(now bool) {
	if !now && time.Since(k.told) < tellEvery {
		return
	}
	k.told = time.Now()
	k.tell(k.progress())
}
