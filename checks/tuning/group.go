package tuning

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// groups are the control groups that may limit a process's memory, as directories with the names of the files that say how
// much. A mount without paths: the groups are not to be seen from here.
func (k kernel) groups(pid string) (paths []string, mount string, files []string) {
	for line := range strings.Lines(k.read("proc", pid, "cgroup")) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch {
		case strings.Contains(","+f[1]+",", ",memory,"): // version 1, where it is in use, has the controller
			return ancestors(f[2]), "sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"}
		case f[0] == "0":
			paths, mount, files = ancestors(f[2]), "sys/fs/cgroup", []string{"memory.max", "memory.high"}
		}
	}
	return paths, mount, files
}

// ancestors are the path and all above it; none where it begins with /.. , which is outside of what this process sees: below
// the same names there is its own group.
func ancestors(p string) []string {
	if p == "/.." || strings.HasPrefix(p, "/../") {
		return nil
	}
	p = path.Clean("/" + p)
	all := []string{p}
	for p != "/" {
		p = path.Dir(p)
		all = append(all, p)
	}
	return all
}

// limit is the least memory that a control group of the process leaves it, and which group that is; 0: none.
func (k kernel) limit(pid string) (bytes int64, group string) {
	paths, mount, files := k.groups(pid)
	for _, p := range paths {
		for _, file := range files {
			n, err := strconv.ParseInt(strings.TrimSpace(k.read(mount, p, file)), 10, 64)
			if err == nil && n > 0 && n < 1<<60 && (bytes == 0 || n < bytes) {
				bytes, group = n, p
			}
		}
	}
	return bytes, group
}

// outside: the process is in a control group that can't be seen from here.
func (k kernel) outside(pid string) bool {
	paths, mount, _ := k.groups(pid)
	return mount != "" && len(paths) == 0
}

// within reports whether one of the processes is in the group, too.
func (k kernel) within(group string, pids ...string) bool {
	return slices.ContainsFunc(pids, func(pid string) bool {
		paths, _, _ := k.groups(pid)
		return slices.Contains(paths, group)
	})
}
