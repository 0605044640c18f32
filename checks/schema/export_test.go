package schema

import (
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Patience has another's build waited for this many seconds until it is put back, at the end of the test at the latest.
func Patience(t *testing.T, seconds int) (putBack func()) {
	was := freePatience
	putBack = func() { freePatience = was }
	t.Cleanup(putBack)
	freePatience = seconds
	return putBack
}

// CheckOf is the check that knows only these catalogs.
func CheckOf(known ...*Catalog) doctor.Check {
	return examiner{func() ([]*Catalog, error) { return known, nil }}.check()
}
