package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// The magic cookie tells a plugin that a host started it. It is no secret.
const (
	CookieKey   = "SYNAPSE_DOCTOR_PLUGIN"
	CookieValue = "5f0a1c2e-doctor-plugin"
)

// ClientCertEnv carries the host's certificate to the plugin. The name is go-plugin's.
const ClientCertEnv = "PLUGIN_CLIENT_CERT"

// MaxMessage bounds every message, in both directions.
const MaxMessage = 16 << 20

// serviceKey is the name under which go-plugin dispenses the one service.
const serviceKey = "doctor"

// Handshake is what go-plugin compares on both sides. Versions of the protocol are compared by [Versions.Plugins].
var Handshake = plugin.HandshakeConfig{MagicCookieKey: CookieKey, MagicCookieValue: CookieValue}

// Plugins is go-plugin's map for each version of the protocol. The host passes a nil source.
func (v Versions) Plugins(src doctor.Source) map[int]plugin.PluginSet {
	sets := map[int]plugin.PluginSet{}
	for _, version := range v {
		sets[version.Number] = plugin.PluginSet{serviceKey: &service{version: version, source: src}}
	}
	return sets
}

type service struct {
	plugin.NetRPCUnsupportedPlugin
	version Version
	source  doctor.Source
}

var _ plugin.GRPCPlugin = (*service)(nil)

func (s *service) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	s.version.Serve(g, s.source)
	return nil
}

func (s *service) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

// Conn is the connection of a plugin that go-plugin has started.
func Conn(client plugin.ClientProtocol) (*grpc.ClientConn, error) {
	conn, err := client.Dispense(serviceKey)
	if err != nil {
		return nil, err
	}
	return conn.(*grpc.ClientConn), nil
}

// NewCertificate makes the certificate with which one side proves itself for the life of a process.
// P-256 takes 0.2 ms where go-plugin's own P-521 takes more than 20.
func NewCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "localhost", Organization: []string{"synapse-doctor"}},
		DNSNames:              []string{"localhost"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(30 * 365 * 24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true, // each side trusts exactly the other's certificate, as its own authority
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
