// Package owned tells whether a file can be changed, or exchanged, by anyone but root and the user who runs this program. What
// decides which programs are run has to be such a file. It imports nothing of this repository.
package owned

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Only refuses a file that someone other than root and this user could change or replace: through the file's own mode, or
// through that of any directory on the way to it, the places of symbolic links included. A directory with the sticky bit lets
// nobody replace another's file, or another's link, which is why links must be ours too. opened is what was opened at path;
// the way must still lead there. It returns where the path ends. An error names what is wrong and the command that mends it.
func Only(path string, opened os.FileInfo) (end string, err error) {
	end, dirs, links, err := Way(path)
	if err != nil {
		return "", err
	}
	now, err := os.Lstat(end)
	if err != nil {
		return "", err
	}
	if !os.SameFile(opened, now) {
		return "", fmt.Errorf("%s was replaced while it was looked at: run the command again", path)
	}
	if err := unchangeable(end, opened); err != nil {
		return "", err
	}
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil {
			return "", err
		}
		if err := unchangeable(dir, info); err != nil {
			return "", err
		}
	}
	for _, link := range links {
		info, err := os.Lstat(link)
		if err != nil {
			return "", err
		}
		if err := ours(link, info); err != nil {
			return "", err
		}
	}
	return end, nil
}

func unchangeable(path string, info os.FileInfo) error {
	if err := ours(path, info); err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 && !(info.IsDir() && info.Mode()&os.ModeSticky != 0) {
		return fmt.Errorf("%s can be changed by others than its owner: chmod go-w %s", path, ShellWord(path))
	}
	return nil
}

func ours(path string, info os.FileInfo) error {
	if ByUser(info) || byRoot(info) {
		return nil
	}
	return fmt.Errorf("%s belongs to neither root nor this user: chown -h root %s", path, ShellWord(path))
}

// ShellWord writes a path as a shell takes it.
func ShellWord(path string) string {
	if path != "" && !strings.ContainsFunc(path, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,=", r))
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// mostLinks is how many symbolic links a path may lead through, as in Linux.
const mostLinks = 40

// Way follows an absolute path as the system does. It returns where the path ends, and every directory and symbolic link on
// the way.
func Way(path string) (end string, dirs, links []string, err error) {
	at, rest := "/", strings.Split(path, "/")
	seen := map[string]bool{}
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		if !seen[at] {
			seen[at] = true
			dirs = append(dirs, at)
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		if err != nil {
			return "", nil, nil, err
		}
		if info.Mode()&os.ModeSymlink == 0 {
			at = next
			continue
		}
		if links = append(links, next); len(links) > mostLinks {
			return "", nil, nil, fmt.Errorf("%s leads through too many symbolic links", path)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", nil, nil, err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, dirs, links, nil
}
