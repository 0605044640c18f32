package main

import (
	"fmt"
	"time"
)

const (
	progressWidth = 76
	longWhat      = 24 // a longer name gives way to what is being done in it
)

// line tells the last thing that was reported in one line.
func (m moment) line() string {
	text := m.what
	switch {
	case m.Text == "":
	case len(text) > longWhat:
		text = m.Text
	default:
		text += ": " + m.Text
	}
	end := " … " + m.took.Round(time.Second).String()
	if m.Total > 0 {
		end = fmt.Sprintf(" %d %% of %s%s", 100*m.Done/m.Total, amount(m.Total, m.Unit), end)
		if left := m.left(); left != "" {
			end += ", " + left
		}
	}
	return fit(text, progressWidth-len([]rune(end))) + end
}

// fit cuts a text to a width in characters.
func fit(text string, width int) string {
	if r := []rune(text); len(r) > width {
		return string(r[:max(0, width-1)]) + "…"
	}
	return text
}
