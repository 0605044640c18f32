package conformance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/host"
	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
)

// plugin is one run of the file under test, connected to.
type plugin struct {
	*host.Trial
	greeting host.Greeting
	conn     *grpc.ClientConn
	asked    wire.Verbs
	heard    observer
}

// Limits of the protocol.
const (
	startWithin = 5 * time.Second
	endWithin   = 2 * time.Second
	stopWithin  = time.Second
)

var errMute = skipped("it needs the first line of stdout: see that point")

// start starts the plugin in the environment that a host gives it, and connects.
func (k *kit) start(ctx context.Context) (*plugin, error) {
	return k.startWith(ctx, host.TrialOptions{Env: host.Environ()})
}

func (k *kit) startWith(ctx context.Context, o host.TrialOptions) (_ *plugin, err error) {
	if k.mute != nil {
		return nil, errMute
	}
	t, err := host.Try(k.file, o)
	if err != nil {
		return nil, err
	}
	p := &plugin{Trial: t}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.greeting, err = k.greeting(ctx, t, k.limit(2*startWithin)); err != nil {
		return nil, err
	}
	version, ok := wire.Spoken.Find(p.greeting.Protocol)
	if !ok {
		return nil, fmt.Errorf("it chose version %d of the protocol, which was not offered", p.greeting.Protocol)
	}
	creds, err := p.secured(ctx)
	if err != nil {
		return nil, err
	}
	if p.conn, err = p.dial(creds, grpc.WithStatsHandler(&p.heard)); err != nil {
		return nil, err
	}
	p.asked = version.Ask(k.name, p.conn)
	return p, nil
}

func (p *plugin) close() {
	if p.conn != nil {
		p.conn.Close()
	}
	p.Close()
}

// mostMessage is more than the protocol allows: what is too large for it is seen, and not refused by gRPC.
const mostMessage = 256 << 20

func (p *plugin) dial(creds credentials.TransportCredentials, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///plugin", append(more, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(mostMessage), grpc.MaxCallSendMsgSize(mostMessage)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", p.greeting.Socket)
		}))...)
}

// tls are the credentials of who holds this certificate; none, where it holds none.
func (p *plugin) tls(certs ...tls.Certificate) (*tls.Config, error) {
	theirs, err := x509.ParseCertificate(p.greeting.DER)
	if err != nil {
		return nil, fmt.Errorf("its certificate can't be read: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(theirs)
	return &tls.Config{Certificates: certs, RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}}, nil
}

// secured are the host's credentials; or none, for a plugin that does not speak TLS at all, of which another point tells.
func (p *plugin) secured(ctx context.Context) (credentials.TransportCredentials, error) {
	if p.greeting.DER == nil {
		return insecure.NewCredentials(), nil
	}
	config, err := p.tls(p.Certificate)
	if err != nil {
		return nil, err
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "unix", p.greeting.Socket)
	if _, plain := errors.AsType[tls.RecordHeaderError](err); plain {
		return insecure.NewCredentials(), nil
	}
	if err == nil {
		conn.Close()
	}
	return credentials.NewTLS(config), nil
}

// healthy asks whether the plugin serves.
func healthy(ctx context.Context, conn *grpc.ClientConn) error {
	health, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "plugin"})
	if err != nil {
		return err
	}
	if health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("the health of the service \"plugin\" is %s", health.Status)
	}
	return nil
}

// describe returns the checks that can be asked for, each once, whatever else is wrong with the description.
func (p *plugin) describe(ctx context.Context) ([]doctor.CheckInfo, error) {
	d, err := p.asked.Describe(ctx)
	if err != nil {
		return nil, skipped("it needs the description: see that point")
	}
	var checks []doctor.CheckInfo
	seen := map[string]bool{}
	for _, c := range d.Checks {
		if !seen[c.ID] {
			checks = append(checks, c)
		}
		seen[c.ID] = true
	}
	return checks, nil
}

func ids(checks []doctor.CheckInfo) []string {
	var ids []string
	for _, c := range checks {
		ids = append(ids, c.ID)
	}
	return ids
}

// told is what a call to Check was answered with.
type told struct {
	mu    sync.Mutex
	found map[string][]doctor.Finding
	done  map[string]doctor.Outcome
}

func (t *told) Found(check string, f doctor.Finding) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.found[check] = append(t.found[check], f); len(t.found[check]) > mostFindings {
		return fmt.Errorf("check %q has found more than %d faults", check, mostFindings)
	}
	return nil
}

// mostFindings of one check are waited for: a hundred times what a host keeps.
const mostFindings = 100_000

func (t *told) Progress(string, doctor.Progress) {}

func (t *told) Measured(string, doctor.Measure) error { return nil }

func (t *told) Done(check string, o doctor.Outcome) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done[check] = o
	return nil
}

// check runs checks and returns what was told, and what was wrong with it.
func (p *plugin) check(ctx context.Context, target *doctor.Target, deadline time.Duration, checks ...string) (*told, error) {
	t := &told{found: map[string][]doctor.Finding{}, done: map[string]doctor.Outcome{}}
	err := p.asked.Check(ctx, doctor.CheckRequest{Target: target, Checks: checks, Deadline: deadline}, t)
	return t, err
}

// observer sees every message and every error that comes from the plugin.
type observer struct {
	mu      sync.Mutex
	largest int
	secrets *doctor.Redactor // nil: none is looked for
	leaks   []string         // the messages that held one
}

var _ stats.Handler = (*observer)(nil)

// HandleRPC implements stats.Handler.
func (o *observer) HandleRPC(_ context.Context, s stats.RPCStats) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch s := s.(type) {
	case *stats.InPayload:
		o.largest = max(o.largest, s.Length)
		if m, ok := s.Payload.(proto.Message); ok && o.secrets != nil {
			if b, err := proto.Marshal(m); err == nil {
				o.search("a "+string(m.ProtoReflect().Descriptor().Name()), string(b))
			}
		}
	case *stats.End:
		if s.Error != nil && o.secrets != nil {
			b, _ := proto.Marshal(status.Convert(s.Error).Proto())
			o.search("the error of a call", string(b))
		}
	}
}

func (o *observer) search(where, text string) {
	if o.secrets.String(text) != text {
		o.leaks = append(o.leaks, where)
	}
}

// TagRPC implements stats.Handler.
func (o *observer) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements stats.Handler.
func (o *observer) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (o *observer) HandleConn(context.Context, stats.ConnStats) {}
