package upkeep

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// size writes bytes as PostgreSQL does, in units of 1024: 12.3 GB.
func size(bytes float64) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB"}
	i := 0
	for math.Abs(bytes) >= 1024 && i < len(units)-1 {
		bytes /= 1024
		i++
	}
	if i < 2 || bytes == math.Trunc(bytes) {
		return fmt.Sprintf("%.0f %s", bytes, units[i])
	}
	return fmt.Sprintf("%.1f %s", bytes, units[i])
}

// number writes a large count: 1.2 million.
func number(n float64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f billion", n/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f million", n/1e6)
	}
	return fmt.Sprintf("%.0f", n)
}

// count is n of something: 1 session, 3 sessions.
func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// age writes how long something lasts: 3 days, 5 hours, 12 minutes.
func age(d time.Duration) string {
	for _, u := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if d >= 2*u.of {
			return count(int(d/u.of), u.name)
		}
	}
	return count(int(d.Seconds()), "second")
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// shortened lists the first few.
func shortened(list []string, limit int) string {
	if len(list) <= limit {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:limit], ", "), len(list)-limit)
}

// literal is s as a constant in SQL.
func literal(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

func identifier(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// name is an identifier that is quoted only where it has to be, as it reads best in a command to copy.
func name(parts ...string) string {
	out := make([]string, len(parts))
	for i, p := range parts {
		out[i] = p
		if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" || strings.ContainsAny(p[:1], "0123456789") {
			out[i] = identifier(p)
		}
	}
	return strings.Join(out, ".")
}
