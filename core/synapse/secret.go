package synapse

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A setting is secret by its name; what names a file or a lifetime is not.
var (
	secretName = regexp.MustCompile(`(?i)(pass|passwd|password|passphrase|bindpw|pepper|secret|token|credentials?|dsn|_key|apikey)$`)
	// dsnPassword finds the passwords of libpq connection strings: password=x, password='it\'s'.
	dsnPassword = regexp.MustCompile(`(?i)\b(?:ssl)?password\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\&]|\\.)+)`)
	// urlPassword finds those of URLs, which may hold what url.Parse refuses.
	urlPassword = regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#\s@]*?:([^/?#\s]*)@`)
	dsnEscape   = regexp.MustCompile(`\\(.)`)
)

// Secrets lists every secret value of every file that was read, including sections that a later file replaced: the
// longest first, each as written and, where that differs, as it is used. It is for a redactor.
func (c *Config) Secrets() []string {
	found := map[string]bool{}
	seen := map[seenNode]bool{}
	for _, d := range c.documents {
		if d.root != nil {
			collectSecrets(d.root, false, found, seen)
		}
	}
	delete(found, "")
	list := make([]string, 0, len(found))
	for s := range found {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	return list
}

// seenNode keeps aliases of aliases from multiplying. What is no secret where it is anchored may be one where it is used.
type seenNode struct {
	n      *yaml.Node
	secret bool
}

func collectSecrets(n *yaml.Node, secret bool, found map[string]bool, seen map[seenNode]bool) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if seen[seenNode{n, secret}] {
		return
	}
	seen[seenNode{n, secret}] = true
	switch n.Kind {
	case yaml.ScalarNode:
		if secret {
			collectScalar(n, found)
		}
		for _, p := range embeddedPasswords(n.Value) {
			found[p] = true
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			collectSecrets(item, secret, found, seen)
		}
	case yaml.MappingNode:
		for k, v := range pairs(n) {
			collectSecrets(v, secretName.MatchString(k.Value), found, seen)
		}
	}
}

func collectScalar(n *yaml.Node, found map[string]bool) {
	v, err := (&builder{}).scalar(n)
	switch v.(type) {
	case nil, bool:
		if err == nil {
			return
		}
	default:
		found[fmt.Sprint(v)] = true // 1_000 is used as 1000
	}
	found[n.Value] = true
	found[strings.TrimSpace(n.Value)] = true
}

// embeddedPasswords are those inside a connection string or a URL, as written and decoded.
func embeddedPasswords(s string) []string {
	var list []string
	for _, m := range dsnPassword.FindAllStringSubmatch(s, -1) {
		written := m[1]
		if len(written) >= 2 && written[0] == '\'' {
			written = written[1 : len(written)-1]
		}
		list = append(list, written, dsnEscape.ReplaceAllString(written, "$1"))
	}
	for _, m := range urlPassword.FindAllStringSubmatch(s, -1) {
		list = append(list, m[1])
	}
	for _, written := range slices.Clone(list) {
		if decoded, err := url.PathUnescape(written); err == nil {
			list = append(list, decoded)
		}
	}
	return list
}
