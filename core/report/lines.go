package report

import (
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Line is one measure through several runs, the oldest first.
type Line struct {
	Key    doctor.MeasureKey
	Unit   string
	At     []time.Time // as many as Values
	Values []float64
}

// Lines prints a table with a small plot of each measure. The plots share one axis of time: a value stands at its run's place and
// lasts until the next one; before its first and after its last run a line has dots.
func Lines(w io.Writer, title string, lines []Line, o Options) error {
	p := &paper{Options: o.normal()}
	p.prose(0, bold, title)
	p.gap()
	var first, last time.Time
	for _, l := range lines {
		for _, at := range l.At {
			if first.IsZero() || at.Before(first) {
				first = at
			}
			if at.After(last) {
				last = at
			}
		}
	}
	g := grid{header: []string{"What", "Measure", "First", "Course", "Last", "Change"}, right: []int{2, 4, 5}}
	for _, l := range lines {
		if len(l.Values) == 0 || l.Unit == fingerprint {
			continue
		}
		from, to := l.Values[0], l.Values[len(l.Values)-1]
		g.rows = append(g.rows, []cell{
			{text: doctor.Clean(l.Key.Object.Name)}, {text: doctor.Clean(strings.ReplaceAll(l.Key.Name, "-", " "))},
			{text: amount(from, l.Unit)}, {text: plot(l, first, last, plotWidth)}, {text: amount(to, l.Unit)}, {text: change(to-from, l.Unit)},
		})
	}
	p.grid(g)
	return p.deliver(w)
}

const plotWidth = 16

var bars = []rune("▁▂▃▄▅▆▇█")

// plot draws a line into so many characters. What is the same throughout is drawn in the middle: a line that only
// trembles must not look like one that grows.
func plot(l Line, first, last time.Time, width int) string {
	sums, counts := make([]float64, width), make([]int, width)
	whole := last.Sub(first)
	for i, at := range l.At {
		k := width - 1
		if whole > 0 {
			k = min(width-1, int(float64(width)*float64(at.Sub(first))/float64(whole)))
		}
		sums[k] += l.Values[i]
		counts[k]++
	}
	least, most := slices.Min(l.Values), slices.Max(l.Values)
	height := most - least
	// A change of less than a hundredth of the value takes less than the whole height.
	scale := max(height, math.Abs(most)/100)
	out := make([]rune, width)
	left, bar := len(l.Values), '·'
	for k := range out {
		if left == 0 {
			bar = '·'
		}
		if out[k] = bar; counts[k] == 0 {
			continue
		}
		left -= counts[k]
		share := 0.5
		if scale > 0 {
			share = 0.5 + (sums[k]/float64(counts[k])-(least+height/2))/scale
		}
		bar = bars[min(len(bars)-1, max(0, int(share*float64(len(bars)))))]
		out[k] = bar
	}
	return string(out)
}
