package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const onSQLite = "server_name: test.example\npid_file: /run/synapse.pid\ndatabase:\n  name: sqlite3\n  args:\n    database: /var/lib/matrix-synapse/homeserver.db\n"

const onPostgres = "database:\n  name: psycopg2\n  args:\n    user: synapse\n    password: hunter2secret\n    dbname: synapse\n    host: 127.0.0.1\n    port: 5432\n"

func TestAPortIsToldWhereFromAndWhereToByItsFlags(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	homeserver, section := file("homeserver.yaml", onSQLite), file("postgres.yaml", onPostgres)
	moved := file("moved.yaml", "server_name: test.example\n"+onPostgres)
	elsewhere := file("elsewhere.yaml", strings.Replace("server_name: test.example\n"+onPostgres, "dbname: synapse", "dbname: other", 1))
	for name, c := range map[string]struct {
		config, sqlite, postgres string
		want                     []string // label engine where
		fails                    string
	}{
		"the configuration's own file":                 {config: homeserver, postgres: section, want: []string{"main postgres synapse", "sqlite sqlite /var/lib/matrix-synapse/homeserver.db"}},
		"a snapshot takes its place":                   {config: homeserver, postgres: section, sqlite: "/tmp/snapshot.db", want: []string{"main postgres synapse", "sqlite sqlite /tmp/snapshot.db"}},
		"a whole configuration, and a file":            {config: moved, sqlite: "/tmp/snapshot.db", want: []string{"main postgres synapse", "sqlite sqlite /tmp/snapshot.db"}},
		"the file alone":                               {config: homeserver, want: []string{"main sqlite /var/lib/matrix-synapse/homeserver.db"}},
		"after the move the flag says what is so":      {config: moved, postgres: section, want: []string{"main postgres synapse"}},
		"after a move to another database":             {config: elsewhere, postgres: section, fails: "is on another PostgreSQL database already"},
		"a section that is not of PostgreSQL":          {config: homeserver, postgres: homeserver, fails: "has no database section for PostgreSQL"},
		"a section in a file that can't be read":       {config: homeserver, postgres: filepath.Join(dir, "none.yaml"), fails: "none.yaml"},
		"a whole new configuration beside the old one": {config: homeserver, postgres: moved, want: []string{"main postgres synapse", "sqlite sqlite /var/lib/matrix-synapse/homeserver.db"}},
	} {
		t.Run(name, func(t *testing.T) {
			flags := targetFlags{}
			f := newFlags("check", "", "", streams{})
			flags.register(f)
			args := []string{"-c", c.config, "--skip-table", "a", "--skip-table", "b", "--synapse-command", "docker exec -i synapse"}
			if c.sqlite != "" {
				args = append(args, "--sqlite", c.sqlite)
			}
			if c.postgres != "" {
				args = append(args, "--postgres-config", c.postgres)
			}
			if err := f.Parse(args); err != nil {
				t.Fatal(err)
			}
			a, err := flags.assemble(f)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) || !strings.Contains(err.Error(), "--postgres-config") {
					t.Fatalf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range a.target.Databases {
				got = append(got, strings.Join([]string{d.Label, string(d.Engine), d.Settings["dbname"] + d.Path}, " "))
			}
			if strings.Join(got, "; ") != strings.Join(c.want, "; ") {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			if files := strings.Join(a.target.ConfigFiles, " "); files != c.config {
				t.Errorf("the configuration is %s", files)
			}
			if a.target.PostgresConfig != c.postgres || strings.Join(a.target.SkipTables, " ") != "a b" || a.target.SynapseCommand != "docker exec -i synapse" {
				t.Errorf("%+v", a.target)
			}
			if c.postgres != "" && a.redactor.String("it is hunter2secret") != "it is ********" {
				t.Error("the new section's password is not known as a secret")
			}
			for _, flag := range args {
				if !strings.Contains(strings.Join(flags.repeated(), " "), flag) {
					t.Errorf("a command suggested in a report lacks %s", flag)
				}
			}
		})
	}
}
