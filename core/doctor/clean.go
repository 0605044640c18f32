package doctor

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes s fit for one line of a terminal or a log: every control character (newlines and tabs too), terminal
// escape, invisible or direction-changing character and invalid byte is spelled out, as in \x1b or \u202e.
// Names in a database are chosen by strangers, and plugins say what they like.
func Clean(s string) string { return clean(s, false) }

// CleanText is [Clean] for text of several lines: newlines and tabs stay, and CRLF becomes a newline.
func CleanText(s string) string { return clean(strings.ReplaceAll(s, "\r\n", "\n"), true) }

func clean(s string, lines bool) string {
	var b strings.Builder
	kept := 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if shown := visible(r, size, lines); !shown {
			b.WriteString(s[kept:i])
			b.WriteString(spelled(s[i:i+size], r))
			kept = i + size
		}
		i += size
	}
	if kept == 0 {
		return s
	}
	b.WriteString(s[kept:])
	return b.String()
}

func visible(r rune, size int, lines bool) bool {
	switch {
	case r == utf8.RuneError && size == 1:
		return false
	case r == '\n' || r == '\t':
		return lines
	case r == '\u200c' || r == '\u200d': // Persian words and emoji of several parts need the joiners
		return true
	}
	return !unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

func spelled(raw string, r rune) string {
	switch {
	case r == utf8.RuneError && len(raw) == 1:
		return fmt.Sprintf(`\x%02x`, raw[0])
	case r == '\n':
		return `\n`
	case r == '\t':
		return `\t`
	case r == '\r':
		return `\r`
	case r < utf8.RuneSelf:
		return fmt.Sprintf(`\x%02x`, r)
	case r <= 0xffff:
		return fmt.Sprintf(`\u%04x`, r)
	}
	return fmt.Sprintf(`\U%08x`, r)
}
