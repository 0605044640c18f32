package tuning

import (
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// need is what Synapse wants of the server and of the machine, as its configuration tells.
type need struct {
	known       bool
	processes   int
	connections int
	how         string // the sum, for people
	cache       int64  // bytes of each process's caches
	cacheHow    string
}

// spare are connections for others than Synapse: an administrator, a backup, a monitor, workers that are configured elsewhere.
const spare = 20

// need reads what Synapse's processes open on this server, and how large their caches become.
func (s *server) need(c *synapse.Config) {
	if c == nil {
		return
	}
	n := need{known: true, processes: len(c.Processes())}
	var sums []string
	for _, d := range append([]*doctor.Database{s.db}, s.shared...) {
		e := c.Entry(d.Label)
		if e == nil {
			continue
		}
		n.connections += n.processes * e.CPMax
		sums = append(sums, fmt.Sprintf("%s × cp_max %d", count(n.processes, "process", "processes"), e.CPMax))
	}
	n.how = strings.Join(sums, " + ")
	n.cache, n.cacheHow = caches(c.Files)
	n.known = n.connections > 0
	s.opens = n
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// What a process of Synapse takes, seen from outside: the program itself, and its caches, which grow with global_factor to
// a size that no setting bounds. The estimates are for a homeserver that federates.
const (
	mainProcess  = 250 * mib
	workerOfIts  = 150 * mib
	cacheAtOne   = 400 * mib // with global_factor 1
	usualFactor  = 0.5
	leastForRest = 100 * mib // the operating system, and whatever else is there
)

// caches is how large the caches of a process become, by the caches section of the last file that has one.
func caches(files []string) (bytes int64, how string) {
	factor, most := usualFactor, int64(0)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // read before: the configuration was
		}
		var c struct {
			Caches *struct {
				Factor     *float64 `yaml:"global_factor"`
				Autotuning struct {
					Most any `yaml:"max_cache_memory_usage"`
				} `yaml:"cache_autotuning"`
			} `yaml:"caches"`
		}
		if yaml.Unmarshal(text, &c) != nil || c.Caches == nil {
			continue
		}
		factor, most = usualFactor, 0
		if f := c.Caches.Factor; f != nil && *f >= 0 && *f <= 1000 {
			factor = *f
		}
		switch v := c.Caches.Autotuning.Most.(type) {
		case int:
			most = int64(v)
		case string:
			most = synapseSize(v)
		}
	}
	if most > 0 {
		return most, "max_cache_memory_usage"
	}
	return int64(factor * float64(cacheAtOne)), fmt.Sprintf("global_factor %g", factor)
}

// synapseSize reads an amount as Synapse's configuration has it: 1024M.
func synapseSize(text string) int64 {
	text = strings.TrimSpace(text)
	for suffix, unit := range map[string]int64{"K": kib, "M": mib, "G": gib, "T": 1024 * gib} {
		if digits, ok := strings.CutSuffix(text, suffix); ok {
			var n int64
			if _, err := fmt.Sscan(digits, &n); err == nil && n > 0 && n < 1<<20 {
				return n * unit
			}
		}
	}
	return 0
}

// leaveOthers sets aside what Synapse and the rest of the machine need. At least a quarter of the memory stays PostgreSQL's:
// a machine that is too small for Synapse is not mended by a server without memory.
func (s *server) leaveOthers() {
	m := &s.machine
	if m.memory == 0 {
		return
	}
	rest := max(m.memory/10, min(leastForRest, m.memory/4))
	m.others, m.because = 0, nil
	take := func(amount int64, format string, args ...any) {
		m.others += amount
		m.because = append(m.because, row("−", amount, format, args...))
	}
	if m.own {
		take(m.memory/20, "a reserve: the limit is the server's alone")
		return
	}
	take(rest, "the operating system and the rest")
	if m.nearby && s.opens.known {
		programs := mainProcess + int64(s.opens.processes-1)*workerOfIts
		all := int64(s.opens.processes) * s.opens.cache
		if now, n := s.kernel.synapse(); now > programs+all {
			take(now, "what %s of Synapse hold now", count(n, "process", "processes"))
		} else {
			take(programs, "Synapse: %s", count(s.opens.processes, "process", "processes"))
			take(all, "their caches (%s, %s each)", s.opens.cacheHow, about(s.opens.cache))
		}
	}
	if most := m.memory * 3 / 4; m.others > most {
		m.because = append(m.because, row("+", m.others-most, "since a quarter is PostgreSQL's in any case"))
		m.others = most
	}
}

// memorySum is how what is left to PostgreSQL comes about.
func (m machine) memorySum() []string {
	sums := append([]string{row("", m.memory, "memory, %s", m.memoryFrom)}, m.because...)
	return append(sums, row("=", m.left(), "for PostgreSQL"))
}
