package pgdb

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// LocalServer is a PostgreSQL server on this machine, as the operating system shows it: nobody has to log in for that.
type LocalServer struct {
	PID      int    // of the postmaster
	SystemID string // from the control file; empty when that may not be read
	// DataDir is empty when its path means something else here, as with a server in a container.
	DataDir string
	Owner   string // the user of the operating system as whom the server runs
	Lock    string // the content of postmaster.pid, which no two servers share

	Port      int
	SocketDir string // empty when it has no socket
}

// bigEndian is the byte order of this machine.
var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// SystemID reads the system identifier from the control file of a data directory. It is the first field in it, in the
// byte order of the machine that the server runs on (pg_control.h; unchanged since PostgreSQL 8.0).
func SystemID(dataDir string) (string, error) {
	f, err := os.Open(filepath.Join(dataDir, "global", "pg_control"))
	if err != nil {
		return "", fmt.Errorf("read the control file: %w", err)
	}
	defer f.Close()
	var id [8]byte
	if _, err := io.ReadFull(f, id[:]); err != nil {
		return "", fmt.Errorf("read the control file %s: %w", f.Name(), err)
	}
	return strconv.FormatUint(binary.NativeEndian.Uint64(id[:]), 10), nil
}

// readLock takes port and socket from postmaster.pid, whose lines are the process, the data directory, the time of the
// start, the port, the socket's directory and the address (miscadmin.h, LOCK_FILE_LINE_*).
func (s *LocalServer) readLock(text string) error {
	lines := strings.Split(text, "\n")
	if len(lines) < 5 || strings.TrimSpace(lines[0]) != strconv.Itoa(s.PID) {
		return fmt.Errorf("postmaster.pid is not of process %d", s.PID)
	}
	port, err := strconv.Atoi(strings.TrimSpace(lines[3]))
	if err != nil {
		return fmt.Errorf("postmaster.pid: the port %q is not a number", lines[3])
	}
	s.Lock, s.Port, s.SocketDir = text, port, strings.TrimSpace(lines[4])
	return nil
}
