package engine

import (
	"slices"
	"strings"
	"testing"
)

func TestFunctionsOfAStatement(t *testing.T) {
	for text, want := range map[string]string{
		`SELECT f(1), g ( $1 ), "H" /* x */ (2), 'i(' || $$j($$ || $t$k($t$, l."m"(3);`: "f g H m m",
		"select /* a /* b */ setval( */ 1 -- setval(\n, x(1)":                           "x",
		`SELECT 'it''s (' , "a""b"(1), a$b$c(2), 1e5, 2.5, $1`:                          `a"b a$b$c`,
		`SELECT (5).pg_sleep, ("x") . "lo_unlink" FROM a.b`:                             "select pg_sleep lo_unlink b",
		`SELECT 'back\', now()`:               "now",
		`INSERT INTO t (a, b) VALUES ($1, E)`: "t values",
	} {
		got, err := functionsOf(text)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "  ", "COMMIT", "(SELECT 1)", "SELECT 1; SELECT 2", "SELECT 'a", `SELECT "a`, "SELECT /* a", "SELECT $a$ b",
		`SELECT E'\''`, `SELECT e'x'`, `SELECT U&"x"`, "SELECT U&'x'", "EXPLAIN SELECT 1", "set x = 1", "--\n/*SELECT*/CALL p()"} {
		if names, err := functionsOf(text); err == nil {
			t.Errorf("%s is taken: %q", text, names)
		}
	}
}

func FuzzFunctionsOf(f *testing.F) {
	f.Add("SELECT f(1) /* */ $$x$$ 'a''b' \"c\" -- d")
	f.Fuzz(func(t *testing.T, text string) {
		names, err := functionsOf(text)
		if err == nil && slices.Contains(names, "") && !strings.Contains(text, `""`) {
			t.Errorf("a name that is none in %q", text)
		}
	})
}
