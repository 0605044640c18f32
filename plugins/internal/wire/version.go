package wire

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Version is one version of the protocol: how a plugin serves it, and how a host asks a plugin that speaks it.
type Version struct {
	Number int
	Serve  func(g grpc.ServiceRegistrar, src doctor.Source)
	Ask    func(name string, conn grpc.ClientConnInterface) Verbs
}

// Verbs are what a plugin answers, whatever version it speaks.
type Verbs interface {
	Describe(ctx context.Context) (doctor.Description, error)
	Check(ctx context.Context, req doctor.CheckRequest, events doctor.Events) error
	Plan(ctx context.Context, req doctor.PlanRequest) ([]doctor.Plan, error)
	Execute(ctx context.Context, req doctor.ExecuteRequest, host doctor.OperationHost) error
}

// Versions are what one build speaks, the oldest first and without a gap: the newest version and the one before it.
type Versions []Version

// Spoken is what this build speaks. A new version is one more line, and the third of them removes the first.
var Spoken = Versions{
	{1, serve1, ask1},
}

func serve1(g grpc.ServiceRegistrar, src doctor.Source) { NewServer(src).Register(g) }

func ask1(name string, conn grpc.ClientConnInterface) Verbs { return NewClient(name, conn) }

// Oldest is the number of the oldest version.
func (v Versions) Oldest() int { return v[0].Number }

// Newest is the number of the newest version.
func (v Versions) Newest() int { return v[len(v)-1].Number }

// Find returns the version with this number.
func (v Versions) Find(number int) (Version, bool) {
	if number < v.Oldest() || number > v.Newest() {
		return Version{}, false
	}
	return v[number-v.Oldest()], true
}

// String is 1, or 1–2.
func (v Versions) String() string {
	if len(v) == 1 {
		return fmt.Sprint(v.Newest())
	}
	return fmt.Sprintf("%d–%d", v.Oldest(), v.Newest())
}
