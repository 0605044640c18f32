package pgdb

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// isolated takes the machine's own settings away.
func isolated(t *testing.T) (home string) {
	t.Helper()
	home = t.TempDir()
	for _, pair := range os.Environ() {
		if name, value, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "PG") && !strings.HasPrefix(name, "PGTEST") {
			t.Setenv(name, value) // puts it back afterwards
			os.Unsetenv(name)
		}
	}
	t.Setenv("HOME", home)
	t.Setenv("PGSYSCONFDIR", home)
	return home
}

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMissingSettingsComeFromTheEnvironment(t *testing.T) {
	isolated(t)
	t.Setenv("PGHOST", "env.example")
	t.Setenv("PGPORT", "6000")
	t.Setenv("PGPASSWORD", "p")
	t.Setenv("PGSSLMODE", "disable")
	t.Setenv("PGOPTIONS", "-c x=y")
	s, err := Settings{"user": "u", "port": "7000"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"host": "env.example", "port": "7000", "password": "p", "sslmode": "disable", "options": "-c x=y", "dbname": "u"} {
		if s[name] != want {
			t.Errorf("%s is %q, want %q", name, s[name], want)
		}
	}
}

func TestWithoutAHostTheSocketIsUsed(t *testing.T) {
	isolated(t)
	s, err := Settings{"user": "u"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	endpoints, err := s.Endpoints(t.Context())
	if err != nil || len(endpoints) != 1 || endpoints[0].Socket != defaultSocketDir()+"/.s.PGSQL.5432" {
		t.Errorf("got %v, %v", endpoints, err)
	}
}

func TestAServiceGivesWhatIsNotSaidElsewhere(t *testing.T) {
	home := isolated(t)
	file := write(t, filepath.Join(home, "services"), "# x\n[other]\nhost=wrong\n[chat]\nhost=service.example\nport=6001\nhost=second\n[last]\nport=1\n", 0o600)
	t.Setenv("PGSERVICEFILE", file)
	t.Setenv("PGHOST", "env.example")
	s, err := Settings{"service": "chat", "port": "6002", "user": "u"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	if s["host"] != "service.example" || s["port"] != "6002" {
		t.Errorf("got %v", s)
	}
	if _, err := (Settings{"service": "none"}).Resolve(); err == nil {
		t.Error("an unknown service is no error")
	}
	write(t, file, "[chat]\nservice=loop\n", 0o600)
	if _, err := (Settings{"service": "chat"}).Resolve(); err == nil || !strings.Contains(err.Error(), "services:2") {
		t.Errorf("got %v", err)
	}
}

func TestThePasswordFileIsSearchedAsLibpqDoes(t *testing.T) {
	const file = "# comment\nbad\n*:*:other:*:no\ndb\\:1:5432:d:u:a\\:b:c\nlocalhost:*:*:u:socket\n*:6000:*:*:any\n"
	for login, want := range map[[4]string]string{
		{"db:1", "5432", "d", "u"}:      "a:b", // an unprotected colon ends the password
		{"localhost", "5432", "d", "u"}: "socket",
		{"x", "6000", "d", "v"}:         "any",
		{"x", "6001", "d", "v"}:         "",
	} {
		if got := findPassword(bufio.NewScanner(strings.NewReader(file)), login); got != want {
			t.Errorf("%v: got %q, want %q", login, got, want)
		}
	}
}

func TestAPasswordFileThatOthersMayReadIsIgnored(t *testing.T) {
	home := isolated(t)
	file := write(t, filepath.Join(home, ".pgpass"), "h:*:*:*:secret\n", 0o600)
	login := Settings{"host": "h", "user": "u"}
	s, err := login.Resolve()
	if err != nil || s["password"] != "secret" {
		t.Errorf("got %v, %v", s, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err = login.Resolve(); err != nil || s["password"] != "" {
		t.Errorf("a file with mode 0644 was read: %v", err)
	}
}

func TestEachOfSeveralHostsHasItsOwnPassword(t *testing.T) {
	home := isolated(t)
	write(t, filepath.Join(home, ".pgpass"), "a:1:*:*:pa\nb:2:*:*:pb\n", 0o600)
	s, err := Settings{"host": "a,b", "port": "1,2", "user": "u"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", "/nowhere") // as in a plugin
	hosts, err := s.hosts()
	if err != nil {
		t.Fatal(err)
	}
	if a, b := s.passwordFor(hosts[0]), s.passwordFor(hosts[1]); a != "pa" || b != "pb" {
		t.Errorf("got %q and %q", a, b)
	}
}

func TestListsThatDoNotMatchAreRefused(t *testing.T) {
	for _, s := range []Settings{{"host": "a,b", "port": "1,2,3"}, {"host": "a,b", "hostaddr": "127.0.0.1"}, {"port": "x"}, {"port": "70000"}} {
		if _, err := s.hosts(); err == nil {
			t.Errorf("%v is accepted", s)
		}
	}
}
