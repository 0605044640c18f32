package database

import (
	"fmt"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// need is how many connections Synapse opens to one database. Each process has a pool of its own for each database.
type need struct {
	processes []string
	cpMax     int
}

func needOf(c *synapse.Config, label string) need {
	n := need{processes: c.Processes()}
	if e := c.Entry(label); e != nil {
		n.cpMax = e.CPMax
	}
	return n
}

func (n need) connections() int { return len(n.processes) * n.cpMax }

// String names what the number comes from: 2 processes (main, sender1) × cp_max 10.
func (n need) String() string {
	if len(n.processes) == 1 {
		return fmt.Sprintf("1 process × cp_max %d", n.cpMax)
	}
	const most = 8
	names := n.processes
	more := ""
	if len(names) > most {
		names, more = names[:most], ", …"
	}
	return fmt.Sprintf("%d processes (%s%s) × cp_max %d", len(n.processes), strings.Join(names, ", "), more, n.cpMax)
}
