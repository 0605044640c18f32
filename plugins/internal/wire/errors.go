package wire

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

// The trailers that carry an error have a bound of their own.
const (
	maxErrorText = 4 << 10
	maxStack     = 8 << 10
)

func clip(s string, n int) string {
	s = words(s)
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + " …"
	}
	return s
}

// toStatus makes of an error what the proto file says of errors.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	text := clip(err.Error(), maxErrorText)
	if reason, ok := doctor.SkipReason(err); ok {
		return withDetail(codes.FailedPrecondition, text, &doctorv1.Skipped{Reason: clip(reason, maxErrorText)})
	}
	if u, ok := errors.AsType[*doctor.UnchangedError](err); ok {
		return withDetail(codes.Aborted, text, &doctorv1.Unchanged{Reason: clip(u.Reason, maxErrorText)})
	}
	if s, ok := errors.AsType[*doctor.StoppedError](err); ok {
		return withDetail(codes.Aborted, text, &doctorv1.Stopped{Hint: clip(s.Hint, maxErrorText)})
	}
	if p, ok := errors.AsType[*doctor.PanicError](err); ok {
		return withDetail(codes.Internal, text, &doctorv1.Panic{Value: clip(p.Value, maxErrorText), Stack: clip(p.Stack, maxStack)})
	}
	switch {
	case errors.Is(err, doctor.ErrNotFound):
		return status.Error(codes.NotFound, text)
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, text)
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, text)
	}
	return status.Error(codes.Unknown, text)
}

func withDetail(code codes.Code, text string, detail protoadapt.MessageV1) error {
	s, err := status.New(code, text).WithDetails(detail)
	if err != nil {
		return status.Error(code, text)
	}
	return s.Err()
}

// farClock is how much earlier than here a deadline may come on the far side.
const farClock = 250 * time.Millisecond

func gaveUp(err error) bool {
	code := status.Code(err)
	return code == codes.DeadlineExceeded || code == codes.Canceled
}

// fromStatus is the inverse of toStatus. The call's own context comes first: who gave up knows why.
func fromStatus(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if gaveUp(err) {
		// The far side keeps the call's deadline too, and may be the first to notice that it has come.
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < farClock {
			<-ctx.Done()
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	text := doctor.CleanText(s.Message())
	if text == "" {
		text = "failed without saying why (" + s.Code().String() + ")"
	}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *doctorv1.Skipped:
			return &doctor.SkipError{Reason: doctor.CleanText(d.Reason)}
		case *doctorv1.Unchanged:
			return &doctor.UnchangedError{Reason: doctor.CleanText(d.Reason)}
		case *doctorv1.Stopped:
			return &doctor.StoppedError{Hint: doctor.CleanText(d.Hint)}
		case *doctorv1.Panic:
			return &doctor.PanicError{Value: doctor.CleanText(d.Value), Stack: doctor.CleanText(d.Stack)}
		}
	}
	switch s.Code() {
	case codes.NotFound:
		return &RemoteError{text, doctor.ErrNotFound}
	case codes.DeadlineExceeded:
		return &RemoteError{text, context.DeadlineExceeded}
	case codes.Canceled:
		return &RemoteError{text, context.Canceled}
	case codes.Unknown, codes.InvalidArgument, codes.FailedPrecondition, codes.PermissionDenied, codes.AlreadyExists, codes.OutOfRange, codes.Aborted:
		return &RemoteError{text, nil}
	}
	// What gRPC itself says (a lost connection, a message too large, no such service) keeps its status for the host.
	return &RemoteError{text, err}
}

// RemoteError is what a plugin answered a call with, or what became of the call. It has the text of the far side and the identity of an error that callers know.
type RemoteError struct {
	text string
	is   error
}

func (e *RemoteError) Error() string { return e.text }
func (e *RemoteError) Unwrap() error { return e.is }

// ViolationError is a plugin that said something that the protocol does not allow.
type ViolationError struct {
	Plugin string
	What   string
}

func (e *ViolationError) Error() string {
	return fmt.Sprintf("plugin %s does not keep to the protocol: %s", e.Plugin, e.What)
}

// AbandonedError is an operation that went on although it was told to stop. Its process must be ended before anything else is done.
type AbandonedError struct{ Cause error }

func (e *AbandonedError) Error() string {
	return fmt.Sprintf("%v; the operation did not stop when told to", e.Cause)
}
func (e *AbandonedError) Unwrap() error { return e.Cause }

// Panicked is the error of an RPC whose handler panicked.
func Panicked(value any, stack []byte) error {
	return toStatus(&doctor.PanicError{Value: fmt.Sprint(value), Stack: string(stack)})
}

// Lost reports whether a call ended because the connection to the plugin did.
func Lost(err error) bool {
	remote, ok := errors.AsType[*RemoteError](err)
	return ok && status.Code(remote.is) == codes.Unavailable
}
