package version

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// packager installs a system's packages; the names are those of the packages there.
type packager struct {
	systems  []string // of os-release
	install  string
	again    string // install what is there already
	psycopg2 string
	libpq    string
	toBuild  string // what building psycopg2 takes
}

var packagers = []packager{
	{[]string{"debian", "ubuntu"}, "apt install", "apt install --reinstall", "python3-psycopg2", "libpq5", "libpq-dev python3-dev gcc"},
	{[]string{"fedora", "rhel", "centos"}, "dnf install", "dnf reinstall", "python3-psycopg2", "libpq", "libpq-devel python3-devel gcc"},
	{[]string{"arch"}, "pacman -S", "pacman -S", "python-psycopg2", "postgresql-libs", "postgresql-libs gcc"},
	{[]string{"alpine"}, "apk add", "apk fix --reinstall", "py3-psycopg2", "libpq", "libpq-dev python3-dev gcc musl-dev"},
	{[]string{"suse", "opensuse"}, "zypper install", "zypper install --force", "python3-psycopg2", "libpq5", "postgresql-devel python3-devel gcc"},
}

func packagerOf(p *synapse.Python) (packager, bool) {
	for _, system := range p.System {
		for _, k := range packagers {
			if slices.Contains(k.systems, system) {
				return k, true
			}
		}
	}
	return packager{}, false
}

func installClient(p *synapse.Python) string {
	switch p.Kind {
	case synapse.DebianPackage:
		return "Install Debian's package, and restart Synapse:\n    apt install python3-psycopg2"
	case synapse.SystemPackage:
		if k, ok := packagerOf(p); ok {
			return fmt.Sprintf("Install the distribution's package, and restart Synapse:\n    %s %s", k.install, k.psycopg2)
		}
		return "Install your distribution's package of psycopg2 for Python 3, and restart Synapse."
	case synapse.MatrixOrgPackage:
		return "The package matrix-synapse-py3 brings psycopg2 with it, so some of its files have been removed. Install it again, and restart Synapse:\n" +
			"    apt install --reinstall matrix-synapse-py3"
	case synapse.DockerImage:
		return image(p)
	}
	remedy := "Install it with pip, and restart Synapse:\n    " + pip(p, `"matrix-synapse[postgres]"`) +
		"\nIt is built on this machine, which takes a C compiler and the headers of libpq and Python"
	if k, ok := packagerOf(p); ok {
		remedy += ":\n    " + k.install + " " + k.toBuild
	} else {
		remedy += "."
	}
	if !p.PyPy {
		remedy += "\nWithout these, take the one that is built already:\n    " + pip(p, "psycopg2-binary")
	}
	return remedy
}

func reinstallClient(p *synapse.Python) string {
	switch p.Kind {
	case synapse.DebianPackage:
		return "Install Debian's package again, and restart Synapse:\n    apt install --reinstall python3-psycopg2"
	case synapse.SystemPackage:
		if k, ok := packagerOf(p); ok {
			return fmt.Sprintf("Install the distribution's package again, and restart Synapse:\n    %s %s", k.again, k.psycopg2)
		}
		return "Install your distribution's package of psycopg2 for Python 3 again, and restart Synapse."
	case synapse.MatrixOrgPackage:
		return "Install the package again, which brings psycopg2 with it, and restart Synapse:\n    apt install --reinstall matrix-synapse-py3"
	case synapse.DockerImage:
		return image(p)
	}
	dist := p.ClientDist
	if dist == "" {
		dist = "psycopg2"
	}
	return "It was built for another Python or another system, or its files are damaged. Install it again, and restart Synapse:\n    " +
		pip(p, "--force-reinstall --no-cache-dir "+dist)
}

func installLibPQ(p *synapse.Python) string {
	if p.Kind == synapse.DockerImage {
		return image(p)
	}
	k, ok := packagerOf(p)
	if p.Kind == synapse.DebianPackage || p.Kind == synapse.MatrixOrgPackage {
		k, ok = packagers[0], true
	}
	library := "Install PostgreSQL's client library libpq with your system's packages, and restart Synapse."
	if ok {
		library = fmt.Sprintf("Install PostgreSQL's client library, and restart Synapse:\n    %s %s", k.install, k.libpq)
	}
	if strings.Contains(p.ClientError, "undefined symbol") {
		library += "\nIf it is the newest already, an older one elsewhere, such as in /usr/local/lib, is found first: ldd shows which."
	}
	return library
}

func upgradeLibPQ(p *synapse.Python) string {
	switch {
	case p.Kind == synapse.DockerImage:
		return image(p)
	case p.ClientDist == "psycopg2-binary":
		return "It is the one that psycopg2-binary brings with it; before 2.9.6 that was as old for some processors. Upgrade it, and restart Synapse:\n    " +
			pip(p, "--upgrade psycopg2-binary")
	}
	return "It is the operating system's library, or one in /usr/local/lib that is found first. Upgrade it to PostgreSQL 10's or newer (on Debian and " +
		"Ubuntu it is the package libpq5, also at apt.postgresql.org), and restart Synapse."
}

// image is the remedy where Synapse runs in its Docker image, which is not to be changed from within.
func image(p *synapse.Python) string {
	tag := "latest"
	if p.Synapse != "" {
		tag = "v" + p.Synapse
	}
	return "Synapse's own image has psycopg2 and libpq in it; this container's was changed. Take the original, and make the container anew:\n" +
		"    docker pull ghcr.io/element-hq/synapse:" + tag
}

// pip is the command that installs into Synapse's Python, as the user to whom that belongs.
func pip(p *synapse.Python, what string) string {
	command := shell(p.Path) + " -m pip install " + what
	if !p.Pip {
		command = "uv pip install --python " + shell(p.Path) + " " + strings.Replace(what, "--force-reinstall --no-cache-dir", "--reinstall --no-cache", 1)
	}
	if p.Owner != "" {
		command = "sudo -u " + shell(p.Owner) + " " + command
	}
	return command
}

// shell quotes a word for a command line where it needs that.
func shell(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
