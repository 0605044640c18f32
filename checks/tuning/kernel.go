package tuning

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// kernel reads /proc and /sys below root.
type kernel struct{ root string }

var hostMachine = kernel{root: "/"}

func (k kernel) read(elem ...string) string {
	text, err := os.ReadFile(filepath.Join(append([]string{k.root}, elem...)...))
	if err != nil {
		return ""
	}
	return string(text)
}

// meminfo is a line of /proc/meminfo: bytes, or a mere number.
func (k kernel) meminfo(name string) int64 {
	for line := range strings.Lines(k.read("proc/meminfo")) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != name+":" {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64)
		if len(f) > 2 && f[2] == "kB" {
			n *= kib
		}
		return n
	}
	return 0
}

func (k kernel) status(pid, name string) string {
	for line := range strings.Lines(k.read("proc", pid, "status")) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
