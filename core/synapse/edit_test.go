package synapse

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var three = []Setting{{"keepalives_idle", 10}, {"keepalives_interval", 10}, {"keepalives_count", 3}}

func edit(t *testing.T, content, label string, set []Setting) (string, error) {
	t.Helper()
	splices, err := EditArgs([]byte(content), label, set)
	if err != nil {
		return "", err
	}
	out, err := Apply([]byte(content), splices)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), nil
}

func TestEditKeepsEveryOtherByte(t *testing.T) {
	const block = "    keepalives_idle: 10\n    keepalives_interval: 10\n    keepalives_count: 3\n"
	for name, tt := range map[string]struct{ before, after string }{
		"block": {
			"database:\n  name: psycopg2 # x\n  args:\n    user: a\n    host: b   # c\n\n# end\n",
			"database:\n  name: psycopg2 # x\n  args:\n    user: a\n    host: b   # c\n" + block + "\n# end\n"},
		"no final newline": {
			"database:\n  args:\n    host: b",
			"database:\n  args:\n    host: b\n" + strings.TrimSuffix(block, "\n")},
		"CRLF": {
			"database:\r\n  args:\r\n    host: b # c\r\n    cp_max: 5\r\n\r\nx: y\r\n",
			"database:\r\n  args:\r\n    host: b # c\r\n    cp_max: 5\r\n" + strings.ReplaceAll(block, "\n", "\r\n") + "\r\nx: y\r\n"},
		"CRLF without final newline": {
			"database:\r\n  args:\r\n    host: b",
			"database:\r\n  args:\r\n    host: b\r\n" + strings.ReplaceAll(strings.TrimSuffix(block, "\n"), "\n", "\r\n")},
		"byte order mark": {
			"\uFEFFdatabase: {args: {host: b}}\n",
			"\uFEFFdatabase: {args: {keepalives_idle: 10, keepalives_interval: 10, keepalives_count: 3, host: b}}\n"},
		"odd indentation": {
			"database:\n args:\n        host: b\n name: psycopg2\n",
			"database:\n args:\n        host: b\n        keepalives_idle: 10\n        keepalives_interval: 10\n        keepalives_count: 3\n name: psycopg2\n"},
		"quotes and umlauts": {
			"database:\n  args:\n    'host': \"bä\\\"b\"  # ü\n    \"user\": 'it''s'\t# t\n",
			"database:\n  args:\n    'host': \"bä\\\"b\"  # ü\n    \"user\": 'it''s'\t# t\n" + block},
		"last value is a block scalar": {
			"database:\n  args:\n    host: b\n    password: |\n      x\n\n      # y\n",
			"database:\n  args:\n    host: b\n" + block + "    password: |\n      x\n\n      # y\n"},
		"only a folded value": {
			"database:\n  args:\n    # one\n    options: a\n      b\n",
			"database:\n  args:\n    # one\n" + block + "    options: a\n      b\n"},
		"only a merge": {
			"x-pg: &pg\n  host: b\ndatabase:\n  args:\n    <<: *pg\n",
			"x-pg: &pg\n  host: b\ndatabase:\n  args:\n" + block + "    <<: *pg\n"},
		"comment after the last key": {
			"database:\n  args:\n    host: b\n    # keepalives_idle: 5\n",
			"database:\n  args:\n    host: b\n" + block + "    # keepalives_idle: 5\n"},
		"flow": {
			"database: {name: psycopg2, args: { \"a\" : b, c: 'd' } } # e\n",
			"database: {name: psycopg2, args: { \"keepalives_idle\": 10, \"keepalives_interval\": 10, \"keepalives_count\": 3, \"a\" : b, c: 'd' } } # e\n"},
		"flow over lines": {
			"database:\n  args: {\n    # c\n    host: b,\n    user: c }\n",
			"database:\n  args: {\n    # c\n    keepalives_idle: 10,\n    keepalives_interval: 10,\n    keepalives_count: 3,\n    host: b,\n    user: c }\n"},
		"empty braces": {
			"database:\n  args: { }\n",
			"database:\n  args: {keepalives_idle: 10, keepalives_interval: 10, keepalives_count: 3 }\n"},
		"empty braces with anchor": {
			"database:\n  args: &a {}\n",
			"database:\n  args: &a {keepalives_idle: 10, keepalives_interval: 10, keepalives_count: 3}\n"},
		"args is an alias of an extension": {
			"x-pg: &pg\n  host: b\ndatabase:\n  name: psycopg2\n  args: *pg\n",
			"x-pg: &pg\n  host: b\n  keepalives_idle: 10\n  keepalives_interval: 10\n  keepalives_count: 3\ndatabase:\n  name: psycopg2\n  args: *pg\n"},
		"values are replaced": {
			"database:\n  args:\n    keepalives_idle: 0 # off\n    host: b\n    keepalives_interval:   \"0\"\n    keepalives_count: # none\n",
			"database:\n  args:\n    keepalives_idle: 10 # off\n    host: b\n    keepalives_interval:   10\n    keepalives_count: 3 # none\n"},
		"empty value at the end": {
			"database:\n  args:\n    host: b\n    keepalives_idle: 10\n    keepalives_interval: ~\n    'keepalives_count':",
			"database:\n  args:\n    host: b\n    keepalives_idle: 10\n    keepalives_interval: 10\n    'keepalives_count': 3"},
		"replaced in flow": {
			"database: {args: {keepalives_idle: 0,keepalives_interval: null, keepalives_count: 3}}\n",
			"database: {args: {keepalives_idle: 10,keepalives_interval: 10, keepalives_count: 3}}\n"},
		"the last of duplicate sections": {
			"database:\n  args:\n    host: a\ndatabase:\n  args:\n    host: b\n",
			"database:\n  args:\n    host: a\ndatabase:\n  args:\n    host: b\n" + block},
		"nothing to do": {
			"database: {args: {keepalives_idle: 10, keepalives_interval: 10, keepalives_count: 3}}\n",
			"database: {args: {keepalives_idle: 10, keepalives_interval: 10, keepalives_count: 3}}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := edit(t, tt.before, "main", three)
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.after {
				t.Errorf("got\n%s\nwant\n%s", got, tt.after)
			}
		})
	}
}

func TestEditOneOfTwoDatabases(t *testing.T) {
	const before = "databases:\n  main:\n    args:\n      host: a\n  two:\n    args:\n      host: a\n"
	got, err := edit(t, before, "two", []Setting{{"keepalives", 1}})
	if err != nil {
		t.Fatal(err)
	}
	if got != before+"      keepalives: 1\n" {
		t.Errorf("got\n%s", got)
	}
}

func TestEditQuotesText(t *testing.T) {
	for value, want := range map[string]string{"verify-full": "verify-full", "yes": "'yes'", "it's": "'it''s'", "1:30": "'1:30'", "": "''", "a: b #": "'a: b #'", "/run/pg": "/run/pg"} {
		got, err := edit(t, "database: {args: {}}", "main", []Setting{{"sslmode", value}})
		if err != nil || got != "database: {args: {sslmode: "+want+"}}" {
			t.Errorf("%q: %s, %v", value, got, err)
		}
	}
}

func TestWhatCannotBeEditedIsExplained(t *testing.T) {
	for name, tt := range map[string]struct{ content, label, want string }{
		"args shared with another database": {
			"databases:\n  a:\n    args: &pg\n      host: b\n  b:\n    args: *pg\n", "a", "shared through an anchor"},
		"args merged into another database": {
			"databases:\n  a:\n    args: &pg\n      host: b\n  b:\n    args: {<<: *pg}\n", "a", "shared through an anchor"},
		"args is an alias of a real setting": {"redis: &pg\n  host: b\ndatabase:\n  args: *pg\n", "main", "shared through an anchor"},
		"value shared through an anchor":     {"a: &v 5\ndatabase:\n  args:\n    keepalives_idle: *v\n", "main", "the value of keepalives_idle is written in a form"},
		"value with an anchor":               {"database:\n  args:\n    keepalives_idle: &v 5\n    x: *v\n", "main", "the value of keepalives_idle is written in a form"},
		"value with a tag":                   {"database:\n  args:\n    keepalives_idle: !!int 5\n", "main", "the value of keepalives_idle is written in a form"},
		"no section":                         {"server_name: a\n", "main", "the file has no databases: main: args"},
		"no args":                            {"database:\n  name: psycopg2\n", "main", "the file has no database: args"},
		"args null":                          {"database:\n  args:\n", "main", "args is not a mapping"},
		"unknown label":                      {"databases: {a: {args: {}}}\n", "b", "the file has no databases: b: args"},
		"empty file":                         {"", "main", "the file has no databases: main: args"},
		"bare carriage returns":              {"database:\r  args:\r    host: b\r", "main", "unusual line ends"},
		"explicit keys":                      {"database:\n  args:\n    ? host\n    : b\n", "main", "do not stand on lines of their own"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := edit(t, tt.content, tt.label, three)
			refused, ok := errors.AsType[*EditError](err)
			if !ok || !strings.Contains(refused.Reason, tt.want) {
				t.Fatalf("got %q, %v, want a refusal: %s", got, err, tt.want)
			}
			const byHand = "by hand:\n    keepalives_idle: 10\n    keepalives_interval: 10\n    keepalives_count: 3"
			if !strings.HasSuffix(err.Error(), byHand) {
				t.Errorf("the lines to add are missing: %v", err)
			}
		})
	}
	if _, err := EditArgs([]byte("a: b: c"), "main", three); !strings.Contains(err.Error(), "not valid YAML") {
		t.Errorf("broken file: %v", err)
	}
}

func TestApplyRefusesAnotherText(t *testing.T) {
	for _, s := range [][]Splice{
		{{Offset: 0, Old: []byte("x")}},
		{{Offset: 2, Old: []byte("cd")}},
		{{Offset: 2}, {Offset: 1}},
	} {
		if _, err := Apply([]byte("abc"), s); err == nil {
			t.Errorf("%v was applied", s)
		}
	}
}

var aSetting = regexp.MustCompile(`keepalives_(?:idle|interval|count)`)

// FuzzEditArgs: an edit is refused, or means the old document plus the settings to this package and to the YAML library
// alike, keeps all comments, and takes nothing away but the values that it replaces.
func FuzzEditArgs(f *testing.F) {
	for _, seed := range []string{
		"database:\n  args:\n    host: b # c\n",
		"database: {args: {host: b, keepalives_idle: 0}}",
		"database:\r\n  args: {\r\n   # d\r\n   'a': \"b\",\r\n c: d}\r\n",
		"\uFEFFdatabase:\n  args: &x\n    <<: {a: b}\n    ? c\n    : d\n",
		"x-a: &a {b: c}\ndatabase:\n  args: *a\n",
		"databases:\n  main:\n    args:\n      p: |\n        x\n      q: a\n       b\n      keepalives_count:\n",
		"database:\n- args\n", "database:\n  args:\n    keepalives_idle: !!str 'x' # y", "{database: {args: {? a}}}", "database:\n  args: {}",
		"database:\n  ? args\n  : host: x\n    user: y\n", "%YAML 1.1\n---\ndatabase:\n  args:\n    a: 'x\n\n     y'\n...\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		splices, err := EditArgs([]byte(content), MainLabel, three)
		if err != nil {
			return
		}
		edited, err := Apply([]byte(content), splices)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range splices {
			if bytes.ContainsAny(s.Old, "\n#") && s.Old[0] != '"' && s.Old[0] != '\'' {
				t.Errorf("takes away %q", s.Old)
			}
			if len(s.Old) == 0 && !aSetting.Match(s.New) && len(strings.TrimSpace(string(s.New))) > 2 {
				t.Errorf("adds %q", s.New)
			}
		}
		before, after := nodes(t, content), nodes(t, string(edited))
		if b, a := comments(before), comments(after); !slices.Equal(b, a) {
			t.Errorf("comments %q became %q", b, a)
		}
		was, is := plain(before), plain(after)
		if was == nil || is == nil {
			return // the library refuses what PyYAML accepts: duplicate keys
		}
		section, _ := is["database"].(map[string]any)
		if section == nil {
			many, _ := is["databases"].(map[string]any)
			section, _ = many["main"].(map[string]any)
		}
		args, _ := section["args"].(map[string]any)
		for _, s := range three {
			if args[s.Keyword] != s.Value {
				t.Errorf("%s is %v", s.Keyword, args[s.Keyword])
			}
		}
		if !reflect.DeepEqual(forget(was), forget(is)) {
			t.Errorf("%v became %v", was, is)
		}
	})
}

func nodes(t *testing.T, content string) *yaml.Node {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(content), &n); err != nil {
		t.Fatal(err)
	}
	return &n
}

// comments are the words of all comments: an insertion may divide a block of them between two keys.
func comments(n *yaml.Node) []string {
	var all []string
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		for _, c := range []string{n.HeadComment, n.LineComment, n.FootComment} {
			all = append(all, strings.Fields(c)...)
		}
		for _, c := range n.Content {
			walk(c)
		}
	}
	walk(n)
	slices.Sort(all)
	return all
}

// plain is what the library makes of it, with all keys as text.
func plain(n *yaml.Node) map[string]any {
	var v any
	if n.Decode(&v) != nil {
		return nil
	}
	m, _ := texts(v).(map[string]any)
	return m
}

func texts(v any) any {
	out := map[string]any{}
	switch v := v.(type) {
	case map[string]any:
		for k, v := range v {
			out[k] = texts(v)
		}
	case map[any]any:
		for k, v := range v {
			out[fmt.Sprintf("%#v", k)] = texts(v)
			if s, ok := k.(string); ok {
				out[s] = texts(v)
			}
		}
	case []any:
		for i, item := range v {
			out[strconv.Itoa(i)] = texts(item)
		}
	case float64:
		return fmt.Sprint(v) // NaN is not equal to itself
	default:
		return v
	}
	return out
}

// forget empties what the settings may change.
func forget(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	rest := map[string]any{}
	for k, v := range m {
		if !aSetting.MatchString(k) {
			rest[k] = forget(v)
		}
	}
	return rest
}
