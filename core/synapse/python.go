package synapse

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Python is the interpreter that runs Synapse, and what it says of its PostgreSQL client.
type Python struct {
	Path    string // as it is started
	Found   string // what led to it
	Version string // of Python
	PyPy    bool
	Synapse string // its version; empty when not known
	Kind    Installation
	Prefix  string   // of the virtualenv or the system
	Owner   string   // name of the user whose installation it is, other than root and this process's; mostly empty
	Pip     bool     // it has pip
	System  []string // ID and ID_LIKE of os-release: debian, fedora, …

	Client        Client
	ClientVersion string // of psycopg2, when loaded
	ClientDist    string // the distribution that brought it: psycopg2, psycopg2-binary; empty when not known
	LibPQ         int    // version number of the libpq that was loaded: 150018, 90623; 0 when not known
	ClientError   string // why it can't be loaded

	as    *account // for whom it is started; nil: for the user of this process
	named bool     // by the administrator
}

// Client says whether psycopg2 can be imported.
type Client int

const (
	ClientAbsent Client = iota + 1 // there is none
	ClientBroken                   // it is there and can't be loaded
	ClientLoaded
)

// PythonPlaces is where the Python that runs Synapse is looked for. The zero value looks at this machine.
type PythonPlaces struct {
	Root        string   // stands for /
	Home        string   // empty: the user's own
	Named       string   // an interpreter, or the folder of a virtualenv: nothing else is looked at
	ConfigFiles []string // of the homeserver, absolute
}

// candidate is an interpreter that may run Synapse.
type candidate struct {
	path  string
	found string
	named bool
	runBy *account // of the process that it was seen in
}

// FindPython asks the interpreter that runs Synapse for its PostgreSQL client. It takes the named one, or the first that
// has Synapse: a running homeserver's, the service's, a package's, then those of virtualenvs in usual places. It is nil
// when there is none on this machine. An interpreter that can't be asked is an error, and so is a named one without Synapse.
func (p PythonPlaces) FindPython(ctx context.Context) (*Python, error) {
	candidates, err := p.candidates()
	if err != nil {
		return nil, err
	}
	for _, c := range candidates {
		python, err := p.ask(ctx, c, patience)
		if err != nil {
			return nil, fmt.Errorf("%s (%s): %w", c.path, c.found, err)
		}
		if python != nil {
			return python, nil
		}
		if c.named {
			return nil, fmt.Errorf("%s has no Synapse: is it the Python that runs the homeserver?", c.path)
		}
	}
	return nil, nil
}

func (p PythonPlaces) candidates() ([]candidate, error) {
	if p.Named != "" {
		path, err := p.named()
		return []candidate{{path: path, found: "--synapse-python", named: true}}, err
	}
	all, elsewhere := p.running()
	// Where Synapse runs in a container of this machine, what lies around outside is most likely what was used before.
	if !elsewhere {
		all = append(all, p.service()...)
		all = append(all, p.packaged()...)
		all = append(all, p.virtualenvs()...)
	}
	var once []candidate
	for _, c := range all {
		if !slices.ContainsFunc(once, func(o candidate) bool { return o.path == c.path }) {
			once = append(once, c)
		}
	}
	return once, nil
}

func (p PythonPlaces) named() (string, error) {
	path, err := filepath.Abs(p.Named)
	if err != nil {
		return "", err
	}
	path = p.under(path)
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return path, err
	}
	python := filepath.Join(path, "bin", "python")
	if _, err := os.Lstat(python); err != nil {
		return "", fmt.Errorf("%s is neither a Python nor the folder of a virtualenv: there is no bin/python in it", path)
	}
	return python, nil
}

// packaged are the interpreters of packages, and of the Docker image.
func (p PythonPlaces) packaged() []candidate {
	var all []candidate
	if python := p.under(matrixOrgPrefix + "/bin/python"); present(python) {
		all = append(all, candidate{path: python, found: "the matrix.org package"})
	}
	for _, script := range []string{"/usr/bin/synapse_homeserver", imageScript, "/usr/local/bin/synapse_homeserver"} {
		if python := p.interpreter(script); python != "" {
			all = append(all, candidate{path: python, found: script})
		}
	}
	return all
}

// virtualenvs are those beside the configuration and where people are told to make them.
func (p PythonPlaces) virtualenvs() []candidate {
	var dirs []string
	for _, file := range p.ConfigFiles {
		if dir := filepath.Dir(file); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	home := p.Home
	if home == "" {
		home, _ = os.UserHomeDir()
	}
	if home != "" {
		dirs = append(dirs, filepath.Join(home, "synapse"))
	}
	dirs = append(dirs, p.under("/opt/synapse"))
	var all []candidate
	for _, dir := range dirs {
		for _, env := range []string{"env", "venv", ".venv"} {
			if python := filepath.Join(dir, env, "bin", "python"); present(python) {
				all = append(all, candidate{path: python, found: "a virtualenv in a usual place"})
			}
		}
	}
	return all
}

func (p PythonPlaces) under(path string) string { return Places{Root: p.Root}.under(path) }

// present is true also for a link that leads nowhere: a virtualenv whose Python an upgrade has removed.
func present(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
