package synapse

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// running are the interpreters of the homeserver's processes. The command line tells, not /proc/PID/exe, which for a
// virtualenv is the Python that it was made with. Elsewhere is true when a Synapse runs that sees other files than we do.
func (p PythonPlaces) running() (all []candidate, elsewhere bool) {
	proc := p.under("/proc")
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, false
	}
	here, err := os.Stat(p.under("/"))
	if err != nil {
		return nil, false
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		dir := filepath.Join(proc, e.Name())
		command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(command), "\x00"), "\x00")
		if !runsSynapse(args) {
			continue
		}
		// Only root and the process's own user may follow this link.
		if root, err := os.Stat(filepath.Join(dir, "root")); err == nil && !os.SameFile(root, here) {
			elsewhere = true
			continue
		}
		if !p.ours(args) {
			continue
		}
		python := p.interpreter(args[0])
		if python == "" {
			continue
		}
		if _, err := os.Lstat(python); errors.Is(err, fs.ErrNotExist) {
			elsewhere = true
			continue
		}
		all = append(all, candidate{path: python, found: "a running Synapse", runBy: ownerOf(dir)})
	}
	return all, elsewhere
}

// runsSynapse: python -m synapse.app.homeserver, or generic_worker and the like; or python …/synapse_homeserver.
func runsSynapse(args []string) bool {
	if !pythonName.MatchString(filepath.Base(args[0])) {
		return false
	}
	for i, arg := range args[1:] {
		if strings.HasPrefix(arg, "synapse.app.") && args[i] == "-m" {
			return true
		}
		if name := filepath.Base(arg); name == "synapse_homeserver" || name == "synapse_worker" {
			return true
		}
	}
	return false
}

// ours is false for the process of another homeserver: all the files that it names are others than ours.
func (p PythonPlaces) ours(args []string) bool {
	var named []string
	for i, arg := range args {
		if path, ok := strings.CutPrefix(arg, "--config-path="); ok {
			named = append(named, path)
		} else if (arg == "--config-path" || arg == "-c") && i+1 < len(args) {
			named = append(named, args[i+1])
		}
	}
	if len(named) == 0 || len(p.ConfigFiles) == 0 {
		return true
	}
	return slices.ContainsFunc(named, func(path string) bool {
		if !filepath.IsAbs(path) {
			return true // to a folder that is not known
		}
		return slices.ContainsFunc(p.ConfigFiles, func(file string) bool {
			return sameFile(p.under(path), file) || sameFile(p.under(path), filepath.Dir(file))
		})
	})
}

func sameFile(a, b string) bool {
	if a == b {
		return true
	}
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}
