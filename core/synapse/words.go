package synapse

import (
	"errors"
	"strings"
)

// Words splits a command as a shell does: at spaces, outside of quotes, with the backslash as the escape. Nothing is
// expanded, and no shell is started.
func Words(command string) ([]string, error) {
	var words []string
	var word strings.Builder
	within := false // a word has begun, which may be empty: ''
	for i := 0; i < len(command); i++ {
		switch c := command[i]; c {
		case ' ', '\t', '\n', '\r':
			if within {
				words = append(words, word.String())
				word.Reset()
				within = false
			}
		case '\'':
			end := strings.IndexByte(command[i+1:], '\'')
			if end < 0 {
				return nil, errors.New("a ' is never closed")
			}
			word.WriteString(command[i+1 : i+1+end])
			i, within = i+1+end, true
		case '"':
			rest, n, err := inDoubleQuotes(command[i+1:])
			if err != nil {
				return nil, err
			}
			word.WriteString(rest)
			i, within = i+n, true
		case '\\':
			if i++; i == len(command) {
				return nil, errors.New("it ends in a backslash")
			}
			word.WriteByte(command[i])
			within = true
		default:
			word.WriteByte(c)
			within = true
		}
	}
	if within {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("it is empty")
	}
	return words, nil
}

// inDoubleQuotes is the text up to the closing quote, and how many bytes it takes with that.
func inDoubleQuotes(s string) (string, int, error) {
	var text strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return text.String(), i + 1, nil
		case s[i] == '\\' && i+1 < len(s) && strings.IndexByte("\"\\$`", s[i+1]) >= 0:
			i++
			text.WriteByte(s[i])
		default:
			text.WriteByte(s[i])
		}
	}
	return "", 0, errors.New("a \" is never closed")
}
