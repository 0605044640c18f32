package synapse

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Section is a database section for PostgreSQL, as it is to be written.
type Section struct {
	Args   []Setting // of args, in their order
	Others []Setting // beside name and args, such as allow_unsafe_locale
	// Password: args have a password. Its value in Args is not the password, but what was given to [ReadSection] for it.
	Password bool
}

// ReadSection reads the database section of a file, which may hold nothing else. The password is replaced by mask, which
// is written in double quotes. A file whose section can't be written again as it means, or holds another secret than the
// password, gives an error.
func ReadSection(file, mask string) (Section, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return Section{}, unreadable(file, err)
	}
	doc, err := parseDocument(file, content)
	if err != nil {
		return Section{}, err
	}
	fail := func(n *yaml.Node, msg string) (Section, error) {
		return Section{}, &ConfigError{File: file, Line: lineOf(n), Msg: msg}
	}
	if doc.root == nil {
		return fail(nil, "there is no database section")
	}
	_, section := lookup(doc.root, "database")
	if section == nil {
		return fail(nil, "there is no database section")
	}
	_, args := lookup(section, "args")
	var s Section
	if args == nil {
		return fail(section, "the database section has no args")
	}
	if name, _ := lookup(section, "name"); name == nil {
		return fail(section, "the database section has no name: psycopg2")
	}
	top, _ := doc.value.(map[any]any)
	values, _ := top["database"].(map[any]any)
	if values["name"] != Psycopg2 {
		return fail(section, "the database section is not one of PostgreSQL: its name must be psycopg2")
	}
	argValues, ok := values["args"].(map[any]any)
	if !ok {
		return fail(args, "args must be a mapping of connection settings, such as host: localhost")
	}
	if s.Others, err = scalars(file, section, values, "name", "args"); err != nil {
		return Section{}, err
	}
	if s.Args, err = scalars(file, args, argValues); err != nil {
		return Section{}, err
	}
	for i, a := range s.Args {
		switch {
		case a.Keyword == "password":
			s.Password, s.Args[i].Value = true, masked(mask)
		case secretName.MatchString(a.Keyword):
			return fail(args, a.Keyword+" holds a secret that the doctor does not write into another file")
		}
	}
	return s, nil
}

// masked is a text that stands in double quotes, for something else to take its place.
type masked string

// scalars are the settings of a mapping, in the order in which they stand, but for those left out.
func scalars(file string, n *yaml.Node, values map[any]any, without ...string) ([]Setting, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	var set []Setting
	for k := range pairs(n) {
		v, there := values[k.Value]
		if isMerge(k) || !there {
			return nil, &ConfigError{File: file, Line: lineOf(k), Msg: "the database section is written in a form that the doctor does not copy (an anchor, or a key that is no text)"}
		}
		if slices.Contains(without, k.Value) || slices.ContainsFunc(set, func(s Setting) bool { return s.Keyword == k.Value }) {
			continue
		}
		switch v := v.(type) {
		case nil:
			set = append(set, Setting{k.Value, nil})
		case int64:
			set = append(set, Setting{k.Value, int(v)})
		case string, bool:
			set = append(set, Setting{k.Value, v})
		default:
			return nil, &ConfigError{File: file, Line: lineOf(k), Msg: k.Value + " is not a value that the doctor copies: a text, a whole number, true or false"}
		}
	}
	return set, nil
}

// Lines are the section as YAML.
func (s Section) Lines() []string {
	lines := []string{"database:", "  name: " + Psycopg2}
	for _, o := range s.Others {
		lines = append(lines, "  "+o.written())
	}
	lines = append(lines, "  args:")
	for _, a := range s.Args {
		lines = append(lines, "    "+a.written())
	}
	return lines
}

func (s Setting) written() string {
	switch v := s.Value.(type) {
	case nil:
		return s.Keyword + ": null"
	case masked:
		return s.Keyword + `: "` + string(v) + `"`
	}
	return s.Keyword + ": " + s.text()
}

func (s Setting) meant() any {
	switch v := s.Value.(type) {
	case int:
		return int64(v)
	case masked:
		return string(v)
	}
	return s.Value
}

// EditDatabase returns the splices that make a file's database section, which is one of SQLite, the section s. Comments,
// and what else the section says, stay; the path of the SQLite file goes. The outcome is read again and must mean the old
// document with this section. Where that can't be had, the error is an [*EditError]; a file that can't be read gives a
// [*ConfigError].
func EditDatabase(content []byte, s Section) ([]Splice, error) {
	refuse := func(reason string) error {
		return &EditError{Label: MainLabel, Reason: reason, Lines: s.Lines()}
	}
	before, err := parseDocument("", content)
	if err != nil {
		return nil, err
	}
	top, ok := before.value.(map[any]any)
	if !ok {
		return nil, refuse("the file holds no settings")
	}
	section, ok := top["database"].(map[any]any)
	if !ok {
		return nil, refuse("the file has no database section")
	}
	if name, there := section["name"]; there && name != SQLite3 {
		return nil, refuse("the database section is not one of SQLite")
	}
	ed, err := newEditor(content, before.root, MainLabel)
	if err != nil {
		return nil, refuse(err.Error())
	}
	splices, err := ed.section(before.root, section, s)
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
	want := map[any]any{}
	for k, v := range top {
		want[k] = v
	}
	want["database"] = s.replacing(section)
	if !reflect.DeepEqual(withoutExtensions(want), withoutExtensions(after.value)) {
		return nil, refuse("an edit there would change something else too: the section is shared through an anchor (&name), or its form is unusual")
	}
	return splices, nil
}

// replacing is what the section means afterwards.
func (s Section) replacing(old map[any]any) map[any]any {
	args := map[any]any{}
	for _, a := range s.Args {
		args[a.Keyword] = a.meant()
	}
	out := map[any]any{}
	for k, v := range old {
		out[k] = v
	}
	for _, o := range s.Others {
		out[o.Keyword] = o.meant()
	}
	out["name"], out["args"] = Psycopg2, args
	return out
}

func (e *editor) section(root *yaml.Node, values map[any]any, s Section) ([]Splice, error) {
	_, section := lookup(root, "database")
	if section.Kind != yaml.MappingNode {
		return nil, errors.New("the database section is shared through an anchor (&name)")
	}
	if len(e.args.Content) == 0 || len(s.Args) == 0 {
		return nil, errors.New("args is empty")
	}
	var splices []Splice
	var others []Setting
	for _, o := range s.Others {
		if v, there := values[o.Keyword]; !there {
			others = append(others, o)
		} else if !reflect.DeepEqual(v, o.meant()) {
			return nil, fmt.Errorf("the section has another %s than the new one", o.Keyword)
		}
	}
	name, err := e.name(section, others)
	if err != nil {
		return nil, err
	}
	args, err := e.replaceArgs(s.Args)
	if err != nil {
		return nil, err
	}
	splices = append(append(splices, name), args...)
	slices.SortFunc(splices, func(a, b Splice) int { return int(a.Offset - b.Offset) })
	return splices, nil
}

// name makes sqlite3 psycopg2, and puts what else the section needs beside it.
func (e *editor) name(section *yaml.Node, others []Setting) (Splice, error) {
	unclear := errors.New("the name of the database is written in a form that the doctor does not edit")
	k, v := ownPair(section, "name")
	at := k
	if k == nil { // sqlite3 is the default
		if len(section.Content) == 0 {
			return Splice{}, unclear
		}
		at = section.Content[0]
	}
	between := ", "
	if section.Style&yaml.FlowStyle == 0 {
		margin, err := e.margin(at)
		if err != nil {
			return Splice{}, err
		}
		between = e.lineEnd() + margin
	}
	text := ""
	for _, o := range others {
		text += between + o.written()
	}
	if k == nil {
		start, err := e.offset(at)
		if err != nil {
			return Splice{}, err
		}
		return Splice{Offset: int64(start), New: []byte("name: " + Psycopg2 + text + between)}, nil
	}
	start, end, ok := e.scalarSpan(v)
	if !ok {
		return Splice{}, unclear
	}
	quote := ""
	if v.Style&yaml.DoubleQuotedStyle != 0 {
		quote = `"`
	}
	if text != "" && section.Style&yaml.FlowStyle == 0 && len(bytes.TrimSpace(e.line(end))) > 0 {
		return Splice{}, errors.New("a comment stands behind the name of the database, where lines have to be added")
	}
	return Splice{Offset: int64(start), Old: slices.Clone(e.content[start:end]), New: []byte(quote + Psycopg2 + quote + text)}, nil
}

// replaceArgs writes the settings in the place of the first pair of args, and takes the others out.
func (e *editor) replaceArgs(set []Setting) ([]Splice, error) {
	unclear := errors.New("args of the database are written in a form that the doctor does not edit")
	flow := e.args.Style&yaml.FlowStyle != 0
	if flow && len(e.args.Content) > 2 {
		return nil, unclear
	}
	var splices []Splice
	for i := 0; i+1 < len(e.args.Content); i += 2 {
		k, v := e.args.Content[i], e.args.Content[i+1]
		start, err := e.offset(k)
		if err != nil {
			return nil, err
		}
		_, end, ok := e.scalarSpan(v)
		if !ok || v.Line != k.Line {
			return nil, unclear
		}
		if i > 0 { // a whole line, with the comment about it
			if _, err := e.margin(k); err != nil {
				return nil, err
			}
			from, to := e.starts[k.Line-1], end+len(e.line(end))
			if to < len(e.content) {
				to++
			}
			splices = append(splices, Splice{Offset: int64(from), Old: slices.Clone(e.content[from:to])})
			continue
		}
		between := ", "
		if !flow {
			margin, err := e.margin(k)
			if err != nil {
				return nil, err
			}
			between = e.lineEnd() + margin
			end += len(bytes.TrimRight(e.line(end), "\r")) // a comment there is about the file
		}
		var written []string
		for _, s := range set {
			text := s.written()
			if flow && k.Style&yaml.DoubleQuotedStyle != 0 {
				text = `"` + s.Keyword + `"` + strings.TrimPrefix(text, s.Keyword) // JSON stays JSON
			}
			written = append(written, text)
		}
		comment := ""
		if !flow {
			if c := bytes.TrimSpace(e.content[endOfValue(e, v):end]); len(c) > 0 {
				comment = string(c) + between
			}
		}
		splices = append(splices, Splice{Offset: int64(start), Old: slices.Clone(e.content[start:end]), New: []byte(comment + strings.Join(written, between))})
	}
	return splices, nil
}

func endOfValue(e *editor, v *yaml.Node) int {
	_, end, _ := e.scalarSpan(v)
	return end
}
