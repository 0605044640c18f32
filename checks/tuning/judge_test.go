package tuning

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// defaults are PostgreSQL 15's, as pg_settings has them.
var defaults = []setting{
	{Name: "shared_buffers", Text: "128MB", Raw: "16384", Unit: "8kB", Context: "postmaster"},
	{Name: "effective_cache_size", Text: "4GB", Raw: "524288", Unit: "8kB"},
	{Name: "work_mem", Text: "4MB", Raw: "4096", Unit: "kB"},
	{Name: "hash_mem_multiplier", Text: "2", Raw: "2"},
	{Name: "maintenance_work_mem", Text: "64MB", Raw: "65536", Unit: "kB"},
	{Name: "autovacuum_work_mem", Text: "-1", Raw: "-1", Unit: "kB"},
	{Name: "autovacuum_max_workers", Text: "3", Raw: "3", Context: "postmaster"},
	{Name: "autovacuum_vacuum_scale_factor", Text: "0.2", Raw: "0.2"},
	{Name: "max_connections", Text: "100", Raw: "100", Context: "postmaster"},
	{Name: "superuser_reserved_connections", Text: "3", Raw: "3", Context: "postmaster"},
	{Name: "random_page_cost", Text: "4", Raw: "4"},
	{Name: "effective_io_concurrency", Text: "1", Raw: "1"},
	{Name: "max_wal_size", Text: "1GB", Raw: "1024", Unit: "MB"},
	{Name: "checkpoint_timeout", Text: "5min", Raw: "300", Unit: "s"},
	{Name: "checkpoint_completion_target", Text: "0.9", Raw: "0.9"},
	{Name: "jit", Text: "on", Raw: "on"},
	{Name: "fsync", Text: "on", Raw: "on"},
	{Name: "full_page_writes", Text: "on", Raw: "on"},
	{Name: "synchronous_commit", Text: "on", Raw: "on"},
	{Name: "zero_damaged_pages", Text: "off", Raw: "off"},
	{Name: "ignore_checksum_failure", Text: "off", Raw: "off"},
	{Name: "huge_pages", Text: "try", Raw: "try", Context: "postmaster"},
	{Name: "huge_page_size", Text: "0", Raw: "0", Unit: "kB", Context: "postmaster"},
}

// sound is a server of 15 with its defaults, on the same machine as a homeserver of one process with ten connections.
func sound(memory int64) *server {
	s := &server{target: &doctor.Target{}, db: &doctor.Database{Label: "main"}, kernel: kernel{root: "/nowhere"}, settings: map[string]setting{}}
	s.facts = facts{Version: 150018, Role: "synapse_user", Name: "synapse", Size: 20 * mib, TotalSize: 20 * mib, SinceReset: 10 * 86400, Evicted: -1}
	for _, x := range defaults {
		x.Source = "default"
		s.settings[x.Name] = x
	}
	s.opens = need{known: true, processes: 1, connections: 10, how: "1 process × cp_max 10", cache: 200 * mib, cacheHow: "as estimated"}
	s.machine = machine{memory: memory, memoryFrom: "of this machine", nearby: true, free: 100 * gib, freeKnown: true}
	s.leaveOthers()
	return s
}

// with sets a setting as the server's file would.
func (s *server) with(name, raw string) *server {
	x := s.settings[name]
	x.Raw, x.Text, x.Source = raw, raw, "configuration file"
	if v, ok := parse(raw, ""); ok && strings.HasSuffix(x.Unit, "B") && v > 0 {
		x.Unit, x.Raw = "B", fmt.Sprint(int64(v))
	}
	s.settings[name] = x
	return s
}

func TestWhatIsSaidOfAServer(t *testing.T) {
	large := func(s *server) { s.TotalSize, s.Size, s.Index, s.LargestRows = 40*gib, 40*gib, 3*gib, 100e6 }
	missing := func(s *server) { s.Hits, s.Reads, s.Evicted = 900_000, 100_000, 5000 }
	for _, tt := range []struct {
		name   string
		memory int64
		change func(*server)
		want   []string // severity, code, setting, what the plan sets
	}{
		{"a small machine with a small database", gib, func(*server) {}, nil},
		{"half a gibibyte", gib / 2, func(*server) {}, nil},
		{"a large machine with a small database", 24 * gib, func(*server) {}, nil},
		{"a large database that is answered from memory", 24 * gib, func(s *server) { s.TotalSize, s.Hits, s.Reads = 3*gib, 999_999, 1 }, nil},
		{"nothing measured yet", 24 * gib, func(s *server) { s.TotalSize, s.Hits, s.Reads = 3*gib, 10, 90 }, nil},
		{"buffers that were never full", 24 * gib, func(s *server) { s.TotalSize = 3 * gib; missing(s); s.Evicted = 0 }, nil},
		{"buffers that answer too little", 24 * gib, func(s *server) { s.TotalSize = 3 * gib; missing(s) }, []string{"info tuning/shared-buffers shared_buffers=4GB"}},
		{"a large database", 24 * gib, func(s *server) { large(s); missing(s) }, []string{
			"info tuning/shared-buffers shared_buffers=6GB", "info tuning/effective-cache-size effective_cache_size=14GB",
			"info tuning/maintenance-work-mem maintenance_work_mem=1GB", "info tuning/autovacuum-work-mem autovacuum_work_mem=128MB"}},
		{"vacuum of 17 remembers more in less", 24 * gib, func(s *server) { large(s); s.Version = 170004 }, []string{
			"info tuning/effective-cache-size effective_cache_size=14GB", "info tuning/maintenance-work-mem maintenance_work_mem=1GB"}},
		{"buffers for half the databases' size", 4 * gib, func(s *server) { s.with("shared_buffers", "3584MB"); s.TotalSize = 8 * gib }, []string{
			"warning tuning/worst-case shared_buffers=896MB"}},
		{"buffers that leave nothing, without a worst case", 16 * gib, func(s *server) { s.with("shared_buffers", "12GB") }, []string{"warning tuning/shared-buffers shared_buffers=128MB"}},
		{"the same where the memory is a guess", 16 * gib, func(s *server) { s.with("shared_buffers", "12GB"); s.machine.inferred = true }, []string{"info tuning/shared-buffers shared_buffers=128MB"}},
		{"work_mem of a blog", 4 * gib, func(s *server) { s.with("work_mem", "256MB") }, []string{"warning tuning/worst-case work_mem=12MB"}},
		{"many connections on a small machine", gib, func(s *server) { s.opens.connections = 300; s.with("max_connections", "400") }, []string{"warning tuning/worst-case max_connections="}},
		{"vacuum that takes all", 4 * gib, func(s *server) { s.with("maintenance_work_mem", "1GB") }, []string{"warning tuning/worst-case autovacuum_work_mem=64MB"}},
		{"vacuum that takes much", 8 * gib, func(s *server) { s.with("maintenance_work_mem", "1GB") }, []string{"info tuning/autovacuum-work-mem autovacuum_work_mem=64MB"}},
		{"temporary files", 8 * gib, func(s *server) { s.TempFiles, s.TempBytes = 4000, 40*gib }, []string{"info tuning/work-mem work_mem=24MB"}},
		{"few temporary files", 8 * gib, func(s *server) { s.TempFiles, s.TempBytes = 4000, 4*gib }, nil},
		{"temporary files of the last run", 8 * gib, func(s *server) {
			s.TempFiles, s.TempBytes = 4000, 40*gib
			s.target.Earlier = doctor.Earlier{At: time.Now().Add(-48 * time.Hour), Measures: []doctor.Measure{
				{Check: "tuning", Database: "main", Object: figure(tempBytes), Name: "value", Value: float64(40*gib - mib)}, {Check: "tuning", Database: "main", Object: figure(tempFiles), Name: "value", Value: 3900}}}
		}, nil},
		{"too few connections", 8 * gib, func(s *server) { s.opens.connections = 98 }, []string{"warning tuning/max-connections max_connections=130"}},
		{"far too many connections", 8 * gib, func(s *server) { s.with("max_connections", "1000") }, []string{"info tuning/max-connections max_connections=100"}},
		{"an SSD", 8 * gib, func(s *server) { s.machine.disk = doctor.DiskSSD; s.TotalSize = gib }, []string{
			"info tuning/random-page-cost random_page_cost=1.1", "info tuning/effective-io-concurrency effective_io_concurrency=100"}},
		{"an SSD and a database that needs no disk", 8 * gib, func(s *server) { s.machine.disk = doctor.DiskSSD }, nil},
		{"a disk that turns", 8 * gib, func(s *server) { s.machine.disk = doctor.DiskHDD; s.TotalSize = gib; s.with("random_page_cost", "1.1") }, []string{
			"info tuning/random-page-cost random_page_cost=4"}},
		{"18 on an SSD", 8 * gib, func(s *server) {
			s.machine.disk, s.TotalSize, s.Version = doctor.DiskSSD, gib, 180001
			s.with("effective_io_concurrency", "16").with("random_page_cost", "1.1")
		}, nil},
		{"forced checkpoints", 8 * gib, func(s *server) { s.Timed, s.Forced, s.WAL = 100, 900, 900*512*mib }, []string{"info tuning/max-wal-size max_wal_size=2GB"}},
		{"base backups", 8 * gib, func(s *server) { s.Timed, s.Forced, s.WAL = 100, 900, 900*16*mib }, nil},
		{"forced checkpoints, and a disk out of sight", 8 * gib, func(s *server) { s.Timed, s.Forced, s.WAL, s.machine.freeKnown = 100, 900, 900*512*mib, false }, []string{"info tuning/max-wal-size max_wal_size="}},
		{"forced checkpoints, and no room at all", 8 * gib, func(s *server) { s.Timed, s.Forced, s.WAL, s.machine.free = 100, 900, 900*512*mib, 0 }, []string{"info tuning/max-wal-size max_wal_size="}},
		{"a nearly full disk", 8 * gib, func(s *server) { s.Timed, s.Forced, s.WAL, s.machine.free = 100, 900, 900*512*mib, gib }, []string{"info tuning/max-wal-size max_wal_size="}},
		{"old checkpoints", 8 * gib, func(s *server) { s.with("checkpoint_completion_target", "0.5"); s.with("checkpoint_timeout", "60s") }, []string{
			"info tuning/checkpoints checkpoint_timeout=10min", "info tuning/checkpoints checkpoint_completion_target=0.9"}},
		{"rare checkpoints", 8 * gib, func(s *server) { s.with("checkpoint_timeout", "2h") }, []string{"info tuning/checkpoints checkpoint_timeout=30min"}},
		{"compiling", 8 * gib, func(s *server) { s.jit = jitUse{true, 20_000, 100_000} }, []string{"info tuning/jit jit=off"}},
		{"compiling that pays", 8 * gib, func(s *server) { s.jit = jitUse{true, 2_000, 100_000} }, nil},
		{"compiling that was not measured", 8 * gib, func(s *server) { s.jit = jitUse{} }, nil},
		{"all that is dangerous", 8 * gib, func(s *server) {
			s.with("fsync", "off").with("full_page_writes", "off").with("zero_damaged_pages", "on").with("ignore_checksum_failure", "on").with("synchronous_commit", "off")
		}, []string{"warning tuning/not-crash-safe fsync=on", "warning tuning/not-crash-safe full_page_writes=on", "warning tuning/hidden-corruption zero_damaged_pages=off",
			"warning tuning/hidden-corruption ignore_checksum_failure=off", "info tuning/late-commits synchronous_commit="}},
		{"memory not known", 0, func(s *server) { s.machine = machine{}; large(s); missing(s) }, []string{"info tuning/machine-unknown main="}},
		{"an error in a file", 8 * gib, func(s *server) {
			s.files = []fileSetting{{File: "/etc/x.conf", Line: 3, Error: "syntax error", Fault: true}, {Name: "shared_buffers", Error: "setting could not be applied"}}
		}, []string{"error tuning/configuration-faulty /etc/x.conf:3="}},
		{"waiting for a restart that cures", 16 * gib, func(s *server) {
			s.with("shared_buffers", "12GB")
			x := s.settings["shared_buffers"]
			x.Pending, x.next = true, &fileSetting{Name: "shared_buffers", Value: "2GB"}
			s.settings["shared_buffers"] = x
		}, []string{"info tuning/restart-pending shared_buffers="}},
		{"waiting for a restart that nobody can see", 16 * gib, func(s *server) {
			x := s.with("shared_buffers", "12GB").settings["shared_buffers"]
			x.Pending = true
			s.settings["shared_buffers"] = x
		}, []string{"info tuning/restart-pending shared_buffers="}},
		{"huge pages wanted", 24 * gib, func(s *server) {
			s.with("shared_buffers", "5GB").with("effective_cache_size", "14GB").TotalSize = 20 * gib
			s.machine.huge = huge{known: true, size: 2 * mib, transparent: "always"}
		}, []string{"info tuning/huge-pages huge_pages=", "info tuning/transparent-huge-pages transparent_hugepage="}},
		{"huge pages there", 24 * gib, func(s *server) {
			s.with("shared_buffers", "5GB").with("effective_cache_size", "14GB").TotalSize = 20 * gib
			s.settings["huge_pages_status"] = setting{Name: "huge_pages_status", Raw: "on"}
			s.machine.huge = huge{known: true, size: 2 * mib, total: 2700, transparent: "madvise"}
		}, nil},
		{"huge pages kept for nobody", 8 * gib, func(s *server) {
			s.settings["huge_pages_status"] = setting{Name: "huge_pages_status", Raw: "off"}
			s.machine.huge = huge{known: true, size: 2 * mib, total: 2000, unset: 2000}
		}, []string{"info tuning/huge-pages huge_pages="}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := sound(tt.memory)
			tt.change(s)
			if tt.memory > 0 {
				s.leaveOthers()
			}
			var got []string
			for _, a := range s.judge() {
				got = append(got, fmt.Sprintf("%s %s %s=%s", a.severity, a.code, a.name, a.set))
				f := s.finding(a)
				if f.Summary == "" || f.Observed == "" || f.Expected == "" || f.Remedy == "" {
					t.Errorf("%s says too little: %+v", a.code, f)
				}
			}
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("said\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(tt.want, "\n  "))
			}
		})
	}
}

func TestWhatIsDoneByHand(t *testing.T) {
	forced := func(s *server) { s.Timed, s.Forced, s.WAL, s.machine.freeKnown = 100, 900, 900*512*mib, false }
	late := func(source string) func(*server) {
		return func(s *server) {
			x := s.with("synchronous_commit", "off").settings["synchronous_commit"]
			x.Source = source
			s.settings[x.Name] = x
		}
	}
	managed := func(change func(*server)) func(*server) {
		return func(s *server) {
			change(s)
			s.settings["allow_alter_system"] = setting{Name: "allow_alter_system", Raw: "off"}
		}
	}
	for name, tt := range map[string]struct {
		change func(*server)
		code   string
		says   string
		not    string
	}{
		"a disk out of sight":            {forced, MaxWALSize, "has room for that. As an administrator of the server:\n    ALTER SYSTEM SET max_wal_size = '2GB';", ""},
		"late commits by a file":         {late("configuration file"), LateCommits, "ALTER SYSTEM SET synchronous_commit = 'on';", ""},
		"late commits by the role":       {late("user"), LateCommits, `ALTER ROLE "synapse_user" SET synchronous_commit = 'on';`, "ALTER SYSTEM"},
		"late commits by the connection": {late("client"), LateCommits, "options, under database: args:", "ALTER SYSTEM"},
		"late commits of a managed one":  {managed(late("default")), LateCommits, "    synchronous_commit = 'on'\n", "ALTER SYSTEM SET"},
		"a file of a managed one":        {managed(func(s *server) { s.with("fsync", "off") }), NotCrashSafe, "    fsync = 'on'\nAnd as an administrator of the server:\n    SELECT pg_reload_conf();", "ALTER SYSTEM SET"},
		"more connections":               {func(s *server) { s.opens.connections = 98 }, MaxConnections, standbysFirst, standbysLast},
		"fewer connections":              {func(s *server) { s.with("max_connections", "1000") }, MaxConnections, standbysLast, standbysFirst},
	} {
		s := sound(8 * gib)
		tt.change(s)
		for _, a := range s.judge() {
			f := s.finding(a)
			if f.Code != tt.code || !strings.Contains(f.Remedy, tt.says) || tt.not != "" && strings.Contains(f.Remedy, tt.not) {
				t.Errorf("%s: %s: %s", name, f.Code, f.Remedy)
			}
			if a.set == "" {
				continue
			}
			if step := s.restartByHand([]advice{a}).Manual.Text; f.Code == MaxConnections && !strings.Contains(step, tt.says) {
				t.Errorf("%s: the plan says: %s", name, step)
			}
		}
	}
}

// A waiting value that is no number is compared as it is written.
func TestWhatWaitsForARestart(t *testing.T) {
	for _, tt := range []struct {
		name, now, then string
		want            bool
	}{
		{"huge_pages", "on", "try", true}, {"huge_pages", "try", "off", true}, {"huge_pages", "try", "TRY", false}, {"archive_mode", "on", "always", true},
		{"archive_mode", "off", "false", false}, {"shared_buffers", "16384", "128MB", false}, {"shared_buffers", "16384", "129MB", true}, {"listen_addresses", "*", "localhost", true},
	} {
		s := sound(8 * gib)
		x := s.settings[tt.name]
		x.Name, x.Raw, x.Text, x.Pending, x.next = tt.name, tt.now, tt.now, true, &fileSetting{Name: tt.name, Value: tt.then}
		s.settings[tt.name] = x
		if found := s.pending(); (len(found) == 1) != tt.want {
			t.Errorf("%s from %s to %s: %+v", tt.name, tt.now, tt.then, found)
		}
	}
}

func TestAnAdvisedValueIsNotAdvisedAgainst(t *testing.T) {
	for _, memory := range []int64{gib / 2, gib, 2 * gib, 4 * gib, 8 * gib, 24 * gib, 256 * gib} {
		for _, data := range []int64{20 * mib, gib, 40 * gib, 4096 * gib} {
			for _, disk := range []doctor.Disk{doctor.DiskSSD, doctor.DiskHDD} {
				for _, version := range []int{140001, 150001, 170001, 180001} {
					s := sound(memory)
					s.TotalSize, s.Index, s.LargestRows, s.machine.disk, s.Version = data, data/10, float64(data)/200, disk, version
					s.Hits, s.Reads, s.Evicted, s.TempFiles, s.TempBytes = 500_000, 500_000, 100_000, 1000, 100*gib
					for name, value := range s.host().Values() {
						s.with(name, value)
					}
					for _, a := range s.judge() {
						// More temporary files than memory can take are told again where there is room.
						if a.code == WorkMem || a.code == SharedBuffers && memory < gib {
							continue
						}
						t.Errorf("%s, %s of data, %s, %d: %s (%s → %s)", about(memory), about(data), disk, version, a.summary, s.get(a.name).Text, a.set)
					}
					if w := s.worst().total(); w > memory {
						t.Errorf("%s, %s of data: the worst case of the advised values is %s", about(memory), about(data), about(w))
					}
				}
			}
		}
	}
}

func TestWhereAValueComesFrom(t *testing.T) {
	for source, want := range map[string]struct{ from, elsewhere string }{
		"default":       {"the default", ""},
		"command line":  {"the command line with which the server is started", "on the command line"},
		"database":      {"ALTER DATABASE syn SET", `ALTER DATABASE "syn" SET work_mem = '8MB';`},
		"user":          {"ALTER ROLE u\" SET", `ALTER ROLE "u""" SET work_mem = '8MB';`},
		"database user": {"ALTER ROLE u\" IN DATABASE syn SET", `ALTER ROLE "u""" IN DATABASE "syn" SET work_mem = '8MB';`},
		"client":        {"options of the connection, in homeserver.yaml", "under database: args:"},
	} {
		x := setting{Name: "work_mem", Source: source}
		if got := x.from("syn", `u"`); got != want.from {
			t.Errorf("%s: from %q", source, got)
		}
		if got := x.elsewhere("syn", `u"`, "8MB"); !strings.Contains(got, want.elsewhere) {
			t.Errorf("%s: %q", source, got)
		}
		if x.fromFile() != (source == "default") {
			t.Errorf("%s: fromFile %t", source, x.fromFile())
		}
	}
	for file, want := range map[string]string{
		"": "an administrator", "/d/postgresql.auto.conf": "ALTER SYSTEM, in /d/postgresql.auto.conf:7", "/etc/x.conf": "/etc/x.conf:7",
	} {
		x := setting{Name: "work_mem", Source: "configuration file", File: file, Line: 7}
		if got := x.from("", ""); !strings.Contains(got, want) || !x.fromFile() {
			t.Errorf("%q: %q", file, got)
		}
	}
}

func TestAmounts(t *testing.T) {
	for _, tt := range []struct {
		text, unit string
		want       float64
	}{
		{"16384", "8kB", 128 << 20}, {"128MB", "8kB", 128 << 20}, {"1.5GB", "kB", 1.5 * (1 << 30)}, {"-1", "kB", -1}, {"300", "s", 300}, {"5min", "s", 300},
		{"500ms", "s", 0.5}, {"0.9", "", 0.9}, {"on", "", 1}, {"off", "", 0}, {"1024", "MB", 1 << 30}, {" 2 GB ", "kB", 2 << 30},
	} {
		if got, ok := parse(tt.text, tt.unit); !ok || got != tt.want {
			t.Errorf("parse(%q, %q) = %g, %t; want %g", tt.text, tt.unit, got, ok, tt.want)
		}
	}
	for _, bad := range []string{"", "try", "1XB", "GB"} {
		if got, ok := parse(bad, "kB"); ok {
			t.Errorf("parse(%q) = %g", bad, got)
		}
	}
	for b, want := range map[int64]string{0: "0", 1536: "1536B", 64 * kib: "64kB", 1536 * mib: "1536MB", 3 * gib: "3GB"} {
		if got := size(b); got != want {
			t.Errorf("size(%d) = %s, want %s", b, got, want)
		}
	}
	for _, b := range []int64{1, mib, 5*mib + 1, 117 * mib, 1100 * mib, 24*gib - 1, 1 << 50} {
		if n := nice(b); n > max(b, mib) || n < b*3/4 || n != nice(n) {
			t.Errorf("nice(%d) = %d", b, n)
		}
		if n := niceUp(b); n < b || n > max(b+b/3, mib) {
			t.Errorf("niceUp(%d) = %d", b, n)
		}
	}
}

func TestOneSettingIsSetOnce(t *testing.T) {
	s := sound(4*gib).with("shared_buffers", "3GB").with("work_mem", "512MB").with("maintenance_work_mem", "1GB")
	s.TotalSize = 40 * gib
	seen := map[string]string{}
	for _, a := range s.judge() {
		if a.set == "" {
			continue
		}
		if other, again := seen[a.name]; again {
			t.Errorf("%s is set to %s and to %s", a.name, other, a.set)
		}
		seen[a.name] = a.set
	}
	for name, value := range maps.Clone(seen) {
		s.with(name, value)
	}
	for _, a := range s.judge() {
		if a.code == WorstCase {
			t.Errorf("not cured by %v: %s", seen, a.summary)
		}
	}
}

func TestEveryCodeIsDeclared(t *testing.T) {
	if len([]rune(Check.Title)) > 60 {
		t.Errorf("the title is too long")
	}
	seen := map[string]bool{}
	for _, c := range Check.Codes {
		if doctor.CheckID(c.ID) != checkID || seen[c.ID] {
			t.Errorf("code %s", c.ID)
		}
		seen[c.ID] = true
	}
	for _, th := range Check.Thresholds {
		if err := th.Allows(th.Default); err != nil || doctor.CheckID(th.ID) != checkID {
			t.Errorf("threshold %s: %v", th.ID, err)
		}
	}
}
