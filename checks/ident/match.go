package ident

import (
	"fmt"
	"net/netip"
)

// path is one way in which Synapse connects.
type path struct {
	Database, User string
	Addr           netip.Addr // the client's, as the server sees it; the zero Addr is the local socket
	TLS, GSS       bool       // encrypted with the one or the other
}

// world is what the server knows and the file does not say. A nil function means that it can't be told.
type world struct {
	// Member is whether user is in role, directly or not. A role is in itself, a superuser only where it was put, and
	// in a role that does not exist is nobody.
	Member func(user, role string) (bool, error)
	// Regexp is what PostgreSQL's ~ with the collation "C" decides. Without it only patterns are decided that mean the
	// same in Go.
	Regexp func(pattern, subject string) (bool, error)
	// Networks are the addresses of the server's interfaces, each with its mask; nil when they are not known.
	Networks []netip.Prefix
	// Hostname looks an address up as the server does. The name is empty when there is none, and confirmed when the
	// address is among those that the name has.
	Hostname func(addr netip.Addr) (name string, confirmed bool, err error)
}

// decision is what becomes of a connection.
type decision struct {
	// Record is the first that matches; nil when none does.
	Record *record
	// Undecided is why it can't be told, with the record's place. Record is then the one at which it could not.
	Undecided string
	// NeedTLS are the hostssl records that were passed over before only because the connection is not encrypted.
	NeedTLS []*record
}

// match finds the record that decides about a connection. Records that make the server refuse the file are passed over.
func (r *rules) match(p path, w world) decision {
	p.Addr = p.Addr.WithZone("").Unmap()
	m := matcher{major: r.Major, path: p, world: w}
	var d decision
	for i := range r.Records {
		rec := &r.Records[i]
		if rec.Fault != "" || !p.reaches(rec.Type) {
			continue
		}
		a := m.record(rec)
		if a.no() {
			continue
		}
		if rec.Type == "hostssl" && !p.TLS {
			if a.yes() {
				d.NeedTLS = append(d.NeedTLS, rec)
			}
			continue
		}
		d.Record = rec
		if !a.yes() {
			d.Undecided = rec.where() + ": " + a.unknown
		}
		return d
	}
	return d
}

// reachesTheNetwork is whether a record may be for more than this machine.
func (r *record) reachesTheNetwork() bool {
	a := r.Address
	if r.Type == "local" || a.Kind == sameHost {
		return false
	}
	if a.Kind != masked || !a.Addr.IsLoopback() {
		return true
	}
	bits, ok := a.bits()
	return !ok || bits < 8 || a.Addr.Is6() && bits < a.Addr.BitLen()
}

// reaches is whether records of this type are for such a connection, if it were encrypted with TLS where they want that.
func (p path) reaches(connectionType string) bool {
	if !p.Addr.IsValid() {
		return connectionType == "local"
	}
	switch connectionType {
	case "local":
		return false
	case "hostnossl":
		return !p.TLS
	case "hostgssenc":
		return p.GSS
	case "hostnogssenc":
		return !p.GSS
	}
	return true
}

// answer is yes, no, or why it can't be told.
type answer struct {
	is      bool
	unknown string
}

func (a answer) yes() bool { return a.is && a.unknown == "" }
func (a answer) no() bool  { return !a.is && a.unknown == "" }

func decided(is bool) answer { return answer{is: is} }

func unknown(format string, args ...any) answer {
	return answer{unknown: fmt.Sprintf(format, args...)}
}

// asked is the answer of a function that may be missing or fail.
func asked(what string, is bool, err error) answer {
	if err != nil {
		return unknown("%s: %v", what, err)
	}
	return decided(is)
}

type matcher struct {
	major int
	path  path
	world world
}

// record is whether a record's address, database and role are those of the connection. What can't be told matters only
// when all the rest fits.
func (m matcher) record(r *record) answer {
	result := decided(true)
	for _, part := range []func() answer{
		func() answer { return m.any(r.Databases, m.database) },
		func() answer { return m.any(r.Users, m.user) },
		func() answer { return m.address(r.Address) },
	} {
		switch a := part(); {
		case a.no():
			return a
		case !a.yes() && result.yes():
			result = a
		}
	}
	return result
}

// any is whether one of a list matches.
func (m matcher) any(list []token, matches func(token) answer) answer {
	result := decided(false)
	for _, t := range list {
		switch a := matches(t); {
		case a.yes():
			return a
		case !a.no() && result.no():
			result = a
		}
	}
	return result
}

func (m matcher) database(t token) answer {
	switch {
	case t.keyword("all"):
		return decided(true)
	case t.keyword("sameuser"):
		return decided(m.path.Database == m.path.User)
	case t.keyword("samegroup", "samerole"):
		return m.member(m.path.Database)
	case t.keyword("replication"): // physical replication connects to no database
		return decided(false)
	}
	return m.name(t, m.path.Database)
}

func (m matcher) user(t token) answer {
	switch {
	case !t.Quoted && t.Text != "" && t.Text[0] == '+':
		return m.member(t.Text[1:])
	case t.keyword("all"):
		return decided(true)
	}
	return m.name(t, m.path.User)
}

func (m matcher) member(role string) answer {
	what := fmt.Sprintf("whether %q is a member of %q", m.path.User, role)
	if m.world.Member == nil {
		return unknown("%s is not known", what)
	}
	is, err := m.world.Member(m.path.User, role)
	return asked(what, is, err)
}

func (m matcher) name(t token, name string) answer {
	pattern, ok := t.pattern(m.major)
	if !ok {
		return decided(t.Text == name)
	}
	what := fmt.Sprintf("whether %q matches the regular expression %q", name, pattern)
	if m.world.Regexp != nil {
		is, err := m.world.Regexp(pattern, name)
		return asked(what, is, err)
	}
	is, ok := plainMatch(pattern, name)
	if !ok {
		return unknown("%s is not known", what)
	}
	return decided(is)
}

func (m matcher) address(a address) answer {
	client := m.path.Addr
	switch a.Kind {
	case masked:
		if a.zone != "" {
			// Where there is no such interface it is a host's name, and one that none has.
			return unknownIf(a.contains(client), "whether the server has the network interface %q is not known", a.zone)
		}
		return decided(a.contains(client))
	case sameHost, sameNet:
		if m.world.Networks == nil {
			return unknown("the server's own addresses are not known")
		}
		for _, n := range m.world.Networks {
			if n.Addr().WithZone("") == client || a.Kind == sameNet && n.Contains(client) {
				return decided(true)
			}
		}
		return decided(false)
	case hostName:
		return m.hostname(a.Name)
	}
	return decided(true) // all, and what is not looked at for a socket
}

func unknownIf(is bool, format string, args ...any) answer {
	if !is {
		return decided(false)
	}
	return unknown(format, args...)
}

func (m matcher) hostname(pattern string) answer {
	what := fmt.Sprintf("whether the name of %s is %q", m.path.Addr, pattern)
	if m.world.Hostname == nil {
		return unknown("%s is not known", what)
	}
	name, confirmed, err := m.world.Hostname(m.path.Addr)
	return asked(what, name != "" && confirmed && matchesHostname(pattern, name), err)
}
