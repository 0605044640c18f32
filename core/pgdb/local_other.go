//go:build !linux

package pgdb

import "errors"

// ErrNotLocal is returned by [FindServer] when no PostgreSQL server of this machine was seen to listen at the endpoint.
var ErrNotLocal = errors.New("no PostgreSQL server of this machine was seen to listen there")

// FindServer finds servers only on Linux.
func FindServer(Endpoint) (LocalServer, error) { return LocalServer{}, ErrNotLocal }
