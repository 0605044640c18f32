package main

import (
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

func TestTheLineOfProgressTellsHowFarItIsAndFitsATerminal(t *testing.T) {
	for want, p := range map[string]*progress{
		"examining … 2s": {what: "examining"},
		"locale: reading a_pkey 40 % of 1000 pages … 2s, about 15s left": {what: "locale",
			now: doctor.Progress{Text: "reading a_pkey", Done: 400, Total: 1000, Unit: "pages"}},
		"locale: reading 1 % of 1000 pages … 2s":                 {what: "locale", now: doctor.Progress{Text: "reading", Done: 10, Total: 1000, Unit: "pages"}},
		"Rebuilding a_pkey 50 % of 2048 MB … 2s, about 10s left": {what: "Put 255 text indexes into order", now: doctor.Progress{Text: "Rebuilding a_pkey", Done: 1 << 30, Total: 2 << 30, Unit: "bytes"}},
		"Rebuilding an index with a very long name that goes on … 0 % of 20 rows … 2s": {what: "Put 255 text indexes into order",
			now: doctor.Progress{Text: "Rebuilding an index with a very long name that goes on and on for ever", Total: 20, Unit: "rows"}},
	} {
		if got := p.line(2*time.Second, 10*time.Second); got != want || len([]rune(got)) > progressWidth {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
