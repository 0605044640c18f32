package synapse

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Config is what a homeserver's merged configuration says of its databases and processes.
type Config struct {
	Files      []string // every file that was read, in the order of the merge
	Ignored    []string // those of Files that hold no mapping, which Synapse passes over without an error
	ServerName string
	// Databases are the entries of the database or databases section: main alone, or by label. It is empty when no
	// section names one: such a homeserver starts only with --database-path FILE (SQLite) on its command line.
	Databases     []Entry
	PIDFiles      []string            // pid_file and worker_pid_file, as written
	StreamWriters map[string][]string // stream name → names of the instances that write it
	Workers       []string            // names in instance_map other than main, and worker_name; sorted

	documents []*document
}

// Entry is one database of the configuration.
type Entry struct {
	Label             string // main, or the key under databases
	Name              string // psycopg2 or sqlite3
	Args              map[string]any
	DataStores        []string // main, state, or both
	AllowUnsafeLocale bool
	CPMin, CPMax      int   // connections that each process keeps, and opens at most
	TxnLimit          int   // transactions after which a connection is renewed; 0: never
	StatementTimeout  int64 // milliseconds; 0: none

	File string // the file whose section wins the merge
	Line int    // of args, or of the entry when it has none
}

// MainLabel is the label of a database section's only entry.
const MainLabel = "main"

const (
	Psycopg2 = "psycopg2"
	SQLite3  = "sqlite3"
)

// SQLitePath is the file of a sqlite3 entry as written: relative to Synapse's working directory unless absolute.
func (e Entry) SQLitePath() string {
	path, _ := e.Args["database"].(string)
	return path
}

// Entry returns the entry with this label, or nil.
func (c *Config) Entry(label string) *Entry {
	for i := range c.Databases {
		if c.Databases[i].Label == label {
			return &c.Databases[i]
		}
	}
	return nil
}

// Load reads and merges the configuration as Synapse does. Each path is a file, or a directory of which the *.yaml files
// are taken in the order of their names. A top-level key of a later file replaces the whole section of an earlier one.
// An error about the configuration is a [*ConfigError].
func Load(paths ...string) (*Config, error) {
	files, err := expand(paths)
	if err != nil {
		return nil, err
	}
	c := &Config{Files: files}
	merged := sections{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, unreadable(file, err)
		}
		doc, err := parseDocument(file, content)
		if err != nil {
			return nil, err
		}
		c.documents = append(c.documents, doc)
		top, ok := doc.value.(map[any]any)
		if !ok {
			c.Ignored = append(c.Ignored, file)
			continue
		}
		for k, v := range top {
			if name, ok := k.(string); ok {
				merged[name] = section{value: v, doc: doc, name: name}
			}
		}
	}
	if err := c.read(merged); err != nil {
		return nil, err
	}
	return c, nil
}

func expand(paths []string) ([]string, error) {
	var files []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, unreadable(path, err)
		}
		if !info.IsDir() {
			files = append(files, path)
			continue
		}
		entries, err := os.ReadDir(path) // sorted by name
		if err != nil {
			return nil, unreadable(path, err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".yaml") {
				continue
			}
			file := filepath.Join(path, e.Name())
			info, err := os.Stat(file)
			switch {
			case errors.Is(err, fs.ErrNotExist): // a dangling link is no file to Synapse either
			case err != nil:
				return nil, unreadable(file, err)
			case info.Mode().IsRegular():
				files = append(files, file)
			}
		}
	}
	if len(files) > 0 {
		return files, nil
	}
	if len(paths) == 0 {
		return nil, &ConfigError{Msg: "no configuration file was given"}
	}
	return nil, &ConfigError{File: strings.Join(paths, ", "), Msg: "there is no *.yaml file in this directory"}
}

func unreadable(path string, err error) error {
	var cause error = err
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		cause = pe.Err // the path is said already
	}
	return &ConfigError{File: path, Msg: fmt.Sprintf("this file cannot be read: %v", cause), Err: err}
}

// section is one top-level key of the merged configuration, and where it came from.
type section struct {
	value any
	doc   *document
	name  string
}

type sections map[string]section

// at returns an error about the value that the path of keys below the section leads to, or about as much as there is of it.
func (s section) at(path []string, format string, args ...any) error {
	return &ConfigError{File: s.doc.file, Line: s.line(path...), Msg: fmt.Sprintf(format, args...)}
}

// line is where the key stands that the path leads to.
func (s section) line(path ...string) int {
	k, v := lookup(s.doc.root, s.name)
	line := lineOf(k)
	for _, p := range path {
		if k, v = lookup(v, p); k == nil {
			break
		}
		line = lineOf(k)
	}
	return line
}

func lineOf(n *yaml.Node) int {
	if n == nil {
		return 1
	}
	return n.Line
}

func (c *Config) read(merged sections) error {
	name, ok := merged["server_name"]
	if !ok {
		return &ConfigError{File: strings.Join(c.Files, ", "), Msg: c.missingServerName()}
	}
	if c.ServerName, ok = name.value.(string); !ok || c.ServerName == "" {
		return name.at(nil, "server_name must be the homeserver's name as text, in quotes if it looks like a number")
	}
	for _, key := range []string{"pid_file", "worker_pid_file"} {
		path, err := optionalString(merged, key)
		if err != nil {
			return err
		}
		if path != "" && !slices.Contains(c.PIDFiles, path) {
			c.PIDFiles = append(c.PIDFiles, path)
		}
	}
	if err := c.readWorkers(merged); err != nil {
		return err
	}
	return c.readDatabases(merged)
}

func (c *Config) missingServerName() string {
	if len(c.Ignored) == len(c.Files) {
		return "this file is empty or holds no settings (key: value), so server_name is missing"
	}
	return "server_name is missing: is this the homeserver's main configuration?"
}

func optionalString(merged sections, key string) (string, error) {
	s, ok := merged[key]
	if !ok || s.value == nil {
		return "", nil
	}
	text, ok := s.value.(string)
	if !ok {
		return "", s.at(nil, "%s must be a text", key)
	}
	return text, nil
}

func (c *Config) readWorkers(merged sections) error {
	if s, ok := merged["instance_map"]; ok && truthy(s.value) {
		m, ok := s.value.(map[any]any)
		if !ok {
			return s.at(nil, "instance_map must be a mapping of worker names")
		}
		for k := range m {
			if name := fmt.Sprint(k); name != "main" {
				c.Workers = append(c.Workers, name)
			}
		}
	}
	name, err := optionalString(merged, "worker_name")
	if err != nil {
		return err
	}
	if name != "" && !slices.Contains(c.Workers, name) {
		c.Workers = append(c.Workers, name)
	}
	slices.Sort(c.Workers)

	s, ok := merged["stream_writers"]
	if !ok || !truthy(s.value) {
		return nil
	}
	m, ok := s.value.(map[any]any)
	if !ok {
		return s.at(nil, "stream_writers must be a mapping of streams to the workers that write them")
	}
	c.StreamWriters = map[string][]string{}
	for k, v := range m {
		stream := fmt.Sprint(k)
		writers, ok := stringList(v)
		if !ok {
			return s.at([]string{stream}, "the writers of a stream must be a worker's name or a list of them")
		}
		c.StreamWriters[stream] = writers
	}
	return nil
}

// stringList accepts one text or a list of them.
func stringList(v any) ([]string, bool) {
	if text, ok := v.(string); ok {
		return []string{text}, true
	}
	list, ok := v.([]any)
	if !ok {
		return nil, false
	}
	texts := make([]string, 0, len(list))
	for _, item := range list {
		text, ok := item.(string)
		if !ok {
			return nil, false
		}
		texts = append(texts, text)
	}
	return texts, true
}

// truthy is Python's idea of it: an empty section counts as none.
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[any]any:
		return len(v) > 0
	}
	return true
}

func (c *Config) readDatabases(merged sections) error {
	database, databases, path := merged["database"], merged["databases"], merged["database_path"]
	if truthy(databases.value) {
		switch {
		case truthy(database.value):
			return databases.at(nil, "the sections database and databases exclude each other; Synapse starts with only one of them")
		case truthy(path.value):
			return path.at(nil, "database_path and databases exclude each other")
		}
		return c.readMany(databases)
	}
	if truthy(database.value) {
		e, err := readEntry(database, nil, MainLabel, database.value)
		if err != nil {
			return err
		}
		c.Databases = []Entry{e}
	}
	// Synapse overrides the file of a SQLite database with database_path, and ignores it beside PostgreSQL.
	if truthy(path.value) && (len(c.Databases) == 0 || c.Databases[0].Name == SQLite3) {
		file, ok := path.value.(string)
		if !ok {
			return path.at(nil, "database_path must be a text")
		}
		c.Databases = []Entry{{
			Label: MainLabel, Name: SQLite3, Args: map[string]any{"database": file}, DataStores: []string{"main", "state"},
			CPMin: 1, CPMax: 1, StatementTimeout: defaultStatementTimeout, File: path.doc.file, Line: path.line(),
		}}
	}
	return c.assignStores(database)
}

func (c *Config) readMany(s section) error {
	m, ok := s.value.(map[any]any)
	if !ok {
		return s.at(nil, "databases must be a mapping of labels to databases")
	}
	for k, v := range m {
		label := fmt.Sprint(k)
		e, err := readEntry(s, []string{label}, label, v)
		if err != nil {
			return err
		}
		c.Databases = append(c.Databases, e)
	}
	slices.SortFunc(c.Databases, func(a, b Entry) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Label, b.Label)
	})
	return c.assignStores(s)
}

// assignStores requires that main and state are each held by exactly one database.
func (c *Config) assignStores(s section) error {
	if len(c.Databases) == 0 {
		return nil
	}
	for _, store := range []string{"main", "state"} {
		var holders []string
		for _, e := range c.Databases {
			if slices.Contains(e.DataStores, store) {
				holders = append(holders, e.Label)
			}
		}
		switch {
		case len(holders) == 0:
			return s.at(nil, "no database holds the data store %s; name it in one database's data_stores", store)
		case len(holders) > 1:
			return s.at([]string{holders[1], "data_stores"}, "the data store %s is held by more than one database: %s",
				store, strings.Join(holders, ", "))
		}
	}
	return nil
}

// Synapse's defaults: Twisted's for the pool, ten minutes for a statement since 1.88.
const (
	defaultCPMin            = 3
	defaultCPMax            = 5
	defaultStatementTimeout = 600_000
)

// readEntry reads one database; path is where it stands below its section.
func readEntry(s section, path []string, label string, value any) (Entry, error) {
	e := Entry{Label: label, File: s.doc.file, Line: s.line(append(path, "args")...), Name: SQLite3, Args: map[string]any{},
		CPMin: defaultCPMin, CPMax: defaultCPMax, StatementTimeout: defaultStatementTimeout}
	at := func(key, format string, args ...any) (Entry, error) {
		return Entry{}, s.at(append(slices.Clone(path), strings.Split(key, ".")...), format, args...)
	}
	m, ok := value.(map[any]any)
	if !ok {
		return Entry{}, s.at(path, "a database must be a mapping with name and args")
	}
	if name, ok := m["name"]; ok {
		if e.Name, ok = name.(string); !ok || e.Name != Psycopg2 && e.Name != SQLite3 {
			return at("name", "a database's name must be psycopg2 (PostgreSQL) or sqlite3")
		}
	}
	if args, ok := m["args"]; ok {
		named, ok := args.(map[any]any)
		if !ok {
			return at("args", "args must be a mapping of connection settings, such as host: localhost")
		}
		for k, v := range named {
			key, ok := k.(string)
			if !ok {
				return at("args", "every key of args must be a text")
			}
			e.Args[key] = v
		}
	}
	if e.Name == SQLite3 {
		e.CPMin, e.CPMax = 1, 1
		if e.SQLitePath() == "" {
			return at("args.database", "a sqlite3 database needs its file: args with database: /path/to/homeserver.db")
		}
	} else {
		for _, pool := range []struct {
			key string
			n   *int
		}{{"cp_min", &e.CPMin}, {"cp_max", &e.CPMax}} {
			if v, ok := e.Args[pool.key]; ok {
				n, ok := v.(int64)
				if !ok || n < 0 || n > 1<<20 {
					return at("args."+pool.key, "%s must be a whole number of connections", pool.key)
				}
				*pool.n = int(n)
			}
		}
	}
	if v, ok := m["data_stores"]; !ok || v == nil {
		e.DataStores = []string{"main", "state"}
	} else if e.DataStores, ok = stringList(v); !ok {
		return at("data_stores", "data_stores must be a list of main and state")
	}
	e.AllowUnsafeLocale = truthy(m["allow_unsafe_locale"])
	if v, ok := m["txn_limit"]; ok {
		n, ok := v.(int64)
		if !ok {
			return at("txn_limit", "txn_limit must be a whole number of transactions")
		}
		e.TxnLimit = int(n)
	}
	if v, ok := m["statement_timeout"]; ok {
		if e.StatementTimeout, ok = v.(int64); !ok && v != nil {
			return at("statement_timeout", "statement_timeout must be a whole number of milliseconds, or null for none")
		}
	}
	return e, nil
}
