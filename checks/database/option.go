package database

import "strings"

// option finds a setting in the connection setting options, as the server reads it (pg_split_opts, process_postgres_switches):
// words of -c name=value or --name=value, in which a backslash takes the next character as it is. The last one counts.
func option(options, name string) (value string, found bool) {
	words := optionWords(options)
	for i := 0; i < len(words); i++ {
		var assignment string
		switch w := words[i]; {
		case w == "-c" && i+1 < len(words):
			i++
			assignment = words[i]
		case strings.HasPrefix(w, "--"):
			assignment = w[2:]
		case strings.HasPrefix(w, "-c"):
			assignment = w[2:]
		}
		key, v, ok := strings.Cut(assignment, "=")
		if ok && strings.EqualFold(strings.ReplaceAll(key, "-", "_"), name) {
			value, found = v, true
		}
	}
	return value, found
}

func optionWords(s string) []string {
	var words []string
	var word strings.Builder
	inWord, escaped := false, false
	for _, b := range []byte(s) {
		switch {
		case escaped:
			word.WriteByte(b)
			escaped = false
		case b == '\\':
			escaped, inWord = true, true
		case strings.IndexByte(" \t\n\v\f\r", b) >= 0:
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteByte(b)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}
