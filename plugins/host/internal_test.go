package host

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A directory of somebody who chose such a name is not taken for one that a dead host has left.
func TestOnlyWhatADeadHostHasLeftIsSweptAway(t *testing.T) {
	base, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	make := func(name string) string {
		dir := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Join(dir, "plugin-dir1"), 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	left, backup, named := make("synapse-doctor-1"), make("synapse-doctor-2026"), make("synapse-doctor-backup")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(left, "plugin-dir1", "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := os.WriteFile(filepath.Join(left, "plugin-dir1", "plugin2"), nil, 0o600); err != nil { // killed while it chose its socket's name
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(backup, "plugin-dir1", "dump.sql"), []byte("all there is"), 0o600); err != nil {
		t.Fatal(err)
	}
	used, err := makeSocketDir(base)
	if err != nil {
		t.Fatal(err)
	}
	defer used.remove()
	sweep(base)
	for path, want := range map[string]bool{left: false, filepath.Join(backup, "plugin-dir1", "dump.sql"): true, named: true, used.path: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s is there: %v", path, err == nil)
		}
	}
}

// What is at the path must be what was opened: else the directories that were looked at are another file's.
func TestFileReplacedWhileItIsLookedAt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "acme")
	for _, text := range []string{"#!/bin/sh\n", "#!/bin/sh\n# another\n"} {
		if err := os.WriteFile(path+".new", []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		p, err := openFile(path)
		if err == nil {
			defer p.close()
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			continue // the first one
		}
		if err := onlyOwners(p); err == nil || !strings.Contains(err.Error(), "was replaced while it was looked at") {
			t.Error(err)
		}
	}
}
