package database

import (
	"slices"
	"testing"
)

func TestASearchPathIsTakenApartAsTheServerDoes(t *testing.T) {
	for value, want := range map[string][]string{
		`"$user", public`:      {"$user", "public"},
		`"nowhere, public"`:    {"nowhere, public"},
		` a ,B,"C ""d"" , e" `: {"a", "b", `C "d" , e`},
		`""`:                   {""},
		``:                     nil,
		`a b`:                  nil,
		`"open`:                nil,
		"größe,\tpublic":       {"größe", "public"},
	} {
		if got := splitPath(value); !slices.Equal(got, want) {
			t.Errorf("splitPath(%q) = %q, want %q", value, got, want)
		}
	}
}

func TestOptionsAreReadAsTheServerReadsThem(t *testing.T) {
	for _, c := range []struct {
		options, want string
		found         bool
	}{
		{`-c search_path=a`, "a", true},
		{`-csearch_path=a -c geqo=off`, "a", true},
		{`--search-path=a`, "a", true},
		{`--SEARCH_PATH=a -c search_path=b`, "b", true},
		{`-c search_path=a,\ b`, "a, b", true},
		{"-c\tgeqo=off  -c   search_path=x\\\\y ", `x\y`, true},
		{`-c geqo=off`, "", false},
		{`-c`, "", false},
		{`search_path=a`, "", false},
		{``, "", false},
	} {
		if got, found := option(c.options, "search_path"); got != c.want || found != c.found {
			t.Errorf("option(%q) = %q, %t", c.options, got, found)
		}
	}
}
