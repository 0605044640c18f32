//go:build unix

package config

import "os"

// readableByOthers reports whether others than the owner can read the file. One that is not there yet is made for its owner.
func readableByOthers(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&0o044 != 0
}
