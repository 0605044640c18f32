package host

import "github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"

// Speaking is a host of another time, which speaks these versions of the protocol.
func (o Options) Speaking(v wire.Versions) Options { o.speaks = v; return o }
