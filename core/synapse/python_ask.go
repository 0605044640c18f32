package synapse

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// patience is how long an interpreter may take to answer.
const patience = 10 * time.Second

// mostOutput bounds what is kept of each of an interpreter's outputs, in bytes.
const mostOutput = 64 << 10

// question is asked of the interpreter. Synapse itself is not imported, which takes seconds. It answers in two parts,
// because loading psycopg2 may end the process.
const question = `
import json, os, sys
from importlib import util
def say(**facts):
    print("` + answerMark + `" + json.dumps(facts), flush=True)
def spec(name):
    try:
        return util.find_spec(name)
    except Exception:
        return None
def dist(name):
    try:
        from importlib import metadata
        return metadata.version(name) or ""
    except Exception:
        return ""
def places(s):
    return list(s.submodule_search_locations or []) if s else []
synapse = [d for d in places(spec("synapse")) if os.path.isfile(os.path.join(d, "app", "homeserver.py"))]
say(python=".".join(map(str, sys.version_info[:3])), pypy=sys.implementation.name == "pypy", prefix=sys.prefix,
    base=sys.base_prefix, pip=spec("pip") is not None, synapse=synapse[0] if synapse else "", version=dist("matrix-synapse"))
if synapse:
    client = spec("psycopg2")
    unreadable = [d for d in places(client) if not os.access(d, os.R_OK | os.X_OK)]
    if unreadable:
        say(client="unreadable", error=unreadable[0])
    elif client is None or client.origin is None:
        say(client="absent")
    else:
        name = [d for d in ("psycopg2", "psycopg2-binary", "psycopg2cffi") if dist(d)]
        try:
            import psycopg2, psycopg2.extensions
            libpq = getattr(psycopg2.extensions, "libpq_version", lambda: getattr(psycopg2, "__libpq_version__", 0))
            say(client="loaded", dist=name[0] if name else "", psycopg2=str(psycopg2.__version__).split(" ")[0], libpq=int(libpq()))
        except BaseException as e:
            say(client="broken", dist=name[0] if name else "", error=(type(e).__name__ + ": " + str(e))[:600])
`

// answerMark begins the lines of the answer: what an installation prints by itself is passed over.
const answerMark = "synapse-doctor "

type answer struct {
	Python   string
	PyPy     bool
	Prefix   string
	Base     string
	Pip      bool
	Synapse  string // the folder of the package
	Version  string
	Client   string
	Dist     string
	Psycopg2 string
	LibPQ    int
	Error    string
}

// ask returns nil when the interpreter has no Synapse.
func (p PythonPlaces) ask(ctx context.Context, c candidate, within time.Duration) (*Python, error) {
	as, err := runAs(c, os.Geteuid())
	if err != nil {
		return nil, err
	}
	a, err := c.answer(ctx, as, within)
	if err != nil || a.Synapse == "" {
		return nil, err
	}
	python := &Python{
		Path: c.path, Found: c.found, Version: a.Python, PyPy: a.PyPy, Synapse: a.Version, Prefix: a.Prefix, Pip: a.Pip,
		Kind: p.kind(a), System: p.system(),
		ClientVersion: a.Psycopg2, ClientDist: a.Dist, LibPQ: a.LibPQ, ClientError: a.Error,
		as: as, named: c.named,
	}
	if owner := ownerOf(a.Prefix); owner != nil && owner.uid != 0 && int(owner.uid) != os.Geteuid() {
		python.Owner = owner.String()
	}
	switch a.Client {
	case "absent":
		python.Client = ClientAbsent
	case "broken":
		python.Client = ClientBroken
	case "loaded":
		python.Client = ClientLoaded
	case "unreadable":
		return nil, fmt.Errorf("it may not read %s", a.Error)
	default:
		return nil, errors.New("it did not say whether it has psycopg2")
	}
	return python, nil
}

// answer starts the interpreter: without the environment and the user's own modules, as a service is, and without
// leaving compiled files behind.
func (c candidate) answer(ctx context.Context, as *account, within time.Duration) (answer, error) {
	silent := fmt.Errorf("no answer within %s", within)
	running, cancel := context.WithTimeoutCause(ctx, within, silent)
	defer cancel()
	cmd := exec.CommandContext(running, c.path, "-I", "-B", "-c", question)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = alone()
	if as != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid}
	}
	stdout, stderr := &output{full: cancel}, &output{full: cancel}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		_ = cmd.Cancel() // it has ended, and one of its children holds on to its output
	}
	a, complete := read(stdout.kept.Bytes())
	switch {
	case ctx.Err() != nil:
		return a, context.Cause(ctx)
	case stdout.overflowed || stderr.overflowed:
		return a, errors.New("it prints without end")
	case complete:
		return a, nil
	case context.Cause(running) == silent:
		return a, silent
	case a.Synapse != "" && crashed(err):
		a.Client, a.Error = "broken", "Python ends while it loads psycopg2: "+err.Error()
		return a, nil
	case err == nil:
		return a, errors.New("it does not answer as Python does")
	}
	if last := lastLine(stderr.kept.String()); last != "" {
		return a, fmt.Errorf("%w: %s", err, last)
	}
	return a, err
}

// read is complete when nothing is left to be said.
func read(out []byte) (a answer, complete bool) {
	for line := range bytes.Lines(out) {
		facts, ok := bytes.CutPrefix(line, []byte(answerMark))
		if !ok || json.Unmarshal(facts, &a) != nil {
			continue
		}
		complete = a.Python != "" && (a.Synapse == "" || a.Client != "")
	}
	return a, complete
}

// crashed tells a process that fell over its own code from one that somebody ended.
func crashed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && slices.Contains([]syscall.Signal{
		syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE, syscall.SIGABRT, syscall.SIGTRAP}, status.Signal())
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	s = s[strings.LastIndexByte(s, '\n')+1:]
	return s[:min(len(s), 300)]
}

// output keeps what a process prints, up to a bound at which the process is ended.
type output struct {
	kept       bytes.Buffer
	overflowed bool
	full       func()
}

func (o *output) Write(b []byte) (int, error) {
	if o.kept.Len()+len(b) > mostOutput {
		o.overflowed = true
		o.full()
		return 0, errors.New("too much output")
	}
	return o.kept.Write(b)
}
