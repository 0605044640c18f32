package ident

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestTokens(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"local all all peer", "[local] [all] [all] [peer]"},
		{"a, b,c d", "[a b c] [d]"},
		{"a ,b", "[a] [b]"},
		{",a", "[a]"},
		{"a,", "[a]"},
		{"a, # b", "[a]"},
		{"a#b c", "[a]"},
		{`"a b",'c'`, `["a b" 'c']`},
		{`"a""b"`, `["a"b"]`},
		{`a"b c"d`, "[ab cd]"},
		{`"a,b#"`, `["a,b#"]`},
		{`""`, `[""]`},
		{`a""`, "[a]"},
		{`""a`, `["a"]`},
		{`"a b`, `["a b"]`},
		{"a\tb\rc", "[a] [b] [c]"},
		{"a\vb", "[a\vb]"},
		{"@ b", "[@] [b]"},
		{`"@b"`, `["@b"]`},
	} {
		var fields []string
		for _, field := range tokensOf(c.line) {
			fields = append(fields, fmt.Sprint(field))
		}
		if got := strings.Join(fields, " "); got != c.want {
			t.Errorf("%q: %s, and not %s", c.line, got, c.want)
		}
	}
}

func tokensOf(text string) [][]string {
	r := reader{major: 17}
	l := line{text: text, secret: -1}
	r.split(&l, 0)
	var fields [][]string
	for _, field := range l.fields {
		var texts []string
		for _, t := range field {
			if t.Quoted {
				t.Text = `"` + t.Text + `"`
			}
			texts = append(texts, t.Text)
		}
		fields = append(fields, texts)
	}
	return fields
}

func TestLogicalLines(t *testing.T) {
	for _, c := range []struct {
		content string
		want    []string
		open    bool
	}{
		{"", nil, false},
		{"a", []string{"1 a"}, true},
		{"a\nb\n", []string{"1 a", "2 b"}, false},
		{"a\\\nb\nc\n", []string{"1 ab", "3 c"}, false},
		{"a\\\r\nb\r\r\nc", []string{"1 ab", "3 c"}, true},
		{"a\\\\\n\nb\n", []string{`1 a\`, "3 b"}, false},
		{"a\\ \nb\n", []string{`1 a\ `, "2 b"}, false},
		{"# a\\\nb\n", []string{"1 # ab"}, false},
		{"a\\\n", []string{"1 a"}, true},
		{"a\\", []string{"1 a"}, true},
		{"a\x00b\nc\nd\n", []string{"1 ac", "2 d"}, false},
		{"a\x00b\n", []string{"1 a"}, true},
	} {
		lines := logicalLines([]byte(c.content))
		var got []string
		for _, l := range lines {
			got = append(got, fmt.Sprint(l.number, " ", l.text))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, and not %q", c.content, got, c.want)
		}
		if len(lines) > 0 && lines[len(lines)-1].open != c.open {
			t.Errorf("%q: open is not %v", c.content, c.open)
		}
	}
}
