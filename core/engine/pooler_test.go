package engine_test

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
)

// behindPooler stands before the server and greets clients as a pooler does: with a process number of its own, not that
// of the server process which answers their queries.
func behindPooler(t *testing.T, server string) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				return
			}
			go func() {
				defer upstream.Close()
				_, _ = io.Copy(upstream, client) // until either is closed
			}()
			go func() {
				defer client.Close()
				greet(client, upstream)
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// greet forwards what the server says, with another process number in its BackendKeyData.
func greet(to io.Writer, from io.Reader) {
	backendKeyData := []byte{'K', 0, 0, 0, 12}
	buffer := make([]byte, 64<<10)
	for greeted := false; ; {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if at := bytes.Index(buffer[:n], backendKeyData); !greeted && at >= 0 && at+9 <= n {
			buffer[at+8]++
			greeted = true
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func TestAFixThroughAPoolerIsRefused(t *testing.T) {
	b := newBench(t)
	port := behindPooler(t, net.JoinHostPort(b.db.Host, target(b.db).Databases[0].Settings["port"]))
	b.refused(t, "goes through a pooler", engine.FixOptions{}, func(o *engine.Options) {
		o.Target.Databases[0].Settings["port"] = port
	})
	if r := b.fix(t); r.Plans[0].Status != doctor.PlanApplied {
		t.Errorf("connected to the server itself: %s", r.Plans[0].Reason)
	}
}
