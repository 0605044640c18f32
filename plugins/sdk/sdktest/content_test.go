package sdktest

import (
	"strings"
	"testing"
)

func TestADifferenceShowsTheRows(t *testing.T) {
	before := map[string]string{"pushers": "(1,a)\n(1,a)\n(2,b)", "positions": "7 true", "same": "x"}
	after := map[string]string{"pushers": "(1,a)\n(3,c)", "positions": "8 true", "same": "x", "new": ""}
	names := differing(before, after)
	want := `
  new
  positions
    - 7 true
    + 8 true
  pushers
    - (1,a)
    - (2,b)
    + (3,c)`
	if got := difference(names, before, after); got != want {
		t.Errorf("got%s\nwant%s", got, want)
	}
}

func TestADifferenceIsBounded(t *testing.T) {
	before := map[string]string{"t": ""}
	after := map[string]string{"t": strings.Repeat("row\n", 8) + strings.Repeat("é", mostOfRow+1)}
	got := difference([]string{"t"}, before, after)
	if want := "\n  t" + strings.Repeat("\n    + row", mostShown) + "\n    + … and 4 more"; got != want {
		t.Errorf("got%s\nwant%s", got, want)
	}
}
