package version

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// python is a virtualenv of a current Synapse with a sound client.
func python(change func(*synapse.Python)) *synapse.Python {
	p := &synapse.Python{
		Path: "/opt/synapse/env/bin/python", Found: "matrix-synapse.service", Version: "3.11.2", Synapse: "1.150.0", Kind: synapse.Virtualenv,
		Prefix: "/opt/synapse/env", Pip: true, System: []string{"debian"},
		Client: synapse.ClientLoaded, ClientVersion: "2.9.9", ClientDist: "psycopg2", LibPQ: 150018,
	}
	if change != nil {
		change(p)
	}
	return p
}

func absent(kind synapse.Installation) func(*synapse.Python) {
	return func(p *synapse.Python) {
		p.Kind, p.Client, p.ClientVersion, p.ClientDist, p.LibPQ = kind, synapse.ClientAbsent, "", "", 0
	}
}

func broken(kind synapse.Installation, text string) func(*synapse.Python) {
	return func(p *synapse.Python) {
		p.Kind, p.Client, p.ClientVersion, p.LibPQ, p.ClientError = kind, synapse.ClientBroken, "", 0, text
	}
}

func and(all ...func(*synapse.Python)) func(*synapse.Python) {
	return func(p *synapse.Python) {
		for _, change := range all {
			change(p)
		}
	}
}

// commands are the lines of a remedy that are to be copied.
func commands(remedy string) []string {
	var all []string
	for line := range strings.Lines(remedy) {
		if command, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "    "); ok {
			all = append(all, command)
		}
	}
	return all
}

func TestEachInstallationsRemedyIsItsOwn(t *testing.T) {
	const noLib = "ImportError: libpq.so.5: cannot open shared object file: No such file or directory"
	const damaged = "ModuleNotFoundError: No module named 'psycopg2._psycopg'"
	const pip = "/opt/synapse/env/bin/python -m pip install "
	on := func(system ...string) func(*synapse.Python) { return func(p *synapse.Python) { p.System = system } }
	owned := func(p *synapse.Python) { p.Owner = "synapse" }
	noPip := func(p *synapse.Python) { p.Pip = false }
	dist := func(name string) func(*synapse.Python) { return func(p *synapse.Python) { p.ClientDist = name } }
	old := func(p *synapse.Python) { p.LibPQ = 90623 }
	kind := func(k synapse.Installation) func(*synapse.Python) { return func(p *synapse.Python) { p.Kind = k } }
	for name, tt := range map[string]struct {
		change func(*synapse.Python)
		code   string
		want   []string
	}{
		"sound":                    {nil, "", nil},
		"the oldest libpq that is": {func(p *synapse.Python) { p.LibPQ = 100000 }, "", nil},
		"of unknown age":           {func(p *synapse.Python) { p.LibPQ = 0 }, "", nil},

		"absent, Debian":           {absent(synapse.DebianPackage), "no-psycopg2 error", []string{"apt install python3-psycopg2"}},
		"absent, Fedora":           {and(absent(synapse.SystemPackage), on("fedora")), "no-psycopg2 error", []string{"dnf install python3-psycopg2"}},
		"absent, Manjaro":          {and(absent(synapse.SystemPackage), on("manjaro", "arch")), "no-psycopg2 error", []string{"pacman -S python-psycopg2"}},
		"absent, Alpine":           {and(absent(synapse.SystemPackage), on("alpine")), "no-psycopg2 error", []string{"apk add py3-psycopg2"}},
		"absent, who knows":        {and(absent(synapse.SystemPackage), on()), "no-psycopg2 error", nil},
		"absent, matrix.org":       {absent(synapse.MatrixOrgPackage), "no-psycopg2 error", []string{"apt install --reinstall matrix-synapse-py3"}},
		"absent, Docker":           {absent(synapse.DockerImage), "no-psycopg2 error", []string{"docker pull ghcr.io/element-hq/synapse:v1.150.0"}},
		"absent, virtualenv":       {absent(synapse.Virtualenv), "no-psycopg2 error", []string{pip + `"matrix-synapse[postgres]"`, "apt install libpq-dev python3-dev gcc", pip + "psycopg2-binary"}},
		"absent, a user's":         {and(absent(synapse.Virtualenv), owned), "no-psycopg2 error", []string{"sudo -u synapse " + pip + `"matrix-synapse[postgres]"`, "apt install libpq-dev python3-dev gcc", "sudo -u synapse " + pip + "psycopg2-binary"}},
		"absent, PyPy":             {and(absent(synapse.Virtualenv), on(), func(p *synapse.Python) { p.PyPy = true }), "no-psycopg2 error", []string{pip + `"matrix-synapse[postgres]"`}},
		"absent, and no pip":       {and(absent(synapse.Virtualenv), on(), noPip), "no-psycopg2 error", []string{`uv pip install --python /opt/synapse/env/bin/python "matrix-synapse[postgres]"`, "uv pip install --python /opt/synapse/env/bin/python psycopg2-binary"}},
		"absent, an odd path":      {and(absent(synapse.SystemPip), on(), func(p *synapse.Python) { p.Path = "/my env/python" }), "no-psycopg2 error", []string{`'/my env/python' -m pip install "matrix-synapse[postgres]"`, "'/my env/python' -m pip install psycopg2-binary"}},
		"no libpq, matrix.org":     {and(broken(synapse.MatrixOrgPackage, noLib), on()), "psycopg2-broken error", []string{"apt install libpq5"}},
		"no libpq, virtualenv":     {broken(synapse.Virtualenv, noLib), "psycopg2-broken error", []string{"apt install libpq5"}},
		"no libpq, CentOS":         {and(broken(synapse.Virtualenv, noLib), on("centos", "rhel")), "psycopg2-broken error", []string{"dnf install libpq"}},
		"no libpq, Docker":         {broken(synapse.DockerImage, noLib), "psycopg2-broken error", []string{"docker pull ghcr.io/element-hq/synapse:v1.150.0"}},
		"an older libpq":           {broken(synapse.Virtualenv, "ImportError: /x.so: undefined symbol: PQencryptPasswordConn"), "psycopg2-broken error", []string{"apt install libpq5"}},
		"a wheel's libpq":          {and(broken(synapse.Virtualenv, "ImportError: libpq-4fa63d26.so.5.9: cannot open"), dist("psycopg2-binary")), "psycopg2-broken error", []string{pip + "--force-reinstall --no-cache-dir psycopg2-binary"}},
		"damaged, virtualenv":      {and(broken(synapse.Virtualenv, damaged), dist("")), "psycopg2-broken error", []string{pip + "--force-reinstall --no-cache-dir psycopg2"}},
		"damaged, and no pip":      {and(broken(synapse.Virtualenv, damaged), noPip), "psycopg2-broken error", []string{"uv pip install --python /opt/synapse/env/bin/python --reinstall --no-cache psycopg2"}},
		"damaged, Debian":          {broken(synapse.DebianPackage, damaged), "psycopg2-broken error", []string{"apt install --reinstall python3-psycopg2"}},
		"damaged, openSUSE":        {and(broken(synapse.SystemPackage, damaged), on("opensuse-leap", "suse", "opensuse")), "psycopg2-broken error", []string{"zypper install --force python3-psycopg2"}},
		"damaged, matrix.org":      {broken(synapse.MatrixOrgPackage, damaged), "psycopg2-broken error", []string{"apt install --reinstall matrix-synapse-py3"}},
		"old libpq of a wheel":     {and(old, dist("psycopg2-binary")), "libpq-too-old error", []string{pip + "--upgrade psycopg2-binary"}},
		"old libpq of the system":  {old, "libpq-too-old error", nil},
		"old libpq, matrix.org":    {and(old, kind(synapse.MatrixOrgPackage)), "libpq-too-old error", nil},
		"old libpq, Docker, no v.": {and(old, kind(synapse.DockerImage), func(p *synapse.Python) { p.Synapse = "" }), "libpq-too-old error", []string{"docker pull ghcr.io/element-hq/synapse:latest"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := python(tt.change)
			found := judgeClient(p, true)
			if got := codes(found); got != tt.code {
				t.Fatalf("found %q, want %q", got, tt.code)
			}
			for _, f := range found {
				if got := commands(f.Remedy); !slices.Equal(got, tt.want) {
					t.Errorf("the commands are %q, want %q", got, tt.want)
				}
				if f.Object != (doctor.Object{Kind: "python", Name: p.Path}) || f.Summary == "" || f.Observed == "" || f.Expected == "" ||
					!strings.HasSuffix(f.Remedy, "name that one with --synapse-python.") || f.Evidence["found"] != p.Found {
					t.Errorf("found %+v", f)
				}
			}
		})
	}
}

func TestAnOldLibPQHarmsOnlyWhereSCRAMIsAskedFor(t *testing.T) {
	old := python(func(p *synapse.Python) { p.LibPQ = 90623 })
	for scram, want := range map[bool]string{true: "libpq-too-old error", false: "libpq-too-old warning"} {
		found := judgeClient(old, scram)
		if codes(found) != want || found[0].Observed != "libpq 9.6.23" {
			t.Errorf("found %+v", found)
		}
	}
}

// installed is the check on a machine with the matrix.org package, whose Python answers with these facts.
func installed(t *testing.T, script string) doctor.Check {
	t.Helper()
	root := t.TempDir()
	path := filepath.Join(root, "opt/venvs/matrix-synapse/bin/python")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return At(func() time.Time { return today }, synapse.PythonPlaces{Root: root, Home: root})
}

func says(client string) string {
	return fmt.Sprintf(`echo 'synapse-doctor {"python": "3.11.2", "prefix": "/opt/venvs/matrix-synapse", "synapse": "/x", %s}'`, client)
}

func TestTheClientIsExaminedBesideTheServer(t *testing.T) {
	server := pgtest.Start(t)
	full, empty := server.Database(t, pgtest.WithSetup(pgtest.Fixture())), server.Database(t)
	for name, tt := range map[string]struct {
		check   doctor.Check
		dsn     string
		want    string
		err     string
		skipped bool
	}{
		"sound":                      {installed(t, says(`"client": "loaded", "libpq": 150018`)), full.DSN(), "", "", false},
		"absent":                     {installed(t, says(`"client": "absent"`)), full.DSN(), "no-psycopg2 error", "", false},
		"cannot be asked":            {installed(t, "exit 7"), full.DSN(), "", "ask Synapse's Python for its PostgreSQL client: ", false},
		"sound, no schema":           {installed(t, says(`"client": "loaded"`)), empty.DSN(), "", "only the server was examined", true},
		"absent, no schema":          {installed(t, says(`"client": "absent"`)), empty.DSN(), "no-psycopg2 error", "", false},
		"cannot be asked, no schema": {installed(t, "exit 7"), empty.DSN(), "", "ask Synapse's Python", false},
	} {
		t.Run(name, func(t *testing.T) {
			var c collector
			err := tt.check.Run(t.Context(), target(t, tt.dsn), &c)
			_, skipped := doctor.SkipReason(err)
			if codes(c.found) != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) || skipped != tt.skipped {
				t.Errorf("found %+v, error %v", c.found, err)
			}
		})
	}
}

func TestThePasswordAndTheServerSayWhetherSCRAMIsNeeded(t *testing.T) {
	server := pgtest.Start(t)
	db := server.Database(t, pgtest.WithSetup(pgtest.Fixture()))
	if server.Major(t) < 10 {
		t.Skip("before PostgreSQL 10 there is no SCRAM")
	}
	old := installed(t, says(`"client": "loaded", "libpq": 90623`))
	socket := fmt.Sprintf("host=%s port=%d user=%s dbname=%s", server.SocketDir, server.Port, db.User, db.Name)
	for name, tt := range map[string]struct{ dsn, encryption, want string }{
		"a password, and SCRAM": {db.DSN(), "scram-sha-256", "libpq-too-old error"},
		"a password, and md5":   {db.DSN(), "md5", "libpq-too-old warning"},
		"no password":           {socket, "scram-sha-256", "libpq-too-old warning"},
	} {
		db.AdminExec(t, fmt.Sprintf(`ALTER DATABASE %q SET password_encryption = %q`, db.Name, tt.encryption))
		var c collector
		if err := old.Run(t.Context(), target(t, tt.dsn), &c); err != nil || codes(c.found) != tt.want {
			t.Errorf("%s: found %+v, %v", name, c.found, err)
		}
	}
}

func TestTheNamedPythonIsTheOneThatIsAsked(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()))
	check := installed(t, says(`"client": "loaded"`))
	tg := target(t, db.DSN())
	tg.SynapsePython = "/no/such/python"
	var c collector
	if err := check.Run(t.Context(), tg, &c); err == nil || len(c.found) > 0 || !strings.Contains(err.Error(), "/no/such/python: no such file or directory") {
		t.Errorf("found %+v, error %v", c.found, err)
	}
}

func TestAPythonBesideTheConfigurationIsAsked(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()))
	dir := t.TempDir()
	python := filepath.Join(dir, "env/bin/python")
	if err := os.MkdirAll(filepath.Dir(python), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(python, []byte("#!/bin/sh\n"+says(`"client": "absent"`)+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	tg := target(t, db.DSN())
	tg.ConfigFiles = []string{filepath.Join(dir, "homeserver.yaml")}
	found := examine(t, tg)
	if codes(found) != "no-psycopg2 error" || found[0].Object.Name != python {
		t.Errorf("found %+v", found)
	}
}

func TestTheCheckEndsWithItsContextWhileThePythonIsSilent(t *testing.T) {
	db := pgtest.Start(t).Database(t, pgtest.WithSetup(pgtest.Fixture()))
	check := installed(t, "sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	start := time.Now()
	var c collector
	err := check.Run(ctx, target(t, db.DSN()), &c)
	if err == nil || time.Since(start) > 8*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
}
