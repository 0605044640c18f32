package pgdb

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ErrNotLocal is returned by [FindServer] when no PostgreSQL server of this machine was seen to listen at the endpoint.
var ErrNotLocal = errors.New("no PostgreSQL server of this machine was seen to listen there")

// FindServer finds the server that listens at the endpoint, by looking at who holds the listening socket. It needs the
// rights of root or of the server's own user; without them, and for other machines, the error is [ErrNotLocal].
func FindServer(e Endpoint) (LocalServer, error) {
	inode, err := listener(e)
	if err != nil {
		return LocalServer{}, err
	}
	pids, err := holders("socket:[" + inode + "]")
	if err != nil {
		return LocalServer{}, err
	}
	for _, pid := range pids {
		if s, err := serverOf(pid); err == nil {
			return s, nil
		}
	}
	return LocalServer{}, ErrNotLocal
}

// listener is the inode of the listening socket at the endpoint: the one at its very address, else the one at all addresses.
func listener(e Endpoint) (inode string, err error) {
	if e.Socket != "" {
		return unixListener(e.Socket)
	}
	if !ownAddress(e.Addr) {
		return "", ErrNotLocal
	}
	wild := netip.IPv4Unspecified()
	if e.Addr.Is6() {
		wild = netip.IPv6Unspecified()
	}
	for _, addr := range []netip.Addr{e.Addr.WithZone(""), wild} {
		if inode, err := tcpListener(netip.AddrPortFrom(addr, e.Port)); err == nil {
			return inode, nil
		}
	}
	return "", ErrNotLocal
}

func ownAddress(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range own {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(net.IP(addr.AsSlice())) {
			return true
		}
	}
	return false
}

// tcpListener looks an address up in /proc/net/tcp: each line has the local address, the remote one and the state.
func tcpListener(at netip.AddrPort) (inode string, err error) {
	const listening = "0A"
	path := "/proc/net/tcp"
	if at.Addr().Is6() {
		path = "/proc/net/tcp6"
	}
	want := fmt.Sprintf("%s:%04X", kernelHex(at.Addr().AsSlice()), at.Port())
	return findInode(path, 10, func(f []string) bool { return f[1] == want && f[3] == listening }, 9)
}

// kernelHex writes an address as the kernel does: words of four bytes, each in the machine's own order.
func kernelHex(addr []byte) string {
	var out strings.Builder
	for i := 0; i < len(addr); i += 4 {
		w := []byte{addr[i+3], addr[i+2], addr[i+1], addr[i]}
		if bigEndian {
			w = addr[i : i+4]
		}
		out.WriteString(strings.ToUpper(hex.EncodeToString(w)))
	}
	return out.String()
}

func unixListener(socket string) (inode string, err error) {
	const acceptsConnections = "00010000"
	want := resolved(socket)
	return findInode("/proc/net/unix", 8, func(f []string) bool {
		return f[3] == acceptsConnections && (f[7] == socket || resolved(f[7]) == want)
	}, 6)
}

// resolved is the path without symbolic links: /var/run is one.
func resolved(socket string) string {
	if dir, err := filepath.EvalSymlinks(filepath.Dir(socket)); err == nil {
		return filepath.Join(dir, filepath.Base(socket))
	}
	return socket
}

func findInode(path string, fields int, is func([]string) bool, column int) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if row := strings.Fields(lines.Text()); len(row) >= fields && is(row) {
			return row[column], nil
		}
	}
	return "", errors.Join(ErrNotLocal, lines.Err())
}

// holders are the processes that have the file open, as far as they may be looked at.
func holders(file string) ([]int, error) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		// The postmaster works in its data directory; others need not be looked through.
		if _, err := os.Stat(filepath.Join("/proc", p.Name(), "cwd", "global", "pg_control")); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		dir := filepath.Join("/proc", p.Name(), "fd")
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if target, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && target == file {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids, nil
}

// runsAs reports whether a process belongs to the user: anybody can work in a directory, and listen at a free port.
func runsAs(pid int, uid uint32) bool {
	info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == uid
}

// serverOf reads what a postmaster's working directory, which is its data directory, says of it.
func serverOf(pid int) (LocalServer, error) {
	s := LocalServer{PID: pid}
	cwd := fmt.Sprintf("/proc/%d/cwd", pid)
	text, err := os.ReadFile(filepath.Join(cwd, "postmaster.pid"))
	if err != nil {
		return s, err
	}
	if err := s.readLock(string(text)); err != nil {
		return s, err
	}
	if s.SystemID, err = SystemID(cwd); err != nil {
		return s, err
	}
	info, err := os.Stat(cwd)
	if err != nil {
		return s, err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		if !runsAs(pid, stat.Uid) {
			return s, fmt.Errorf("process %d is not the server of the directory that it works in", pid)
		}
		if u, err := user.LookupId(strconv.Itoa(int(stat.Uid))); err == nil {
			s.Owner = u.Username
		}
	}
	if dir, err := os.Readlink(cwd); err == nil {
		if here, err := os.Stat(dir); err == nil && os.SameFile(info, here) {
			s.DataDir = dir
		}
	}
	return s, nil
}
