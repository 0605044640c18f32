package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// What begins a statement of a third party. Others could end the transaction, or change the session that it is watched in.
var guestVerbs = []string{"select", "with", "values", "insert", "update", "delete", "merge"}

// functionsOf reads a third party's statement as PostgreSQL's scanner does (scan.l), and returns the names that may be called
// in it: before a parenthesis, or after a dot, since (5).pg_sleep is a call as well. It refuses what is not one statement of
// the verbs that are allowed, and the spellings behind which a name could hide. SELECT … INTO is refused because EXPLAIN does
// not show it: after SELECT no INTO can follow between the same parentheses otherwise.
func functionsOf(text string) ([]string, error) {
	s := scanner{text: text}
	var before token
	var names []string
	selects := []bool{false} // whether SELECT has come, for each parenthesis that is open
	for first := true; ; first = false {
		t, err := s.next()
		if err != nil {
			return nil, err
		}
		last := len(selects) - 1
		switch {
		case first && (t.kind != word || !slices.Contains(guestVerbs, t.text)):
			return nil, fmt.Errorf("has a statement that does not begin with %s, as a third party's must: what else there is to do "+
				"is for an operation, or for a manual step", strings.ToUpper(strings.Join(guestVerbs, ", ")))
		case t.kind == word && t.text == "into" && selects[last]:
			return nil, errors.New("makes a table by SELECT … INTO")
		case t.kind == other && t.text == "(" && before.kind == word && before.text == "treat":
			return nil, errors.New("has a TREAT(…), which calls a function by the name of a type: call it by its own")
		}
		switch {
		case t.kind == word && t.text == "select":
			selects[last] = true
		case t.kind == other && t.text == "(":
			selects = append(selects, false)
		case t.kind == other && t.text == ")" && last > 0:
			selects = selects[:last]
		}
		switch {
		case t.kind == end:
			return names, nil
		case (t.kind == word || t.kind == quotedWord) && before.kind == other && before.text == ".":
			names = append(names, t.text)
		case t.kind == other && t.text == "(" && (before.kind == word || before.kind == quotedWord):
			names = append(names, before.text)
		case t.kind == other && t.text == ";":
			if t, err := s.next(); err != nil || t.kind != end {
				return nil, errors.New("has several statements in one")
			}
			return names, nil
		}
		before = t
	}
}

type tokenKind int

const (
	end        tokenKind = iota
	word                 // in lower case
	quotedWord           // as it is
	literal
	other // one byte, or an argument
)

type token struct {
	kind tokenKind
	text string
}

// scanner splits a statement into tokens. Strings are read as with standard_conforming_strings.
type scanner struct {
	text string
	at   int
}

var errUnended = errors.New("has a statement that ends within a string, a name or a comment")

func (s *scanner) rest() string { return s.text[s.at:] }

func (s *scanner) next() (token, error) {
	if err := s.skip(); err != nil {
		return token{}, err
	}
	rest := s.rest()
	if rest == "" {
		return token{}, nil
	}
	switch c := rest[0]; {
	case c == '\'':
		_, err := s.quoted('\'')
		return token{kind: literal}, err
	case c == '"':
		text, err := s.quoted('"')
		return token{quotedWord, text}, err
	case c == '$':
		if tag := dollarTag(rest); tag != "" {
			n := strings.Index(rest[len(tag):], tag)
			if n < 0 {
				return token{}, errUnended
			}
			s.at += 2*len(tag) + n
			return token{kind: literal}, nil
		}
		// An argument. Its number has no fraction: $1.f calls f.
		n := 1
		for n < len(rest) && isDigit(rest[n]) {
			n++
		}
		s.at += n
		return token{other, rest[:n]}, nil
	case isNameStart(c):
		n := 1
		for n < len(rest) && (isNameStart(rest[n]) || isDigit(rest[n]) || rest[n] == '$') {
			n++
		}
		name := lower(rest[:n])
		after := rest[n:]
		if name == "e" && strings.HasPrefix(after, "'") || name == "u" && (strings.HasPrefix(after, "&'") || strings.HasPrefix(after, `&"`)) {
			return token{}, errors.New("has a string or a name with escapes (E'…', U&'…', U&\"…\"): put such a text into an argument")
		}
		s.at += n
		return token{word, name}, nil
	case isDigit(c):
		n := 1
		for n < len(rest) && (isDigit(rest[n]) || rest[n] == '.') {
			n++
		}
		s.at += n
		return token{kind: literal}, nil
	}
	s.at++
	return token{other, rest[:1]}, nil
}

// skip passes over white space and comments, which nest.
func (s *scanner) skip() error {
	for {
		rest := s.rest()
		switch {
		case rest != "" && strings.IndexByte(" \t\n\r\f\v", rest[0]) >= 0:
			s.at++
		case strings.HasPrefix(rest, "--"):
			if n := strings.IndexAny(rest, "\n\r"); n >= 0 {
				s.at += n
			} else {
				s.at = len(s.text)
			}
		case strings.HasPrefix(rest, "/*"):
			depth := 0
			for n := 0; ; {
				switch tail := rest[n:]; {
				case strings.HasPrefix(tail, "/*"):
					depth, n = depth+1, n+2
				case strings.HasPrefix(tail, "*/"):
					depth, n = depth-1, n+2
				case tail == "":
					return errUnended
				default:
					n++
				}
				if depth == 0 {
					s.at += n
					break
				}
			}
		default:
			return nil
		}
	}
}

// quoted reads up to the closing quote; two of them stand for one.
func (s *scanner) quoted(quote byte) (string, error) {
	var b strings.Builder
	for i := s.at + 1; i < len(s.text); i++ {
		if s.text[i] != quote {
			b.WriteByte(s.text[i])
			continue
		}
		if i+1 < len(s.text) && s.text[i+1] == quote {
			b.WriteByte(quote)
			i++
			continue
		}
		s.at = i + 1
		return b.String(), nil
	}
	return "", errUnended
}

// dollarTag is what begins, and ends, a dollar-quoted string; empty where none begins.
func dollarTag(text string) string {
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '$':
			return text[:i+1]
		case isNameStart(c), isDigit(c) && i > 1:
		default:
			return ""
		}
	}
	return ""
}

func isNameStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// lower lowers ASCII letters, as the server does with names in UTF8.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// harmlessFunctions are the built-in functions that are called volatile and change nothing outside their own table. nextval is
// among them: the transaction is looked at afterwards, and the most that survives is a gap in the numbers.
var harmlessFunctions = []string{
	"bernoulli", "system", // methods of TABLESAMPLE
	"random", "random_normal", "gen_random_uuid", "uuidv4", "uuidv7", "clock_timestamp", "timeofday",
	"nextval", "currval", "lastval",
	"pg_sequence_last_value",
	"pg_relation_size", "pg_table_size", "pg_indexes_size", "pg_total_relation_size", "pg_database_size",
}

// harmfulQuery finds, among names of functions, those with effects that a rollback leaves or that show in no table: built-in
// ones that are volatile (setval, set_config, pg_terminate_backend, pg_advisory_unlock, lo_import, query_to_xml, which runs a
// text), and those of extensions (dblink). A function that somebody made in this database may be called, by name, by a
// trigger, a default or an operator: what it does to tables is seen. What it does beyond them (a NOTIFY, a setval, a dblink of
// its own) is not, but no plugin can make such a function.
const harmfulQuery = `SELECT DISTINCT p.proname::text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE p.proname = ANY ($1) AND (n.nspname = 'pg_catalog' AND p.provolatile = 'v' AND p.proname <> ALL ($2)
  OR p.provolatile <> 'i' AND EXISTS (SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'))
ORDER BY 1`

func harmless(ctx context.Context, tx pgx.Tx, names []string) error {
	if len(names) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, harmfulQuery, names, harmlessFunctions)
	if err != nil {
		return fmt.Errorf("could not be looked at: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("could not be looked at: %w", err)
	}
	if len(found) > 0 {
		return fmt.Errorf("calls %s, whose effect can't be watched: put a value into an argument, and other work into an operation", doctor.Clean(strings.Join(found, ", ")))
	}
	return nil
}
