package docs_test

import (
	"slices"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/docs"
	"github.com/synapse-doctor/synapse-doctor/plugins/builtin"
)

var checks = builtin.Checks()

func TestEveryCodeIsExplainedAndNothingElse(t *testing.T) {
	for _, c := range checks {
		if _, ok := docs.Check(c.ID); !ok {
			t.Errorf("there is no docs/checks/%s.md", c.ID)
			continue
		}
		explained := docs.Codes(c.ID)
		for _, code := range c.Codes {
			if !slices.Contains(explained, code.ID) {
				t.Errorf("docs/checks/%s.md does not explain %s", c.ID, code.ID)
			}
			explained = slices.DeleteFunc(explained, func(s string) bool { return s == code.ID })
		}
		for _, code := range explained {
			t.Errorf("docs/checks/%s.md explains %s, which the check can't find", c.ID, code)
		}
	}
}
