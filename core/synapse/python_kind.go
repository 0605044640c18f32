package synapse

import (
	"os"
	"strings"
)

// Installation is how Synapse came to its Python, which decides how a missing module gets there.
type Installation int

const (
	DebianPackage    Installation = iota + 1 // Debian's or Ubuntu's own: the system's Python
	MatrixOrgPackage                         // matrix-synapse-py3 of packages.matrix.org, a virtualenv that holds psycopg2
	DockerImage
	Virtualenv
	SystemPackage // another distribution's
	SystemPip     // pip, in a Python that is no virtualenv
)

const (
	matrixOrgPrefix = "/opt/venvs/matrix-synapse"
	imageScript     = "/start.py" // the entry point of Synapse's Docker image
)

func (p PythonPlaces) kind(a answer) Installation {
	switch {
	case a.Prefix == matrixOrgPrefix:
		return MatrixOrgPackage
	case a.Prefix != a.Base:
		return Virtualenv
	case strings.HasPrefix(a.Synapse, "/usr/lib/python3/dist-packages/"):
		return DebianPackage
	case a.Prefix == "/usr/local" && present(p.under(imageScript)):
		return DockerImage
	case strings.HasPrefix(a.Synapse, "/usr/lib"): // lib64 too
		return SystemPackage
	}
	return SystemPip
}

// system is what os-release says of the operating system, the most particular name first.
func (p PythonPlaces) system() []string {
	content, err := os.ReadFile(p.under("/etc/os-release"))
	if err != nil {
		content, _ = os.ReadFile(p.under("/usr/lib/os-release"))
	}
	var id, like []string
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		words := strings.Fields(strings.Trim(value, `"'`))
		switch key {
		case "ID":
			id = words
		case "ID_LIKE":
			like = words
		}
	}
	return append(id, like...)
}
