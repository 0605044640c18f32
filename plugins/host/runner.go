package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
)

// process is one run of a plugin's program, in a process group of its own with pipes of its own. go-plugin drives it as a
// runner.Runner, but sees only the one line of stdout that is a handshake: all that can go wrong with the rest
// is dealt with here.
type process struct {
	log     *slog.Logger
	program program
	env     []string
	dir     string // the private directory: a socket elsewhere is refused
	speaks  wire.Versions
	copies  [3]io.Writer // also get what it writes to stdout and stderr; nil for nobody

	stdin *os.File // held open for as long as the plugin may live
	hello *io.PipeReader
	first *io.PipeWriter
	tail  tail

	greeted chan struct{} // closed when stdout's first line was read, or there is none
	shake   handshake     // after greeted
	wrong   error         // after greeted: why it is no good
	mute    bool          // after greeted: it closed stdout without a word, and lived on

	ending chan struct{} // closed when the process has ended; its group may not have
	exited chan struct{} // closed when the group is gone and its output read
	state  string        // after exited

	mu     sync.Mutex
	cmd    *exec.Cmd
	live   bool // started and not reaped: its number is its own
	killed bool // must not start any more
}

var _ runner.Runner = (*process)(nil)

func newProcess(p program, log *slog.Logger, env []string, dir string, speaks wire.Versions) *process {
	r, w := io.Pipe()
	return &process{
		log: log, program: p, env: env, dir: dir, speaks: speaks, hello: r, first: w,
		greeted: make(chan struct{}), ending: make(chan struct{}), exited: make(chan struct{}),
	}
}

// Start implements runner.Runner.
func (p *process) Start(context.Context) (err error) {
	var ours, theirs [3]*os.File
	defer func() {
		for i := range 3 {
			theirs[i].Close() // nil is fine
			if err != nil {
				ours[i].Close()
			}
		}
		if err != nil {
			p.first.Close()
			close(p.greeted)
			close(p.exited)
		}
	}()
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("open a pipe: %w", err)
		}
		ours[i], theirs[i] = r, w
	}
	ours[0], theirs[0] = theirs[0], ours[0] // stdin is read over there

	cmd := &exec.Cmd{
		Path: p.program.path, Args: p.program.args, Env: p.env,
		Stdin: theirs[0], Stdout: theirs[1], Stderr: theirs[2],
		SysProcAttr: processAttributes(),
	}
	if p.program.file != nil {
		cmd.ExtraFiles = []*os.File{p.program.file}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed {
		return errors.New("ended before it was started")
	}
	if err := launch(cmd.Start); err != nil {
		return err
	}
	p.cmd, p.live, p.stdin = cmd, true, ours[0]
	p.log.Debug("started", "pid", cmd.Process.Pid)
	var output sync.WaitGroup
	output.Go(func() { p.readStdout(p.copied(ours, 1)) })
	output.Go(func() { p.readStderr(p.copied(ours, 2)) })
	go p.wait(&output, ours)
	return nil
}

func (p *process) copied(pipes [3]*os.File, n int) io.Reader {
	if p.copies[n] == nil {
		return pipes[n]
	}
	return io.TeeReader(pipes[n], p.copies[n])
}

// afterExit is how long output may still come when the group is gone: somebody may have left it and kept the pipes.
const afterExit = 200 * time.Millisecond

// wait ends whatever the plugin leaves behind. The group is killed while its leader is not reaped yet, because until then
// the group's number can't be another's.
func (p *process) wait(output *sync.WaitGroup, pipes [3]*os.File) {
	awaitExit(p.cmd)
	close(p.ending)
	p.mu.Lock()
	killGroup(p.cmd.Process.Pid)
	_ = p.cmd.Wait()
	p.live = false
	p.mu.Unlock()
	p.state = p.cmd.ProcessState.String()
	p.log.Debug("ended", "pid", p.cmd.ProcessState.Pid(), "state", p.state)
	p.stdin.Close()
	for _, f := range pipes[1:] {
		_ = f.SetReadDeadline(time.Now().Add(afterExit))
	}
	_ = p.hello.Close()
	output.Wait()
	for _, f := range pipes[1:] {
		f.Close()
	}
	close(p.exited)
}

func (p *process) readStdout(r io.Reader) {
	in := bufio.NewReaderSize(r, maxLine)
	line, complete := firstLine(in)
	p.shake, p.wrong = p.judge(line, complete)
	if p.wrong == nil {
		fmt.Fprintln(p.first, line)
	}
	if errors.Is(p.wrong, io.EOF) {
		p.mute = !p.endsNow()
	}
	p.first.Close()
	close(p.greeted)
	lines(in, logged(p.log, "stdout"))
}

// endsNow reports whether the process that has just closed its stdout has done so by ending.
func (p *process) endsNow() bool {
	t := time.NewTimer(afterExit)
	defer t.Stop()
	select {
	case <-p.ending:
		return true
	case <-t.C:
		return false
	}
}

// judge says what is wrong with the first line.
func (p *process) judge(line string, complete bool) (handshake, error) {
	if line == "" && !complete {
		return handshake{}, io.EOF
	}
	h, err := parseHandshake(line, p.dir)
	_, known := p.speaks.Find(h.protocol)
	switch {
	case h.protocol != 0 && !known:
		return h, &VersionError{Speaks: h.protocol, Version: doctor.Clean(h.version), ours: p.speaks}
	case errors.Is(err, errNoHandshake), !complete:
		return h, fmt.Errorf("printed \"%s\" to stdout where its handshake was due; a plugin prints nothing there", doctor.Clean(clip(line)))
	case err != nil:
		return h, errors.New(doctor.Clean(err.Error()))
	case !h.secured:
		return h, errors.New("does not secure its connection: there is no certificate in its handshake")
	}
	return h, nil
}

func (p *process) readStderr(r io.Reader) {
	log := logged(p.log, "stderr")
	lines(r, func(line string) {
		p.tail.add(line)
		log(line)
	})
}

// started reports whether there ever was a process.
func (p *process) started() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// kill ends the whole group at once.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
	if p.live {
		killGroup(p.cmd.Process.Pid)
	}
}

// hangUp tells a plugin that its host is done with it.
func (p *process) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live {
		p.stdin.Close()
	}
}

func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }

// Kill implements runner.Runner.
func (p *process) Kill(context.Context) error { p.kill(); return nil }

// Wait implements runner.Runner.
func (p *process) Wait(context.Context) error { <-p.exited; return nil }

// Stdout implements runner.Runner: the handshake and nothing else.
func (p *process) Stdout() io.ReadCloser { return p.hello }

// Stderr implements runner.Runner: it is read here.
func (p *process) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name implements runner.Runner.
func (p *process) Name() string { return p.program.path }

// ID implements runner.Runner.
func (p *process) ID() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return ""
	}
	return strconv.Itoa(p.cmd.Process.Pid)
}

// Diagnose implements runner.Runner. go-plugin guesses at architectures there; what is known is said by [StartError].
func (p *process) Diagnose(context.Context) string { return "" }

// PluginToHost implements runner.Runner.
func (p *process) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin implements runner.Runner.
func (p *process) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}
