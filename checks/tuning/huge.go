package tuning

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// largeBuffers is the size of shared_buffers from which on huge pages are felt: the tables of 4 KiB pages of each process
// that has touched all of it are a five-hundredth of it.
const largeBuffers = 2 * gib

// idlePages is how many reserved pages that nobody uses are worth a word: 128 MiB of the usual ones.
const idlePages = 64

// pagesNeeded is how many huge pages the server needs, and how that is known.
func (s *server) pagesNeeded() (pages int64, how string) {
	page := s.machine.huge.size
	buffers := s.get("shared_buffers")
	if x := s.get("shared_memory_size_in_huge_pages"); x.Raw != "" && !x.Pending && !buffers.Pending { // 15 on
		if n := int64(x.value()); n > 0 {
			return n, fmt.Sprintf("shared_memory_size_in_huge_pages = %d", n)
		}
	}
	if s.shmem > 0 && !buffers.Pending { // the segment has a little more than what is allocated in it
		n := (s.shmem+s.shmem/256+mib)/page + 1
		return n, fmt.Sprintf("pg_shmem_allocations: %s and a little, ÷ %s = %d", about(s.shmem), about(page), n)
	}
	// Beside the buffers themselves there are their descriptors, locks, and a part for each connection.
	estimate := buffers.bytes() + buffers.bytes()/32 + 32*mib + int64(s.get("max_connections").value())*64*kib
	n := estimate/page + 1
	return n, fmt.Sprintf("estimated: (shared_buffers × 33/32 + 32 MiB + 64 KiB for each connection = %s) ÷ %s = %d", about(estimate), about(page), n)
}

func (s *server) hugePages() []advice {
	h := s.machine.huge
	if !h.known || !s.get("shared_buffers").judgeable() {
		return nil
	}
	now, buffers := s.get("huge_pages"), s.get("shared_buffers").bytes()
	status := s.hugeStatus()
	need, how := s.pagesNeeded()
	a := advice{code: HugePages, severity: doctor.Info, name: now.Name}
	a.observed = fmt.Sprintf("huge_pages = %s, from %s; the kernel has %d reserved, %d of them free", now.text(), s.where(now.Name), h.total, max(h.unset, 0))
	a.sums = []string{how, fmt.Sprintf("reserved now: %d pages of %s, free: %d", h.total, about(h.size), max(h.unset, 0))}
	var found []advice
	switch {
	case buffers >= largeBuffers && status == "off":
		// What others use stays theirs.
		reserve := h.total - max(h.unset, 0) + need
		if h.total > reserve {
			reserve = h.total
		}
		a.summary = fmt.Sprintf("The server has no huge pages for its %s of shared_buffers: each of its processes keeps tables of up to %s to find them.", about(buffers), about(buffers/512))
		a.expected = fmt.Sprintf("%d pages of %s reserved, and huge_pages = try", need, about(h.size))
		a.sums = append(a.sums, fmt.Sprintf("to reserve: %d used by others + %d = %d pages, %s that nothing else can use then", h.total-max(h.unset, 0), need, reserve, about(reserve*h.size)))
		text := fmt.Sprintf("As root, have the kernel reserve them, now and at every start (with a fragmented memory only a start gets them all):\n"+
			"    echo 'vm.nr_hugepages = %d' > /etc/sysctl.d/40-postgresql-huge-pages.conf\n    sysctl -p /etc/sysctl.d/40-postgresql-huge-pages.conf\n    grep HugePages_Total /proc/meminfo\n", reserve)
		if now.Raw == "off" {
			text += "Let the server take them:\n    " + s.line("huge_pages", "try") + "\n"
		}
		a.remedy = text + "Then restart the server:\n" + s.howToRestart() + "\nBeyond what the server needs it is memory lost: after a change of shared_buffers or max_connections, count anew."
		found = append(found, a)
	case status == "off" && h.unset >= idlePages:
		a.summary = fmt.Sprintf("The kernel keeps %s back as huge pages that nobody uses.", about(h.unset*h.size))
		a.expected = "no more pages reserved than are used"
		a.sums = append(a.sums, fmt.Sprintf("shared_buffers is %s; from %s on huge pages are felt", about(buffers), about(largeBuffers)))
		a.remedy = fmt.Sprintf("As root, give the memory back, or raise shared_buffers to make use of it; look first which file below /etc/sysctl.d sets vm.nr_hugepages:\n    sysctl -w vm.nr_hugepages=%d", h.total-h.unset)
		found = append(found, a)
	}
	if h.transparent == "always" && buffers >= largeBuffers {
		found = append(found, advice{code: TransparentHuge, severity: doctor.Info, kind: "kernel", name: "transparent_hugepage",
			summary:  "The kernel merges pages into huge ones by itself (always), which now and then stops a process for a moment, and lets memory grow.",
			observed: "/sys/kernel/mm/transparent_hugepage/enabled is always", expected: "madvise, which leaves it to each program",
			remedy: "As root, until the next start of the machine:\n    echo madvise > /sys/kernel/mm/transparent_hugepage/enabled\nFor good, add transparent_hugepage=madvise to the kernel's command line. It does not concern huge_pages, which are reserved."})
	}
	return found
}

// huge is the kernel's huge pages.
type huge struct {
	known              bool
	size, total, unset int64  // bytes of a page; pages; pages that nobody has taken or reserved
	transparent        string // always, madvise or never
}

var bracketed = regexp.MustCompile(`\[(\w+)\]`)

// hugePages reads what the kernel has of the size that the server uses: the usual one unless it is told another.
func (k kernel) hugePages(want int64) huge {
	h := huge{size: k.meminfo("Hugepagesize"), total: k.meminfo("HugePages_Total")}
	h.unset = k.meminfo("HugePages_Free") - k.meminfo("HugePages_Rsvd")
	if m := bracketed.FindStringSubmatch(k.read("sys/kernel/mm/transparent_hugepage/enabled")); m != nil {
		h.transparent = m[1]
	}
	h.known = h.size > 0 && (want == 0 || want == h.size)
	return h
}

// hugeStatus tells whether the server has huge pages: on, off, or empty where it can't be told.
func (s *server) hugeStatus() string {
	if status := s.get("huge_pages_status").Raw; status == "on" || status == "off" { // 17 on
		return status
	}
	if s.get("huge_pages").Raw == "off" {
		return "off"
	}
	if s.get("huge_pages").Raw == "on" {
		return "on" // it would not have started
	}
	h := s.machine.huge
	if h.known && h.total == 0 {
		return "off"
	}
	maps := s.kernel.read("proc", strconv.Itoa(s.machine.pid), "maps") // root's, or the server's own user's
	switch {
	case s.machine.pid == 0 || maps == "":
		return ""
	case strings.Contains(maps, "anon_hugepage"):
		return "on"
	}
	return "off"
}
