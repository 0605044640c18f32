package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNoServer is returned by [New] when PostgreSQL's server programs are not installed.
var ErrNoServer = errors.New("no PostgreSQL server programs (initdb, postgres) were found; install Debian's package postgresql, or set PGTEST_BINDIR")

// BinDir finds the directory of initdb and postgres: $PGTEST_BINDIR, what pg_config says, the newest of Debian's, or PATH.
// With a version (15) it is the one of that major version, and what install-matrix.sh installed counts too.
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
	if majors := debianMajors(); len(majors) > 0 {
		candidates = append(candidates, debianDir(strconv.Itoa(majors[len(majors)-1])))
	}
	if program, err := exec.LookPath("initdb"); err == nil {
		candidates = append(candidates, filepath.Dir(program))
	}
	if version != "" {
		own := []string{debianDir(version)}
		for _, root := range matrixRoots() {
			own = append(own, filepath.Join(root, version, "bin"))
		}
		candidates = append(own, candidates...)
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

// debianMajors are the majors that Debian's packages installed something of, the oldest first.
func debianMajors() []int {
	dirs, _ := filepath.Glob(debianDir("*")) // the pattern is well-formed
	var majors []int
	for _, dir := range dirs {
		if n, err := strconv.Atoi(filepath.Base(filepath.Dir(dir))); err == nil {
			majors = append(majors, n)
		}
	}
	slices.Sort(majors)
	return majors
}

func debianDir(version string) string { return filepath.Join("/usr/lib/postgresql", version, "bin") }

// matrixRoots are the folders that install-matrix.sh writes, as root and as anyone else.
func matrixRoots() []string {
	const under = "synapse-doctor-test/postgresql"
	roots := []string{filepath.Join("/var/cache", under)}
	if cache, err := os.UserCacheDir(); err == nil && os.Geteuid() != 0 {
		roots = append([]string{filepath.Join(cache, under)}, roots...)
	}
	return roots
}

// clientProgram finds pg_restore and the like for a server. Some server packages come without; then it is Debian's of the
// newest major that is no newer than the server, because a newer pg_restore may set parameters that the server lacks.
func clientProgram(name, serverDir string, serverMajor int) (string, error) {
	if path := filepath.Join(serverDir, name); executable(path) {
		return path, nil
	}
	var found string
	for _, major := range debianMajors() {
		path := filepath.Join(debianDir(strconv.Itoa(major)), name)
		if executable(path) && (found == "" || major <= serverMajor) {
			found = path
		}
	}
	if found != "" {
		return found, nil
	}
	return exec.LookPath(name)
}

func holdsServer(dir string) bool {
	return executable(filepath.Join(dir, "initdb")) && executable(filepath.Join(dir, "postgres"))
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
