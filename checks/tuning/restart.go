package tuning

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

var (
	unitName   = regexp.MustCompile(`(?m)/([^/]+\.service)(/|$)`)
	dockerName = regexp.MustCompile(`docker[-/]([0-9a-f]{12})[0-9a-f]{52}`)
	podmanName = regexp.MustCompile(`libpod-([0-9a-f]{12})[0-9a-f]{52}`)
	debianDir  = regexp.MustCompile(`^/var/lib/postgresql/(\d+)/([^/]+)/?$`)
	redHatDir  = regexp.MustCompile(`^/var/lib/pgsql/(\d+)/data/?$`)
)

// restart is the command that starts the server anew, as far as this machine tells.
func (s *server) restart() string {
	group := ""
	if s.machine.pid > 0 {
		group = s.kernel.read("proc", strconv.Itoa(s.machine.pid), "cgroup")
	}
	dir := s.db.DataDir
	switch {
	case dockerName.MatchString(group):
		return "docker restart " + dockerName.FindStringSubmatch(group)[1]
	case podmanName.MatchString(group):
		return "podman restart " + podmanName.FindStringSubmatch(group)[1]
	case unitName.MatchString(group) && strings.Contains(unitName.FindStringSubmatch(group)[1], "postgres"):
		return "systemctl restart " + unitName.FindStringSubmatch(group)[1]
	case debianDir.MatchString(dir):
		m := debianDir.FindStringSubmatch(dir)
		if s.kernel.read("proc/1/comm") == "systemd\n" {
			return fmt.Sprintf("systemctl restart postgresql@%s-%s", m[1], m[2])
		}
		return fmt.Sprintf("pg_ctlcluster %s %s restart", m[1], m[2])
	case redHatDir.MatchString(dir):
		return "systemctl restart postgresql-" + redHatDir.FindStringSubmatch(dir)[1]
	case dir != "":
		program := "pg_ctl"
		if b := s.binary(); b != "" {
			program = filepath.Join(filepath.Dir(b), program)
		}
		return fmt.Sprintf("%s restart -D %s   # as the server's own user", program, dir)
	}
	return ""
}

// howToRestart is restart for people: where the command is not known, the usual ones.
func (s *server) howToRestart() string {
	if c := s.restart(); c != "" {
		return "    " + c
	}
	return "    systemctl restart postgresql\non the server's machine, or docker restart of its container, or whatever its provider offers for it."
}
