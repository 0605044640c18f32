package sdktest

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
)

// overWire puts the gRPC of a plugin's process before a source, without the process.
func overWire(t *testing.T, source doctor.Source) doctor.Source {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	wire.NewServer(source).Register(server)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///sdktest", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return named{wire.NewClient(source.Name(), conn)}
}

// guest is a source whose plans are held to what its checks declare, as the host holds a third party's.
type guest struct {
	doctor.Source
	terms *doctor.Terms
}

// Terms implements doctor.Guest.
func (g guest) Terms() *doctor.Terms { return g.terms }

// named makes a source of a wire client.
type named struct{ *wire.Client }

func (n named) Name() string { return "sdktest" }
func (n named) Close() error { return nil }
