package main

import "testing"

func TestSizes(t *testing.T) {
	for in, want := range map[string]int64{
		"16GiB": 16 << 30, "16GB": 16 << 30, "16g": 16 << 30, "1.5 GiB": 3 << 29, "512MiB": 512 << 20, "1048576": 1 << 20, "2TiB": 2 << 40,
		"": 0, "16": 0, "GiB": 0, "-1GiB": 0, "16GiBB": 0, "16IB": 0, "1e40": 0, "NaN": 0, "Inf": 0, "16XB": 0, "16 GiB GiB": 0,
	} {
		got, err := parseSize(in)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
}
