package wire

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// enum is a one-to-one table between a word of the vocabulary and its number on the wire.
type enum[D comparable, P ~int32] struct {
	what  string
	pairs []pair[D, P]
}

type pair[D comparable, P ~int32] struct {
	word   D
	number P
}

func (e enum[D, P]) to(word D) (P, error) {
	for _, p := range e.pairs {
		if p.word == word {
			return p.number, nil
		}
	}
	return 0, fmt.Errorf("%s %q is not a known one", e.what, fmt.Sprint(word))
}

func (e enum[D, P]) from(number P) (D, error) {
	for _, p := range e.pairs {
		if p.number == number {
			return p.word, nil
		}
	}
	var none D
	if number == 0 {
		return none, fmt.Errorf("%s is missing", e.what)
	}
	return none, fmt.Errorf("%s %d is not known to this version", e.what, number)
}

// each converts a list, and leaves an empty one nil.
func each[A, B any](list []A, convert func(A) (B, error)) ([]B, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := make([]B, len(list))
	for i, a := range list {
		b, err := convert(a)
		if err != nil {
			return nil, err
		}
		out[i] = b
	}
	return out, nil
}

// optional converts what may be absent.
func optional[A, B any](a *A, convert func(*A) (*B, error)) (*B, error) {
	if a == nil {
		return nil, nil
	}
	return convert(a)
}

func durationTo(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func durationFrom(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, fmt.Errorf("duration: %w", err)
	}
	return d.AsDuration(), nil
}

// sendable reports why a message can't be sent: too large, or with text that is not UTF-8.
func sendable(m proto.Message) error {
	if n := proto.Size(m); n > MaxMessage {
		return fmt.Errorf("%d bytes are more than a message may hold (%d)", n, MaxMessage)
	}
	if _, err := proto.Marshal(m); err != nil {
		return fmt.Errorf("its text is not valid UTF-8")
	}
	return nil
}

// words makes text that only people read fit to be sent. Evidence from a database with a broken encoding must not
// cost the finding that tells of it.
func words(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
