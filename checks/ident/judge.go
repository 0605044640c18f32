package ident

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/pgdb"
)

// fault is one thing that is wrong, wherever it shows.
type fault struct {
	code   string
	record *record // that is at fault, or that ought to be; nil for what is not about one
	ways   []*way  // on which it shows, in libpq's order
}

// verdict is what is concluded from what was seen.
type verdict struct {
	seen    *seen
	faults  []*fault
	unknown error // what could not be told
}

// passwordMethods are those with which a server asks for a password that it keeps.
var passwordMethods = []string{"scram-sha-256", "md5", "password"}

func judge(s *seen) *verdict {
	v := &verdict{seen: s}
	if s.rules == nil {
		for i := range s.ways {
			if s.ways[i].refused() {
				v.add(LoginNotExplored, nil, &s.ways[i])
			}
		}
		if len(v.faults) == 0 {
			v.unknown = errors.New(s.blind)
		}
		return v
	}
	for _, r := range s.rules.faulty() {
		v.add(FileError, r, nil)
	}
	if s.server.differs != "" {
		v.unknown = fmt.Errorf("the server reads its file otherwise than the doctor does, which therefore does not judge it: %s", s.server.differs)
		return v
	}
	if s.pending() {
		v.add(NotReloaded, nil, nil)
	}
	for i := range s.ways {
		v.judgeWay(&s.ways[i])
	}
	v.trustElsewhere()
	return v
}

// pending reports whether the file is newer than the rules that the server goes by.
func (s *seen) pending() bool { return s.asked && s.server.changed.After(s.server.loaded) }

func (v *verdict) add(code string, r *record, w *way) {
	for _, f := range v.faults {
		if f.code == code && f.record == r {
			if w != nil && !slices.Contains(f.ways, w) {
				f.ways = append(f.ways, w)
			}
			return
		}
	}
	f := &fault{code: code, record: r}
	if w != nil {
		f.ways = []*way{w}
	}
	v.faults = append(v.faults, f)
}

func (v *verdict) doubt(format string, args ...any) {
	v.unknown = errors.Join(v.unknown, fmt.Errorf(format, args...))
}

// judgeWay explains what becomes of Synapse's login at one address.
func (v *verdict) judgeWay(w *way) {
	for _, d := range w.decisions {
		if d.Undecided != "" {
			v.doubt("which record decides about Synapse's connection from %s can't be told: %s", w.where(), d.Undecided)
			return
		}
	}
	if w.unsure != "" && !w.accepted() {
		v.doubt("from which address the server sees Synapse come can't be told (%s): give --admin-dsn with the host that Synapse uses", w.unsure)
		return
	}
	if w.accepted() {
		v.judgeAccepted(w)
		return
	}
	for _, d := range w.decisions {
		v.judgeRecord(w, d)
	}
	switch s := v.seen; {
	case v.shows(w), !w.refused(), s.pending(), len(s.rules.faulty()) > 0:
	case !s.asked || !s.role.canLogin || !s.role.hashSeen:
		v.add(LoginNotExplored, w.decision().Record, w)
	default:
		v.doubt("the server refuses Synapse's login from %s, and neither its records nor the role's password say why: its log does", w.where())
	}
}

// judgeAccepted looks at a login that works: whether a password was asked for. Of two attempts, the first that may get in
// is the one that did.
func (v *verdict) judgeAccepted(w *way) {
	if v.seen.pending() { // it got in by the old rules: what will the new ones do?
		v.judgeRecord(w, w.decision())
		return
	}
	for _, d := range w.decisions {
		if d.Record != nil && d.Record.Method != "reject" {
			if d.Record.Method == "trust" {
				v.add(TrustRule, d.Record, w)
			}
			return
		}
	}
	if len(v.seen.rules.faulty()) == 0 {
		v.doubt("Synapse gets in from %s, though no record of %s lets it in", w.where(), v.seen.rules.Path)
	}
}

// shows reports whether a fault that was found already shows on this way too.
func (v *verdict) shows(w *way) bool {
	return slices.ContainsFunc(v.faults, func(f *fault) bool { return slices.Contains(f.ways, w) })
}

// has reports whether a fault was found on a way.
func (v *verdict) has(code string, w *way) bool {
	return slices.ContainsFunc(v.faults, func(f *fault) bool { return f.code == code && slices.Contains(f.ways, w) })
}

// judgeRecord says what is wrong with the record that decides about an attempt.
func (v *verdict) judgeRecord(w *way, d decision) {
	for _, r := range d.NeedTLS {
		v.add(HostsslOnly, r, w)
	}
	if d.Record == nil {
		if len(d.NeedTLS) == 0 {
			v.add(NoRule, nil, w)
		}
		return
	}
	switch method := d.Record.Method; {
	case method == "trust" && !w.accepted() && !v.seen.pending() && v.seen.asked && v.seen.role.canLogin:
		v.doubt("the server refuses Synapse's login from %s, though %s would let anybody in: it may see another address", w.where(), d.Record.where())
	case method == "trust":
		v.add(TrustRule, d.Record, w)
	case method == "ident":
		v.add(IdentRule, d.Record, w)
	case method == "peer":
		v.add(PeerRule, d.Record, w)
	case method == "reject":
		v.add(RejectRule, d.Record, w)
	case slices.Contains(passwordMethods, method):
		v.judgePassword(w, d.Record)
	default:
		v.add(OtherMethod, d.Record, w)
	}
}

// judgePassword tells apart what looks alike from outside: no password, another one, an expired one, the wrong hash.
func (v *verdict) judgePassword(w *way, r *record) {
	s := v.seen
	if w.failure != nil && errors.Is(w.failure, pgdb.ErrNoPassword) || !s.own && !w.accepted() {
		v.add(NotConfigured, nil, w)
		return
	}
	switch role := s.role; {
	case !s.asked || !role.exists || !role.canLogin: // the checks database and connection say so
	case role.expired:
		v.add(PasswordExpired, nil, w)
	case !role.hashSeen:
	case role.hash == pgdb.NoHash:
		v.add(NoRolePassword, nil, w)
	case role.damaged != nil:
		v.doubt("%v", role.damaged)
	case !role.fits:
		v.add(WrongPassword, nil, w)
	case role.hash == pgdb.MD5Hash && r.Method == "scram-sha-256":
		v.add(HashMismatch, r, w)
	}
}

// trustElsewhere lists the trust records that do not decide about Synapse.
func (v *verdict) trustElsewhere() {
	for i := range v.seen.rules.Records {
		r := &v.seen.rules.Records[i]
		decides := slices.ContainsFunc(v.faults, func(f *fault) bool { return f.code == TrustRule && f.record == r })
		if r.Method == "trust" && r.Fault == "" && !decides {
			v.add(TrustElsewhere, r, nil)
		}
	}
}

// needsPassword reports whether the role's password has to be set for Synapse to get in with the configured one.
func (s *seen) needsPassword() bool {
	r := s.role
	return r.exists && r.hashSeen && (r.hash == pgdb.NoHash || r.hash == pgdb.UnknownHash || r.damaged != nil || !r.fits)
}

// method is what a record for Synapse ought to ask for: SCRAM, or md5 while that is how a fitting password is kept.
func (s *seen) method() string {
	if s.role.hashSeen && s.role.hash == pgdb.MD5Hash && s.role.fits {
		return "md5"
	}
	return "scram-sha-256"
}

// from lists the addresses of ways, in words.
func from(ways []*way) string {
	var list []string
	for _, w := range ways {
		if !slices.Contains(list, w.where()) {
			list = append(list, w.where())
		}
	}
	return strings.Join(list, " and ")
}
