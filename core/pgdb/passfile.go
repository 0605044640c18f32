package pgdb

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
)

// passwordFor is the password with which to log in at the host; empty when there is none.
func (s Settings) passwordFor(h host) string {
	if s["password"] != "" {
		return s["password"]
	}
	password, _ := s.lookUpPassword(h)
	return password
}

// lookUpPassword searches the password file as passwordFromFile in libpq's fe-connect.c does. A file that libpq passes
// over is passed over too, with the reason.
func (s Settings) lookUpPassword(h host) (password, ignored string) {
	path := s["passfile"]
	if path == "" {
		return "", ""
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", ""
	case !info.Mode().IsRegular():
		return "", fmt.Sprintf("the password file %s is ignored because it is not a plain file", path)
	case info.Mode()&0o077 != 0:
		return "", fmt.Sprintf("the password file %s is ignored because others than its owner may read it (mode %04o; chmod 0600 cures that)", path, info.Mode().Perm())
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Sprintf("the password file cannot be read: %v", err)
	}
	defer f.Close()
	name := h.name
	if name == "" {
		name = h.addr
	}
	if name == "" || slices.Contains(socketDirs, name) {
		name = "localhost"
	}
	return findPassword(bufio.NewScanner(f), [4]string{name, h.port, s["dbname"], s["user"]}), ""
}

// findPassword returns the password of the first line whose four fields match the login.
func findPassword(lines *bufio.Scanner, login [4]string) string {
next:
	for lines.Scan() {
		rest := strings.TrimRight(lines.Text(), "\r")
		if strings.HasPrefix(rest, "#") {
			continue
		}
		for _, want := range login {
			field, raw, tail, ok := cutField(rest)
			if !ok || raw != "*" && field != want {
				continue next
			}
			rest = tail
		}
		password, _, _, _ := cutField(rest)
		return password
	}
	return ""
}

// cutField reads up to the next colon that no backslash protects.
func cutField(line string) (field, raw, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == ':':
			return b.String(), line[:i], line[i+1:], true
		case line[i] == '\\' && i+1 < len(line):
			i++
		}
		b.WriteByte(line[i])
	}
	return b.String(), line, "", false
}
