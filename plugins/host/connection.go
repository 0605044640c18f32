package host

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
)

// connection is a plugin's process that is starting, answers, or has ended.
type connection struct {
	name    string
	cancel  context.CancelCauseFunc // gives up a start
	process *process
	client  *plugin.Client

	ready    chan struct{} // closed when it answers, or err says why it never will
	err      error
	rpc      wire.Verbs
	protocol int
}

// errClosed is the cause when a source is closed.
var errClosed = errors.New("the plugin was closed")

// connect starts p in the background.
func connect(ctx context.Context, name string, open func() (program, error), o Options) *connection {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &connection{name: name, cancel: cancel, ready: make(chan struct{})}
	go func() {
		defer cancel(nil)
		defer close(c.ready)
		c.err = c.start(ctx, open, o)
	}()
	return c
}

func (c *connection) start(ctx context.Context, open func() (program, error), o Options) error {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, o.startTimeout(), errTooSlow)
	defer cancel()
	log := o.log().With("plugin", c.name)

	program, err := open()
	if err != nil {
		return &StartError{Plugin: c.name, Reason: "can't be started: " + err.Error(), Err: err}
	}
	defer program.close()
	dir, err := newSocketDir(o.SocketDir)
	if err != nil {
		return &StartError{Plugin: c.name, Reason: "can't be started: " + err.Error(), Err: err}
	}
	// Once the one connection is there nobody needs the socket any more: nobody else can connect, and whatever becomes
	// of host and plugin, nothing is left on disk.
	defer dir.remove()
	cert, err := wire.NewCertificate()
	if err != nil {
		return &StartError{Plugin: c.name, Reason: "can't be started: " + err.Error(), Err: err}
	}
	env := append(o.environ(), wire.ClientCertEnv+"="+string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	c.process = newProcess(program, log, env, dir.path, o.versions())
	// Every step below ends when the process does, so that this alone bounds them.
	defer context.AfterFunc(ctx, c.process.kill)()

	secured := &security{config: &tls.Config{
		Certificates: []tls.Certificate{cert},
		RootCAs:      x509.NewCertPool(), // go-plugin puts the plugin's certificate here, from the handshake
		ServerName:   "localhost",
		MinVersion:   tls.VersionTLS13,
	}}
	c.client = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  wire.Handshake,
		VersionedPlugins: o.versions().Plugins(nil),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, _ string) (runner.Runner, error) {
			c.process.env = append(c.process.env, cmd.Env...)
			return c.process, nil
		},
		SkipHostEnv:      true,
		StartTimeout:     o.startTimeout() + time.Second, // ours comes first
		TLSConfig:        secured.config,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: dir.path},
		Logger:           hclog.NewNullLogger(),
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithTransportCredentials(secured),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxMessage), grpc.MaxCallSendMsgSize(wire.MaxMessage)),
			grpc.WithIdleTimeout(0), // a second connection could not be made
		},
	})
	if err := c.dial(ctx, o.versions()); err != nil {
		cause := context.Cause(ctx)
		c.process.kill()
		if c.process.started() {
			c.gone(afterKill)
		}
		go c.client.Kill() // closes what go-plugin holds
		return c.explain(err, cause, secured.failure(), o)
	}
	log.Debug("ready", "after", time.Since(began).Round(10*time.Microsecond), "protocol", c.protocol)
	return nil
}

var errTooSlow = errors.New("too slow to start")

func (c *connection) dial(ctx context.Context, versions wire.Versions) error {
	if _, err := c.client.Start(); err != nil {
		return err
	}
	protocol, err := c.client.Client()
	if err != nil {
		return err
	}
	conn, err := wire.Conn(protocol)
	if err != nil {
		return err
	}
	// Client succeeds for a plugin that never answers, and for one that does not speak TLS.
	health, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: plugin.GRPCServiceName})
	if err != nil {
		return err
	}
	if health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("says that it is %s, not SERVING", health.Status)
	}
	c.protocol = c.client.NegotiatedVersion()
	version, ok := versions.Find(c.protocol)
	if !ok {
		return fmt.Errorf("chose version %d of the protocol, which was not offered", c.protocol)
	}
	c.rpc = version.Ask(c.name, conn)
	return nil
}

// explain says, from what was observed and not from anyone's error text, why a plugin did not start.
func (c *connection) explain(err, cause, insecure error, o Options) error {
	p := c.process
	fail := func(reason string, err error) error {
		return &StartError{Plugin: c.name, Reason: reason, Stderr: p.tail.String(), Err: err}
	}
	if !p.started() {
		if cause != nil && !errors.Is(cause, errTooSlow) {
			return cause
		}
		return fail(notExecuted(p.program, err), err)
	}
	greeted := false
	select {
	case <-p.greeted:
		greeted = !errors.Is(p.wrong, io.EOF)
	default:
	}
	if greeted {
		if v, ok := errors.AsType[*VersionError](p.wrong); ok {
			v.Plugin = c.name
			if p.shake.name != "" {
				v.Plugin = doctor.Clean(p.shake.name)
			}
			return v
		}
		if p.wrong != nil {
			return fail(p.wrong.Error(), p.wrong)
		}
	}
	switch {
	case errors.Is(cause, errTooSlow) && greeted:
		return fail("announced itself and then did not answer within "+seconds(o.startTimeout()), cause)
	case errors.Is(cause, errTooSlow):
		return fail("did not announce itself within "+seconds(o.startTimeout()), cause)
	case cause != nil:
		return cause
	case !greeted && p.closedStdout():
		return fail("closed its stdout before it announced itself", err)
	case !greeted:
		return fail("ended before it announced itself ("+p.state+")", err)
	case insecure != nil:
		if _, plain := errors.AsType[tls.RecordHeaderError](insecure); plain {
			return fail("does not secure its connection: it announced a certificate and then did not speak TLS", insecure)
		}
		return fail("did not prove with TLS that it is the program that was started: "+doctor.Clean(insecure.Error()), insecure)
	}
	return fail("announced itself and then did not answer: "+doctor.Clean(err.Error()), err)
}

// closedStdout reports whether the process lived on without stdout, until it was killed here.
func (p *process) closedStdout() bool {
	select {
	case <-p.exited:
	default:
		return false
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return p.mute && ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// notExecuted says why the system did not execute a program, by the name that people know.
func notExecuted(p program, err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	reason := "can't be executed: " + p.args[0] + ": " + err.Error()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		reason += " (its first line names an interpreter that is not there)"
	case errors.Is(err, syscall.ENOEXEC):
		reason += " (it is no program, or one for another kind of machine)"
	}
	return reason
}

// How long a plugin may take to end: by itself, and after SIGKILL, which only a broken kernel or disk delays.
const (
	afterHangUp = 2 * time.Second
	afterKill   = time.Second
)

// gone waits for the process to be gone.
func (c *connection) gone(within time.Duration) bool {
	select {
	case <-c.process.exited:
		return true
	default:
	}
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-c.process.exited:
		return true
	case <-t.C:
		return false
	}
}

// close ends the plugin: it is asked to, and after two seconds it is not asked any more.
func (c *connection) close() error {
	c.cancel(errClosed)
	<-c.ready
	if c.err != nil {
		return nil // start has cleaned up
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.client.Kill() // may block without limit, as long as the process does not end
	}()
	c.process.hangUp()
	if !c.gone(afterHangUp) {
		c.process.log.Debug("does not end by itself")
		c.process.kill()
		if !c.gone(afterKill) {
			return fmt.Errorf("plugin %s (process %s) could not be ended", c.name, c.process.ID())
		}
	}
	<-ended
	return nil
}

// security is gRPC's view of the TLS that go-plugin was given; it remembers why a handshake failed, which gRPC tells
// only as text.
type security struct {
	config *tls.Config

	mu  sync.Mutex
	err error
}

func (s *security) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	out, info, err := credentials.NewTLS(s.config).ClientHandshake(ctx, authority, conn)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = err
	}
	return out, info, err
}

func (s *security) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *security) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("a host does not serve")
}

func (s *security) Info() credentials.ProtocolInfo {
	//lint:ignore SA1019 grpc itself still reads it, as the authority
	return credentials.ProtocolInfo{SecurityProtocol: "tls", ServerName: s.config.ServerName}
}

func (s *security) Clone() credentials.TransportCredentials { return s }

func (s *security) OverrideServerName(string) error { return nil }
