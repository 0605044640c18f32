package pgdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// socketDirs are where servers put their socket: Debian's directory, and the one that PostgreSQL itself has built in.
var socketDirs = []string{"/var/run/postgresql", "/tmp"}

func defaultSocketDir() string {
	if info, err := os.Stat(socketDirs[0]); err == nil && info.IsDir() {
		return socketDirs[0]
	}
	return socketDirs[1]
}

// host is one element of the lists host, hostaddr and port, which libpq reads in parallel.
type host struct{ name, addr, port string }

func (s Settings) hosts() ([]host, error) {
	names, addrs, ports := strings.Split(s["host"], ","), strings.Split(s["hostaddr"], ","), strings.Split(s["port"], ",")
	count := len(names)
	if s["hostaddr"] != "" {
		count = len(addrs)
		if s["host"] != "" && len(names) != count {
			return nil, fmt.Errorf("host lists %d hosts, but hostaddr %d", len(names), count)
		}
	}
	if len(ports) != 1 && len(ports) != count {
		return nil, fmt.Errorf("port lists %d ports for %d hosts", len(ports), count)
	}
	hosts := make([]host, count)
	for i := range hosts {
		h := host{port: ports[min(i, len(ports)-1)]}
		if i < len(names) {
			h.name = names[i]
		}
		if s["hostaddr"] != "" {
			h.addr = addrs[i]
		}
		if h.name == "" && h.addr == "" {
			h.name = defaultSocketDir()
		}
		if h.port == "" {
			h.port = "5432"
		}
		if n, err := strconv.Atoi(h.port); err != nil || n < 1 || n > 65535 {
			return nil, errors.New("port is not a number from 1 to 65535") // not quoted: in a malformed URL it is a piece of the password
		}
		hosts[i] = h
	}
	return hosts, nil
}

// Endpoint is one place where a server may listen: a socket, or one address of a host.
type Endpoint struct {
	Host    string     // as configured; empty when only an address is
	Addr    netip.Addr // the zero address for a socket, and for a name that was not resolved
	Port    uint16
	Socket  string // path of the socket; empty for TCP
	host    host
	failure error // why the name was not resolved
}

// String is what an administrator would recognise: 127.0.0.1:5432, [::1]:5432 or the path of the socket.
func (e Endpoint) String() string {
	switch {
	case e.Socket != "":
		return e.Socket
	case e.Addr.IsValid():
		return netip.AddrPortFrom(e.Addr, e.Port).String()
	}
	return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
}

// Resolved reports whether there is an address to connect to.
func (e Endpoint) Resolved() bool { return e.failure == nil }

// Endpoints lists every place that a connection may go to, in the order in which libpq tries them: host by host, and
// each address of a host. A name without an address is there too; connecting to it says why.
// The error is one of the settings themselves.
func (s Settings) Endpoints(ctx context.Context) ([]Endpoint, error) {
	hosts, err := s.hosts()
	if err != nil {
		return nil, &ConnectError{Phase: PhaseSettings, Err: err}
	}
	var endpoints []Endpoint
	for _, h := range hosts {
		port, _ := strconv.Atoi(h.port) // hosts has checked it
		e := Endpoint{Host: h.name, Port: uint16(port), host: h}
		if h.addr == "" && (strings.HasPrefix(h.name, "/") || strings.HasPrefix(h.name, "@")) {
			e.Socket = filepath.Join(h.name, ".s.PGSQL."+h.port)
			endpoints = append(endpoints, e)
			continue
		}
		var addrs []netip.Addr
		if h.addr != "" {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(h.addr); err != nil {
				return nil, &ConnectError{Phase: PhaseSettings, Err: fmt.Errorf("hostaddr %q is not an IP address", h.addr)}
			}
			addrs = []netip.Addr{addr}
		} else if addrs, e.failure = net.DefaultResolver.LookupNetIP(ctx, "ip", h.name); e.failure != nil {
			endpoints = append(endpoints, e)
			continue
		}
		var seen []netip.Addr
		for _, addr := range addrs {
			if addr = addr.Unmap(); !slices.Contains(seen, addr) {
				seen = append(seen, addr)
				e.Addr = addr
				endpoints = append(endpoints, e)
			}
		}
	}
	return endpoints, nil
}

// dial opens the network connection, with libpq's keepalive settings on it.
func (s Settings) dial(ctx context.Context, e Endpoint, osUser string) (net.Conn, error) {
	if e.Socket != "" {
		dialSocket := func() (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", e.Socket) }
		if osUser != "" {
			dialSocket = func() (net.Conn, error) { return dialAs(ctx, osUser, e.Socket) }
		}
		conn, err := dialSocket()
		if err != nil {
			return nil, err
		}
		if err := checkPeer(conn.(*net.UnixConn), s["requirepeer"]); err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	}
	d, err := s.dialer()
	if err != nil {
		return nil, err
	}
	return d.DialContext(ctx, "tcp", netip.AddrPortFrom(e.Addr, e.Port).String())
}

func (s Settings) dialer() (*net.Dialer, error) {
	numbers := map[string]int{"keepalives": 1}
	for _, name := range []string{"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"} {
		n, err := s.number(name, numbers[name])
		if err != nil {
			return nil, err
		}
		numbers[name] = n
	}
	d := &net.Dialer{KeepAlive: -1, Control: userTimeout(numbers["tcp_user_timeout"])}
	if numbers["keepalives"] != 0 {
		d.KeepAliveConfig = net.KeepAliveConfig{
			Enable:   true,
			Idle:     seconds(numbers["keepalives_idle"]),
			Interval: seconds(numbers["keepalives_interval"]),
			Count:    orSystem(numbers["keepalives_count"]),
		}
	}
	return d, nil
}

// number reads a whole number as libpq does: surrounded by spaces at most.
func (s Settings) number(name string, absent int) (int, error) {
	text, ok := s[name]
	if !ok || text == "" {
		return absent, nil
	}
	n, err := strconv.ParseInt(strings.Trim(text, spaces), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s=%s is not a whole number", name, quote(text))
	}
	return int(n), nil
}
