package pgdb

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
)

// Resolve adds what libpq would take from elsewhere: the service file, the environment, its defaults and the password
// file. With the result, a process with an empty environment connects to the very same place.
func (s Settings) Resolve() (Settings, error) {
	s = maps.Clone(s)
	if s == nil {
		s = Settings{}
	}
	if err := s.addService(); err != nil {
		return nil, err
	}
	for name, k := range keywords {
		if k.env != "" && name != "service" && name != "servicefile" {
			if value, ok := os.LookupEnv(k.env); ok {
				s.setDefault(name, value)
			}
		}
	}
	if strings.HasPrefix(os.Getenv("PGREQUIRESSL"), "1") {
		s.setDefault("sslmode", "require")
	}
	if _, ok := s["user"]; !ok {
		u, err := user.Current()
		if err != nil {
			return nil, fmt.Errorf("no user is configured, and the operating system's user is not known: %w", err)
		}
		s["user"] = u.Username
	}
	if s["dbname"] == "" {
		s["dbname"] = s["user"]
	}
	if err := s.resolveHosts(); err != nil {
		return nil, err
	}
	s.addHomeFiles()
	if err := s.addPassword(); err != nil {
		return nil, err
	}
	return s, nil
}

// setDefault sets what is not there yet.
func (s Settings) setDefault(name, value string) {
	if _, ok := s[name]; !ok {
		s[name] = value
	}
}

// resolveHosts fills the gaps of the lists of hosts and ports.
func (s Settings) resolveHosts() error {
	hosts, err := s.hosts()
	if err != nil {
		return err
	}
	var names, ports []string
	for _, h := range hosts {
		names, ports = append(names, h.name), append(ports, h.port)
	}
	s["host"], s["port"] = strings.Join(names, ","), strings.Join(ports, ",")
	if s["host"] == "" && len(hosts) == 1 { // only hostaddr
		delete(s, "host")
	}
	if len(slices.Compact(ports)) == 1 {
		s["port"] = ports[0]
	}
	return nil
}

// addHomeFiles names the files that libpq would find in the home directory.
func (s Settings) addHomeFiles() {
	home, err := os.UserHomeDir()
	if err != nil {
		return
	}
	s.setDefault("passfile", filepath.Join(home, ".pgpass"))
	for name, file := range map[string]string{"sslcert": "postgresql.crt", "sslkey": "postgresql.key", "sslrootcert": "root.crt", "sslcrl": "root.crl"} {
		path := filepath.Join(home, ".postgresql", file)
		if _, err := os.Stat(path); err == nil {
			s.setDefault(name, path)
		}
	}
}

// addPassword looks the password up where all hosts have the same one. Otherwise it is looked up for each host when
// connecting, as passfile is resolved by now.
func (s Settings) addPassword() error {
	if s["password"] != "" {
		return nil
	}
	hosts, err := s.hosts()
	if err != nil {
		return err
	}
	common, _ := s.lookUpPassword(hosts[0])
	for _, h := range hosts[1:] {
		if password, _ := s.lookUpPassword(h); password != common {
			return nil
		}
	}
	if common != "" {
		s["password"] = common
	}
	return nil
}

// addService adds the settings of the service that is asked for. It follows parseServiceInfo in libpq's fe-connect.c.
func (s Settings) addService() error {
	name, ok := s["service"]
	if !ok {
		if name, ok = os.LookupEnv("PGSERVICE"); !ok {
			return nil
		}
	}
	delete(s, "service")
	files := serviceFiles(s["servicefile"])
	delete(s, "servicefile")
	for _, f := range files {
		found, err := s.readService(f.path, name)
		if errors.Is(err, fs.ErrNotExist) && !f.required {
			continue
		}
		if found || err != nil {
			return err
		}
	}
	return fmt.Errorf("service %q is not defined in any service file", name)
}

type serviceFile struct {
	path     string
	required bool
}

func serviceFiles(explicit string) []serviceFile {
	var files []serviceFile
	if explicit == "" {
		explicit = os.Getenv("PGSERVICEFILE")
	}
	if explicit != "" {
		files = append(files, serviceFile{explicit, true})
	} else if home, err := os.UserHomeDir(); err == nil {
		files = append(files, serviceFile{filepath.Join(home, ".pg_service.conf"), false})
	}
	dirs := []string{"/etc/postgresql-common", "/etc"} // as Debian and others build libpq
	if dir := os.Getenv("PGSYSCONFDIR"); dir != "" {
		dirs = []string{dir}
	}
	for _, dir := range dirs {
		files = append(files, serviceFile{filepath.Join(dir, "pg_service.conf"), false})
	}
	return files
}

func (s Settings) readService(path, service string) (found bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("service file: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.Trim(lines.Text(), spaces)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			if found {
				return true, nil
			}
			found = strings.HasPrefix(line[1:], service+"]")
		case found:
			name, value, ok := strings.Cut(line, "=")
			_, known := keywords[name]
			if !ok || !known || name == "service" || name == "servicefile" {
				return true, fmt.Errorf("%s:%d: not a setting that a service may have", path, n)
			}
			s.setDefault(name, value) // the first of its kind wins
		}
	}
	return found, lines.Err()
}
