package report

import (
	"bytes"
	"io"
	"strings"
)

// paper is what a report is written on, before it is handed to the writer in one piece.
type paper struct {
	Options
	buf bytes.Buffer
	err error
}

func (p *paper) deliver(w io.Writer) error {
	if p.err != nil {
		return p.err
	}
	_, err := w.Write(p.buf.Bytes())
	return err
}

func (p *paper) line(s string) {
	p.buf.WriteString(strings.TrimRight(s, " "))
	p.buf.WriteByte('\n')
}

func (p *paper) gap() {
	if p.buf.Len() > 0 && !bytes.HasSuffix(p.buf.Bytes(), []byte("\n\n")) {
		p.buf.WriteByte('\n')
	}
}

// heading is a line that stands out without colour, too.
func (p *paper) heading(s string) {
	p.gap()
	for _, l := range wrap(s, p.Width) {
		p.line(p.paint(bold, l))
	}
	p.line(p.paint(bold, strings.Repeat("─", min(widest(strings.Join(wrap(s, p.Width), "\n")), p.Width))))
}

// prose writes wrapped text, every line after an indent.
func (p *paper) prose(indent int, style, s string) {
	for _, l := range wrap(s, p.Width-indent) {
		p.line(strings.Repeat(" ", indent) + p.paint(style, l))
	}
}

// field writes "name  text", the text wrapped beside its name.
func (p *paper) field(indent, nameWidth int, name, style, text string) {
	left := indent + nameWidth + 2
	for i, l := range wrap(text, p.Width-left) {
		head := strings.Repeat(" ", left)
		if i == 0 {
			head = strings.Repeat(" ", indent) + name + strings.Repeat(" ", max(nameWidth+2-width(name), 1))
		}
		p.line(head + p.paint(style, l))
	}
}

// item writes text beside a sign.
func (p *paper) item(l look, text string) {
	for i, line := range wrap(text, p.Width-2) {
		head := "  "
		if i == 0 {
			head = p.paint(l.style, l.sign) + " "
		}
		p.line(head + line)
	}
}

// words writes a text of prose and verbatim lines.
func (p *paper) words(indent int, s string) {
	for i, b := range blocks(s) {
		if i > 0 {
			p.gap()
		}
		if b.verbatim {
			p.copy(indent+4, b.text)
			continue
		}
		for l := range strings.SplitSeq(b.text, "\n") {
			p.prose(indent, plain, l)
		}
	}
}

// copy writes lines to be copied.
func (p *paper) copy(indent int, s string) {
	for _, l := range copyable(s, p.Width-indent) {
		p.line(strings.Repeat(" ", indent) + p.paint(bold, l))
	}
}

// sql writes a statement, whatever it looks like.
func (p *paper) sql(indent int, s string) {
	for _, l := range layoutSQL(strings.ReplaceAll(s, "\t", "    "), p.Width-indent) {
		p.line(strings.Repeat(" ", indent) + p.paint(bold, l))
	}
}

// diff writes a unified diff. Its lines are never wrapped: a wrapped line of a file is another line.
func (p *paper) diff(indent int, s string) {
	for l := range strings.SplitSeq(strings.TrimRight(s, "\n"), "\n") {
		style := plain
		switch {
		case strings.HasPrefix(l, "--- "), strings.HasPrefix(l, "+++ "):
			style = bold
		case strings.HasPrefix(l, "@@"):
			style = cyan
		case strings.HasPrefix(l, "-"):
			style = red
		case strings.HasPrefix(l, "+"):
			style = green
		}
		p.line(strings.Repeat(" ", indent) + p.paint(style, strings.ReplaceAll(l, "\t", "    ")))
	}
}

func (p *paper) grid(g grid) {
	s, err := g.render(p.Options)
	if err != nil && p.err == nil {
		p.err = err
	}
	p.buf.WriteString(s)
}
