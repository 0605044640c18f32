package synapse

import (
	"os"
	"path/filepath"
	"strings"
)

// unitDirs are systemd's, the one that wins first.
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// service are the interpreters that the units of Synapse start. The files are read rather than systemctl asked, which
// needs a running systemd.
func (p PythonPlaces) service() []candidate {
	var all []candidate
	for _, name := range []string{"matrix-synapse.service", "synapse.service"} {
		if python := p.interpreter(program(p.execStart(name))); python != "" && present(python) {
			all = append(all, candidate{path: python, found: name})
		}
	}
	return all
}

// execStart is the last ExecStart of the unit and its drop-ins: a service of this kind has one.
func (p PythonPlaces) execStart(name string) string {
	var files []string
	for _, dir := range unitDirs {
		if file := p.under(filepath.Join(dir, name)); present(file) {
			files = append(files, file)
			break
		}
	}
	if files == nil {
		return ""
	}
	for i := len(unitDirs) - 1; i >= 0; i-- {
		dropIns, _ := filepath.Glob(p.under(filepath.Join(unitDirs[i], name+".d", "*.conf")))
		files = append(files, dropIns...)
	}
	command := ""
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		text := strings.ReplaceAll(string(content), "\\\n", " ")
		for line := range strings.Lines(text) {
			if key, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == "ExecStart" {
				command = strings.TrimSpace(value)
			}
		}
	}
	return command
}

// program is the first word of a command of a unit, without the signs that may stand before it.
func program(command string) string {
	command = strings.TrimLeft(command, "@-:+!|")
	if quoted, ok := strings.CutPrefix(command, `"`); ok {
		path, _, _ := strings.Cut(quoted, `"`)
		return path
	}
	path, _, _ := strings.Cut(strings.ReplaceAll(command, "\t", " "), " ")
	return path
}
