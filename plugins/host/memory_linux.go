package host

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const nonBlocking = unix.O_NONBLOCK

// newMemory is an executable file in memory; nil where the system has none, or forbids to execute one (vm.memfd_noexec).
func newMemory(name string) *os.File {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 every one is executable
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), name)
	if info, err := f.Stat(); err != nil || info.Mode().Perm()&0o111 == 0 {
		f.Close()
		return nil
	}
	return f
}

// seal makes what is in memory unchangeable, for us as well.
func seal(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	return err
}
