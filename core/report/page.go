package report

import (
	"io"
	"regexp"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Page prints a page of the documentation on a terminal: headings, paragraphs, lists, tables and code blocks of the
// plain markdown in which those pages are written. Code keeps its lines; everything else wraps.
func Page(w io.Writer, text string, o Options) error {
	o = o.normal()
	p := &paper{Options: o}
	text = doctor.CleanText(o.Redact.String(text))
	var paragraph, code []string
	var rows [][]cell
	fenced, indent := false, ""
	flush := func() {
		if len(rows) > 0 {
			p.rows(rows)
			rows = nil
		}
		if len(paragraph) > 0 {
			p.paragraph(strings.Join(paragraph, " "))
			paragraph = nil
		}
	}
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			flush()
			if fenced {
				p.gap()
				p.copy(4, strings.Join(code, "\n"))
				p.gap()
				code = nil
			}
			fenced = !fenced
			indent = line[:strings.Index(line, "```")]
		case fenced:
			code = append(code, strings.TrimPrefix(line, indent))
		case strings.HasPrefix(line, "#"):
			flush()
			p.heading(unmarked(strings.TrimLeft(line, "# ")))
		case strings.TrimSpace(line) == "":
			flush()
			p.gap()
		case strings.HasPrefix(line, "|"):
			if !ruler.MatchString(line) {
				rows = append(rows, cells(line))
			}
		case listItem.MatchString(line):
			flush()
			paragraph = append(paragraph, strings.TrimRight(line, " "))
		default:
			paragraph = append(paragraph, strings.TrimSpace(line))
		}
	}
	flush()
	if len(code) > 0 {
		p.copy(4, strings.Join(code, "\n"))
	}
	return p.deliver(w)
}

// rows prints a table whose first row is its header.
func (p *paper) rows(rows [][]cell) {
	g := grid{rows: rows[1:]}
	for _, c := range rows[0] {
		g.header = append(g.header, c.text)
	}
	p.grid(g)
}

func cells(line string) []cell {
	var row []cell
	for c := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
		row = append(row, cell{text: unmarked(strings.TrimSpace(c))})
	}
	return row
}

var (
	ruler    = regexp.MustCompile(`^[| :-]+$`)
	listItem = regexp.MustCompile(`^ *(?:[-*]|[0-9]+\.) `)
	spans    = regexp.MustCompile("`([^`]*)`")
	strong   = regexp.MustCompile(`\*\*([^*]+)\*\*`)
	link     = regexp.MustCompile(`\[([^\]]+)\]\(([^)]+)\)`)
)

// unmarked takes the marks off code spans and strong words: their words stand alone.
func unmarked(s string) string {
	s = strong.ReplaceAllString(spans.ReplaceAllString(s, "$1"), "$1")
	return link.ReplaceAllString(s, "$1 ($2)")
}

// paragraph wraps one paragraph or list item.
func (p *paper) paragraph(s string) {
	s = unmarked(s)
	marker := listItem.FindString(s)
	if marker == "" {
		p.prose(0, plain, s)
		return
	}
	p.field(0, len(marker)-2, strings.TrimRight(marker, " "), plain, s[len(marker):])
}
