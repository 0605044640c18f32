package pgdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Phase is how far a connection came before it failed.
type Phase string

const (
	PhaseSettings Phase = "settings" // the settings contradict each other, or name a file that cannot be used
	PhaseResolve  Phase = "resolve"  // the host has no address
	PhaseDial     Phase = "dial"     // nobody answers at the address
	PhaseTLS      Phase = "tls"      // the two sides do not agree on encryption
	PhaseAuth     Phase = "auth"     // the server did not let the role in
	PhaseSession  Phase = "session"  // the session was there, and is not what was asked for
)

// ErrNoPassword is the Err of a server that asked for a password when there was none to send.
// libpq says "no password supplied" of it, without a SQLSTATE.
var ErrNoPassword = errors.New("the server asks for a password, but none is configured")

// ErrWrongServer is the Err of a server that is not what target_session_attrs asks for.
var ErrWrongServer = errors.New("the server is not what target_session_attrs asks for")

// ConnectError is a connection that failed. Its text never holds a secret.
type ConnectError struct {
	Phase    Phase
	SQLSTATE string // what the server answered; empty when it did not
	Endpoint Endpoint
	User     string
	Database string
	Attempts []*ConnectError // every attempt of [Connect], in order, this one included; nil for a single endpoint
	Err      error
}

func (e *ConnectError) Unwrap() error { return e.Err }

// Timeout reports whether there was no answer in time.
func (e *ConnectError) Timeout() bool {
	var netErr net.Error
	return errors.Is(e.Err, context.DeadlineExceeded) || errors.Is(e.Err, os.ErrDeadlineExceeded) || errors.As(e.Err, &netErr) && netErr.Timeout()
}

func (e *ConnectError) Error() string {
	if len(e.Attempts) > 1 {
		var texts []string
		for _, a := range e.Attempts {
			texts = append(texts, a.Error())
		}
		return fmt.Sprintf("none of %d attempts to connect worked: %s", len(e.Attempts), strings.Join(texts, "; "))
	}
	switch e.Phase {
	case PhaseSettings:
		return fmt.Sprintf("the connection settings cannot be used: %s", e.cause())
	case PhaseResolve:
		return fmt.Sprintf("the host %q has no address: %s", e.Endpoint.Host, e.cause())
	case PhaseDial:
		return fmt.Sprintf("the server at %s cannot be reached: %s", e.Endpoint, e.cause())
	case PhaseTLS:
		return fmt.Sprintf("no encrypted connection to %s: %s", e.Endpoint, e.cause())
	case PhaseAuth:
		return fmt.Sprintf("the server at %s did not let %q into database %q: %s", e.Endpoint, e.User, e.Database, e.cause())
	}
	return fmt.Sprintf("the session at %s cannot be used: %s", e.Endpoint, e.cause())
}

// cause is the error in words that do not repeat the address.
func (e *ConnectError) cause() string {
	var op *net.OpError
	var dns *net.DNSError
	var pg *pgconn.PgError
	switch {
	case errors.As(e.Err, &pg):
		return fmt.Sprintf("%s (SQLSTATE %s)", pg.Message, pg.Code)
	case e.Timeout():
		return "no answer in time"
	case errors.Is(e.Err, context.Canceled):
		return "cancelled"
	case errors.Is(e.Err, io.EOF), errors.Is(e.Err, io.ErrUnexpectedEOF):
		return "the server closed the connection without an answer"
	case errors.As(e.Err, &dns):
		return dns.Err
	case errors.As(e.Err, &op):
		return op.Err.Error()
	}
	return e.Err.Error()
}

// innermost takes off what pgx wraps around a failed attempt: it repeats the address, the role and the database.
func innermost(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg
	}
	for {
		switch wrapper := err.(type) {
		case interface{ Unwrap() []error }:
			errs := wrapper.Unwrap()
			if len(errs) != 1 {
				return err
			}
			err = errs[0]
		case *net.OpError, *net.DNSError, net.Error:
			return err
		case interface{ Unwrap() error }:
			inner := wrapper.Unwrap()
			if inner == nil {
				return err
			}
			err = inner
		default:
			return err
		}
	}
}
