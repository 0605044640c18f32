package report

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestProseWrapsAtWords(t *testing.T) {
	for _, c := range []struct {
		in   string
		w    int
		want []string
	}{
		{"one two three", 7, []string{"one two", "three"}},
		{"one\ntwo", 7, []string{"one", "two"}},
		{"", 7, []string{""}},
		{"events_stream_seq", 8, []string{"events_", "stream_", "seq"}},
		{"数据库 编码", 6, []string{"数据库", "编码"}},
		{"数据库编码", 5, []string{"数据", "库编", "码"}},
		{"a 😀😀😀", 4, []string{"a", "😀😀", "😀"}},
		{"e\u0301e\u0301e\u0301", 2, []string{"e\u0301e\u0301", "e\u0301"}},
		{"你", 1, []string{"你"}},
	} {
		if got := wrap(c.in, c.w); !slices.Equal(got, c.want) {
			t.Errorf("wrap(%q, %d) = %q, want %q", c.in, c.w, got, c.want)
		}
	}
}

func TestIndentedLinesAreCopiedAsTheyAre(t *testing.T) {
	got := blocks("Do this\nnow:\n\n    line one\n      deeper\n\n    line three\n\nThen\n- a\n- b")
	want := []block{{false, "Do this now:"}, {true, "line one\n  deeper\n\nline three"}, {false, "Then\n- a\n- b"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestAPageReadsWellOnATerminal(t *testing.T) {
	const page = "# sequence\n\nA **long** paragraph with `code` that\nis wrapped [here](https://example.org).\n\n## sequence/behind-table\n\n- first item of a list that wraps\n- second\n\n```sql\nSELECT a FROM t;\n\n  indented\n```\n\nEnd \x1b[31m."
	const want = `sequence
────────

A long paragraph with code that is
wrapped here (https://example.org).

sequence/behind-table
─────────────────────

- first item of a list that wraps
- second

    SELECT a FROM t;

      indented

End \x1b[31m.
`
	var b bytes.Buffer
	if err := Page(&b, page, Options{Width: 40}); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if strings.Contains(b.String(), "\x1b") {
		t.Error("an escape came through")
	}
}

func TestSuggestedCommandsCanBePasted(t *testing.T) {
	o := Options{Flags: []string{"-c", "/etc/my synapse/it's.yaml"}}
	if got, want := o.command("fix", "sequence"), `synapse-doctor fix sequence -c '/etc/my synapse/it'\''s.yaml'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
