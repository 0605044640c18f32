package pgtest

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Crash kills the server with SIGKILL, as a machine that runs out of memory does, and starts it again on the same port. Its
// sessions are lost; what was committed is not.
func (s *Server) Crash(ctx context.Context) error {
	if err := s.process.cmd.Process.Kill(); err != nil {
		return err
	}
	<-s.process.exited
	for {
		err := s.start(ctx)
		// The processes of its sessions notice after a moment that their server is gone, and hold its memory until then.
		if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "shared memory") {
			return errors.Join(err, ctx.Err())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
