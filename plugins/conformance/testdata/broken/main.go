// Program broken is a plugin that does one thing wrong: the name of its file says which. Whatever it does, it does by hand,
// as in a language that the sdk is not there for.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

var mode = filepath.Base(os.Args[0])

func main() {
	if os.Getenv(wire.CookieKey) != wire.CookieValue {
		switch mode {
		case "bare-stdout":
			fmt.Println("usage: broken")
		case "bare-trace":
			panic("there is no host")
		case "bare-status":
			fmt.Fprintln(os.Stderr, "broken is a plugin of synapse-doctor and does nothing on its own")
			os.Exit(0)
		}
		fmt.Fprintln(os.Stderr, "broken is a plugin of synapse-doctor and does nothing on its own")
		os.Exit(1)
	}
	if mode == "needs-home" && os.Getenv("HOME") == "" {
		fmt.Fprintln(os.Stderr, "HOME is not set")
		os.Exit(1)
	}
	if mode == "chatty" {
		fmt.Println("Loading rules …")
	}
	if mode == "silent" {
		for { // a select without a case would be a deadlock
			time.Sleep(time.Hour)
		}
	}
	if mode != "orphan" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			end()
		}()
	}
	serve()
}

var (
	socket string
	server *grpc.Server
)

func end() {
	if mode != "litters-socket" {
		os.Remove(socket)
	}
	os.Exit(0)
}

func serve() {
	socket = filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "broken.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cert, err := wire.NewCertificate()
	if err != nil {
		panic(err)
	}
	host := x509.NewCertPool()
	host.AppendCertsFromPEM([]byte(os.Getenv(wire.ClientCertEnv)))
	config := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: host, MinVersion: tls.VersionTLS13}
	switch mode {
	case "open-to-anyone":
		config.ClientAuth = tls.NoClientCert
	case "open-to-any-certificate":
		config.ClientAuth = tls.RequireAnyClientCert
	}
	options := []grpc.ServerOption{grpc.MaxSendMsgSize(wire.MaxMessage)}
	if mode != "plain" {
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	server = grpc.NewServer(options...)
	doctorv1.RegisterPluginServer(server, &plugin{})
	h := health.NewServer()
	h.SetServingStatus("plugin", grpc_health_v1.HealthCheckResponse_SERVING)
	if mode == "unwell" {
		h.SetServingStatus("plugin", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	}
	grpc_health_v1.RegisterHealthServer(server, h)
	if mode != "no-controller" {
		server.RegisterService(&controller, nil)
	}
	protocol := 1
	if mode == "of-the-future" {
		protocol = 3
	}
	if mode == "takes-the-newest" {
		for word := range strings.SplitSeq(os.Getenv("PLUGIN_PROTOCOL_VERSIONS"), ",") {
			n, _ := strconv.Atoi(word)
			protocol = max(protocol, n)
		}
	}
	fmt.Printf("1|%d|unix|%s|grpc|%s||broken|1.0\n", protocol, socket, base64.RawStdEncoding.EncodeToString(cert.Certificate[0]))
	_ = server.Serve(listener)
}

var controller = grpc.ServiceDesc{
	ServiceName: "plugin.GRPCController", HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Shutdown", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		if mode != "stays" {
			go end()
		}
		return &emptypb.Empty{}, decode(&emptypb.Empty{})
	}}},
}

type plugin struct {
	doctorv1.UnimplementedPluginServer
	busy sync.Mutex
}

func (p *plugin) Describe(context.Context, *doctorv1.DescribeRequest) (*doctorv1.DescribeResponse, error) {
	d := &doctorv1.DescribeResponse{Name: "broken", Version: "1.0"}
	for _, id := range []string{"broken-one", "broken-two"} {
		d.Checks = append(d.Checks, &doctorv1.CheckInfo{Id: id, Title: "T", Why: "W.", Plans: true,
			Codes: []*doctorv1.Code{{Id: id + "/fault", Title: "a fault", Severity: 2}}})
	}
	switch mode {
	case "id-twice":
		d.Checks = append(d.Checks, d.Checks[0])
	case "restless":
		d.Checks[1].Title = fmt.Sprint("Title ", rand.Int())
	}
	return d, nil
}

func (p *plugin) Check(req *doctorv1.CheckRequest, stream grpc.ServerStreamingServer[doctorv1.CheckResponse]) error {
	for _, id := range req.Checks {
		if id != "broken-one" && id != "broken-two" && mode != "knows-everything" {
			return status.Errorf(codes.NotFound, "there is no check %s", id)
		}
	}
	if mode == "one-at-a-time" {
		if !p.busy.TryLock() {
			return status.Error(codes.Unknown, "busy: call again")
		}
		defer p.busy.Unlock()
	}
	for _, id := range req.Checks {
		if err := p.run(req, id, stream); err != nil {
			return err
		}
	}
	return nil
}

func (p *plugin) run(req *doctorv1.CheckRequest, id string, stream grpc.ServerStreamingServer[doctorv1.CheckResponse]) error {
	found := &doctorv1.Finding{Code: id + "/fault", Severity: 2, Summary: "A fault.", Fixable: true}
	done := &doctorv1.Done{Status: doctorv1.Status_STATUS_OK}
	ctx := stream.Context()
	if d := req.Deadline.AsDuration(); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	if err := p.look(ctx, req.Target, found); err != nil {
		done = &doctorv1.Done{Status: doctorv1.Status_STATUS_UNKNOWN, Reason: err.Error()}
	}
	if mode == "too-large" {
		found.Summary = strings.Repeat("A fault. ", 5<<20/9)
	}
	if mode == "needs-home-later" && os.Getenv("HOME") == "" {
		done = &doctorv1.Done{Status: doctorv1.Status_STATUS_UNKNOWN, Reason: "HOME is not set"}
	}
	if err := stream.Send(&doctorv1.CheckResponse{Check: id, Event: &doctorv1.CheckResponse_Found{Found: found}}); err != nil {
		return err
	}
	times := 1
	if id == "broken-two" {
		switch mode {
		case "no-done":
			times = 0
		case "done-twice":
			times = 2
		case "fails-the-call":
			return status.Error(codes.Unknown, "the second check failed")
		}
	}
	for range times {
		if err := stream.Send(&doctorv1.CheckResponse{Check: id, Event: &doctorv1.CheckResponse_Done{Done: done}}); err != nil {
			return err
		}
	}
	return nil
}

// look asks the database something.
func (p *plugin) look(ctx context.Context, t *doctorv1.Target, found *doctorv1.Finding) error {
	if len(t.GetDatabases()) == 0 {
		return nil
	}
	settings := t.Databases[0].GetSettings().GetValues()
	switch mode {
	case "leaks-in-finding":
		found.Evidence = map[string]string{"settings": fmt.Sprint(settings)}
	case "leaks-in-stderr":
		fmt.Fprintln(os.Stderr, "connecting with", settings)
	case "leaks-in-environment":
		child := exec.Command("sleep", "0.3")
		child.Env = append(os.Environ(), "PGPASSWORD="+settings["password"])
		_ = child.Run()
	case "writes-files":
		_ = os.WriteFile(filepath.Join(os.TempDir(), "cache"), []byte("x"), 0o600)
	}
	if mode == "stubborn" {
		ctx = context.WithoutCancel(ctx)
	}
	connecting, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := connect(connecting, settings)
	if err != nil {
		if mode == "leaks-in-reason" {
			return fmt.Errorf("connect with %v: %w", settings, err)
		}
		return fmt.Errorf("the database does not answer")
	}
	defer conn.Close(context.Background())
	if mode == "spins" {
		for range 4 { // a busy machine gives each its share
			go func() {
				for {
					_ = slices.Max([]int{1, 2})
				}
			}()
		}
	}
	statement := "SELECT 1"
	if mode == "writes" {
		if _, err := conn.Exec(ctx, "SET default_transaction_read_only = off"); err != nil {
			return err
		}
		statement = "CREATE TABLE IF NOT EXISTS broken (n int)"
	}
	if _, err := conn.PgConn().Exec(ctx, statement).ReadAll(); err != nil {
		return fmt.Errorf("the database does not answer: %w", err)
	}
	return nil
}

func connect(ctx context.Context, settings map[string]string) (*pgx.Conn, error) {
	var words []string
	for k, v := range settings {
		if k != "gssencmode" {
			words = append(words, fmt.Sprintf("%s='%s'", k, v))
		}
	}
	return pgx.Connect(ctx, strings.Join(words, " "))
}

func (p *plugin) Plan(req *doctorv1.PlanRequest, stream grpc.ServerStreamingServer[doctorv1.PlanResponse]) error {
	if !strings.HasPrefix(req.Check, "broken-") && mode != "knows-everything" && mode != "plans-everything" {
		return status.Errorf(codes.NotFound, "there is no check %s", req.Check)
	}
	if mode == "leaks-in-plan" {
		settings := req.Target.Databases[0].GetSettings().GetValues()
		return stream.Send(&doctorv1.PlanResponse{Plan: &doctorv1.PlannedFix{Id: req.Check + "/do", Title: settings["password"], Risk: 1, Expects: 4}})
	}
	return nil
}
