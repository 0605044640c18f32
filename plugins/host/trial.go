package host

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
)

// Trial is one run of a file as a plugin, for who wants to talk to it in ways in which a host never would: the conformance kit. It is
// started and ended as a host does it, and nothing of it is left after Close.
type Trial struct {
	Certificate tls.Certificate // the host's: it alone may connect

	process *process
	dir     *socketDir
	out     [3]*recording
}

// TrialOptions say how a trial is started.
type TrialOptions struct {
	Env      []string // the whole environment, but for what the protocol needs
	NoCookie bool     // started as by hand, without what the protocol needs
	Versions string   // PLUGIN_PROTOCOL_VERSIONS; empty for those of this build
}

// Greeting is what a plugin says when it announces itself.
type Greeting struct {
	Protocol int
	Socket   string
	DER      []byte // its certificate; nil when there is none
	Name     string // may be empty
	Version  string // may be empty
	Before   string // what it printed to stdout before that; it must be nothing
}

// Environ is the environment that a plugin gets from a host, without what the protocol needs.
func Environ() []string { return Options{}.environ() }

// Try starts the file.
func Try(path string, o TrialOptions) (_ *Trial, err error) {
	program, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer program.close()
	t := &Trial{}
	if t.dir, err = newSocketDir(""); err != nil {
		return nil, err
	}
	if t.Certificate, err = wire.NewCertificate(); err != nil {
		t.dir.remove()
		return nil, err
	}
	env := o.Env
	if !o.NoCookie {
		versions := o.Versions
		if versions == "" {
			versions = offered()
		}
		ours := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: t.Certificate.Certificate[0]})
		env = append(append([]string{}, env...), wire.CookieKey+"="+wire.CookieValue, plugin.EnvUnixSocketDir+"="+t.dir.path,
			"PLUGIN_PROTOCOL_VERSIONS="+versions, wire.ClientCertEnv+"="+string(ours))
	}
	t.process = newProcess(program, slog.New(slog.DiscardHandler), env, t.dir.path, wire.Spoken)
	for i := 1; i < len(t.out); i++ {
		t.out[i] = &recording{more: make(chan struct{})}
		t.process.copies[i] = t.out[i]
	}
	if err := t.process.Start(context.Background()); err != nil {
		t.dir.remove()
		return nil, err
	}
	go func() { _, _ = io.Copy(io.Discard, t.process.hello) }()
	return t, nil
}

// offered is what a host says that it speaks.
func offered() string {
	var numbers []string
	for _, v := range wire.Spoken {
		numbers = append(numbers, strconv.Itoa(v.Number))
	}
	return strings.Join(numbers, ",")
}

// Spoken is a *VersionError when this build does not speak what the plugin does.
func (g Greeting) Spoken(name string) error {
	if _, ok := wire.Spoken.Find(g.Protocol); ok {
		return nil
	}
	return &VersionError{Plugin: cmp.Or(g.Name, name), Version: g.Version, Speaks: g.Protocol, ours: wire.Spoken}
}

// Greeting waits until the plugin has announced itself. Another line before that is waited out, and told of.
func (t *Trial) Greeting(ctx context.Context) (Greeting, error) {
	for {
		text, more := t.out[1].read()
		before := ""
		for line := range strings.Lines(text) {
			h, err := parseHandshake(line, t.dir.path)
			if errors.Is(err, errNoHandshake) || !strings.HasSuffix(line, "\n") {
				before += line
				continue
			}
			if err != nil {
				return Greeting{}, errors.New(doctor.Clean(err.Error()))
			}
			g := Greeting{Protocol: h.protocol, Socket: h.socket, Name: doctor.Clean(h.name), Version: doctor.Clean(h.version), Before: doctor.Clean(before)}
			if h.secured {
				cert := strings.Split(strings.TrimSpace(line), "|")[5]
				if g.DER, err = base64.RawStdEncoding.DecodeString(cert); err != nil {
					return Greeting{}, errors.New("its certificate is not in base64 without padding")
				}
			}
			return g, nil
		}
		select {
		case <-more:
		case <-t.process.exited:
			if again, _ := t.out[1].read(); again == text {
				return Greeting{}, errors.New(withStderr("it ended before it announced itself ("+t.process.state+")", t.process.tail.String()))
			}
		case <-ctx.Done():
			return Greeting{}, context.Cause(ctx)
		}
	}
}

// Stdout is what it has written so far, at most the first 8 MiB.
func (t *Trial) Stdout() string { text, _ := t.out[1].read(); return text }

// Stderr is what it has written so far, at most the first 8 MiB.
func (t *Trial) Stderr() string { text, _ := t.out[2].read(); return text }

// PID is the number of the process, and of its group.
func (t *Trial) PID() int { return t.process.cmd.Process.Pid }

// HangUp ends the plugin's stdin.
func (t *Trial) HangUp() { t.process.hangUp() }

// Ended waits for the process to end by itself.
func (t *Trial) Ended(ctx context.Context, within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-t.process.exited:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// ExitStatus is that of a process that has ended; -1 when a signal ended it.
func (t *Trial) ExitStatus() int { return t.process.cmd.ProcessState.ExitCode() }

// Left are the names of what is left in the socket's directory, after the process has ended.
func (t *Trial) Left() []string {
	var left []string
	_ = filepath.WalkDir(t.dir.path, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			left = append(left, entry.Name())
		}
		return nil
	})
	return left
}

// Close ends the process, and what it has started, at once.
func (t *Trial) Close() {
	t.process.kill()
	<-t.process.exited
	t.dir.remove()
}

// recording keeps the beginning of what is written to it.
type recording struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed with the next write
}

const maxRecording = 8 << 20

func (r *recording) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(b[:min(len(b), maxRecording-r.text.Len())])
	close(r.more)
	r.more = make(chan struct{})
	return len(b), nil
}

func (r *recording) read() (string, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String(), r.more
}
