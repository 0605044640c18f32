package conformance

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// tree is everything below a directory: path to kind, mode and contents.
func tree(dir string) (map[string]string, error) {
	entries := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String()
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %x", sha256.Sum256(b))
		}
		name, err := filepath.Rel(dir, path)
		entries[name] = what
		return err
	})
	return entries, err
}

func differences(before, after map[string]string) []string {
	var changed []string
	for name, what := range after {
		if before[name] != what {
			changed = append(changed, name)
		}
	}
	for name := range before {
		if _, there := after[name]; !there {
			changed = append(changed, name+" (removed)")
		}
	}
	slices.Sort(changed)
	return changed
}

func unique(words []string) []string {
	set := map[string]bool{}
	for _, w := range words {
		set[w] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// processWatch looks again and again at what every user of the machine can see of a process group. Without /proc it sees
// nothing.
type processWatch struct {
	end  chan struct{}
	seen chan []string
}

func watchProcesses(group int, secrets *doctor.Redactor) *processWatch {
	w := &processWatch{end: make(chan struct{}), seen: make(chan []string, 1)}
	go func() {
		var seen []string
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			for _, pid := range members(group) {
				for _, file := range []string{"cmdline", "environ"} {
					b, err := os.ReadFile(filepath.Join("/proc", pid, file))
					if text := string(b); err == nil && secrets.String(text) != text {
						seen = append(seen, "/proc/PID/"+file)
					}
				}
			}
			select {
			case <-tick.C:
			case <-w.end:
				w.seen <- seen
				return
			}
		}
	}()
	return w
}

// stop looks once more, and returns the files in which a secret was.
func (w *processWatch) stop() []string {
	close(w.end)
	return <-w.seen
}

// members are the processes of a group.
func members(group int) []string {
	var pids []string
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if f := statFields(e.Name()); len(f) > 2 && f[2] == strconv.Itoa(group) {
			pids = append(pids, e.Name())
		}
	}
	return pids
}

// statFields are those of /proc/PID/stat from the state on: the name before it may hold anything.
func statFields(pid string) []string {
	if pid == "" || pid[0] < '0' || pid[0] > '9' {
		return nil
	}
	b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return nil
	}
	text := string(b)
	return strings.Fields(text[strings.LastIndex(text, ")")+1:])
}

// ticksPerSecond is USER_HZ, which is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// processorTime is what a process has used of processors so far.
func processorTime(pid int) (time.Duration, bool) {
	f := statFields(strconv.Itoa(pid))
	if len(f) < 13 {
		return 0, false
	}
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	return time.Duration(user+system) * time.Second / ticksPerSecond, err1 == nil && err2 == nil
}
