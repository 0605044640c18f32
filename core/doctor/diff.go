package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// diffContext is how many unchanged lines a diff shows around a change.
const diffContext = 3

// Diff is the unified diff between two versions of the file at path, empty when they are the same. It is for reading,
// not for patch(1): values that look secret in YAML (passwords, tokens, keys, DSNs, passwords in URLs) are masked, and
// each line then goes through redact, which may be nil, for the secrets that are known.
func Diff(path string, before, after []byte, redact func(string) string) string {
	a, b := fileLines(before), fileLines(after)
	edits := compare(a, b)
	if len(edits) == 0 {
		return ""
	}
	shownA, shownB := maskYAML(a), maskYAML(b)
	var out strings.Builder
	line := func(prefix, s string) {
		if redact != nil {
			s = redact(s)
		}
		out.WriteString(prefix)
		text, ended := strings.CutSuffix(s, "\n")
		out.WriteString(Clean(strings.TrimSuffix(text, "\r")))
		out.WriteByte('\n')
		if !ended {
			out.WriteString("\\ No newline at end of file\n")
		}
	}
	path = Clean(path)
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", path, path)
	for len(edits) > 0 {
		// A hunk takes every edit whose context touches the one before.
		n := 1
		for n < len(edits) && edits[n].a1-edits[n-1].a2 <= 2*diffContext {
			n++
		}
		hunk := edits[:n]
		edits = edits[n:]
		first, last := hunk[0], hunk[len(hunk)-1]
		lead, trail := min(diffContext, first.a1), min(diffContext, len(a)-last.a2)
		fmt.Fprintf(&out, "@@ -%s +%s @@\n",
			hunkRange(first.a1-lead, last.a2+trail), hunkRange(first.b1-lead, last.b2+trail))
		at := first.a1 - lead
		for _, e := range hunk {
			for _, s := range shownA[at:e.a1] {
				line(" ", s)
			}
			for _, s := range shownA[e.a1:e.a2] {
				line("-", s)
			}
			for _, s := range shownB[e.b1:e.b2] {
				line("+", s)
			}
			at = e.a2
		}
		for _, s := range shownA[at : last.a2+trail] {
			line(" ", s)
		}
	}
	return out.String()
}

func hunkRange(from, to int) string {
	switch n := to - from; n {
	case 0:
		return fmt.Sprintf("%d,0", from)
	case 1:
		return fmt.Sprint(from + 1)
	default:
		return fmt.Sprintf("%d,%d", from+1, n)
	}
}

// fileLines are the lines of a file with their ends.
func fileLines(content []byte) []string {
	lines := strings.SplitAfter(string(content), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// edit says that lines a1 to a2 of one file became lines b1 to b2 of the other.
type edit struct{ a1, a2, b1, b2 int }

// mostDifferences bounds the work of compare; beyond it everything between the equal ends counts as replaced.
const mostDifferences = 1000

// compare finds the shortest list of edits (Myers, An O(ND) Difference Algorithm, 1986) between the equal ends.
func compare(a, b []string) []edit {
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	endA, endB := len(a), len(b)
	for endA > head && endB > head && a[endA-1] == b[endB-1] {
		endA, endB = endA-1, endB-1
	}
	if head == endA && head == endB {
		return nil
	}
	edits := shortest(a[head:endA], b[head:endB])
	for i := range edits {
		e := &edits[i]
		e.a1, e.a2, e.b1, e.b2 = e.a1+head, e.a2+head, e.b1+head, e.b2+head
	}
	return edits
}

func shortest(a, b []string) []edit {
	all := []edit{{0, len(a), 0, len(b)}}
	limit := min(len(a)+len(b), mostDifferences)
	reach := map[int]int{1: 0} // the furthest line of a on each diagonal
	var trail []map[int]int
	for d := 0; d <= limit; d++ {
		next := make(map[int]int, len(reach)+2)
		for k := -d; k <= d; k += 2 {
			x := reach[k-1] + 1
			if k == -d || (k != d && reach[k-1] < reach[k+1]) {
				x = reach[k+1]
			}
			y := x - k
			for x < len(a) && y < len(b) && a[x] == b[y] {
				x, y = x+1, y+1
			}
			next[k] = x
			if x >= len(a) && y >= len(b) {
				return walkBack(append(trail, reach), len(a), len(b))
			}
		}
		trail = append(trail, reach)
		reach = next
	}
	return all
}

// walkBack follows the way that reached the end, and joins neighbouring insertions and deletions.
func walkBack(trail []map[int]int, x, y int) []edit {
	var edits []edit // last first
	add := func(e edit) {
		if n := len(edits); n > 0 && edits[n-1].a1 == e.a2 && edits[n-1].b1 == e.b2 {
			edits[n-1].a1, edits[n-1].b1 = e.a1, e.b1
			return
		}
		edits = append(edits, e)
	}
	for d := len(trail) - 1; d > 0; d-- {
		reach, k := trail[d], x-y
		prev := k - 1
		if k == -d || (k != d && reach[k-1] < reach[k+1]) {
			prev = k + 1
		}
		fromX := reach[prev]
		fromY := fromX - prev
		if prev == k+1 {
			add(edit{fromX, fromX, fromY, fromY + 1})
		} else {
			add(edit{fromX, fromX + 1, fromY, fromY})
		}
		x, y = fromX, fromY
	}
	slices.Reverse(edits)
	return edits
}

var (
	// secretKey matches a key, quoted or not and perhaps commented out, whose value is to be masked.
	secretKey = regexp.MustCompile(`(?i)(?:^|[\s{,\[#-])["']?[\w.-]*(?:(?:passw|passphrase|pepper|secret|token|dsn)\w*|_pass|_keys?)(?:["']\s*:|\s*:(?:\s|$))`)
	// properties are the anchor and the tag before a value.
	properties = regexp.MustCompile(`^(?:[&!]\S*\s+)*`)
	// publicKey matches the names that only look like a secret's.
	publicKey = regexp.MustCompile(`(?i)(_path|_file|_config|_lifetime|_enabled|_policy)["']?\s*:\s*$`)
	// urlPassword is the password in scheme://user:password@host, assignment the one in a connection string.
	urlPassword = regexp.MustCompile(`(://[^\s/:@"']*:)[^\s"']*@`)
	assignment  = regexp.MustCompile(`(?i)(\b(?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s'"&]+)`)
)

// maskYAML returns the lines with what looks secret masked, one for one. It reads lines rather than YAML, because it
// must also mask what is commented out and what does not parse; where it can't tell, it masks more.
func maskYAML(lines []string) []string {
	m := masker{below: -1}
	out := make([]string, len(lines))
	for i, l := range lines {
		text := strings.TrimRight(l, "\r\n")
		out[i] = m.line(text) + l[len(text):]
	}
	return out
}

// masker is what has to be remembered from one line to the next.
type masker struct {
	below int  // mask what is indented deeper than this; -1: nothing
	quote byte // an open quote of a secret value; 0: none
	flow  int  // open braces and brackets
}

func (m *masker) line(s string) string {
	indent := len(s) - len(strings.TrimLeft(s, " \t"))
	if m.quote != 0 {
		end := closing(s, m.quote)
		if end < 0 {
			return s[:indent] + Masked
		}
		m.quote = 0
		return s[:indent] + Masked + m.rest(s[end:])
	}
	trimmed := s[indent:]
	if m.below >= 0 {
		item := strings.HasPrefix(trimmed, "-") && indent == m.below
		if trimmed == "" || indent > m.below || item {
			if trimmed == "" {
				return s
			}
			return s[:indent] + Masked
		}
		m.below = -1
	}
	if indent == 0 && trimmed != "" && !strings.ContainsAny(trimmed[:1], "{}[]#") {
		m.flow = 0
	}
	return m.rest(s)
}

// rest masks the values in s, in which no value is open.
func (m *masker) rest(s string) string {
	at := secretKey.FindStringSubmatchIndex(s)
	if at == nil {
		m.count(s)
		return maskInline(s)
	}
	valueAt := at[1]
	if publicKey.MatchString(s[:valueAt]) {
		m.count(s[:valueAt])
		return maskInline(s[:valueAt]) + m.rest(s[valueAt:])
	}
	m.count(s[:valueAt])
	value := strings.TrimLeft(s[valueAt:], " \t")
	value = value[len(properties.FindString(value)):]
	before := maskInline(s[:len(s)-len(value)])
	keyIndent := len(s) - len(strings.TrimLeft(s, " \t-"))
	switch {
	case value == "" || value[0] == '#' || value[0] == '|' || value[0] == '>':
		m.below = keyIndent
		return before + value
	case value[0] == '"' || value[0] == '\'':
		end := closing(value[1:], value[0])
		if end < 0 {
			m.quote = value[0]
			return before + Masked
		}
		return before + Masked + m.rest(value[1+end:])
	case m.flow > 0:
		end := strings.IndexAny(value, ",{}[]")
		if end < 0 {
			return before + Masked
		}
		return before + Masked + m.rest(value[end:])
	}
	// A plain value may go on in the lines below, and one with an anchor or a tag may hold anything.
	m.below = keyIndent
	return before + Masked
}

// count follows the braces of flow style. One that stands within a word opens nothing.
func (m *masker) count(s string) {
	var quote byte
	for i := range len(s) {
		c := s[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case (c == '"' || c == '\'') && (i == 0 || strings.IndexByte(" \t{[,:", s[i-1]) >= 0):
			quote = c
		case c == '#' && (i == 0 || s[i-1] == ' '):
			return
		case c == '{' || c == '[':
			if m.flow > 0 || i == 0 || strings.IndexByte(" \t{[,:", s[i-1]) >= 0 {
				m.flow++
			}
		case (c == '}' || c == ']') && m.flow > 0:
			m.flow--
		}
	}
}

// closing is where the text after the quote that ends a scalar begins; -1 when it does not end in s.
func closing(s string, quote byte) int {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quote == '"':
			i++
		case s[i] == quote && quote == '\'' && i+1 < len(s) && s[i+1] == quote:
			i++
		case s[i] == quote:
			return i + 1
		}
	}
	return -1
}

func maskInline(s string) string {
	s = urlPassword.ReplaceAllString(s, "${1}"+Masked+"@")
	return assignment.ReplaceAllString(s, "${1}"+Masked)
}
