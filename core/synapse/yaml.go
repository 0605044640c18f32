package synapse

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// ConfigError is a fault in the configuration. It never contains a value of the file: that may be a password.
type ConfigError struct {
	File string // as it was given
	Line int    // 0 when the fault is of the file as a whole
	Msg  string // one sentence without a full stop
	Err  error  // the cause, where there is one that a caller may ask for
}

func (e *ConfigError) Error() string {
	switch {
	case e.File == "":
		return e.Msg
	case e.Line == 0:
		return e.File + ": " + e.Msg
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
}

func (e *ConfigError) Unwrap() error { return e.Err }

// document is one file, read as PyYAML's safe_load reads it.
type document struct {
	file  string
	root  *yaml.Node // nil when the file holds nothing
	value any        // nil, bool, int64, float64, string, []any or map[any]any
}

func parseDocument(file string, content []byte) (*document, error) {
	root, err := parseNodes(file, content)
	if err != nil || root == nil {
		return &document{file: file}, err
	}
	b := builder{file: file, done: map[*yaml.Node]any{}, open: map[*yaml.Node]bool{}}
	v, err := b.value(root)
	if err != nil {
		return nil, err
	}
	return &document{file: file, root: root, value: v}, nil
}

// parseNodes returns the root of the file's only document, or nil when it has none.
func parseNodes(file string, content []byte) (*yaml.Node, error) {
	if !utf8.Valid(content) {
		return nil, &ConfigError{File: file, Line: invalidLine(content), Msg: "this is not UTF-8 text, which Synapse expects"}
	}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, &ConfigError{File: file, Line: brokenLine(content), Msg: syntaxMessage(err)}
	}
	switch err := dec.Decode(&more); {
	case errors.Is(err, io.EOF):
		return doc.Content[0], nil
	case err != nil:
		return nil, &ConfigError{File: file, Line: brokenLine(content), Msg: syntaxMessage(err)}
	}
	return nil, &ConfigError{File: file, Line: more.Line,
		Msg: "a second YAML document begins here; Synapse reads only files with one, so remove this ---"}
}

// syntaxMessage says what is wrong in words of its own: the library's messages may quote what they could not read.
func syntaxMessage(err error) string {
	for _, m := range []struct{ has, say string }{
		{"unknown anchor", "an alias (*name) refers to an anchor (&name) that is not above it; put a value that begins with * in quotes"},
		{"cannot start any token", "a value begins with a character that YAML reserves (a tab, @, `, or %); put the value in quotes"},
		{"mapping values are not allowed", "a colon stands where none may; put a value that contains a colon in quotes, or correct the indentation"},
		{"did not find expected key", "YAML expects a key here; look at the indentation and the quotes of this line and the one before"},
		{"did not find expected '-'", "YAML expects a list entry here; look at the indentation of this line and the one before"},
		{"could not find expected ':'", "a key without a colon, or a text whose quotes are not closed"},
		{"found unexpected end of stream", "quotes or brackets that begin here are never closed"},
		{"did not find expected ',' or", "brackets that begin here are not closed, or a comma is missing"},
		{"tab character", "a tab stands where YAML wants spaces"},
		{"unknown escape character", "a backslash in double quotes begins an escape that YAML does not know; use single quotes"},
		{"control characters", "there is a control character, which YAML forbids"},
	} {
		if strings.Contains(err.Error(), m.has) {
			return "this is not valid YAML: " + m.say
		}
	}
	return "this is not valid YAML; look at the indentation and the quotes of this line and the one before"
}

// brokenLine is the line after the longest beginning of the content that is valid. The library gives the line where the
// surrounding block began, or one less. Beginnings that end before a top-level key are searched by halves, then by line.
func brokenLine(content []byte) int {
	lines := bytes.SplitAfter(content, []byte("\n"))
	valid := func(n int) bool {
		dec := yaml.NewDecoder(bytes.NewReader(bytes.Join(lines[:n], nil)))
		for {
			var doc yaml.Node
			if err := dec.Decode(&doc); err != nil {
				return errors.Is(err, io.EOF)
			}
		}
	}
	var starts []int
	for i, l := range lines {
		if len(l) > 0 && !bytes.ContainsAny(l[:1], " \t\r\n#-]}") {
			starts = append(starts, i)
		}
	}
	i, _ := slices.BinarySearchFunc(starts, 0, func(start, _ int) int {
		if valid(start) {
			return -1
		}
		return 1
	})
	last := len(lines)
	if i < len(starts) {
		last = starts[i]
	}
	first := 0
	if i > 0 {
		first = starts[i-1]
	}
	for n := last; n > first; n-- {
		if valid(n) {
			return min(n+1, len(lines))
		}
	}
	return first + 1
}

func invalidLine(content []byte) int {
	for i, line := range bytes.Split(content, []byte("\n")) {
		if !utf8.Valid(line) {
			return i + 1
		}
	}
	return 0
}

// builder makes values of nodes. As in Python an aliased collection is one object however often it is referred to, so
// that aliases of aliases do not multiply.
type builder struct {
	file string
	done map[*yaml.Node]any
	open map[*yaml.Node]bool
}

func (b *builder) fail(n *yaml.Node, format string, args ...any) error {
	return &ConfigError{File: b.file, Line: n.Line, Msg: fmt.Sprintf(format, args...)}
}

func (b *builder) value(n *yaml.Node) (any, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode {
		return b.scalar(n)
	}
	if v, ok := b.done[n]; ok {
		return v, nil
	}
	if b.open[n] {
		return nil, b.fail(n, "an anchor contains an alias of itself")
	}
	b.open[n] = true
	defer delete(b.open, n)
	if n.Style&yaml.TaggedStyle != 0 && !slices.Contains([]string{"!!map", "!!seq"}, n.Tag) {
		return nil, b.fail(n, "a tag (!name) that Synapse's YAML reader does not accept")
	}
	var v any
	var err error
	if n.Kind == yaml.SequenceNode {
		v, err = b.sequence(n)
	} else {
		v, err = b.mapping(n)
	}
	if err == nil {
		b.done[n] = v
	}
	return v, err
}

func (b *builder) sequence(n *yaml.Node) ([]any, error) {
	list := make([]any, 0, len(n.Content))
	for _, c := range n.Content {
		v, err := b.value(c)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// mapping lets the last of duplicate keys win, and a mapping's own keys win over what it merges, wherever they stand.
func (b *builder) mapping(n *yaml.Node) (map[any]any, error) {
	m := map[any]any{}
	for k, v := range pairs(n) {
		if isMerge(k) {
			if err := b.merge(m, v); err != nil {
				return nil, err
			}
		}
	}
	for k, v := range pairs(n) {
		if isMerge(k) {
			continue
		}
		key, err := b.key(k)
		if err != nil {
			return nil, err
		}
		if m[key], err = b.value(v); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (b *builder) key(n *yaml.Node) (any, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.ScalarNode {
		return nil, b.fail(n, "a list or a mapping stands as a key, which Synapse's YAML reader does not accept")
	}
	if isPlain(n) && n.Value == "=" {
		return "=", nil
	}
	return b.scalar(n)
}

func (b *builder) merge(into map[any]any, n *yaml.Node) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	sources := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		sources = slices.Clone(n.Content)
		slices.Reverse(sources) // the first of the list wins
	}
	for _, s := range sources {
		v, err := b.value(s)
		if err != nil {
			return err
		}
		m, ok := v.(map[any]any)
		if !ok {
			return b.fail(s, "<< merges mappings, and this is none")
		}
		for k, v := range m {
			into[k] = v
		}
	}
	return nil
}

// pairs yields the keys and values of a mapping as they stand.
func pairs(n *yaml.Node) func(yield func(k, v *yaml.Node) bool) {
	return func(yield func(k, v *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

const quotedStyles = yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle

func isPlain(n *yaml.Node) bool { return n.Style&(quotedStyles|yaml.TaggedStyle) == 0 }

func isMerge(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && (isPlain(n) && n.Value == "<<" || n.Style&yaml.TaggedStyle != 0 && n.Tag == "!!merge")
}

// The forms of YAML 1.1 as PyYAML 6 has them.
var (
	boolWords = map[string]bool{"yes": true, "no": false, "true": true, "false": false, "on": true, "off": false}
	intForm   = regexp.MustCompile(`^[-+]?(0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(:[0-5]?[0-9])+)$`)
	floatForm = regexp.MustCompile(`^([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?` +
		`|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)
)

func parseBool(s string) (v, ok bool) {
	// Only yes, Yes and YES are words, not yEs.
	lower := strings.ToLower(s)
	if s != lower && s != strings.ToUpper(s) && s != strings.ToUpper(lower[:1])+lower[1:] {
		return false, false
	}
	v, ok = boolWords[lower]
	return v, ok
}

// scalar resolves plain text as YAML 1.1 does. A date stays text: nothing that the doctor reads is one.
func (b *builder) scalar(n *yaml.Node) (any, error) {
	if n.Style&yaml.TaggedStyle != 0 {
		return b.tagged(n)
	}
	if !isPlain(n) {
		return n.Value, nil
	}
	switch s := n.Value; {
	case s == "" || s == "~" || s == "null" || s == "Null" || s == "NULL":
		return nil, nil
	case s == "=" || s == "<<":
		return nil, b.fail(n, "%s has a meaning of its own in YAML; put it in quotes", s)
	case intForm.MatchString(s):
		if v, ok := parseInt(s); ok {
			return v, nil
		}
		return s, nil
	case floatForm.MatchString(s):
		if v, ok := parseFloat(s); ok {
			return v, nil
		}
		return s, nil
	default:
		if v, ok := parseBool(s); ok {
			return v, nil
		}
		return s, nil
	}
}

func (b *builder) tagged(n *yaml.Node) (any, error) {
	switch n.Tag {
	case "!!str", "!!timestamp":
		return n.Value, nil
	case "!!null":
		return nil, nil
	case "!!bool":
		if v, ok := boolWords[strings.ToLower(n.Value)]; ok {
			return v, nil
		}
	case "!!int":
		if v, ok := parseInt(n.Value); ok {
			return v, nil
		}
	case "!!float":
		if v, ok := parseFloat(n.Value); ok {
			return v, nil
		}
	case "!!binary":
		if v, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), "")); err == nil {
			return string(v), nil
		}
	default:
		return nil, b.fail(n, "a tag (!name) that Synapse's YAML reader does not accept; put a value that begins with ! in quotes")
	}
	return nil, b.fail(n, "the value does not fit its tag %s", n.Tag)
}

// parseInt returns an int64, or the decimal digits of a number beyond it: Python's integers have no end, and psycopg2
// passes them on as text.
func parseInt(s string) (any, bool) {
	s = strings.ReplaceAll(s, "_", "")
	digits := strings.TrimLeft(s, "+-")
	n, ok := new(big.Int), true
	switch {
	case strings.HasPrefix(digits, "0b"):
		n, ok = n.SetString(digits[2:], 2)
	case strings.HasPrefix(digits, "0x"):
		n, ok = n.SetString(digits[2:], 16)
	case strings.Contains(digits, ":"):
		for part := range strings.SplitSeq(digits, ":") {
			v, err := strconv.ParseInt(part, 10, 64)
			if err != nil {
				return nil, false
			}
			n.Add(n.Mul(n, big.NewInt(60)), big.NewInt(v))
		}
	case len(digits) > 1 && digits[0] == '0':
		n, ok = n.SetString(digits[1:], 8)
	default:
		n, ok = n.SetString(digits, 10)
	}
	if !ok {
		return nil, false
	}
	if strings.HasPrefix(s, "-") {
		n.Neg(n)
	}
	if n.IsInt64() {
		return n.Int64(), true
	}
	return n.String(), true
}

func parseFloat(s string) (float64, bool) {
	s = strings.ToLower(strings.ReplaceAll(s, "_", ""))
	sign := 1.0
	if strings.HasPrefix(s, "-") {
		sign = -1
	}
	digits := strings.TrimLeft(s, "+-")
	switch digits {
	case ".inf":
		return sign * math.Inf(1), true
	case ".nan":
		return math.NaN(), true
	}
	sum := 0.0
	for part := range strings.SplitSeq(digits, ":") {
		v, err := strconv.ParseFloat(part, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return 0, false
		}
		sum = sum*60 + v
	}
	return sign * sum, true
}

// lookup returns the pair of a mapping that decides key: the last of its own, else of what it merges.
func lookup(n *yaml.Node, key string) (k, v *yaml.Node) {
	if n == nil {
		return nil, nil
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	if k, v = ownPair(n, key); k != nil {
		return k, v
	}
	for mk, mv := range pairs(n) {
		if !isMerge(mk) {
			continue
		}
		if mv.Kind == yaml.AliasNode {
			mv = mv.Alias
		}
		sources := []*yaml.Node{mv}
		if mv.Kind == yaml.SequenceNode {
			sources = mv.Content
		}
		for _, s := range sources {
			if _, found := lookup(s, key); found != nil {
				k, v = mk, found
				break
			}
		}
	}
	return k, v
}

// ownPair returns the last pair of a mapping whose key is this text, merged ones left out.
func ownPair(n *yaml.Node, key string) (k, v *yaml.Node) {
	for pk, pv := range pairs(n) {
		text := pk
		if pk.Kind == yaml.AliasNode {
			text = pk.Alias
		}
		if text.Kind == yaml.ScalarNode && text.Value == key && !isMerge(text) {
			k, v = pk, pv
		}
	}
	return k, v
}
