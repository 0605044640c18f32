package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// patience is how long a script waits for what must happen at once. Only a failing test takes that long.
const patience = 60 * time.Second

// passed are the variables that the program gets from a script.
var passed = []string{
	"PATH", "HOME", "TMPDIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "SYNAPSE_DOCTOR_STATE_DIR", "SYNAPSE_DOCTOR_ADMIN_DSN", "COLUMNS", "NO_COLOR", "TERM",
	"PGPASSWORD", "PGPASSFILE", "GOTRACEBACK",
}

// spoken is what one run of the program has said.
type spoken struct {
	args           []string
	stdout, stderr string
}

// program is one run of synapse-doctor.
type program struct {
	cmd      *exec.Cmd
	out, err buffer
	done     chan struct{}
	plugins  []int // as plugins NAME has seen them
}

// buffer can be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// prepare makes the command with a script's environment and working directory.
func prepare(ts *testscript.TestScript, args []string) (*program, error) {
	var path string
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if p := filepath.Join(dir, "synapse-doctor"); path == "" {
			if _, err := os.Stat(p); err == nil {
				path = p
			}
		}
	}
	if path == "" {
		return nil, errors.New("synapse-doctor is not in PATH")
	}
	p := &program{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Dir = ts.MkAbs(".")
	for _, name := range passed {
		if v := ts.Getenv(name); v != "" {
			p.cmd.Env = append(p.cmd.Env, name+"="+v)
		}
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	p.cmd.WaitDelay = patience
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return p, nil
}

func (p *program) start() error {
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.cmd.Wait() // the exit code is in ProcessState
		close(p.done)
	}()
	return nil
}

// wait returns the exit code; -1 after a signal.
func (p *program) wait(s *scene) (int, error) {
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.done
		return 0, fmt.Errorf("synapse-doctor %q did not end:\n%s%s", p.cmd.Args[1:], p.out.String(), p.err.String())
	}
	s.said = append(s.said, spoken{p.cmd.Args[1:], p.out.String(), p.err.String()})
	return p.cmd.ProcessState.ExitCode(), nil
}

// perform runs the program to its end and hands its output to the script.
func perform(ts *testscript.TestScript, s *scene, args []string) (int, error) {
	p, err := prepare(ts, args)
	if err != nil {
		return 0, err
	}
	if err := p.start(); err != nil {
		return 0, err
	}
	code, err := p.wait(s)
	if err != nil {
		return 0, err
	}
	io.WriteString(ts.Stdout(), p.out.String())
	io.WriteString(ts.Stderr(), p.err.String())
	return code, nil
}

func doctorCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "CODE"); err != nil {
		return err
	}
	code, err := perform(ts, s, args[1:])
	if err != nil {
		return err
	}
	if strconv.Itoa(code) != args[0] {
		return fmt.Errorf("exit code %d, not %s", code, args[0])
	}
	return nil
}

// The program on a terminal ------------------------------------------------------------------------------------------

// openTerminal opens both ends of a pseudo-terminal.
func openTerminal() (ours, theirs *os.File, err error) {
	ours, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		ours.Close()
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err == nil {
		theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		ours.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// question is how the program's question ends.
const question = "Type yes: "

func askCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "ANSWER CODE COMMAND"); err != nil {
		return err
	}
	p, err := prepare(ts, args[2:])
	if err != nil {
		return err
	}
	ours, theirs, err := openTerminal()
	if err != nil {
		return err
	}
	defer ours.Close()
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirs, theirs, theirs
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = p.start()
	theirs.Close()
	if err != nil {
		return err
	}
	asked := make(chan struct{})
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4096)
		for once := false; ; {
			n, err := ours.Read(b)
			p.out.Write(b[:n])
			if !once && strings.HasSuffix(p.out.String(), question) {
				once = true
				close(asked)
			}
			if err != nil { // EIO: nobody has the other end any more
				return
			}
		}
	}()
	answer := args[0] + "\n"
	if args[0] == "^C" {
		answer = "\x03"
	}
	select {
	case <-asked:
		if _, err := io.WriteString(ours, answer); err != nil {
			return err
		}
	case <-p.done:
	case <-time.After(patience):
	}
	code, err := p.wait(s)
	if err != nil {
		return err
	}
	<-read
	s.said = append(s.said, spoken{p.cmd.Args[1:], p.out.String(), ""})
	io.WriteString(ts.Stdout(), strings.ReplaceAll(p.out.String(), "\r\n", "\n"))
	if !strings.Contains(p.out.String(), question) {
		return errors.New("it did not ask")
	}
	if strconv.Itoa(code) != args[1] {
		return fmt.Errorf("exit code %d, not %s", code, args[1])
	}
	return nil
}

// The program in the background --------------------------------------------------------------------------------------

func startCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "NAME COMMAND"); err != nil {
		return err
	}
	p, err := prepare(ts, args[1:])
	if err != nil {
		return err
	}
	if err := p.start(); err != nil {
		return err
	}
	s.running[args[0]] = p
	return nil
}

func (s *scene) program(args []string) (*program, error) {
	if len(args) == 0 || s.running[args[0]] == nil {
		return nil, fmt.Errorf("no program %q was started", args)
	}
	return s.running[args[0]], nil
}

var signals = map[string]syscall.Signal{"INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "QUIT": syscall.SIGQUIT, "TERM": syscall.SIGTERM}

// signalCommand sends a signal to the program, or with NAME/plugin to the first of its plugins.
func signalCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "NAME SIGNAL"); err != nil {
		return err
	}
	name, plugin, toPlugin := strings.Cut(args[0], "/")
	p, err := s.program([]string{name})
	if err != nil {
		return err
	}
	if !toPlugin {
		return p.cmd.Process.Signal(signals[args[1]])
	}
	if plugin != "plugin" || len(p.plugins) == 0 {
		return fmt.Errorf("%s has no known plugin", name)
	}
	return syscall.Kill(p.plugins[0], signals[args[1]])
}

func endedCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "NAME CODE"); err != nil {
		return err
	}
	p, err := s.program(args)
	if err != nil {
		return err
	}
	code, err := p.wait(s)
	if err != nil {
		return err
	}
	delete(s.running, args[0])
	s.running["ended "+args[0]] = p
	io.WriteString(ts.Stdout(), p.out.String())
	io.WriteString(ts.Stderr(), p.err.String())
	if strconv.Itoa(code) != args[1] {
		return fmt.Errorf("exit code %d, not %s", code, args[1])
	}
	return nil
}

// pluginsCommand waits until a running program has this many plugins, and remembers their processes. With "connected" it
// also waits until the program has connected to them, which it shows by removing the directory of their socket.
func pluginsCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "NAME NUMBER"); err != nil {
		return err
	}
	p, err := s.program(args)
	if err != nil {
		return err
	}
	for until := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		p.plugins = children(p.cmd.Process.Pid)
		sockets, err := os.ReadDir(ts.Getenv("XDG_RUNTIME_DIR"))
		if err != nil {
			return err
		}
		if strconv.Itoa(len(p.plugins)) == args[1] && (len(args) < 3 || len(sockets) == 0) {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("it has the plugin processes %v and %d sockets", p.plugins, len(sockets))
		}
	}
}

// children are the living children of a process.
func children(pid int) []int { return processes(func(ppid, _ int) bool { return ppid == pid }) }

// processes lists those whose parent and group are wanted, zombies left out.
func processes(wanted func(parent, group int) bool) []int {
	var found []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		f := strings.Fields(rest)
		if len(f) < 3 || f[0] == "Z" {
			continue
		}
		parent, _ := strconv.Atoi(f[1])
		group, _ := strconv.Atoi(f[2])
		if wanted(parent, group) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			found = append(found, pid)
		}
	}
	return found
}

// goneCommand waits until nothing is left of an ended program: no process of its plugins, no socket, no directory.
func goneCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "NAME"); err != nil {
		return err
	}
	p, err := s.program([]string{"ended " + args[0]})
	if err != nil {
		return err
	}
	for until := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		left := processes(func(_, group int) bool { return slices.Contains(p.plugins, group) || group == p.cmd.Process.Pid })
		var names []string
		for _, dir := range []string{ts.Getenv("XDG_RUNTIME_DIR"), ts.Getenv("TMPDIR")} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				return err
			}
			for _, e := range entries {
				names = append(names, filepath.Join(dir, e.Name()))
			}
		}
		if len(left) == 0 && len(names) == 0 {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("left behind: processes %v, files %q", left, names)
		}
	}
}

// endPrograms kills what a failed script has left running.
func (s *scene) endPrograms() {
	for _, p := range s.running {
		select {
		case <-p.done:
		default:
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	for _, l := range s.silences {
		l.Close()
	}
	for name := range s.sessions {
		_ = s.sessions[name].Close(context.Background())
	}
}

// Killed while it changes something ----------------------------------------------------------------------------------

// survivesCommand breaks the database and a file, kills a fix somewhere, and lets the next one settle it: N times.
// The first fix is not killed, and tells how long one takes. Afterwards everything must be sound, and nothing in hand.
func survivesCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "N DB SQL FROM TO COMMAND"); err != nil {
		return err
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	db, breaking, from, to, fix := args[1], args[2], ts.MkAbs(args[3]), ts.MkAbs(args[4]), args[5:]
	var whole time.Duration
	for i := range n + 1 {
		if err := s.exec(db, breaking); err != nil {
			return err
		}
		sick, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(to, sick, 0o600); err != nil {
			return err
		}
		began := time.Now()
		p, err := prepare(ts, fix)
		if err != nil {
			return err
		}
		if err := p.start(); err != nil {
			return err
		}
		if i == 0 {
			if code, err := p.wait(s); code != 0 || err != nil {
				return fmt.Errorf("a fix that is left alone: %d, %v\n%s%s", code, err, p.out.String(), p.err.String())
			}
			whole = time.Since(began)
			continue
		}
		moment := time.Duration(rand.Int64N(int64(whole)))
		select {
		case <-p.done:
		case <-time.After(moment):
			_ = p.cmd.Process.Kill()
		}
		if _, err := p.wait(s); err != nil {
			return err
		}
		code, err := perform(ts, s, fix)
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("after a kill at %s of %s, the next fix ends with %d", moment, whole, code)
		}
		marks, err := filepath.Glob(filepath.Join(ts.Getenv("SYNAPSE_DOCTOR_STATE_DIR"), "locks", "*"))
		if err != nil {
			return err
		}
		for _, mark := range marks {
			if text, err := os.ReadFile(mark); err != nil || len(text) > 0 {
				return fmt.Errorf("after a kill at %s of %s, %s still says %q (%v)", moment, whole, mark, text, err)
			}
		}
	}
	return nil
}
