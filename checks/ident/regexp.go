package ident

import "regexp"

// plain is the regular expressions that PostgreSQL and Go understand alike: letters, digits and a few signs, ".", "^"
// and "$", simple classes, groups, alternatives, and one quantifier after what can be repeated. PostgreSQL refuses "^*"
// and "a**", which Go takes.
var plain = func() *regexp.Regexp {
	const (
		atom     = `(?:[A-Za-z0-9 _@=,:!~-]|\.|\\[dw]|\\[.*+?()\[\]{}^$|\\-]|\[\^?(?:[A-Za-z0-9_.]|a-z|A-Z|0-9)+\])`
		piece    = `(?:\^|\$|` + atom + `[*+?]?)`
		branches = piece + `+(?:\|` + piece + `+)*`
		group    = `(?:\^|\$|(?:` + atom + `|\(` + branches + `\))[*+?]?)`
	)
	return regexp.MustCompile(`\A(?:` + group + `+(?:\|` + group + `+)*)\z`)
}()

func plainPattern(pattern string) bool { return plain.MatchString(pattern) }

// plainMatch is whether the subject matches, if that can be told. Only ASCII: how many characters others are depends on
// the database's encoding.
func plainMatch(pattern, subject string) (is, ok bool) {
	for i := range len(subject) {
		if subject[i] >= 0x80 || subject[i] == 0 {
			return false, false
		}
	}
	if !plainPattern(pattern) {
		return false, false
	}
	re, err := regexp.Compile("(?s)" + pattern)
	if err != nil {
		return false, false
	}
	return re.MatchString(subject), true
}
