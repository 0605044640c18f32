package report

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// grid is a table with borders. Its columns share the width so that the widest gives way first; cells wrap by word.
// The wrapping is done here, tablewriter draws.
type grid struct {
	header []string
	rows   [][]cell
	right  []int // columns of numbers
}

type cell struct {
	text  string
	style string
}

// roomyWord is how wide a column stays, if its words are that long, while another can still give way.
const roomyWord = 24

func (g grid) render(o Options) (string, error) {
	widths := g.widths(o.Width)
	laidOut := func(c cell, width int) string {
		lines := wrap(c.text, width)
		for i := range lines {
			lines[i] = o.paint(c.style, lines[i])
		}
		return strings.Join(lines, "\n")
	}
	var rows [][]string
	tall := false
	for _, r := range g.rows {
		row := make([]string, len(r))
		for i, c := range r {
			row[i] = laidOut(c, widths[i])
			tall = tall || strings.Contains(row[i], "\n")
		}
		rows = append(rows, row)
	}
	header := make([]string, len(g.header))
	for i, h := range g.header {
		header[i] = laidOut(cell{h, bold}, widths[i])
	}
	between := tw.Off
	if tall {
		between = tw.On
	}
	cells := tw.CellConfig{
		Formatting: tw.CellFormatting{AutoWrap: tw.WrapNone, AutoFormat: tw.Off},
		Alignment:  tw.CellAlignment{Global: tw.AlignLeft},
		Padding:    tw.CellPadding{Global: tw.Padding{Left: " ", Right: " "}},
	}
	if len(g.right) > 0 {
		cells.Alignment.PerColumn = make([]tw.Align, len(g.header))
		for i := range cells.Alignment.PerColumn {
			cells.Alignment.PerColumn[i] = tw.AlignLeft
			if slices.Contains(g.right, i) {
				cells.Alignment.PerColumn[i] = tw.AlignRight
			}
		}
	}
	var out bytes.Buffer
	t := tablewriter.NewTable(&out,
		tablewriter.WithEastAsian(tw.Off),
		tablewriter.WithHeaderConfig(cells), tablewriter.WithRowConfig(cells),
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Symbols:  tw.NewSymbols(tw.StyleLight),
			Settings: tw.Settings{Separators: tw.Separators{BetweenRows: between}},
		})),
	)
	t.Header(header)
	if err := t.Bulk(rows); err != nil {
		return "", fmt.Errorf("lay out a table: %w", err)
	}
	if err := t.Render(); err != nil {
		return "", fmt.Errorf("lay out a table: %w", err)
	}
	return out.String(), nil
}

// widths shares the columns of the terminal. Each cell has a border and two spaces around it.
func (g grid) widths(total int) []int {
	n := len(g.header)
	have, least := make([]int, n), make([]int, n)
	note := func(i int, s string) {
		have[i] = max(have[i], widest(s))
		for w := range strings.FieldsSeq(s) {
			least[i] = max(least[i], min(width(w), roomyWord))
		}
	}
	for i, h := range g.header {
		note(i, h)
	}
	for _, r := range g.rows {
		for i, c := range r {
			note(i, c.text)
		}
	}
	room := total - 3*n - 1
	for excess := sum(have) - room; excess > 0; excess-- {
		give := -1
		for i := range have {
			if have[i] > least[i] && (give < 0 || have[i] > have[give]) {
				give = i
			}
		}
		if give < 0 {
			give = slices.Index(have, slices.Max(have))
			if have[give] == 1 {
				break
			}
		}
		have[give]--
	}
	return have
}

func sum(all []int) int {
	n := 0
	for _, v := range all {
		n += v
	}
	return n
}
