// Package wire carries the vocabulary of core/doctor between the host and a plugin's process: conversions between it and
// proto/doctor/v1, the server that answers for a doctor.Source, the client that is one, and what both sides of the
// handshake must agree on. It imports core/doctor and proto.
//
// A message that makes no sense (an enum value of a newer version, a step without a kind, a number out of order) is an
// error that names it. Nothing is guessed, and nothing that a peer can send makes this package panic.
//
//	server:  wire.NewServer(&doctor.Local{…}).Register(grpcServer)
//	client:  err := wire.NewClient("acme", conn).Check(ctx, req, events)
package wire
