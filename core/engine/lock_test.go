package engine_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/engine"
)

// deafToGoodbyes stands before the server so that sessions outlive their clients, as they do for a moment on a busy
// machine. They end with the test.
func deafToGoodbyes(t *testing.T, server string) (port string) {
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
			t.Cleanup(func() { upstream.Close() })
			go func() {
				_, _ = io.Copy(client, upstream) // until either is closed
			}()
			go forwardAllButGoodbyes(upstream, client)
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func forwardAllButGoodbyes(to io.Writer, from io.Reader) {
	goodbye := []byte{'X', 0, 0, 0, 4} // Terminate, which a client sends by itself
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if bytes.Equal(buffer[:n], goodbye) {
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func TestARunIsNotHeldUpByASessionThatTheLastOneHasClosed(t *testing.T) {
	b := newBench(t)
	port := deafToGoodbyes(t, fmt.Sprintf("%s:%d", b.db.Host, b.db.Port))
	behind := func(o *engine.Options) {
		settings := o.Target.Databases[0].Settings
		settings["port"], settings["sslmode"] = port, "disable"
	}
	if p := b.fix(t, behind).Plans[0]; p.Status != doctor.PlanApplied {
		t.Fatalf("fix: %s: %s", p.Status, p.Reason)
	}
	u, err := b.engine(behind).Undo(t.Context(), engine.UndoOptions{Consent: agree})
	if err != nil {
		t.Fatal(err)
	}
	if p := u.Plans[0]; p.Status != doctor.PlanApplied {
		t.Errorf("undo: %s: %s", p.Status, p.Reason)
	}
}
