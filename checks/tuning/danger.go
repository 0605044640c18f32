package tuning

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// faulty names what in the server's files would keep it from starting again.
func (s *server) faulty() []advice {
	var found []advice
	for _, f := range s.files {
		if !f.Fault {
			continue
		}
		a := advice{code: ConfigurationFaulty, severity: doctor.Error, kind: "file", name: fmt.Sprintf("%s:%d", f.File, f.Line),
			summary:  fmt.Sprintf("The server's configuration has an error in line %d of %s: the server would not start again, and until then what was changed may not count.", f.Line, f.File),
			observed: strings.TrimSpace(f.Name + ": " + f.Error), expected: "a line that the server can read, with a value that is allowed",
			remedy: "Correct the line, and look again (an error that tells of a restart only waits for that):\n" +
				"    SELECT sourcefile, sourceline, name, error FROM pg_file_settings WHERE error IS NOT NULL;\nThen:\n    SELECT pg_reload_conf();"}
		switch {
		case f.File == "":
			a.name, a.summary = "configuration", "The server's configuration files have an error: the server would not start again."
		case f.Name == "":
			a.observed = f.Error
		case f.Error == "setting could not be applied":
			a.observed = fmt.Sprintf("%s = '%s', which is not allowed", f.Name, f.Value)
		}
		found = append(found, a)
	}
	return found[:min(len(found), 5)]
}

// dangers are the settings that trade the database for speed.
func (s *server) dangers() []advice {
	var found []advice
	add := func(code, name, set, summary, expected, remedy string) {
		found = append(found, advice{code: code, severity: doctor.Warning, name: name, set: set, summary: summary, expected: expected, remedy: remedy})
	}
	if !s.get("fsync").on() {
		add(NotCrashSafe, "fsync", "on", "fsync is off: a crash of the machine, or a loss of power, may leave the database beyond repair.", "on",
			"What was written before is on disk only when the kernel has got round to it; sync, as root, does that at once.")
	}
	if !s.get("full_page_writes").on() {
		add(NotCrashSafe, "full_page_writes", "on", "full_page_writes is off: a page that was half written when the machine crashed stays torn.", "on, unless the file system never tears a page (ZFS)", "")
	}
	if s.get("zero_damaged_pages").on() {
		add(HiddenCorruption, "zero_damaged_pages", "off", "zero_damaged_pages is on: a damaged page is emptied in memory, its rows vanish, and the next write makes that last.", "off", "")
	}
	if s.get("ignore_checksum_failure").on() {
		add(HiddenCorruption, "ignore_checksum_failure", "off", "ignore_checksum_failure is on: pages that fail their checksum are used as if they were sound.", "off", "")
	}
	if now := s.get("synchronous_commit"); now.Raw == "off" {
		found = append(found, advice{code: LateCommits, severity: doctor.Info, name: now.Name, expected: "on, unless that is meant",
			summary: "synchronous_commit is off: a crash loses what was committed in the last fraction of a second, of which Synapse has told clients already.",
			remedy:  "It is a choice: commits are faster, and the database itself stays sound. What is lost is three times wal_writer_delay at most, 0.6 s by default. To wait for the disk again:\n\n" + s.byHand(now, "on")})
	}
	return found
}

// worst is the memory that the settings allow at one moment.
type worst struct {
	buffers    int64
	vacuum     int64 // of all workers together
	maintain   int64 // one index being built by hand
	each, busy int64 // of one connection; how many
	workers    int64
}

func (w worst) total() int64 { return w.buffers + w.vacuum + w.maintain + w.each*w.busy }

// aConnection is what a server's process takes beside work_mem: its caches of the catalog, and the tables of pages.
const aConnection = 8 * mib

func (s *server) worst() worst {
	h := s.host()
	return worst{
		buffers: s.get("shared_buffers").bytes(), workers: int64(max(h.Workers, 1)), vacuum: s.vacuumMemory() * int64(max(h.Workers, 1)),
		maintain: s.get("maintenance_work_mem").bytes(), busy: int64(h.Connections),
		each: int64(s.get("work_mem").value()*h.nodes()) + aConnection,
	}
}

func (s *server) worstSums(w worst) []string {
	h := s.host()
	sums := []string{
		row("", w.buffers, "shared_buffers"),
		row("+", w.busy*w.each, "%d connections × (%s work_mem × (1 sort + 1 hash × %g) + %s)", w.busy, about(s.get("work_mem").bytes()), max(h.HashFactor, 1), about(aConnection)),
	}
	if s.opens.known {
		sums = append(sums, fmt.Sprintf("            (%s, and 10 for others)", s.opens.how))
	}
	return append(sums,
		row("+", w.vacuum, "%d autovacuum workers × %s", w.workers, about(w.vacuum/w.workers)),
		row("+", w.maintain, "maintenance_work_mem"),
		row("=", w.total(), "in the worst case"))
}

// modest: no setting of memory is above PostgreSQL's default, with which small machines run well: what they allow comes
// together in theory only, and the report's line says how much it is.
func (s *server) modest() bool {
	return s.get("shared_buffers").bytes() <= 128*mib && s.get("work_mem").bytes() <= leastWork &&
		s.get("maintenance_work_mem").bytes() <= leastMaintain && s.get("autovacuum_work_mem").bytes() <= leastMaintain && s.busy() <= 100
}

// worstCase names what to lower until the worst case fits into the memory: what is furthest beyond its range first.
func (s *server) worstCase() []advice {
	w := s.worst()
	if s.machine.memory == 0 || w.total() <= s.machine.memory || s.modest() {
		return nil
	}
	h := s.host()
	vacuum := "autovacuum_work_mem"
	buffers, work, maintain, auto := h.sharedBuffers(), h.workMem(), h.maintenanceWorkMem(), h.autovacuumWorkMem(s.get("autovacuum_vacuum_scale_factor").value())
	type part struct {
		name string
		p    span
		less int64 // that the worst case is smaller by
	}
	save := func(now, then, times float64) int64 { return max(int64((now-then)*times), 0) }
	parts := []part{
		{"shared_buffers", buffers, save(float64(w.buffers), buffers.set, 1)},
		{"work_mem", work, save(s.get("work_mem").value(), work.set, h.nodes()*float64(w.busy))},
		{vacuum, auto, save(float64(s.vacuumMemory()), auto.set, float64(w.workers))},
		{"maintenance_work_mem", maintain, save(float64(w.maintain), maintain.set, 1)},
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(b.less, a.less) })
	var found []advice
	left, possible := w.total(), int64(0)
	for _, x := range parts {
		possible += x.less
	}
	if left-possible > s.machine.memory {
		parts = nil // nothing that is far beyond its range makes the difference
	}
	sums := s.worstSums(w)
	for _, x := range parts {
		if left <= s.machine.memory || x.less == 0 {
			break
		}
		left -= x.less
		found = append(found, advice{code: WorstCase, severity: s.grave(), name: x.name, set: size(int64(x.p.set)), expected: x.p.inRange(),
			summary: fmt.Sprintf("The settings allow PostgreSQL %s, and the machine has %s: when many queries work at once, the kernel ends the server.", about(w.total()), about(s.machine.memory)),
			sums:    slices.Concat(sums, []string{row("−", x.less, "with %s = %s", x.name, size(int64(x.p.set))), ""}, s.machine.memorySum(), x.p.sums)})
	}
	if left > s.machine.memory {
		found = append(found, advice{code: WorstCase, severity: s.grave(), name: "max_connections", expected: fmt.Sprintf("connections for which %s are enough", about(s.machine.memory)),
			summary: fmt.Sprintf("%d connections may take %s together, and the machine has %s.", w.busy, about(w.busy*w.each), about(s.machine.memory)), sums: sums,
			remedy: "No setting of memory is far beyond its range: lower cp_max under database: args: in homeserver.yaml, run fewer workers, let them share connections through PgBouncer (in session mode), or give the machine more memory."})
	}
	return found
}

// A standby that allows fewer connections than its primary stops replaying.
const (
	standbysFirst = "A standby of this server needs the new value, and a restart, before it: one that allows fewer connections than its primary stops following it."
	standbysLast  = "A standby of this server gets the new value, and a restart, after it: one that allows fewer connections than its primary stops following it."
)

// connections judges max_connections by what Synapse may open.
func (s *server) connections() []advice {
	now := s.get("max_connections")
	if !s.opens.known || !now.judgeable() {
		return nil
	}
	most := int(now.value())
	reserved := int(s.get("superuser_reserved_connections").value() + s.get("reserved_connections").value())
	enough := (s.opens.connections + reserved + spare + 9) / 10 * 10
	a := advice{code: MaxConnections, name: now.Name, set: fmt.Sprint(enough), sums: []string{
		fmt.Sprintf("%5d   max_connections", most), fmt.Sprintf("− %3d   reserved for superusers", reserved), fmt.Sprintf("= %3d   for ordinary roles", most-reserved), "",
		fmt.Sprintf("%5d   for Synapse: %s", s.opens.connections, s.opens.how), fmt.Sprintf("+ %3d   reserved for superusers", reserved),
		fmt.Sprintf("+ %3d   for an administrator, a backup, a monitor and others", spare), fmt.Sprintf("= %3d   rounded up", enough),
	}}
	switch {
	case most-reserved < s.opens.connections:
		a.severity, a.expected = doctor.Warning, fmt.Sprintf("%d to %d", s.opens.connections+reserved, 2*enough)
		a.summary = fmt.Sprintf("Synapse may open %d connections, and the server has %d for ordinary roles: when it is busy, some are refused.", s.opens.connections, most-reserved)
		a.remedy = "The check database tells the same as database/max-connections. Lowering cp_max does as well: each connection costs the server some megabytes.\n" + standbysFirst
	case most >= 500 && most > 4*enough:
		a.severity, a.set, a.expected = doctor.Info, fmt.Sprint(max(100, enough)), fmt.Sprintf("%d to %d", max(100, enough), max(200, 2*enough))
		a.summary = fmt.Sprintf("max_connections is %d, and Synapse opens at most %d: a client that runs wild is stopped only when the memory is gone.", most, s.opens.connections)
		a.remedy = standbysLast
	default:
		return nil
	}
	return []advice{a}
}
