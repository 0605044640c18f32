package synapse

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const mask = "********"

func readSection(t *testing.T, content string) (Section, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "postgres.yaml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadSection(file, mask)
}

const newSection = `database:
  name: psycopg2
  allow_unsafe_locale: false
  args:
    user: synapse_user
    password: 'it''s "secret"'
    dbname: synapse
    host: 10.0.0.1   # the cellar
    port: 5432
    options: "-c search_path=x: y"
`

func TestASectionIsReadWithoutItsPassword(t *testing.T) {
	s, err := readSection(t, newSection)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"database:", "  name: psycopg2", "  allow_unsafe_locale: false", "  args:", "    user: synapse_user", `    password: "********"`, "    dbname: synapse",
		"    host: '10.0.0.1'", "    port: 5432", "    options: '-c search_path=x: y'"}
	if !reflect.DeepEqual(s.Lines(), want) || !s.Password {
		t.Errorf("got\n%s", strings.Join(s.Lines(), "\n"))
	}
}

func TestASectionThatCanNotBeCopiedIsRefusedWithoutAValue(t *testing.T) {
	for name, content := range map[string]string{
		"nothing":          "",
		"another section":  "server_name: a\n",
		"SQLite":           "database: {name: sqlite3, args: {database: /hunter2}}\n",
		"no name":          "database: {args: {database: hunter2}}\n",
		"no args":          "database: {name: psycopg2}\n",
		"args are a text":  "database: {name: psycopg2, args: hunter2}\n",
		"a second secret":  "database: {name: psycopg2, args: {user: u, sslpassword: hunter2}}\n",
		"a connection URL": "database: {name: psycopg2, args: {dsn: 'postgres://u:hunter2@h/d'}}\n",
		"a merge":          "x: &x {user: hunter2}\ndatabase: {name: psycopg2, args: {<<: *x, host: h}}\n",
		"a list":           "database: {name: psycopg2, args: {user: [hunter2]}}\n",
		"no YAML":          "database: {name: psycopg2, args: {password: hunter2",
	} {
		_, err := readSection(t, content)
		var c *ConfigError
		if !errors.As(err, &c) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheSectionOfSQLiteBecomesOneOfPostgreSQL(t *testing.T) {
	args := "user: synapse_user\n    password: \"********\"\n    dbname: synapse\n    host: '10.0.0.1'\n    port: 5432\n    options: '-c search_path=x: y'"
	for name, tt := range map[string]struct{ before, after string }{
		"as Synapse writes it": {
			"server_name: a # x\ndatabase:\n  name: sqlite3\n  args:\n    database: /var/lib/homeserver.db\nlog_config: l\n",
			"server_name: a # x\ndatabase:\n  name: psycopg2\n  allow_unsafe_locale: false\n  args:\n    " + args + "\nlog_config: l\n"},
		"with comments, quotes and other settings": {
			"# top\ndatabase:\n  # what\n  allow_unsafe_locale: false\n  name: \"sqlite3\" # for now\n  txn_limit: 100\n  args:\n    # where\n    database: '/var/lib/homeserver.db' # big\n    check_same_thread: false # why\n    # end\nserver_name: a\n",
			"# top\ndatabase:\n  # what\n  allow_unsafe_locale: false\n  name: \"psycopg2\" # for now\n  txn_limit: 100\n  args:\n    # where\n    # big\n    " + args + "\n    # end\nserver_name: a\n"},
		"without a name": {
			"database:\n  args:\n    database: /x.db\n",
			"database:\n  name: psycopg2\n  allow_unsafe_locale: false\n  args:\n    " + args + "\n"},
		"no line end at the end": {
			"database:\n  name: sqlite3\n  args:\n    database: /x.db",
			"database:\n  name: psycopg2\n  allow_unsafe_locale: false\n  args:\n    " + args},
		"on one line": {
			"database: {name: sqlite3, args: {database: /x.db}} # c\n",
			"database: {name: psycopg2, allow_unsafe_locale: false, args: {user: synapse_user, password: \"********\", dbname: synapse, host: '10.0.0.1', port: 5432, options: '-c search_path=x: y'}} # c\n"},
		"JSON": {
			`{"server_name": "a", "database": {"name": "sqlite3", "allow_unsafe_locale": false, "args": {"database": "/x.db"}}}`,
			`{"server_name": "a", "database": {"name": "psycopg2", "allow_unsafe_locale": false, "args": {"user": synapse_user, "password": "********", "dbname": synapse, "host": '10.0.0.1', "port": 5432, "options": '-c search_path=x: y'}}}`},
		"lines that end as on Windows": {
			"database:\r\n  name: sqlite3\r\n  args:\r\n    database: /x.db\r\n",
			strings.ReplaceAll("database:\n  name: psycopg2\n  allow_unsafe_locale: false\n  args:\n    "+args+"\n", "\n", "\r\n")},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := readSection(t, newSection)
			if err != nil {
				t.Fatal(err)
			}
			splices, err := EditDatabase([]byte(tt.before), s)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Apply([]byte(tt.before), splices)
			if err != nil || string(got) != tt.after {
				t.Errorf("%v\n%s\nwant\n%s", err, got, tt.after)
			}
			if n := strings.Count(string(got), mask); n != 1 {
				t.Errorf("the password's place is there %d times", n)
			}
		})
	}
}

func TestWhatCanNotBeEditedIsSaidWithTheLinesToWrite(t *testing.T) {
	s, err := readSection(t, newSection)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"PostgreSQL already":     "database: {name: psycopg2, args: {host: h}}\n",
		"no section":             "server_name: a\n",
		"several databases":      "databases:\n  main: {name: sqlite3, args: {database: /x}}\n",
		"a path of its own":      "database_path: /x\n",
		"an anchor":              "x: &x {database: /x}\ny: *x\ndatabase: {name: sqlite3, args: *x}\n",
		"two on one line":        "database: {name: sqlite3, args: {database: /x, timeout: 1}}\n",
		"a comment at the name":  "database:\n  name: sqlite3 # c\n  args:\n    database: /x\n",
		"a value of two lines":   "database:\n  name: sqlite3\n  args:\n    database: >\n      /x\n",
		"another locale setting": "database:\n  name: sqlite3\n  allow_unsafe_locale: true\n  args:\n    database: /x\n",
	} {
		_, err := EditDatabase([]byte(content), s)
		var e *EditError
		if !errors.As(err, &e) || len(e.Lines) == 0 || e.Lines[0] != "database:" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
