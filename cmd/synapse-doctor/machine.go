package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// machineFlags say what the database server's machine is like, where that can't be read because it is another one.
type machineFlags struct{ memory, cpus, disk string }

func (m *machineFlags) register(f *pflag.FlagSet) {
	f.StringVar(&m.memory, "db-memory", "", "the memory of the database server's machine, a `SIZE` such as 16GiB, where that is another machine (default: it is read where the server is local)")
	f.StringVar(&m.cpus, "db-cpus", "", "the `NUMBER` of its CPUs")
	f.StringVar(&m.disk, "db-disk", "", "the `KIND` of its disk: ssd or hdd")
}

func (m *machineFlags) repeated() []string {
	var flags []string
	for _, f := range []struct{ name, value string }{{"--db-memory", m.memory}, {"--db-cpus", m.cpus}, {"--db-disk", m.disk}} {
		if f.value != "" {
			flags = append(flags, f.name, f.value)
		}
	}
	return flags
}

func (m *machineFlags) machine() (doctor.Machine, error) {
	var out doctor.Machine
	var err error
	if m.memory != "" {
		if out.Memory, err = parseSize(m.memory); err != nil {
			return out, fmt.Errorf("--db-memory: %w", err)
		}
	}
	if m.cpus != "" {
		if out.CPUs, err = strconv.Atoi(m.cpus); err != nil || out.CPUs < 1 || out.CPUs > 100_000 {
			return out, fmt.Errorf("--db-cpus: %q is not a number of CPUs", m.cpus)
		}
	}
	if m.disk != "" {
		if out.Disk, err = doctor.ParseDisk(m.disk); err != nil {
			return out, fmt.Errorf("--db-disk: %w", err)
		}
	}
	return out, nil
}

// parseSize reads a number of bytes: 16GiB, 16GB and 16G are the same, as people mean them.
func parseSize(s string) (int64, error) {
	number := strings.TrimRight(s, "KMGTiBkmgtb ")
	unit := strings.ToUpper(strings.TrimSpace(s[len(number):]))
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "B"), "I")
	shift, known := map[string]int{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]
	v, err := strconv.ParseFloat(number, 64)
	bytes := math.Ldexp(v, shift)
	if err != nil || !known || !(bytes >= 1<<20) || bytes > 1<<50 {
		return 0, fmt.Errorf("%q is not a size such as 16GiB", s)
	}
	return int64(bytes), nil
}
