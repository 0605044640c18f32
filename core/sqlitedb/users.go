package sqlitedb

import (
	"fmt"
	"strings"
)

// User is a process that has a database file, or its -wal, open.
type User struct {
	PID     int    // 0 when only its lock is seen, as of a process in another container
	Command string // its program, and the module or script that it runs; empty when that can't be read
}

func (u User) String() string {
	switch {
	case u.PID == 0:
		return "a process that can't be seen from here"
	case u.Command == "":
		return fmt.Sprintf("process %d", u.PID)
	}
	return fmt.Sprintf("process %d (%s)", u.PID, u.Command)
}

// Users are the processes that have a file open (this process apart), and how far that could be seen.
type Users struct {
	Seen []User
	// Unseen counts the processes that could have it open, and whose files this process may not look at. -1: none could be
	// looked at.
	Unseen int
}

// Any reports whether a process is known to have the file open.
func (u Users) Any() bool { return len(u.Seen) > 0 }

// Nobody reports whether it is known that no process has the file open.
func (u Users) Nobody() bool { return len(u.Seen) == 0 && u.Unseen == 0 }

// String names the processes.
func (u Users) String() string {
	var names []string
	for _, s := range u.Seen {
		names = append(names, s.String())
	}
	return strings.Join(names, ", ")
}

// commandLength is the most bytes that are told of a command.
const commandLength = 120
