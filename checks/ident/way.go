package ident

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// way is one address at which Synapse connects, with what became of an attempt and what pg_hba.conf says of it.
// localhost is two: the server judges 127.0.0.1 and ::1 apart.
type way struct {
	endpoint pgdb.Endpoint
	client   netip.Addr         // Synapse's address as the server sees it; the zero Addr is the socket
	unsure   string             // why client is not known for certain
	failure  *pgdb.ConnectError // nil: the login works
	later    bool               // libpq comes to it only when the ways before it do not answer

	tls       []bool     // the attempts that libpq makes: encrypted or not
	decisions []decision // one for each
}

// afterAuthentication are refusals by a server that had already accepted the role and its password.
var afterAuthentication = []string{"3D000", "42501", "53300"}

// accepted reports whether the server lets the role in, whatever becomes of the session then.
func (w way) accepted() bool {
	return w.failure == nil || w.failure.Phase == pgdb.PhaseSession || slices.Contains(afterAuthentication, w.failure.SQLSTATE)
}

// refused reports whether the server, and not the network, said no.
func (w way) refused() bool {
	return !w.accepted() && (errors.Is(w.failure, pgdb.ErrNoPassword) || w.failure.SQLSTATE == "28000" || w.failure.SQLSTATE == "28P01")
}

// decision is the one about the attempt that libpq makes first.
func (w way) decision() decision {
	if len(w.decisions) == 0 {
		return decision{}
	}
	return w.decisions[0]
}

// where is how findings call the way.
func (w way) where() string {
	if !w.client.IsValid() {
		return "the local socket"
	}
	return w.client.String()
}

// ways tries each address. An address at which nobody answers is no way: that is for the check connection to say.
func ways(ctx context.Context, d *doctor.Database) ([]way, error) {
	endpoints, err := d.Settings.Endpoints(ctx)
	if err != nil {
		return nil, doctor.SkipFailed("no connection to %s: %v", d.Where(), err)
	}
	if d.Settings["hostaddr"] == "" {
		endpoints = bothLoopbacks(endpoints)
	}
	var list []way
	var silent error
	stopped := false
	for _, e := range endpoints {
		w := way{endpoint: e, later: stopped}
		options := d.Options()
		options.ReadOnly = true
		conn, err := pgdb.ConnectEndpoint(ctx, d.Settings, e, options)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil {
			err = w.seen(ctx, conn)
			pgdb.Close(conn)
			if err != nil {
				return nil, err
			}
		} else if failure, ok := errors.AsType[*pgdb.ConnectError](err); !ok || failure.TriesNext() || !w.fails(failure, d.DataDir != "") {
			silent = err
			continue
		}
		stopped = true
		list = append(list, w)
	}
	if len(list) == 0 {
		return nil, doctor.SkipFailed("no connection to %s: %v", d.Where(), silent)
	}
	return list, nil
}

// bothLoopbacks has localhost stand for 127.0.0.1 and ::1, whatever this machine's hosts file says: Synapse may run where
// it says otherwise, and glibc's own answer is both, ::1 first.
func bothLoopbacks(endpoints []pgdb.Endpoint) []pgdb.Endpoint {
	list := slices.Clone(endpoints)
	for _, e := range endpoints {
		if e.Host != "localhost" {
			continue
		}
		for _, addr := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
			other := e
			other.Addr = addr
			if !slices.ContainsFunc(list, func(x pgdb.Endpoint) bool { return x.Addr == addr && x.Port == e.Port }) {
				list = append(list, other)
			}
		}
	}
	return list
}

// seen asks a session how the server sees its client.
func (w *way) seen(ctx context.Context, conn *pgx.Conn) error {
	client, err := clientAddress(ctx, conn)
	if err != nil {
		return fmt.Errorf("ask for the client's address: %w", err)
	}
	w.client = client
	return nil
}

// clientAddress is this end's address as the server sees it; the zero Addr at a socket.
func clientAddress(ctx context.Context, c interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) (netip.Addr, error) {
	var text *string
	if err := c.QueryRow(ctx, `SELECT host(inet_client_addr())`).Scan(&text); err != nil || text == nil {
		return netip.Addr{}, err
	}
	addr, err := netip.ParseAddr(*text)
	return addr.Unmap().WithZone(""), err
}

// fails takes a failure that the server itself has caused, and reports whether it is one. here: the server's processes are
// on this machine, so that nothing can stand between. A container's published port has a proxy there.
func (w *way) fails(failure *pgdb.ConnectError, here bool) bool {
	w.failure = failure
	if !w.refused() && !w.accepted() {
		return false
	}
	if w.endpoint.Socket != "" {
		return true
	}
	// Where no translation of addresses lies between, the server sees the address from which the system would send.
	conn, err := net.Dial("udp", netip.AddrPortFrom(w.endpoint.Addr, w.endpoint.Port).String())
	if err != nil {
		w.unsure = err.Error()
		return true
	}
	defer conn.Close()
	if from, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		w.client = from.AddrPort().Addr().Unmap().WithZone("")
	}
	if !here {
		w.unsure = "a router or container network in between may show the server another address"
	}
	return true
}

// encryptions are the attempts that libpq makes at one address, encrypted or not, by sslmode.
func encryptions(s pgdb.Settings, e pgdb.Endpoint, offered bool) []bool {
	if e.Socket != "" {
		return []bool{false}
	}
	switch mode := s["sslmode"]; {
	case mode == "disable", (mode == "" || mode == "prefer" || mode == "allow") && !offered:
		return []bool{false}
	case mode == "allow":
		return []bool{false, true}
	case mode == "" || mode == "prefer":
		return []bool{true, false}
	}
	return []bool{true}
}
