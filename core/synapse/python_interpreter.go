package synapse

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var pythonName = regexp.MustCompile(`^(python|pypy)[0-9.]*$`)

// interpreter is the Python that the program starts, by its name or by its first line, as a path of this machine; empty
// when that can't be told: env(1) takes the one of a PATH that is not known here.
func (p PythonPlaces) interpreter(program string) string {
	if !filepath.IsAbs(program) {
		return ""
	}
	if pythonName.MatchString(filepath.Base(program)) {
		return p.under(program)
	}
	python := shebang(p.under(program))
	if !filepath.IsAbs(python) || !pythonName.MatchString(filepath.Base(python)) {
		return ""
	}
	return p.under(python)
}

// shebang is the program that the script's first line names.
func shebang(script string) string {
	// Anything but a plain file could keep the reader waiting.
	if info, err := os.Stat(script); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	f, err := os.Open(script)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, _ := bufio.NewReader(io.LimitReader(f, 512)).ReadString('\n')
	command, ok := strings.CutPrefix(line, "#!")
	words := strings.Fields(command)
	if !ok || len(words) == 0 {
		return ""
	}
	return words[0]
}
