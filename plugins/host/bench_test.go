package host_test

import (
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

// Start, describe, ten checks that do nothing, close.
func benchmark(b *testing.B, source func() doctor.Source) {
	var ids []string
	for _, c := range tenChecks() {
		ids = append(ids, c.ID)
	}
	for b.Loop() {
		s := source()
		if _, err := s.Describe(b.Context()); err != nil {
			b.Fatal(err)
		}
		h := &heard{}
		if err := s.Check(b.Context(), request(ids...), h); err != nil || len(h.done) != 10 {
			b.Fatal(len(h.done), err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBuiltin(b *testing.B) {
	dir := socketBase(b)
	benchmark(b, func() doctor.Source { return host.Builtin(host.Options{SocketDir: dir}) })
}

func BenchmarkInProcess(b *testing.B) {
	benchmark(b, func() doctor.Source { return &doctor.Local{PluginName: "builtin", Version: "1", Checks: tenChecks()} })
}
