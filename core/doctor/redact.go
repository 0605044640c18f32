package doctor

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Masked stands where a secret was.
const Masked = "********"

// shortestSecret is the length below which a secret is left alone: masking every "a" of a report would hide the report
// and tell the password at the same time.
const shortestSecret = 4

// Redactor replaces known secrets in text. The nil Redactor replaces nothing.
type Redactor struct {
	forms  []string // of the secrets, as they may be written, longest first
	public []string
}

// NewRedactor knows secrets, and the public words (the names of roles, databases and hosts) in which one may occur by
// chance: where the role synapse has the password synapse, the name stays, for a mask in its place would say more.
func NewRedactor(secrets []string, public []string) *Redactor {
	r := &Redactor{public: slices.Clone(public)}
	for _, s := range secrets {
		if len(s) >= shortestSecret {
			r.forms = append(r.forms, forms(s)...)
		}
	}
	r.sort()
	return r
}

// Add makes another secret known.
func (r *Redactor) Add(secret string) {
	if r == nil || len(secret) < shortestSecret {
		return
	}
	r.forms = append(r.forms, forms(secret)...)
	r.sort()
}

func (r *Redactor) sort() {
	slices.SortFunc(r.forms, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	r.forms = slices.Compact(r.forms)
}

// forms are the ways in which s is written in URLs, SQL, connection strings, JSON, YAML, shell and Go's %q.
func forms(s string) []string {
	unquoted := func(quoted string) string { return quoted[1 : len(quoted)-1] }
	all := []string{
		s,
		url.QueryEscape(s),
		url.PathEscape(s),
		strings.TrimPrefix(url.UserPassword("", s).String(), ":"),
		strings.ReplaceAll(s, `'`, `''`),
		strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `'`, `\'`),
		strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `'`, `''`),
		strings.ReplaceAll(s, `'`, `'\''`),
		unquoted(strconv.Quote(s)),
		unquoted(strconv.QuoteToASCII(s)),
		Clean(s),
	}
	if j, err := json.Marshal(s); err == nil {
		all = append(all, unquoted(string(j)))
	}
	return slices.DeleteFunc(all, func(f string) bool { return len(f) < shortestSecret })
}

// String returns s with every secret masked.
func (r *Redactor) String(s string) string {
	if r == nil || len(r.forms) == 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if n := r.secretAt(s, i); n > 0 {
			b.WriteString(Masked)
			i += n
			continue
		}
		b.WriteByte(s[i])
		i++
	}
	return b.String()
}

func (r *Redactor) secretAt(s string, i int) int {
	for _, f := range r.forms {
		if strings.HasPrefix(s[i:], f) && !r.insidePublic(s, i, f) {
			return len(f)
		}
	}
	return 0
}

// insidePublic reports whether the secret at s[i:] lies wholly within a public word.
func (r *Redactor) insidePublic(s string, i int, secret string) bool {
	for _, word := range r.public {
		for k := 0; k+len(secret) <= len(word); k++ {
			if k <= i && word[k:k+len(secret)] == secret && strings.HasPrefix(s[i-k:], word) {
				return true
			}
		}
	}
	return false
}
