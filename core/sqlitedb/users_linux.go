package sqlitedb

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inode is a file as the kernel knows it: bind mounts and hard links have the same one.
type inode struct{ device, number uint64 }

func inodeOf(info fs.FileInfo) (inode, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}, false
	}
	return inode{uint64(stat.Dev), stat.Ino}, true
}

// FindUsers looks through /proc for the processes that have the file path or its -wal open. This process is left out.
func FindUsers(path string) Users {
	wanted := map[inode]bool{}
	var mode fs.FileMode
	var owner uint32
	for i, p := range []string{path, path + "-wal"} {
		info, err := os.Stat(p)
		if err != nil {
			continue
		}
		if n, ok := inodeOf(info); ok {
			wanted[n] = true
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && i == 0 {
			owner, mode = stat.Uid, info.Mode()
		}
	}
	var u Users
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(dirs) == 0 {
		u.Unseen = -1
		return u
	}
	known := map[int]bool{os.Getpid(): true}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || known[pid] {
			continue
		}
		open, err := hasOpen(dir, wanted)
		switch {
		case open:
			known[pid] = true
			u.Seen = append(u.Seen, User{PID: pid, Command: commandOf(dir)})
		case errors.Is(err, fs.ErrPermission):
			if mayOpen(dir, owner, mode) {
				u.Unseen++
			}
		}
	}
	// Those of other users are not listed where /proc is mounted with hidepid.
	if _, err := os.Stat("/proc/1"); err != nil && os.Geteuid() != 0 {
		u.Unseen = -1
	}
	for _, pid := range lockers(wanted) {
		if !known[pid] {
			known[pid] = true
			u.Seen = append(u.Seen, User{PID: max(pid, 0), Command: commandOf(fmt.Sprintf("/proc/%d", pid))})
		}
	}
	return u
}

func hasOpen(dir string, wanted map[inode]bool) (bool, error) {
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return false, err
	}
	for _, fd := range fds {
		info, err := os.Stat(filepath.Join(dir, "fd", fd.Name()))
		if err != nil {
			continue // closed meanwhile, or a socket
		}
		if n, ok := inodeOf(info); ok && wanted[n] {
			return true, nil
		}
	}
	return false, nil
}

// mayOpen is whether a process whose files can't be seen is likely to have the database open: one of the file's owner, or of
// anybody where others may write it. Those of root are left out, unless root owns the file: it may open everything.
func mayOpen(dir string, owner uint32, mode fs.FileMode) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return !ok || stat.Uid == owner || mode.Perm()&0o022 != 0 && stat.Uid != 0
}

// commandOf is a process's program and, where that is an interpreter, the module or script that it runs. Other arguments may
// hold what nobody else should read.
func commandOf(dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil || len(text) == 0 {
		text, _ = os.ReadFile(filepath.Join(dir, "comm"))
		return shortened(strings.TrimSpace(string(text)))
	}
	args := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
	n := 1
	if len(args) > 1 && strings.HasPrefix(args[1], "/") {
		n = 2
	} else if len(args) > 2 && args[1] == "-m" {
		n = 3
	}
	return shortened(strings.Join(args[:n], " "))
}

func shortened(text string) string {
	if len(text) > commandLength {
		text = text[:commandLength] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// lockers are the processes that hold a lock on one of the files; 0 or less for one whose number is not known here. A process
// in a container that this one can't look into shows up only by its lock.
func lockers(wanted map[inode]bool) []int {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil
	}
	defer f.Close()
	var pids []int
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 1: POSIX  ADVISORY  READ 1234 08:01:5678 1073741826 1073742335
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] == "->" {
			continue
		}
		at := strings.Split(fields[5], ":")
		if len(at) != 3 {
			continue
		}
		major, err1 := strconv.ParseUint(at[0], 16, 32)
		minor, err2 := strconv.ParseUint(at[1], 16, 32)
		number, err3 := strconv.ParseUint(at[2], 10, 64)
		pid, err4 := strconv.Atoi(fields[4])
		if errors.Join(err1, err2, err3, err4) != nil || !wanted[inode{unix.Mkdev(uint32(major), uint32(minor)), number}] {
			continue
		}
		pids = append(pids, pid)
	}
	return pids
}
