package synapse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Update runs Synapse's own update_synapse_database, which makes the schema in an empty PostgreSQL database and works off
// the background updates, without a homeserver being started. It is there since Synapse 1.57.
type Update struct {
	// Python is the interpreter that runs Synapse. Nil where Command is given.
	Python *Python
	// Command is what runs a program of Synapse's where it is installed, such as docker exec -i synapse. It may end in
	// update_synapse_database itself.
	Command []string
	// User is the user of this machine as whom it runs where this process is root's: the one that a peer record lets in.
	// Empty: the interpreter's owner, else the user of this process.
	User string

	// Config is the homeserver's. Of it only what the schema depends on is handed over.
	Config *Config
	// Args are the connection settings of the database, libpq's keywords.
	Args map[string]string
	// AllowUnsafeLocale is the entry's setting.
	AllowUnsafeLocale bool
	// PasswordFile is the file in which the password among Args stands; empty where it comes from elsewhere. Private are
	// files of the homeserver's, such as its SQLite database. A user of this machine who may neither read the one nor write
	// to one of the others is not handed a password.
	PasswordFile string
	Private      []string

	// Within is how long it may take; 0: as long as it takes. A background update that fails keeps it from ending.
	Within time.Duration
	// Step is told what it does, in a few words. It may be nil.
	Step func(text string)
}

// UpdateError is update_synapse_database that could not be started, or did not do what it should.
type UpdateError struct {
	Reason string   // one sentence without a full stop
	Said   []string // the last lines of its output; what it was handed may be in them
	Err    error
}

func (e *UpdateError) Error() string { return e.Reason }

func (e *UpdateError) Unwrap() error { return e.Err }

const updateProgram = "update_synapse_database"

// updateArgs read the configuration from the standard input: argparse takes - for it.
var updateArgs = []string{"--database-config", "-", "--run-background-updates"}

// Run returns when the program has ended, and leaves no process behind that it started on this machine: when ctx ends, or
// this process dies, the program is ended too. An error is an [*UpdateError], or the cause of ctx.
func (u Update) Run(ctx context.Context) error {
	document, err := u.document()
	if err != nil {
		return err
	}
	program, as, err := u.program(ctx)
	if err != nil {
		return err
	}
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if u.Within > 0 {
		timer := time.AfterFunc(u.Within, func() { cancel(errTooLong) })
		defer timer.Stop()
	}
	said := &updateOutput{step: u.Step, failing: func() { cancel(errFailing) }}
	err = u.run(running, program, as, document, said)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	switch cause := context.Cause(running); {
	case errors.Is(cause, errTooLong):
		return u.failed(said, cause, "%s has not ended within %s%s%s", updateProgram, u.Within, said.at(), u.elsewhere())
	case errors.Is(cause, errFailing):
		return u.failed(said, cause, "%s has given up on a background update%s: %s", updateProgram, said.at(), said.fault)
	case err != nil:
		return u.failed(said, err, "%s: %s%s", updateProgram, said.reason(err), u.remedy(said))
	}
	return nil
}

var (
	errTooLong = errors.New("it takes too long")
	errFailing = errors.New("a background update fails")
)

func (u Update) failed(said *updateOutput, err error, format string, args ...any) error {
	return &UpdateError{Reason: fmt.Sprintf(format, args...), Said: said.lines(), Err: err}
}

// program is what is started, and for whom; nil is the user of this process.
func (u Update) program(ctx context.Context) ([]string, *account, error) {
	if len(u.Command) > 0 {
		words := slices.Clone(u.Command)
		if last := words[len(words)-1]; last != updateProgram && !strings.HasSuffix(last, "/"+updateProgram) {
			words = append(words, updateProgram)
		}
		return append(words, updateArgs...), nil, nil
	}
	if u.Python == nil {
		return nil, nil, &UpdateError{Reason: "no Python that runs Synapse was found on this machine; name it with --synapse-python, or say with --synapse-command what runs its programs, such as --synapse-command \"docker exec -i synapse\""}
	}
	as, err := u.account(ctx)
	// As in [candidate.answer]: without the user's own modules, and without leaving compiled files behind.
	return append([]string{u.Python.Path, "-I", "-B", "-m", "synapse._scripts." + updateProgram}, updateArgs...), as, err
}

// run starts the program, hands it the document and waits.
func (u Update) run(ctx context.Context, program []string, as *account, document []byte, said *updateOutput) error {
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	cmd.Stdin = strings.NewReader(string(document))
	cmd.Stdout, cmd.Stderr = said, said // one writer: written to by one goroutine
	cmd.SysProcAttr = alone()
	if len(u.Command) == 0 {
		cmd.Dir = "/"
		cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8", "HOME=/nonexistent"}
	}
	if as != nil {
		cmd.SysProcAttr.Credential = as.credential()
	}
	kill := func(s syscall.Signal) error { return syscall.Kill(-cmd.Process.Pid, s) }
	cmd.Cancel = func() error {
		// Twisted ends at SIGTERM when it runs; docker exec passes nothing on.
		return kill(syscall.SIGTERM)
	}
	cmd.WaitDelay = grace
	ended := make(chan error, 1)
	go func() {
		// What Pdeathsig takes for the parent is the thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		ended <- cmd.Run()
	}()
	err := <-ended
	if cmd.Process != nil && (ctx.Err() != nil || errors.Is(err, exec.ErrWaitDelay)) {
		_ = kill(syscall.SIGKILL) // what is left of its group
	}
	return err
}

// grace is how long the program may take to end when it is asked to.
const grace = 3 * time.Second

// elsewhere is where a process may be left: docker exec, for one, ends without what it has started.
func (u Update) elsewhere() string {
	if len(u.Command) == 0 {
		return ""
	}
	return "; see whether it still runs where --synapse-command has started it"
}

// remedy is what to do where Synapse could not be got ready: the end of a sentence.
func (u Update) remedy(said *updateOutput) string {
	text := strings.Join(said.lines(), "\n")
	switch {
	case len(u.Command) > 0 && strings.Contains(text, "NoneType"):
		return "; it seems to have been handed nothing: --synapse-command must pass its standard input on, as docker exec -i does"
	case tooOld.MatchString(text):
		return "; this Synapse is older than 1.57: upgrade it first"
	case len(u.Command) == 0 && (strings.Contains(text, "ModuleNotFoundError") || strings.Contains(text, "PermissionError")):
		return "; where Synapse has modules or rights that a bare start of its Python lacks, give what runs its programs with --synapse-command"
	}
	return ""
}

var tooOld = regexp.MustCompile(`No module named '?synapse\._scripts`)

// updateOutput keeps the end of what the program prints, and reads on the way what it is doing.
type updateOutput struct {
	step    func(string)
	failing func()

	partial []byte
	kept    []string
	update  string // the background update that was begun last
	fault   string // what the last one failed with
}

const (
	mostLines    = 30
	longestLine  = 500 // bytes that are kept of a line
	longestShown = 200
)

var (
	exception    = regexp.MustCompile(`^[A-Za-z_][\w.]*(Error|Exception|Setup|Exit|Interrupt)\b`)
	updateFails  = regexp.MustCompile(`Error doing update: (.+)`)
	updateBegins = regexp.MustCompile(`background update '([^']+)'`)
	// Synapse gives up on a background update after this many failures, and then waits for ever.
	updatesAbort = regexp.MustCompile(`back-to-back background update failures|Background process 'background_updates' threw an exception`)
)

func (o *updateOutput) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		line, rest, ended := strings.Cut(string(b), "\n")
		if room := longestLine - len(o.partial); room > 0 {
			o.partial = append(o.partial, line[:min(len(line), room)]...)
		}
		if !ended {
			break
		}
		o.line(strings.ToValidUTF8(strings.TrimRight(string(o.partial), "\r"), "?"))
		o.partial, b = o.partial[:0], []byte(rest)
	}
	return n, nil
}

func (o *updateOutput) line(text string) {
	o.kept = append(o.kept, text)
	if over := len(o.kept) - mostLines; over > 0 {
		o.kept = slices.Delete(o.kept, 0, over)
	}
	if m := updateBegins.FindStringSubmatch(text); m != nil && m[1] != o.update {
		o.update = m[1]
		if o.step != nil {
			o.step("background update " + m[1])
		}
	}
	if m := updateFails.FindStringSubmatch(text); m != nil {
		o.fault = shorten(m[1])
	}
	if updatesAbort.MatchString(text) {
		if o.fault == "" {
			o.fault = shorten(text)
		}
		o.failing()
	}
}

// at says which background update was begun last.
func (o *updateOutput) at() string {
	if o.update == "" {
		return ""
	}
	return " (" + o.update + ")"
}

// lines are called when the program has ended.
func (o *updateOutput) lines() []string {
	lines := slices.Clone(o.kept)
	if len(o.partial) > 0 {
		lines = append(lines, strings.ToValidUTF8(string(o.partial), "?"))
	}
	return lines
}

// reason is the line that says what went wrong: the one of a traceback that names the exception, or the last one.
func (o *updateOutput) reason(err error) string {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrPermission) {
		return err.Error()
	}
	lines := o.lines()
	for _, line := range slices.Backward(lines) {
		if exception.MatchString(line) {
			return shorten(line)
		}
	}
	for _, line := range slices.Backward(lines) {
		if line = strings.TrimSpace(line); line != "" {
			return shorten(line)
		}
	}
	return err.Error()
}

func shorten(s string) string {
	if len(s) <= longestShown {
		return s
	}
	return strings.ToValidUTF8(s[:longestShown], "") + "…"
}
