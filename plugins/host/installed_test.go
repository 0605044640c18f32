package host_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/plugins/host"
)

// install copies the program to a directory that only its owner can change.
func install(t *testing.T) (path, sum string) {
	t.Helper()
	b, err := os.ReadFile(misbehave)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "synapse-doctor-plugin-acme")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	h := sha256.Sum256(b)
	return path, hex.EncodeToString(h[:])
}

func TestInstalledPluginRunsOnlyAsRecorded(t *testing.T) {
	path, sum := install(t)
	ask := func(sum string) (*plugin, error) {
		p := startSource(t, host.Options{}, func(o host.Options) *host.Source { return host.Installed(path, sum, o) })
		_, err := p.Describe(within(t))
		return p, err
	}
	p, err := ask(sum)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name() != "acme" {
		t.Errorf("its name is %q", p.Name())
	}

	other := hex.EncodeToString(make([]byte, 32))
	p, err = ask(other)
	says(t, err, path+" has changed", "its SHA-256 is "+sum, other+" was recorded")
	if _, ok := errors.AsType[*host.HashError](err); !ok || len(p.log.pids()) != 0 {
		t.Errorf("%T; %d processes", err, len(p.log.pids()))
	}

	for _, change := range []struct {
		path string
		mode os.FileMode
	}{{path, 0o775}, {path, 0o757}, {filepath.Dir(path), 0o777}} {
		info, _ := os.Stat(change.path)
		if err := os.Chmod(change.path, change.mode); err != nil {
			t.Fatal(err)
		}
		_, err := ask(sum)
		says(t, err, change.path+" can be changed by others than its owner: chmod go-w "+change.path)
		_ = os.Chmod(change.path, info.Mode())
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
		_, err := ask(sum)
		says(t, err, "belongs to neither root nor this user")
	}
}

// What runs is what was opened, though the file was replaced between the look at it and its execution.
func TestFileReplacedAfterItWasOpened(t *testing.T) {
	path, sum := install(t)
	p := startSource(t, host.Options{}, func(o host.Options) *host.Source {
		return host.InstalledThen(path, sum, o, func() {
			other := path + ".new"
			if err := os.WriteFile(other, []byte("#!/bin/sh\necho another program >&2\n"), 0o755); err != nil {
				t.Error(err)
			}
			if err := os.Rename(other, path); err != nil {
				t.Error(err)
			}
		})
	})
	if _, err := p.Describe(within(t)); err != nil {
		t.Error(err)
	}
}
