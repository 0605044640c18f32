package synapse

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// writeFiles makes files of a txtar-like map below a new directory, and makes that the working directory.
func writeFiles(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func load(t *testing.T, content string) (*Config, error) {
	t.Helper()
	writeFiles(t, map[string]string{"homeserver.yaml": content})
	return Load("homeserver.yaml")
}

func TestMergeIsSynapses(t *testing.T) {
	writeFiles(t, map[string]string{
		"homeserver.yaml":       "server_name: a.example\npid_file: /run/a.pid\ndatabase:\n  name: psycopg2\n  args:\n    user: old\n    password: kept-out\n",
		"conf.d/20-db.yaml":     "# the real one\ndatabase:\n  name: psycopg2\n\n  args:\n    user: new\n    host: db\n    cp_max: 20\n",
		"conf.d/10-name.yaml":   "server_name: b.example\n",
		"conf.d/30-empty.yaml":  "# nothing\n",
		"conf.d/99-ignored.yml": "server_name: c.example\n",
		"conf.d/sub/deep.yaml":  "server_name: d.example\n",
		"conf.d/dir.yaml/x":     "",
		"worker.yaml":           "worker_name: w2\nworker_pid_file: /run/w.pid\ninstance_map: {main: {host: x}, w1: {}}\nstream_writers:\n  events: [w1, w2]\n  typing: w1\n",
	})
	c, err := Load("homeserver.yaml", "conf.d", "worker.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files := []string{"homeserver.yaml", "conf.d/10-name.yaml", "conf.d/20-db.yaml", "conf.d/30-empty.yaml", "worker.yaml"}
	if !reflect.DeepEqual(c.Files, files) {
		t.Errorf("files %q, want %q", c.Files, files)
	}
	if !reflect.DeepEqual(c.Ignored, []string{"conf.d/30-empty.yaml"}) {
		t.Errorf("ignored %q", c.Ignored)
	}
	if c.ServerName != "b.example" {
		t.Errorf("server name %q", c.ServerName)
	}
	want := []Entry{{Label: "main", Name: "psycopg2", Args: map[string]any{"user": "new", "host": "db", "cp_max": int64(20)},
		DataStores: []string{"main", "state"}, CPMin: 3, CPMax: 20, StatementTimeout: 600000, File: "conf.d/20-db.yaml", Line: 5}}
	if !reflect.DeepEqual(c.Databases, want) {
		t.Errorf("databases\n%+v, want\n%+v", c.Databases, want)
	}
	if !reflect.DeepEqual(c.PIDFiles, []string{"/run/a.pid", "/run/w.pid"}) {
		t.Errorf("pid files %q", c.PIDFiles)
	}
	if !reflect.DeepEqual(c.Workers, []string{"w1", "w2"}) {
		t.Errorf("workers %q", c.Workers)
	}
	if !reflect.DeepEqual(c.StreamWriters, map[string][]string{"events": {"w1", "w2"}, "typing": {"w1"}}) {
		t.Errorf("stream writers %q", c.StreamWriters)
	}
}

func TestSplitDatabases(t *testing.T) {
	c, err := load(t, `server_name: a.example
databases:
  zeta:
    name: psycopg2
    allow_unsafe_locale: yes
    txn_limit: 10_000
    statement_timeout: null
    data_stores: [main]
    args: {host: /run/pg}
  alpha:
    name: psycopg2
    data_stores: [state]
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{Label: "zeta", Name: "psycopg2", Args: map[string]any{"host": "/run/pg"}, DataStores: []string{"main"}, AllowUnsafeLocale: true,
			CPMin: 3, CPMax: 5, TxnLimit: 10000, File: "homeserver.yaml", Line: 9},
		{Label: "alpha", Name: "psycopg2", Args: map[string]any{}, DataStores: []string{"state"},
			CPMin: 3, CPMax: 5, StatementTimeout: 600000, File: "homeserver.yaml", Line: 10},
	}
	if !reflect.DeepEqual(c.Databases, want) {
		t.Errorf("databases\n%+v, want\n%+v", c.Databases, want)
	}
	if c.Entry("alpha") == nil || c.Entry("main") != nil {
		t.Error("Entry finds by label")
	}
}

func TestSQLiteForms(t *testing.T) {
	for name, tt := range map[string]struct{ yaml, path string }{
		"section":                {"database: {name: sqlite3, args: {database: a.db}}", "a.db"},
		"no name means SQLite":   {"database: {args: {database: a.db}}", "a.db"},
		"shorthand":              {"database_path: /b.db", "/b.db"},
		"shorthand wins":         {"database: {name: sqlite3, args: {database: a.db}}\ndatabase_path: /b.db", "/b.db"},
		"null is no section":     {"database:\ndatabases: {}\ndatabase_path: /b.db", "/b.db"},
		"ignored beside another": {"database: {name: psycopg2, args: {}}\ndatabase_path: /b.db", ""},
		"none at all":            {"report_stats: no", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, "server_name: a.example\n"+tt.yaml+"\n")
			if err != nil {
				t.Fatal(err)
			}
			path := ""
			if len(c.Databases) > 0 && c.Databases[0].Name == SQLite3 {
				path = c.Databases[0].SQLitePath()
			}
			if path != tt.path {
				t.Errorf("SQLite file %q, want %q", path, tt.path)
			}
		})
	}
}

const planted = "pl4nted-S3cret"

func TestFaultsAreToldWithTheirLine(t *testing.T) {
	ok := "server_name: a.example\n"
	for name, tt := range map[string]struct{ yaml, want string }{
		"empty":                {"", "homeserver.yaml: this file is empty or holds no settings"},
		"only comments":        {"# x\n", "homeserver.yaml: this file is empty"},
		"a list":               {"- a\n", "homeserver.yaml: this file is empty or holds no settings"},
		"no server name":       {"database: {}\n", "homeserver.yaml: server_name is missing"},
		"server name no text":  {"x: 1\nserver_name: 12\n", "homeserver.yaml:2: server_name must be"},
		"indentation":          {ok + "database:\n  name: psycopg2\n   args: {}\nlog: x\n", "homeserver.yaml:4: this is not valid YAML"},
		"dedent":               {ok + "database:\n    name: psycopg2\n  args: {}\nlog: x\n", "homeserver.yaml:4: this is not valid YAML"},
		"no space after colon": {ok + "database:\n  name: psycopg2\n  args:\n    host:x\n    user: y\n", "homeserver.yaml:6: this is not valid YAML"},
		"quote not closed":     {ok + "database:\n  args:\n    password: \"" + planted + "\n    user: y\nlast: z\n", "homeserver.yaml:4: this is not valid YAML"},
		"bracket not closed":   {ok + "a: {b: c\nlast: z\n", "homeserver.yaml:2: this is not valid YAML"},
		"at sign":              {ok + "password: @" + planted + "\n", "homeserver.yaml:2: this is not valid YAML: a value begins with a character"},
		"asterisk":             {ok + "\npassword: *" + planted + "\n", "homeserver.yaml:3: this is not valid YAML: an alias"},
		"exclamation mark":     {ok + "password: !" + planted + "\n", "homeserver.yaml:2: a tag (!name)"},
		"percent":              {ok + "password: %" + planted + "\n", "homeserver.yaml:2: this is not valid YAML"},
		"colon in value":       {ok + "password: a: " + planted + "\n", "homeserver.yaml:2: this is not valid YAML: a colon"},
		"tab":                  {ok + "database:\n\tname: psycopg2\n", "homeserver.yaml:3: this is not valid YAML"},
		"bad escape":           {ok + `password: "` + planted + `\w"` + "\n", "homeserver.yaml:2: this is not valid YAML: a backslash"},
		"first line":           {"a: b: c\n" + ok, "homeserver.yaml:1: this is not valid YAML"},
		"second document":      {ok + "---\na: b\n", "homeserver.yaml:2: a second YAML document"},
		"not UTF-8":            {ok + "a: \xff\n", "homeserver.yaml:2: this is not UTF-8"},
		"control character":    {ok + "a: \x07\n", "homeserver.yaml:2: this is not valid YAML: there is a control character"},
		"self alias":           {ok + "a: &a [*a]\n", "homeserver.yaml:2: an anchor contains an alias of itself"},
		"merge of text":        {ok + "a:\n  <<: b\n", "homeserver.yaml:3: << merges mappings"},
		"bare equals sign":     {ok + "password: =\n", "homeserver.yaml:2: = has a meaning"},
		"int tag":              {ok + "password: !!int " + planted + "\n", "homeserver.yaml:2: the value does not fit"},
		"list as key":          {ok + "? [a]\n: b\n", "homeserver.yaml:2: a list or a mapping stands as a key"},
		"database text":        {ok + "database: " + planted + "\n", "homeserver.yaml:2: a database must be a mapping"},
		"unknown name":         {ok + "database:\n  name: " + planted + "\n", "homeserver.yaml:3: a database's name must be psycopg2"},
		"args null":            {ok + "database:\n  name: psycopg2\n  args:\n", "homeserver.yaml:4: args must be a mapping"},
		"args list":            {ok + "database:\n  name: psycopg2\n  args: [" + planted + "]\n", "homeserver.yaml:4: args must be a mapping"},
		"args key not text":    {ok + "database:\n  name: psycopg2\n  args: {yes: 1}\n", "homeserver.yaml:4: every key of args"},
		"SQLite without file":  {ok + "database:\n  name: sqlite3\n", "homeserver.yaml:2: a sqlite3 database needs its file"},
		"cp_max text":          {ok + "database:\n  name: psycopg2\n  args:\n    cp_max: lots\n", "homeserver.yaml:5: cp_max must be"},
		"txn_limit":            {ok + "database:\n  name: psycopg2\n  txn_limit: x\n", "homeserver.yaml:4: txn_limit must be"},
		"statement_timeout":    {ok + "database:\n  name: psycopg2\n  statement_timeout: x\n", "homeserver.yaml:4: statement_timeout must be"},
		"both sections":        {ok + "database: {name: psycopg2}\ndatabases: {a: {}}\n", "homeserver.yaml:3: the sections database and databases exclude"},
		"path and databases":   {ok + "databases: {a: {}}\ndatabase_path: x\n", "homeserver.yaml:3: database_path and databases exclude"},
		"databases list":       {ok + "databases: [a]\n", "homeserver.yaml:2: databases must be a mapping"},
		"no state":             {ok + "databases:\n  a: {name: psycopg2, data_stores: [main]}\n", "homeserver.yaml:2: no database holds the data store state"},
		"two states":           {ok + "databases:\n  a: {name: psycopg2}\n  b:\n    name: psycopg2\n    data_stores: state\n", "homeserver.yaml:6: the data store state is held by more than one database: a, b"},
		"data_stores number":   {ok + "database: {name: psycopg2, data_stores: 1}\n", "homeserver.yaml:2: data_stores must be"},
		"stream_writers":       {ok + "stream_writers: {events: {a: b}}\n", "homeserver.yaml:2: the writers of a stream"},
		"instance_map":         {ok + "instance_map: [a]\n", "homeserver.yaml:2: instance_map must be"},
		"pid_file":             {ok + "pid_file: [a]\n", "homeserver.yaml:2: pid_file must be"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tt.yaml)
			if _, ok := errors.AsType[*ConfigError](err); !ok {
				t.Fatalf("error %v, want a ConfigError", err)
			}
			if !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error\n%q, want\n%q", err, tt.want)
			}
			if strings.Contains(err.Error(), planted) {
				t.Errorf("a value is quoted: %q", err)
			}
		})
	}
}

func TestBrokenLineOfALongFile(t *testing.T) {
	var b strings.Builder
	b.WriteString("server_name: a.example\n")
	for range 3000 {
		b.WriteString("# a comment\nsome_key:\n  - a: b\n")
	}
	b.WriteString("bad:\n  x: 1\n   y: 2\n")
	for range 3000 {
		b.WriteString("other_key: 1\n")
	}
	_, err := load(t, b.String())
	if err == nil || !strings.HasPrefix(err.Error(), "homeserver.yaml:9004: ") {
		t.Errorf("error %v, want line 9004", err)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	writeFiles(t, map[string]string{"empty/readme.txt": ""})
	_, err := Load("absent.yaml")
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != "absent.yaml: this file cannot be read: no such file or directory" {
		t.Errorf("error %v", err)
	}
	if _, err := Load("empty"); err == nil || err.Error() != "empty: there is no *.yaml file in this directory" {
		t.Errorf("error %v", err)
	}
	if _, err := Load(); err == nil {
		t.Error("no path is an error")
	}
}

func TestDuplicateKeysLastWins(t *testing.T) {
	c, err := load(t, "server_name: a\nserver_name: b\ndatabase:\n  name: psycopg2\n  args: {host: x}\n  args: {host: y}\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.ServerName != "b" || c.Databases[0].Args["host"] != "y" || c.Databases[0].Line != 6 {
		t.Errorf("%+v", c)
	}
}

// TestYAML11 has what PyYAML 6.0.3 makes of each.
func TestYAML11(t *testing.T) {
	for text, want := range map[string]any{
		"yes": true, "On": true, "OFF": false, "y": "y", "yEs": "yEs", "True": true,
		"~": nil, "": nil, "Null": nil, "nULL": "nULL",
		"54:32": int64(3272), "1:30": int64(90), "190:20:30": int64(685230), "-1:30": int64(-90), "1:60": "1:60", "01:05": "01:05", "0:5": "0:5",
		"017": int64(15), "-017": int64(-15), "08": "08", "0o17": "0o17", "0b11": int64(3), "0x1F": int64(31), "00": int64(0), "0_7": int64(7),
		"1_000": int64(1000), "1__0": int64(10), "1_": int64(1), "_1": "_1", "+12": int64(12),
		"1e3": "1e3", "1.5e3": "1.5e3", "1.5e+3": 1500.0, "1.": 1.0, "0.5": 0.5, "1:30.5": 90.5, "12e03": "12e03",
		"123456789012345678901234567890": "123456789012345678901234567890",
		"!!str 5":                        "5", "!!int '5'": int64(5), "'5'": "5", `"yes"`: "yes", "!!binary aGk=": "hi",
		"2001-01-01": "2001-01-01", "a b": "a b",
	} {
		doc, err := parseDocument("f", []byte("a: "+text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := doc.value.(map[any]any)["a"]; got != want {
			t.Errorf("%q is %#v, want %#v", text, got, want)
		}
	}
}

func TestMergeKeys(t *testing.T) {
	doc, err := parseDocument("f", []byte(`
a: &a {x: 1, y: 1}
b: &b {y: 2, z: 2}
one: {x: 9, <<: *a}
list: {<<: [*a, *b]}
two: {<<: *a, <<: *b}
"<<": text
`))
	if err != nil {
		t.Fatal(err)
	}
	m := doc.value.(map[any]any)
	for key, want := range map[string]map[any]any{
		"one":  {"x": int64(9), "y": int64(1)},
		"list": {"x": int64(1), "y": int64(1), "z": int64(2)},
		"two":  {"x": int64(1), "y": int64(2), "z": int64(2)},
	} {
		if !reflect.DeepEqual(m[key], want) {
			t.Errorf("%s is %v, want %v", key, m[key], want)
		}
	}
	if m["<<"] != "text" {
		t.Errorf("quoted << merges: %v", m)
	}
}

func TestAliasesOfAliasesDoNotMultiply(t *testing.T) {
	var b strings.Builder
	b.WriteString("server_name: a.example\na0: &a0 [x, x]\n")
	for i := range 60 {
		n := string(rune('0'+i/10)) + string(rune('0'+i%10))
		prev := "a0"
		if i > 0 {
			prev = "b" + string(rune('0'+(i-1)/10)) + string(rune('0'+(i-1)%10))
		}
		b.WriteString("b" + n + "_secret: &b" + n + " [*" + prev + ", *" + prev + "]\n")
	}
	c, err := load(t, b.String())
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Secrets(); !slices.Equal(got, []string{"x"}) {
		t.Errorf("secrets %q", got)
	}
}

func TestSecrets(t *testing.T) {
	writeFiles(t, map[string]string{
		"homeserver.yaml": `server_name: a.example
database:
  name: psycopg2
  args: {password: shadowed-password, sslkey: /etc/key.pem, passfile: /var/lib/synapse/.pgpass}
registration_shared_secret: "reg secret"
macaroon_secret_key: m4caroon
form_secret: 1_234
signing_key_path: /etc/signing.key
registration_shared_secret_path: /etc/reg
tls_private_key_path: /etc/tls.key
turn_shared_secret: &turn turn-value
elsewhere_token: *turn
password_config:
  enabled: true
  pepper: p3pper
email:
  smtp_user: someone
  smtp_pass: sm:tp
redis:
  password: |
    multi
oidc_providers:
  - idp_id: x
    client_secret: oidc-s
    access_token_lifetime: 24h
sentry:
  dsn: https://public@sentry.example/1
http_proxy: http://user:pr%40xy@proxy:3128
null_secret:
yes_secret: yes
`,
		"b.yaml": `database:
  name: psycopg2
  args:
    dsn: "host=db user=u password='it\\'s secret' sslpassword=other"
`,
	})
	c, err := Load("homeserver.yaml", "b.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got := c.Secrets()
	for _, want := range []string{"shadowed-password", "reg secret", "m4caroon", "1_234", "1234", "turn-value", "p3pper", "sm:tp", "multi",
		"oidc-s", "pr%40xy", "pr@xy", `it\'s secret`, "it's secret", "other"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is not among the secrets %q", want, got)
		}
	}
	for _, no := range []string{"", "/etc/key.pem", "/var/lib/synapse/.pgpass", "/etc/signing.key", "/etc/reg", "/etc/tls.key", "someone", "24h", "true", "yes", "x"} {
		if slices.Contains(got, no) {
			t.Errorf("%q is among the secrets %q", no, got)
		}
	}
}

func TestFind(t *testing.T) {
	for name, tt := range map[string]struct {
		files []string
		env   map[string]string
		paths []string
		place string
	}{
		"nowhere": {},
		"debian": {files: []string{"etc/matrix-synapse/homeserver.yaml", "etc/matrix-synapse/conf.d/a.yaml", "home/synapse/homeserver.yaml"},
			paths: []string{"/etc/matrix-synapse/homeserver.yaml", "/etc/matrix-synapse/conf.d"}, place: "the Debian package"},
		"debian without conf.d": {files: []string{"etc/matrix-synapse/homeserver.yaml"},
			paths: []string{"/etc/matrix-synapse/homeserver.yaml"}, place: "the Debian package"},
		"docker":      {files: []string{"data/homeserver.yaml"}, paths: []string{"/data/homeserver.yaml"}, place: "the Docker image"},
		"docker path": {env: map[string]string{"SYNAPSE_CONFIG_PATH": "/x/y.yaml", "SYNAPSE_CONFIG_DIR": "/z"}, paths: []string{"/x/y.yaml"}, place: "SYNAPSE_CONFIG_PATH"},
		"docker dir":  {env: map[string]string{"SYNAPSE_CONFIG_DIR": "/z"}, paths: []string{"/z/homeserver.yaml"}, place: "SYNAPSE_CONFIG_DIR"},
		"here":        {files: []string{"cwd/homeserver.yaml", "home/synapse/homeserver.yaml"}, paths: []string{"/cwd/homeserver.yaml"}, place: "the working directory"},
		"home":        {files: []string{"home/synapse/homeserver.yaml"}, paths: []string{"/home/synapse/homeserver.yaml"}, place: "a virtualenv"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, f := range tt.files {
				f = filepath.Join(root, f)
				if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(f, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			p := Places{Root: root, Dir: filepath.Join(root, "cwd"), Home: filepath.Join(root, "home"), Getenv: func(k string) string { return tt.env[k] }}
			paths, place := p.Find()
			var want []string
			for _, path := range tt.paths {
				want = append(want, filepath.Join(root, path))
			}
			if !reflect.DeepEqual(paths, want) || place != tt.place {
				t.Errorf("found %q (%s), want %q (%s)", paths, place, want, tt.place)
			}
		})
	}
}

func FuzzParseDocument(f *testing.F) {
	f.Add("server_name: a\ndatabase: {args: {<<: *x}}\n")
	f.Add("a: &a\n  <<: [*a]\n")
	f.Add("? |\n  x\n: !!int 0x\n")
	f.Fuzz(func(t *testing.T, content string) {
		doc, err := parseDocument("f", []byte(content))
		if err == nil && doc == nil {
			t.Error("neither a document nor an error")
		}
		if err != nil {
			if _, ok := errors.AsType[*ConfigError](err); !ok {
				t.Errorf("%T", err)
			}
		}
	})
}
