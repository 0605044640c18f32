package pgdb

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
)

// ErrTLSRefused is the error of a server that has no TLS, where sslmode demands it.
var ErrTLSRefused = errors.New("the server does not offer TLS, but sslmode demands it")

// encryption is what sslmode asks for.
type encryption struct {
	first    bool // the first attempt uses TLS
	fallback bool // a second attempt does it the other way
	required bool // plain text is no way out
	direct   bool // sslnegotiation=direct: TLS from the first byte
	config   *tls.Config
	wantCert bool // sslcertmode=require
}

func (s Settings) encryption(e Endpoint) (encryption, error) {
	mode := s["sslmode"]
	if _, ok := s["sslmode"]; !ok {
		mode = "prefer"
		if s["sslrootcert"] == "system" {
			mode = "verify-full"
		}
	}
	var enc encryption
	switch mode {
	case "disable", "allow":
		enc.fallback = mode == "allow"
	case "prefer":
		enc.first, enc.fallback = true, true
	case "require", "verify-ca", "verify-full":
		enc.first, enc.required = true, true
	default:
		return enc, fmt.Errorf("sslmode=%s is not one of disable, allow, prefer, require, verify-ca, verify-full", quote(mode))
	}
	switch s["sslnegotiation"] {
	case "", "postgres":
	case "direct":
		if !enc.required {
			return enc, fmt.Errorf("sslnegotiation=direct needs sslmode=require or stronger, not %s", mode)
		}
		enc.direct = true
	default:
		return enc, fmt.Errorf("sslnegotiation=%s is neither postgres nor direct", quote(s["sslnegotiation"]))
	}
	if s["gssencmode"] == "require" {
		return enc, errors.New("gssencmode=require: " + noKerberos)
	}
	if e.Socket != "" || mode == "disable" { // libpq never encrypts a socket
		return encryption{}, nil
	}
	var err error
	enc.wantCert = s["sslcertmode"] == "require"
	enc.config, err = s.tlsConfig(mode, e)
	return enc, err
}

func (s Settings) tlsConfig(mode string, e Endpoint) (*tls.Config, error) {
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	if s["sslnegotiation"] == "direct" {
		config.NextProtos = []string{"postgresql"}
	}
	for name, version := range map[string]*uint16{"ssl_min_protocol_version": &config.MinVersion, "ssl_max_protocol_version": &config.MaxVersion} {
		if s[name] == "" {
			continue
		}
		v, ok := map[string]uint16{"TLSv1": tls.VersionTLS10, "TLSv1.1": tls.VersionTLS11, "TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}[s[name]]
		if !ok {
			return nil, fmt.Errorf("%s=%s is not a version of TLS", name, quote(s[name]))
		}
		*version = v
	}
	if s["sslsni"] != "0" {
		if _, err := netip.ParseAddr(e.Host); err != nil { // RFC 6066 allows names only
			config.ServerName = e.Host
		}
	}
	if err := s.addRoots(config, mode, e); err != nil {
		return nil, err
	}
	return config, s.addClientCertificate(config)
}

// addRoots makes the client verify the server's certificate, where the mode asks for it.
func (s Settings) addRoots(config *tls.Config, mode string, e Endpoint) error {
	path := s["sslrootcert"]
	verifies := mode == "verify-ca" || mode == "verify-full"
	switch {
	case path == "system" && mode != "verify-full":
		return fmt.Errorf("sslrootcert=system needs sslmode=verify-full, not %s", mode)
	case path == "system":
		roots, err := x509.SystemCertPool()
		if err != nil {
			return fmt.Errorf("sslrootcert=system: %w", err)
		}
		config.RootCAs = roots
	case path != "":
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) && !verifies {
			return nil // the weaker modes verify only where the file exists
		}
		if err != nil {
			return fmt.Errorf("sslrootcert: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("sslrootcert: %s holds no certificate", path)
		}
	case verifies:
		return fmt.Errorf("sslmode=%s needs a root certificate: set sslrootcert, or use ~/.postgresql/root.crt", mode)
	}
	if config.RootCAs == nil {
		return nil
	}
	name := ""
	if mode == "verify-full" {
		if name = e.Host; name == "" {
			name = e.Addr.String()
		}
	}
	config.VerifyConnection = func(state tls.ConnectionState) error { return verify(state.PeerCertificates, config.RootCAs, name) }
	return nil
}

// verify checks the chain, and the name where there is one: verify-ca does not care for it, which crypto/tls cannot do.
func verify(chain []*x509.Certificate, roots *x509.CertPool, name string) error {
	if len(chain) == 0 {
		return errors.New("the server sent no certificate")
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), DNSName: name}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(options)
	return err
}

func (s Settings) addClientCertificate(config *tls.Config) error {
	switch mode := s["sslcertmode"]; mode {
	case "", "allow", "require":
	case "disable":
		return nil
	default:
		return fmt.Errorf("sslcertmode=%s is not one of disable, allow, require", quote(mode))
	}
	if s["sslcert"] == "" {
		return nil
	}
	certificate, err := os.ReadFile(s["sslcert"])
	if errors.Is(err, os.ErrNotExist) { // libpq goes on without one
		return nil
	}
	if err != nil {
		return fmt.Errorf("sslcert: %w", err)
	}
	key, err := s.clientKey()
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("sslcert and sslkey: %w", err)
	}
	config.Certificates = []tls.Certificate{pair}
	return nil
}

func (s Settings) clientKey() ([]byte, error) {
	info, err := os.Stat(s["sslkey"])
	if err != nil {
		return nil, fmt.Errorf("sslkey: %w", err)
	}
	if forbidden := info.Mode().Perm() & forbiddenBits(info); forbidden != 0 {
		return nil, fmt.Errorf("sslkey: %s may be read by others than its owner (mode %04o), which libpq refuses", s["sslkey"], info.Mode().Perm())
	}
	text, err := os.ReadFile(s["sslkey"])
	if err != nil {
		return nil, fmt.Errorf("sslkey: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("sslkey: %s is not a PEM file", s["sslkey"])
	}
	if block.Type == "ENCRYPTED PRIVATE KEY" {
		return nil, fmt.Errorf("sslkey: %s is encrypted in a way that the doctor cannot read; give it a decrypted copy", s["sslkey"])
	}
	//lint:ignore SA1019 weak, but what libpq's sslpassword is mostly used with
	if !x509.IsEncryptedPEMBlock(block) {
		return text, nil
	}
	//lint:ignore SA1019 as above
	der, err := x509.DecryptPEMBlock(block, []byte(s["sslpassword"]))
	if err != nil {
		return nil, fmt.Errorf("sslkey: %s: %w", s["sslkey"], err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: der}), nil
}

// errNoClientCertificate is sslcertmode=require unfulfilled.
var errNoClientCertificate = errors.New("sslcertmode=require, but no client certificate was asked for and sent")

// sslRequest is the message that asks the server for TLS (protocol-flow, "SSL Session Encryption").
var sslRequest = []byte{0, 0, 0, 8, 4, 210, 22, 47}

// negotiate turns conn into an encrypted one. A server without TLS leaves it plain, unless TLS is required.
func (enc encryption) negotiate(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if !enc.direct {
		answer, err := askForTLS(ctx, conn)
		if err != nil {
			return nil, err
		}
		if answer != 'S' {
			if enc.required {
				return nil, ErrTLSRefused
			}
			return conn, nil
		}
	}
	config, sent := enc.config.Clone(), false
	if enc.wantCert {
		config.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			i := slices.IndexFunc(enc.config.Certificates, func(c tls.Certificate) bool { return request.SupportsCertificate(&c) == nil })
			if i < 0 {
				return nil, errNoClientCertificate
			}
			sent = true
			return &enc.config.Certificates[i], nil
		}
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if enc.wantCert && !sent {
		return nil, errNoClientCertificate
	}
	return secured, nil
}

func askForTLS(ctx context.Context, conn net.Conn) (answer byte, err error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) }) // wakes the read below
	defer stop()
	if _, err := conn.Write(sslRequest); err != nil {
		return 0, err
	}
	var b [1]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, err
	}
	return b[0], nil
}
