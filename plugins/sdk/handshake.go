package sdk

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/plugins/internal/wire"
)

// handshake is the line with which a plugin announces itself. go-plugin prints it, but fills in a certificate only when
// it has made one itself, of a kind that takes 22 ms. So os.Stdout is a pipe while it prints, and what is missing is
// appended here.
type handshake struct {
	cert tls.Certificate
	ca   *x509.CertPool
	w    *os.File
	done chan bool // true when the line was printed
}

func announce(p Plugin, stdout *os.File) (*handshake, error) {
	h := &handshake{ca: x509.NewCertPool(), done: make(chan bool, 1)}
	if !h.ca.AppendCertsFromPEM([]byte(os.Getenv(wire.ClientCertEnv))) {
		return nil, errors.New("the host gave no certificate in " + wire.ClientCertEnv)
	}
	var err error
	if h.cert, err = wire.NewCertificate(); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("open a pipe: %w", err)
	}
	h.w, os.Stdout = w, w
	go func() {
		in := bufio.NewReader(r)
		line, err := in.ReadString('\n')
		if err == nil {
			_, err = fmt.Fprintf(stdout, "%s%s||%s|%s\n", strings.TrimSuffix(line, "\n"),
				base64.RawStdEncoding.EncodeToString(h.cert.Certificate[0]), field(p.Name), field(p.Version))
		}
		h.done <- err == nil
		_, _ = io.Copy(io.Discard, in) // whoever kept this os.Stdout must not block
	}()
	return h, nil
}

// field keeps text from breaking the line.
func field(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '|' || r < ' ' {
			return -1
		}
		return r
	}, s)
}

func (h *handshake) tls() (*tls.Config, error) {
	return &tls.Config{
		Certificates: []tls.Certificate{h.cert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    h.ca,
		MinVersion:   tls.VersionTLS13,
		// A connection lasts as long as the process.
		SessionTicketsDisabled: true,
	}, nil
}

// announced reports, once go-plugin has returned, whether the line was printed.
func (h *handshake) announced() bool {
	h.w.Close()
	return <-h.done
}
