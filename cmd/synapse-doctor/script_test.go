package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	versioncheck "github.com/synapse-doctor/synapse-doctor/checks/version"
	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
	"github.com/synapse-doctor/synapse-doctor/plugins/builtin"
	"github.com/synapse-doctor/synapse-doctor/plugins/sdk"
)

// The scripts in testdata run the real program against real servers. Beside testscript's own commands they have:
//
//	doctor CODE ARG…            run the program; it must end with this exit code
//	ask ANSWER CODE ARG…        the same on a terminal, answering its question; ^C is the key
//	start NAME ARG…             run it in the background: signal NAME SIG, ended NAME CODE, plugins NAME, gone NAME
//	survives N DB SQL FROM TO ARG…   break, kill a fix at a random moment, settle, look: N times
//	goexample FILE, pyexample FILE [DIR]   the plugin of plugins/examples, or one in Python of the script's own
//	misbehaving FILE            the program of plugins/host/testdata/misbehave, which does what the file's name says
//	newdb NAME fixture|empty|synapse|ported   a database of this script; ownserver before it: on a server of its own
//	homeserverdb FILE           the real homeserver's SQLite file, as newdb's synapse of the real data: [data]
//	tls                         the ownserver takes TLS
//	sql|adminsql DB SQL         run statements as the owner, as the superuser; query DB SQL prints rows
//	session DB open|close       a session of Synapse's role
//	silence NAME                a port ($NAME_port) that takes connections and never answers; await NAME: one came
//	hba LINE…                   of the server's pg_hba.conf, which is $hba, below the superuser's line
//	homeserver FILE DB [K=V…]   write a sound homeserver.yaml, with arguments of the database set or (K=) left out
//	fill FILE DB [OTHER]        put the login of DB into the {{places}} of a file
//	snapshot, unchanged         keep, and compare, every file of the script and everything in its databases
//	width N                     no line of stdout is wider
//	report | plans              stdout is exactly the JSON of a check, of a fix
//	statuses CHECK=STATUS…      of the report on stdout; statuses all=ok for every check
//	findings CODE:NAME…         all that the report on stdout has found, info left out
//	oneline STREAM PATTERN      a single line, which matches
//	mode FILE MODE [UID:GID]    of a file; onlyadded BEFORE AFTER: nothing else was changed in it
//	newestrun                   of the history on stdout, into $run
//	events KIND…                the objects that stand on lines of their own on stderr are progress, and of each of these kinds is one
//
// After each script nothing but the files of the administrator may hold a secret (see secret_test.go), and no socket or
// temporary file may be left.

func TestMain(m *testing.M) {
	if sdk.Launched() {
		sdk.Serve(sdk.Plugin{Name: builtin.Name, Version: version(), Checks: onAGoodDay(builtin.Checks())})
	}
	testscript.Main(withServer{m}, map[string]func(){"synapse-doctor": main})
}

// onAGoodDay has the check of versions look on a day on which every major that the tests may meet was supported.
func onAGoodDay(checks []doctor.Check) []doctor.Check {
	day := func() time.Time { return time.Date(2025, 12, 1, 0, 0, 0, 0, time.UTC) }
	for i, c := range checks {
		if c.ID == versioncheck.Check.ID {
			checks[i] = versioncheck.At(day, synapse.PythonPlaces{Root: "/nowhere", Home: "/nowhere"})
		}
	}
	return checks
}

// withServer ends the server that the tests have shared.
type withServer struct{ *testing.M }

func (m withServer) Run() int {
	defer pgtest.Stop()
	return m.M.Run()
}

func TestScripts(t *testing.T) {
	pgtest.Start(t).MakeSound(t)
	dir, files := "testdata", []string(nil)
	if testing.Short() { // those in which something runs at the same time as something else
		dir = ""
		for _, name := range []string{"consent", "fix_sequence", "plugin_trust", "two_databases", "waiting"} {
			files = append(files, filepath.Join("testdata", name+".txtar"))
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		Files:               files,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"doctor": scripted(doctorCommand), "ask": scripted(askCommand),
			"start": scripted(startCommand), "signal": scripted(signalCommand), "ended": scripted(endedCommand),
			"plugins": scripted(pluginsCommand), "gone": scripted(goneCommand), "nosecret": scripted(noSecretCommand),
			"survives":  scripted(survivesCommand),
			"ownserver": scripted(ownServerCommand), "newdb": scripted(newDBCommand), "hba": scripted(hbaCommand),
			"sql": scripted(sqlCommand), "adminsql": scripted(adminSQLCommand), "query": scripted(queryCommand),
			"session": scripted(sessionCommand), "homeserverdb": scripted(homeserverDBCommand), "tls": scripted(tlsCommand), "events": scripted(eventsCommand), "silence": scripted(silenceCommand), "await": scripted(awaitCommand),
			"homeserver": scripted(homeserverCommand), "fill": scripted(fillCommand), "admindsn": scripted(adminDSNCommand),
			"snapshot": scripted(snapshotCommand), "unchanged": scripted(unchangedCommand),
			"width": scripted(widthCommand), "report": scripted(reportCommand), "plans": scripted(plansCommand),
			"statuses": scripted(statusesCommand), "findings": scripted(findingsCommand),
			"explained": scripted(explainedCommand), "goexample": scripted(exampleCommand), "misbehaving": scripted(misbehavingCommand), "pyexample": scripted(pyExampleCommand), "sqlite": scripted(sqliteCommand),
			"mode": scripted(modeCommand), "newestrun": scripted(runCommand), "onlyadded": scripted(onlyAddedCommand), "oneline": scripted(onelineCommand),
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "example":
				_, err := os.Stat(exampleDir)
				return err == nil, nil
			case "data":
				return os.Getenv("SYNAPSE_DOCTOR_DATA") != "", nil
			case "root":
				return os.Geteuid() == 0, nil
			case "python":
				return pythonWithGRPC(t) != "", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

// scene is what one script has to itself.
type scene struct {
	t        testing.TB
	dir      string
	server   *pgtest.Server
	own      bool // the server is this script's own
	dbs      map[string]*pgtest.DB
	sessions map[string]*pgx.Conn
	silences map[string]*silence
	running  map[string]*program
	snapshot map[string]string
	secrets  []string
	said     []spoken
	// names are those of the databases, in the order in which they were made.
	names []string
}

type sceneKey struct{}

// adminDir is where a script keeps the administrator's own files. Only they may hold a secret.
const adminDir = "etc"

func setup(env *testscript.Env) error {
	t, ok := env.T().(testing.TB)
	if !ok {
		return fmt.Errorf("testscript's T is no testing.TB")
	}
	s := &scene{
		t: t, dir: env.WorkDir, server: pgtest.Start(t), dbs: map[string]*pgtest.DB{}, sessions: map[string]*pgx.Conn{},
		silences: map[string]*silence{}, running: map[string]*program{}, secrets: plantedSecrets(),
	}
	s.secrets = append(s.secrets, s.server.Password)
	env.Values[sceneKey{}] = s
	run, err := os.MkdirTemp("", "sd") // short, because a socket's path is
	if err != nil {
		return err
	}
	for name, dir := range map[string]string{
		"HOME": "home", "TMPDIR": "tmp", "XDG_STATE_HOME": "xdg-state", "XDG_CONFIG_HOME": filepath.Join(adminDir, "config"), "SYNAPSE_DOCTOR_STATE_DIR": "state", "etc": adminDir,
	} {
		path := filepath.Join(env.WorkDir, dir)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		env.Setenv(name, path)
	}
	env.Setenv("XDG_RUNTIME_DIR", run)
	env.Setenv("COLUMNS", "")
	env.Setenv("SYNAPSE_DOCTOR_ADMIN_DSN", "none") // as root or not, the scripts see the same
	env.Setenv("password", plantedPassword)
	env.Defer(func() {
		s.endPrograms()
		s.searchSecrets()
		s.mustBeEmpty(run, filepath.Join(env.WorkDir, "tmp"))
		os.RemoveAll(run)
	})
	return nil
}

// mustBeEmpty looks for sockets and temporary files that outlived the program.
func (s *scene) mustBeEmpty(dirs ...string) {
	for _, dir := range dirs {
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			s.t.Errorf("left in %s: %v (%v)", dir, left, err)
		}
	}
}

// scripted makes a command of a script that can't be negated, and whose error ends the script.
func scripted(f func(*testscript.TestScript, *scene, []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("this command can't be negated")
		}
		ts.Check(f(ts, ts.Value(sceneKey{}).(*scene), args))
	}
}

// need takes the first n arguments by what they are called.
func need(args []string, names string) error {
	if n := len(strings.Fields(names)); len(args) < n {
		return fmt.Errorf("wants %s", names)
	}
	return nil
}
