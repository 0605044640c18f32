package host_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

func TestPluginThatDoesNotStartSaysWhy(t *testing.T) {
	for mode, parts := range map[string][]string{
		"crash-at-start":        {"plugin crash-at-start ended before it announced itself (exit status 3): \\x1b[31mcan't load libacme.so\\x1b[0m"},
		"silent-exit":           {"plugin silent-exit ended before it announced itself (exit status 0)"},
		"hang-before-handshake": {"did not announce itself within 0.3 seconds: waiting for a licence server"},
		"stop-before-handshake": {"did not announce itself within 0.3 seconds"},
		"ignore-everything":     {"did not announce itself within 0.3 seconds"},
		"hang-after-handshake":  {"announced itself and then did not answer within 0.3 seconds"},
		"closes-stdout":         {"plugin closes-stdout closed its stdout before it announced itself"},
		"print-first":           {`printed "Loading \x1b[1mACME\x1b[0m rules …" to stdout where its handshake was due`},
		"flood-first":           {`printed "xxxx`, `…" to stdout where its handshake was due`},
		"protocol-3":            {"plugin acme 1.2 speaks protocol 3; this synapse-doctor speaks 1: upgrade synapse-doctor"},
		"protocol-3-nameless":   {"plugin protocol-3-nameless speaks protocol 3; this synapse-doctor speaks 1: upgrade synapse-doctor"},
		"netrpc":                {`wants to talk "netrpc", and only grpc is known`},
		"no-tls":                {"does not secure its connection: there is no certificate in its handshake"},
		"false-tls":             {"does not secure its connection: it announced a certificate and then did not speak TLS"},
		"wrong-cert":            {"did not prove with TLS that it is the program that was started", "certificate"},
		"elsewhere":             {`listens at unix "/tmp/elsewhere.sock", and not in the directory that it was given`},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			begin := start
			if strings.HasPrefix(parts[0], "did not announce") || strings.HasPrefix(parts[0], "announced itself and") {
				begin = impatient
			}
			p := begin(t, mode)
			for range 2 { // the second call does not try again
				_, err := p.Describe(within(t))
				says(t, err, parts...)
				if restartable(err) {
					t.Error("an attempt to start it again is invited")
				}
			}
			if n := len(p.log.pids()); n != 1 {
				t.Errorf("started %d times", n)
			}
		})
	}
}

func TestFileThatCanNotBeRun(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, part := range map[string]string{
		filepath.Join(dir, "absent"):         "no such file",
		dir:                                  "is a directory, not a file",
		write("plain", "#!/bin/sh\n", 0o644): "is not executable",
		write("foreign", "\x7fELF, but not quite", 0o755): "can't be executed: " + filepath.Join(dir, "foreign") + ": exec format error (it is no program",
		write("lost", "#!/no/such/interpreter\n", 0o755):  "can't be executed: " + filepath.Join(dir, "lost") + ": no such file or directory (its first line",
	} {
		p := startFile(t, path, host.Options{})
		_, err := p.Describe(within(t))
		says(t, err, "plugin "+filepath.Base(path), part)
	}
}

func TestStartReturnsAtOnceAndTheCallWaits(t *testing.T) {
	p := start(t, "hang-before-handshake")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("given up")
	cancel(cause)
	if _, err := p.Describe(ctx); !errors.Is(err, cause) {
		t.Errorf("got %v, want the context's cause", err)
	}
}

func TestCloseWhileThePluginStarts(t *testing.T) {
	for _, mode := range []string{"hang-before-handshake", "hang-after-handshake", "stop-before-handshake", "good"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p := startFile(t, program(t, mode), host.Options{StartTimeout: time.Hour})
			closed := make(chan error, 1)
			go func() { closed <- p.Close() }()
			select {
			case err := <-closed:
				if err != nil {
					t.Error(err)
				}
			case <-within(t).Done():
				t.Fatal("Close waits")
			}
			if _, err := p.Describe(within(t)); err == nil {
				t.Error("a closed plugin answers")
			}
		})
	}
}

func TestSocketDirectoryThatIsTooDeep(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("deep", 30))
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	s := host.Dev(program(t, "good"), host.Options{SocketDir: deep})
	defer s.Close()
	_, err := s.Describe(within(t))
	says(t, err, "can't be started", "too long by", "bytes for a Unix socket")
}

func TestLongTMPDIRIsGotRound(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("deep", 30))
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", deep)
	t.Setenv("XDG_RUNTIME_DIR", "")
	s := host.Dev(program(t, "good"), host.Options{})
	defer s.Close()
	if _, err := s.Describe(within(t)); err != nil {
		t.Error(err)
	}
}

func TestStockPluginOfGoPluginWorks(t *testing.T) {
	h, err := run(within(t), start(t, "stock"), "stock")
	if err != nil {
		t.Fatal(err)
	}
	if got := h.found["stock"][0].Summary; got != "seen for example.org" {
		t.Errorf("found %q", got)
	}
}
