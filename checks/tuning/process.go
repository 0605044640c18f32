package tuning

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// postmaster finds the server's main process by the session that the doctor has: everybody may read what a server's process
// is called (update_process_title), and which number it has in a container of its own.
func (k kernel) postmaster(pid int, role, name string, port int) int {
	is := func(pid string) bool {
		title := strings.ReplaceAll(k.read("proc", pid, "cmdline"), "\x00", " ")
		client := "[local]"
		if port > 0 {
			client = fmt.Sprintf("(%d)", port)
		}
		return strings.HasPrefix(title, "postgres: ") && strings.Contains(title, role+" "+name+" ") && strings.Contains(title, client)
	}
	parent := func(pid string) int {
		n, _ := strconv.Atoi(k.status(pid, "PPid"))
		return n
	}
	if own := strconv.Itoa(pid); is(own) {
		return parent(own)
	}
	processes, _ := os.ReadDir(filepath.Join(k.root, "proc"))
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		inner := strings.Fields(k.status(p.Name(), "NSpid"))
		if len(inner) > 1 && inner[len(inner)-1] == strconv.Itoa(pid) && is(p.Name()) {
			return parent(p.Name())
		}
	}
	return 0
}

// synapses are Synapse's processes on this machine.
func (k kernel) synapses() (pids []string) {
	processes, _ := os.ReadDir(filepath.Join(k.root, "proc"))
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		line := k.read("proc", p.Name(), "cmdline")
		if strings.Contains(line, "python") && strings.Contains(line, "synapse.app.") {
			pids = append(pids, p.Name())
		}
	}
	return pids
}

// synapse sums up what Synapse's processes hold now, without what they share with others.
func (k kernel) synapse() (bytes int64, count int) {
	for _, pid := range k.synapses() {
		pages := strings.Fields(k.read("proc", pid, "statm"))
		if len(pages) < 3 {
			continue
		}
		resident, _ := strconv.ParseInt(pages[1], 10, 64)
		common, _ := strconv.ParseInt(pages[2], 10, 64)
		bytes += (resident - common) * int64(os.Getpagesize())
		count++
	}
	return bytes, count
}

// serverProcess is the server's main process on this machine; 0 where none was seen to be.
func (s *server) serverProcess() int {
	if s.db.DataDir != "" {
		first, _, _ := strings.Cut(s.kernel.read(s.db.DataDir, "postmaster.pid"), "\n")
		if pid, err := strconv.Atoi(strings.TrimSpace(first)); err == nil && s.kernel.worksIn(pid, s.db.DataDir) {
			return pid
		}
	}
	return s.kernel.postmaster(s.PID, s.Role, s.Name, s.Port)
}

// worksIn: a server's main process has its data directory as the current one. In a container's postmaster.pid is a number of
// the container's, which is another process here. Who may not look is told no.
func (k kernel) worksIn(pid int, dir string) bool {
	cwd, err := os.Stat(filepath.Join(k.root, "proc", strconv.Itoa(pid), "cwd"))
	if err != nil {
		return false
	}
	data, err := os.Stat(filepath.Join(k.root, dir))
	return err == nil && os.SameFile(cwd, data)
}
