package main

import "testing"

// The formulas, for Linux, an SSD and these machines.
func TestPgtunesFormulas(t *testing.T) {
	for _, tt := range []struct {
		profile                      string
		memory                       int64
		buffers, work, cache, repair string
	}{
		{"web", 4 << 30, "1048576kB", "5041kB", "3145728kB", "262144kB"},
		{"mixed", 4 << 30, "1048576kB", "4854kB", "3145728kB", "262144kB"},
		{"web", 64 << 30, "16777216kB", "80659kB", "50331648kB", "2097152kB"},
	} {
		s := pgtune(tt.profile, tt.memory).settings
		for name, want := range map[string]string{"shared_buffers": tt.buffers, "work_mem": tt.work, "effective_cache_size": tt.cache, "maintenance_work_mem": tt.repair} {
			if s[name] != want {
				t.Errorf("%s, %d GiB: %s is %s, want %s", tt.profile, tt.memory>>30, name, s[name], want)
			}
		}
	}
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	if got := paired([]float64{10, 30, 200}, []float64{10, 20, 100}); got != 1.5 {
		t.Errorf("%g", got)
	}
	if got := middle([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("%g", got)
	}
}
