package wire

import (
	"google.golang.org/grpc"

	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

// Register serves the server's verbs on g.
func (s *Server) Register(g grpc.ServiceRegistrar) { doctorv1.RegisterPluginServer(g, s) }
