package ident

import (
	"bytes"
	"strings"
)

// token is one value in pg_hba.conf: a name, a keyword, an address, an option.
type token struct {
	Text string
	// Quoted is whether it begins with a quote: then it is no keyword, and @ and + in it are only characters.
	Quoted bool
}

func (t token) keyword(words ...string) bool {
	for _, w := range words {
		if !t.Quoted && t.Text == w {
			return true
		}
	}
	return false
}

// pattern is the regular expression that a database's or role's name has to match. PostgreSQL has them since 16, and
// quotes do not keep a name that begins with / from being one.
func (t token) pattern(major int) (string, bool) {
	if major < 16 {
		return "", false
	}
	return strings.CutPrefix(t.Text, "/")
}

// logicalLine is what the server splits into tokens: a line and those that continue it.
type logicalLine struct {
	number   int   // of the first physical line, from 1
	offset   int64 // of its first byte
	physical int   // how many lines the server counts
	text     string
	open     bool // the file ends before the line does
}

// logicalLines splits a file as the server does. It reads with fgets and looks for the end with strlen, so a NUL hides
// what follows, the newline too, and the next line is joined without being counted.
func logicalLines(content []byte) []logicalLine {
	var lines []logicalLine
	number := 1
	for at := 0; at < len(content); {
		l := logicalLine{number: number, offset: int64(at), physical: 1, open: true}
		var buf []byte
		continued := 0 // the length at which the last backslash was taken away
		for at < len(content) {
			var ended bool
			buf, at, ended = appendPhysical(buf, content, at)
			buf = bytes.TrimRight(buf, "\r\n")
			// Of two backslashes, each before a newline, the first continues the line and the second is text.
			if n := len(buf); n > continued && buf[n-1] == '\\' {
				buf = buf[:n-1]
				continued = n - 1
				l.physical++
				continue
			}
			l.open = !ended
			break
		}
		l.text = string(buf)
		number += l.physical
		lines = append(lines, l)
	}
	return lines
}

// appendPhysical reads up to a newline that no NUL hides, and tells whether there was one.
func appendPhysical(buf, content []byte, at int) (_ []byte, next int, ended bool) {
	for at < len(content) {
		piece := content[at:]
		newline := bytes.IndexByte(piece, '\n')
		if newline >= 0 {
			piece = piece[:newline+1]
		}
		at += len(piece)
		if nul := bytes.IndexByte(piece, 0); nul >= 0 {
			buf = append(buf, piece[:nul]...)
			continue
		}
		buf = append(buf, piece...)
		if newline >= 0 {
			return buf, at, true
		}
	}
	return buf, at, false
}

// longestToken is how many bytes a token may have before PostgreSQL 16, and one byte less when a comma or quote follows.
const longestToken = 10239

// scanner takes tokens off a line.
type scanner struct {
	text    string
	at      int
	limit   int  // 0 for none
	tooLong bool // a token exceeded the limit; the rest of the line is lost
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }

// next is the next token, where it begins, and whether a comma right after it continues the list. A quote that is not closed ends with the line.
func (s *scanner) next() (t token, start int, comma, ok bool) {
	for s.at < len(s.text) && (blank(s.text[s.at]) || s.text[s.at] == ',') {
		s.at++
	}
	start = s.at
	var buf strings.Builder
	var inQuote, wasQuote, sawQuote bool
scan:
	for ; s.at < len(s.text); s.at++ {
		c := s.text[s.at]
		if !inQuote {
			switch {
			case blank(c):
				break scan
			case c == '#':
				s.at = len(s.text)
				break scan
			}
		}
		if s.limit > 0 && buf.Len() >= s.limit {
			s.at, s.tooLong = len(s.text), true
			return token{}, start, false, false
		}
		if c == ',' && !inQuote {
			comma = true
			break
		}
		if c != '"' || wasQuote {
			buf.WriteByte(c)
		}
		wasQuote = inQuote && c == '"' && !wasQuote
		if c == '"' {
			inQuote = !inQuote
			if buf.Len() == 0 {
				t.Quoted = true
			}
			sawQuote = true
		}
	}
	t.Text = buf.String()
	return t, start, comma, sawQuote || t.Text != ""
}
