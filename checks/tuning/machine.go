package tuning

import (
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// machine is what is known of the machine that a server runs on.
type machine struct {
	pid    int  // of the server's main process, where it was seen on this machine; else 0
	nearby bool // Synapse reaches it without a network: it is taken for this machine's

	memory     int64  // bytes; 0: not known
	memoryFrom string // for people
	inferred   bool   // a guess, on which no warning rests
	own        bool   // the limit is the server's alone, so that nothing else lives from it

	others  int64    // what Synapse and the rest of the machine need
	because []string // how that is made up

	disk     doctor.Disk
	diskFrom string

	huge huge

	free      int64 // bytes free where the log is
	freeKnown bool
}

// left is the memory that PostgreSQL may use.
func (m machine) left() int64 { return m.memory - m.others }

func (s *server) lookAtMachine() {
	m := &s.machine
	k := s.kernel
	m.pid = s.serverProcess()
	m.nearby = m.pid > 0 || nearby(s.db.Settings)
	told := s.target.Machine
	s.lookAtMemory(told)
	s.leaveOthers()
	switch {
	case told.Disk != doctor.DiskUnknown:
		m.disk, m.diskFrom = told.Disk, "as --db-disk says"
	case s.db.DataDir != "":
		m.disk, m.diskFrom = k.diskOf(s.db.DataDir)
	}
	if m.pid > 0 {
		m.huge = k.hugePages(s.get("huge_page_size").bytes())
	}
	if s.db.DataDir != "" {
		var fs unix.Statfs_t
		if unix.Statfs(filepath.Join(s.db.DataDir, "pg_wal"), &fs) == nil {
			m.free, m.freeKnown = int64(fs.Bavail)*int64(fs.Bsize), true
		}
	}
}

func (s *server) lookAtMemory(told doctor.Machine) {
	m, k := &s.machine, s.kernel
	total := k.meminfo("MemTotal")
	switch {
	case told.Memory > 0:
		m.memory, m.memoryFrom = told.Memory, "as --db-memory says"
	case m.pid > 0:
		m.memory, m.memoryFrom = total, "of this machine"
		pid := strconv.Itoa(m.pid)
		if k.outside(pid) {
			m.inferred = true
			m.memoryFrom = "inferred from this machine's, since the server's control group, which may have a limit, can't be seen from here; --db-memory says it for certain"
		} else if limit, group := k.limit(pid); limit > 0 && limit < total {
			m.memory, m.memoryFrom = limit, "the limit of the server's control group "+group
			m.own = !k.within(group, append(k.synapses(), "self")...)
		}
	case m.nearby:
		m.memory, m.inferred = total, true
		m.memoryFrom = "inferred from this machine's, since no network lies between; --db-memory says it for certain"
	}
}

// nearby: every host is a socket or the loopback interface.
func nearby(s pgdb.Settings) bool {
	hosts := s["hostaddr"]
	if hosts == "" {
		hosts = s["host"]
	}
	for _, h := range strings.Split(hosts, ",") {
		if h != "" && !strings.HasPrefix(h, "/") && !strings.HasPrefix(h, "@") && h != "localhost" && h != "::1" && !strings.HasPrefix(h, "127.") {
			return false
		}
	}
	return true
}
