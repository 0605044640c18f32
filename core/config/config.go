// Package config reads and changes synapse-doctor's own configuration: the plugins that an administrator trusts, findings
// that are lived with, thresholds, and defaults of options. Of this repository it imports core/owned.
//
// The file is YAML:
//
//	plugins:
//	  acme:
//	    path: /usr/lib/synapse-doctor/plugins/synapse-doctor-plugin-acme # without it the usual directories are searched
//	    sha256: {linux/amd64: 8f43…, linux/arm64: 17c0…}
//	    checks: [acme-bridges]
//	    changes: {tables: [acme_portal]}
//	    read_dsn: postgresql://synapse_doctor_reader:…@localhost/synapse
//	    allow_fix: true
//	ignore:
//	  - code: keepalives/not-set
//	    object: 127.0.0.1
//	    until: 2027-03-01
//	    why: the database is on this machine
//	thresholds:
//	  upkeep/forward-extremities: 20
//	defaults:
//	  fail-on: error
//
// A key that is not known, or a value that makes no sense, is an error that names the file and the line.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/owned"
)

// Config is what the files say together.
type Config struct {
	Files    []string // that were read, in this order
	Plugins  []Plugin // by name
	Ignore   []Ignore // in the order of the files
	Defaults []Default
	// Thresholds are those that are set, each once.
	Thresholds []Threshold
}

// Plugin is a plugin that may be run.
type Plugin struct {
	Name     string
	File     string            // that has its entry
	Where    string            // file:line of its entry
	Path     string            // absolute; empty: it is searched for
	SHA256   map[string]string // 64 hexadecimal digits, by platform: linux/amd64
	Checks   []string          // ids of its checks when it was added
	AllowFix bool              // its plans may be applied
	Changes  *Changes          // all that its plans could change when it was added; nil where that was not recorded
	// TrustDatabase: its checks and plans get Synapse's login, in sessions that default to read only.
	TrustDatabase bool
	ReadDSN       string   // what its checks and plans connect with; holds a password
	Env           []string // names of environment variables that it is given besides the usual ones
}

// Changes is what plans change: names of tables, files and databases.
type Changes struct {
	Tables    []string `yaml:"tables,flow,omitempty"`
	Files     []string `yaml:"files,flow,omitempty"`
	Databases []string `yaml:"databases,flow,omitempty"`
}

// Sum is the recorded SHA-256 of the plugin's file on this platform; empty when there is none.
func (p Plugin) Sum() string { return p.SHA256[Platform()] }

// Platform is this program's platform, as the key of [Plugin.SHA256] names it.
func Platform() string { return runtime.GOOS + "/" + runtime.GOARCH }

// Ignore is a finding that is lived with. It is shown all the same, and changes no exit code.
type Ignore struct {
	Where  string    // file:line
	Code   string    // of the finding
	Object string    // its object's name; empty: every object
	Until  time.Time // its last day, in local time; zero: for good
	Why    string    // never empty
}

// Matches reports whether a finding is one of these, on a day.
func (i Ignore) Matches(code, object string, now time.Time) bool {
	return i.Code == code && (i.Object == "" || i.Object == object) && !i.Over(now)
}

// Over reports whether the last day has passed.
func (i Ignore) Over(now time.Time) bool {
	return !i.Until.IsZero() && now.After(i.Until.AddDate(0, 0, 1))
}

// Default is the value of an option that the command line does not give.
type Default struct {
	Where  string // file:line
	Option string // without its dashes
	Values []string
}

// Threshold is the number from which on a check complains, in place of the check's own.
type Threshold struct {
	Where string // file:line
	ID    string // check/kebab-name
	Value float64
}

// Plugin is the entry of this name, or nil.
func (c *Config) Plugin(name string) *Plugin {
	i := slices.IndexFunc(c.Plugins, func(p Plugin) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Plugins[i]
}

// Error is a mistake in a file.
type Error struct {
	Path string
	Line int // 0: the whole file
	Text string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Path + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Text)
}

// System is the configuration of the whole machine.
const System = "/etc/synapse-doctor/config.yaml"

// Own is the file that this user's changes go to: $XDG_CONFIG_HOME/synapse-doctor/config.yaml where that is set, [System]
// for root, and ~/.config/synapse-doctor/config.yaml for anyone else.
func Own() (string, error) {
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "synapse-doctor", "config.yaml"), nil
	}
	if os.Geteuid() == 0 {
		return System, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the configuration: %w", err)
	}
	return filepath.Join(home, ".config", "synapse-doctor", "config.yaml"), nil
}

// Load reads [System] and [Own], where they are there. What the second one says of a plugin replaces what the first one says.
func Load() (*Config, error) {
	own, err := Own()
	if err != nil {
		return nil, err
	}
	paths := []string{System}
	if own != System {
		paths = append(paths, own)
	}
	return Read(paths...)
}

// Read reads files, of which those that are not there are passed over.
func Read(paths ...string) (*Config, error) {
	c := &Config{}
	for _, path := range paths {
		data, err := read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := c.parse(path, data); err != nil {
			return nil, err
		}
		c.Files = append(c.Files, path)
	}
	slices.SortStableFunc(c.Plugins, func(a, b Plugin) int { return strings.Compare(a.Name, b.Name) })
	return c, nil
}

// read reads a file that nobody but root and this user can change.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would hold the program up
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, &Error{Path: path, Text: "it is no ordinary file"}
	}
	if _, err := owned.Only(path, info); err != nil { // it says which programs are run
		return nil, &Error{Path: path, Text: err.Error()}
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return data, nil
}
