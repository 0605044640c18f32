package main

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
)

// writeFile writes a file, or replaces all of it at once and keeps its mode. A link, a device or a pipe is written to and
// never replaced: as root, -o /dev/stdout would otherwise leave the machine without it.
func writeFile(path, text string) error {
	info, err := os.Lstat(path)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return os.WriteFile(path, []byte(text), 0o666)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	// Not os.CreateTemp, whose files are the owner's alone: a new file is to have the mode that the umask leaves.
	temp, err := os.OpenFile(path+"."+rand.Text(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	if info != nil {
		err = temp.Chmod(info.Mode().Perm())
	}
	if err == nil {
		_, err = temp.WriteString(text)
	}
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}
