package report

import (
	"strings"

	"github.com/clipperhouse/displaywidth"
)

// width is how many columns s takes on a terminal: two for a Chinese character or an emoji, none for an accent that
// combines. It adds up characters one by one, as tablewriter and most terminals do, so that an emoji joined from several
// is as wide as its parts: where a terminal draws it narrower, a border is out of line, but nothing is too wide.
func width(s string) int {
	n := 0
	for _, r := range s {
		n += displaywidth.Rune(r)
	}
	return n
}

// widest is the width of the widest line of s.
func widest(s string) int {
	n := 0
	for line := range strings.SplitSeq(s, "\n") {
		n = max(n, width(line))
	}
	return n
}

// wrap breaks prose into lines of at most limit columns, at spaces, and keeps its newlines. A word that is too long by
// itself is broken after punctuation where it has some.
func wrap(s string, limit int) []string {
	limit = max(limit, 1)
	var lines []string
	for paragraph := range strings.SplitSeq(strings.TrimRight(s, " \n\t"), "\n") {
		line, used := "", 0
		for word := range strings.FieldsSeq(paragraph) {
			n := width(word)
			if used > 0 && used+1+n <= limit {
				line, used = line+" "+word, used+1+n
				continue
			}
			if used > 0 {
				lines = append(lines, line)
			}
			for n > limit {
				head, tail := breakWord(word, limit)
				if tail == "" {
					break
				}
				lines = append(lines, head)
				word, n = tail, width(tail)
			}
			line, used = word, n
		}
		lines = append(lines, line)
	}
	return lines
}

// breakWord splits a word so that its head takes at most limit columns, and at least one character.
func breakWord(s string, limit int) (head, tail string) {
	used, end, good := 0, 0, 0
	g := displaywidth.StringGraphemes(s)
	for g.Next() {
		n := width(g.Value())
		if used+n > limit && end > 0 {
			break
		}
		used, end = used+n, end+len(g.Value())
		if strings.ContainsAny(g.Value(), "_/.-:,=@") {
			good = end
		}
	}
	if end == len(s) {
		return s, ""
	}
	if good > end/2 {
		end = good
	}
	return s[:end], s[end:]
}

// block is a part of a text: prose to be wrapped, or lines to be copied.
type block struct {
	verbatim bool
	text     string // without the four spaces that mark a verbatim line
}

// blocks splits a text at its verbatim lines, which are indented by four spaces.
func blocks(s string) []block {
	var all []block
	blank := 0
	for line := range strings.SplitSeq(strings.Trim(s, "\n"), "\n") {
		text, verbatim := strings.CutPrefix(line, "    ")
		if strings.TrimSpace(line) == "" {
			blank++
			continue
		}
		if !verbatim {
			text = strings.TrimSpace(line)
		}
		text = strings.TrimRight(text, " \t")
		n := len(all) - 1
		switch {
		case n >= 0 && all[n].verbatim && verbatim:
			all[n].text += strings.Repeat("\n", blank+1) + text
		case n >= 0 && !all[n].verbatim && !verbatim && blank == 0:
			// Lines of one paragraph flow together; the items of a list don't.
			sep := " "
			if strings.HasPrefix(text, "- ") {
				sep = "\n"
			}
			all[n].text += sep + text
		default:
			all = append(all, block{verbatim, text})
		}
		blank = 0
	}
	return all
}

// copyable lays out lines to be copied: SQL within the width, everything else as it is.
func copyable(s string, limit int) []string {
	s = strings.ReplaceAll(s, "\t", "        ")
	if widest(s) > limit && looksLikeSQL(s) {
		return layoutSQL(s, limit)
	}
	return strings.Split(s, "\n")
}
