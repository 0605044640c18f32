//go:build synapse

package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// installation is a Debian system in a folder, with Synapse in it.
type installation struct{ root string }

// inside is where a homeserver's own folder is seen from within an installation. Every Debian system has this mount point.
const inside = "/mnt"

// installed is a real Synapse: the one in $SYNAPSE_DOCTOR_SYNAPSE, or the one that an earlier run left in the user's cache
// folder, or a new one. Where there can be none the test is skipped, and with SYNAPSE_DOCTOR_REQUIRE_SYNAPSE=1 it fails.
func installed(t *testing.T) installation {
	t.Helper()
	i, err := findOrInstall(t)
	if err == nil {
		var version []byte
		version, err = i.command(t.Context(), t.TempDir(), "dpkg-query", "--show", "matrix-synapse").Output()
		if err == nil {
			t.Logf("%s in %s", bytes.Join(bytes.Fields(version), []byte(" ")), i.root)
			return i
		}
		err = fmt.Errorf("enter %s: %w", i.root, explained(err))
	}
	if os.Getenv("SYNAPSE_DOCTOR_REQUIRE_SYNAPSE") == "1" {
		t.Fatalf("no real Synapse: %v", err)
	}
	t.Skipf("SKIP: no real Synapse, so nothing was tried on one: %v", err)
	return installation{}
}

func findOrInstall(t *testing.T) (installation, error) {
	if os.Geteuid() != 0 {
		return installation{}, errors.New("only root can install it into a folder and enter that")
	}
	if dir := os.Getenv("SYNAPSE_DOCTOR_SYNAPSE"); dir != "" {
		if _, err := os.Stat(filepath.Join(dir, "usr/bin/synapse_homeserver")); err != nil {
			t.Fatalf("SYNAPSE_DOCTOR_SYNAPSE: %v", err)
		}
		return installation{dir}, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return installation{}, err
	}
	cache = filepath.Join(cache, "synapse-doctor-test")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return installation{}, err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return installation{}, err
	}
	defer unlock()
	i := installation{filepath.Join(cache, "synapse")}
	if _, err := os.Stat(i.root); err == nil {
		return i, nil
	}
	mirror, err := debianMirror(t.Context())
	if err != nil {
		return installation{}, err
	}
	t.Logf("installing Synapse from this machine's Debian archive into %s, once: it takes some minutes", i.root)
	// Renamed when it is whole. What a killed run has left can be removed: nothing of this machine is mounted in it.
	unfinished := installation{i.root + ".unfinished"}
	if err := os.RemoveAll(unfinished.root); err != nil {
		return installation{}, err
	}
	if err := unfinished.install(t.Context(), t.TempDir(), mirror); err != nil {
		return installation{}, errors.Join(err, os.RemoveAll(unfinished.root))
	}
	return i, os.Rename(unfinished.root, i.root)
}

// lock waits until no other test is at the cache folder.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// debianMirror is the archive that this machine itself installs from.
func debianMirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian", "Identifier: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for Debian's archive: %w", explained(err))
	}
	mirror, _, _ := strings.Cut(string(out), "\n")
	if mirror == "" {
		return "", errors.New("apt knows no archive of Debian; where one is configured, apt-get update makes it known")
	}
	return mirror, nil
}

// install makes the system and puts Synapse into it. No service is started: policy-rc.d forbids it.
func (i installation) install(ctx context.Context, empty, mirror string) error {
	// A mirror reached over https needs the certificates inside, too.
	debootstrap := isolated(ctx, "debootstrap", "--variant=minbase", "--include=ca-certificates", "sid", i.root, mirror)
	if out, err := debootstrap.CombinedOutput(); err != nil {
		return fmt.Errorf("debootstrap: %w: %s", err, lastLines(out))
	}
	if err := os.WriteFile(filepath.Join(i.root, "usr/sbin/policy-rc.d"), []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"install", "--yes", "--quiet", "--no-install-recommends", "matrix-synapse", "python3-psycopg2"},
		{"clean"},
	} {
		apt := i.command(ctx, empty, "apt-get", args...)
		apt.Env = append(apt.Env, "DEBIAN_FRONTEND=noninteractive")
		if out, err := apt.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, lastLines(out))
		}
	}
	return nil
}

// isolated prepares a program whose mounts nobody else sees, and which end with it, however it ends.
func isolated(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "--propagation", "private", "--", name}, args...)...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1")
	return cmd
}

// enter mounts what programs need, and becomes one of them.
const enter = `set -e
root=$1 home=$2
shift 2
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$home" "$root` + inside + `"
exec chroot "$root" "$@"`

// command prepares a program of the installation, which sees the folder home as [inside]. It has the machine's network,
// and the process that is started becomes the program itself.
func (i installation) command(ctx context.Context, home, name string, args ...string) *exec.Cmd {
	return isolated(ctx, "sh", append([]string{"-c", enter, "enter", i.root, home, name}, args...)...)
}

// explained adds what a program said before it failed.
func explained(err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("%w: %s", err, lastLines(exit.Stderr))
	}
	return err
}

func lastLines(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}
