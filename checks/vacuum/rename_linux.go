package vacuum

import (
	"errors"

	"golang.org/x/sys/unix"
)

// renameNew gives a file a name that is not taken.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system without it
		return linkNew(from, to)
	}
	return err
}
