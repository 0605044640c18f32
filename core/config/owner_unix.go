//go:build unix

package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// onlyOurs refuses a file that someone other than root and this user could write, or exchange: it says which programs are run.
func onlyOurs(path string, file fs.FileInfo) error {
	if err := onlyOwner(path, path, file); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	for _, dir := range []string{filepath.Dir(path), filepath.Dir(real)} {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("read the configuration: %w", err)
		}
		if err := onlyOwner(path, dir, info); err != nil {
			return err
		}
	}
	return nil
}

func onlyOwner(path, of string, info fs.FileInfo) error {
	what := "it"
	if of != path {
		what = "its directory"
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return &Error{Path: path, Text: what + " belongs to neither root nor this user: chown root " + of}
	}
	if info.Mode().Perm()&0o022 != 0 && !(info.IsDir() && info.Mode()&os.ModeSticky != 0) {
		return &Error{Path: path, Text: "others than the owner can change " + what + ": chmod go-w " + of}
	}
	return nil
}

// readableByOthers reports whether others than the owner can read the file. One that is not there yet is made for its owner.
func readableByOthers(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&0o044 != 0
}
