package tuning

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// advice is one thing to say of one setting.
type advice struct {
	code     string
	severity doctor.Severity
	name     string // the setting
	kind     string // of the object; empty: a setting
	summary  string
	observed string // empty: the value, and where it comes from
	expected string
	set      string   // what a plan sets; empty where none does
	sums     []string // the arithmetic, line by line
	remedy   string   // where set is empty, or what to know beside the statement
}

// worthwhile is the size of all databases below which no disk is felt: they are in memory as a whole.
const worthwhile = 256 * mib

// judge says all that there is to say; of each setting the gravest first.
func (s *server) judge() []advice {
	all := slices.Concat(s.faulty(), s.dangers(), s.worstCase(), s.connections())
	if s.machine.memory > 0 {
		all = append(all, s.memory()...)
	} else {
		all = append(all, s.unknown())
	}
	all = slices.Concat(all, s.disk(), s.wal(), s.jitting(), s.pending())
	if !slices.ContainsFunc(all, func(a advice) bool { return a.name == "shared_buffers" && a.set != "" }) {
		all = append(all, s.hugePages()...) // they are counted when shared_buffers is what it shall be
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(a advice) bool { // two values for one setting would contradict each other
		again := a.set != "" && seen[a.name]
		seen[a.name] = seen[a.name] || a.set != ""
		return again
	})
}

// inRange says which values are right for an amount of memory.
func (p span) inRange() string {
	if p.low >= p.high {
		return "about " + size(int64(p.set))
	}
	return fmt.Sprintf("%s to %s", size(int64(p.low)), size(int64(p.high)))
}

// memory judges the settings that the machine's memory decides.
func (s *server) memory() []advice {
	return slices.Concat(s.buffers(), s.cacheSize(), s.work(), s.maintenance(), s.autovacuum())
}

func (s *server) buffers() []advice {
	now := s.get("shared_buffers")
	if !now.judgeable() {
		return nil
	}
	h := s.host()
	p := h.sharedBuffers()
	a := advice{code: SharedBuffers, severity: doctor.Info, name: now.Name, expected: p.inRange(), set: size(int64(p.set)),
		sums: slices.Concat(s.machine.memorySum(), p.sums)}
	switch v := now.value(); {
	case v > float64(h.Left)*3/4 && v > p.high && now.bytes() > least:
		a.severity = s.grave()
		a.summary = fmt.Sprintf("shared_buffers takes %s of the %s that are PostgreSQL's: queries, and what else runs there, find no memory left.", about(int64(v)), about(h.Left))
		return []advice{a}
	case v < p.low && float64(s.TotalSize) > v:
		read := s.Hits + s.Reads
		ratio := percent(float64(s.Hits), float64(read))
		if read < enoughReads || ratio >= s.target.Threshold(hitRatio) || s.Evicted == 0 {
			return nil
		}
		a.summary = fmt.Sprintf("shared_buffers answers only %.1f %% of the reads of the database: it is small for %s of data and %s of memory.", ratio, about(s.TotalSize), about(h.Left))
		a.sums = append(a.sums, fmt.Sprintf("measured over %s (pg_stat_database):", days(s.SinceReset)),
			fmt.Sprintf("  %d of %d reads answered = %.2f %%, %s %% aimed at", s.Hits, read, ratio, doctor.Number(s.target.Threshold(hitRatio))))
		if s.Evicted > 0 {
			a.sums = append(a.sums, fmt.Sprintf("  %d times a page had to leave for another (pg_stat_io)", s.Evicted))
		}
		return []advice{a}
	}
	return nil
}

// enoughReads is how many blocks a server must have been asked for before a share of them says anything: 400 MB.
const enoughReads = 50_000

// grave is the severity of what endangers the server's memory: a guess at that is no reason for a warning.
func (s *server) grave() doctor.Severity {
	if s.machine.inferred {
		return doctor.Info
	}
	return doctor.Warning
}

func days(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%.0f hours", d.Hours())
	}
	return fmt.Sprintf("%.0f minutes", d.Minutes())
}

func (s *server) cacheSize() []advice {
	now := s.get("effective_cache_size")
	h := s.host()
	p := h.effectiveCacheSize()
	a := advice{code: EffectiveCacheSize, severity: doctor.Info, name: now.Name, expected: p.inRange(), set: size(int64(p.set)),
		sums: slices.Concat(s.machine.memorySum(), p.sums)}
	switch v := now.bytes(); {
	case v > s.machine.memory && s.TotalSize > h.Left/2:
		a.summary = fmt.Sprintf("The planner is told that %s can be cached, and the machine has %s: it prefers indexes where reading the table is faster.", about(v), about(s.machine.memory))
	case float64(v) < p.low && s.TotalSize > v:
		a.summary = fmt.Sprintf("The planner is told that only %s can be cached, of %s that PostgreSQL has and %s of data: it avoids indexes that would be in memory.", about(v), about(h.Left), about(s.TotalSize))
	default:
		return nil
	}
	return []advice{a}
}

// work judges work_mem by the files that queries had to write for want of it.
func (s *server) work() []advice {
	now := s.get("work_mem")
	h := s.host()
	p := h.workMem()
	written, over := s.since(tempBytes, s.TempBytes)
	files, _ := s.since(tempFiles, s.TempFiles)
	if files < 10 {
		return nil
	}
	daily := float64(written) / max(over.Hours()/24, 1)
	average := written / files
	if daily < s.target.Threshold(temporaryFiles) || now.value() >= p.high {
		return nil
	}
	set := min(niceUp(max(2*average, now.bytes()*2)), int64(p.high), mostWork)
	if set <= now.bytes() {
		return nil
	}
	p.low = float64(min(now.bytes()*2, set))
	return []advice{{code: WorkMem, severity: doctor.Info, name: now.Name, expected: p.inRange(), set: size(set),
		summary: fmt.Sprintf("Queries wrote %s of temporary files in %s, because work_mem was too small for their sorts and hashes.", about(written), days(over.Seconds())),
		sums: slices.Concat([]string{
			row("", written, "in %d files, within %s (pg_stat_database)", files, days(over.Seconds())),
			row("", 2*average, "twice what a file has: such a sort stays in memory"),
		}, s.machine.memorySum(), p.sums)}}
}

func (s *server) maintenance() []advice {
	now := s.get("maintenance_work_mem")
	h := s.host()
	p := h.maintenanceWorkMem()
	if v := now.bytes(); float64(v)*2 > p.set || s.Index < 4*v {
		return nil
	}
	return []advice{{code: MaintenanceWorkMem, severity: doctor.Info, name: now.Name, expected: p.inRange(), set: size(int64(p.set)),
		summary: fmt.Sprintf("Building the largest index (%s) sorts it on disk: maintenance_work_mem is %s.", about(s.Index), now.text()),
		sums:    slices.Concat(s.machine.memorySum(), p.sums)}}
}

// vacuumMemory is what one autovacuum worker may take. Before 17 it never took more than a gibibyte.
func (s *server) vacuumMemory() int64 {
	v := s.get("autovacuum_work_mem")
	if v.value() < 0 {
		v = s.get("maintenance_work_mem")
	}
	if s.major() < 17 {
		return min(v.bytes(), gib)
	}
	return v.bytes()
}

func (s *server) autovacuum() []advice {
	now := s.get("autovacuum_work_mem")
	h := s.host()
	scale := s.get("autovacuum_vacuum_scale_factor").value()
	p := h.autovacuumWorkMem(scale)
	each := s.vacuumMemory()
	together := each * int64(max(h.Workers, 1))
	dead := int64(scale*h.Rows) * deadRow
	a := advice{code: AutovacuumWorkMem, severity: doctor.Info, name: now.Name, expected: p.inRange(), set: size(int64(p.set)),
		sums: slices.Concat(s.machine.memorySum(), p.sums)}
	switch {
	case together > h.Left/3 && each > leastMaintain && float64(each) > p.high:
		a.summary = fmt.Sprintf("%d autovacuum workers may take %s each, %s of the %s that are PostgreSQL's.", h.Workers, about(each), about(together), about(h.Left))
	case s.major() < 17 && dead > each && p.set >= 1.5*float64(each):
		a.summary = fmt.Sprintf("Vacuum reads the indexes of the largest table %d times over: it can remember %s of dead rows, and there are %s by the time it comes.", (dead+each-1)/each, about(each), about(dead))
	default:
		return nil
	}
	return []advice{a}
}

// disk judges what the planner takes for granted of the disk.
func (s *server) disk() []advice {
	h := s.host()
	if h.Disk == doctor.DiskUnknown || s.TotalSize < worthwhile {
		return nil
	}
	var found []advice
	if now, p := s.get("random_page_cost"), h.randomPageCost(); now.value() < p.low-0.5 || now.value() > p.high {
		what := "an SSD, and the planner is told that reading a page anywhere costs as much as on a disk that turns: it reads whole tables where an index would do"
		if h.Disk == doctor.DiskHDD {
			what = "a disk that turns, and the planner is told that reading a page anywhere costs little"
		}
		found = append(found, advice{code: RandomPageCost, severity: doctor.Info, name: now.Name, set: fmt.Sprint(p.set),
			summary: fmt.Sprintf("The data is on %s.", what), expected: fmt.Sprintf("%g to %g", p.low, p.high),
			sums: append([]string{"disk: " + string(h.Disk) + ", " + s.machine.diskFrom}, p.sums...)})
	}
	if now, p := s.get("effective_io_concurrency"), h.ioConcurrency(); now.value() < p.low || now.value() > p.high {
		found = append(found, advice{code: IOConcurrency, severity: doctor.Info, name: now.Name, set: fmt.Sprint(p.set),
			summary:  fmt.Sprintf("effective_io_concurrency is %s, which is not what a disk of this kind (%s) does well.", now.text(), h.Disk),
			expected: fmt.Sprintf("%g to %g", p.low, p.high), sums: append([]string{"disk: " + string(h.Disk) + ", " + s.machine.diskFrom}, p.sums...)})
	}
	return found
}

// wal judges how often the log forces a checkpoint, after which every page is logged whole once more.
func (s *server) wal() []advice {
	var found []advice
	timed, _ := s.since(timedCheckpoints, s.Timed)
	forced, over := s.since(forcedOnes, s.Forced)
	written, _ := s.since(walBytes, s.WAL)
	share := percent(float64(forced), float64(timed+forced))
	timeout, now := s.get("checkpoint_timeout"), s.get("max_wal_size")
	// Base backups, and whoever says CHECKPOINT, count among the forced ones; those write no log.
	full := int64(now.value() / 3)
	if forced >= 10 && share >= s.target.Threshold(forcedCheckpoints) && written/forced > full {
		low, high := 2*now.bytes(), 4*now.bytes()
		a := advice{code: MaxWALSize, severity: doctor.Info, name: now.Name,
			summary: fmt.Sprintf("%.0f %% of the checkpoints came because the log had reached max_wal_size, not because %s had passed: more is written than needs to be.", share, timeout.text()),
			sums: []string{
				fmt.Sprintf("%d of %d checkpoints in %s; told from %.0f %% on", forced, timed+forced, days(over.Seconds()), s.target.Threshold(forcedCheckpoints)),
				row("", written, "of log written meanwhile"), row("", low, "2 × what it is"), row("", high, "4 × what it is")}}
		if s.machine.freeKnown {
			high = min(high, now.bytes()+s.machine.free/4)
			a.sums = append(a.sums, row("", high, "with a quarter of what is free on the log's disk: %s", about(s.machine.free)))
		}
		a.expected = fmt.Sprintf("%s to %s", size(nice(min(low, high))), size(nice(high)))
		switch {
		case !s.machine.freeKnown:
			a.remedy = "Look first whether the log's disk, which can't be seen from here, has room for that. " + s.byHand(now, size(nice(low)))
		case high >= low:
			a.set = size(nice(low))
		default:
			a.remedy = "The disk has no room for a larger log: make room first."
		}
		a.sums = append(a.sums, "after a crash so much log is read again: seconds for each gigabyte")
		found = append(found, a)
	}
	switch v := timeout.value(); {
	case v < 300:
		found = append(found, advice{code: Checkpoints, severity: doctor.Info, name: timeout.Name, set: "10min", expected: "5min to 30min",
			summary: fmt.Sprintf("Checkpoints come every %s: after each, every page that changes is logged whole once more.", timeout.text()),
			sums:    []string{"the longer, the fewer whole pages are logged, and the longer a start", "after a crash takes; the default is 5min"}})
	case v > 3600:
		found = append(found, advice{code: Checkpoints, severity: doctor.Info, name: timeout.Name, set: "30min", expected: "5min to 30min",
			summary: fmt.Sprintf("Checkpoints come only every %s: after a crash, Synapse waits while all that was logged since is read again.", timeout.text()),
			sums:    []string{"beyond half an hour hardly any whole page is saved"}})
	}
	if target := s.get("checkpoint_completion_target"); target.value() < 0.7 {
		found = append(found, advice{code: Checkpoints, severity: doctor.Info, name: target.Name, set: "0.9", expected: "0.7 to 0.95",
			summary: fmt.Sprintf("Checkpoints write all within %.0f %% of the time that they have, so that the disk is busy and then idle.", 100*target.value()),
			sums:    []string{"0.9 is the default since 14; older configurations carry 0.5"}})
	}
	return found
}

// jitting judges compiling by what pg_stat_statements has measured, and only by that.
func (s *server) jitting() []advice {
	share := percent(s.jit.Compiled, s.jit.Total)
	if !s.jit.Known || !s.get("jit").on() || s.jit.Total < 60_000 || share < s.target.Threshold(jitShare) {
		return nil
	}
	return []advice{{code: JIT, severity: doctor.Info, name: "jit", set: "off", expected: "off, where queries are short",
		summary: fmt.Sprintf("%.0f %% of the time of Synapse's queries is spent compiling them.", share),
		sums:    []string{fmt.Sprintf("%.0f s of %.0f s, by pg_stat_statements", s.jit.Compiled/1000, s.jit.Total/1000)}}}
}

// pending names what has been changed and does not count yet.
func (s *server) pending() []advice {
	var found []advice
	for _, x := range s.settings {
		if !x.Pending || x.next != nil && x.counts(x.next.Value) {
			continue // a change that was taken back stays marked until the files are loaded again
		}
		to := "another value"
		if x.next != nil {
			to = x.next.Value
		}
		found = append(found, advice{code: RestartPending, severity: doctor.Info, name: x.Name,
			summary:  fmt.Sprintf("%s has been changed to %s, which counts only after a restart of the server.", x.Name, to),
			observed: fmt.Sprintf("%s until then", x.Text), expected: "a restart at a quiet time",
			remedy: "Restart the server; Synapse loses its connections for a moment, and makes new ones:\n" + s.howToRestart()})
	}
	slices.SortFunc(found, func(a, b advice) int { return cmp.Compare(a.name, b.name) })
	return found
}

func (s *server) unknown() advice {
	return advice{code: MachineUnknown, severity: doctor.Info, name: s.db.Label, kind: "database",
		summary:  "The memory of the database server's machine is not known, so that the settings of memory are not judged.",
		observed: fmt.Sprintf("the server is on another machine (%s)", s.db.Where()), expected: "--db-memory, and --db-disk, which say what that machine has",
		remedy: "Say what the machine of the database server has, on the command line or in the doctor's own configuration:\n    synapse-doctor check tuning --db-memory 16GiB --db-disk ssd"}
}

// covered is the line under the check's name.
func (s *server) covered() string {
	m := s.machine
	parts := []string{fmt.Sprintf("%d settings", len(names))}
	if m.memory > 0 {
		w := s.worst()
		parts = append(parts, fmt.Sprintf("%s for PostgreSQL of %s (%s), worst case %s", about(m.left()), about(m.memory), m.memoryFrom, about(w.total())))
	} else {
		parts = append(parts, "not those of memory")
	}
	switch {
	case s.TotalSize <= s.get("shared_buffers").bytes():
		parts = append(parts, fmt.Sprintf("all databases (%s) fit in shared_buffers", about(s.TotalSize)))
	case s.Hits+s.Reads < enoughReads:
		parts = append(parts, "too little has been read so far to judge shared_buffers")
	default:
		parts = append(parts, fmt.Sprintf("%.1f %% of the reads answered from shared_buffers", percent(float64(s.Hits), float64(s.Hits+s.Reads))))
	}
	if m.disk == doctor.DiskUnknown {
		parts = append(parts, "the kind of disk is not known (--db-disk)")
	}
	return strings.Join(parts, ", ")
}
