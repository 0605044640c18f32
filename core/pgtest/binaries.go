package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrNoServer is returned by [New] when PostgreSQL's server programs are not installed.
var ErrNoServer = errors.New("no PostgreSQL server programs (initdb, postgres) were found; install Debian's package postgresql, or set PGTEST_BINDIR")

// BinDir finds the directory of initdb and postgres: $PGTEST_BINDIR, what pg_config says, the newest of Debian's, or PATH.
// With a version (15) it is the one of that major version.
func BinDir(ctx context.Context, version string) (string, error) {
	var candidates []string
	if dir := os.Getenv("PGTEST_BINDIR"); dir != "" {
		candidates = append(candidates, dir)
		// What was asked for and is not there must not be another version that happens to be.
		if version == "" && !holdsServer(dir) {
			return "", fmt.Errorf("PGTEST_BINDIR=%s: %w", dir, ErrNoServer)
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		candidates = append(candidates, strings.TrimSpace(string(out)))
	}
	if dir := newestDebian(); dir != "" {
		candidates = append(candidates, dir)
	}
	if program, err := exec.LookPath("initdb"); err == nil {
		candidates = append(candidates, filepath.Dir(program))
	}
	if version != "" {
		candidates = append([]string{filepath.Join("/usr/lib/postgresql", version, "bin")}, candidates...)
	}
	for _, dir := range candidates {
		if !holdsServer(dir) {
			continue
		}
		if version == "" {
			return dir, nil
		}
		out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
		if fields := strings.Fields(string(out)); err == nil && len(fields) > 2 && strings.HasPrefix(fields[2]+".", version+".") {
			return dir, nil
		}
	}
	if version != "" {
		return "", fmt.Errorf("version %s: %w", version, ErrNoServer)
	}
	return "", ErrNoServer
}

func newestDebian() string {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	newest, dir := 0, ""
	for _, d := range dirs {
		if n, err := strconv.Atoi(filepath.Base(filepath.Dir(d))); err == nil && n > newest {
			newest, dir = n, d
		}
	}
	return dir
}

func holdsServer(dir string) bool {
	return executable(filepath.Join(dir, "initdb")) && executable(filepath.Join(dir, "postgres"))
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
