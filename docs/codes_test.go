package docs_test

import (
	"slices"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/checks/connection"
	"github.com/synapse-doctor/synapse-doctor/checks/encoding"
	"github.com/synapse-doctor/synapse-doctor/checks/keepalives"
	"github.com/synapse-doctor/synapse-doctor/checks/sequence"
	"github.com/synapse-doctor/synapse-doctor/checks/version"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/docs"
)

var checks = []doctor.Check{connection.Check, version.Check, encoding.Check, sequence.Check, keepalives.Check}

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
