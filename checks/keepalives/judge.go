package keepalives

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

const (
	idle     = "keepalives_idle"     // seconds of silence before the first probe
	interval = "keepalives_interval" // seconds between probes
	count    = "keepalives_count"    // probes without an answer before the connection is dead
)

// timings are the three settings: what is advised, what Linux does when they are absent, and the most it accepts. Beyond
// that, and below 1, setsockopt fails and libpq gives the connection up: so it did with libpq 15.18 on Linux, although
// its documentation says that zero means the system's default.
var timings = []struct {
	keyword                string
	advised, kernels, most int
}{
	{idle, 10, 7200, 32767}, {interval, 10, 75, 32767}, {count, 3, 9, 127},
}

// How long it may take until a dead connection is noticed. Above, most firewalls and address translations have forgotten
// the connection; below, a short pause in a sound network ends it. What is advised lies between any two that can be set.
var (
	slowest = doctor.Threshold{ID: "keepalives/slowest", Title: "the longest time until a dead connection is noticed", Unit: "seconds",
		Default: 900, Min: 40, Max: 86400}
	fastest = doctor.Threshold{ID: "keepalives/fastest", Title: "the shortest time after which a connection is given up", Unit: "seconds",
		Default: 5, Min: 1, Max: 40}
)

// limits are the two as they apply, in seconds.
type limits struct{ slowest, fastest float64 }

func limitsOf(t *doctor.Target) limits { return limits{t.Threshold(slowest), t.Threshold(fastest)} }

// place is where the server is, seen from Synapse; the worst of several counts.
type place int

const (
	socket place = iota
	loopback
	network
)

// verdict is the fault of one database entry. There is at most one: the settings to make mend all that is wrong.
type verdict struct {
	code    string
	summary string
	place   place
	address string            // the host that decides
	set     []synapse.Setting // what to add or replace
}

// judge concludes from libpq's settings.
func judge(s pgdb.Settings, within limits) (verdict, bool) {
	v := verdict{}
	if v.place, v.address = where(s); v.place == socket {
		return v, false
	}
	on, off, invalid := true, false, ""
	if text, ok := s["keepalives"]; ok {
		n, err := parseInt(text)
		on = err == nil && n != 0
		off = err == nil && n == 0
		if err != nil {
			invalid = "keepalives"
		}
		if !on {
			v.set = append(v.set, synapse.Setting{Keyword: "keepalives", Value: 1})
		}
	}
	absent, total := 0, 0
	values := map[string]int{}
	for _, t := range timings {
		text, ok := s[t.keyword]
		n, err := parseInt(text)
		switch {
		case !ok:
			absent++
			n = t.kernels
		case err != nil || n < 1 || n > t.most:
			if on && invalid == "" { // libpq does not look at them when keepalives are off
				invalid = t.keyword
			}
		default:
			values[t.keyword] = n
			continue
		}
		values[t.keyword] = n
		v.set = append(v.set, synapse.Setting{Keyword: t.keyword, Value: t.advised})
	}
	total = values[idle] + values[interval]*values[count]
	switch {
	case invalid != "":
		v.code = Invalid
		v.summary = fmt.Sprintf("Synapse cannot connect to %s: %s has a value that libpq or the operating system refuses.", v.address, invalid)
	case off:
		v.code = SwitchedOff
		v.summary = fmt.Sprintf("Keepalives to %s are switched off: Synapse never notices that an idle connection has died.", v.address)
	case absent == len(timings):
		v.code = NotSet
		v.summary = fmt.Sprintf("No keepalives are set for %s: Synapse notices a dead connection only after the operating system's two hours.", v.address)
	case absent > 0:
		v.code = HalfSet
		v.summary = fmt.Sprintf("Only some keepalive settings are there for %s; with Linux's own values for the rest a dead connection is noticed after %s.",
			v.address, duration(total))
	case float64(total) > within.slowest:
		v.code, v.set = TooSlow, advised()
		v.summary = fmt.Sprintf("Synapse notices a dead connection to %s only after %s.", v.address, duration(total))
	case float64(total) < within.fastest:
		v.code, v.set = TooFast, advised()
		v.summary = fmt.Sprintf("Synapse gives a connection to %s up after %s without an answer, so a short pause in the network ends sound ones.",
			v.address, duration(total))
	default:
		return v, false
	}
	return v, true
}

func advised() []synapse.Setting {
	var set []synapse.Setting
	for _, t := range timings {
		set = append(set, synapse.Setting{Keyword: t.keyword, Value: t.advised})
	}
	return set
}

// parseInt reads an int as libpq does: blanks around it are no fault.
func parseInt(s string) (int, error) {
	n, err := strconv.ParseInt(strings.Trim(s, " \t\n\r\v\f"), 10, 64)
	if err == nil && (n > math.MaxInt32 || n < math.MinInt32) {
		err = strconv.ErrRange
	}
	return int(n), err
}

func duration(seconds int) string {
	switch {
	case seconds >= 7200:
		return fmt.Sprintf("%d hours", seconds/3600)
	case seconds >= 120:
		return fmt.Sprintf("%d minutes", seconds/60)
	}
	return fmt.Sprintf("%d seconds", seconds)
}

// where is the worst place that the lists of hosts lead to. An address in hostaddr counts before the name in host.
func where(s pgdb.Settings) (worst place, address string) {
	names, addrs := strings.Split(s["host"], ","), strings.Split(s["hostaddr"], ",")
	for i := range max(len(names), len(addrs)) {
		host := ""
		if i < len(names) {
			host = strings.TrimSpace(names[i])
		}
		if i < len(addrs) && strings.TrimSpace(addrs[i]) != "" {
			host = strings.TrimSpace(addrs[i])
		}
		if p := placeOf(host); address == "" || p > worst {
			worst, address = p, host
		}
	}
	return worst, address
}

func placeOf(host string) place {
	if host == "" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") {
		return socket
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.IsLoopback() {
			return loopback
		}
		return network
	}
	switch strings.ToLower(strings.TrimSuffix(host, ".")) {
	case "localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback":
		return loopback
	}
	return network
}
