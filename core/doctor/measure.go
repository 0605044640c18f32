package doctor

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// Threshold is a number from which on a check complains. The administrator may set another one in the doctor's configuration.
type Threshold struct {
	ID       string  // check/kebab-name; stable for ever
	Title    string  // what is compared with it, in a few words
	Unit     string  // rows, bytes, days, percent; empty for a mere number
	Default  float64 // within Min and Max
	Min, Max float64
}

// Allows says, in a sentence, why v can't be the threshold's value; nil when it can.
func (t Threshold) Allows(v float64) error {
	if v >= t.Min && v <= t.Max {
		return nil
	}
	unit := t.Unit
	if unit != "" {
		unit = " " + unit
	}
	return fmt.Errorf("%s can be %s to %s%s, not %s", t.ID, Number(t.Min), Number(t.Max), unit, Number(v))
}

// Number writes a number as it is written in a configuration.
func Number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.FormatInt(int64(v), 10)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// Measure is a number that a check took, whether or not it complains of it, so that runs can be compared: the size of a table.
type Measure struct {
	Check    string  // filled in by the host
	Database string  // label; filled in where the target has just one
	Object   Object  // what was measured
	Name     string  // lower-case words joined by hyphens: size, dead-rows
	Value    float64 // finite
	Unit     string  // bytes, rows, percent, seconds, transactions; fingerprint for one that only tells a change, and is not shown; empty for a mere number
	// At is when an earlier run took it, to the second; zero for one that has just been taken.
	At time.Time
}

// MeasureKey is what makes two measures of different runs comparable.
type MeasureKey struct {
	Check, Database string
	Object          Object
	Name            string
}

// Key returns the measure's key.
func (m Measure) Key() MeasureKey { return MeasureKey{m.Check, m.Database, m.Object, m.Name} }

// Earlier is what was measured before, of each check the measures of one run.
type Earlier struct {
	At       time.Time // when the newest of them was taken; zero: there is none
	Measures []Measure // each with its At
}

// NewEarlier makes it of measures that have their At.
func NewEarlier(measures []Measure) Earlier {
	e := Earlier{Measures: measures}
	for _, m := range measures {
		if m.At.After(e.At) {
			e.At = m.At
		}
	}
	return e
}

// Of is what concerns some of the checks.
func (e Earlier) Of(checks ...string) Earlier {
	var theirs []Measure
	for _, m := range e.Measures {
		if slices.Contains(checks, m.Check) {
			theirs = append(theirs, m)
		}
	}
	return NewEarlier(theirs)
}

// Find returns what was measured under this key.
func (e Earlier) Find(k MeasureKey) (Measure, bool) {
	for _, m := range e.Measures {
		if m.Key() == k {
			return m, true
		}
	}
	return Measure{}, false
}

// Disk is the kind of a database server's disk.
type Disk string

const (
	DiskUnknown Disk = ""
	DiskSSD     Disk = "ssd"
	DiskHDD     Disk = "hdd"
)

// ParseDisk accepts the two words.
func ParseDisk(s string) (Disk, error) {
	switch d := Disk(s); d {
	case DiskSSD, DiskHDD:
		return d, nil
	}
	return DiskUnknown, fmt.Errorf("%q is not a kind of disk: ssd or hdd", s)
}

// Machine is what the administrator says of the database server's machine. A zero value was not given.
type Machine struct {
	Memory int64 // --db-memory, bytes
	CPUs   int   // --db-cpus
	Disk   Disk  // --db-disk
}
