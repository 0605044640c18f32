package sdk_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
	"github.com/synapse-doctor/synapse-doctor/plugins/sdk"
)

func TestMain(m *testing.M) {
	if sdk.Launched() || os.Getenv("BARE_START") != "" {
		sdk.Serve(sdk.Plugin{Name: "ac|me", Version: "1.2", Checks: []doctor.Check{{
			ID: "waits", Title: "T", Why: "W",
			Run: func(ctx context.Context, _ *doctor.Target, _ doctor.Reporter) error { select {} },
		}}})
	}
	os.Exit(m.Run())
}

const patience = 30 * time.Second

// launched is this test binary as a plugin, started as a host does, but by hand.
type launched struct {
	*exec.Cmd
	dir    string
	stdin  *os.File
	fields []string // of the handshake line
	cert   tls.Certificate
}

func launch(t *testing.T, env ...string) *launched {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	p := &launched{Cmd: exec.Command("/proc/self/exe"), dir: dir}
	if p.cert, err = wire.NewCertificate(); err != nil {
		t.Fatal(err)
	}
	ours := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Certificate[0]})
	p.Env = append([]string{
		wire.CookieKey + "=" + wire.CookieValue, "PLUGIN_UNIX_SOCKET_DIR=" + dir,
		"PLUGIN_PROTOCOL_VERSIONS=1", wire.ClientCertEnv + "=" + string(ours),
	}, env...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stdin, p.stdin = r, w
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait(); w.Close(); os.RemoveAll(dir) })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	p.fields = strings.Split(strings.TrimSpace(line), "|")
	return p
}

// dial connects with the given certificate.
func (p *launched) dial(t *testing.T, creds credentials.TransportCredentials) error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///plugin", grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return net.Dial("unix", p.fields[3]) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	health, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "plugin"})
	if err == nil && health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health is %s", health.Status)
	}
	return err
}

func (p *launched) tls(t *testing.T, cert tls.Certificate) credentials.TransportCredentials {
	t.Helper()
	der, err := base64.RawStdEncoding.DecodeString(p.fields[5])
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(theirs)
	return credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, ServerName: "localhost"})
}

func (p *launched) endsCleanly(t *testing.T) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- p.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
	if left, _ := os.ReadDir(p.dir); len(left) != 0 {
		t.Errorf("it left %v", left)
	}
}

func TestHandshakeLine(t *testing.T) {
	p := launch(t)
	if got := strings.Join(append(append([]string{}, p.fields[:3]...), p.fields[4], p.fields[6], p.fields[7], p.fields[8]), "|"); got != "1|1|unix|grpc||acme|1.2" {
		t.Errorf("%q", p.fields)
	}
	if filepath.Dir(p.fields[3]) != p.dir {
		t.Errorf("it listens at %s", p.fields[3])
	}
}

func TestHostThatSpeaksOnlyAFutureVersion(t *testing.T) {
	if p := launch(t, "PLUGIN_PROTOCOL_VERSIONS=7,9"); p.fields[1] != "1" {
		t.Errorf("it announces protocol %s", p.fields[1])
	}
}

func TestOnlyTheHostMayConnect(t *testing.T) {
	p := launch(t)
	stranger, err := wire.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.dial(t, p.tls(t, stranger)); err == nil {
		t.Error("a stranger's certificate is accepted")
	}
	if err := p.dial(t, p.tls(t, tls.Certificate{})); err == nil {
		t.Error("no certificate is accepted")
	}
	if err := p.dial(t, insecure.NewCredentials()); err == nil {
		t.Error("no TLS is accepted")
	}
	if err := p.dial(t, p.tls(t, p.cert)); err != nil {
		t.Error("the host is refused:", err)
	}
}

func TestEndOfStdinEndsThePlugin(t *testing.T) {
	p := launch(t)
	if err := p.dial(t, p.tls(t, p.cert)); err != nil {
		t.Fatal(err)
	}
	p.stdin.Close()
	p.endsCleanly(t)
}

func TestSIGTERMEndsThePluginAndSIGINTDoesNot(t *testing.T) {
	p := launch(t)
	if err := p.dial(t, p.tls(t, p.cert)); err != nil { // its signal handlers are in place by now
		t.Fatal(err)
	}
	_ = p.Process.Signal(syscall.SIGINT)
	if err := p.dial(t, p.tls(t, p.cert)); err != nil {
		t.Fatal("after SIGINT:", err)
	}
	_ = p.Process.Signal(syscall.SIGTERM)
	p.endsCleanly(t)
}

func TestPluginThatCanNotServeSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"started by hand":   {[]string{"BARE_START=1"}, "ac|me 1.2 is a plugin of synapse-doctor and does nothing on its own. To try it:\n    synapse-doctor check --dev-plugin /"},
		"no certificate":    {[]string{wire.CookieKey + "=" + wire.CookieValue}, "plugin ac|me could not start: the host gave no certificate in PLUGIN_CLIENT_CERT"},
		"nowhere to listen": {[]string{wire.CookieKey + "=" + wire.CookieValue, "PLUGIN_UNIX_SOCKET_DIR=/no/such/directory", wire.ClientCertEnv + "=" + anyCert(t)}, `it was not able to listen in "/no/such/directory"`},
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = c.env
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if _, err := cmd.StdinPipe(); err != nil { // left open: its end would be the host's end
			t.Fatal(err)
		}
		err := cmd.Run()
		if cmd.ProcessState.ExitCode() != 1 || stdout.Len() != 0 || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: %v, stdout %q, stderr %q", name, err, stdout.String(), stderr.String())
		}
	}
}

func anyCert(t *testing.T) string {
	c, err := wire.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
}
