package report

import (
	"bytes"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

func TestLines(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 3, 1+n, 3, 0, 0, 0, time.Local) }
	line := func(name, measure, unit string, values ...float64) Line {
		l := Line{Key: doctor.MeasureKey{Check: "upkeep", Object: doctor.Object{Kind: "table", Name: name}, Name: measure}, Unit: unit, Values: values}
		for i := range values {
			l.At = append(l.At, day(i))
		}
		return l
	}
	gap := line("event_json", "size", "bytes", 4<<30, 3<<30)
	gap.At[1] = day(9)
	lines := []Line{
		line("state_groups_state", "size", "bytes", 1<<30, 2<<30, 3<<30, 4<<30, 5<<30, 6<<30, 7<<30, 8<<30, 9<<30, 10<<30),
		line("events", "rows", "rows", 1_000_000, 1_000_001, 1_000_000, 1_000_002, 1_000_000, 1_000_001, 1_000_000, 1_000_000, 1_000_000, 1_000_001),
		gap,
		line("device_inbox", "dead-rows", "rows", 5),
		line("presence_stream", "rows", "rows", 0, 0, 0),
	}
	for _, width := range []int{80, 120} {
		var b bytes.Buffer
		if err := Lines(&b, "example.org", lines, Options{Width: width}); err != nil {
			t.Fatal(err)
		}
		golden(t, map[int]string{80: "lines.80.txt", 120: "lines.120.txt"}[width], b.Bytes())
	}
}
