package doctor

import "testing"

func TestCleanMakesEveryControlCharacterVisible(t *testing.T) {
	for _, c := range []struct{ in, line, text string }{
		{"plain, größer, 你好, 👩\u200d👩\u200d👧, می\u200cخواهم", "plain, größer, 你好, 👩\u200d👩\u200d👧, می\u200cخواهم", "plain, größer, 你好, 👩\u200d👩\u200d👧, می\u200cخواهم"},
		{"\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`, `\x1b[31mred\x1b[0m`},
		{"\x1b]0;title\a", `\x1b]0;title\x07`, `\x1b]0;title\x07`},
		{"\u009b31m", `\u009b31m`, `\u009b31m`},
		{"a\r\nb\rc\td\n", `a\r\nb\rc\td\n`, "a\nb\\rc\td\n"},
		{"user\u202egnp.exe\u2066x\u200b\ufeff", `user\u202egnp.exe\u2066x\u200b\ufeff`, `user\u202egnp.exe\u2066x\u200b\ufeff`},
		{"one\u2028two", `one\u2028two`, `one\u2028two`},
		{"bad\xff\xc3", `bad\xff\xc3`, `bad\xff\xc3`},
		{"kept \ufffd", "kept \ufffd", "kept \ufffd"},
		{"\U000e0041", `\U000e0041`, `\U000e0041`},
		{"\x00\x7f", `\x00\x7f`, `\x00\x7f`},
	} {
		if got := Clean(c.in); got != c.line {
			t.Errorf("Clean(%q) = %q, want %q", c.in, got, c.line)
		}
		if got := CleanText(c.in); got != c.text {
			t.Errorf("CleanText(%q) = %q, want %q", c.in, got, c.text)
		}
		if got := Clean(Clean(c.in)); got != Clean(c.in) {
			t.Errorf("Clean is not stable on %q", c.in)
		}
	}
}
