package tuning

import (
	"fmt"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// Host is what the ranges are computed from.
type Host struct {
	Left        int64       // bytes of memory that PostgreSQL may use; 0: not known
	Size        int64       // bytes of all databases of the server
	Index       int64       // bytes of the largest index
	Rows        float64     // of the largest table
	Connections int         // that may work at the same time
	Workers     int         // autovacuum_max_workers
	HashFactor  float64     // hash_mem_multiplier
	Disk        doctor.Disk // unknown: nothing is said of it
	Major       int
	HugePages   bool // the server has them
}

// span is a range that a setting should be in, and the value that a plan sets. All are bytes, or mere numbers.
type span struct {
	low, high, set float64
	sums           []string
}

// Memory settings are computed from what is left to PostgreSQL.
const (
	least         = 128 * mib // shared_buffers, where there is room: PostgreSQL's own default
	mostPlain     = 8 * gib   // of shared_buffers: beyond, the tables of pages of each process become large
	mostHuge      = 16 * gib  // with huge pages they don't
	leastMaintain = 64 * mib  // maintenance_work_mem and autovacuum_work_mem: the default
	mostMaintain  = gib
	leastWork     = 4 * mib // work_mem: the default
	mostWork      = 64 * mib
)

// sharedBuffers: three tenths of what is left, which is a quarter of a machine that is PostgreSQL's alone, as its
// documentation advises; more than two fifths gain nothing, since the kernel caches the same files. What holds the whole
// database is enough.
func (h Host) sharedBuffers() span {
	most, why := mostPlain, "without huge pages"
	if h.HugePages {
		most, why = mostHuge, "with huge pages"
	}
	enough := niceUp(h.Size + h.Size/4 + 64*mib)
	floor := min(least, h.Left*2/5)
	aim := max(min(h.Left*3/10, most, enough), floor)
	top := max(min(h.Left*2/5, most), aim)
	return span{
		low: float64(nice(max(min(h.Left/8, aim), floor/2))), high: float64(nice(top)), set: float64(nice(aim)),
		sums: []string{
			row("", h.Left*3/10, "three tenths of it; an eighth is %s, two fifths are %s", about(h.Left/8), about(h.Left*2/5)),
			row("", enough, "holds all databases: %s × 1.25 + 64 MiB", about(h.Size)),
			row("", most, "the most %s", why),
		},
	}
}

// effectiveCacheSize allocates nothing: the planner is told what shared_buffers and the kernel's cache hold together.
func (h Host) effectiveCacheSize() span {
	return span{
		low: float64(nice(h.Left / 2)), high: float64(nice(max(h.Left*9/10, h.Left/2+1))), set: float64(nice(h.Left * 3 / 4)),
		sums: []string{
			row("", h.Left*3/4, "three quarters of it can be cache: shared_buffers and the kernel's;"),
			row("", h.Left/2, "half of it is the least, nine tenths are %s", about(h.Left*9/10)),
		},
	}
}

// nodes is what one busy connection may hold: a sort, and a hash that may be hash_mem_multiplier times as large.
func (h Host) nodes() float64 { return 1 + max(h.HashFactor, 1) }

// workMem divides what is left when buffers and maintenance have theirs.
func (h Host) workMem() span {
	buffers, maintain := int64(h.sharedBuffers().set), int64(h.maintenanceWorkMem().set)
	budget := max((h.Left-buffers-maintain)/2, 0)
	high := int64(float64(budget) / (float64(max(h.Connections, 1)) * h.nodes()))
	top := nice(max(high, leastWork))
	return span{
		low: float64(leastWork), high: float64(top), set: float64(max(min(nice(top/2), mostWork), leastWork)),
		sums: []string{
			row("−", buffers, "shared_buffers"), row("−", maintain, "maintenance_work_mem"),
			row("=", 2*budget, "half of which is left to the kernel's cache"),
			row("", high, "÷ (%d connections × (1 sort + 1 hash × %g))", h.Connections, max(h.HashFactor, 1)),
		},
	}
}

// maintenanceWorkMem: an index is built in memory of this size, by one session at a time.
func (h Host) maintenanceWorkMem() span {
	aim := max(min(h.Left/16, mostMaintain), min(leastMaintain, h.Left/8))
	top := max(min(h.Left/8, 2*gib), aim)
	return span{
		low: float64(nice(min(leastMaintain, aim))), high: float64(nice(top)), set: float64(nice(aim)),
		sums: []string{row("", h.Left/16, "a sixteenth of it, and at most %s", about(mostMaintain)), row("", h.Index, "has the largest index")},
	}
}

// deadRow is what a vacuum before 17 remembers of a dead row; from 17 on it is a fraction of that.
const deadRow = 6

// autovacuumWorkMem is taken by every worker at the same time.
func (h Host) autovacuumWorkMem(scale float64) span {
	workers := int64(max(h.Workers, 1))
	top := max(min(h.Left/8/workers, gib), min(leastMaintain, h.Left/8/workers))
	dead := int64(scale*h.Rows) * deadRow
	aim := min(leastMaintain, top)
	sums := []string{row("", h.Left/8/workers, "an eighth of it ÷ %d workers", workers)}
	if h.Major < 17 {
		aim = max(min(niceUp(max(dead, mib)), top), aim)
		sums = append(sums, row("", dead, "%.0f %% of %.0f rows × %d bytes, in the largest table", 100*scale, h.Rows, deadRow))
	}
	return span{low: float64(nice(min(aim, leastMaintain))), high: float64(nice(top)), set: float64(nice(aim)), sums: sums}
}

func (h Host) randomPageCost() span {
	if h.Disk == doctor.DiskHDD {
		return span{low: 3, high: 5, set: 4, sums: []string{"the default 4 takes nine in ten such reads for cached"}}
	}
	return span{low: 1, high: 2, set: 1.1, sums: []string{"an SSD reads any page nearly as fast as the next (seq_page_cost, 1)"}}
}

// ioConcurrency: until 17 it counts pages that are asked for ahead, since 18 reads under way, each of several pages.
func (h Host) ioConcurrency() span {
	switch {
	case h.Disk == doctor.DiskHDD:
		return span{low: 1, high: 16, set: 2, sums: []string{"a disk that turns answers two requests better than one, not ten"}}
	case h.Major >= 18:
		return span{low: 16, high: 256, set: 32, sums: []string{"an SSD likes dozens of requests at a time; the default is 16"}}
	}
	return span{low: 16, high: 512, set: 100, sums: []string{"an SSD likes dozens of requests at a time; the default asks for 1"}}
}

// Values are the settings that the check would choose for a server with this load, whether or not its statistics already
// call for them, as they are written into its configuration.
func (h Host) Values() map[string]string {
	v := map[string]string{
		"shared_buffers": size(int64(h.sharedBuffers().set)), "effective_cache_size": size(int64(h.effectiveCacheSize().set)),
		"work_mem": size(int64(h.workMem().set)), "maintenance_work_mem": size(int64(h.maintenanceWorkMem().set)),
		"autovacuum_work_mem": size(int64(h.autovacuumWorkMem(0.2).set)), "max_wal_size": "4GB", "checkpoint_completion_target": "0.9",
	}
	if h.Left < gib {
		v["max_wal_size"] = "1GB"
	}
	if h.Disk != doctor.DiskUnknown {
		v["random_page_cost"] = fmt.Sprint(h.randomPageCost().set)
		v["effective_io_concurrency"] = fmt.Sprint(h.ioConcurrency().set)
	}
	return v
}

func (s *server) host() Host {
	h := Host{
		Left: s.machine.left(), Size: s.TotalSize, Index: s.Index, Rows: s.LargestRows, Connections: s.busy(),
		Workers: int(s.get("autovacuum_max_workers").value()), HashFactor: s.get("hash_mem_multiplier").value(),
		Disk: s.machine.disk, Major: s.major(), HugePages: s.hugeStatus() == "on",
	}
	if s.machine.memory == 0 {
		h.Left = 0
	}
	return h
}

// busy is how many connections may work at the same time: Synapse's and a few, else all that there may be.
func (s *server) busy() int {
	most := int(s.get("max_connections").value())
	if s.opens.known {
		return min(s.opens.connections+10, most)
	}
	return most
}
