package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// liveView draws on a terminal: the step, a bar for each table or index that is being worked on, one for all, and what it
// comes to. It never draws more lines than the terminal has, nor wider ones, whatever becomes of its size meanwhile.
type liveView struct {
	w     io.Writer
	drawn []string // the lines that stand there
}

func (v *liveView) every() (first, then time.Duration) { return time.Second, 200 * time.Millisecond }

func (v *liveView) show(m moment) {
	width, height := v.size()
	lines := []string{fit(m.line(), width-1)}
	if len(m.Parts) > 0 {
		lines = live(m, width-1, height-1)
	}
	v.erase()
	fmt.Fprint(v.w, strings.Join(lines, "\n"))
	v.drawn = lines
}

func (v *liveView) note(text string) {
	v.erase()
	fmt.Fprintln(v.w, "! "+text)
}

// erase takes the lines away. The terminal may have become narrower since, and have broken them.
func (v *liveView) erase() {
	if len(v.drawn) == 0 {
		return
	}
	width, height := v.size()
	up := -1
	for _, line := range v.drawn {
		up += 1 + max(0, len([]rune(line))-1)/width
	}
	if up = min(up, height-1); up > 0 {
		fmt.Fprintf(v.w, "\x1b[%dA", up)
	}
	fmt.Fprint(v.w, "\r\x1b[J")
	v.drawn = nil
}

func (v *liveView) size() (width, height int) {
	if f, ok := v.w.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			return max(w, 20), max(h, 3)
		}
	}
	return 80, 24
}

// live lays the view out, in at most so many columns and lines.
func live(m moment, width, height int) []string {
	width = min(width, 110)
	took := m.took.Round(time.Second).String()
	head := fit(m.what, width-len(took)-2)
	lines := []string{head + strings.Repeat(" ", max(2, width-len([]rune(head))-len(took))) + took}
	parts := m.Parts
	if room := max(0, height-3); len(parts) > room {
		parts = parts[:room]
	}
	name := 4
	for _, p := range parts {
		name = max(name, len([]rune(p.Name)))
	}
	name = min(name, max(12, width/2-10))
	for _, p := range parts {
		lines = append(lines, bar(p, name, m.Unit, width))
	}
	if m.Total > 0 {
		lines = append(lines, bar(doctor.Part{Name: "all", Done: m.Done, Total: m.Total}, name, m.Unit, width))
	}
	return append(lines, fit("  "+m.sum(), width))
}

// sum is what it comes to: rows/s · MB/s · time left · current step.
func (m moment) sum() string {
	var said []string
	if m.rows > 0 {
		said = append(said, count(m.rows)+" rows/s")
	}
	if m.units > 0 && m.Unit == "bytes" {
		said = append(said, fmt.Sprintf("%.1f MB/s", m.units/(1<<20)))
	}
	if left := m.left(); left != "" {
		said = append(said, left)
	}
	return strings.Join(append(said, cmp.Or(m.Text, "at work")), " · ")
}

// bar is one line of the view: a name, a bar, percent, and the amounts where there is room.
func bar(p doctor.Part, name int, unit string, width int) string {
	label := fit(p.Name, name)
	label += strings.Repeat(" ", name-len([]rune(label)))
	if p.Total <= 0 {
		return fit("  "+label+"  "+strings.Repeat("·", 3), width)
	}
	share := min(1, max(0, float64(p.Done)/float64(p.Total)))
	end := fmt.Sprintf(" %3.0f %%", 100*share)
	if long := end + "  " + amount(p.Total, unit); width >= 48+name {
		end = fmt.Sprintf("%-18s", long)
	}
	room := min(40, width-name-4-len([]rune(end)))
	if room < 5 {
		return fit("  "+label+end, width)
	}
	full := int(share*float64(room) + 0.5)
	return "  " + label + "  " + strings.Repeat("█", full) + strings.Repeat("░", room-full) + strings.TrimRight(end, " ")
}
