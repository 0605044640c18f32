package report

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Statements are shown so that they can be copied: a line that is too long is broken where SQL has, or may have, white
// space, before a clause or after a comma, the outermost first. Nothing else is changed. A single word or string that
// is too long stays whole.

// kind of a token of PostgreSQL's SQL, as far as breaking lines needs to know it.
type kind int

const (
	space   kind = iota
	comment      // -- to the end of the line, or /* */
	quoted       // 'text' in all its forms, "name", $tag$text$tag$
	word         // key words, names, numbers
	param        // $1
	symbol       // anything else, one character at a time
)

type token struct {
	kind kind
	text string
}

// lex splits SQL into tokens whose texts, joined, are the SQL. What is left open at the end is one token.
func lex(sql string) []token {
	var tokens []token
	for len(sql) > 0 {
		k, n := lexOne(sql)
		tokens = append(tokens, token{k, sql[:n]})
		sql = sql[n:]
	}
	return tokens
}

func lexOne(s string) (kind, int) {
	c := s[0]
	switch {
	case isSpace(c):
		return space, span(s, isSpace)
	case strings.HasPrefix(s, "--"):
		if i := strings.IndexByte(s, '\n'); i >= 0 {
			return comment, i
		}
		return comment, len(s)
	case strings.HasPrefix(s, "/*"):
		return comment, blockComment(s)
	case c == '\'':
		return quoted, stringEnd(s, 1, '\'', false)
	case c == '"':
		return quoted, stringEnd(s, 1, '"', false)
	case (c == 'e' || c == 'E') && len(s) > 1 && s[1] == '\'':
		return quoted, stringEnd(s, 2, '\'', true)
	case strings.IndexByte("bBxXnN", c) >= 0 && len(s) > 1 && s[1] == '\'':
		return quoted, stringEnd(s, 2, '\'', false)
	case (c == 'u' || c == 'U') && len(s) > 2 && s[1] == '&' && (s[2] == '\'' || s[2] == '"'):
		return quoted, stringEnd(s, 3, s[2], false)
	case c == '$':
		if n := 1 + span(s[1:], isDigit); n > 1 {
			return param, n
		}
		if n := dollarQuote(s); n > 0 {
			return quoted, n
		}
	case isWord(c):
		return word, span(s, func(c byte) bool { return isWord(c) || c == '$' })
	}
	return symbol, 1
}

func isSpace(c byte) bool { return strings.IndexByte(" \t\n\r\f\v", c) >= 0 }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isWord(c byte) bool {
	return c == '_' || c >= 0x80 || isDigit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func span(s string, in func(byte) bool) int {
	n := 0
	for n < len(s) && in(s[n]) {
		n++
	}
	return n
}

func blockComment(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "/*"):
			depth++
			i++
		case strings.HasPrefix(s[i:], "*/"):
			depth--
			i++
			if depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

func stringEnd(s string, from int, quote byte, escapes bool) int {
	for i := from; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] == quote && i+1 < len(s) && s[i+1] == quote:
			i++
		case s[i] == quote:
			return i + 1
		}
	}
	return len(s)
}

func dollarQuote(s string) int {
	n := 1 + span(s[1:], isWord)
	if n >= len(s) || s[n] != '$' {
		return 0
	}
	tag := s[:n+1]
	if i := strings.Index(s[n+1:], tag); i >= 0 {
		return n + 1 + i + len(tag)
	}
	return len(s)
}

// inline puts the arguments into the statement as literals.
func inline(sql string, args []doctor.Value) string {
	if len(args) == 0 {
		return sql
	}
	var b strings.Builder
	for _, t := range lex(sql) {
		if t.kind == param {
			if n, err := strconv.Atoi(t.text[1:]); err == nil && n >= 1 && n <= len(args) {
				b.WriteString(literal(args[n-1]))
				continue
			}
		}
		b.WriteString(t.text)
	}
	return b.String()
}

func literal(v doctor.Value) string {
	switch v := v.V.(type) {
	case nil:
		return "NULL"
	case bool:
		return strconv.FormatBool(v)
	case int64:
		if v < 0 {
			return fmt.Sprintf("(%d)", v) // -1::bigint is -(1::bigint)
		}
		return strconv.FormatInt(v, 10)
	case string:
		s := strings.ReplaceAll(v, "'", "''")
		if strings.Contains(s, `\`) { // safe whatever standard_conforming_strings says
			return " E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
		}
		return "'" + s + "'"
	case []byte:
		return `'\x` + hex.EncodeToString(v) + `'::bytea`
	}
	return fmt.Sprintf("/* an argument of type %T */", v.V)
}

// looksLikeSQL tells statements from the other commands that a remedy may quote.
func looksLikeSQL(s string) bool {
	t := strings.TrimSpace(s)
	for strings.HasPrefix(t, "--") {
		_, after, _ := strings.Cut(t, "\n")
		t = strings.TrimSpace(after)
	}
	n := span(t, isWord)
	if n == len(t) || t[:n] != strings.ToUpper(t[:n]) || (!isSpace(t[n]) && t[n] != ';') {
		return false
	}
	return statementWords[t[:n]]
}

var (
	statementWords = set("SELECT INSERT UPDATE DELETE WITH ALTER CREATE DROP LOCK BEGIN COMMIT ROLLBACK SET RESET SHOW " +
		"REINDEX ANALYZE VACUUM TRUNCATE GRANT REVOKE COPY EXPLAIN COMMENT REFRESH TABLE VALUES START")
	clauseWords = set("FROM WHERE AND OR SET VALUES HAVING LIMIT UNION EXCEPT INTERSECT RETURNING USING JOIN LEFT RIGHT " +
		"FULL INNER CROSS ON ORDER GROUP WINDOW SELECT")
	// After these a clause word goes on with what was begun: LEFT JOIN, UNION SELECT, ON CONFLICT … DO UPDATE SET.
	joinedWords = set("LEFT RIGHT FULL INNER OUTER CROSS NATURAL DISTINCT NOT IS UPDATE IN CONNECTION")
)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}

// layoutSQL breaks the lines of sql that are wider than width.
func layoutSQL(sql string, width int) []string {
	var lines []string
	for _, line := range splitLines(lex(strings.TrimRight(sql, " \t\r\n"))) {
		indent := ""
		if len(line) > 0 && line[0].kind == space {
			indent, line = line[0].text, line[1:]
		}
		lines = append(lines, layoutLine(line, indent, width)...)
	}
	return lines
}

// splitLines splits at the newlines between tokens; those within quotes and comments stay where they are.
func splitLines(tokens []token) [][]token {
	lines := [][]token{nil}
	for _, t := range tokens {
		if t.kind != space || !strings.Contains(t.text, "\n") {
			lines[len(lines)-1] = append(lines[len(lines)-1], t)
			continue
		}
		parts := strings.Split(t.text, "\n")
		for i, p := range parts {
			if i > 0 {
				lines = append(lines, nil)
			}
			if last := i == len(parts)-1; last && p != "" {
				lines[len(lines)-1] = append(lines[len(lines)-1], token{space, p})
			}
		}
	}
	return lines
}

func layoutLine(line []token, indent string, width int) []string {
	text := indent + join(line)
	if widest(text) <= width {
		return []string{strings.TrimRight(text, " \t")}
	}
	pieces := breakUp(line, indent, width)
	if len(pieces) < 2 {
		return []string{strings.TrimRight(text, " \t")}
	}
	var out []string
	for i, p := range pieces {
		in := indent
		if i > 0 {
			in += "  "
		}
		out = append(out, layoutLine(p, in, width)...)
	}
	return out
}

// breakUp divides a line at the outermost level of parentheses that has somewhere to break: before its clauses, else
// after its commas, as many to a line as fit. Failing that, wherever there is white space.
func breakUp(line []token, indent string, width int) [][]token {
	depths, deepest := nesting(line)
	for d := 0; d <= deepest; d++ {
		at := func(i int) bool { return depths[i] == d }
		if pieces := cut(line, func(i int) bool { return at(i) && startsClause(line, i) }); len(pieces) > 1 {
			return pieces
		}
		pieces := cut(line, func(i int) bool { return at(i) && afterComma(line, i) })
		if len(pieces) == 1 && d > 0 {
			pieces = cut(line, func(i int) bool { return at(i) && i > 0 && line[i-1].text == "(" && line[i].text != ")" })
			if len(pieces) > 1 && widest(indent+join(pieces[0])) < len(indent)+4 {
				pieces = nil // a parenthesis alone on its line helps nobody
			}
		}
		if len(pieces) > 1 {
			return fill(pieces, indent, width)
		}
	}
	return fill(cut(line, func(i int) bool {
		return i > 0 && line[i-1].kind == space && line[i].kind != space && !betweenStrings(line, i)
	}), indent, width)
}

func nesting(line []token) (depths []int, deepest int) {
	d := 0
	depths = make([]int, len(line))
	for i, t := range line {
		if t.text == ")" && t.kind == symbol && d > 0 {
			d--
		}
		depths[i] = d
		if t.text == "(" && t.kind == symbol {
			d++
		}
		deepest = max(deepest, d)
	}
	return depths, deepest
}

func startsClause(line []token, i int) bool {
	if line[i].kind != word || !clauseWords[strings.ToUpper(line[i].text)] || i == 0 {
		return false
	}
	before := lastWord(line, i)
	return line[i-1].kind == space && !joinedWords[before]
}

// lastWord is the key word just before token i, if a word is there.
func lastWord(line []token, i int) string {
	for i--; i >= 0; i-- {
		if line[i].kind == space {
			continue
		}
		return strings.ToUpper(line[i].text)
	}
	return ""
}

func afterComma(line []token, i int) bool {
	if line[i].kind == space || line[i].kind == comment {
		return false
	}
	for i--; i >= 0; i-- {
		if line[i].kind == space {
			continue
		}
		return line[i].text == "," && line[i].kind == symbol
	}
	return false
}

// betweenStrings is true where a newline would join two strings into one.
func betweenStrings(line []token, i int) bool {
	return i >= 2 && line[i].kind == quoted && line[i-2].kind == quoted
}

// cut divides the line before every token that may begin a new one.
func cut(line []token, begins func(int) bool) [][]token {
	var pieces [][]token
	from := 0
	for i := range line {
		if i > 0 && begins(i) {
			pieces = append(pieces, line[from:i])
			from = i
		}
	}
	return append(pieces, line[from:])
}

// fill joins neighbouring pieces again while they fit.
func fill(pieces [][]token, indent string, width int) [][]token {
	var out [][]token
	for i, p := range pieces {
		in := indent
		if len(out) > 1 {
			in += "  "
		}
		if i > 0 {
			if last := out[len(out)-1]; widest(strings.TrimRight(in+join(last)+join(p), " ")) <= width {
				out[len(out)-1] = append(last[:len(last):len(last)], p...)
				continue
			}
		}
		out = append(out, p)
	}
	return out
}

func join(line []token) string {
	var b strings.Builder
	for _, t := range line {
		b.WriteString(t.text)
	}
	return b.String()
}
