package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
)

const oldestMajor, newestMajor = 14, 18

// Majors are the major versions from 14 to 18 whose server programs are installed, the oldest first.
func Majors(ctx context.Context) []int {
	var majors []int
	for major := oldestMajor; major <= newestMajor; major++ {
		if _, err := BinDir(ctx, strconv.Itoa(major)); err == nil {
			majors = append(majors, major)
		}
	}
	return majors
}

// EachMajor runs a subtest for the major versions 14, 16 and 18, on a server of its own; where none of these is installed, for
// those that are, and with SYNAPSE_DOCTOR_MATRIX=1 for each from 14 to 18. What config returns for a major says how that server differs from the usual one; a nil config means
// not at all.
//
// With -short it is one major, the newest that is installed. One that is not installed is skipped, unless SYNAPSE_DOCTOR_REQUIRE_MATRIX=1: then its subtest fails.
func EachMajor(t *testing.T, config func(major int) Config, run func(t *testing.T, s *Server)) {
	t.Helper()
	EachOf(t, usual(Majors(t.Context())), config, run)
}

// usual are the majors that [EachMajor] runs on.
func usual(installed []int) []int {
	var all []int
	for major := oldestMajor; major <= newestMajor; major++ {
		all = append(all, major)
	}
	if os.Getenv("SYNAPSE_DOCTOR_MATRIX") == "1" {
		return all
	}
	// What is left out has nothing that neither of its neighbours has.
	some := slices.DeleteFunc(slices.Clone(all), func(major int) bool { return (major-oldestMajor)%2 != 0 })
	if slices.ContainsFunc(some, func(major int) bool { return slices.Contains(installed, major) }) || len(installed) == 0 {
		return some
	}
	return installed
}

// EachOf is [EachMajor] for some of the major versions, the newest last: those behind which the others do the same.
func EachOf(t *testing.T, majors []int, config func(major int) Config, run func(t *testing.T, s *Server)) {
	t.Helper()
	if testing.Short() {
		installed := Majors(t.Context())
		some := slices.DeleteFunc(slices.Clone(majors), func(major int) bool { return !slices.Contains(installed, major) })
		if len(some) > 0 {
			majors = some[len(some)-1:]
		}
	}
	for _, major := range majors {
		t.Run(fmt.Sprintf("PostgreSQL%d", major), func(t *testing.T) {
			var c Config
			if config != nil {
				c = config(major)
			}
			c.Version = strconv.Itoa(major)
			s, err := serverFor(t, c)
			switch {
			case err == nil:
			case !errors.Is(err, ErrNoServer):
				t.Fatal(err)
			case os.Getenv("SYNAPSE_DOCTOR_REQUIRE_MATRIX") == "1":
				t.Fatalf("PostgreSQL %d is not installed: make postgres-matrix", major)
			default:
				t.Skipf("PostgreSQL %d is not installed: make postgres-matrix", major)
			}
			run(t, s)
		})
	}
}

// serverFor starts a server that ends with the test, or finds the shared one.
func serverFor(t testing.TB, c Config) (*Server, error) {
	if !c.Shared {
		s, err := New(t.Context(), c)
		if err == nil {
			t.Cleanup(s.Close)
		}
		return s, err
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	key := fmt.Sprintf("%+v", c)
	if s := shared.majors[key]; s != nil {
		return s, nil
	}
	s, err := New(context.WithoutCancel(t.Context()), c)
	if err == nil {
		if shared.majors == nil {
			shared.majors = map[string]*Server{}
		}
		shared.majors[key] = s
	}
	return s, err
}

// Some are all cases of a long series or, with -short, every fifth.
func Some[T any](cases []T) []T {
	if !testing.Short() {
		return cases
	}
	var some []T
	for i := 0; i < len(cases); i += 5 {
		some = append(some, cases[i])
	}
	return some
}
