package tuning

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"unicode"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// units are PostgreSQL's for amounts of memory, the largest first; each is 1024 of the next.
var units = []struct {
	name  string
	bytes int64
}{{"TB", 1 << 40}, {"GB", gib}, {"MB", mib}, {"kB", kib}, {"B", 1}}

// size writes an amount of memory as a setting: in the largest unit that divides it.
func size(b int64) string {
	for _, u := range units {
		if b != 0 && b%u.bytes == 0 {
			return strconv.FormatInt(b/u.bytes, 10) + u.name
		}
	}
	return "0"
}

// about writes an amount for people.
func about(b int64) string {
	f := float64(b)
	switch {
	case b < 0:
		return "-" + about(-b)
	case b >= 10*gib:
		return fmt.Sprintf("%.0f GiB", f/float64(gib))
	case b >= gib:
		return fmt.Sprintf("%.1f GiB", f/float64(gib))
	case b >= mib:
		return fmt.Sprintf("%.0f MiB", f/float64(mib))
	}
	return fmt.Sprintf("%.0f KiB", f/float64(kib))
}

// nice rounds down to a value with at most three significant bits, as people write them: 112MB, 1GB, 1280MB.
func nice(b int64) int64 {
	if b < 4*mib {
		return max(b/mib*mib, mib)
	}
	step := int64(1) << (bits.Len64(uint64(b)) - 3)
	return b / step * step
}

// niceUp is nice, but never below b.
func niceUp(b int64) int64 {
	n := nice(b)
	for n < b {
		n += int64(1) << max(bits.Len64(uint64(n))-3, 20)
	}
	return n
}

// parse reads a setting as it stands in a file, or in pg_settings, where unit is what a bare number counts. For memory that
// is bytes; a time becomes seconds; a mere number itself.
func parse(text, unit string) (float64, bool) {
	text = strings.TrimSpace(text)
	switch strings.ToLower(text) {
	case "on", "true", "yes":
		return 1, true
	case "off", "false", "no":
		return 0, true
	}
	digits := strings.TrimRightFunc(text, func(r rune) bool { return unicode.IsLetter(r) || r == ' ' })
	n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if err != nil || math.IsNaN(n) {
		return 0, false
	}
	suffix := strings.TrimSpace(text[len(digits):])
	if suffix == "" {
		if n < 0 { // -1 is a word, not an amount
			return n, true
		}
		return n * factor(unit), true
	}
	f, ok := factors[suffix]
	return n * f, ok
}

var factors = map[string]float64{
	"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40,
	"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400,
}

// factor is what one of a unit of pg_settings is: 8kB, MB, s, ms.
func factor(unit string) float64 {
	count := strings.TrimRight(unit, "kMGTBminsdhu")
	f, ok := factors[unit[len(count):]]
	if !ok {
		return 1
	}
	if n, err := strconv.ParseFloat(count, 64); err == nil {
		return n * f
	}
	return f
}

// row is one line of a sum: what is added, and what it is.
func row(sign string, amount int64, format string, args ...any) string {
	return fmt.Sprintf("%1s %8s  %s", sign, about(amount), fmt.Sprintf(format, args...))
}

func percent(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * part / whole
}
