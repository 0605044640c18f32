package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"

	doctorv1 "github.com/synapse-doctor/synapse-doctor/proto/doctor/v1"
)

var updateKit = flag.Bool("update-kit", false, "write the Python kit's plugin_pb2.py, its copies and the template's go.mod anew")

const (
	pythonKit     = "templates/python/plugin"
	pythonExample = "../../plugins/examples/account-emails"
)

// kitFiles are what every plugin in Python has.
var kitFiles = []string{"synapse_doctor_plugin.py", "synapse_doctor_serve.py", "plugin_pb2.py"}

// TestThePythonKitKnowsTheWholeProtocol compares plugin_pb2.py with the protocol. It holds what protoc would write, less what
// only newer runtimes understand, so that Debian's of 2022 can use it.
func TestThePythonKitKnowsTheWholeProtocol(t *testing.T) {
	descriptor := protodesc.ToFileDescriptorProto(doctorv1.File_doctor_v1_plugin_proto)
	descriptor.Options = nil // Go's
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(descriptor)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString(`"""The messages of plugin.proto. Generated: do not edit."""

from google.protobuf import descriptor_pool
from google.protobuf import duration_pb2  # noqa: F401  the messages below refer to it
from google.protobuf.internal import builder

DESCRIPTOR = descriptor_pool.Default().AddSerializedFile(
`)
	for len(raw) > 0 {
		n := min(32, len(raw))
		text.WriteString("    b'")
		for _, b := range raw[:n] {
			if b < ' ' || b > '~' || b == '\'' || b == '\\' {
				fmt.Fprintf(&text, `\x%02x`, b)
			} else {
				text.WriteByte(b)
			}
		}
		text.WriteString("'\n")
		raw = raw[n:]
	}
	text.WriteString(`)
builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, "plugin_pb2", globals())
`)
	kept(t, filepath.Join(pythonKit, "plugin_pb2.py"), []byte(text.String()))
}

// TestTheExampleHasTheKit: an author's project has a copy of the kit, and so has the example.
func TestTheExampleHasTheKit(t *testing.T) {
	for _, name := range kitFiles {
		text, err := os.ReadFile(filepath.Join(pythonKit, name))
		if err != nil {
			t.Fatal(err)
		}
		kept(t, filepath.Join(pythonExample, "plugin", name), text)
	}
}

// kept wants a file to have this content, or writes it.
func kept(t *testing.T, path string, want []byte) {
	t.Helper()
	if *updateKit {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if is, err := os.ReadFile(path); err != nil || !bytes.Equal(is, want) {
		t.Errorf("%s is stale (%v): go test ./cmd/synapse-doctor -run 'Kit' -update-kit", path, err)
	}
}

// pythonWithGRPC is a Python that can run a plugin, or empty. Under CI it must be there.
func pythonWithGRPC(t testing.TB) string {
	const python = "/usr/bin/python3" // Debian's, which has Debian's packages
	out, err := exec.Command(python, "-I", "-c", "import grpc, google.protobuf, psycopg2").CombinedOutput()
	if err == nil {
		return python
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no Python with grpcio, protobuf and psycopg2 (make python-grpc): %v\n%s", err, out)
	}
	return ""
}

// pyExampleCommand makes the one file of the example in Python, or of a folder of the script and the kit.
func pyExampleCommand(ts *testscript.TestScript, s *scene, args []string) error {
	if err := need(args, "FILE"); err != nil {
		return err
	}
	dir := filepath.Join(pythonExample, "plugin")
	if len(args) > 1 {
		dir = ts.MkAbs(args[1])
		for _, name := range kitFiles {
			text, err := os.ReadFile(filepath.Join(pythonKit, name))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
				return err
			}
		}
	}
	return zipapp(pythonWithGRPC(s.t), dir, ts.MkAbs(args[0]))
}

func zipapp(python, dir, file string) error {
	out, err := exec.Command(python, "-m", "zipapp", dir, "-p", python+" -I", "-o", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make %s: %w\n%s", file, err, out)
	}
	return nil
}
