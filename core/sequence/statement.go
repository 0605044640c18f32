package sequence

import (
	"fmt"
	"strings"
)

// Fits is whether there is a number left to give out after the one that is needed.
func (s *State) Fits() bool { return s.Needed() < s.Limit() }

// Setval is the statement that moves the sequence to the greatest number in use. last is what it had given out before.
func (s *State) Setval(last string) string {
	return fmt.Sprintf("SELECT setval(%s, %s, true)", s.At.Literal, s.GreatestExpression(last))
}

// GreatestExpression is what Needed computes, for the server to compute.
func (s *State) GreatestExpression(last string) string {
	terms := []string{"1", last}
	for _, marks := range [][]Mark{s.Tables, s.Positions, s.ReadersAt} {
		for i, m := range marks {
			if i == 0 || m.From != marks[i-1].From {
				terms = append(terms, m.From)
			}
		}
	}
	return "GREATEST(" + strings.Join(terms, ",\n  ") + ")"
}

// LastExpression reads the last number that the sequence gave out.
func (s *State) LastExpression() string {
	return fmt.Sprintf("(SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END FROM %s)", s.At.Ident)
}
