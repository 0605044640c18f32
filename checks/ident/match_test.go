package ident

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

var synapses = path{Database: "synapse", User: "synapse_user", Addr: netip.MustParseAddr("127.0.0.1")}

func TestFirstMatchDecides(t *testing.T) {
	socket, v6, tls, gss, mapped, far := synapses, synapses, synapses, synapses, synapses, synapses
	socket.Addr = netip.Addr{}
	v6.Addr = netip.MustParseAddr("::1")
	tls.TLS = true
	gss.GSS = true
	mapped.Addr = netip.MustParseAddr("::ffff:127.0.0.1")
	far.Addr = netip.MustParseAddr("192.0.2.7")
	w := world{
		Member: func(user, role string) (bool, error) {
			return user == "synapse_user" && (role == "group" || role == user), nil
		},
		Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("192.0.2.1/24")},
		Hostname: func(addr netip.Addr) (string, bool, error) {
			if addr == far.Addr {
				return "App.Example.com", true, nil
			}
			return "localhost", false, nil
		},
	}
	for _, c := range []struct {
		text  string
		path  path
		major int
		line  int // 0 for none
	}{
		{"local all all peer\nhost all all all md5", synapses, 15, 2},
		{"local all all peer\nhost all all all md5", socket, 15, 1},
		{"host all all ::1/128 md5\nhost all all 127.0.0.1/32 md5", synapses, 15, 2},
		{"host all all 127.0.0.1/32 md5\nhost all all ::1/128 md5", v6, 15, 2},
		{"host all all 127.0.0.1/32 md5", mapped, 15, 1},
		{"host all all ::ffff:127.0.0.1/128 md5", synapses, 15, 0},
		{"host all all 127.0.0.9/8 md5", synapses, 15, 1},
		{"host all all 127.0.9.1 255.0.0.255 md5", synapses, 15, 1},
		{"hostssl all all all md5\nhost all all all md5", synapses, 15, 2},
		{"hostnossl all all all md5\nhost all all all md5", tls, 15, 2},
		{"hostssl all all all md5\nhost all all all md5", tls, 15, 1},
		{"hostgssenc all all all md5\nhost all all all md5", synapses, 15, 2},
		{"hostgssenc all all all md5\nhost all all all md5", gss, 15, 1},
		{"hostnogssenc all all all md5\nhost all all all md5", gss, 15, 2},
		{"host replication all all md5", synapses, 15, 0},
		{"host replication all all md5", path{Database: "replication", User: "a", Addr: netip.MustParseAddr("::1")}, 15, 0},
		{`host "replication" all all md5`, path{Database: "replication", User: "a", Addr: netip.MustParseAddr("::1")}, 15, 1},
		{`host all all "samenet" md5`, far, 15, 0},
		{`host "all" all all md5`, synapses, 15, 0},
		{"host sameuser all all md5", synapses, 15, 0},
		{"host SYNAPSE all all md5", synapses, 15, 0},
		{"host other,synapse other,synapse_user all md5", synapses, 15, 1},
		{"host all +group all md5", synapses, 15, 1},
		{`host all "+group" all md5`, synapses, 15, 0},
		{"host all +other all md5", synapses, 15, 0},
		{"host all /^synapse_ all md5", synapses, 15, 0},
		{"host all /^synapse_ all md5", synapses, 16, 1},
		{`host "/^syn.*e$" all all md5`, synapses, 16, 1},
		{"host all all samehost md5", synapses, 15, 1},
		{"host all all samehost md5", far, 15, 0},
		{"host all all samenet md5", far, 15, 1},
		{"host all all app.example.COM md5", far, 15, 1},
		{"host all all .example.com md5", far, 15, 1},
		{"host all all .app.example.com md5", far, 15, 0},
		{"host all all localhost md5", synapses, 15, 0}, // the name does not lead back
		{"host all all all nonsense\nhost all all all md5", synapses, 15, 2},
	} {
		d := parseText(t, c.major, c.text).match(c.path, w)
		line := 0
		if d.Record != nil {
			line = d.Record.Line
		}
		if line != c.line || d.Undecided != "" {
			t.Errorf("PostgreSQL %d, %+v: line %d, and not %d (%s):\n%s", c.major, c.path, line, c.line, d.Undecided, c.text)
		}
	}
}

func TestSameRole(t *testing.T) {
	w := world{Member: func(user, role string) (bool, error) { return role == "synapse", nil }}
	for _, text := range []string{"host samerole all all md5", "host samegroup all all md5"} {
		if d := parseText(t, 15, text).match(synapses, w); d.Record == nil {
			t.Errorf("%s does not match", text)
		}
	}
}

func TestWhatIsNotKnownIsUndecidedWhereItMatters(t *testing.T) {
	failing := world{
		Member:   func(string, string) (bool, error) { return false, errors.New("no answer") },
		Regexp:   func(string, string) (bool, error) { return false, errors.New("no answer") },
		Hostname: func(netip.Addr) (string, bool, error) { return "", false, errors.New("no answer") },
	}
	for _, c := range []struct {
		text      string
		undecided bool
	}{
		{"host all +group all md5", true},
		{"host other +group all md5", false},
		{"host all +group,all all md5", false},
		{"host all +group,other all md5", true},
		{"host all +group ::1/128 md5", false},
		{"local all +group md5", false},
		{"host samerole all all md5", true},
		{"host all all samenet md5", true},
		{"host all other samenet md5", false},
		{"host all all localhost md5", true},
		{"host all other localhost md5", false},
		{"host all /(?i)SYN all md5", true},
		{"host all all fe80::1%eth0/0 md5\nhost all all all md5", false},
		{"hostssl all +group all md5", false}, // it is not encrypted anyway
	} {
		for name, w := range map[string]world{"nothing known": {}, "failing": failing} {
			d := parseText(t, 16, c.text).match(synapses, w)
			if d.Undecided != "" != c.undecided {
				t.Errorf("%s, %s: undecided %q", name, c.text, d.Undecided)
			}
			if c.undecided && (d.Record == nil || !strings.HasPrefix(d.Undecided, d.Record.where()+": ")) {
				t.Errorf("%s: %+v", c.text, d)
			}
		}
	}
	linkLocal := synapses
	linkLocal.Addr = netip.MustParseAddr("fe80::1%eth1")
	if d := parseText(t, 16, "host all all fe80::1%eth0/64 md5").match(linkLocal, world{}); d.Undecided == "" {
		t.Error("whether a network interface is there is not known")
	}
}

func TestRecordsThatWantTLSAreNamed(t *testing.T) {
	text := "hostssl all all all md5\nhostssl other all all md5\nhostssl all +group all md5\nhostssl all synapse_user 127.0.0.1/32 md5\nhost all all all md5\nhostssl all all all md5"
	r := parseText(t, 15, text)
	d := r.match(synapses, world{})
	var lines []int
	for _, rec := range d.NeedTLS {
		lines = append(lines, rec.Line)
	}
	if len(lines) != 2 || lines[0] != 1 || lines[1] != 4 || d.Record.Line != 5 {
		t.Errorf("lines %v would take it with TLS, line %d decides", lines, d.Record.Line)
	}
	tls := synapses
	tls.TLS = true
	if d := r.match(tls, world{}); len(d.NeedTLS) != 0 || d.Record.Line != 1 {
		t.Errorf("%+v", d)
	}
}

func TestPlainPatterns(t *testing.T) {
	for pattern, plain := range map[string]bool{
		"^synapse": true, "synapse$": true, "^(a|b)+$": true, `^db_\d+$`: true, "a.b": true, "[a-z]+": true, `\.`: true, "[^0-9]": true,
		"": false, "a**": false, "^*": false, "(": false, "a|": false, "(?i)a": false, "***=a": false, "a{2}": false, "a+?": false,
		`\y`: false, "[[:alpha:]]": false, "é": false, "[z-a]": false, "()": false, "*a": false,
	} {
		if plainPattern(pattern) != plain {
			t.Errorf("%q: plain is not %v", pattern, plain)
		}
	}
	if is, ok := plainMatch("^a.b$", "a\nb"); !is || !ok {
		t.Error("to PostgreSQL a newline is a character like others")
	}
	if _, ok := plainMatch("^.$", "é"); ok {
		t.Error("how many characters it has depends on the encoding")
	}
}

func TestHostNames(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"db.example.com", "DB.Example.COM", true},
		{".example.com", "db.example.com", true},
		{".example.com", ".example.com", true},
		{".example.com", "example.com", false},
		{".example.com", "m", false},
		{"example.com", "db.example.com", false},
		{"", "localhost", false},
		{"\u00c4", "\u00e4", false}, // only ASCII letters have a case
	} {
		if got := matchesHostname(c.pattern, c.name); got != c.want {
			t.Errorf("%q is for %q: %v", c.pattern, c.name, got)
		}
	}
}
