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
		`SELECT $1.f, $2 .g, $1$a$h($a$`:      "f g",
		`WITH a AS (SELECT 1), b AS (INSERT INTO t SELECT 1) INSERT INTO t SELECT "into" FROM (SELECT 1) x`: "as as from",
		`MERGE INTO t USING (SELECT 1) s ON true WHEN NOT MATCHED THEN INSERT (a) VALUES ("treat"(1))`:      "using insert values treat",
		"SELECT 1/*/* */*/+-- f(\r g(1), 'a'\n'b', N'h(', B'1', x'2'":                                       "g",
	} {
		got, err := functionsOf(text)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "  ", "COMMIT", "(SELECT 1)", "SELECT 1; SELECT 2", "SELECT 'a", `SELECT "a`, "SELECT /* a", "SELECT $a$ b",
		`SELECT E'\''`, `SELECT e'x'`, `SELECT U&"x"`, "SELECT U&'x'", "EXPLAIN SELECT 1", "set x = 1", "--\n/*SELECT*/CALL p()",
		"SELECT 1 INTO t", "SELECT 1 into TEMP t", "WITH insert AS (SELECT 1) SELECT (1) insert INTO t", "WITH x AS (SELECT 1) SELECT 1 AS insert INTO t",
		"SELECT (SELECT 1) INTO t UNION SELECT 2", "SELECT TREAT(5 AS pg_sleep)", "SELECT treat /* */ (5 AS pg_sleep)",
		"LOCK t", "TRUNCATE t CASCADE", "RESET ALL", "SET ROLE x", "LISTEN x", "NOTIFY x", "PREPARE x AS SELECT 1", "EXECUTE x", "PREPARE TRANSACTION 'x'",
		"COPY t TO PROGRAM 'x'", "ALTER TABLE t ADD a int", "DROP TABLE t CASCADE", "CREATE TRIGGER t", "GRANT SELECT ON t TO x", "COMMENT ON TABLE t IS ''",
		"REINDEX TABLE t", "CLUSTER t", "VACUUM t", "ANALYZE", "REFRESH MATERIALIZED VIEW t", "DECLARE c CURSOR FOR SELECT 1", "TABLE t", "SAVEPOINT s",
		"ROLLBACK", "DISCARD ALL", "LOAD 'x'", "CHECKPOINT", "DO ''", "IMPORT FOREIGN SCHEMA x", "SECURITY LABEL ON TABLE t IS ''"} {
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
