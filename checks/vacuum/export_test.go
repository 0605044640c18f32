package vacuum

import (
	"context"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// RunBelow is the check's Run with the schedules of another root.
func RunBelow(root string) func(context.Context, *doctor.Target, doctor.Reporter) error {
	return check{places: scheduled{root: root}}.run
}
