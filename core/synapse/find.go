package synapse

import (
	"os"
	"path/filepath"
)

// Places are the usual places of a homeserver's configuration. The zero value looks at this machine.
type Places struct {
	Root   string              // stands for /
	Dir    string              // the working directory; empty: the process's own
	Home   string              // empty: the user's own
	Getenv func(string) string // nil: os.Getenv
}

// Find returns the paths for [Load] and what installed them: the Docker image's variables, then the Debian package, the
// Docker image's folder, the working directory and ~/synapse. It returns nothing when there is no configuration there.
// What the environment names is returned even if it does not exist, so that Load says so.
func (p Places) Find() (paths []string, place string) {
	getenv := p.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	if path := getenv("SYNAPSE_CONFIG_PATH"); path != "" {
		return []string{p.under(path)}, "SYNAPSE_CONFIG_PATH"
	}
	if dir := getenv("SYNAPSE_CONFIG_DIR"); dir != "" {
		return []string{p.under(filepath.Join(dir, "homeserver.yaml"))}, "SYNAPSE_CONFIG_DIR"
	}
	debian := p.under("/etc/matrix-synapse/homeserver.yaml")
	if exists(debian) {
		paths := []string{debian}
		if conf := p.under("/etc/matrix-synapse/conf.d"); exists(conf) {
			paths = append(paths, conf)
		}
		return paths, "the Debian package"
	}
	home := p.Home
	if home == "" {
		home, _ = os.UserHomeDir()
	}
	for _, c := range []struct{ path, place string }{
		{p.under("/data/homeserver.yaml"), "the Docker image"},
		{filepath.Join(p.Dir, "homeserver.yaml"), "the working directory"},
		{filepath.Join(home, "synapse", "homeserver.yaml"), "a virtualenv"},
	} {
		if exists(c.path) {
			return []string{c.path}, c.place
		}
	}
	return nil, ""
}

func (p Places) under(path string) string {
	if p.Root == "" || !filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(p.Root, path)
}

// exists is true also for what may not be looked at: Load then says why.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil || !os.IsNotExist(err)
}
