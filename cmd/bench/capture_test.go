package main

import (
	"strings"
	"testing"
)

func TestParametersAreWrittenIntoTheStatement(t *testing.T) {
	for _, c := range []struct{ name, sql, detail, want string }{
		{"none", `SELECT 1`, ``, `SELECT 1`},
		{"several", `SELECT $2, $1, $2`, `parameters: $1 = 'a', $2 = NULL`, `SELECT NULL, 'a', NULL`},
		{"quotes, commas and what looks like a parameter", `SELECT $1, $2`, `Parameters: $1 = 'it''s, $2 = ''x''', $2 = 'b'`,
			`SELECT 'it''s, $2 = ''x''', 'b'`},
		{"more than nine", `SELECT $1, $10`, `parameters: $1 = 'a', $10 = 'j'`, `SELECT 'a', 'j'`},
		{"strings and quoted names stay", `SELECT '$1 ''$1', "a$1", $1`, `parameters: $1 = '7'`, `SELECT '$1 ''$1', "a$1", '7'`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := withParameters(c.sql, c.detail)
			if err != nil || got != c.want {
				t.Errorf("got %s, %v; want %s", got, err, c.want)
			}
		})
	}
	if got, err := withParameters(`SELECT $1, $2`, `parameters: $1 = 'a'`); err == nil {
		t.Errorf("a parameter without a value became %s", got)
	}
}

func TestSessionsAreSentOneAfterTheOther(t *testing.T) {
	record := func(session, message, detail string) []string {
		r := make([]string, 26)
		r[csvSession], r[csvMessage], r[csvDetail] = session, message, detail
		return r
	}
	s, err := statements([][]string{
		record("a", "statement: BEGIN", ""),
		record("b", "statement: BEGIN; SET LOCAL x = 1;", ""),
		record("a", "execute <unnamed>: SELECT $1\nFROM t", "parameters: $1 = '1'"),
		record("b", "could not do it", ""),
		record("b", "execute stmtcache_1: SELECT 2", ""),
		record("a", "statement: rollback", ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "BEGIN;\nSELECT '1'\nFROM t;\nrollback;\nBEGIN; SET LOCAL x = 1;\nSELECT 2;\n"
	if s.text != want || s.statements != 5 || s.sessions != 2 {
		t.Errorf("%d statements of %d sessions:\n%s\nwant:\n%s", s.statements, s.sessions, s.text, want)
	}
	if s, err := statements(nil); err == nil || !strings.Contains(err.Error(), "no statement") {
		t.Errorf("an empty log: %v, %v", s, err)
	}
}
