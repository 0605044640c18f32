package host_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
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
		p := startSource(t, host.Options{}, func(o host.Options) *host.Source {
			return host.Installed("acme", path, sum, &doctor.Terms{Update: "synapse-doctor plugin update acme"}, o)
		})
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
	says(t, err, path+" has changed", "its SHA-256 is "+sum, other+" was recorded", "run: synapse-doctor plugin update acme")
	if _, ok := errors.AsType[*host.HashError](err); !ok || len(p.log.pids()) != 0 {
		t.Errorf("%T; %d processes", err, len(p.log.pids()))
	}

	for _, change := range []struct {
		path string
		mode os.FileMode
	}{{path, 0o775}, {path, 0o757}, {filepath.Dir(path), 0o777}, {filepath.Dir(path), 0o775}} {
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

func TestFileThatChangesItsUserIsRefused(t *testing.T) {
	path, sum := install(t)
	if err := os.Chmod(path, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	says(t, describe(t, path, sum), "runs as another user or group", "chmod ug-s "+path)
}

func describe(t *testing.T, path, sum string) error {
	t.Helper()
	p := startSource(t, host.Options{}, func(o host.Options) *host.Source { return host.Installed("acme", path, sum, &doctor.Terms{}, o) })
	_, err := p.Describe(within(t))
	return err
}

// A link may lead to a plugin. What it lies in is looked at as well: whoever can change that decides what runs.
func TestLinkToAPlugin(t *testing.T) {
	path, sum := install(t)
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := describe(t, link, sum); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	says(t, describe(t, link, sum), dir+" can be changed by others than its owner: chmod go-w "+dir)

	around := filepath.Join(t.TempDir(), "around")
	if err := os.Symlink(around, around); err != nil {
		t.Fatal(err)
	}
	says(t, describe(t, around, sum), "too many")
}

// A link is swapped, and the file that it had led to is written to, between the look and the execution.
func TestLinkSwappedAndFileWrittenAfterItWasHashed(t *testing.T) {
	path, sum := install(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	script := []byte("#!/bin/sh\necho another program >&2\n")
	if err := os.WriteFile(other, script, 0o755); err != nil {
		t.Fatal(err)
	}
	early, err := os.OpenFile(path, os.O_WRONLY, 0) // by somebody who could, before its mode was put right
	if err != nil {
		t.Fatal(err)
	}
	p := startSource(t, host.Options{}, func(o host.Options) *host.Source {
		return host.InstalledThen(link, sum, o, func() {
			if err := os.Symlink(other, link+".new"); err != nil {
				t.Error(err)
			}
			if err := os.Rename(link+".new", link); err != nil {
				t.Error(err)
			}
			if _, err := early.WriteAt(script, 0); err != nil {
				t.Error(err)
			}
			early.Close()
		})
	})
	if _, err := p.Describe(within(t)); err != nil {
		t.Error(err)
	}
}

func TestNamedPipeIsNotWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o700); err != nil {
		t.Fatal(err)
	}
	says(t, describe(t, path, ""), "is not a file")
}

// A script is executed as it was hashed, too.
func TestInstalledScript(t *testing.T) {
	path, _ := install(t)
	script := []byte("#!/bin/sh\nexec " + path + "\n")
	wrapper := filepath.Join(t.TempDir(), "wrapper")
	if err := os.WriteFile(wrapper, script, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(script)
	if err := describe(t, wrapper, hex.EncodeToString(sum[:])); err != nil {
		t.Error(err)
	}
}

func TestCandidateIsAskedOnceAndIsWhatWasHashed(t *testing.T) {
	path, sum := install(t)
	var is string
	p := startSource(t, host.Options{}, func(o host.Options) *host.Source {
		s, candidate, err := host.Candidate(path, o)
		if err != nil {
			t.Fatal(err)
		}
		is = candidate
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return s
	})
	if d, err := p.Describe(within(t)); err != nil || d.Name != "acme" || is != sum {
		t.Errorf("%q, %s: %v", d.Name, is, err)
	}
	if err := os.WriteFile(path, nil, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	_, _, err := host.Candidate(path, host.Options{})
	says(t, err, "can be changed by others")
}

// The environment holds what every plugin gets, and what was allowed by name.
func TestInstalledPluginSeesOnlyTheEnvironmentThatItIsAllowed(t *testing.T) {
	path, sum := install(t)
	t.Setenv("PGPASSWORD", "hunter2hunter2")
	t.Setenv("ACME_KEY", "allowed")
	t.Setenv("ACME_OTHER", "not allowed")
	p := startSource(t, host.Options{Env: []string{"ACME_KEY"}}, func(o host.Options) *host.Source {
		return host.Installed("acme", path, sum, &doctor.Terms{}, o)
	})
	req := request("looks-around")
	req.Target.Databases = []*doctor.Database{{Label: "main", Engine: doctor.Postgres, Settings: pgdb.Settings{"password": "hunter2hunter2"}}}
	req.Target.Admin = &doctor.Database{Label: "admin", Engine: doctor.Postgres, Settings: pgdb.Settings{"password": "hunter2hunter2"}}
	h := &heard{}
	if err := p.Check(within(t), req, h); err != nil {
		t.Fatal(err)
	}
	saw := h.found["looks-around"][0].Evidence
	if strings.Contains(saw["environ"], "hunter2") || strings.Contains(saw["environ"], "ACME_OTHER") || !strings.Contains(saw["environ"], "ACME_KEY=allowed") {
		t.Errorf("its environment:\n%s", saw["environ"])
	}
	if saw["handed"] != "false" {
		t.Error("it was handed Synapse's login")
	}
}

func TestOperationOfAPluginThatMayNotChangeAnything(t *testing.T) {
	path, sum := install(t)
	ask := func(allow bool) error {
		p := startSource(t, host.Options{}, func(o host.Options) *host.Source {
			return host.Installed("acme", path, sum, &doctor.Terms{Entry: "plugins.acme in F", AllowFix: allow}, o)
		})
		return p.Execute(within(t), operation("refuse"), &keeper{})
	}
	says(t, ask(false), "allow_fix: true under plugins.acme in F")
	says(t, ask(true), "the moon is full")
}
