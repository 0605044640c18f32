package synapse

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Setting is a connection keyword and the value it is to have.
type Setting struct {
	Keyword string
	Value   any // int or string
}

// Splice replaces Old, which stands at Offset of the content, by New.
type Splice struct {
	Offset   int64
	Old, New []byte
}

// Apply returns the content with the splices, which are by rising offset and do not overlap.
func Apply(content []byte, splices []Splice) ([]byte, error) {
	var out []byte
	done := int64(0)
	for _, s := range splices {
		end := s.Offset + int64(len(s.Old))
		if s.Offset < done || end > int64(len(content)) || !bytes.Equal(content[s.Offset:end], s.Old) {
			return nil, fmt.Errorf("the text at offset %d is not what was to be replaced", s.Offset)
		}
		out = append(out, content[done:s.Offset]...)
		out = append(out, s.New...)
		done = end
	}
	return append(out, content[done:]...), nil
}

// EditError says why a file is not edited, and what a person is to write into it.
type EditError struct {
	Label  string   // of the database
	Reason string   // one sentence without a full stop
	Lines  []string // to stand below args of that database
}

func (e *EditError) Error() string {
	return fmt.Sprintf("%s; add these lines below args of database %s by hand:\n    %s", e.Reason, e.Label, strings.Join(e.Lines, "\n    "))
}

// EditArgs returns the splices that give the settings to the arguments of the database with this label, in a file whose
// database or databases section configures it. New keywords are put into the very mapping that holds args; a value that
// is there is replaced; every other byte stays. The outcome is read again and must mean the old document plus exactly
// the settings. Where that can't be had, the error is an [*EditError]; a file that can't be read gives a [*ConfigError].
func EditArgs(content []byte, label string, set []Setting) ([]Splice, error) {
	refuse := func(reason string) error {
		e := &EditError{Label: label, Reason: reason}
		for _, s := range set {
			e.Lines = append(e.Lines, s.Keyword+": "+s.text())
		}
		return e
	}
	before, err := parseDocument("", content)
	if err != nil {
		return nil, err
	}
	ed, err := newEditor(content, before.root, label)
	if err != nil {
		return nil, refuse(err.Error())
	}
	splices, err := ed.splices(set)
	if err != nil {
		return nil, refuse(err.Error())
	}
	edited, err := Apply(content, splices)
	if err != nil {
		return nil, refuse(err.Error())
	}
	after, err := parseDocument("", edited)
	if err != nil {
		return nil, refuse("the edited file would not be valid YAML")
	}
	if !onlySet(before.value, after.value, ed.path, set) {
		return nil, refuse("an edit there would change something else too: the mapping is shared through an anchor (&name), or its form is unusual")
	}
	return splices, nil
}

// editor knows the source text of one args mapping.
type editor struct {
	content []byte
	starts  []int // offsets at which lines begin
	path    []string
	args    *yaml.Node
}

// newEditor finds the args of the database with this label.
func newEditor(content []byte, root *yaml.Node, label string) (*editor, error) {
	// libyaml ends lines at these too, and counts them, but editors don't show them.
	if bytes.ContainsAny(content, "\u0085\u2028\u2029") || bytes.Contains(bytes.ReplaceAll(content, []byte("\r\n"), nil), []byte("\r")) {
		return nil, errors.New("the file has unusual line ends")
	}
	e := &editor{content: content, starts: []int{0}, path: []string{"database", "args"}}
	for i, b := range content {
		if b == '\n' {
			e.starts = append(e.starts, i+1)
		}
	}
	if _, entry := lookup(root, "database"); entry == nil || label != MainLabel {
		e.path = []string{"databases", label, "args"}
	}
	n := root
	for _, key := range e.path {
		if _, n = lookup(n, key); n == nil {
			return nil, fmt.Errorf("the file has no %s", strings.Join(e.path, ": "))
		}
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return nil, errors.New("args is not a mapping")
	}
	e.args = n
	return e, nil
}

func (e *editor) splices(set []Setting) ([]Splice, error) {
	var splices []Splice
	var absent []Setting
	for _, s := range set {
		k, v := ownPair(e.args, s.Keyword)
		if k == nil {
			absent = append(absent, s)
			continue
		}
		splice, err := e.replace(k, v, s)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(splice.Old, splice.New) {
			splices = append(splices, splice)
		}
	}
	if len(absent) > 0 {
		splice, err := e.insert(absent)
		if err != nil {
			return nil, err
		}
		splices = append(splices, splice)
	}
	slices.SortFunc(splices, func(a, b Splice) int { return int(a.Offset - b.Offset) })
	return splices, nil
}

// replace puts a setting in the place of a scalar.
func (e *editor) replace(k, v *yaml.Node, s Setting) (Splice, error) {
	unclear := fmt.Errorf("the value of %s is written in a form that the doctor does not edit", s.Keyword)
	if v.Kind != yaml.ScalarNode {
		return Splice{}, unclear
	}
	if v.Value == "" && isPlain(v) {
		_, end, ok := e.scalarSpan(k)
		if ok && bytes.HasPrefix(e.content[end:], []byte(":")) && restOfLine.Match(e.line(end+1)) {
			return Splice{Offset: int64(end + 1), New: []byte(" " + s.text())}, nil
		}
		return Splice{}, unclear
	}
	start, end, ok := e.scalarSpan(v)
	if !ok {
		return Splice{}, unclear
	}
	return Splice{Offset: int64(start), Old: slices.Clone(e.content[start:end]), New: []byte(s.text())}, nil
}

// restOfLine is what may follow a value that ends on its line.
var restOfLine = regexp.MustCompile(`^[ \t]*([ \t]#.*)?\r?$`)

// line is the rest of the line from offset on, without its \n.
func (e *editor) line(offset int) []byte {
	rest, _, _ := bytes.Cut(e.content[offset:], []byte("\n"))
	return rest
}

func (e *editor) insert(set []Setting) (Splice, error) {
	if e.args.Style&yaml.FlowStyle != 0 {
		return e.insertFlow(set)
	}
	return e.insertBlock(set)
}

// openBrace is a flow mapping's beginning, its anchor and tag included.
var openBrace = regexp.MustCompile(`^(?:[&!][^\s{}\[\],]*[ \t]+)*\{`)

// insertFlow writes before the first key of {a: b}, because where that begins is known for certain.
func (e *editor) insertFlow(set []Setting) (Splice, error) {
	start, err := e.offset(e.args)
	if err != nil {
		return Splice{}, err
	}
	quote := ""
	if len(e.args.Content) > 0 && e.args.Content[0].Style&yaml.DoubleQuotedStyle != 0 {
		quote = `"` // JSON stays JSON
	}
	var written []string
	for _, s := range set {
		written = append(written, quote+s.Keyword+quote+": "+s.text())
	}
	if len(e.args.Content) == 0 {
		brace := openBrace.Find(e.content[start:])
		if brace == nil {
			return Splice{}, errors.New("args is written in a form that the doctor does not edit")
		}
		return Splice{Offset: int64(start + len(brace)), New: []byte(strings.Join(written, ", "))}, nil
	}
	first, err := e.offset(e.args.Content[0])
	if err != nil {
		return Splice{}, err
	}
	between := ", "
	if margin := e.content[e.starts[e.args.Content[0].Line-1]:first]; len(bytes.TrimSpace(margin)) == 0 && e.args.Content[0].Line > e.args.Line {
		between = "," + e.lineEnd() + string(margin)
	}
	return Splice{Offset: int64(first), New: []byte(strings.Join(written, between) + between)}, nil
}

// insertBlock writes below the last pair that certainly ends on its own line, else above the first pair.
func (e *editor) insertBlock(set []Setting) (Splice, error) {
	for i := len(e.args.Content) - 2; i >= 0; i -= 2 {
		k, v := e.args.Content[i], e.args.Content[i+1]
		margin, err := e.margin(k)
		if err != nil {
			continue
		}
		_, end, ok := e.scalarSpan(v)
		if !ok || v.Line != k.Line {
			continue
		}
		var text strings.Builder
		after := end + len(e.line(end))
		if after == len(e.content) { // no final newline: none is added
			for _, s := range set {
				text.WriteString(e.lineEnd() + margin + s.Keyword + ": " + s.text())
			}
			return Splice{Offset: int64(after), New: []byte(text.String())}, nil
		}
		e.writeLines(&text, margin, set)
		return Splice{Offset: int64(after + 1), New: []byte(text.String())}, nil
	}
	first := e.args.Content[0]
	margin, err := e.margin(first)
	if err != nil {
		return Splice{}, err
	}
	var text strings.Builder
	e.writeLines(&text, margin, set)
	return Splice{Offset: int64(e.starts[first.Line-1]), New: []byte(text.String())}, nil
}

func (e *editor) writeLines(text *strings.Builder, margin string, set []Setting) {
	for _, s := range set {
		text.WriteString(margin + s.Keyword + ": " + s.text() + e.lineEnd())
	}
}

// lineEnd is the file's: that of its first line.
func (e *editor) lineEnd() string {
	if i := bytes.IndexByte(e.content, '\n'); i > 0 && e.content[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// margin is the indentation of a block mapping's key, which must stand first on its line.
func (e *editor) margin(key *yaml.Node) (string, error) {
	at, err := e.offset(key)
	if err != nil {
		return "", err
	}
	margin := e.content[e.starts[key.Line-1]:at]
	if len(bytes.Trim(margin, " ")) > 0 {
		return "", errors.New("the keys of args do not stand on lines of their own")
	}
	return string(margin), nil
}

// offset is where a node begins. The parser counts characters, and the byte order mark as none.
func (e *editor) offset(n *yaml.Node) (int, error) {
	if n.Line < 1 || n.Line > len(e.starts) {
		return 0, errors.New("the position of a key is not known")
	}
	at := e.starts[n.Line-1]
	if n.Line == 1 && bytes.HasPrefix(e.content, []byte("\uFEFF")) {
		at += len("\uFEFF")
	}
	rest := string(e.line(at))
	column := 1
	for i := range rest {
		if column == n.Column {
			return at + i, nil
		}
		column++
	}
	if column == n.Column {
		return at + len(rest), nil
	}
	return 0, errors.New("the position of a key is not known")
}

// scalarSpan is the source of a scalar that begins and ends on one line, has no anchor and no tag, and is not empty: a
// node begins with its anchor, which is not how the value begins.
func (e *editor) scalarSpan(n *yaml.Node) (start, end int, ok bool) {
	if n.Kind != yaml.ScalarNode || n.Style&(yaml.TaggedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return 0, 0, false
	}
	start, err := e.offset(n)
	if err != nil {
		return 0, 0, false
	}
	line := string(e.line(start))
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		quoted := doubleQuoted.FindString(line)
		return start, start + len(quoted), quoted != ""
	case n.Style&yaml.SingleQuotedStyle != 0:
		quoted := singleQuoted.FindString(line)
		return start, start + len(quoted), quoted != ""
	}
	return start, start + len(n.Value), n.Value != "" && strings.HasPrefix(line, n.Value)
}

var (
	doubleQuoted = regexp.MustCompile(`^"(?:[^"\\]|\\.)*"`)
	singleQuoted = regexp.MustCompile(`^'(?:[^']|'')*'`)
	plainText    = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./-]*$`)
)

// text is the value as YAML: plain where that reads back as the same, else in single quotes.
func (s Setting) text() string {
	switch v := s.Value.(type) {
	case int:
		return strconv.Itoa(v)
	case string:
		n := yaml.Node{Kind: yaml.ScalarNode, Value: v}
		if back, err := (&builder{}).scalar(&n); err == nil && back == any(v) && plainText.MatchString(v) {
			return v
		}
		return "'" + strings.ReplaceAll(v, "'", "''") + "'"
	}
	return fmt.Sprint(s.Value)
}

// onlySet reports whether after is before with the settings at path and nothing else changed. Top-level keys that begin
// with x- are left out: they are where people keep anchors, and Synapse reads none of them.
func onlySet(before, after any, path []string, set []Setting) bool {
	want, ok := withSet(before, path, set)
	return ok && reflect.DeepEqual(withoutExtensions(want), withoutExtensions(after))
}

// withSet copies what lies on the path, so that an object shared with another path stays as it was there.
func withSet(v any, path []string, set []Setting) (any, bool) {
	m, ok := v.(map[any]any)
	if !ok {
		return nil, false
	}
	m = maps.Clone(m)
	if len(path) > 0 {
		m[path[0]], ok = withSet(m[path[0]], path[1:], set)
		return m, ok
	}
	for _, s := range set {
		switch v := s.Value.(type) {
		case int:
			m[s.Keyword] = int64(v)
		default:
			m[s.Keyword] = v
		}
	}
	return m, true
}

func withoutExtensions(v any) any {
	m, ok := v.(map[any]any)
	if !ok {
		return v
	}
	m = maps.Clone(m)
	maps.DeleteFunc(m, func(k, _ any) bool {
		name, ok := k.(string)
		return ok && strings.HasPrefix(name, "x-")
	})
	return m
}
