package ident

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

func (v *verdict) findings() []doctor.Finding {
	var list []doctor.Finding
	for _, f := range v.faults {
		list = append(list, v.finding(f))
	}
	return list
}

func (v *verdict) finding(f *fault) doctor.Finding {
	s := v.seen
	user, database := s.database.Settings["user"], s.database.Settings["dbname"]
	out := doctor.Finding{Code: f.code, Database: s.database.Label, Severity: doctor.Error, Object: f.object(s), Evidence: map[string]string{}}
	if f.record != nil {
		out.Observed = fmt.Sprintf("%s: %s", f.record.where(), f.record.shown())
	}
	if len(f.ways) > 0 {
		out.Evidence["from"] = from(f.ways)
		if w := f.ways[0]; w.failure != nil && w.failure.SQLSTATE != "" {
			out.Evidence["sqlstate"] = w.failure.SQLSTATE
		}
		if !slices.ContainsFunc(f.ways, func(w *way) bool { return !w.later }) {
			out.Severity = doctor.Warning // Synapse comes to it only when the address before does not answer
		}
		if s.pending() && !slices.ContainsFunc(f.ways, func(w *way) bool { return !w.accepted() }) {
			out.Severity = doctor.Warning // not before the file is loaded
			out.Observed += "; not loaded yet: Synapse gets in by the rules from before"
		}
	}
	who := fmt.Sprintf("Synapse's connection from %s", from(f.ways))
	switch f.code {
	case IdentRule:
		out.Summary = who + " is decided by an ident record: the server asks an ident server who Synapse is, and there is none."
		out.Expected = "a record before it that asks for the password of " + user
	case PeerRule:
		out.Summary = who + fmt.Sprintf(" is decided by a peer record: only the system's user of the name %s would get in.", user)
		out.Expected = "a record before it that asks for the password of " + user + ", or a map from Synapse's system user"
	case RejectRule:
		out.Summary = who + " is turned away by a reject record."
		out.Expected = "a record before it that asks for the password of " + user
	case OtherMethod:
		out.Summary = who + fmt.Sprintf(" is decided by a record with the method %s, and does not get in.", f.record.Method)
		out.Expected = "a record before it that asks for the password of " + user
	case NoRule:
		out.Summary = "No record of pg_hba.conf is for " + who + "."
		out.Observed = fmt.Sprintf("none of the %d records of %s matches database %s, user %s from %s", len(s.rules.Records), s.rules.Path, database, user, from(f.ways))
		out.Expected = "a record that asks for the password of " + user
	case HostsslOnly:
		out.Summary = fmt.Sprintf("The record for %s is only for encrypted connections, and this one is not.", who)
		out.Expected = "a record for this connection as it is, or encryption"
		if !s.server.ssl && s.asked {
			out.Observed += "; the server's setting ssl is off, so that no connection matches it"
		}
	case TrustRule, TrustElsewhere:
		v.trust(f, &out)
	case FileError:
		out.Summary = "pg_hba.conf has an error: the server does not load it, and would not start with it."
		out.Observed = fmt.Sprintf("%s: %s: %s", f.record.where(), f.record.shown(), f.record.Fault)
		out.Expected = "a file that the server accepts"
	case NotReloaded:
		out.Severity = doctor.Warning
		out.Summary = "pg_hba.conf was changed after the server had last loaded it: what it says is not in force."
		out.Observed = fmt.Sprintf("%s is of %s, and the server loaded its files on %s", s.server.newest, stamp(s.server.changed), stamp(s.server.loaded))
		out.Expected = "a server that has loaded the file as it is"
	case HashMismatch:
		out.Summary = fmt.Sprintf("The server keeps the password of %s as md5, and the record asks for SCRAM: nobody gets in with it.", user)
		out.Observed += "; pg_authid keeps md5"
		out.Expected = "the same password, kept for SCRAM-SHA-256"
	case NoRolePassword:
		out.Summary = fmt.Sprintf("The role %s has no password, and the server asks for one.", user)
		out.Observed = "pg_authid.rolpassword is empty"
		out.Expected = "the password in homeserver.yaml"
	case PasswordExpired:
		out.Summary = fmt.Sprintf("The password of the role %s has expired.", user)
		out.Observed = "pg_authid.rolvaliduntil is in the past"
		out.Expected = "a password that does not expire"
	case WrongPassword:
		out.Summary = fmt.Sprintf("The password in homeserver.yaml is not the one of the role %s.", user)
		out.Observed = "what the server keeps (" + string(s.role.hash) + ") is of another password"
		out.Expected = "one password on both sides"
	case NotConfigured:
		out.Summary = fmt.Sprintf("The server asks for the password of %s, and homeserver.yaml has none.", user)
		out.Observed = "no password under database: args:"
		out.Expected = "a password on both sides"
	case LoginNotExplored:
		out.Summary = fmt.Sprintf("The server refuses the login of %s, and why can only be seen by an administrator of the server.", user)
		out.Observed = strings.TrimPrefix(out.Observed+"; "+s.blindness(), "; ")
		if s.asked && !s.role.canLogin {
			out.Summary = fmt.Sprintf("The server refuses the login of %s: there is no such role, or it may not log in.", user)
			out.Observed = "no role " + user + " that may log in"
		}
		out.Expected = "a record of pg_hba.conf and a password that let Synapse in"
	}
	if out.Evidence["from"] == "" {
		delete(out.Evidence, "from")
	}
	v.remedy(f, &out)
	return out
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// trust judges by how far the record reaches where it decides about Synapse. Elsewhere it is a fact worth knowing.
func (v *verdict) trust(f *fault, out *doctor.Finding) {
	user := v.seen.database.Settings["user"]
	out.Expected = "records that ask for a password"
	network := slices.ContainsFunc(f.ways, func(w *way) bool { return w.client.IsValid() && !w.client.IsLoopback() })
	switch {
	case f.code == TrustElsewhere:
		out.Severity = doctor.Info
		out.Summary = "A trust record lets whoever it matches in without a password. It does not decide about Synapse's connection."
	case network:
		out.Severity = doctor.Error
		out.Summary = fmt.Sprintf("Anybody who reaches the server from %s can be %s: the record that decides about Synapse's connection asks for no password.", f.record.Address, user)
	default:
		out.Severity = doctor.Warning
		out.Summary = fmt.Sprintf("Every user and program of this machine can be %s: the record that decides about Synapse's connection asks for no password.", user)
		if f.record.reachesTheNetwork() {
			out.Summary = fmt.Sprintf("Whoever reaches the server from %s can be %s: the record that decides about Synapse's connection asks for no password.", f.record.Address, user)
		}
	}
}

// object is what a fault is about.
func (f *fault) object(s *seen) doctor.Object {
	switch {
	case f.record != nil && f.code != LoginNotExplored:
		return doctor.Object{Kind: "file", Name: f.record.where()}
	case f.code == NotReloaded:
		return doctor.Object{Kind: "file", Name: s.server.newest}
	case f.code == NoRule:
		return doctor.Object{Kind: "file", Name: s.rules.Path}
	}
	return doctor.Object{Kind: "role", Name: s.database.Settings["user"]}
}

// remedy says what to do, and whether the doctor does it.
func (v *verdict) remedy(f *fault, out *doctor.Finding) {
	s := v.seen
	if f.code == TrustElsewhere {
		out.Remedy = "Where nothing relies on it, let the record ask for a password (scram-sha-256) and have the server load the file:\n\n    " + doctor.ReloadStatement + ";"
		return
	}
	if f.code == FileError {
		out.Remedy = fmt.Sprintf("Correct the line by hand, then see that the server has no objection left, and have it load the file:\n\n    SELECT * FROM pg_hba_file_rules WHERE error IS NOT NULL;\n    %s;", doctor.ReloadStatement)
		return
	}
	if f.code == LoginNotExplored && s.asked && !s.role.canLogin {
		out.Remedy = "Make the role, or let it log in:\n\n    synapse-doctor fix database"
		return
	}
	if f.code == LoginNotExplored {
		out.Remedy = s.whoMayLook()
		return
	}
	p := v.prescribe()
	out.Remedy, out.Fixable = p.words(f), p.offered(f)
}

// shown is the record on one line.
func (r *record) shown() string { return strings.ReplaceAll(r.Text, "\t", " ") }

// blindness says why it could not be seen what decides.
func (s *seen) blindness() string {
	switch {
	case s.blind != "":
		return s.blind
	case !s.asked:
		return s.database.NoAdmin
	}
	return "the administrator's role may not see how the password is kept: it takes a superuser"
}

// whoMayLook is what to run, and as whom, where the doctor was not let near enough.
func (s *seen) whoMayLook() string {
	text := "The server's log says which record of pg_hba.conf decided, and why. The doctor sees it too when it is run on the server's machine as root or as the server's user, and where PostgreSQL is in a container, through its socket or published port with --admin-dsn:\n\n    sudo synapse-doctor check ident"
	if host := s.database.Settings["host"]; host != "" && !strings.HasPrefix(host, "/") {
		text += fmt.Sprintf("\n\nFrom another machine, with an administrator's login (the password goes into PGPASSFILE):\n\n    synapse-doctor check ident --admin-dsn %q", fmt.Sprintf("host=%s port=%s user=postgres", host, s.database.Settings["port"]))
	}
	return text
}
