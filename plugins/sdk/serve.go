package sdk

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
)

// Plugin is what a plugin is made of.
type Plugin struct {
	Name    string // lower-case words joined by hyphens
	Version string // as the author counts
	Checks  []doctor.Check
}

// Launched reports whether a host started this process as a plugin. A program that is host and plugin at once asks
// before it does anything else, in main and in TestMain:
//
//	if sdk.Launched() {
//		sdk.Serve(…)
//	}
func Launched() bool { return os.Getenv(wire.CookieKey) == wire.CookieValue }

// Serve answers the host until it ends the plugin, and then exits the process. It never returns. Started by hand, it
// says what the program is for and exits with status 1.
func Serve(p Plugin) {
	if !Launched() {
		fail("%s %s is a plugin of synapse-doctor and does nothing on its own. To try it:\n    synapse-doctor check --dev-plugin %s",
			p.Name, p.Version, program())
	}
	stdout, stderr := os.Stdout, os.Stderr
	line, err := announce(p, stdout)
	if err != nil {
		fail("plugin %s could not start: %v", p.Name, err)
	}
	server := &server{stdout: stdout, stderr: stderr}
	go server.untilHostEnds()
	go server.untilTerminated()
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  wire.Handshake,
		VersionedPlugins: wire.Spoken.Plugins(&doctor.Local{PluginName: p.Name, Version: p.Version, Checks: traced(p.Checks)}),
		TLSProvider:      line.tls,
		GRPCServer:       server.create,
		Logger:           hclog.NewNullLogger(),
	})
	// Without the handshake line nothing was served; go-plugin has no other way to tell.
	if !line.announced() {
		fail("plugin %s could not start: it was not able to listen in %q", p.Name, os.Getenv(plugin.EnvUnixSocketDir))
	}
	server.relax()
	os.Exit(0)
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func program() string {
	if path, err := os.Executable(); err == nil {
		return path
	}
	return os.Args[0]
}

// server is the gRPC server and what ends it.
type server struct {
	stdout, stderr *os.File
	once           sync.Once
	mu             sync.Mutex
	grpc           *grpc.Server
	overdue        *time.Timer // exits a process that was told to end and does not; nil until then
}

func (s *server) create(opts []grpc.ServerOption) *grpc.Server {
	// A program that this plugin starts is not a plugin.
	os.Unsetenv(wire.CookieKey)
	os.Unsetenv(wire.ClientCertEnv)
	g := grpc.NewServer(append(opts,
		grpc.MaxRecvMsgSize(wire.MaxMessage), grpc.MaxSendMsgSize(wire.MaxMessage),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (_ any, err error) {
			s.once.Do(s.reclaimOutput)
			defer recovered(&err)
			return next(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
			s.once.Do(s.reclaimOutput)
			defer recovered(&err)
			return next(srv, stream)
		}),
	)...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grpc = g
	return g
}

// reclaimOutput gives os.Stdout and os.Stderr back the descriptor of stderr, which go-plugin has replaced by pipes that
// it forwards in RPCs: what a plugin prints just before it dies would be lost there, and printing would block once a host
// stops reading.
func (s *server) reclaimOutput() { os.Stdout, os.Stderr = s.stderr, s.stderr }

func recovered(err *error) {
	if p := recover(); p != nil {
		fmt.Fprintf(os.Stderr, "panic: %v\n%s", p, debug.Stack())
		*err = wire.Panicked(p, debug.Stack())
	}
}

// traced prints the trace of a check's panic, for the debug log. The panic goes on to doctor.Local, which makes the
// check's status unknown.
func traced(checks []doctor.Check) []doctor.Check {
	out := make([]doctor.Check, len(checks))
	for i, c := range checks {
		if run := c.Run; run != nil {
			c.Run = func(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
				defer func() {
					if p := recover(); p != nil {
						fmt.Fprintf(os.Stderr, "check %s: panic: %v\n%s", c.ID, p, debug.Stack())
						panic(p)
					}
				}()
				return run(ctx, t, r)
			}
		}
		out[i] = c
	}
	return out
}

// untilHostEnds ends the plugin when its stdin does: the host has closed it, or is no more.
func (s *server) untilHostEnds() {
	var b [512]byte
	for {
		if _, err := os.Stdin.Read(b[:]); err != nil {
			s.end()
			return
		}
	}
}

func (s *server) untilTerminated() {
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	<-terminated
	s.end()
}

// end stops serving, which removes the socket and lets Serve exit the process; and exits if it does not.
func (s *server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grpc == nil {
		os.Exit(0)
	}
	if s.overdue == nil {
		s.overdue = time.AfterFunc(time.Second, func() { os.Exit(1) })
		s.grpc.Stop()
	}
}

// relax is called when serving has ended.
func (s *server) relax() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.overdue != nil {
		s.overdue.Stop()
	}
}
